//! Something that a worker does about one job: it claims a slot, runs it, says that a tick was
//! missed, or asks how the job stands.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep};

use super::call::{Caller, failed};
use super::document::{AT_LEAST_ONCE, AT_MOST_ONCE};
use super::plan::LATE_MS_MAX;
use super::tick::{Claimed, Missed};
use super::{JobId, Jobs, JobsError, Slot, Tick};
use crate::group::{JobsAnswer, JobsQuery, RENEW_MS, SILENT_MS};
use crate::id::Version;
use crate::machine::job::{Execution, Job};
use crate::machine::task::{ClaimId, Outcome};
use crate::metrics::{Counter, Counts};
use crate::probe;

/// The pauses between two tries to reach a leader, in milliseconds: doubled from the first up to the
/// second.
const RETRY_MS: u64 = 100;
const RETRY_MS_MAX: u64 = 5_000;

/// What the answer to a claim may take without being late, in milliseconds.
const ANSWER_MS: u64 = 10_000;

/// What a worker does about a job.
pub(super) enum What {
    Claim(Claim),
    /// These were missed, oldest first.
    Miss(Vec<(Tick, u64)>),
    /// Ask the leader whether it still hears of whoever is at it.
    Look,
}

/// What is claimed, and by which id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) id: ClaimId,
    pub(super) slot: Slot,
    pub(super) attempt: u32,
    /// When it was due; what was asked for is due at once.
    pub(super) due_ms: Option<u64>,
}

pub(super) enum Came {
    /// The job is so now, if it is there.
    Job(Option<Arc<Job>>),
    /// An attempt is to be run here.
    Claimed {
        id: ClaimId,
        execution: Execution,
        job: Arc<Job>,
    },
    /// Not before this pause.
    Later(Duration),
    /// A tick that was due then is to be missed behind this pause at the earliest, by the leader's clock.
    Early { due_ms: u64, pause: Duration },
    /// The jobs that there are, of those that were created up to a version.
    There(Version, BTreeSet<JobId>),
    /// The network goes down, or cannot be asked.
    Down,
}

pub(super) struct Errand {
    pub(super) jobs: Jobs,
    pub(super) caller: Caller,
    pub(super) job: Arc<Job>,
    /// As the worker's clock.
    pub(super) ahead_ms: u64,
}

impl Errand {
    pub(super) async fn run(&self, what: What) -> Came {
        match what {
            What::Claim(claim) => self.claim(claim).await,
            What::Miss(ticks) => self.miss(ticks).await,
            // The leader judges when it is asked, and what comes of it is a change.
            What::Look => match self.jobs.get(self.job.id).await {
                Ok(None) => Came::Job(None),
                _ => Came::Later(Duration::from_millis(SILENT_MS / 3)),
            },
        }
    }

    async fn miss(&self, ticks: Vec<(Tick, u64)>) -> Came {
        let job = self.jobs.job(self.job.id);
        let mut stands = Some(self.job.clone());
        for (tick, due_ms) in ticks {
            let id = self.jobs.new_claim_id();
            match until_known(|| job.miss(id, tick, due_ms)).await {
                Ok(Missed::Recorded(now)) => {
                    self.count_missed();
                    let kind = kind(&self.job);
                    tracing::warn!("Job {} ({kind}) missed {tick}, not run", self.job.id);
                    stands = now;
                }
                // It has changed, and what is to be done with it.
                Ok(Missed::No(now)) => return Came::Job(now),
                Ok(Missed::NotYet(pause)) => return Came::Early { due_ms, pause },
                Err(_) => return Came::Down,
            }
        }
        Came::Job(stands)
    }

    async fn claim(&self, claim: Claim) -> Came {
        let (job, asked) = (self.jobs.job(self.job.id), Instant::now());
        let (id, slot) = (claim.id, claim.slot);
        // A claim that is in doubt is made again with its id: it is known in the end whose it is.
        match until_known(|| job.claim(id, slot, claim.attempt)).await {
            Ok(Claimed::Here(execution, job)) => {
                let late_ms = match claim.due_ms {
                    Some(due_ms) => probe::now_ms().saturating_sub(due_ms + self.ahead_ms),
                    None => asked.elapsed().as_millis() as u64,
                };
                match late_ms > LATE_MS_MAX + ANSWER_MS && !job.is_at_least_once() {
                    true => self.give_up(claim, late_ms, job).await,
                    false => Came::Claimed { id, execution, job },
                }
            }
            Ok(Claimed::NotYet(pause)) => Came::Later(pause),
            Ok(Claimed::Elsewhere(job)) => Came::Job(job),
            Err(_) => Came::Down,
        }
    }

