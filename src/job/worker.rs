//! A worker: it watches the jobs of a namespace, claims what is due, runs it and records how it
//! ended. Any number of them, on any nodes, share the work.
//!
//! All idle jobs share one timer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::tz::TimeZone;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::call::Caller;
use super::plan::{Clock, Plan, plan};
use super::schedule::Schedule;
use super::tick::Claimed;
use super::{JobId, Jobs, JobsError, Slot, Tick};
use crate::group::{JobsAnswer, RENEW_MS, SILENT_MS};
use crate::id::Version;
use crate::machine::job::{Execution, Job};
use crate::machine::task::{ClaimId, Outcome};
use crate::probe;

/// The wall clock is looked at this often at least, in milliseconds: it may be set.
const LOOK_MS_MAX: u64 = 1_000;

/// Workers claim what is due up to so much later, each job by another first, in milliseconds.
const DELAY_MS_MAX: u64 = 200;

/// The most executions that one worker runs at a time.
const RUNNING_MAX: usize = 1_024;

/// The pauses between two tries to reach a leader, in milliseconds: doubled from the first up to the
/// second.
const RETRY_MS: u64 = 100;
const RETRY_MS_MAX: u64 = 5_000;

struct Worker {
    jobs: Jobs,
    caller: Caller,
    known: BTreeMap<JobId, Known>,
    /// When each is to be looked at, by the wall clock.
    due: BTreeSet<(u64, JobId)>,
    /// Since when it has been there without a break.
    since_ms: u64,
    doing: JoinSet<Done>,
    /// Whether each went without a break.
    running: JoinSet<bool>,
}

struct Known {
    job: Arc<Job>,
    schedule: Schedule,
    due_ms: Option<u64>,
    /// Something is being done about it.
    is_busy: bool,
}

/// What came of something that was done about a job.
struct Done {
    id: JobId,
    what: Came,
}

enum Came {
    /// The job is so now, if it is there.
    Job(Option<Arc<Job>>),
    /// An attempt is to be run here. The cluster could not be reached for a while, or could.
    Claimed {
        id: ClaimId,
        execution: Execution,
        job: Arc<Job>,
        broken: bool,
    },
    /// Not before this pause.
    Later(Duration),
    /// The network goes down.
    Down,
}

impl Jobs {
    /// Runs what is due, until the network is shut down: claims ticks, makes calls or runs commands,
    /// and records. Any number of nodes do this at a time, and each tick is one's.
    ///
    /// # Errors
    ///
    /// It ends with [`JobsError::NetworkDown`], or at once with [`JobsError::Worker`] if calls cannot
    /// be made here.
    ///
    /// # Cancel safety
    ///
    /// What runs is given up when the future is dropped, and may be abandoned.
    pub async fn work(&self) -> Result<(), JobsError> {
        let caller = Caller::new().map_err(JobsError::Worker)?;
        let worker = Worker {
            jobs: self.clone(),
            caller,
            known: BTreeMap::new(),
            due: BTreeSet::new(),
            since_ms: probe::now_ms(),
            doing: JoinSet::new(),
            running: JoinSet::new(),
        };
        match self.hold().unless_down(worker.run()).await {
            Ok(()) | Err(_) => Err(JobsError::NetworkDown),
        }
    }
}

impl Worker {
    async fn run(mut self) {
        let mut changes = changes(self.jobs.clone(), Version::ZERO);
        loop {
            let pause = Duration::from_millis(self.pause_ms());
            tokio::select! {
                (read, changed) = &mut changes => {
                    changes = self::changes(self.jobs.clone(), read);
                    for job in changed {
                        self.learn(job);
                    }
                }
                Some(done) = self.doing.join_next() => {
                    // A task that panicked leaves its job alone until it changes.
                    if let Ok(done) = done {
                        self.take(done);
                    }
                }
                Some(ran) = self.running.join_next() => {
                    if !ran.unwrap_or(true) {
                        self.since_ms = probe::now_ms();
                    }
                }
                () = sleep(pause) => {}
            }
            self.start_due();
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
            };
            self.known.insert(id, known);
        }
        self.set_due(id, Some(0));
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

