//! A small durable key-value store: atomic batches, one sync for all that wait.
//!
//! Batches go into a write-ahead log of our own and, once synced, into tables in memory; a
//! checkpoint moves them into redb behind the writer's back. Keys and values are bytes; what
//! they mean is known above.
//!
//! ```text
//! Store -> queue -> engine -> log      append + sync, then
//!                          -> view     visible to readers, then answered
//!                          -> checkpointer -> checkpoint (redb), old segments removed
//! ```

mod batch;
mod checkpoint;
mod checkpointer;
mod disk;
mod engine;
mod error;
mod files;
#[cfg(any(test, all(fuzzing, feature = "testing")))]
pub(crate) mod fuzzing;
mod health;
mod job;
mod log;
mod queue;
mod record;
mod recovery;
#[cfg(any(test, all(fuzzing, feature = "testing")))]
#[cfg_attr(not(test), allow(dead_code, reason = "fuzzers need a part of it"))]
mod sim;
mod table;
#[cfg(test)]
mod tests;
mod view;
mod witness;
mod writer;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

pub(crate) use batch::{BATCH_BYTES_MAX, Batch, Durability};
pub(crate) use error::{StoreFailed, StoreOpenError};
#[cfg(test)]
pub(crate) use sim::SimDisk;

use checkpointer::{Checkpointer, Work};
use disk::Disk;
use engine::{Engine, OnDisk};
use files::Folder;
use health::Health;
use job::{Done, Job};
use view::View;
use writer::Writer;

use crate::metrics::Counts;

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageMax {
    pub(crate) pairs: usize,
    /// Of keys and values; no further pair is read once there are so many.
    pub(crate) bytes: usize,
}

impl PageMax {
    /// Takes pairs from `pairs` until there are enough; whether some are left.
    fn cut<T>(
        self,
        pairs: &mut impl Iterator<Item = T>,
        bytes_of: impl Fn(&T) -> usize,
        mut take: impl FnMut(T),
    ) -> bool {
        let (mut taken, mut bytes) = (0, 0);
        for pair in pairs {
            if taken == self.pairs.max(1) || (taken > 0 && bytes >= self.bytes) {
                return true;
            }
            taken += 1;
            bytes += bytes_of(&pair);
            take(pair);
        }
        false
    }
}

/// A lazy batch waits this long for a `Now` batch to ride with, then it is synced by itself.
pub(crate) const LAZY_SYNC_AFTER_MS: u64 = 5;

/// How big things may grow. Memory is bounded by two tables and the cache, beside what callers
/// have queued.
#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    /// A segment that is full is closed and sent to the checkpoint.
    pub(crate) segment_bytes_max: u64,
    /// So is one whose table takes this much memory, overhead included.
    pub(crate) table_bytes_max: usize,
    /// redb's cache.
    pub(crate) cache_bytes_max: usize,
    /// Whose figures it is a part of.
    pub(crate) counts: Arc<Counts>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            segment_bytes_max: 16 * 1024 * 1024,
            table_bytes_max: 32 * 1024 * 1024,
            cache_bytes_max: 32 * 1024 * 1024,
            counts: Arc::default(),
        }
    }
}

/// Who runs the writer and the checkpointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Executor {
    /// A thread each.
    Threads,
    /// Whoever calls, so that one seed gives one history. Lazy batches wait for the next `Now`.
    #[cfg_attr(
        not(any(test, all(fuzzing, feature = "testing"))),
        expect(dead_code, reason = "the seam's second tenant: tests")
    )]
    Inline,
}

/// A handle on the store; clones share it. When the last one goes without [`Store::close`], what
/// was queued is still written and the threads end by themselves soon after.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    view: Arc<View>,
    health: Arc<Health>,
    writer: Writer,
}

impl Store {
    /// Opens the store in `dir`, which is created if it is missing, and recovers it if need be.
    pub(crate) fn open(dir: &Path, config: StoreConfig) -> Result<Store, StoreOpenError> {
        let disk = Arc::new(Folder::open(dir)?);
        Self::open_on(disk, config, Executor::Threads)
    }

    /// A store that forgets everything when it is dropped; batches are applied inline.
    #[cfg(any(test, all(fuzzing, feature = "testing")))]
    pub(crate) fn in_memory() -> Store {
        Self::in_memory_counted(Arc::default())
    }

    /// The same, as a part of these figures.
    pub(crate) fn in_memory_counted(counts: Arc<Counts>) -> Store {
        let health = Health::new();
        let view = View::new(None, table::Table::default(), 0, health.clone());
        let view = Arc::new(view);
        let engine = Engine::new(view.clone(), health.clone(), None);
        let writer = Writer::inline(engine, true, counts);
        Self::new(view, health, writer)
    }

    /// A store for whole nodes in simulated time. One task of the caller's tokio runtime writes,
    /// so batches queue while a sync is held, and lazy ones are synced by themselves.
    #[cfg(test)]
    pub(crate) fn open_simulated(
        disk: &SimDisk,
        config: StoreConfig,
    ) -> Result<Store, StoreOpenError> {
        let counts = config.counts.clone();
        let (view, health, engine) =
            Self::recover(Arc::new(disk.clone()), config, Executor::Inline)?;
        let writer = Writer::simulated(engine, disk.clone(), counts);
        Ok(Self::new(view, health, writer))
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        executor: Executor,
    ) -> Result<Store, StoreOpenError> {
        let counts = config.counts.clone();
        let (view, health, engine) = Self::recover(disk, config, executor)?;
        let writer = match executor {
            Executor::Inline => Writer::inline(engine, false, counts),
            Executor::Threads => Writer::spawn(engine, counts)
                .map_err(StoreOpenError::io("the store cannot start a thread"))?,
        };
        Ok(Self::new(view, health, writer))
    }

