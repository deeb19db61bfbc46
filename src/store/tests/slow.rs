//! A sync that takes its time.

use super::*;

#[test]
fn while_a_sync_lasts_nothing_is_answered_reads_go_on_and_later_batches_ride_together() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk, Executor::Threads).unwrap();
    write_now(&store, put("a", "1")).unwrap();
    disk.hold_syncs();
    let (answer, answered) = mpsc::channel();
    let write = |batch| {
        let answer = answer.clone();
        store.write(batch, Durability::Now, move |result| {
            answer.send(result).unwrap();
        });
    };
    write(put("a", "2"));
    disk.wait_until_syncing();
    for number in 0..50 {
        write(put("b", &number.to_string()));
    }
    assert_eq!(get(&store, "a").as_deref(), Some("1"));
    assert_eq!(store.scan(b"").unwrap().len(), 1);
    assert_eq!(store.sequence(), 1);
    assert!(store.queued_bytes() >= 50 * 10);
    assert!(answered.try_recv().is_err(), "answered before the sync");
    let changes = disk.changes();
    disk.release_syncs();
    for sequence in 2..=52 {
        assert_eq!(answered.recv().unwrap(), Ok(sequence));
    }
    assert_eq!(get(&store, "b").as_deref(), Some("49"));
    // That sync, and one write and one sync for all the others.
    assert_eq!(disk.changes(), changes + 3);
    futures::executor::block_on(store.close());
}

#[test]
fn a_power_cut_during_a_sync_takes_what_it_had_not_confirmed() {
    let mut found = [0; 2];
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let store = open_sim(&disk, Executor::Threads).unwrap();
        write_now(&store, put("a", "1")).unwrap();
        disk.hold_syncs();
        let (answer, answered) = mpsc::channel();
        for number in 2..5 {
            let answer = answer.clone();
            let batch = put("a", &number.to_string());
            store.write(batch, Durability::Now, move |result| {
                answer.send(result).unwrap();
            });
        }
        disk.wait_until_syncing();
        let left = disk.cut_power();
        for _ in 2..5 {
            let answer = answered.recv().unwrap();
            assert!(matches!(answer, Err(StoreFailed::Poisoned(_))));
        }
        let store = open_sim(&left, Executor::Inline).unwrap();
        let value = get(&store, "a").unwrap();
        assert_eq!(value, store.sequence().to_string());
        found[usize::from(store.sequence() > 1)] += 1;
    }
    assert!(found.iter().all(|&times| times > 0), "{found:?}");
}
