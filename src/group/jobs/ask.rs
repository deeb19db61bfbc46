//! Asking about jobs, on behalf of this node's program.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::super::ATTEMPT;
use super::super::directory::{Directory, Group};
use super::super::route::{Ask, Counted, Unconfirmed};
use super::super::wire::{Body, Request, Response};
use super::{JobStepped, JobsAnswer, JobsQuery};
use crate::id::Version;
use crate::machine;
use crate::machine::job::Command;

impl Directory {
    /// Has the leader commit a step, the same one until it is answered or time is up.
    pub(crate) async fn job_step(
        self: &Arc<Self>,
        group: &Arc<Group>,
        command: Command,
        deadline: Instant,
    ) -> Result<JobStepped, Unconfirmed> {
        let mut counted = Counted::new(&self.counts);
        let ask = Ask::Commit(machine::Command::Job(command));
        match self.route(group, &ask, deadline).await {
            Some(Response::Committed { reply, .. }) => {
                counted.is_committed = true;
                group.view.observe(reply.version, None);
                let answer = reply.job.ok_or(Unconfirmed)?;
                Ok(JobStepped::Taken(answer))
            }
            Some(Response::Jobs(JobsAnswer::NotYet { wait_ms })) => {
                counted.is_committed = true;
                Ok(JobStepped::NotYet { wait_ms })
            }
            _ => Err(Unconfirmed),
        }
    }

    /// Asks the leader.
    pub(crate) async fn jobs_query(
        self: &Arc<Self>,
        group: &Arc<Group>,
        query: JobsQuery,
        deadline: Instant,
    ) -> Result<JobsAnswer, Unconfirmed> {
        match self.route(group, &Ask::Jobs(query), deadline).await {
            Some(Response::Jobs(answer)) => {
                if let JobsAnswer::Seen { version, .. } | JobsAnswer::Page { version, .. } = answer
                {
                    group.view.observe(version, None);
                }
                Ok(answer)
            }
            _ => Err(Unconfirmed),
        }
    }

    /// What has changed behind a version: of whoever knows of anything, else as this voter says.
    pub(crate) async fn job_changes(
        self: &Arc<Self>,
        group: &Arc<Group>,
        after: Version,
    ) -> Result<JobsAnswer, Unconfirmed> {
        let is_news = |answer: &JobsAnswer| matches!(answer, JobsAnswer::Changes { upto, .. } if *upto > after);
        let mut found = Err(Unconfirmed);
        if self.peers().is_voter()
            && let Ok(answer) = self.answer_job_changes(group, after)
        {
            // This voter may be behind what it has heard of.
            if is_news(&answer) || group.view.version() <= after {
                return Ok(answer);
            }
            found = Ok(answer);
        }
        let request = Request::new(group.id(), Body::JobChanges { after }).encode();
        for voter in self.reachable_in_follow_order(group) {
            let call = self.peers().call(voter, request.clone());
            let Ok(Ok(frame)) = timeout_at(Instant::now() + ATTEMPT, call).await else {
                continue;
            };
            if let Ok(Response::Jobs(answer @ JobsAnswer::Changes { .. })) =
                Response::decode(&frame)
            {
                if is_news(&answer) || group.view.version() <= after {
                    return Ok(answer);
                }
                found = Ok(answer);
            }
        }
        found
    }
}