    /// Everything but the writer.
    fn recover(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        executor: Executor,
    ) -> Result<(Arc<View>, Arc<Health>, Engine), StoreOpenError> {
        let recovered = recovery::recover(disk.clone(), &config)?;
        let health = Health::new();
        let view = Arc::new(View::new(
            Some(recovered.checkpoint),
            recovered.table,
            recovered.sequence,
            health.clone(),
        ));
        let work = Work {
            disk,
            view: view.clone(),
            health: health.clone(),
            counts: config.counts.clone(),
        };
        let checkpointer = match executor {
            Executor::Inline => Checkpointer::Inline(work),
            Executor::Threads => Checkpointer::spawn(work)
                .map_err(StoreOpenError::io("the store cannot start a thread"))?,
        };
        let on_disk = OnDisk {
            log: recovered.log,
            checkpointer,
            config,
        };
        let mut engine = Engine::new(view.clone(), health.clone(), Some(on_disk));
        if recovered.lags {
            engine.checkpoint();
        }
        Ok((view, health, engine))
    }

    fn new(view: Arc<View>, health: Arc<Health>, writer: Writer) -> Self {
        Self {
            inner: Arc::new(Inner {
                view,
                health,
                writer,
            }),
        }
    }

    /// Queues a batch and returns; never waits for the disk. Batches reach the log in the order
    /// of the calls. `done` runs exactly once, in that order too: with the batch's sequence
    /// number when it is durable and visible, or with the failure. It runs on the writer's
    /// thread and holds up every other batch; it must not block or panic.
    ///
    /// The queue has no limit of its own: callers keep [`Store::queued_bytes`] in theirs.
    pub(crate) fn write(
        &self,
        batch: Batch,
        durability: Durability,
        done: impl FnOnce(Result<u64, StoreFailed>) + Send + 'static,
    ) {
        let done = Done::new(done);
        let bytes = batch.bytes();
        if bytes > BATCH_BYTES_MAX {
            let bytes_max = BATCH_BYTES_MAX;
            // A panic in it is the caller's own; no batch is affected.
            let _ = done.answer(Err(StoreFailed::TooLarge { bytes, bytes_max }));
            return;
        }
        self.inner.writer.push(Job {
            batch,
            durability,
            done,
        });
    }

    /// The bytes of all batches that wait for the writer.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.inner.writer.queued_bytes()
    }

    /// Reads what is durable. May wait for the disk, if the key is not in memory. A read that
    /// fails, or meets damage, stops the store for good: to say `None` would be to forget.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFailed> {
        self.inner.health.check()?;
        self.inner.view.get(key)
    }

    /// All pairs whose key starts with `prefix`, ordered by key, as of one moment.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, StoreFailed> {
        self.inner.health.check()?;
        self.inner.view.scan(prefix)
    }

    /// The values of several keys as of one moment, in their order.
    pub(crate) fn get_all(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreFailed> {
        self.inner.health.check()?;
        self.inner.view.get_all(keys)
    }

    /// Some of the pairs whose key starts with `prefix` and is not before `from`, ordered by
    /// key: all up to the key that is returned too, or all there are if there is none. A page
    /// has one pair at least, and at most three times what `page` says, so that a large range
    /// can be read in pages.
    pub(crate) fn scan_page(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
        page: PageMax,
    ) -> Result<(Vec<Pair>, Option<Vec<u8>>), StoreFailed> {
        self.inner.health.check()?;
        self.inner.view.scan_page(prefix, from, page)
    }

    /// The sequence number of the last durable batch. It grows for ever, also over restarts.
    pub(crate) fn sequence(&self) -> u64 {
        self.inner.view.sequence()
    }

    /// Queues a batch at once; the future ends when it is durable. Dropping the future takes
    /// nothing back.
    pub(crate) fn write_durably(
        &self,
        batch: Batch,
    ) -> impl Future<Output = Result<u64, StoreFailed>> + Send + use<> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.write(batch, Durability::Now, move |result| {
            // Nobody listens if the future was dropped.
            let _ = answer.send(result);
        });
        // `done` always runs, so the sender is never just dropped.
        async move { answered.await.unwrap_or(Err(StoreFailed::Closed)) }
    }

    /// Returns when everything that was queued before is durable and visible to readers, lazy
    /// batches too.
    pub(crate) async fn flush(&self) -> Result<u64, StoreFailed> {
        self.write_durably(Batch::default()).await
    }

    /// Why the store stopped for good, if it did.
    #[cfg(test)]
    pub(crate) fn failure(&self) -> Option<StoreFailed> {
        self.inner.health.failure()
    }

    /// Resolves when the store stops for good after a failure; a close is none.
    pub(crate) async fn failed(&self) -> StoreFailed {
        self.inner.health.failed().await
    }

    /// Writes what is queued, takes a checkpoint, ends the threads and releases every file and
    /// the lock before it returns. Later writes and reads fail with [`StoreFailed::Closed`].
    /// Every call returns only when all this is done, whoever began it.
    pub(crate) async fn close(&self) {
        self.inner.writer.close().await;
    }
}
