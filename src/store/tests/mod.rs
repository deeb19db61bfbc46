//! How the store behaves, on every kind of disk.

mod behaviour;
mod crash;
mod damage;
mod files;
mod rot;
mod simulated;
mod slow;

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use super::sim::SimDisk;
use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(key.into(), value.into());
    batch
}

/// Writes and waits for the answer.
fn write_now(store: &Store, batch: Batch) -> Result<u64, StoreFailed> {
    let (answer, answered) = mpsc::channel();
    store.write(batch, Durability::Now, move |result| {
        answer.send(result).unwrap();
    });
    answered.recv().unwrap()
}

fn get(store: &Store, key: &str) -> Option<String> {
    let value = store.get(key.as_bytes()).unwrap()?;
    Some(String::from_utf8(value).unwrap())
}

/// So small that a few writes rotate a segment.
fn tiny() -> StoreConfig {
    StoreConfig {
        counts: Arc::default(),
        segment_bytes_max: 2_000,
        table_bytes_max: 1_000_000,
        cache_bytes_max: 100_000,
    }
}

fn open_sim(disk: &SimDisk, executor: Executor) -> Result<Store, StoreOpenError> {
    Store::open_on(Arc::new(disk.clone()), tiny(), executor)
}

fn contents(store: &Store) -> Model {
    store.scan(b"").unwrap().into_iter().collect()
}

fn apply(model: &mut Model, batch: &Batch) {
    for (key, value) in batch.ops() {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}
