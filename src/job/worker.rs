//! A worker: it watches the jobs of a namespace, claims what is due, runs it and records how it
//! ended. Any number of them, on any nodes, share the work.
//!
//! All idle jobs share one timer. A job about which nothing is to be done is not kept: a change of it
//! brings it back.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::tz::TimeZone;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::call::Caller;
use super::errand::{Came, Claim, Errand, What, there};
use super::plan::{CLOCKS_APART_MS, Clock, Plan, plan};
use super::schedule::Schedule;
use super::{JobId, Jobs, JobsError, Slot};
use crate::group::{JobsAnswer, MISSED_AFTER_MS, SILENT_MS};
use crate::id::Version;
use crate::machine::job::Job;
use crate::probe;

/// The wall clock is looked at this often at least, in milliseconds: it may be set.
const LOOK_MS_MAX: u64 = 1_000;

/// Workers claim what is due up to so much later, each job by another first, in milliseconds.
pub(super) const DELAY_MS_MAX: u64 = 200;

/// The most executions that one worker runs at a time.
const RUNNING_MAX: usize = 1_024;

/// The most executions of one job that one worker runs at a time: a job whose target hangs is not to take
/// the room of all others, and what runs of it is to be remembered.
const RUNNING_OF_JOB_MAX: u32 = 4;

/// What was refused, and would be again, is tried again after this, in milliseconds; so is what could
/// not be done for a defect.
const REFUSED_MS: u64 = 60_000;

/// How long after a job was deleted those that are known are compared with those that there are, in
/// milliseconds: many deletions are one comparison.
const SWEEP_MS: u64 = 10_000;

struct Worker {
    jobs: Jobs,
    caller: Caller,
    known: BTreeMap<JobId, Known>,
    /// When each is to be looked at, by the wall clock.
    due: BTreeSet<(u64, JobId)>,
    /// The wall clock when it was looked at last.
    looked_ms: u64,
    /// Since when it has been there.
    since_ms: u64,
    /// How far the clock here was ahead of the leader's when that was told.
    ahead_ms: u64,
    /// The last version at which any job was removed, if that is known.
    removed: Option<Version>,
    /// When to compare what is known with what there is.
    sweep_ms: Option<u64>,
    /// It begins nothing more.
    is_stopping: bool,
    doing: JoinSet<Done>,
    running: JoinSet<JobId>,
    running_of: BTreeMap<JobId, u32>,
}

struct Known {
    job: Arc<Job>,
    schedule: Schedule,
    due_ms: Option<u64>,
    /// Something is being done about it.
    is_busy: bool,
    /// What was claimed last, until it is run here: tried again it has its id, since a copy of it may
    /// be committed.
    claim: Option<Claim>,
}

/// What came of something that was done about a job, and which version of it that was about.
struct Done {
    id: JobId,
    seen: Version,
    what: Came,
}

impl Jobs {
    /// Runs what is due, until the network is shut down: claims ticks, makes calls or runs commands,
    /// and records. Any number of nodes do this at a time, and each tick is one's.
    ///
    /// # Errors
    ///
    /// It ends with [`JobsError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// What runs is given up when the future is dropped, and may be abandoned; see
    /// [`work_until`](Self::work_until).
    pub async fn work(&self) -> Result<(), JobsError> {
        self.work_until(std::future::pending()).await
    }

    /// As [`work`](Self::work), until `stop` resolves: then it claims nothing more, waits for what runs
    /// to end and to be recorded, and returns. That takes as long as calls take, and a majority to
    /// record them: to bound it, shut the network down, or drop the future.
    ///
    /// # Errors
    ///
    /// [`JobsError::NetworkDown`] if the network is shut down before: what runs is given up then.
    ///
    /// # Cancel safety
    ///
    /// What runs is given up when the future is dropped: commands are killed, calls are broken off, and
    /// what was run at most once is left as abandoned.
    pub async fn work_until(&self, stop: impl Future<Output = ()>) -> Result<(), JobsError> {
        self.work_by(Caller::new(), stop).await
    }

