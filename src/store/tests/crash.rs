//! Power cuts, kills and failing syncs, against a plain model.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn random_batch(chance: &mut StdRng) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..chance.random_range(1..5) {
        let key = format!("k{}", chance.random_range(0..40)).into_bytes();
        if chance.random_bool(0.25) {
            batch.delete(key);
        } else {
            let value_bytes = match chance.random_range(0..10) {
                0 => 3_000,
                _ => 60,
            };
            let mut value = vec![0; chance.random_range(0..value_bytes)];
            chance.fill(&mut value[..]);
            batch.put(key, value);
        }
    }
    batch
}

/// One seed: many processes, one after the other, on one disk.
fn live(seed: u64, lives: usize, executor: Executor) {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut disk = SimDisk::new(chance.random());
    // `states[n]` is the model after batch `n`.
    let mut states = vec![Model::new()];
    let mut promised = 0;
    for life in 0..lives {
        let told = format!("seed {seed}, life {life}");
        if chance.random_bool(0.8) {
            disk.fail_after_changes(chance.random_range(0..120));
        }
        if chance.random_bool(0.1) {
            disk.fail_after_syncs(chance.random_range(0..40));
        }
        // The cut may come while the store recovers from the one before.
        let opened = open_sim(&disk, executor);
        let acknowledged = Arc::new(AtomicU64::new(0));
        match &opened {
            Ok(store) => {
                let sequence = store.sequence() as usize;
                assert!(
                    promised <= sequence,
                    "{told}: acknowledged batches are lost"
                );
                assert!(sequence < states.len(), "{told}: batches out of nowhere");
                states.truncate(sequence + 1);
                // What a store has shown it must keep.
                promised = sequence;
                if let Ok(pairs) = store.scan(b"") {
                    let pairs: Model = pairs.into_iter().collect();
                    assert!(pairs == states[sequence], "{told}: wrong contents");
                }
                work(store, &mut states, &mut chance, &acknowledged);
                if chance.random_bool(0.1) {
                    futures::executor::block_on(store.close());
                }
            }
            Err(StoreOpenError::Io { .. }) => {}
            Err(error) => panic!("{told}: {error}"),
        }
        disk = match chance.random_bool(0.2) {
            true => disk.kill(),
            false => disk.cut_power(),
        };
        promised = promised.max(acknowledged.load(Ordering::SeqCst) as usize);
    }
}

fn work(
    store: &Store,
    states: &mut Vec<Model>,
    chance: &mut StdRng,
    acknowledged: &Arc<AtomicU64>,
) {
    let failed = Arc::new(AtomicBool::new(false));
    for _ in 0..chance.random_range(0..60) {
        let batch = random_batch(chance);
        let mut model = states.last().unwrap().clone();
        apply(&mut model, &batch);
        states.push(model);
        let durability = match chance.random_bool(0.7) {
            true => Durability::Now,
            false => Durability::Lazy,
        };
        let expected = states.len() as u64 - 1;
        let (failed, acknowledged) = (failed.clone(), acknowledged.clone());
        store.write(batch, durability, move |result| match result {
            Ok(sequence) => {
                assert_eq!(sequence, expected);
                assert!(!failed.load(Ordering::SeqCst), "a success after a failure");
                acknowledged.store(sequence, Ordering::SeqCst);
            }
            Err(_) => failed.store(true, Ordering::SeqCst),
        });
    }
    if chance.random_bool(0.5) {
        let _ = futures::executor::block_on(store.flush());
    }
    if store.failure().is_none() && chance.random_bool(0.5) {
        assert!(store.get(b"k1").is_ok() || store.failure().is_some());
    }
}

/// Inline, so that a failing seed replays.
#[test]
fn no_power_cut_loses_an_acknowledged_batch_or_tears_one() {
    for seed in 0..24 {
        live(seed, 25, Executor::Inline);
    }
}

#[test]
fn no_power_cut_under_threads_loses_an_acknowledged_batch_or_tears_one() {
    for seed in 1_000..1_010 {
        live(seed, 20, Executor::Threads);
    }
}

#[test]
fn a_process_that_is_killed_leaves_what_it_has_not_synced_and_the_next_one_makes_it_durable() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let store = open_sim(&disk, Executor::Inline).unwrap();
        write_now(&store, put("a", "1")).unwrap();
        // The group reaches the cache, its sync fails.
        disk.fail_after_syncs(0);
        assert!(write_now(&store, put("a", "2")).is_err());
        drop(store);
        let killed = disk.kill();
        let store = open_sim(&killed, Executor::Inline).unwrap();
        assert_eq!(get(&store, "a").as_deref(), Some("2"));
        drop(store);
        let store = open_sim(&killed.cut_power(), Executor::Inline).unwrap();
        assert_eq!(get(&store, "a").as_deref(), Some("2"), "seed {seed}");
    }
}

#[tokio::test]
async fn a_failed_sync_poisons_the_store() {
    for executor in [Executor::Inline, Executor::Threads] {
        let disk = SimDisk::new(1);
        let store = open_sim(&disk, executor).unwrap();
        write_now(&store, put("a", "1")).unwrap();
        disk.fail_after_syncs(0);
        let failure = write_now(&store, put("b", "2")).unwrap_err();
        assert!(matches!(failure, StoreFailed::Poisoned(_)), "{failure}");
        let changes = disk.changes();
        assert_eq!(write_now(&store, put("c", "3")), Err(failure.clone()));
        assert_eq!(store.flush().await, Err(failure.clone()));
        assert_eq!(store.get(b"a"), Err(failure.clone()));
        assert_eq!(store.failure(), Some(failure.clone()));
        assert_eq!(store.failed().await, failure);
        assert_eq!(store.sequence(), 1);
        assert_eq!(disk.changes(), changes, "nothing is tried again");
        store.close().await;
    }
}

#[tokio::test]
async fn a_failed_checkpoint_poisons_the_store() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let store = open_sim(&disk, Executor::Threads).unwrap();
        disk.fail_after_syncs(40 + seed);
        let waiting = store.clone();
        let failed = tokio::spawn(async move { waiting.failed().await });
        while write_now(&store, put("a", &"1".repeat(300))).is_ok() {}
        assert_eq!(Some(failed.await.unwrap()), store.failure());
        store.close().await;
    }
}
