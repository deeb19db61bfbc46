//! What every kind of store does: in memory, inline on a simulated disk, on threads and files.

use std::ops::Bound;
use std::sync::Mutex;
use std::time::Duration;

use super::*;

/// Runs `test` with each kind of store.
async fn each_kind<F: Future>(test: impl Fn(Store) -> F) {
    test(Store::in_memory()).await;
    test(open_sim(&SimDisk::new(1), Executor::Inline).unwrap()).await;
    test(open_sim(&SimDisk::new(1), Executor::Threads).unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    test(Store::open(dir.path(), tiny()).unwrap()).await;
}

#[tokio::test]
async fn a_batch_is_readable_when_it_is_answered() {
    each_kind(async |store: Store| {
        assert_eq!(store.sequence(), 0);
        assert_eq!(get(&store, "a"), None);
        assert_eq!(write_now(&store, put("a", "1")), Ok(1));
        assert_eq!(get(&store, "a").as_deref(), Some("1"));
        let mut batch = put("b", "2");
        batch.delete(b"a".to_vec());
        batch.put(b"b".to_vec(), b"3".to_vec());
        assert_eq!((batch.len(), batch.is_empty()), (3, false));
        assert_eq!(write_now(&store, batch), Ok(2));
        assert_eq!(
            (get(&store, "a"), get(&store, "b")),
            (None, Some("3".into()))
        );
        assert_eq!((store.sequence(), store.queued_bytes()), (2, 0));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_empty_batch_is_answered_and_takes_no_number() {
    each_kind(async |store: Store| {
        assert_eq!(write_now(&store, Batch::default()), Ok(0));
        assert_eq!(write_now(&store, put("a", "1")), Ok(1));
        assert_eq!(write_now(&store, Batch::default()), Ok(1));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn pages_of_a_scan_are_the_scan() {
    each_kind(async |store: Store| {
        for round in 0..200_u32 {
            let mut batch = put(&format!("p/{:02}", round * 7 % 90), &round.to_string());
            batch.delete(format!("p/{:02}", round * 13 % 90).into_bytes());
            batch.put(format!("q/{round}").into_bytes(), vec![0; 20]);
            write_now(&store, batch).unwrap();
            if round % 20 != 19 {
                continue;
            }
            for (prefix, pairs_max) in [("p/", 1), ("p/", 7), ("p/", 500), ("", 30), ("r", 7)] {
                let prefix = prefix.as_bytes();
                let (mut paged, mut after) = (Vec::new(), Vec::new());
                loop {
                    let max = PageMax {
                        pairs: pairs_max,
                        bytes: usize::MAX,
                    };
                    let from = Bound::Excluded(after.as_slice());
                    let (page, next) = store.scan_page(prefix, from, max).unwrap();
                    assert!(page.len() <= 3 * pairs_max);
                    paged.extend(page);
                    let Some(next) = next else { break };
                    assert!(next > after);
                    after = next;
                }
                assert_eq!(paged, store.scan(prefix).unwrap());
            }
        }
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_scan_is_ordered_and_merges_old_and_new() {
    each_kind(async |store: Store| {
        let mut model = Model::new();
        for round in 0..200_u32 {
            let mut batch = put(&format!("p/{:02}", round * 7 % 50), &round.to_string());
            batch.delete(format!("p/{:02}", round * 3 % 50).into_bytes());
            batch.put(format!("q/{round}").into_bytes(), vec![0; 20]);
            apply(&mut model, &batch);
            write_now(&store, batch).unwrap();
        }
        let pairs = store.scan(b"p/").unwrap();
        assert!(pairs.is_sorted());
        let expected: Vec<_> = model
            .iter()
            .filter(|(key, _)| key.starts_with(b"p/"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(pairs, expected);
        assert_eq!(contents(&store), model);
        for (key, value) in &model {
            assert_eq!(store.get(key).unwrap().as_ref(), Some(value));
        }
        assert_eq!(store.scan(b"p0").unwrap(), []);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_writes() {
    each_kind(async |store: Store| {
        let order = Arc::new(Mutex::new(Vec::new()));
        for number in 0..500_u64 {
            let order = order.clone();
            let durability = match number % 3 {
                0 => Durability::Now,
                _ => Durability::Lazy,
            };
            store.write(put("n", &number.to_string()), durability, move |result| {
                order.lock().unwrap().push(result.unwrap());
            });
        }
        assert_eq!(store.flush().await, Ok(500));
        assert_eq!(*order.lock().unwrap(), (1..=500).collect::<Vec<_>>());
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn lazy_batches_are_durable_after_a_flush() {
    each_kind(async |store: Store| {
        let (answer, answered) = mpsc::channel();
        store.write(put("a", "1"), Durability::Lazy, move |result| {
            answer.send(result).unwrap();
        });
        assert_eq!(store.flush().await, Ok(1));
        assert_eq!(answered.try_recv().unwrap(), Ok(1));
        assert_eq!(get(&store, "a").as_deref(), Some("1"));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn lazy_batches_ride_along_with_the_next_urgent_one() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk, Executor::Inline).unwrap();
    let before = disk.changes();
    store.write(put("a", "1"), Durability::Lazy, |_| {});
    assert_eq!(disk.changes(), before);
    assert_eq!(write_now(&store, put("b", "2")), Ok(2));
    // Zeros ahead, the group, the sync.
    assert_eq!(disk.changes(), before + 3);
    assert_eq!(get(&store, "a").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_lazy_batch_is_durable_soon_by_itself() {
    let store = open_sim(&SimDisk::new(1), Executor::Threads).unwrap();
    let (answer, answered) = mpsc::channel();
    store.write(put("a", "1"), Durability::Lazy, move |result| {
        answer.send(result).unwrap();
    });
    assert_eq!(answered.recv_timeout(Duration::from_secs(5)), Ok(Ok(1)));
    store.close().await;
}

#[tokio::test]
async fn after_a_close_everything_says_closed() {
    each_kind(async |store: Store| {
        write_now(&store, put("a", "1")).unwrap();
        let clone = store.clone();
        tokio::join!(store.close(), clone.close());
        store.close().await;
        assert_eq!(write_now(&store, put("b", "2")), Err(StoreFailed::Closed));
        assert_eq!(store.flush().await, Err(StoreFailed::Closed));
        assert_eq!(store.get(b"a"), Err(StoreFailed::Closed));
        assert_eq!(store.scan(b"a"), Err(StoreFailed::Closed));
        assert_eq!(store.failure(), None);
        let failed = tokio::time::timeout(Duration::from_millis(10), clone.failed());
        assert!(failed.await.is_err(), "a close is no failure");
    })
    .await;
}

#[tokio::test]
async fn a_callback_may_write() {
    each_kind(async |store: Store| {
        let again = store.clone();
        let (answer, answered) = mpsc::channel();
        store.write(put("a", "1"), Durability::Now, move |_| {
            again.write(put("b", "2"), Durability::Now, move |result| {
                answer.send(result).unwrap();
            });
        });
        assert_eq!(answered.recv().unwrap(), Ok(2));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_callback_that_panics_poisons_the_store_and_takes_no_answer_along() {
    each_kind(async |store: Store| {
        let (answer, answered) = mpsc::channel();
        store.write(put("a", "1"), Durability::Lazy, |_| panic!("on purpose"));
        store.write(put("b", "2"), Durability::Now, move |result| {
            answer.send(result).unwrap();
        });
        // In memory they are two groups, and the second finds the store poisoned.
        let answer = answered.recv().unwrap();
        assert!(matches!(answer, Ok(2) | Err(StoreFailed::Poisoned(_))));
        assert!(matches!(store.failed().await, StoreFailed::Poisoned(_)));
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_threads_write_and_read_what_they_wrote() {
    each_kind(async |store: Store| {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..50 {
                        let (answer, answered) = mpsc::channel();
                        let (key, value) = (format!("{thread}"), format!("{round}"));
                        store.write(put(&key, &value), Durability::Now, move |result| {
                            answer.send(result).unwrap();
                        });
                        answered.recv().unwrap().unwrap();
                        assert_eq!(get(store, &key), Some(value));
                    }
                });
            }
        });
        assert_eq!(store.sequence(), 400);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_batch_over_the_limit_is_refused_and_harms_nobody() {
    let store = Store::in_memory();
    let mut batch = Batch::default();
    batch.put(Vec::new(), vec![0; BATCH_BYTES_MAX]);
    let refused = write_now(&store, batch);
    assert!(matches!(refused, Err(StoreFailed::TooLarge { .. })));
    assert_eq!(write_now(&store, put("a", "1")), Ok(1));
}

#[tokio::test]
async fn a_store_without_handles_still_writes_what_was_queued() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk, Executor::Threads).unwrap();
    let (answer, answered) = mpsc::channel();
    for number in 0..100 {
        let answer = answer.clone();
        store.write(
            put("n", &number.to_string()),
            Durability::Lazy,
            move |result| {
                answer.send(result).unwrap();
            },
        );
    }
    drop((store, answer));
    assert!(answered.iter().eq((1..=100).map(Ok)));
}

#[tokio::test]
async fn without_handles_an_inline_store_answers_what_it_did_not_write() {
    let store = open_sim(&SimDisk::new(1), Executor::Inline).unwrap();
    let (answer, answered) = mpsc::channel();
    store.write(put("a", "1"), Durability::Lazy, move |result| {
        answer.send(result).unwrap();
    });
    drop(store);
    assert!(matches!(
        answered.recv().unwrap(),
        Err(StoreFailed::Poisoned(_))
    ));
}
