//! Batches on their way to the writer, in the order of the calls.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::Counts;

use super::LAZY_SYNC_AFTER_MS;
use super::batch::Durability;
use super::job::Job;

/// A group takes no further batch once it is this big.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How the queue ends. Ordered: a close is not taken back by a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// The last handle is gone: what was queued is still written.
    Dropped,
    /// Like `Dropped`, and a checkpoint is taken.
    Closed,
}

pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    /// Its `store_queue_bytes` are the bytes of `jobs`, changed under the lock of `state`.
    counts: Arc<Counts>,
}

struct State {
    jobs: VecDeque<Job>,
    /// Some job in the queue is `Now`.
    urgent: bool,
    /// When the oldest lazy job has waited long enough.
    lazy_until: Option<Instant>,
    end: Option<End>,
    /// The writer sleeps on `wake`; waking it costs a system call, so only then.
    parked: bool,
    /// Somebody runs the engine inline.
    running: bool,
}

/// What `Queue::begin` has for a caller who could run the engine.
pub(super) enum Turn {
    Group(Vec<Job>),
    Finish(End),
    Nothing,
}

impl Queue {
    pub(super) fn new(counts: Arc<Counts>) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                urgent: false,
                lazy_until: None,
                end: None,
                parked: false,
                running: false,
            }),
            wake: Condvar::new(),
            counts,
        }
    }

    /// Hands the job back if the queue has ended.
    pub(super) fn push(&self, job: Job) -> Result<(), Box<Job>> {
        let mut state = self.lock();
        if state.end.is_some() {
            return Err(Box::new(job));
        }
        let wake = match job.durability {
            Durability::Now => !std::mem::replace(&mut state.urgent, true),
            // The writer has to learn when to wake up by itself.
            Durability::Lazy if state.lazy_until.is_none() => {
                state.lazy_until = Some(Instant::now() + Duration::from_millis(LAZY_SYNC_AFTER_MS));
                true
            }
            Durability::Lazy | Durability::Riding => false,
        };
        self.counts.store_queue_bytes.add(job.batch.bytes());
        state.jobs.push_back(job);
        if wake && state.parked {
            state.parked = false;
            drop(state);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// The bytes that wait to be written.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.counts.store_queue_bytes.get()).unwrap_or(usize::MAX)
    }

    pub(super) fn end(&self, end: End) {
        let mut state = self.lock();
        state.end = state.end.max(Some(end));
        state.parked = false;
        drop(state);
        self.wake.notify_one();
    }

    /// The next group; waits for it. `Err`: the queue has ended and is empty.
    pub(super) fn next(&self) -> Result<Vec<Job>, End> {
        let mut state = self.lock();
        loop {
            let now = state.lazy_until.map(|until| (until, Instant::now()));
            if state.urgent
                || state.end.is_some() && !state.jobs.is_empty()
                || now.is_some_and(|(until, now)| until <= now)
            {
                return Ok(state.take_group(&self.counts));
            }
            if let Some(end) = state.end {
                return Err(end);
            }
            state.parked = true;
            state = match now {
                Some((until, now)) => {
                    self.wake
                        .wait_timeout(state, until - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
            state.parked = false;
        }
    }

    /// For engines without a thread: a turn at the engine, if there is something to do and
    /// nobody is at it. Whoever got one gives it back with `finish_turn` and asks again, so that
    /// jobs pushed meanwhile, also by callbacks, are done in order and none is left.
    pub(super) fn begin_turn(&self) -> Turn {
        let mut state = self.lock();
        if state.running {
            return Turn::Nothing;
        }
        let turn = match state.end {
            _ if state.urgent => Turn::Group(state.take_group(&self.counts)),
            Some(_) if !state.jobs.is_empty() => Turn::Group(state.take_group(&self.counts)),
            Some(end) => Turn::Finish(end),
            None => return Turn::Nothing,
        };
        state.running = true;
        turn
    }

    /// Lets the lazy jobs wait no longer.
    #[cfg(test)]
    pub(super) fn hurry(&self) {
        let mut state = self.lock();
        state.urgent = !state.jobs.is_empty();
    }

    #[cfg(test)]
    pub(super) fn has_lazy(&self) -> bool {
        self.lock().lazy_until.is_some()
    }

    pub(super) fn finish_turn(&self) {
        self.lock().running = false;
    }

    /// No panic leaves the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_group(&mut self, counts: &Counts) -> Vec<Job> {
        let mut bytes = 0;
        let count = self
            .jobs
            .iter()
            .take_while(|job| {
                let fits = bytes < GROUP_BYTES_MAX;
                bytes += job.batch.bytes();
                fits
            })
            .count();
        let group: Vec<Job> = self.jobs.drain(..count).collect();
        counts
            .store_queue_bytes
            .sub(group.iter().map(|job| job.batch.bytes()).sum());
        if self.jobs.is_empty() {
            self.urgent = false;
            self.lazy_until = None;
        }
        group
    }
}
