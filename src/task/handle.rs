//! One task: what it is to be, and the two halves of running it.

use std::fmt;
use std::time::Duration;

use super::error::invalid;
use super::run::Attempt;
use super::status::Status;
use super::{ClaimId, Failure, Outcome, Policy, TaskError, Tasks};
use crate::group::{Seen, Stepped, TasksAnswer, TasksQuery};
use crate::id::Version;
use crate::machine::task::{
    self, Answer, Command, REASON_BYTES_MAX, Refusal, Spec, Step, check_name, check_who,
};
use crate::once::NoAnswer;

/// How often something is tried on a task that changes all the time.
const TRIES_MAX: u32 = 64;

/// The task of one name, and what it is to be if it is created through this handle. What it *is*,
/// says its [`status`](Self::status): a task that is there keeps the policy and the ttl that it was
/// created with.
#[derive(Clone)]
pub struct Task {
    pub(super) tasks: Tasks,
    pub(super) name: String,
    spec: Spec,
    /// How long a run waits for others.
    pub(super) patience: Option<Duration>,
}

/// The answer to a [`claim`](Task::claim).
#[derive(Debug, Clone)]
pub enum Claimed {
    /// This claim holds: start the action, once, and [`finish`](Task::finish) it.
    Here(Attempt),
    /// Somebody else runs it, or it has ended: do not start it.
    Elsewhere(Box<Status>),
    /// Its last attempt has failed, and the next may be claimed after this pause.
    NotYet(Duration),
}

/// How a task was seen, and when.
pub(super) struct Look {
    pub(super) version: Version,
    pub(super) seen: Option<Box<Seen>>,
}

impl Task {
    pub(super) fn new(tasks: Tasks, name: String) -> Self {
        Self {
            tasks,
            name,
            spec: Spec::default(),
            patience: None,
        }
    }

    /// It is started once at most: [`Policy::AtMostOnce`], the default.
    #[must_use]
    pub fn at_most_once(self) -> Self {
        self.policy(Policy::AtMostOnce)
    }

    /// It is started again after a failure, three times at most: [`Policy::at_least_once`].
    #[must_use]
    pub fn at_least_once(self) -> Self {
        self.policy(Policy::at_least_once())
    }

