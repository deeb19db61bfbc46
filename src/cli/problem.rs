//! Exit codes, and what is said with them.

use std::io;
use std::path::Path;

use crate::job::JobsError;
use crate::network::{NetworkError, TicketError};
use crate::task::{ClaimId, Failure, Outcome, State, Status, TaskError};

/// Something that was asked for could not be done, for no fault of the task: it is not there, or is in
/// another state.
pub(super) const FAILED: u8 = 1;
/// The command line, or a manifest, is wrong.
pub(super) const USAGE: u8 = 64;
/// No majority, or no store; nothing was claimed.
pub(super) const UNAVAILABLE: u8 = 69;
/// Somebody else runs it, still.
pub(super) const RUNNING: u8 = 75;
/// A claim is in doubt, or abandoned.
pub(super) const IN_DOUBT: u8 = 79;
pub(super) const NOT_EXECUTABLE: u8 = 126;
pub(super) const NOT_FOUND: u8 = 127;
/// And the number of the signal.
const SIGNALLED: u8 = 128;

/// Why it ends without success: what to say, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(super) code: u8,
    pub(super) message: String,
}

/// The exit code of what went as it should, or the reason why not.
pub(crate) type Done = Result<u8, Problem>;

impl Problem {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// A file of the store could not be used; nothing was claimed.
    pub(super) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(UNAVAILABLE, format!("{what} {}: {error}", path.display()))
    }

    pub(super) fn in_doubt(claim: ClaimId, why: &str) -> Self {
        let message = format!(
            "the claim {claim} may hold or not ({why}); nothing was started here. `once get NAME` says how the \
             task stands; `once reset NAME` lets it run again"
        );
        Self::new(IN_DOUBT, message)
    }
}

impl From<TaskError> for Problem {
    fn from(error: TaskError) -> Self {
        let code = match &error {
            TaskError::Invalid(_) => USAGE,
            TaskError::Offline | TaskError::NetworkDown | TaskError::Full | TaskError::Busy => {
                UNAVAILABLE
            }
            TaskError::InDoubt(claim) => {
                return Self::in_doubt(*claim, "no majority answered in time");
            }
            TaskError::Missing
            | TaskError::Exists(_)
            | TaskError::Superseded
            | TaskError::Ended(_)
            | TaskError::NotAbandoned(_)
            | TaskError::Panicked(_) => FAILED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<JobsError> for Problem {
    fn from(error: JobsError) -> Self {
        let code = match &error {
            JobsError::Refused(_) => USAGE,
            JobsError::Missing | JobsError::Asked => FAILED,
            JobsError::Offline
            | JobsError::Full
            | JobsError::Clock
            | JobsError::Busy
            | JobsError::NetworkDown => UNAVAILABLE,
        };
        Self::new(code, error.to_string())
    }
}

impl From<NetworkError> for Problem {
    fn from(error: NetworkError) -> Self {
        let code = match &error {
            NetworkError::Electorate(_)
            | NetworkError::Secret(_)
            | NetworkError::Ticket(_)
            | NetworkError::UnknownVoter { .. }
            | NetworkError::NoStorage { .. }
            | NetworkError::StorageOfObserver
            | NetworkError::SecretMissing { .. }
            | NetworkError::Limit { .. } => USAGE,
            _ => UNAVAILABLE,
        };
        Self::new(code, error.to_string())
    }
}

impl From<TicketError> for Problem {
    fn from(error: TicketError) -> Self {
        Self::usage(format!("the ticket cannot be used: {error}"))
    }
}

/// The exit code that an outcome stands for.
pub(super) fn code_of(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Succeeded { .. } => 0,
        Outcome::Failed(Failure::Exit(code)) => u8::try_from(*code)
            .ok()
            .filter(|code| *code > 0)
            .unwrap_or(FAILED),
        Outcome::Failed(Failure::Signal(signal)) => of_signal(*signal),
        Outcome::Failed(Failure::Error(_)) => FAILED,
    }
}

pub(super) fn of_signal(signal: i32) -> u8 {
    SIGNALLED.saturating_add(u8::try_from(signal).unwrap_or(0))
}

/// The exit code of whoever found the task to stand so.
pub(super) fn code_elsewhere(status: &Status) -> u8 {
    match (status.state, &status.outcome) {
        (State::Succeeded, _) => 0,
        (State::Failed, Some(outcome)) => code_of(outcome),
        (State::Failed, None) => FAILED,
        (State::Abandoned, _) => IN_DOUBT,
        (State::Pending | State::Running, _) => RUNNING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_the_codes_of_shells() {
        let code = |failure| code_of(&Outcome::Failed(failure));
        assert_eq!(code_of(&Outcome::SUCCESS), 0);
        assert_eq!(code(Failure::Exit(3)), 3);
        assert_eq!(code(Failure::Signal(9)), 137);
        assert_eq!(code(Failure::Error("so".into())), 1);
        // No exit code of a process; but whoever records one from elsewhere is not told of success.
        assert_eq!(code(Failure::Exit(0)), 1);
        assert_eq!(code(Failure::Exit(512)), 1);
    }
}
