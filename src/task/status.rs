//! What a person wants to know of a task.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Failure, Outcome, Policy};
use crate::group::{SILENT_MS, Seen};
use crate::id::Version;
use crate::machine::task::{self, How, Phase};

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Nobody runs it: it was never claimed, or waits for another attempt after one has failed.
    Pending,
    /// It was claimed, and its executor is heard of.
    Running,
    /// It has ended well.
    Succeeded,
    /// It has failed for good.
    Failed,
    /// It was claimed, is to be started once at most, and its executor was not heard of for 15
    /// seconds. That is no decision: the executor may be at work all the same, and its outcome is
    /// recorded when it comes.
    Abandoned,
}

/// What is known of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Its name within the namespace.
    pub name: String,
    /// The generation it is in, which is the version at which that began.
    pub generation: Version,
    /// Where in the history of the namespace it changed last.
    pub version: Version,
    /// How often it may be started.
    pub policy: Policy,
    /// For how long its record is kept after its outcome; without one, until it is deleted.
    pub ttl: Option<Duration>,
    /// How it stands.
    pub state: State,
    /// How often it was claimed in this generation.
    pub attempt: u32,
    /// Who claimed it last.
    pub executor: Option<String>,
    /// When that was, by the leader's wall clock. Information only.
    pub executed_at: Option<SystemTime>,
    /// Where in the history of the namespace that was: the fencing token of that attempt.
    pub claimed: Option<Version>,
    /// For how long the leader has not heard of its executor, while it runs.
    pub silent_for: Option<Duration>,
    /// How the last attempt ended.
    pub outcome: Option<Outcome>,
    /// When that was, by the leader's wall clock.
    pub ended_at: Option<SystemTime>,
    /// The operator who said how it ended, if one did.
    pub resolved_by: Option<String>,
    /// Who created it, or reset it last.
    pub created_by: String,
    /// When that was, by the leader's wall clock.
    pub created_at: SystemTime,
}

impl Status {
    pub(crate) fn of(name: String, seen: &Seen) -> Self {
        let task = &seen.task;
        let silent = Duration::from_millis(seen.silent_ms);
        let attempt = task.attempt.as_ref();
        let end = attempt.and_then(|attempt| attempt.end.as_ref());
        Self {
            name,
            generation: task.generation,
            version: task.changed,
            policy: task.spec.policy,
            ttl: task.spec.ttl_ms.map(Duration::from_millis),
            state: state_of(task, silent),
            attempt: attempt.map_or(0, |attempt| attempt.number),
            executor: attempt.map(|attempt| attempt.executor.clone()),
            executed_at: attempt.map(|attempt| at(attempt.at_ms)),
            claimed: attempt.map(|attempt| attempt.version),
            silent_for: task.running().map(|_| silent),
            outcome: end.map(|end| match &end.how {
                How::Ended(outcome) | How::Resolved { outcome, .. } => outcome.clone(),
                How::Expired => Outcome::Failed(Failure::Error(
                    "its executor was not heard of any more".into(),
                )),
            }),
            ended_at: end.map(|end| at(end.at_ms)),
            resolved_by: end.and_then(|end| match &end.how {
                How::Resolved { by, .. } => Some(by.clone()),
                How::Ended(_) | How::Expired => None,
            }),
            created_by: task.made.by.clone(),
            created_at: at(task.made.at_ms),
        }
    }

    /// It was claimed in this generation: its action was started, or may have been.
    pub fn executed(&self) -> bool {
        self.attempt > 0
    }

    /// It has an outcome that does not change any more in this generation.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Succeeded | State::Failed)
    }

    /// The same as a list of conditions, in the manner of Kubernetes: each is true or not, for a
    /// reason in one word and in a sentence.
    pub fn conditions(&self) -> Vec<Condition> {
        let who = self.executor.as_deref().unwrap_or("nobody");
        let said = match &self.outcome {
            Some(Outcome::Failed(failure)) => failure.to_string(),
            Some(Outcome::Succeeded { code }) => format!("exit code {code}"),
            None => String::new(),
        };
        let (reason, message) = match self.state {
            State::Pending if self.executed() => (
                "Retrying",
                format!("attempt {} failed: {said}", self.attempt),
            ),
            State::Pending => ("NotClaimed", "nobody has claimed it".into()),
            State::Running => ("Running", format!("{who} runs it")),
            State::Succeeded => ("Succeeded", said),
            State::Failed => ("Failed", said),
            State::Abandoned => ("ExecutorSilent", format!("{who} is not heard of any more")),
        };
        let condition = |kind, holds| Condition {
            kind,
            holds,
            reason,
            message: message.clone(),
        };
        vec![
            Condition {
                kind: "Ready",
                holds: true,
                reason: "OnceReady",
                message: String::new(),
            },
            condition("Executed", self.executed()),
            condition("Complete", self.has_ended()),
            condition("Failed", self.state == State::Failed),
            condition("Abandoned", self.state == State::Abandoned),
        ]
    }
}

/// One thing that is so of a task, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Condition {
    /// What: `Ready`, `Executed`, `Complete`, `Failed`, `Abandoned`.
    pub kind: &'static str,
    /// Whether it is so.
    pub holds: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

fn state_of(task: &task::Task, silent: Duration) -> State {
    match (task.phase(), task.spec.policy) {
        (Phase::Pending | Phase::Waiting, _) => State::Pending,
        (Phase::Running, Policy::AtMostOnce) if silent >= Duration::from_millis(SILENT_MS) => {
            State::Abandoned
        }
        (Phase::Running, _) => State::Running,
        (Phase::Succeeded, _) => State::Succeeded,
        (Phase::Failed, _) => State::Failed,
    }
}

/// A clock so wrong that the platform cannot express it carries no information.
pub(super) fn at(ms: u64) -> SystemTime {
    let since_epoch = Duration::from_millis(ms);
    UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
}