    /// Begins whatever is due by now.
    fn start_due(&mut self) {
        let now_ms = probe::now_ms();
        while let Some((due_ms, id)) = self.due.first().copied()
            && due_ms <= now_ms
            && self.has_room()
        {
            self.set_due(id, None);
            self.start(id, due_ms, now_ms);
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
        };
        let plan = plan(&known.job, &known.schedule, clock);
        match plan {
            Plan::Nothing => return,
            Plan::At(at_ms) => return self.set_due(id, Some(at_ms)),
            // Who has just begun is heard of.
            Plan::Look if due_ms == 0 => return self.set_due(id, Some(now_ms + SILENT_MS)),
            Plan::Look | Plan::Claim(..) | Plan::Miss(_) => {}
        }
        known.is_busy = true;
        let errand = Errand {
            jobs: self.jobs.clone(),
            caller: self.caller.clone(),
            job: known.job.clone(),
        };
        self.doing.spawn(async move {
            let what = errand.run(plan).await;
            Done { id, what }
        });
    }

    fn take(&mut self, done: Done) {
        let now_ms = probe::now_ms();
        let Some(known) = self.known.get_mut(&done.id) else {
            return;
        };
        known.is_busy = false;
        let before = known.job.changed;
        match done.what {
            Came::Job(Some(job)) => {
                self.learn(job);
                let is_news = self.known[&done.id].job.changed > before;
                // Where nothing has changed the same would be done again, and refused.
                let due_ms = if is_news { 0 } else { now_ms + LOOK_MS_MAX };
                self.set_due(done.id, Some(due_ms));
            }
            Came::Job(None) => {
                self.set_due(done.id, None);
                self.known.remove(&done.id);
            }
            Came::Claimed {
                id,
                execution,
                job,
                broken,
            } => {
                if broken {
                    self.since_ms = now_ms;
                }
                let errand = Errand {
                    jobs: self.jobs.clone(),
                    caller: self.caller.clone(),
                    job: job.clone(),
                };
                self.running
                    .spawn(async move { errand.execute(id, &execution).await });
                self.learn(job);
                self.set_due(done.id, Some(0));
            }
            Came::Later(pause) => {
                let pause_ms: u64 = pause.as_millis().try_into().unwrap_or(u64::MAX);
                self.set_due(done.id, Some(now_ms.saturating_add(pause_ms)));
            }
            Came::Down => {}
        }
    }
}

/// Something that is done about one job.
struct Errand {
    jobs: Jobs,
    caller: Caller,
    job: Arc<Job>,
}

impl Errand {
    async fn run(&self, plan: Plan) -> Came {
        match plan {
            Plan::Claim(slot, attempt) => self.claim(slot, attempt).await,
            Plan::Miss(ticks) => self.miss(ticks).await,
            Plan::Look => {
                // The leader judges when it is asked, and what comes of it is a change.
                match self.jobs.get(self.job.id).await {
                    Ok(None) => Came::Job(None),
                    _ => Came::Later(Duration::from_millis(SILENT_MS / 3)),
                }
            }
            Plan::Nothing | Plan::At(_) => Came::Job(Some(self.job.clone())),
        }
    }

    async fn miss(&self, ticks: Vec<Tick>) -> Came {
        let job = self.jobs.job(self.job.id);
        let mut stands = Some(self.job.clone());
        for tick in ticks {
            let id = self.jobs.new_claim_id();
            match until_known(|| job.miss(id, tick)).await {
                Ok(((is_recorded, now), _)) => {
                    if is_recorded {
                        self.jobs.counts().job_executions_missed.one();
                        let kind = kind(&self.job);
                        tracing::warn!("Job {} ({kind}) missed {tick}, not run", self.job.id);
                    }
                    stands = now;
                }
                Err(_) => return Came::Down,
            }
        }
        Came::Job(stands)
    }

    async fn claim(&self, slot: Slot, attempt: u32) -> Came {
        let (job, id) = (self.jobs.job(self.job.id), self.jobs.new_claim_id());
        // A claim that is in doubt is made again with its id: it is known in the end whose it is.
        match until_known(|| job.claim(id, slot, attempt)).await {
            Ok((Claimed::Here(execution, job), broken)) => Came::Claimed {
                id,
                execution,
                job,
                broken,
            },
            Ok((Claimed::NotYet(pause), _)) => Came::Later(pause),
            Ok((Claimed::Elsewhere(job), _)) => Came::Job(job),
            Err(_) => Came::Down,
        }
    }

