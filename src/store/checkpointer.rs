//! Commits frozen tables to the checkpoint, beside the writer.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use super::disk::Disk;
use super::health::Health;
use super::log::remove_segments_before;
use super::table::Table;
use super::view::View;
use crate::metrics::Counts;
use crate::{failpoint, probe};

/// A frozen table, the last batch in it, and the first segment that is needed beyond it.
pub(super) struct Frozen {
    pub(super) table: Arc<Table>,
    pub(super) sequence: u64,
    pub(super) segment: u64,
}

/// Invariant: at most one table is with the checkpointer; who brings the next one waits.
pub(super) enum Checkpointer {
    Inline(Work),
    Thread {
        tables: mpsc::Sender<Frozen>,
        finished: mpsc::Receiver<()>,
        busy: bool,
        thread: JoinHandle<()>,
    },
}

pub(super) struct Work {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) view: Arc<View>,
    pub(super) health: Arc<Health>,
    pub(super) counts: Arc<Counts>,
}

impl Work {
    /// Segments go only after the checkpoint that covers them is durable.
    fn run(&self, frozen: &Frozen) -> io::Result<()> {
        failpoint::hit("checkpoint.before_commit");
        self.view.checkpoint(&frozen.table, frozen.sequence)?;
        failpoint::hit("checkpoint.after_commit");
        self.counts.store_checkpoints.one();
        probe::count("checkpoints");
        remove_segments_before(&*self.disk, frozen.segment)
    }

    fn run_or_poison(&self, frozen: &Frozen) {
        if let Err(error) = self.run(frozen) {
            self.health.poison(&format!("a checkpoint failed: {error}"));
        }
    }
}

impl Checkpointer {
    pub(super) fn spawn(work: Work) -> io::Result<Self> {
        let (tables, queue) = mpsc::channel::<Frozen>();
        let (finish, finished) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("once-checkpoint".into())
            .spawn(move || {
                // A panic drops `finish`, which the writer notices; it need not wait for that
                // to know that the store is done for.
                let guard = PoisonOnPanic(work.health.clone());
                for frozen in queue {
                    work.run_or_poison(&frozen);
                    if finish.send(()).is_err() {
                        break;
                    }
                }
                drop(guard);
            })?;
        Ok(Self::Thread {
            tables,
            finished,
            busy: false,
            thread,
        })
    }

    /// Waits until no table is with the checkpointer. A failure is in `Health` by then.
    pub(super) fn wait(&mut self) {
        if let Self::Thread { finished, busy, .. } = self
            && std::mem::take(busy)
        {
            // An error says that the thread panicked; its guard has poisoned the store.
            let _ = finished.recv();
        }
    }

    /// Only after `wait`.
    pub(super) fn submit(&mut self, frozen: Frozen) {
        match self {
            Self::Inline(work) => work.run_or_poison(&frozen),
            Self::Thread { tables, busy, .. } => {
                debug_assert!(!*busy, "one table at a time");
                *busy = tables.send(frozen).is_ok();
            }
        }
    }

    /// Ends the thread, after the table that it is at.
    pub(super) fn stop(self) {
        if let Self::Thread {
            tables,
            finished,
            thread,
            ..
        } = self
        {
            drop(tables);
            let _ = finished.recv();
            // A panic has been dealt with by the guard.
            let _ = thread.join();
        }
    }
}

struct PoisonOnPanic(Arc<Health>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.poison("the checkpoint thread panicked");
        }
    }
}
