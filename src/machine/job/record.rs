//! What is kept of one job.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Spec, Tick};
use crate::codec::{self, Decode, Encode};
use crate::id::Version;
use crate::machine::task::{ClaimId, Failure, Outcome, check_who};

/// The most executions that are remembered of a job.
pub(crate) const HISTORY_MAX: usize = 16;

/// What they take at most, in bytes: a job whose failures have much to say keeps fewer.
pub(crate) const HISTORY_BYTES_MAX: usize = 1_024;

/// The longest reason of a failure that is kept of a job, in bytes. One execution always fits.
pub(crate) const ERROR_BYTES_MAX: usize = 256;

/// How many of the last things that operators did to a job it knows by their ids: one that is asked for
/// again, because its answer was lost, was done, whatever others did since.
pub(crate) const OPERATIONS_MAX: usize = 4;

/// What a job takes at most beside its spec and its history.
pub(crate) const FRAME_BYTES_MAX: usize = 360;

/// The number of a job: where in the log it was created. No other job ever has it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct JobId(u64);

impl JobId {
    pub(crate) fn of(version: Version) -> Self {
        Self(version.as_u64())
    }

    /// As a number.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What an execution is for. Each is claimed once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Slot {
    /// A tick of the schedule.
    Tick(Tick),
    /// Somebody has asked for it, at this version.
    Now(Version),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick(tick) => tick.fmt(f),
            Self::Now(version) => write!(f, "now-{version}"),
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One execution, in its last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Execution {
    pub(crate) slot: Slot,
    /// From 1; 0 if it was missed.
    pub(crate) attempt: u32,
    pub(crate) claim: ClaimId,
    pub(crate) worker: String,
    /// When this attempt was claimed, by the leader's wall clock.
    pub(crate) at_ms: u64,
    /// Where in the log: a fencing token.
    pub(crate) version: Version,
    pub(crate) end: Option<End>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct End {
    pub(crate) took_ms: u64,
    pub(crate) version: Version,
    pub(crate) how: How,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum How {
    /// As the worker said.
    Ended(Outcome),
    /// The worker was not heard of for too long.
    Expired,
    /// It was not run.
    Missed,
}

/// Where an execution stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// An attempt has failed, and another is to follow.
    Waiting,
    Succeeded,
    Failed,
    Missed,
}

impl Execution {
    /// `retries` are those of the job's policy.
    pub(crate) fn phase(&self, retries: u32) -> Phase {
        match self.end.as_ref().map(|end| &end.how) {
            None => Phase::Running,
            Some(How::Missed) => Phase::Missed,
            Some(How::Ended(outcome)) if outcome.is_success() => Phase::Succeeded,
            Some(How::Ended(_) | How::Expired) if self.attempt <= retries => Phase::Waiting,
            Some(How::Ended(_) | How::Expired) => Phase::Failed,
        }
    }

    /// Where it changed last.
    pub(crate) fn changed(&self) -> Version {
        self.end.as_ref().map_or(self.version, |end| end.version)
    }

    fn check(&self, retries: u32, version: Version) -> Result<(), &'static str> {
        if self.version > self.changed() || self.changed() > version {
            return Err("an execution is beyond what is applied");
        }
        let is_missed = self.phase(retries) == Phase::Missed;
        if self.attempt > retries + 1 || (self.attempt == 0) != is_missed {
            return Err("an execution was started too often");
        }
        match self.slot {
            Slot::Tick(tick) if !tick.is_sound() => return Err("an execution is of no tick"),
            Slot::Now(asked) if asked >= self.version => {
                return Err("an execution was not asked for");
            }
            _ => {}
        }
        check_who(&self.worker)?;
        match &self.end {
            Some(End {
                how: How::Ended(outcome),
                ..
            }) => check_error(outcome),
            _ => Ok(()),
        }
    }
}

/// A request to run the job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Asked {
    pub(crate) version: Version,
    pub(crate) is_taken: bool,
}

/// Who made it, and when.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Made {
    /// What was asked, so that asking again makes no other.
    pub(crate) id: ClaimId,
    pub(crate) by: String,
    pub(crate) at_ms: u64,
}

