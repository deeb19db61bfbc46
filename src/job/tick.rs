//! What workers do with a slot of a job: claim it, say that they are at it, and how it ended.

use std::sync::Arc;
use std::time::Duration;

use super::{JobId, Jobs, JobsError, Slot, Tick};
use crate::group::{JobStepped, JobsAnswer, JobsQuery};
use crate::id::Version;
use crate::machine::job::{self as machine, ERROR_BYTES_MAX, Execution, Step};
use crate::machine::task::{ClaimId, Failure, Outcome};
use crate::once::NoAnswer;

/// One job, for a worker.
#[derive(Clone)]
pub(crate) struct Job {
    jobs: Jobs,
    id: JobId,
}

/// The answer to a claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// Run it, once, and say how it ended.
    Here(Execution, Arc<machine::Job>),
    /// It is not to be run here: somebody else has it, or it was taken, or the job was paused or is gone.
    Elsewhere(Option<Arc<machine::Job>>),
    /// The last attempt has failed, and the next may be claimed after this pause.
    NotYet(Duration),
}

/// Whether a tick was missed; and how the job stands then.
#[derive(Debug)]
pub(crate) enum Missed {
    Recorded(Option<Arc<machine::Job>>),
    /// Somebody was faster, or the job was paused or is gone.
    No(Option<Arc<machine::Job>>),
    /// By the leader's clock somebody may run it yet, for so long.
    NotYet(Duration),
}

impl Jobs {
    pub(crate) fn job(&self, id: JobId) -> Job {
        Job {
            jobs: self.clone(),
            id,
        }
    }
}

impl Job {
    /// Claims an attempt at a slot, the first being 1. A claim whose answer was lost is made again with
    /// its id, or not at all.
    pub(crate) async fn claim(
        &self,
        claim: ClaimId,
        slot: Slot,
        attempt: u32,
    ) -> Result<Claimed, JobsError> {
        let answer = match self.step(claim, Step::Claim { slot, attempt }).await? {
            JobStepped::NotYet { wait_ms } => {
                return Ok(Claimed::NotYet(Duration::from_millis(wait_ms)));
            }
            JobStepped::Taken(answer) => answer,
        };
        let job = answer.job;
        let claimed = job.as_ref().filter(|_| answer.refused.is_none());
        let execution = claimed.and_then(|job| job.execution(slot).cloned());
        Ok(match (execution, job) {
            (Some(execution), Some(job)) => Claimed::Here(execution, job),
            (_, job) => Claimed::Elsewhere(job),
        })
    }

    /// Tells the leader that the worker with this claim is at work; `false` if the slot is not run
    /// under this claim any more.
    pub(crate) async fn renew(&self, claim: ClaimId, slot: Slot) -> Result<bool, JobsError> {
        let query = JobsQuery::Renew {
            job: self.id,
            slot,
            claim,
        };
        match self.jobs.query(query).await? {
            JobsAnswer::Renewed(is_running) => Ok(is_running),
            _ => Err(JobsError::Offline),
        }
    }

    /// Records how the attempt with this claim ended: the first outcome stays, and to record one again
    /// is harmless. `false` if it was not recorded: others went on, or the job is gone.
    pub(crate) async fn finish(
        &self,
        claim: ClaimId,
        slot: Slot,
        outcome: Outcome,
    ) -> Result<bool, JobsError> {
        let outcome = shortened(outcome);
        match self.step(claim, Step::Finish { slot, outcome }).await? {
            JobStepped::Taken(answer) => Ok(answer.refused.is_none()),
            JobStepped::NotYet { .. } => Err(JobsError::Offline),
        }
    }

    /// Records a tick that nobody was there to run when it was due.
    pub(crate) async fn miss(
        &self,
        id: ClaimId,
        tick: Tick,
        due_ms: u64,
    ) -> Result<Missed, JobsError> {
        Ok(match self.step(id, Step::Miss { tick, due_ms }).await? {
            JobStepped::NotYet { wait_ms } => Missed::NotYet(Duration::from_millis(wait_ms)),
            JobStepped::Taken(answer) if answer.refused.is_some() => Missed::No(answer.job),
            JobStepped::Taken(answer) => Missed::Recorded(answer.job),
        })
    }

    async fn step(&self, id: ClaimId, step: Step) -> Result<JobStepped, NoAnswer> {
        let command = self.jobs.command(self.id, id, Version::ZERO, step);
        self.jobs.step(command).await
    }
}

/// Its reason is cut, if it is longer than is kept.
fn shortened(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(Failure::Error(reason)) if reason.len() > ERROR_BYTES_MAX => {
            const CUT: &str = " [..]";
            let end = reason.floor_char_boundary(ERROR_BYTES_MAX - CUT.len());
            Outcome::Failed(Failure::Error(format!("{}{CUT}", &reason[..end])))
        }
        other => other,
    }
}