    /// The claim was in doubt for so long that nobody expects the call any more.
    async fn give_up(&self, claim: Claim, late_ms: u64, claimed: Arc<Job>) -> Came {
        let late = late_ms / 1_000;
        let outcome = failed(format!(
            "claimed {late} s late, not run: no majority answered in time"
        ));
        let (job, slot) = (self.jobs.job(self.job.id), claim.slot);
        if until_known(|| job.finish(claim.id, slot, outcome.clone()))
            .await
            .is_err()
        {
            return Came::Down;
        }
        self.count_missed();
        let (id, kind) = (self.job.id, kind(&self.job));
        tracing::error!("Job {id} ({kind}) was claimed {late} s late for {slot}, not run");
        Came::Job(Some(claimed))
    }

    /// Runs it, and has its outcome recorded.
    pub(super) async fn execute(&self, id: ClaimId, execution: &Execution) {
        let (spec, slot) = (&self.job.spec, execution.slot);
        let key = key(&self.job, slot);
        let job = self.jobs.job(self.job.id);
        let outcome = {
            let running = self.caller.run(spec, &key, execution.attempt);
            let running = AssertUnwindSafe(running).catch_unwind();
            let renewing = async {
                loop {
                    sleep(Duration::from_millis(RENEW_MS)).await;
                    // The action goes on whatever is said: it was begun.
                    let _ = job.renew(id, slot).await;
                }
            };
            tokio::select! {
                outcome = running => outcome.unwrap_or_else(|_| failed("the worker panicked".into())),
                () = renewing => unreachable!("it never ends"),
            }
        };
        self.log(execution, &outcome);
        // It ends when it is known, or with the network.
        let _ = until_known(|| job.finish(id, slot, outcome.clone())).await;
    }

    pub(super) fn log(&self, execution: &Execution, outcome: &Outcome) {
        let (id, kind) = (self.job.id, kind(&self.job));
        let ended = match outcome {
            Outcome::Succeeded { .. } => {
                self.count(|counts| &counts.job_executions_succeeded, "succeeded");
                tracing::info!("Job {id} ({kind}) succeeded");
                "executed"
            }
            Outcome::Failed(failure) => {
                self.count(|counts| &counts.job_executions_failed, "failed");
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

    fn count_missed(&self) {
        self.count(|counts| &counts.job_executions_missed, "missed");
    }

    fn count(&self, all: impl Fn(&Counts) -> &Counter, outcome: &'static str) {
        let counts = self.jobs.counts();
        all(counts).one();
        let (group, job) = (self.jobs.group_id(), self.job.id.as_u64());
        counts.by_job.one(group, job, outcome);
    }
}

/// What all attempts at a slot have in common, and no other slot of any job of any cluster has.
pub(super) fn key(job: &Job, slot: Slot) -> String {
    format!("{}-{}-{slot}", job.id, job.made.id)
}

fn kind(job: &Job) -> &'static str {
    match job.is_at_least_once() {
        true => AT_LEAST_ONCE,
        false => AT_MOST_ONCE,
    }
}

/// The jobs that there are, of those that were created until it is asked.
pub(super) async fn there(jobs: &Jobs) -> Came {
    let (mut upto, mut ids) = (None, BTreeSet::new());
    let mut from = Some(JobId::default());
    while let Some(id) = from {
        let page = jobs.query(JobsQuery::Page { from: id }).await;
        let Ok(JobsAnswer::Page {
            version,
            jobs,
            next,
        }) = page
        else {
            return Came::Down;
        };
        upto.get_or_insert(version);
        ids.extend(jobs.iter().map(|seen| seen.job.id));
        from = next;
    }
    Came::There(upto.unwrap_or(Version::ZERO), ids)
}

/// Asks until there is an answer. It ends when the network is shut down.
async fn until_known<T, F>(mut ask: impl FnMut() -> F) -> Result<T, JobsError>
where
    F: Future<Output = Result<T, JobsError>>,
{
    let mut pause_ms = RETRY_MS;
    loop {
        match ask().await {
            Err(JobsError::Offline) => {
                sleep(Duration::from_millis(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(RETRY_MS_MAX);
            }
            known => return known,
        }
    }
}
