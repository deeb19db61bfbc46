//! What the leader does with a step or a question: it stamps what it puts into the log, and judges
//! the execution in question by what it has heard.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::directory::Directory;
use super::super::replica::Replica;
use super::super::tasks::{SILENT_MS, Watch};
use super::super::wire::Response;
use super::{JobSeen, JobsAnswer, JobsQuery, MISSED_AFTER_MS, PAGE_BYTES};
use crate::codec;
use crate::id::Version;
use crate::machine::job::{
    Answer, Board, Command, Execution, How, Job, JobId, Phase, Refusal, Slot, Step,
};
use crate::machine::task::ClaimId;
use crate::machine::{self, Reply};
use crate::probe;

/// Whoever is heard to be alive after this is not taken for dead.
const SILENT: Duration = Duration::from_millis(SILENT_MS);

impl Directory {
    /// Commits a step, if `replica` leads.
    pub(in super::super) async fn lead_job(
        &self,
        replica: &Arc<Replica>,
        command: Command,
        deadline: Instant,
    ) -> Response {
        if let Step::Miss { due_ms, .. } = command.step {
            // Its worker may be ahead, and whoever is not run it yet.
            let missed_ms = due_ms.saturating_add(MISSED_AFTER_MS);
            let wait_ms = missed_ms.saturating_sub(probe::now_ms());
            if wait_ms > 0 {
                return Response::Jobs(JobsAnswer::NotYet { wait_ms });
            }
        }
        if let Some(taken) = taken(replica, &command) {
            return Response::Committed {
                reply: taken,
                leader: self.peers().me(),
            };
        }
        if let Step::Claim { slot, .. } = command.step {
            let mut is_confirmed = false;
            loop {
                if let Err(response) = self.judge_job(replica, command.job, deadline).await {
                    return response;
                }
                match self.job_backoff(replica, command.job, slot) {
                    None => break,
                    Some(wait) if is_confirmed => {
                        let wait_ms = wait.as_millis().try_into().unwrap_or(u64::MAX);
                        return Response::Jobs(JobsAnswer::NotYet { wait_ms });
                    }
                    // A new leader may not have applied yet what an old one has answered, this very
                    // claim for one.
                    Some(_) if replica.confirm(deadline).await => is_confirmed = true,
                    Some(_) => return Response::Elsewhere { hint: None },
                }
            }
        }
        self.put_job(replica, command, deadline).await
    }

    async fn put_job(
        &self,
        replica: &Arc<Replica>,
        mut command: Command,
        deadline: Instant,
    ) -> Response {
        command.at_ms = probe::now_ms();
        let slot = match &command.step {
            Step::Claim { slot, .. } | Step::Finish { slot, .. } | Step::Expire { slot } => {
                Some(*slot)
            }
            _ => None,
        };
        let command = machine::Command::Job(command);
        let response = replica.write(command, deadline).await;
        if let (Response::Committed { reply, .. }, Some(slot)) = (&response, slot)
            && let Some(answer) = &reply.job
            && let Some(job) = answer
                .job
                .as_ref()
                .filter(|job| job.changed == reply.version)
            && let Some(execution) = job.execution(slot)
        {
            self.heard_of(replica, job, execution);
        }
        response
    }

    fn heard_of(&self, replica: &Replica, job: &Job, execution: &Execution) {
        let (term, _) = replica.term();
        let name = name(job, execution);
        self.vigils
            .heard(replica.group, term, watch(&name, job, execution));
    }

    fn job_silence(&self, replica: &Replica, job: &Job, execution: &Execution) -> Duration {
        let (term, _) = replica.term();
        let name = name(job, execution);
        self.vigils
            .silent_for(replica.group, term, watch(&name, job, execution))
    }

    /// For how long a claim has to wait yet, behind an attempt that failed.
    fn job_backoff(&self, replica: &Replica, id: JobId, slot: Slot) -> Option<Duration> {
        let job = replica.with_jobs(|board, _| board.get(id).cloned())?;
        let failed = job.execution(slot)?;
        let is_failure = matches!(failed.end.as_ref()?.how, How::Ended(_));
        if job.phase(failed) != Phase::Waiting || !is_failure {
            return None;
        }
        let pause = Duration::from_millis(job.spec.policy.backoff_ms(failed.attempt));
        pause
            .checked_sub(self.job_silence(replica, &job, failed))
            .filter(|wait| !wait.is_zero())
    }

