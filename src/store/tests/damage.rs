//! Damage that no crash explains is reported; a torn end is cut.

use super::super::checkpoint::{CHECKPOINT, CHECKPOINT_NEW};
use super::super::log::segment_name;
use super::super::record::{GROUP_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::*;

/// What one of `three`'s groups takes: header, two lengths, key and value.
const GROUP_BYTES: usize = GROUP_HEADER_BYTES + 8 + 1 + 100;

/// Three groups in the first segment, not checkpointed.
fn three() -> SimDisk {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk, Executor::Inline).unwrap();
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        write_now(&store, put(key, &value.repeat(100))).unwrap();
    }
    drop(store);
    disk.kill()
}

fn open_error(disk: &SimDisk) -> StoreOpenError {
    match open_sim(disk, Executor::Inline) {
        Ok(store) => panic!("opened at {}", store.sequence()),
        Err(error) => error,
    }
}

fn assert_corrupt(disk: &SimDisk) {
    let error = open_error(disk);
    assert!(matches!(error, StoreOpenError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("must not be used again"));
}

#[test]
fn a_flipped_byte_in_a_synced_batch_is_corruption() {
    for group in 0..2 {
        for byte in (0..GROUP_HEADER_BYTES).chain((GROUP_HEADER_BYTES..GROUP_BYTES).step_by(9)) {
            let disk = three();
            disk.damage(&segment_name(1), |bytes| {
                bytes[SEGMENT_HEADER_BYTES + group * GROUP_BYTES + byte] ^= 1;
            });
            assert_corrupt(&disk);
        }
    }
}

#[test]
fn a_lost_batch_before_a_synced_one_is_corruption() {
    let disk = three();
    disk.damage(&segment_name(1), |bytes| {
        bytes[SEGMENT_HEADER_BYTES..][..2 * GROUP_BYTES].fill(0);
    });
    assert_corrupt(&disk);
    let disk = three();
    disk.damage(&segment_name(1), |bytes| {
        bytes.drain(SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + GROUP_BYTES);
    });
    assert_corrupt(&disk);
}

#[test]
fn a_torn_last_batch_is_cut_and_the_log_goes_on() {
    let end = SEGMENT_HEADER_BYTES + 3 * GROUP_BYTES;
    for torn in (0..GROUP_BYTES).step_by(3) {
        let disk = three();
        disk.damage(&segment_name(1), |bytes| bytes[end - 1 - torn] ^= 1);
        let store = open_sim(&disk, Executor::Inline).unwrap();
        assert_eq!((store.sequence(), get(&store, "c")), (2, None));
        assert!(
            disk.bytes(&segment_name(1))[end - GROUP_BYTES..]
                .iter()
                .all(|&byte| byte == 0)
        );
        assert_eq!(write_now(&store, put("d", "4")), Ok(3));
        drop(store);
        let store = open_sim(&disk.kill(), Executor::Inline).unwrap();
        assert_eq!(get(&store, "d").as_deref(), Some("4"));
        assert!(get(&store, "b").is_some());
    }
}

#[test]
fn a_file_cut_anywhere_opens_with_the_batches_before_the_cut() {
    let whole = three().bytes(&segment_name(1)).len();
    for length in (SEGMENT_HEADER_BYTES..whole).step_by(13) {
        let disk = three();
        disk.damage(&segment_name(1), |bytes| bytes.truncate(length));
        let store = open_sim(&disk, Executor::Inline).unwrap();
        let expected = ((length - SEGMENT_HEADER_BYTES) / GROUP_BYTES).min(3);
        assert_eq!(store.sequence(), expected as u64);
        write_now(&store, put("d", "4")).unwrap();
    }
}

#[test]
fn lost_files_are_corruption() {
    let disk = three();
    disk.remove(CHECKPOINT).unwrap();
    assert_corrupt(&disk);
    let disk = three();
    disk.remove(&segment_name(1)).unwrap();
    assert_corrupt(&disk);
    let disk = three();
    disk.damage(CHECKPOINT, |bytes| bytes[..64].fill(7));
    assert_corrupt(&disk);
    let disk = three();
    disk.damage(&segment_name(1), |bytes| bytes[20] ^= 1);
    assert_corrupt(&disk);
}

/// Two segments that are both needed, since the checkpoint of the first one was lost.
fn two_segments() -> SimDisk {
    for changes in 1.. {
        let disk = SimDisk::new(1);
        let store = open_sim(&disk, Executor::Inline).unwrap();
        disk.fail_after_changes(changes);
        let mut number = 0;
        while write_now(&store, put(&number.to_string(), &"x".repeat(100))).is_ok() {
            number += 1;
        }
        drop(store);
        let disk = disk.kill();
        if disk.list().unwrap().contains(&segment_name(2)) {
            let has_header = !disk.bytes(&segment_name(2)).is_empty();
            if has_header {
                return disk;
            }
        }
    }
    unreachable!()
}

#[test]
fn a_segment_lost_or_damaged_before_another_one_is_corruption() {
    let disk = two_segments();
    let store = open_sim(&disk.kill(), Executor::Inline).unwrap();
    assert!(store.sequence() > 10);
    let disk = two_segments();
    disk.remove(&segment_name(1)).unwrap();
    assert_corrupt(&disk);
    // The last batch of a segment that another one follows was synced.
    let disk = two_segments();
    disk.damage(&segment_name(1), |bytes| {
        let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        bytes[last] ^= 1;
    });
    assert_corrupt(&disk);
}

/// The segment after it, which was being created, says that all of this one was synced. It has to
/// go on saying so to whoever tries again.
#[test]
fn a_damaged_end_before_a_segment_that_was_being_created_stays_corruption() {
    let disk = three();
    disk.damage(&segment_name(1), |bytes| {
        bytes[SEGMENT_HEADER_BYTES + 3 * GROUP_BYTES - 1] ^= 1;
    });
    disk.open(&segment_name(2)).unwrap();
    assert_corrupt(&disk);
    assert_corrupt(&disk.kill());
}

#[test]
fn a_segment_that_was_being_created_is_harmless() {
    let disk = two_segments();
    disk.damage(&segment_name(2), |bytes| bytes.truncate(30));
    let store = open_sim(&disk, Executor::Inline).unwrap();
    let sequence = store.sequence();
    assert!(sequence > 10);
    assert_eq!(write_now(&store, put("a", "1")), Ok(sequence + 1));
}

#[test]
fn a_first_start_may_be_interrupted_anywhere() {
    for changes in 0..200 {
        let disk = SimDisk::new(changes);
        disk.fail_after_changes(changes);
        let opened = open_sim(&disk, Executor::Inline);
        let done = opened.is_ok();
        drop(opened);
        for disk in [disk.kill(), disk.kill().cut_power()] {
            let store = open_sim(&disk, Executor::Inline).unwrap();
            assert_eq!(write_now(&store, put("a", "1")), Ok(1));
            assert!(
                !disk
                    .list()
                    .unwrap()
                    .iter()
                    .any(|name| name == CHECKPOINT_NEW)
            );
        }
        if done {
            return;
        }
    }
    panic!("a start takes fewer changes");
}

#[test]
fn a_newer_format_is_refused_by_its_version() {
    let disk = three();
    disk.damage(&segment_name(1), |bytes| {
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    });
    let error = open_error(&disk);
    assert!(
        matches!(error, StoreOpenError::Version { found: 9, known: 1 }),
        "{error}"
    );
}