/// A job: all that is stored of it, under one key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) spec: Arc<Spec>,
    pub(crate) made: Made,
    /// Where it changed last.
    pub(crate) changed: Version,
    /// What operators did last, oldest first, and where the last of it: the creation, if nothing else.
    pub(crate) operations: Vec<ClaimId>,
    pub(crate) operated: Version,
    pub(crate) is_paused: bool,
    /// Its schedule is gone.
    pub(crate) is_over: bool,
    /// The last tick that was taken, or passed over: only later ones can be claimed.
    pub(crate) last: Tick,
    pub(crate) asked: Option<Asked>,
    /// The last ones, oldest first.
    pub(crate) executions: Vec<Execution>,
}

impl Job {
    pub(crate) fn retries(&self) -> u32 {
        self.spec.policy.retries()
    }

    /// It may be run again after a failure, and is one execution at a time.
    pub(crate) fn is_at_least_once(&self) -> bool {
        self.spec.policy != crate::machine::task::Policy::AtMostOnce
    }

    pub(crate) fn execution(&self, slot: Slot) -> Option<&Execution> {
        self.executions
            .iter()
            .rev()
            .find(|execution| execution.slot == slot)
    }

    pub(crate) fn phase(&self, execution: &Execution) -> Phase {
        execution.phase(self.retries())
    }

    /// The last tick that was run, if it is remembered.
    pub(crate) fn last_run(&self) -> Option<&Execution> {
        let is_run = |execution: &&Execution| {
            let is_tick = matches!(execution.slot, Slot::Tick(_));
            is_tick && self.phase(execution) != Phase::Missed
        };
        self.executions.iter().rev().find(is_run)
    }

    /// Those that have not ended for good.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Execution> {
        let is_open = |execution: &&Execution| {
            matches!(self.phase(execution), Phase::Running | Phase::Waiting)
        };
        self.executions.iter().filter(is_open)
    }

    /// Forgets the oldest beyond the limits, first of those that have ended. The last one stays; of a job that is run at least once no other is open.
    pub(crate) fn trim(&mut self) {
        while self.executions.len() > 1 && !is_within(&self.executions) {
            let ended = self
                .executions
                .iter()
                .position(|execution| execution.end.is_some());
            let oldest = ended
                .filter(|at| at + 1 < self.executions.len())
                .unwrap_or(0);
            self.executions.remove(oldest);
        }
    }

    /// What it may take for as long as it is there, in bytes.
    pub(crate) fn charge(spec: &Spec) -> usize {
        spec.bytes() + FRAME_BYTES_MAX + HISTORY_BYTES_MAX
    }

    /// Why it is not what a log up to `version` can have made.
    pub(crate) fn check(&self, version: Version) -> Result<(), &'static str> {
        self.spec.check()?;
        check_who(&self.made.by)?;
        let made = self.id.as_u64();
        if made > self.operated.as_u64() || self.operated > self.changed || self.changed > version {
            return Err("a job is beyond what is applied");
        }
        if self.operations.is_empty() || self.operations.len() > OPERATIONS_MAX {
            return Err("a job knows more or less than the last that was done to it");
        }
        if !self.last.is_sound() || self.last < self.spec.after {
            return Err("a job has taken no tick that there is");
        }
        if self
            .asked
            .is_some_and(|asked| asked.version > self.operated)
        {
            return Err("a job was asked for beyond what is applied");
        }
        if !is_within(&self.executions) {
            return Err("a job has more history than is kept");
        }
        if self.is_at_least_once() && self.open().any(|open| Some(open) != self.executions.last()) {
            return Err("a job runs twice at a time");
        }
        let mut executions = self.executions.iter();
        executions.try_for_each(|execution| execution.check(self.retries(), self.changed))
    }
}

fn is_within(executions: &[Execution]) -> bool {
    executions.len() <= HISTORY_MAX && codec::encode(0, &executions).len() <= HISTORY_BYTES_MAX
}

pub(crate) fn check_error(outcome: &Outcome) -> Result<(), &'static str> {
    match outcome {
        Outcome::Failed(Failure::Error(reason)) if reason.len() > ERROR_BYTES_MAX => {
            Err("the reason of a failure of a job has 256 bytes at most")
        }
        _ => Ok(()),
    }
}
