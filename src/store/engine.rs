//! Makes groups of batches durable, visible and answered, in that order. No threads, no queue:
//! whoever owns the engine decides when it runs.

use std::io;
use std::sync::Arc;

use super::StoreConfig;
use super::batch::Durability;
use super::checkpointer::{Checkpointer, Frozen};
use super::error::StoreFailed;
use super::health::Health;
use super::job::Job;
use super::log::Log;
use super::view::View;

/// Invariant: after a failure it touches the disk no more.
pub(super) struct Engine {
    view: Arc<View>,
    health: Arc<Health>,
    /// `None`: in memory.
    disk: Option<OnDisk>,
}

pub(super) struct OnDisk {
    pub(super) log: Log,
    pub(super) checkpointer: Checkpointer,
    pub(super) config: StoreConfig,
}

impl Engine {
    pub(super) fn new(view: Arc<View>, health: Arc<Health>, disk: Option<OnDisk>) -> Self {
        Self { view, health, disk }
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// One group. Every job is answered before this returns, in order.
    pub(super) fn commit(&mut self, jobs: Vec<Job>) {
        if let Some(jobs) = self.write(jobs) {
            self.settle(jobs);
        }
    }

    /// The first half of a group: it is on its way to the disk, and nobody may be told of it.
    /// `None`: that failed, and every job is answered.
    pub(super) fn write(&mut self, jobs: Vec<Job>) -> Option<Vec<Job>> {
        let first_sequence = self.view.sequence() + 1;
        let batches = jobs.iter().map(|job| &job.batch).filter(|b| !b.is_empty());
        match self.on_log(|log| log.write(first_sequence, batches)) {
            Ok(()) => Some(jobs),
            Err(failure) => {
                answer_all(jobs, &failure);
                None
            }
        }
    }

    /// The second half: durable, visible, answered.
    pub(super) fn settle(&mut self, mut jobs: Vec<Job>) {
        if let Err(failure) = self.on_log(Log::sync) {
            return answer_all(jobs, &failure);
        }
        self.count(&jobs);
        // An empty batch gets no number: it is as durable as the one before it.
        let mut sequence = self.view.sequence();
        let sequences: Vec<u64> = jobs
            .iter()
            .map(|job| {
                sequence += u64::from(!job.batch.is_empty());
                sequence
            })
            .collect();
        let batches = jobs.iter_mut().map(|job| std::mem::take(&mut job.batch));
        let table_bytes = self.view.apply(batches, sequence);
        let mut all_returned = true;
        for (job, sequence) in jobs.into_iter().zip(sequences) {
            all_returned &= job.done.answer(Ok(sequence));
        }
        if !all_returned {
            // Whoever it belongs to is in an unknown state; going on would hide that.
            self.health.poison("a callback panicked");
        }
        // After the answers: nobody who has been answered waits for a checkpoint.
        if let Some(disk) = &self.disk
            && (disk.log.is_full() || table_bytes >= disk.config.table_bytes_max)
            && let Err(error) = self.rotate()
        {
            self.health
                .poison(&format!("the log could not be continued: {error}"));
        }
    }

    fn count(&self, jobs: &[Job]) {
        let written = || jobs.iter().filter(|job| !job.batch.is_empty());
        let Some(disk) = self.disk.as_ref().filter(|_| written().count() > 0) else {
            return;
        };
        let counts = &disk.config.counts;
        counts.store_syncs.one();
        let is_lazy = jobs.iter().all(|job| job.durability != Durability::Now);
        counts.store_lazy_syncs.add(u64::from(is_lazy));
        counts.sync_batches.record(written().count());
        let bytes = written().map(|job| job.batch.bytes());
        counts.sync_bytes.record(bytes.sum());
    }

    fn on_log(&mut self, step: impl FnOnce(&mut Log) -> io::Result<()>) -> Result<(), StoreFailed> {
        self.health.check()?;
        let Some(disk) = &mut self.disk else {
            return Ok(());
        };
        step(&mut disk.log).map_err(|error| {
            self.health
                .poison(&format!("the log could not be written: {error}"))
        })
    }

    /// Starts a new segment and sends everything before it to the checkpoint. Waits for the
    /// checkpoint before, if it lags: that bounds memory to two tables.
    fn rotate(&mut self) -> io::Result<()> {
        let Some(disk) = &mut self.disk else {
            return Ok(());
        };
        disk.checkpointer.wait();
        if self.health.failure().is_some() {
            return Ok(());
        }
        disk.log.rotate(self.view.sequence() + 1)?;
        self.checkpoint();
        Ok(())
    }

    /// Sends everything so far to the checkpoint, without waiting for it. The current segment
    /// stays, since it is written to.
    pub(super) fn checkpoint(&mut self) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        disk.checkpointer.wait();
        if self.health.failure().is_some() {
            return;
        }
        if let Some(table) = self.view.freeze() {
            disk.checkpointer.submit(Frozen {
                table,
                sequence: self.view.sequence(),
                segment: disk.log.index(),
            });
        }
    }

    /// Ends everything and releases every file. `checkpoint` spares the next start the replay.
    pub(super) fn finish(mut self, checkpoint: bool) {
        if checkpoint {
            self.checkpoint();
        }
        if let Some(disk) = self.disk.take() {
            disk.checkpointer.stop();
        }
        self.view.close();
    }
}

pub(super) fn answer_all(jobs: impl IntoIterator<Item = Job>, failure: &StoreFailed) {
    for job in jobs {
        // Nothing is left to poison.
        let _ = job.done.answer(Err(failure.clone()));
    }
}
