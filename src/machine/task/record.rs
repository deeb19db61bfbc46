//! What is kept of one task.

use std::fmt;
use std::str::FromStr;

use crate::codec::{Decode, Encode};
use crate::id::Version;

/// The name of a task within its namespace.
pub(crate) type Name = String;

/// The longest name of a task, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 200;

/// The longest name of an executor, or of whoever resets, deletes or resolves, in bytes.
pub(crate) const WHO_BYTES_MAX: usize = 128;

/// The longest reason of a failure that is kept, in bytes.
pub(crate) const REASON_BYTES_MAX: usize = 512;

/// Retries and pauses beyond these are taken for mistakes.
pub(crate) const RETRIES_MAX: u32 = 1_000;
pub(crate) const BACKOFF_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// The most bytes that a task takes in a snapshot, its name included.
pub(crate) const TASK_BYTES_MAX: usize =
    NAME_BYTES_MAX + 3 * WHO_BYTES_MAX + REASON_BYTES_MAX + 304;

/// How often an action may be started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub enum Policy {
    /// Once, whatever becomes of it: a failure is recorded and not retried, and an executor that
    /// died leaves an abandoned task that an operator has to see to.
    #[default]
    AtMostOnce,
    /// Until it succeeds, or has failed too often. An executor that is not heard of any more is
    /// replaced, **though it may still be at work**: attempts may overlap, and the number of the
    /// attempt tells them apart.
    AtLeastOnce {
        /// How often it is started again after the first time.
        retries_max: u32,
        /// The pause before the first retry, in milliseconds; it doubles with each.
        backoff_first_ms: u64,
        /// The longest pause, in milliseconds.
        backoff_max_ms: u64,
    },
}

impl Policy {
    /// Three retries, after a second, two and four.
    pub const fn at_least_once() -> Self {
        Self::AtLeastOnce {
            retries_max: 3,
            backoff_first_ms: 1_000,
            backoff_max_ms: 300_000,
        }
    }

    /// The pause behind an attempt that failed, before the next one.
    pub(crate) fn backoff_ms(&self, attempt: u32) -> u64 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce {
                backoff_first_ms,
                backoff_max_ms,
                ..
            } => {
                let doublings = attempt.saturating_sub(1).min(63);
                let pause = backoff_first_ms.saturating_mul(1 << doublings);
                pause.min(*backoff_max_ms)
            }
        }
    }

    pub(crate) fn retries(&self) -> u32 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce { retries_max, .. } => *retries_max,
        }
    }
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// Well, with this exit code: 0, unless the caller takes others for success.
    Succeeded {
        /// The exit code.
        code: i32,
    },
    /// Not well.
    Failed(Failure),
}

impl Outcome {
    /// Well, with exit code 0.
    pub const SUCCESS: Self = Self::Succeeded { code: 0 };

    /// It ended well.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded { .. })
    }
}

/// Why an action failed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Failure {
    /// It ended with this exit code.
    Exit(i32),
    /// It was ended by this signal.
    Signal(i32),
    /// For this reason. What is longer than 512 bytes is cut.
    Error(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::Error(reason) => f.write_str(reason),
        }
    }
}

/// The identity of one start of an action: random, made by whoever is to run it, and never that of
/// a host. A retry of a claim carries the same one; an outcome is recorded for it alone.
///
/// As text it is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ClaimId(pub(crate) [u8; 16]);

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no claim id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a claim id is the 32 hexadecimal digits that the claim was answered with")]
pub struct ClaimIdError;

impl FromStr for ClaimId {
    type Err = ClaimIdError;

    fn from_str(text: &str) -> Result<Self, ClaimIdError> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex);
        Ok(Self(number.ok_or(ClaimIdError)?.to_be_bytes()))
    }
}

/// What a task is to be. It does not change within a generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Spec {
    pub(crate) policy: Policy,
    /// For how long its record is kept behind its end.
    pub(crate) ttl_ms: Option<u64>,
}

impl Spec {
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self.policy {
            Policy::AtLeastOnce { retries_max, .. } if retries_max > RETRIES_MAX => {
                Err("a task is retried 1,000 times at most")
            }
            Policy::AtLeastOnce { backoff_max_ms, .. } if backoff_max_ms > BACKOFF_MS_MAX => {
                Err("the pause before a retry is a day at most")
            }
            _ => Ok(()),
        }
    }
}

/// Where a generation began.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Made {
    /// What was asked, so that asking again changes nothing.
    pub(crate) id: ClaimId,
    pub(crate) by: String,
    pub(crate) at_ms: u64,
}