    /// Runs it, and has its outcome recorded; whether that went without a break.
    async fn execute(&self, id: ClaimId, execution: &Execution) -> bool {
        let (spec, slot) = (&self.job.spec, execution.slot);
        let key = format!("{}-{slot}", self.job.id);
        let outcome = {
            let running = self.caller.run(spec, &key, execution.attempt);
            tokio::pin!(running);
            let job = self.jobs.job(self.job.id);
            let renewing = async {
                loop {
                    sleep(Duration::from_millis(RENEW_MS)).await;
                    // The action goes on whatever is said: it was begun.
                    let _ = job.renew(id, slot).await;
                }
            };
            tokio::select! {
                outcome = &mut running => outcome,
                () = renewing => unreachable!("it never ends"),
            }
        };
        self.log(execution, &outcome);
        let job = self.jobs.job(self.job.id);
        let finished = until_known(|| job.finish(id, slot, outcome.clone())).await;
        finished.is_ok_and(|(_, broken)| !broken)
    }

    fn log(&self, execution: &Execution, outcome: &Outcome) {
        let (id, kind) = (self.job.id, kind(&self.job));
        let counts = self.jobs.counts();
        let ended = match outcome {
            Outcome::Succeeded { .. } => {
                counts.job_executions_succeeded.one();
                tracing::info!("Job {id} ({kind}) succeeded");
                "executed"
            }
            Outcome::Failed(failure) => {
                counts.job_executions_failed.one();
                let attempt = execution.attempt;
                match self.job.is_at_least_once() && attempt <= self.job.retries() {
                    true => tracing::warn!(
                        "Job {id} ({kind}) failed, attempt {attempt}, to be retried: {failure}"
                    ),
                    false if self.job.is_at_least_once() => {
                        tracing::error!(
                            "Job {id} ({kind}) failed, attempt {attempt}, given up: {failure}"
                        );
                    }
                    false => {
                        tracing::error!(error = %failure, "Job {id} ({kind}) failed, no retry attempted")
                    }
                }
                "failed"
            }
        };
        if !self.job.spec.is_recurring && matches!(execution.slot, Slot::Tick(_)) {
            tracing::info!("Non-recurring job {id} {ended}, schedule deleted");
        }
    }
}

fn kind(job: &Job) -> &'static str {
    match job.is_at_least_once() {
        true => super::document::AT_LEAST_ONCE,
        false => super::document::AT_MOST_ONCE,
    }
}

/// Asks until there is an answer, and says whether it took more than once. It ends when the network
/// is shut down.
async fn until_known<T, F>(mut ask: impl FnMut() -> F) -> Result<(T, bool), JobsError>
where
    F: Future<Output = Result<T, JobsError>>,
{
    let (mut pause_ms, mut broken) = (RETRY_MS, false);
    loop {
        match ask().await {
            Ok(answer) => return Ok((answer, broken)),
            Err(JobsError::Offline) => {
                broken = true;
                sleep(Duration::from_millis(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(RETRY_MS_MAX);
            }
            Err(error) => return Err(error),
        }
    }
}

/// How much later than others this one claims.
fn delay_ms(who: &str, id: JobId) -> u64 {
    let hash = blake3::hash(format!("{who}/{id}").as_bytes());
    let [first, second, ..] = *hash.as_bytes();
    u64::from(u16::from_be_bytes([first, second])) * DELAY_MS_MAX / (1 << 16)
}

/// The jobs that have changed behind a version, once there are any, and up to which version.
fn changes(jobs: Jobs, after: Version) -> BoxFuture<'static, (Version, Vec<Arc<Job>>)> {
    Box::pin(async move {
        let hold = jobs.hold();
        let mut versions = hold.view().versions();
        let mut pause_ms = 1;
        loop {
            // Looked at before the jobs are: whatever comes later wakes us.
            let heard = *versions.borrow_and_update();
            let read = hold.network().directory().job_changes(hold.group(), after);
            match read.await {
                Ok(JobsAnswer::Changes { jobs, upto, .. }) if upto > after => return (upto, jobs),
                Ok(_) if heard <= after && versions.changed().await.is_ok() => {}
                _ => {
                    sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms = (pause_ms * 2).min(200);
                }
            }
        }
    })
}
