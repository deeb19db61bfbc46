//! What lay on the disk, synced, and changed by itself: bits, whole files, a whole folder.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::checkpoint::CHECKPOINT;
use super::*;

/// `states[n]` are the contents after batch `n`.
struct Sample {
    disk: SimDisk,
    states: Vec<Model>,
    /// How many batches were in the last group.
    last_group: usize,
}

/// A store with a few checkpoints behind it and a few batches in its log.
fn sample(seed: u64) -> Sample {
    let mut chance = StdRng::seed_from_u64(seed);
    let disk = SimDisk::new(chance.random());
    let config = StoreConfig {
        segment_bytes_max: 6_000,
        ..tiny()
    };
    let store = Store::open_on(Arc::new(disk.clone()), config, Executor::Inline).unwrap();
    let mut states = vec![Model::new()];
    let mut last_group = 0;
    for _ in 0..chance.random_range(1..200) {
        last_group = chance.random_range(1..4);
        for number in (0..last_group).rev() {
            let mut batch = Batch::default();
            let key = format!("k{}", chance.random_range(0..100));
            let value: [u8; 40] = chance.random();
            batch.put(key.into_bytes(), value.to_vec());
            batch.delete(format!("k{}", chance.random_range(0..100)).into_bytes());
            let mut state = states.last().unwrap().clone();
            apply(&mut state, &batch);
            states.push(state);
            let durability = match number {
                0 => Durability::Now,
                _ => Durability::Lazy,
            };
            store.write(batch, durability, |result| assert!(result.is_ok()));
        }
    }
    if chance.random_bool(0.5) {
        futures::executor::block_on(store.close());
    }
    drop(store);
    Sample {
        disk: disk.kill(),
        states,
        last_group,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Corrupt,
    Version,
    /// Opened, with exactly the right contents.
    Right,
    /// Opened without the last group, which looked torn.
    Cut,
}

/// Opens what a store became; anything but an honest outcome is a panic.
fn open_damaged(sample: &Sample, disk: &SimDisk, told: &str, goes_on: bool) -> Outcome {
    let opened = match open_sim(disk, Executor::Inline) {
        Ok(opened) => opened,
        Err(StoreOpenError::Corrupt { .. }) => return Outcome::Corrupt,
        Err(StoreOpenError::Version { .. }) => return Outcome::Version,
        Err(error) => panic!("{told}: {error}"),
    };
    let sequence = opened.sequence() as usize;
    let last = sample.states.len() - 1;
    assert!(
        sequence == last || sequence == last - sample.last_group,
        "{told}: {sequence} of {last}"
    );
    assert!(
        contents(&opened) == sample.states[sequence],
        "{told}: wrong contents"
    );
    let mut model = sample.states[sequence].clone();
    // And it goes on as if nothing had been.
    for number in 0..if goes_on { 60 } else { 0 } {
        let batch = put(&format!("k{number}"), &"n".repeat(60));
        apply(&mut model, &batch);
        write_now(&opened, batch).unwrap();
    }
    drop(opened);
    let again = open_sim(&disk.kill(), Executor::Inline).unwrap();
    assert!(contents(&again) == model, "{told}: wrong contents later");
    match sequence == last {
        true => Outcome::Right,
        false => Outcome::Cut,
    }
}

/// Where flips are worth while: half of them in the front of the file, where headers are, the
/// other half anywhere up to its last byte that is not zero.
fn random_bit(bytes: &[u8], chance: &mut StdRng) -> usize {
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
    let end = match chance.random_range(0..10) {
        0..3 => bytes.len().min(512),
        3..9 => used + 1,
        _ => bytes.len(),
    };
    chance.random_range(0..end * 8)
}

#[test]
fn a_flipped_bit_is_an_error_or_no_matter_and_never_another_value() {
    let mut outcomes = BTreeMap::new();
    for seed in 0..60 {
        let sample = sample(seed);
        let mut chance = StdRng::seed_from_u64(seed);
        for flip in 0..50 {
            let disk = sample.disk.copy();
            let files = disk.files();
            let name = &files[chance.random_range(0..files.len())];
            let bit = random_bit(&disk.bytes(name), &mut chance);
            disk.flip_bit(name, bit);
            let told = format!("seed {seed}, flip {flip}: bit {bit} of {name}");
            let outcome = open_damaged(&sample, &disk, &told, flip % 4 == 0);
            *outcomes.entry((name != CHECKPOINT, outcome)).or_insert(0) += 1;
        }
    }
    println!("(in the log, outcome): {outcomes:?}");
    for (in_log, outcome, expected) in [
        (false, Outcome::Corrupt, 200),
        (false, Outcome::Right, 100),
        (true, Outcome::Corrupt, 200),
        (true, Outcome::Cut, 20),
        (true, Outcome::Right, 20),
    ] {
        let count = outcomes.get(&(in_log, outcome)).copied().unwrap_or(0);
        assert!(count >= expected, "{in_log} {outcome:?}: {count}");
    }
}

/// Also what no checksum of redb covers: which of its two commits is the last one.
#[test]
fn every_flipped_bit_of_the_checkpoints_header_is_an_error_or_no_matter() {
    let sample = sample(3);
    let mut outcomes = BTreeMap::new();
    for bit in 0..320 * 8 {
        let disk = sample.disk.copy();
        disk.flip_bit(CHECKPOINT, bit);
        let outcome = open_damaged(&sample, &disk, &format!("bit {bit}"), bit % 16 == 0);
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    println!("{outcomes:?}");
    assert!(outcomes.keys().eq(&[Outcome::Corrupt, Outcome::Right]));
}

#[test]
fn a_file_cut_short_is_an_error_or_loses_the_last_group() {
    let mut outcomes = BTreeMap::new();
    for seed in 0..40 {
        let sample = sample(1_000 + seed);
        let mut chance = StdRng::seed_from_u64(seed);
        for _ in 0..10 {
            let disk = sample.disk.copy();
            let files = disk.files();
            let name = &files[chance.random_range(0..files.len())];
            let bytes = disk.bytes(name);
            let length = random_bit(&bytes, &mut chance) / 8;
            disk.truncate(name, length);
            let told = format!("seed {seed}: {name} at {length}");
            // A log that ends between two groups looks like one that was never longer; a peer
            // knows better (`sequence`). So only what is there is judged.
            if name == CHECKPOINT {
                let outcome = open_damaged(&sample, &disk, &told, true);
                *outcomes.entry(outcome).or_insert(0) += 1;
            } else if let Ok(opened) = open_sim(&disk, Executor::Inline) {
                let state = &sample.states[opened.sequence() as usize];
                assert!(contents(&opened) == *state, "{told}");
            }
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes[&Outcome::Corrupt] > 50);
}

/// Syncs that report success and do nothing. What was acknowledged may be gone, but what is there
/// is all of some moment.
#[test]
fn a_sync_that_lies_costs_whole_batches_or_is_an_error() {
    let (sound, original) = checkpointed();
    let mut outcomes = BTreeMap::new();
    for seed in 0..200 {
        let mut chance = StdRng::seed_from_u64(seed);
        let disk = sound.copy();
        let store = open_with_cache(&disk, 0);
        let opened = store.sequence();
        let mut models = vec![original.clone()];
        disk.lie_about_syncs();
        for number in 0..chance.random_range(1..60) {
            let batch = put(&format!("k{}", number * 5), &number.to_string().repeat(30));
            let mut model = models[models.len() - 1].clone();
            apply(&mut model, &batch);
            models.push(model);
            write_now(&store, batch).unwrap();
        }
        drop(store);
        let outcome = match open_sim(&disk.cut_power(), Executor::Inline) {
            Ok(store) => {
                let kept = (store.sequence() - opened) as usize;
                assert!(contents(&store) == models[kept], "seed {seed}");
                match models.len() - 1 - kept {
                    0 => Outcome::Right,
                    _ => Outcome::Cut,
                }
            }
            Err(StoreOpenError::Corrupt { .. }) => Outcome::Corrupt,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    println!("{outcomes:?}");
    assert_eq!(outcomes.len(), 3);
}

#[test]
fn files_of_two_moments_are_an_error_or_right() {
    let mut refused = 0;
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let store = open_sim(&disk, Executor::Inline).unwrap();
        let mut models = vec![Model::new()];
        let mut early = None;
        for number in 0..60 {
            if number == seed {
                early = Some(disk.copy());
            }
            let batch = put(&format!("{}", number % 7), &number.to_string().repeat(30));
            let mut model = models[models.len() - 1].clone();
            apply(&mut model, &batch);
            models.push(model);
            write_now(&store, batch).unwrap();
        }
        drop(store);
        for (target, source) in [
            (disk.copy(), early.clone().unwrap()),
            (early.unwrap(), disk.kill()),
        ] {
            target.damage(CHECKPOINT, |bytes| *bytes = source.bytes(CHECKPOINT));
            match open_sim(&target, Executor::Inline) {
                Ok(store) => {
                    let state = &models[store.sequence() as usize];
                    assert!(contents(&store) == *state, "seed {seed}");
                }
                Err(StoreOpenError::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    assert!(refused > 30, "{refused}");
}

#[test]
fn an_older_copy_opens_as_of_its_moment_and_its_sequence_number_tells() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk, Executor::Inline).unwrap();
    let mut copies = Vec::new();
    for number in 0..100_u64 {
        copies.push(disk.copy());
        write_now(&store, put("a", &number.to_string().repeat(40))).unwrap();
    }
    let mut before: Option<String> = None;
    for (number, copy) in copies.iter().enumerate() {
        let store = open_sim(copy, Executor::Inline).unwrap();
        assert_eq!(
            (store.sequence(), get(&store, "a")),
            (number as u64, before)
        );
        before = Some(number.to_string().repeat(40));
    }
    disk.wipe();
    let store = open_sim(&disk.kill(), Executor::Inline).unwrap();
    assert_eq!((store.sequence(), get(&store, "a")), (0, None));
}

/// A store with all it holds in the checkpoint.
fn checkpointed() -> (SimDisk, Model) {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk, Executor::Inline).unwrap();
    let mut model = Model::new();
    for number in 0..300 {
        let batch = put(&format!("k{number}"), &format!("{number}").repeat(20));
        apply(&mut model, &batch);
        write_now(&store, batch).unwrap();
    }
    futures::executor::block_on(store.close());
    (disk, model)
}

fn open_with_cache(disk: &SimDisk, cache_bytes_max: usize) -> Store {
    let config = StoreConfig {
        cache_bytes_max,
        ..tiny()
    };
    Store::open_on(Arc::new(disk.clone()), config, Executor::Inline).unwrap()
}

#[test]
fn a_page_that_rots_while_the_store_runs_stops_it_and_is_never_an_answer() {
    let (sound, original) = checkpointed();
    let mut stopped = 0;
    for seed in 0..200 {
        let mut chance = StdRng::seed_from_u64(seed);
        let (disk, mut model) = (sound.copy(), original.clone());
        let store = open_with_cache(&disk, [0, 0, 20_000][chance.random_range(0..3)]);
        let bytes = disk.bytes(CHECKPOINT);
        for _ in 0..20 {
            disk.flip_bit(CHECKPOINT, random_bit(&bytes, &mut chance));
        }
        let told = format!("seed {seed}");
        for number in 0..300 {
            let key = format!("k{}", chance.random_range(0..310)).into_bytes();
            match number % 10 {
                0 => match store.scan(b"k1") {
                    Ok(pairs) => {
                        let expected = model.iter().filter(|(key, _)| key.starts_with(b"k1"));
                        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key, value)).collect();
                        assert!(pairs == expected.collect::<Vec<_>>(), "{told}");
                    }
                    Err(_) => break,
                },
                1 => {
                    let batch = put(&format!("new{number}"), &"x".repeat(300));
                    let mut after = model.clone();
                    apply(&mut after, &batch);
                    match write_now(&store, batch) {
                        Ok(_) => model = after,
                        Err(_) => break,
                    }
                }
                _ => match store.get(&key) {
                    Ok(value) => assert_eq!(value.as_ref(), model.get(&key), "{told}"),
                    Err(_) => break,
                },
            }
        }
        let Some(failure) = store.failure() else {
            continue;
        };
        stopped += 1;
        assert_eq!(store.get(b"k1"), Err(failure.clone()));
        let words = failure.to_string();
        assert!(
            words.contains("damaged") && words.contains("restart"),
            "{words}"
        );
        drop(store);
        // The restart verifies, and refuses unless the damage is where nothing is.
        match open_sim(&disk.kill(), Executor::Inline) {
            Ok(store) => assert!(contents(&store) == model, "{told}"),
            Err(StoreOpenError::Corrupt { .. }) => {}
            Err(error) => panic!("{told}: {error}"),
        }
    }
    println!("stopped {stopped} of 200");
    assert!(stopped > 50, "{stopped}");
}

#[test]
fn a_read_that_fails_stops_the_store_and_a_restart_has_everything() {
    let (disk, model) = checkpointed();
    let store = open_with_cache(&disk, 0);
    disk.fail_reads(0, 1);
    let failure = store.get(b"k7").unwrap_err();
    assert!(matches!(failure, StoreFailed::Poisoned(_)), "{failure}");
    assert_eq!(store.get(b"k7"), Err(failure.clone()));
    assert_eq!(write_now(&store, put("a", "1")), Err(failure.clone()));
    assert_eq!(store.failure(), Some(failure));
    drop(store);
    let store = open_sim(&disk.kill(), Executor::Inline).unwrap();
    assert!(contents(&store) == model);
}
