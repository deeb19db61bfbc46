//! Running an action here, if it is this process that is to.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::status::{State, Status};
use super::{ClaimId, Claimed, Failure, Outcome, Policy, Task, TaskError};
use crate::group::RENEW_MS;
use crate::id::Version;
use crate::machine::task;

/// For how long it is tried to record an outcome, in milliseconds.
const RECORD_MS: u64 = 60_000;

/// The pause between two tries, in milliseconds.
const RECORD_AGAIN_MS: u64 = 200;

/// What came of a [`run`](Task::run).
#[derive(Debug)]
pub enum Ran<T, E> {
    /// This process ran the action.
    Here(Here<T, E>),
    /// Somebody else has, or is at it: how the task stands.
    Elsewhere(Box<Status>),
}

/// What came of an action that ran here.
#[derive(Debug)]
pub struct Here<T, E> {
    /// What it returned, the last time if it was started more than once.
    pub result: Result<T, E>,
    /// How the task stands now, with the outcome recorded. `None` if it could not be recorded within
    /// a minute, or not any more because the task was taken over, reset or deleted meanwhile. In the
    /// former case it shows as abandoned: record it later, with [`Task::finish`] and this attempt's
    /// [`claim`](Attempt::claim).
    pub status: Option<Box<Status>>,
    /// The attempt that this was.
    pub attempt: Attempt,
}

/// One start of an action, which is committed: what the action is handed.
#[derive(Clone)]
pub struct Attempt {
    task: Task,
    claim: ClaimId,
    number: u32,
    version: Version,
    superseded: watch::Receiver<bool>,
    /// Ends with the renewing.
    over: watch::Sender<bool>,
}

impl Attempt {
    pub(super) fn new(task: Task, attempt: &task::Attempt) -> Self {
        let (over, superseded) = watch::channel(false);
        Self {
            task,
            claim: attempt.claim,
            number: attempt.number,
            version: attempt.version,
            superseded,
            over,
        }
    }

    /// The name of the task.
    pub fn name(&self) -> &str {
        self.task.name()
    }

    /// The claim that it is run under.
    pub fn claim(&self) -> ClaimId {
        self.claim
    }

    /// Which one it is in its generation, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Where the claim is in the history of the namespace: a fencing token, greater than those of all
    /// attempts before it, of earlier generations too.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Resolves when the leader says that the task is not run under this claim any more: somebody has
    /// taken it over, reset, resolved or deleted it. Only while the attempt is renewed, as it is by
    /// [`Task::run`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn superseded(&self) {
        let mut superseded = self.superseded.clone();
        // The sender lives in `self`.
        let _ = superseded.wait_for(|superseded| *superseded).await;
    }

    /// Tells the leader every few seconds that it is at work, until the guard is dropped, or the
    /// node is shut down.
    fn keep_renewed(&self) -> DropGuard {
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let this = self.clone();
        let renewing = async move {
            loop {
                tokio::time::sleep(Duration::from_millis(RENEW_MS)).await;
                if let Ok(false) = this.task.renew(this.claim).await {
                    this.over.send_replace(true);
                    return;
                }
            }
        };
        // A task of its own: an action that blocks its thread is renewed all the same.
        let peers = self.task.tasks.hold().network().directory().peers();
        peers.spawn(Box::pin(async move {
            let _ = ended.run_until_cancelled(renewing).await;
        }));
        guard
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("task", &self.name())
            .field("claim", &self.claim)
            .field("number", &self.number)
            .field("version", &self.version)
            .finish()
    }
}

