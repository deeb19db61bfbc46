//! What readers see: the active table over the frozen one over the checkpoint.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::batch::Batch;
use super::checkpoint::Checkpoint;
use super::error::StoreFailed;
use super::health::Health;
use super::table::Table;
use super::{PageMax, Pair};

/// Invariant: `active` over `frozen` over `checkpoint` is exactly the effect of the batches
/// `..=sequence`, all of which are durable. Only the writer applies and freezes; only the
/// checkpointer thaws, after it has committed what was frozen.
///
/// Locks are taken in the order `checkpoint`, `tables`, and no panic leaves either half changed.
pub(super) struct View {
    tables: RwLock<Tables>,
    /// `None`: in memory only, or closed. Readers hold the lock for as long as they use redb, so
    /// that `close` can tell that its file is released.
    checkpoint: RwLock<Option<Checkpoint>>,
    sequence: AtomicU64,
    in_memory: bool,
    health: Arc<Health>,
}

struct Tables {
    active: Table,
    frozen: Option<Arc<Table>>,
    open: bool,
}

impl View {
    pub(super) fn new(
        checkpoint: Option<Checkpoint>,
        active: Table,
        sequence: u64,
        health: Arc<Health>,
    ) -> Self {
        Self {
            tables: RwLock::new(Tables {
                active,
                frozen: None,
                open: true,
            }),
            in_memory: checkpoint.is_none(),
            checkpoint: RwLock::new(checkpoint),
            sequence: AtomicU64::new(sequence),
            health,
        }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// Makes durable batches visible, all at once. Returns the memory that the active table
    /// takes now, in bytes.
    pub(super) fn apply(&self, batches: impl Iterator<Item = Batch>, sequence: u64) -> usize {
        let mut tables = write(&self.tables);
        for batch in batches {
            if self.in_memory {
                tables.active.apply_alone(batch.into_ops());
            } else {
                tables.active.apply(batch.into_ops());
            }
        }
        self.sequence.store(sequence, Ordering::Release);
        tables.active.bytes()
    }

    /// Sets the active table aside for the next checkpoint. `None`: there is nothing in it.
    pub(super) fn freeze(&self) -> Option<Arc<Table>> {
        let mut tables = write(&self.tables);
        debug_assert!(tables.frozen.is_none(), "one frozen table at a time");
        if tables.active.is_empty() {
            return None;
        }
        let frozen = Arc::new(std::mem::take(&mut tables.active));
        tables.frozen = Some(frozen.clone());
        Some(frozen)
    }

    /// Moves the frozen table into the checkpoint.
    pub(super) fn checkpoint(&self, frozen: &Table, sequence: u64) -> io::Result<()> {
        let checkpoint = read(&self.checkpoint);
        let Some(checkpoint) = &*checkpoint else {
            return Err(io::Error::other("the checkpoint is closed"));
        };
        checkpoint.commit(frozen, sequence)?;
        write(&self.tables).frozen = None;
        Ok(())
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFailed> {
        let mut found = self.look_up(&[key])?;
        Ok(found.pop().flatten())
    }

    pub(super) fn get_all(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreFailed> {
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.look_up(&keys)
    }

    /// The values of `keys`, in their order.
    fn look_up(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreFailed> {
        let checkpoint = read(&self.checkpoint);
        let tables = read(&self.tables);
        if !tables.open {
            return Err(StoreFailed::Closed);
        }
        let mut values = Vec::with_capacity(keys.len());
        // Positions of those that no table knows.
        let mut older = Vec::new();
        for key in keys {
            let mut newest_first = [Some(&tables.active), tables.frozen.as_deref()].into_iter();
            let found = newest_first.find_map(|table| table?.get(key));
            if found.is_none() {
                older.push(values.len());
            }
            values.push(found.flatten().cloned());
        }
        let Some(checkpoint) = checkpoint.as_ref().filter(|_| !older.is_empty()) else {
            return Ok(values);
        };
        // Begun under the lock, so that tables and checkpoint are of one moment; read outside,
        // so that a slow disk does not hold up the writer.
        let reader = checkpoint
            .reader()
            .map_err(|error| self.read_failed(&error))?;
        drop(tables);
        let mut places = older.iter();
        reader
            .get_each(older.iter().map(|place| keys[*place]), |value| {
                if let Some(place) = places.next() {
                    values[*place] = value;
                }
            })
            .map_err(|error| self.read_failed(&error))?;
        Ok(values)
    }

    pub(super) fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, StoreFailed> {
        let checkpoint = read(&self.checkpoint);
        let tables = read(&self.tables);
        if !tables.open {
            return Err(StoreFailed::Closed);
        }
        let mut newer = BTreeMap::new();
        for table in [tables.frozen.as_deref(), Some(&tables.active)] {
            for (key, value) in table.iter().flat_map(|table| table.scan(prefix)) {
                newer.insert(key.clone(), value.clone());
            }
        }
        let reader = checkpoint.as_ref().map(Checkpoint::reader).transpose();
        let reader = reader.map_err(|error| self.read_failed(&error))?;
        drop(tables);
        let older = match reader {
            Some(reader) => reader
                .scan(prefix)
                .map_err(|error| self.read_failed(&error))?,
            None => Vec::new(),
        };
        Ok(overlay(older, newer))
    }

    pub(super) fn scan_page(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
        page: PageMax,
    ) -> Result<(Vec<Pair>, Option<Vec<u8>>), StoreFailed> {
        let checkpoint = read(&self.checkpoint);
        let tables = read(&self.tables);
        if !tables.open {
            return Err(StoreFailed::Closed);
        }
        // The page ends where the first of its sources is cut short: up to there all are whole.
        let mut end: Option<Vec<u8>> = None;
        let mut newer = BTreeMap::new();
        for table in [tables.frozen.as_deref(), Some(&tables.active)] {
            let Some(table) = table else { continue };
            let mut last = None;
            let bytes_of = |(key, value): &(&Vec<u8>, &Option<Vec<u8>>)| {
                key.len() + value.as_ref().map_or(0, Vec::len)
            };
            let mut found = table.scan_from(prefix, from);
            let is_cut = page.cut(&mut found, bytes_of, |(key, value)| {
                newer.insert(key.clone(), value.clone());
                last = Some(key);
            });
            if is_cut {
                end = earlier(end, last.cloned());
            }
        }
        let reader = checkpoint.as_ref().map(Checkpoint::reader).transpose();
        let reader = reader.map_err(|error| self.read_failed(&error))?;
        drop(tables);
        let (older, is_cut) = match reader {
            Some(reader) => reader
                .scan_page(prefix, from, page)
                .map_err(|error| self.read_failed(&error))?,
            None => (Vec::new(), false),
        };
        if is_cut {
            end = earlier(end, older.last().map(|(key, _)| key.clone()));
        }
        let mut pairs = overlay(older, newer);
        if let Some(end) = &end {
            pairs.retain(|(key, _)| key <= end);
        }
        Ok((pairs, end))
    }

    fn read_failed(&self, error: &io::Error) -> StoreFailed {
        self.health
            .poison(&format!("the checkpoint could not be read: {error}"))
    }

    /// Releases the checkpoint's file, once the last reader has let go of it.
    pub(super) fn close(&self) {
        let mut checkpoint = write(&self.checkpoint);
        let mut tables = write(&self.tables);
        tables.open = false;
        tables.active = Table::default();
        tables.frozen = None;
        drop(tables);
        *checkpoint = None;
    }
}

fn earlier(one: Option<Vec<u8>>, other: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn overlay(older: Vec<Pair>, newer: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Vec<Pair> {
    if newer.is_empty() {
        return older;
    }
    let mut pairs = Vec::with_capacity(older.len() + newer.len());
    let mut older = older.into_iter().peekable();
    for (key, value) in newer {
        while let Some(pair) = older.next_if(|(old, _)| *old < key) {
            pairs.push(pair);
        }
        older.next_if(|(old, _)| *old == key);
        if let Some(value) = value {
            pairs.push((key, value));
        }
    }
    pairs.extend(older);
    pairs
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
