//! How a job stands, and what became of its executions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::document::{AT_LEAST_ONCE, AT_MOST_ONCE};
use super::duration;
use crate::group::{JobSeen, SILENT_MS};
use crate::id::Version;
use crate::machine::job::{self, Action, End, How, JobId, Phase, Slot, Spec};
use crate::machine::task::{Outcome, Policy};

/// Where an execution stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// A worker is at it.
    Running,
    /// An attempt has failed, and another is to follow.
    Retrying,
    /// It ended well.
    Succeeded,
    /// It failed, and is not tried again.
    Failed,
    /// Nobody was there to run it when it was due.
    Missed,
    /// Nothing was heard of its worker for 15 seconds, and nobody else may run it.
    Abandoned,
}

impl State {
    /// As it is written in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Retrying => "RETRYING",
            Self::Succeeded => "SUCCESS",
            Self::Failed => "FAILED",
            Self::Missed => "MISSED",
            Self::Abandoned => "ABANDONED",
        }
    }
}

/// One execution of a job, in its last attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Execution {
    /// Of this job.
    pub job: JobId,
    /// What it was for.
    pub slot: Slot,
    /// Where it stands.
    pub state: State,
    /// How often it was started after the first time.
    pub retries: u32,
    /// Who ran it, or found it missed.
    pub worker: String,
    /// When the last attempt was claimed, by the leader's wall clock.
    pub at: SystemTime,
    /// How long it took, once it has ended.
    pub duration: Option<Duration>,
    /// Why it failed.
    pub error: Option<String>,
    /// Where in the history of the namespace it was claimed: a fencing token.
    pub version: Version,
}

/// How a job stands, as of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    seen: JobSeen,
}

impl Status {
    pub(super) fn of(seen: JobSeen) -> Self {
        Self { seen }
    }

    /// Its number. No other job ever has it.
    pub fn id(&self) -> JobId {
        self.seen.job.id
    }

    /// Whether it is the job that this document describes, whenever it was made.
    pub(super) fn is_made_of(&self, spec: &Spec) -> bool {
        let known = &self.seen.job.spec;
        let spec = Spec {
            after: known.after,
            ..spec.clone()
        };
        **known == spec
    }

    pub(super) fn seen_zone(&self) -> String {
        self.seen.job.spec.zone.clone()
    }

    /// Nothing is started until it is resumed.
    pub fn is_paused(&self) -> bool {
        self.seen.job.is_paused
    }

    /// It was to run once, and did, or was missed: its schedule is gone.
    pub fn is_over(&self) -> bool {
        self.seen.job.is_over
    }

    /// Where it changed last.
    pub fn version(&self) -> Version {
        self.seen.job.changed
    }

    /// Its last executions, oldest first.
    pub fn history(&self) -> Vec<Execution> {
        let job = &self.seen.job;
        let executions = job.executions.iter();
        executions
            .map(|execution| self.execution(execution))
            .collect()
    }

    /// How many of these have failed.
    pub fn failures(&self) -> usize {
        let history = self.history().into_iter();
        history
            .filter(|execution| execution.state == State::Failed)
            .count()
    }

    fn execution(&self, execution: &job::Execution) -> Execution {
        let job = &self.seen.job;
        let silent = self.seen.silent_ms.iter();
        let is_silent = |(slot, ms): &(Slot, u64)| *slot == execution.slot && *ms >= SILENT_MS;
        let state = match job.phase(execution) {
            Phase::Running if !job.is_at_least_once() && silent.clone().any(is_silent) => {
                State::Abandoned
            }
            Phase::Running => State::Running,
            Phase::Waiting => State::Retrying,
            Phase::Succeeded => State::Succeeded,
            Phase::Failed => State::Failed,
            Phase::Missed => State::Missed,
        };
        let error = match execution.end.as_ref().map(|end| &end.how) {
            Some(How::Ended(Outcome::Failed(failure))) => Some(failure.to_string()),
            Some(How::Expired) => Some("the worker was not heard of any more".into()),
            _ => None,
        };
        let took = |end: &End| Duration::from_millis(end.took_ms);
        Execution {
            job: job.id,
            slot: execution.slot,
            state,
            retries: execution.attempt.saturating_sub(1),
            worker: execution.worker.clone(),
            at: at(execution.at_ms),
            duration: execution.end.as_ref().map(took),
            error,
            version: execution.version,
        }
    }

    /// As JSON: the fields that it was created with, and how it stands.
    pub fn to_json(&self) -> Value {
        let (job, spec) = (&self.seen.job, &self.seen.job.spec);
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| drop(fields.insert(name.into(), value));
        put("id", job.id.as_u64().into());
        put("schedule", spec.schedule.as_str().into());
        put("timezone", spec.zone.as_str().into());
        match &spec.action {
            Action::Call(call) => {
                put("api", call.url.as_str().into());
                put("method", call.method.as_str().into());
                let headers = call.headers.iter();
                let headers = headers.map(|(name, value)| (name.clone(), value.as_str().into()));
                put("headers", Value::Object(headers.collect()));
                put("body", call.body.as_str().into());
            }
            Action::Command(argv) => put("command", argv.clone().into()),
        }
        match spec.policy {
            Policy::AtMostOnce => put("type", AT_MOST_ONCE.into()),
            Policy::AtLeastOnce { retries_max, .. } => {
                put("type", AT_LEAST_ONCE.into());
                put("maxRetryCount", retries_max.into());
            }
        }
        put("isRecurring", spec.is_recurring.into());
        let timeout = Duration::from_millis(spec.timeout_ms);
        put("timeout", duration::format(timeout).into());
        put("description", spec.description.as_str().into());
        put("createdBy", job.made.by.as_str().into());
        put("createdAt", time(at(job.made.at_ms)));
        let state = match (job.is_over, job.is_paused) {
            (true, _) => "OVER",
            (false, true) => "PAUSED",
            (false, false) => "SCHEDULED",
        };
        put("state", state.into());
        put("failures", self.failures().into());
        let last = job.executions.last();
        put(
            "last",
            last.map_or(Value::Null, |last| self.execution(last).to_json()),
        );
        Value::Object(fields)
    }
}

impl Execution {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.job.as_u64(),
            "status": self.state.as_str(),
            "retryCount": self.retries,
            "executionTime": time(self.at),
            "error": self.error,
            "worker": self.worker,
            "tick": self.slot.to_string(),
            "durationMs": self.duration.map(|took| took.as_millis() as u64),
        })
    }
}

fn at(ms: u64) -> SystemTime {
    let since_epoch = Duration::from_millis(ms);
    UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
}

/// To the second, in UTC.
fn time(at: SystemTime) -> Value {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    match Timestamp::from_second(since.as_secs() as i64) {
        Ok(at) => at.to_string().into(),
        // Some clock was set beyond the year 9999.
        Err(_) => Value::Null,
    }
}