    pub(crate) async fn work_by(
        &self,
        caller: Caller,
        stop: impl Future<Output = ()>,
    ) -> Result<(), JobsError> {
        let mut worker = Worker::new(self.clone(), caller);
        let worked = self.hold().unless_down(worker.run(stop)).await;
        // So that no command is left when this has returned.
        worker.running.shutdown().await;
        Ok(worked?)
    }
}

impl Worker {
    fn new(jobs: Jobs, caller: Caller) -> Self {
        let now_ms = probe::now_ms();
        Self {
            jobs,
            caller,
            known: BTreeMap::new(),
            due: BTreeSet::new(),
            looked_ms: now_ms,
            since_ms: now_ms,
            ahead_ms: 0,
            removed: None,
            sweep_ms: None,
            is_stopping: false,
            doing: JoinSet::new(),
            running: JoinSet::new(),
            running_of: BTreeMap::new(),
        }
    }

    /// Returns when it was told to stop, and nothing runs any more.
    async fn run(&mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut changes = changes(self.jobs.clone(), Version::ZERO);
        // A claim that is in doubt may be ours to run.
        while !self.is_stopping || !self.doing.is_empty() || !self.running.is_empty() {
            let pause = Duration::from_millis(self.pause_ms());
            tokio::select! {
                () = &mut stop, if !self.is_stopping => self.is_stopping = true,
                (read, changed, removed) = &mut changes => {
                    changes = self::changes(self.jobs.clone(), read);
                    self.note_removed(removed);
                    for job in changed {
                        self.learn(job);
                    }
                }
                Some(done) = self.doing.join_next() => {
                    if let Ok(done) = done {
                        self.take(done);
                    }
                }
                Some(ran) = self.running.join_next() => {
                    if let Ok(id) = ran {
                        self.has_run(id);
                    }
                }
                () = sleep(pause) => {}
            }
            if !self.is_stopping {
                self.start_due();
            }
        }
    }

    fn pause_ms(&self) -> u64 {
        let next = self.due.first().map_or(u64::MAX, |(due_ms, _)| *due_ms);
        match self.has_room() {
            true => next.saturating_sub(probe::now_ms()).clamp(1, LOOK_MS_MAX),
            false => LOOK_MS_MAX,
        }
    }

    fn has_room(&self) -> bool {
        self.doing.len() + self.running.len() < RUNNING_MAX
    }