    /// How often it may be started.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.spec.policy = policy;
        self
    }

    /// For how long its record is kept behind its outcome. Then it is forgotten, and **whoever
    /// claims it then runs it again**. Without a ttl it is kept until it is deleted.
    ///
    /// Counted by the wall clocks of leaders. What has not ended is never forgotten.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.spec.ttl_ms = Some(ttl.as_millis().try_into().unwrap_or(u64::MAX));
        self
    }

    /// How long [`run`](Self::run) waits for somebody else who runs it; for ever, if it is not set.
    #[must_use]
    pub fn wait_at_most(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Its name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Claims the task: of all who do, one is told [`Claimed::Here`] for each attempt. A task that is
    /// not there is created.
    ///
    /// The claim is committed before this returns. Whoever runs the action is to
    /// [`renew`](Self::renew) it every few seconds, and to [`finish`](Self::finish) it.
    ///
    /// # Errors
    ///
    /// [`TaskError::Offline`] if nothing was claimed; [`TaskError::InDoubt`] if the claim may hold:
    /// then [`claim_as`](Self::claim_as) with its id. [`TaskError::Full`], [`TaskError::Invalid`],
    /// [`TaskError::Busy`], [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// A dropped claim may still hold, and nobody knows its id then: the task is abandoned, or, if it
    /// may be started again, taken over by others 15 seconds later.
    pub async fn claim(&self) -> Result<Claimed, TaskError> {
        self.claim_as(self.tasks.new_claim_id()).await
    }

    /// Claims the task with an id that this caller has made ([`Tasks::new_claim_id`]), or used before:
    /// a claim that holds is told so again. An id is for one attempt by one executor; two that share
    /// one would both run.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim). [`TaskError::Offline`] says that *this call* claimed nothing: what
    /// was in doubt before is so still. [`TaskError::Superseded`] if the id was used for an attempt
    /// that another may follow.
    ///
    /// # Cancel safety
    ///
    /// A dropped claim may still hold. Claim again with the same id.
    pub async fn claim_as(&self, claim: ClaimId) -> Result<Claimed, TaskError> {
        self.check()?;
        for _ in 0..TRIES_MAX {
            let look = self.look().await?;
            if let Some(seen) = &look.seen
                && (seen.task.has_ended()
                    || seen.task.running().is_some_and(|running| running != claim))
            {
                return Ok(Claimed::Elsewhere(Box::new(self.status_of(seen))));
            }
            let command = self.command(claim, look.version, Step::Claim(self.spec));
            let stepped = self.tasks.step(command).await;
            let answer = match stepped {
                Ok(Stepped::NotYet { wait_ms }) => {
                    return Ok(Claimed::NotYet(Duration::from_millis(wait_ms)));
                }
                Ok(Stepped::Taken(answer)) => answer,
                Err(NoAnswer::Offline) => return Err(TaskError::InDoubt(claim)),
                Err(NoAnswer::NetworkDown) => return Err(TaskError::NetworkDown),
            };
            match (answer.refused, answer.task) {
                (
                    None,
                    Some(task::Task {
                        attempt: Some(attempt),
                        ..
                    }),
                ) => return Ok(Claimed::Here(Attempt::new(self.clone(), &attempt))),
                (Some(Refusal::Full), _) => return Err(TaskError::Full),
                // This id has started one attempt already, and another one is to follow.
                (Some(Refusal::Superseded), _) => return Err(TaskError::Superseded),
                // What it has become, shows the next look.
                _ => {}
            }
        }
        Err(TaskError::Busy)
    }

    /// Tells the leader that the executor with this claim is at work. `false` if the task is not run
    /// under this claim any more: it has an outcome, was taken over, reset or deleted.
    ///
    /// # Errors
    ///
    /// [`TaskError::Offline`], [`TaskError::Invalid`], [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn renew(&self, claim: ClaimId) -> Result<bool, TaskError> {
        self.check()?;
        let query = TasksQuery::Renew {
            task: self.name.clone(),
            claim,
        };
        match self.tasks.query(query).await? {
            TasksAnswer::Renewed(is_running) => Ok(is_running),
            _ => Err(TaskError::Offline),
        }
    }

    /// Records how the attempt with this claim ended. The first outcome of a claim stays; to record
    /// one again is harmless. A late one, of an abandoned task too, is recorded, unless an operator
    /// or another attempt was faster.
    ///
    /// # Errors
    ///
    /// [`TaskError::Superseded`], [`TaskError::Ended`] or [`TaskError::Missing`] if it was not
    /// recorded. [`TaskError::Offline`] if that is not known: try again. [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still record the outcome.
    pub async fn finish(&self, claim: ClaimId, outcome: Outcome) -> Result<Status, TaskError> {
        self.check()?;
        let step = Step::Finish(shortened(outcome));
        let answer = self.take(self.command(claim, Version::ZERO, step)).await?;
        match (answer.refused, answer.task) {
            (None, Some(task)) => Ok(self.status_now(task)),
            (Some(Refusal::Ended), Some(task)) => {
                Err(TaskError::Ended(Box::new(self.status_now(task))))
            }
            (Some(Refusal::Superseded), _) => Err(TaskError::Superseded),
            _ => Err(TaskError::Missing),
        }
    }

    // -- what the others are made of -----------------------------------------------------------

    pub(super) fn check(&self) -> Result<(), TaskError> {
        check_name(&self.name).map_err(invalid)?;
        check_who(&self.tasks.shared.who).map_err(invalid)?;
        self.spec.check().map_err(invalid)
    }

    pub(super) fn spec(&self) -> Spec {
        self.spec
    }

    /// How the task stands, as of now.
    pub(super) async fn look(&self) -> Result<Look, NoAnswer> {
        let task = self.name.clone();
        match self.tasks.query(TasksQuery::Look { task }).await? {
            TasksAnswer::Seen { version, seen } => Ok(Look { version, seen }),
            _ => Err(NoAnswer::Offline),
        }
    }

    pub(super) fn command(&self, id: ClaimId, seen: Version, step: Step) -> Command {
        Command {
            task: self.name.clone(),
            id,
            by: self.tasks.shared.who.clone(),
            seen,
            at_ms: 0,
            step,
        }
    }

    /// Has a step committed that no leader holds off.
    pub(super) async fn take(&self, command: Command) -> Result<Answer, NoAnswer> {
        match self.tasks.step(command).await? {
            Stepped::Taken(answer) => Ok(*answer),
            Stepped::NotYet { .. } => Err(NoAnswer::Offline),
        }
    }

    /// Has a step committed that is about the task as it stands; again, if it changes meanwhile.
    pub(super) async fn act(&self, step: Step) -> Result<Answer, TaskError> {
        let id = self.tasks.new_claim_id();
        for _ in 0..TRIES_MAX {
            let look = self.look().await?;
            let command = self.command(id, look.version, step.clone());
            let answer = self.take(command).await?;
            if answer.refused != Some(Refusal::Changed) {
                return Ok(answer);
            }
        }
        Err(TaskError::Busy)
    }

    pub(super) fn status_of(&self, seen: &Seen) -> Status {
        Status::of(self.name.clone(), seen)
    }

    /// Of a task that was heard of just now.
    pub(super) fn status_now(&self, task: task::Task) -> Status {
        self.status_of(&Seen { task, silent_ms: 0 })
    }
}

/// Its reason is cut, if it is longer than is kept.
fn shortened(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(Failure::Error(reason)) if reason.len() > REASON_BYTES_MAX => {
            const CUT: &str = " [..]";
            let end = reason.floor_char_boundary(REASON_BYTES_MAX - CUT.len());
            Outcome::Failed(Failure::Error(format!("{}{CUT}", &reason[..end])))
        }
        other => other,
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name)
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let long = Outcome::Failed(Failure::Error("é".repeat(400)));
        let Outcome::Failed(Failure::Error(reason)) = shortened(long) else {
            unreachable!("it failed")
        };
        assert!(reason.len() <= REASON_BYTES_MAX && reason.ends_with("é [..]"));
    }
}