/// One start of the action.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Attempt {
    /// From 1; each is greater than the one before.
    pub(crate) number: u32,
    pub(crate) claim: ClaimId,
    pub(crate) executor: String,
    pub(crate) at_ms: u64,
    /// Where in the log it was claimed: a fencing token that grows over generations, too.
    pub(crate) version: Version,
    pub(crate) end: Option<End>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct End {
    pub(crate) at_ms: u64,
    pub(crate) how: How,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum How {
    /// As the executor said.
    Ended(Outcome),
    /// It was not heard of for too long.
    Expired,
    /// As an operator said.
    Resolved {
        id: ClaimId,
        outcome: Outcome,
        by: String,
    },
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nobody has claimed it.
    Pending,
    Running,
    /// An attempt has failed, and another one may follow.
    Waiting,
    Succeeded,
    Failed,
}

/// A task in its present generation: all that is stored of it, under one key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Task {
    /// Where in the log the generation began: no two are the same, whatever was forgotten.
    pub(crate) generation: Version,
    /// Where it changed last.
    pub(crate) changed: Version,
    pub(crate) spec: Spec,
    pub(crate) made: Made,
    /// The last one.
    pub(crate) attempt: Option<Attempt>,
}

impl Task {
    pub(crate) fn phase(&self) -> Phase {
        let Some(attempt) = &self.attempt else {
            return Phase::Pending;
        };
        match attempt.end.as_ref().map(|end| &end.how) {
            None => Phase::Running,
            Some(How::Ended(outcome) | How::Resolved { outcome, .. }) if outcome.is_success() => {
                Phase::Succeeded
            }
            Some(How::Ended(_) | How::Expired) if attempt.number <= self.spec.policy.retries() => {
                Phase::Waiting
            }
            Some(_) => Phase::Failed,
        }
    }

    /// It has an outcome that does not change any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase(), Phase::Succeeded | Phase::Failed)
    }

    /// It ended so long ago that it is to be forgotten. Only what has ended ever is.
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        let ended = self
            .attempt
            .as_ref()
            .and_then(|attempt| attempt.end.as_ref());
        match (self.spec.ttl_ms, ended) {
            (Some(ttl_ms), Some(end)) if self.has_ended() => {
                end.at_ms.saturating_add(ttl_ms) <= now_ms
            }
            _ => false,
        }
    }

    /// The claim under which it runs.
    pub(crate) fn running(&self) -> Option<ClaimId> {
        let attempt = self
            .attempt
            .as_ref()
            .filter(|attempt| attempt.end.is_none());
        attempt.map(|attempt| attempt.claim)
    }

    /// Why it is not what a log up to `version` can have made.
    pub(crate) fn check(&self, version: Version) -> Result<(), &'static str> {
        let attempted = self.attempt.as_ref();
        let claimed = attempted.map_or(self.generation, |attempt| attempt.version);
        if self.generation > claimed || claimed > self.changed || self.changed > version {
            return Err("a task is beyond what is applied");
        }
        self.spec.check()?;
        check_who(&self.made.by)?;
        let Some(attempt) = attempted else {
            return Ok(());
        };
        if attempt.number == 0 || attempt.number > self.spec.policy.retries() + 1 {
            return Err("a task was started too often");
        }
        check_who(&attempt.executor)?;
        match attempt.end.as_ref().map(|end| &end.how) {
            None | Some(How::Expired) => Ok(()),
            Some(How::Ended(outcome)) => check_outcome(outcome),
            Some(How::Resolved { outcome, by, .. }) => {
                check_who(by)?;
                check_outcome(outcome)
            }
        }
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err("a task's name has 1 to 200 bytes and no control characters");
    }
    Ok(())
}

pub(crate) fn check_who(who: &str) -> Result<(), &'static str> {
    // It is shown to others, on terminals too.
    match who.len() <= WHO_BYTES_MAX && !who.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(
            "the name of whoever acts on a task has 128 bytes at most, and no control characters",
        ),
    }
}

pub(crate) fn check_outcome(outcome: &Outcome) -> Result<(), &'static str> {
    match outcome {
        Outcome::Failed(Failure::Error(reason)) if reason.len() > REASON_BYTES_MAX => {
            Err("the reason of a failure has 512 bytes at most")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let policy = Policy::at_least_once();
        let pauses: Vec<u64> = [1, 2, 3, 9, 10, 11, u32::MAX]
            .map(|attempt| policy.backoff_ms(attempt))
            .into();
        let (longest, ninth) = (300_000, 256_000);
        assert_eq!(
            pauses,
            [1_000, 2_000, 4_000, ninth, longest, longest, longest]
        );
    }

    #[test]
    fn a_claim_id_is_read_as_it_is_written_and_nothing_else_is() {
        let id = ClaimId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "00",
            "+0000000000000000000000000000000",
            &"g".repeat(32),
        ] {
            assert_eq!(text.parse::<ClaimId>(), Err(ClaimIdError), "{text}");
        }
    }

    #[test]
    fn names_have_bounds() {
        assert!(check_name("backup@2024-01-15 / Zürich").is_ok());
        for name in ["", "a\nb", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
