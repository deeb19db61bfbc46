//! Why something about a task could not be done.

use super::ClaimId;
use super::status::Status;
use crate::once::NoAnswer;

/// Why something about a task was not done, or is not known to be.
///
/// Exhaustive, so that a `match` handles every case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// A name, or what was asked for, is out of bounds. Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// No leader could be asked within the network's write timeout. Of a [`claim`](super::Task::claim)
    /// or a [`run`](super::Task::run): nothing was claimed. Anything else may be committed yet; to
    /// ask for it again is harmless.
    #[error(
        "no leader of the tasks could be asked in time; nothing was started here: try again \
         when a majority of the voters is up and connected"
    )]
    Offline,
    /// The claim was not confirmed within the network's write timeout, and may be committed yet.
    /// Nothing was started here, and if it is committed, nothing else is: claim with the same id
    /// ([`claim_as`](super::Task::claim_as)) to learn it.
    #[error(
        "the claim {0} was not confirmed in time and may hold all the same; nothing was started \
         here: claim again with this id, or reset the task once it is known to be abandoned"
    )]
    InDoubt(ClaimId),
    /// There is no such task: it was never created, or was deleted or forgotten.
    #[error("there is no such task; it was never created, or was deleted or forgotten since")]
    Missing,
    /// The task is there already.
    #[error("the task is there already; delete it first, or reset it to have it run again")]
    Exists(Box<Status>),
    /// The namespace holds as many tasks as it may, and none is over.
    #[error(
        "the namespace holds 10,000 tasks, as many as may be; delete some, give tasks a ttl, \
         or use another namespace"
    )]
    Full,
    /// The claim is not that of the task's last attempt: another one was claimed, or the task was
    /// reset. The outcome was not recorded.
    #[error(
        "the claim is of an earlier attempt or generation: the task was taken over, or reset, \
         since; the outcome was not recorded"
    )]
    Superseded,
    /// The task has another outcome, which stays: an operator has resolved it, or its last attempt
    /// was given up.
    #[error("the task has an outcome already, which stays; the outcome was not recorded")]
    Ended(Box<Status>),
    /// Only an abandoned task can be resolved.
    #[error(
        "the task is not abandoned: wait until its executor was silent for 15 seconds, or reset \
         or delete it"
    )]
    NotAbandoned(Box<Status>),
    /// The task changes all the time; nothing was done.
    #[error("the task has changed again and again meanwhile; try again")]
    Busy,
    /// The action panicked, with this message. It is recorded as failed, if that could be recorded.
    #[error("the action panicked: {0}")]
    Panicked(String),
    /// The network was shut down, for good: open a new one.
    #[error("the network was shut down; start a new one and open the tasks there")]
    NetworkDown,
}

impl From<NoAnswer> for TaskError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Offline => Self::Offline,
            NoAnswer::NetworkDown => Self::NetworkDown,
        }
    }
}

/// Of a bound that is not kept.
pub(super) fn invalid(reason: &'static str) -> TaskError {
    TaskError::Invalid(reason.into())
}
