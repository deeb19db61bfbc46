//! Runs the engine: on a thread of its own, or inline on whoever calls.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::watch;

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
}

impl Writer {
    pub(super) fn inline(engine: Engine, eager: bool) -> Self {
        Self {
            queue: Arc::new(Queue::new()),
            run: Run::Inline {
                engine: Box::new(Mutex::new(Some(engine))),
                eager,
            },
            closed: Arc::new(watch::Sender::new(false)),
        }
    }

    pub(super) fn spawn(mut engine: Engine) -> io::Result<Self> {
        let queue = Arc::new(Queue::new());
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

    pub(super) fn push(&self, mut job: Job) {
        if let Run::Inline { eager: true, .. } = self.run {
            job.durability = Durability::Now;
        }
        match self.queue.push(job) {
            Ok(()) => self.run_inline(),
            Err(job) => answer_all([*job], &StoreFailed::Closed),
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    pub(super) async fn close(&self) {
        let mut closed = self.closed.subscribe();
        self.queue.end(End::Closed);
        self.run_inline();
        // The sender lives in `self`, so this ends only when it is closed.
        let _ = closed.wait_for(|&closed| closed).await;
    }

    /// Takes turns at the engine for as long as there is something to do. A callback that
    /// writes comes back here and finds the turn taken; its job is done when it has returned.
    fn run_inline(&self) {
        let Run::Inline { engine, .. } = &self.run else {
            return;
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
        // Without a thread, dropping the engine is all there is to do.
        if let Run::Thread = self.run {
            self.queue.end(End::Dropped);
        }
    }
}

/// Whatever panics in there, the jobs are answered and the engine is used no more.
fn commit(engine: &mut Engine, jobs: Vec<Job>) {
    if catch_unwind(AssertUnwindSafe(|| engine.commit(jobs))).is_err() {
        engine.health().poison("the writer panicked");
    }
}

fn finish(engine: Engine, end: End) {
    // The files go with the engine either way; what is durable stays durable.
    if catch_unwind(AssertUnwindSafe(|| engine.finish(end == End::Closed))).is_err() {
        tracing::error!("the store panicked while it closed; the next start replays its log");
    }
}

fn lock(engine: &Mutex<Option<Engine>>) -> MutexGuard<'_, Option<Engine>> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}
