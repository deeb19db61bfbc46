//! Asking about tasks, on behalf of this node's program.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::super::ATTEMPT;
use super::super::directory::{Directory, Group};
use super::super::route::{Ask, Counted, Unconfirmed};
use super::super::wire::{Body, Request, Response};
use super::{Stepped, TasksAnswer, TasksQuery};
use crate::id::Version;
use crate::machine;
use crate::machine::task::Command;

impl Directory {
    /// Has the leader commit a step, the same one until it is answered or time is up.
    pub(crate) async fn step(
        self: &Arc<Self>,
        group: &Arc<Group>,
        command: Command,
        deadline: Instant,
    ) -> Result<Stepped, Unconfirmed> {
        let mut counted = Counted::new(&self.counts);
        let ask = Ask::Commit(machine::Command::Task(command));
        match self.route(group, &ask, deadline).await {
            Some(Response::Committed { reply, .. }) => {
                counted.is_committed = true;
                group.view.observe(reply.version, None);
                let answer = reply.task.ok_or(Unconfirmed)?;
                Ok(Stepped::Taken(answer))
            }
            Some(Response::Tasks(TasksAnswer::NotYet { wait_ms })) => {
                counted.is_committed = true;
                Ok(Stepped::NotYet { wait_ms })
            }
            _ => Err(Unconfirmed),
        }
    }

    /// Asks the leader.
    pub(crate) async fn query(
        self: &Arc<Self>,
        group: &Arc<Group>,
        query: TasksQuery,
        deadline: Instant,
    ) -> Result<TasksAnswer, Unconfirmed> {
        match self.route(group, &Ask::Tasks(query), deadline).await {
            Some(Response::Tasks(answer)) => {
                match answer {
                    TasksAnswer::Seen { version, .. } => group.view.observe(version, None),
                    TasksAnswer::Deeds { leader, .. } => group.set_leader(leader),
                    _ => {}
                }
                Ok(answer)
            }
            _ => Err(Unconfirmed),
        }
    }

    /// What has changed behind a version: of whoever knows of anything, else as this voter says.
    pub(crate) async fn task_changes(
        self: &Arc<Self>,
        group: &Arc<Group>,
        after: Version,
    ) -> Result<TasksAnswer, Unconfirmed> {
        let is_news = |answer: &TasksAnswer| matches!(answer, TasksAnswer::Changes { upto, .. } if *upto > after);
        let mut found = Err(Unconfirmed);
        if self.peers().is_voter()
            && let Ok(answer) = self.answer_task_changes(group, after).await
        {
            // This voter may be behind what it has heard of.
            if is_news(&answer) || group.view.version() <= after {
                return Ok(answer);
            }
            found = Ok(answer);
        }
        let request = Request::new(group.id(), Body::TaskChanges { after }).encode();
        for voter in self.reachable_in_follow_order(group) {
            let call = self.peers().call(voter, request.clone());
            let Ok(Ok(frame)) = timeout_at(Instant::now() + ATTEMPT, call).await else {
                continue;
            };
            if let Ok(Response::Tasks(answer @ TasksAnswer::Changes { .. })) =
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
