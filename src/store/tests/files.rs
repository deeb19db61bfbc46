//! On files of a real file system.

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

/// Without a close the threads end a moment after the last handle.
fn open_when_free(dir: &Path, config: &StoreConfig) -> Store {
    let began = Instant::now();
    loop {
        match Store::open(dir, config.clone()) {
            Err(StoreOpenError::InUse { .. }) if began.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

#[tokio::test]
async fn everything_is_there_after_a_close_and_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/on/the/way");
    let mut model = Model::new();
    for round in 1..=5_u64 {
        let store = Store::open(&path, tiny()).unwrap();
        assert_eq!(store.sequence(), (round - 1) * 40);
        assert_eq!(contents(&store), model);
        for number in 0..40 {
            let batch = put(&format!("{}", number % 7), &format!("{round}/{number}"));
            apply(&mut model, &batch);
            store.write(batch, Durability::Lazy, |result| assert!(result.is_ok()));
        }
        store.close().await;
    }
}

#[tokio::test]
async fn everything_answered_is_there_without_a_close() {
    for config in [tiny(), StoreConfig::default()] {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        for round in 0..5 {
            let store = open_when_free(dir.path(), &config);
            assert_eq!(contents(&store), model);
            for number in 0..40 {
                let batch = put(&format!("{}", number % 7), &format!("{round}/{number}"));
                apply(&mut model, &batch);
                write_now(&store, batch).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_store_in_use_is_not_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), tiny()).unwrap();
    let error = Store::open(dir.path(), tiny()).err().unwrap();
    assert!(matches!(error, StoreOpenError::InUse { .. }), "{error}");
    write_now(&store, put("a", "1")).unwrap();
    store.close().await;
    // At once: a close releases everything before it returns, also with handles left.
    let again = Store::open(dir.path(), tiny()).unwrap();
    assert_eq!(get(&again, "a").as_deref(), Some("1"));
    again.close().await;
}

#[test]
fn a_folder_that_cannot_be_made_is_unwritable() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(file.path(), tiny()).err().unwrap();
    assert!(
        matches!(error, StoreOpenError::Unwritable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn full_segments_move_into_the_checkpoint_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), tiny()).unwrap();
    let mut model = Model::new();
    for number in 0..300 {
        let batch = put(&format!("{number}"), &"v".repeat(100));
        apply(&mut model, &batch);
        write_now(&store, batch).unwrap();
    }
    let segments = || std::fs::read_dir(dir.path().join("log")).unwrap().count();
    // The current one, the one that is being checkpointed, and one that is about to be.
    assert!(segments() <= 3, "{}", segments());
    assert_eq!(contents(&store), model);
    store.close().await;
    assert_eq!(segments(), 1);
    let store = Store::open(dir.path(), tiny()).unwrap();
    assert_eq!((store.sequence(), contents(&store)), (300, model));
    store.close().await;
}

#[tokio::test]
async fn a_full_table_is_checkpointed_before_its_segment_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        table_bytes_max: 10_000,
        ..StoreConfig::default()
    };
    let store = Store::open(dir.path(), config.clone()).unwrap();
    for number in 0..500 {
        write_now(&store, put(&format!("{number:04}"), "")).unwrap();
    }
    store.close().await;
    let newest = std::fs::read_dir(dir.path().join("log"))
        .unwrap()
        .next()
        .unwrap();
    assert_ne!(newest.unwrap().file_name(), "0000000000000001");
    let store = Store::open(dir.path(), config).unwrap();
    assert_eq!(contents(&store).len(), 500);
    store.close().await;
}

#[tokio::test]
async fn a_segment_file_of_an_absurd_length_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), tiny()).unwrap();
    write_now(&store, put("a", "1")).unwrap();
    store.close().await;
    let segment = std::fs::read_dir(dir.path().join("log")).unwrap().next();
    let segment = std::fs::File::options()
        .write(true)
        .open(segment.unwrap().unwrap().path())
        .unwrap();
    segment.set_len(1 << 40).unwrap();
    let error = Store::open(dir.path(), tiny()).err().unwrap();
    assert!(
        error.to_string().contains("which no segment has"),
        "{error}"
    );
}