    fn has_run(&mut self, id: JobId) {
        if let Some(count) = self.running_of.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.running_of.remove(&id);
            }
        }
    }

    fn learn(&mut self, job: Arc<Job>) {
        let id = job.id;
        if let Some(known) = self.known.get_mut(&id) {
            if known.job.changed >= job.changed {
                return;
            }
            known.job = job;
        } else {
            let zone = TimeZone::get(&job.spec.zone).map_err(|error| error.to_string());
            let schedule = zone.and_then(|zone| Schedule::parse(&job.spec.schedule, zone));
            let schedule = match schedule {
                Ok(schedule) => schedule,
                Err(error) => {
                    tracing::warn!(%id, error, "a job cannot be scheduled by this build");
                    return;
                }
            };
            let known = Known {
                job,
                schedule,
                due_ms: None,
                is_busy: false,
                claim: None,
            };
            self.known.insert(id, known);
        }
        self.set_due(id, Some(0));
    }

    fn forget(&mut self, id: JobId) {
        self.set_due(id, None);
        self.known.remove(&id);
    }

    fn set_due(&mut self, id: JobId, due_ms: Option<u64>) {
        let Some(known) = self.known.get_mut(&id) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut known.due_ms, due_ms) {
            self.due.remove(&(before, id));
        }
        if let Some(due_ms) = due_ms {
            self.due.insert((due_ms, id));
        }
    }

    /// Nobody is told which jobs are removed, only that some were.
    fn note_removed(&mut self, removed: Version) {
        let before = self.removed.replace(removed);
        if before.is_some_and(|before| before < removed) {
            let sweep_ms = probe::now_ms() + SWEEP_MS;
            self.sweep_ms.get_or_insert(sweep_ms);
        }
    }

    /// Begins whatever is due by now.
    fn start_due(&mut self) {
        let now_ms = probe::now_ms();
        if now_ms + LOOK_MS_MAX < self.looked_ms {
            // The clock was set back, and what is to be done at which time was told by the old one.
            let all: Vec<JobId> = self.known.keys().copied().collect();
            all.into_iter().for_each(|id| self.set_due(id, Some(0)));
            self.since_ms = self.since_ms.min(now_ms);
            self.sweep_ms = self.sweep_ms.map(|_| now_ms);
        }
        self.looked_ms = now_ms;
        while let Some((due_ms, id)) = self.due.first().copied()
            && due_ms <= now_ms
            && self.has_room()
        {
            self.set_due(id, None);
            self.start(id, due_ms, now_ms);
        }
        if self.sweep_ms.is_some_and(|sweep_ms| sweep_ms <= now_ms) && self.has_room() {
            self.sweep_ms = None;
            let jobs = self.jobs.clone();
            self.spawn(JobId::default(), Version::ZERO, async move {
                there(&jobs).await
            });
        }
    }

    fn start(&mut self, id: JobId, due_ms: u64, now_ms: u64) {
        let Some(known) = self.known.get_mut(&id).filter(|known| !known.is_busy) else {
            return;
        };
        let clock = Clock {
            now_ms,
            since_ms: self.since_ms,
            delay_ms: delay_ms(&self.jobs.shared.who, id),
            ahead_ms: self.ahead_ms,
        };
        let what = match plan(&known.job, &known.schedule, clock) {
            Plan::Nothing => return self.forget(id),
            Plan::At(at_ms) => return self.set_due(id, Some(at_ms)),
            // Who has just begun is heard of.
            Plan::Look if due_ms == 0 => return self.set_due(id, Some(now_ms + SILENT_MS)),
            Plan::Look => What::Look,
            Plan::Miss(ticks) => What::Miss(ticks),
            Plan::Claim(..) if self.running_of.get(&id) >= Some(&RUNNING_OF_JOB_MAX) => {
                return self.set_due(id, Some(now_ms + LOOK_MS_MAX));
            }
            Plan::Claim(slot, attempt) => {
                let before = known.claim;
                let same = before.filter(|claim| (claim.slot, claim.attempt) == (slot, attempt));
                let claim = same.unwrap_or_else(|| Claim {
                    id: self.jobs.new_claim_id(),
                    slot,
                    attempt,
                    due_ms: known.due_ms_of(slot),
                });
                known.claim = Some(claim);
                What::Claim(claim)
            }
        };
        known.is_busy = true;
        let (seen, job) = (known.job.changed, known.job.clone());
        let errand = self.errand(job);
        self.spawn(id, seen, async move { errand.run(what).await });
    }

    fn errand(&self, job: Arc<Job>) -> Errand {
        Errand {
            jobs: self.jobs.clone(),
            caller: self.caller.clone(),
            job,
            ahead_ms: self.ahead_ms,
        }
    }

    fn spawn(
        &mut self,
        id: JobId,
        seen: Version,
        work: impl Future<Output = Came> + Send + 'static,
    ) {
        self.doing.spawn(probe::of_current(async move {
            let what = unless_it_panics(id, work).await;
            Done { id, seen, what }
        }));
    }

    fn take(&mut self, done: Done) {
        let now_ms = probe::now_ms();
        if let Came::There(upto, ids) = done.what {
            let is_gone = |id: &JobId| id.as_u64() <= upto.as_u64() && !ids.contains(id);
            // Whoever is busy about one is told that it is gone.
            let idle = self.known.iter().filter(|(_, known)| !known.is_busy);
            let gone: Vec<JobId> = idle.map(|(id, _)| *id).filter(is_gone).collect();
            return gone.into_iter().for_each(|id| self.forget(id));
        }
        let Some(known) = self.known.get_mut(&done.id) else {
            if done.id == JobId::default() {
                self.sweep_ms = Some(now_ms + REFUSED_MS);
            }
            return;
        };
        known.is_busy = false;
        match done.what {
            Came::Job(Some(job)) => {
                self.learn(job);
                let is_news = self.known[&done.id].job.changed > done.seen;
                // Where nothing has changed the same would be done again, and refused.
                let due_ms = if is_news { 0 } else { now_ms + REFUSED_MS };
                self.set_due(done.id, Some(due_ms));
            }
            Came::Job(None) => self.forget(done.id),
            Came::Claimed { id, execution, job } => {
                known.claim = None;
                let errand = self.errand(job.clone());
                *self.running_of.entry(job.id).or_default() += 1;
                self.running.spawn(probe::of_current(async move {
                    errand.execute(id, &execution).await;
                    errand.job.id
                }));
                self.learn(job);
                self.set_due(done.id, Some(0));
            }
            Came::Later(pause) => {
                let pause_ms: u64 = pause.as_millis().try_into().unwrap_or(u64::MAX);
                self.set_due(done.id, Some(now_ms.saturating_add(pause_ms)));
            }
            Came::Early { due_ms, pause } => {
                let pause_ms: u64 = pause.as_millis().try_into().unwrap_or(u64::MAX);
                let leader_ms = (due_ms + MISSED_AFTER_MS).saturating_sub(pause_ms);
                self.ahead_ms = now_ms.saturating_sub(leader_ms).min(CLOCKS_APART_MS);
                // It may be set right, or another one be the leader.
                self.set_due(done.id, Some(now_ms + pause_ms.min(MISSED_AFTER_MS)));
            }
            Came::Down | Came::There(..) => {}
        }
    }
}