    /// Has an attempt expired whose worker is silent, where another may follow. The response says
    /// why that could not be committed.
    async fn judge_job(
        &self,
        replica: &Arc<Replica>,
        id: JobId,
        deadline: Instant,
    ) -> Result<(), Response> {
        let Some(job) = replica.with_jobs(|board, _| board.get(id).cloned()) else {
            return Ok(());
        };
        if !job.is_at_least_once() {
            return Ok(());
        }
        let running = job.open().find(|open| open.end.is_none());
        let Some(silent) =
            running.filter(|running| self.job_silence(replica, &job, running) >= SILENT)
        else {
            return Ok(());
        };
        let command = Command {
            job: id,
            id: silent.claim,
            by: String::new(),
            seen: Version::ZERO,
            at_ms: 0,
            step: Step::Expire { slot: silent.slot },
        };
        match self.put_job(replica, command, deadline).await {
            Response::Committed { .. } => Ok(()),
            other => Err(other),
        }
    }

    /// Answers a question, if `replica` leads.
    pub(in super::super) async fn lead_jobs_query(
        &self,
        replica: &Arc<Replica>,
        query: JobsQuery,
        deadline: Instant,
    ) -> Response {
        if !replica.confirm(deadline).await {
            return Response::Elsewhere { hint: None };
        }
        Response::Jobs(match query {
            JobsQuery::Look { job: id } => {
                if let Err(response) = self.judge_job(replica, id, deadline).await {
                    return response;
                }
                let (job, version) =
                    replica.with_jobs(|board, version| (board.get(id).cloned(), version));
                let seen = job.map(|job| Box::new(self.job_seen(replica, job)));
                JobsAnswer::Seen { version, seen }
            }
            JobsQuery::Page { from } => {
                let ((jobs, next), version) =
                    replica.with_jobs(|board, version| (page(board, from), version));
                let seen = jobs.into_iter().map(|job| self.job_seen(replica, job));
                JobsAnswer::Page {
                    version,
                    jobs: seen.collect(),
                    next,
                }
            }
            JobsQuery::Renew { job, slot, claim } => {
                let job = replica.with_jobs(|board, _| board.get(job).cloned());
                let is_running = job.is_some_and(|job| self.renewed(replica, &job, slot, claim));
                JobsAnswer::Renewed(is_running)
            }
        })
    }

    fn renewed(&self, replica: &Replica, job: &Job, slot: Slot, claim: ClaimId) -> bool {
        let execution = job.execution(slot);
        let running =
            execution.filter(|execution| execution.end.is_none() && execution.claim == claim);
        if let Some(running) = running {
            self.heard_of(replica, job, running);
        }
        running.is_some()
    }

    fn job_seen(&self, replica: &Replica, job: Arc<Job>) -> JobSeen {
        let running = job.executions.iter().filter(|open| open.end.is_none());
        let silent_ms = running.map(|running| {
            let silent = self.job_silence(replica, &job, running).as_millis();
            (running.slot, silent.try_into().unwrap_or(u64::MAX))
        });
        JobSeen {
            silent_ms: silent_ms.collect(),
            job,
        }
    }
}

/// The answer to the first claim of a tick that somebody else has taken: what is applied stays so, whoever
/// leads by now, and most of those that lose the race for a tick come behind it. So that is not logged.
fn taken(replica: &Replica, command: &Command) -> Option<Reply> {
    let Step::Claim {
        slot: slot @ Slot::Tick(tick),
        attempt: 1,
    } = command.step
    else {
        return None;
    };
    let (job, version) = replica.with_jobs(|board, version| {
        let job = board.get(command.job).cloned();
        (job, version)
    });
    let job = job.filter(|job| tick <= job.last)?;
    // Who has it already is told so by the log.
    let known = job.execution(slot);
    let is_theirs = known.is_none_or(|known| known.claim != command.id);
    is_theirs.then(|| Reply {
        job: Some(Box::new(Answer {
            refused: Some(Refusal::Ended),
            job: Some(job),
        })),
        ..Reply::at(version)
    })
}

/// What an execution is watched by.
fn name(job: &Job, execution: &Execution) -> String {
    format!("{}/{}", job.id, execution.slot)
}

fn watch<'a>(name: &'a str, job: &Job, execution: &Execution) -> Watch<'a> {
    Watch {
        name,
        changed: execution.changed(),
        is_open: matches!(job.phase(execution), Phase::Running | Phase::Waiting),
    }
}

/// The first jobs from an id on, and where to go on if there are more.
fn page(board: &Board, from: JobId) -> (Vec<Arc<Job>>, Option<JobId>) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for (id, job) in board.jobs().range(from..) {
        if bytes >= PAGE_BYTES {
            return (page, Some(*id));
        }
        bytes += bytes_of(job);
        page.push(job.clone());
    }
    (page, None)
}

pub(super) fn bytes_of(job: &Job) -> usize {
    codec::encode(0, job).len()
}