impl Task {
    /// Runs the action here, unless somebody else has, or does. Then it waits for that one, and for
    /// at most [`wait_at_most`](Self::wait_at_most).
    ///
    /// The claim is committed before the action starts. While it runs the leader is told so every few
    /// seconds. What it returned is recorded: `Ok` as success, `Err` with its words as failure, a
    /// panic as failure, too. A task that may be started more than once
    /// ([`Policy::AtLeastOnce`]) is started again after a failure, here or by whoever else runs it,
    /// behind a pause that doubles.
    ///
    /// A task that has ended costs a question to the leader, and no write.
    ///
    /// # Errors
    ///
    /// [`TaskError::Offline`] if nothing was claimed, [`TaskError::InDoubt`] if the claim may hold
    /// although nothing was started; [`TaskError::Panicked`] if the action did;
    /// [`TaskError::Full`], [`TaskError::Invalid`], [`TaskError::Busy`], [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// **Not cancel safe.** Dropped while the action runs, the action's future is dropped where it
    /// stands and no outcome is recorded: the task is abandoned, or taken over by others 15 seconds
    /// later, as if this process had died. Dropped before, a claim may still hold.
    pub async fn run<T, E, F, Fut>(&self, mut action: F) -> Result<Ran<T, E>, TaskError>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: fmt::Display,
    {
        self.check()?;
        // So far away that it is never: none.
        let deadline = || {
            self.patience
                .and_then(|patience| Instant::now().checked_add(patience))
        };
        let mut until = deadline();
        // One id until something is started under it: a claim that holds although its answer was lost
        // is this one's then.
        let mut id = self.tasks.new_claim_id();
        // The last attempt that was made here, where another may follow.
        let mut last = None;
        loop {
            let mut versions = self.tasks.hold().view().versions();
            versions.mark_unchanged();
            let claimed = match self.claim_as(id).await {
                // It held, nobody was told, and it has expired.
                Err(TaskError::Superseded) => {
                    id = self.tasks.new_claim_id();
                    continue;
                }
                // Nothing was started just now; but earlier something was.
                Err(error) => return last.unwrap_or(Err(error)),
                Ok(claimed) => claimed,
            };
            let (wait, status) = match claimed {
                Claimed::Here(attempt) => {
                    let (ran, may_follow) = self.start(attempt, &mut action).await;
                    if !may_follow {
                        return ran;
                    }
                    last = Some(ran);
                    id = self.tasks.new_claim_id();
                    until = deadline();
                    continue;
                }
                Claimed::NotYet(wait) => (wait, self.status().await?.map(Box::new)),
                Claimed::Elsewhere(status) => match status.state {
                    State::Running => (Duration::from_millis(RENEW_MS), Some(status)),
                    // It was, when the claim came.
                    State::Pending => continue,
                    State::Succeeded | State::Failed | State::Abandoned => {
                        return Ok(Ran::Elsewhere(status));
                    }
                },
            };
            let Some(status) = status else { continue };
            let mut wait = wait.max(Duration::from_millis(1));
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return last.unwrap_or(Ok(Ran::Elsewhere(status)));
                }
                wait = wait.min(left);
            }
            let changed = timeout(wait, versions.changed());
            // Whatever ends it: the next look shows what has become of it.
            let _ = self.tasks.hold().unless_down(changed).await?;
        }
    }

    /// Starts the action and records how it ended; and whether it is to be started again.
    async fn start<T, E, F, Fut>(
        &self,
        attempt: Attempt,
        action: &mut F,
    ) -> (Result<Ran<T, E>, TaskError>, bool)
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: fmt::Display,
    {
        let renewed = attempt.keep_renewed();
        // The closure may panic as well as the future that it makes.
        let running = async { action(attempt.clone()).await };
        let ended = AssertUnwindSafe(running).catch_unwind().await;
        let outcome = match &ended {
            Ok(Ok(_)) => Outcome::SUCCESS,
            Ok(Err(error)) => Outcome::Failed(Failure::Error(error.to_string())),
            Err(panic) => Outcome::Failed(Failure::Error(format!("panic: {}", said_by(panic)))),
        };
        let status = self.record(attempt.claim, outcome).await;
        drop(renewed);
        let may_follow = status.as_ref().is_some_and(|status| {
            status.state == State::Pending && matches!(status.policy, Policy::AtLeastOnce { .. })
        });
        let ran = match ended {
            Ok(result) => Ok(Ran::Here(Here {
                result,
                status: status.map(Box::new),
                attempt,
            })),
            Err(panic) => Err(TaskError::Panicked(said_by(&panic))),
        };
        (ran, may_follow)
    }

    /// Tries for a while to record an outcome, however few voters are up. `None` if it was not.
    async fn record(&self, claim: ClaimId, outcome: Outcome) -> Option<Status> {
        let until = Instant::now() + Duration::from_millis(RECORD_MS);
        loop {
            match self.finish(claim, outcome.clone()).await {
                Ok(status) => return Some(status),
                Err(TaskError::Offline) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(RECORD_AGAIN_MS)).await;
                }
                Err(error) => {
                    tracing::warn!(task = self.name, %claim, %error, "an outcome is not recorded");
                    return None;
                }
            }
        }
    }
}

/// The message of a panic.
fn said_by(panic: &Box<dyn Any + Send>) -> String {
    let said = panic.downcast_ref::<&str>().map(ToString::to_string);
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
    said.unwrap_or_else(|| "without a message".into())
}