impl Known {
    fn due_ms_of(&self, slot: Slot) -> Option<u64> {
        let Slot::Tick(tick) = slot else {
            return None;
        };
        self.schedule.due(tick)?.as_millisecond().try_into().ok()
    }
}

/// What a panic leaves behind is tried again, after a while.
async fn unless_it_panics(id: JobId, work: impl Future<Output = Came>) -> Came {
    let worked = AssertUnwindSafe(work).catch_unwind().await;
    worked.unwrap_or_else(|_| {
        tracing::error!("a worker panicked over job {id}; it looks at it again in a minute");
        Came::Later(Duration::from_millis(REFUSED_MS))
    })
}

/// How much later than others this one claims.
fn delay_ms(who: &str, id: JobId) -> u64 {
    let hash = blake3::hash(format!("{who}/{id}").as_bytes());
    let [first, second, ..] = *hash.as_bytes();
    u64::from(u16::from_be_bytes([first, second])) * DELAY_MS_MAX / (1 << 16)
}

/// The jobs that have changed behind a version, once anything has: up to which version these are all,
/// and where any was removed last.
type Changed = (Version, Vec<Arc<Job>>, Version);

fn changes(jobs: Jobs, after: Version) -> BoxFuture<'static, Changed> {
    Box::pin(async move {
        let hold = jobs.hold();
        let mut versions = hold.view().versions();
        let mut pause_ms = 1;
        loop {
            // Looked at before the jobs are: whatever comes later wakes us.
            let heard = *versions.borrow_and_update();
            let read = hold.network().directory().job_changes(hold.group(), after);
            match read.await {
                Ok(JobsAnswer::Changes {
                    jobs,
                    upto,
                    removed,
                }) if upto > after => return (upto, jobs, removed),
                Ok(_) if heard <= after && versions.changed().await.is_ok() => {}
                _ => {
                    sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms = (pause_ms * 2).min(200);
                }
            }
        }
    })
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
