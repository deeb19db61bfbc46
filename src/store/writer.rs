//! Runs the engine: on a thread of its own, or inline on whoever calls.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::watch;

use crate::metrics::Counts;

use super::batch::Durability;
use super::engine::{Engine, answer_all};
use super::error::StoreFailed;
use super::job::Job;
use super::queue::{End, Queue, Turn};

pub(super) struct Writer {
    queue: Arc<Queue>,
    run: Run,
    /// True once every file is released.
    closed: Arc<watch::Sender<bool>>,
}

enum Run {
    Thread,
    Inline {
        /// Taken out by the turn that finishes. Only who has the turn locks it.
        engine: Box<Mutex<Option<Engine>>>,
        /// Nothing is gained by waiting: treat every batch as `Now`.
        eager: bool,
    },
    /// A task of a simulation has the engine; it is told of every push and of the end.
    #[cfg(test)]
    Task(Arc<tokio::sync::Notify>),
}

impl Writer {
    pub(super) fn inline(engine: Engine, eager: bool, counts: Arc<Counts>) -> Self {
        Self {
            queue: Arc::new(Queue::new(counts)),
            run: Run::Inline {
                engine: Box::new(Mutex::new(Some(engine))),
                eager,
            },
            closed: Arc::new(watch::Sender::new(false)),
        }
    }

    pub(super) fn spawn(mut engine: Engine, counts: Arc<Counts>) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(counts));
        let closed = Arc::new(watch::Sender::new(false));
        let (its_queue, its_closed) = (queue.clone(), closed.clone());
        thread::Builder::new()
            .name("once-store".into())
            .spawn(move || {
                let end = loop {
                    match its_queue.next() {
                        Ok(jobs) => commit(&mut engine, jobs),
                        Err(end) => break end,
                    }
                };
                finish(engine, end);
                its_closed.send_replace(true);
            })?;
        Ok(Self {
            queue,
            run: Run::Thread,
            closed,
        })
    }

    /// On the runtime of the caller, which has to be one of tokio's.
    #[cfg(test)]
    pub(super) fn simulated(
        engine: Engine,
        disk: super::sim::SimDisk,
        counts: Arc<Counts>,
    ) -> Self {
        let queue = Arc::new(Queue::new(counts));
        let closed = Arc::new(watch::Sender::new(false));
        let told = Arc::new(tokio::sync::Notify::new());
        let pump = super::sim::pump(queue.clone(), told.clone(), engine, disk, closed.clone());
        tokio::spawn(crate::probe::of_current(pump));
        Self {
            queue,
            run: Run::Task(told),
            closed,
        }
    }

    pub(super) fn push(&self, mut job: Job) {
        if let Run::Inline { eager: true, .. } = self.run {
            job.durability = Durability::Now;
        }
        match self.queue.push(job) {
            Ok(()) => self.run_or_tell(),
            Err(job) => answer_all([*job], &StoreFailed::Closed),
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    pub(super) async fn close(&self) {
        let mut closed = self.closed.subscribe();
        self.queue.end(End::Closed);
        self.run_or_tell();
        // The sender lives in `self`, so this ends only when it is closed.
        let _ = closed.wait_for(|&closed| closed).await;
    }

    /// Takes turns at the engine for as long as there is something to do. A callback that
    /// writes comes back here and finds the turn taken; its job is done when it has returned.
    fn run_or_tell(&self) {
        let engine = match &self.run {
            Run::Thread => return,
            Run::Inline { engine, .. } => engine,
            #[cfg(test)]
            Run::Task(told) => return told.notify_one(),
        };
        loop {
            match self.queue.begin_turn() {
                Turn::Nothing => return,
                Turn::Group(jobs) => match &mut *lock(engine) {
                    Some(engine) => commit(engine, jobs),
                    None => answer_all(jobs, &StoreFailed::Closed),
                },
                Turn::Finish(end) => {
                    let taken = lock(engine).take();
                    if let Some(engine) = taken {
                        finish(engine, end);
                        self.closed.send_replace(true);
                    }
                    self.queue.finish_turn();
                    return;
                }
            }
            self.queue.finish_turn();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Inline, dropping the engine is all there is to do.
        if let Run::Inline { .. } = self.run {
            return;
        }
        self.queue.end(End::Dropped);
        self.run_or_tell();
    }
}

fn commit(engine: &mut Engine, jobs: Vec<Job>) {
    guarded(engine, |engine| engine.commit(jobs));
}

/// Whatever panics in there, the jobs are answered and the engine is used no more.
pub(super) fn guarded<R>(engine: &mut Engine, run: impl FnOnce(&mut Engine) -> R) -> Option<R> {
    let result = catch_unwind(AssertUnwindSafe(|| run(engine))).ok();
    if result.is_none() {
        engine.health().poison("the writer panicked");
    }
    result
}

pub(super) fn finish(engine: Engine, end: End) {
    // The files go with the engine either way; what is durable stays durable.
    if catch_unwind(AssertUnwindSafe(|| engine.finish(end == End::Closed))).is_err() {
        tracing::error!("the store panicked while it closed; the next start replays its log");
    }
}

fn lock(engine: &Mutex<Option<Engine>>) -> MutexGuard<'_, Option<Engine>> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}
