//! The store of whole nodes in simulated time: a task on the caller's runtime.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::*;

fn open(disk: &SimDisk) -> Store {
    Store::open_simulated(disk, tiny()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_answered_after_its_sync_and_outlives_a_power_cut() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    assert_eq!(store.write_durably(put("a", "1")).await, Ok(1));
    for number in 2..100 {
        let wrote = store.write_durably(put("n", &number.to_string())).await;
        assert_eq!(wrote, Ok(number));
    }
    let store = open(&disk.cut_power());
    assert_eq!(store.sequence(), 99);
    assert_eq!(get(&store, "n").as_deref(), Some("99"));
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_lazy_batch_is_durable_by_itself_after_its_time() {
    let store = open(&SimDisk::new(1));
    let (answer, answered) = tokio::sync::oneshot::channel();
    let began = Instant::now();
    store.write(put("a", "1"), Durability::Lazy, move |result| {
        answer.send(result).unwrap();
    });
    assert_eq!(answered.await.unwrap(), Ok(1));
    let waited = began.elapsed();
    let due = Duration::from_millis(LAZY_SYNC_AFTER_MS);
    assert!(due <= waited && waited <= due * 2, "{waited:?}");
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn while_syncs_are_held_batches_pile_up_and_a_power_cut_takes_them() {
    let mut kept = [0; 2];
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let store = open(&disk);
        store.write_durably(put("a", "1")).await.unwrap();
        disk.hold_syncs();
        let answered = Arc::new(AtomicU64::new(0));
        for number in 0..10 {
            let answered = answered.clone();
            let batch = put("a", &format!("{number}").repeat(200));
            store.write(batch, Durability::Now, move |result| {
                assert!(result.is_err());
                answered.fetch_add(1, Ordering::SeqCst);
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(answered.load(Ordering::SeqCst), 0);
        assert_eq!((store.sequence(), get(&store, "a")), (1, Some("1".into())));
        let disk = disk.cut_power();
        assert!(store.flush().await.is_err());
        assert_eq!(answered.load(Ordering::SeqCst), 10);
        // The first one had been written when the others queued.
        let store = open(&disk);
        kept[store.sequence() as usize - 1] += 1;
        store.close().await;
    }
    assert!(kept.iter().all(|&count| count > 0), "{kept:?}");
}

#[tokio::test(start_paused = true)]
async fn what_piled_up_goes_out_in_one_sync_when_they_are_released() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    disk.hold_syncs();
    let first = store.write_durably(put("a", "1"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let others: Vec<_> = (0..10)
        .map(|_| store.write_durably(put("b", "2")))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = disk.changes();
    disk.release_syncs();
    assert_eq!(first.await, Ok(1));
    let others = futures::future::join_all(others).await;
    assert!(others.into_iter().eq((2..12).map(Ok)));
    // One sync, one write, one sync.
    assert_eq!(disk.changes(), before + 3);
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_lives_on_as_of_its_moment_and_so_does_the_original() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.write_durably(put("a", "1")).await.unwrap();
    let copy = disk.copy();
    store.write_durably(put("a", "2")).await.unwrap();
    let older = open(&copy);
    assert_eq!((older.sequence(), get(&older, "a")), (1, Some("1".into())));
    assert_eq!(older.write_durably(put("a", "3")).await, Ok(2));
    assert_eq!(get(&store, "a").as_deref(), Some("2"));
    let older = open(&copy.cut_power());
    assert_eq!(get(&older, "a").as_deref(), Some("3"));
}
