//! What is done to a task beside running it.

use std::time::Duration;

use super::status::{State, Status};
use super::{Outcome, Task, TaskError};
use crate::group::RENEW_MS;
use crate::machine::task::{Refusal, Step, check_outcome};
use crate::once::NoAnswer;

/// The pause before a look that failed is repeated.
const LOOK_AGAIN_MS: u64 = 200;

impl Task {
    /// Creates the task, to be run later.
    ///
    /// # Errors
    ///
    /// [`TaskError::Exists`] with what is there already; [`TaskError::Missing`] if it was created,
    /// and somebody has deleted or reset it before that could be said. [`TaskError::Full`],
    /// [`TaskError::Invalid`], [`TaskError::Busy`], [`TaskError::Offline`],
    /// [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still create it.
    pub async fn create(&self) -> Result<Status, TaskError> {
        self.check()?;
        let answer = self.act(Step::Create(self.spec())).await?;
        match (answer.refused, answer.task) {
            (None, Some(task)) => Ok(self.status_now(task)),
            (Some(Refusal::Exists), Some(task)) => {
                Err(TaskError::Exists(Box::new(self.status_now(task))))
            }
            (Some(Refusal::Superseded), _) => Err(TaskError::Missing),
            _ => Err(TaskError::Full),
        }
    }

    /// How the task stands as of now: everything that was acknowledged before this call is in it.
    /// `None` if there is no such task.
    ///
    /// # Errors
    ///
    /// [`TaskError::Offline`], [`TaskError::Invalid`], [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn status(&self) -> Result<Option<Status>, TaskError> {
        self.check()?;
        let look = self.look().await?;
        Ok(look.seen.map(|seen| self.status_of(&seen)))
    }

    /// Waits until the task has ended, or is abandoned, however long that takes. A task that is not
    /// there yet is waited for.
    ///
    /// ```
    /// # use raft_once::Network;
    /// # use raft_once::task::{State, Tasks};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let tasks = Tasks::new(&network, "shop");
    /// let stage = tasks.task("stage-1");
    /// let waiting = tokio::spawn(async move { stage.wait().await });
    ///
    /// tasks.task("stage-1").run(|_| async { Ok::<_, String>(()) }).await?;
    /// assert_eq!(waiting.await??.state, State::Succeeded);
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TaskError::Invalid`], [`TaskError::NetworkDown`]. Never [`TaskError::Offline`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn wait(&self) -> Result<Status, TaskError> {
        self.check()?;
        loop {
            let mut versions = self.tasks.hold().view().versions();
            versions.mark_unchanged();
            let state = match self.look().await {
                Ok(look) => {
                    let status = look.seen.map(|seen| self.status_of(&seen));
                    match status {
                        Some(status) if status.has_ended() => return Ok(status),
                        Some(status) if status.state == State::Abandoned => return Ok(status),
                        other => other.map(|status| status.state),
                    }
                }
                Err(NoAnswer::NetworkDown) => return Err(TaskError::NetworkDown),
                Err(NoAnswer::Offline) => {
                    let pause = tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS));
                    self.tasks.hold().unless_down(pause).await?;
                    continue;
                }
            };
            // Who is silent, nobody but the leader notices, and only when it is asked.
            let again = Duration::from_millis(RENEW_MS);
            let changed = async {
                match state {
                    Some(State::Running) => {
                        let _ = tokio::time::timeout(again, versions.changed()).await;
                    }
                    // It fails when the view is gone, as if the node went down.
                    _ => drop(versions.changed().await),
                }
            };
            self.tasks.hold().unless_down(changed).await?;
        }
    }

    /// Begins a new generation: the task is as if it had just been created. What runs for the old one
    /// runs on, and its outcome is refused; an executor that was paused since before its start may
    /// **still start once** for the old generation.
    ///
    /// Who did it, and when, stays in [`deeds`](super::Tasks::deeds).
    ///
    /// # Errors
    ///
    /// [`TaskError::Missing`]. [`TaskError::Offline`] if it may yet be done;
    /// [`TaskError::Invalid`], [`TaskError::Busy`], [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still reset the task, unless it changes before.
    pub async fn reset(&self) -> Result<Status, TaskError> {
        self.check()?;
        let answer = self.act(Step::Reset).await?;
        match (answer.refused, answer.task) {
            (None, Some(task)) => Ok(self.status_now(task)),
            _ => Err(TaskError::Missing),
        }
    }

    /// Deletes the task, whatever it does. `false` if it was not there. To run it afterwards begins
    /// another generation, as with [`reset`](Self::reset).
    ///
    /// # Errors
    ///
    /// [`TaskError::Offline`] if it may yet be done; [`TaskError::Invalid`], [`TaskError::Busy`],
    /// [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still delete the task, unless it changes before.
    pub async fn delete(&self) -> Result<bool, TaskError> {
        self.check()?;
        if self.look().await?.seen.is_none() {
            return Ok(false);
        }
        self.act(Step::Delete).await?;
        Ok(true)
    }

    /// Says how an abandoned task has ended, in place of its executor, whose own word is refused from
    /// now on. To have it run again, [`reset`](Self::reset) it instead.
    ///
    /// # Errors
    ///
    /// [`TaskError::NotAbandoned`] if its executor is heard of, or it does not run.
    /// [`TaskError::Missing`]. [`TaskError::Offline`] if it may yet be done;
    /// [`TaskError::Invalid`], [`TaskError::Busy`], [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still resolve the task.
    pub async fn resolve(&self, outcome: Outcome) -> Result<Status, TaskError> {
        self.check()?;
        check_outcome(&outcome).map_err(super::error::invalid)?;
        let look = self.look().await?;
        let Some(status) = look.seen.map(|seen| self.status_of(&seen)) else {
            return Err(TaskError::Missing);
        };
        if status.state != State::Abandoned {
            return Err(TaskError::NotAbandoned(Box::new(status)));
        }
        // Of this very attempt: not tried again on what it may have become.
        let step = Step::Resolve(outcome);
        let resolve = self.command(self.tasks.new_claim_id(), look.version, step);
        let answer = self.take(resolve).await?;
        match (answer.refused, answer.task) {
            (None, Some(task)) => Ok(self.status_now(task)),
            (_, Some(task)) => Err(TaskError::NotAbandoned(Box::new(self.status_now(task)))),
            (_, None) => Err(TaskError::Missing),
        }
    }
}
