//! Groups of jobs: what nodes ask each other about them, where they are kept, and what a leader
//! judges by its own clock. As those of tasks; what is heard of workers is in no log.

#[cfg(feature = "jobs")]
mod ask;
mod disk;
#[cfg(test)]
pub(crate) mod generate;
mod lead;
mod serve;

use std::sync::Arc;

use crate::codec::{Decode, Encode};
use crate::id::{GroupId, Version};
use crate::machine::job::{Command, Job, JobId, Slot, Step};
use crate::machine::task::ClaimId;

pub(super) use disk::{Found, put};

/// A tick is missed so long after it was due by the leader's clock at the earliest, in milliseconds.
pub(crate) const MISSED_AFTER_MS: u64 = 5_000;

/// The most bytes of jobs that are sent at once, unless the first of them is larger.
const PAGE_BYTES: usize = 256 * 1024;

/// What the leader of a group of jobs is asked beside steps to commit. It answers when a majority
/// has confirmed that it leads.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum JobsQuery {
    /// How does this job stand? Who is silent is expired first, where another may go on.
    Look { job: JobId },
    /// The jobs from this one on.
    Page { from: JobId },
    /// The worker with this claim is at work.
    Renew {
        job: JobId,
        slot: Slot,
        claim: ClaimId,
    },
}

impl JobsQuery {
    /// Why no honest node asks it in this group.
    pub(super) fn check(&self, group: GroupId) -> Result<(), &'static str> {
        match group.is_jobs() {
            true => Ok(()),
            false => Err("there are no jobs in this group"),
        }
    }
}

/// Why no honest node proposes this step: who is silent the leader says, and nobody else.
pub(super) fn check_proposed(command: &Command) -> Result<(), &'static str> {
    match command.step {
        Step::Expire { .. } => Err("only a leader judges jobs"),
        _ => command.check(),
    }
}

/// A job, and for how long the leader has not heard of its workers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct JobSeen {
    pub(crate) job: Arc<Job>,
    /// Of each execution that runs.
    pub(crate) silent_ms: Vec<(Slot, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum JobsAnswer {
    Seen {
        /// As of which version.
        version: Version,
        seen: Option<Box<JobSeen>>,
    },
    Page {
        version: Version,
        jobs: Vec<JobSeen>,
        /// Where to go on, if there are more.
        next: Option<JobId>,
    },
    /// Whether the claim is still the one under which the slot is run.
    Renewed(bool),
    /// A claim comes too soon after an attempt that failed, or a tick is said to be missed too soon.
    NotYet { wait_ms: u64 },
    /// The jobs that have changed, in the order of their changes and without what has ended of
    /// their history, but for the last tick that was run: all there are up to a version.
    Changes {
        jobs: Vec<Arc<Job>>,
        upto: Version,
        /// The last version at which any was removed.
        removed: Version,
    },
}

/// What became of a step.
#[cfg(feature = "jobs")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JobStepped {
    /// It was committed, and this is the answer.
    Taken(Box<crate::machine::job::Answer>),
    /// A claim that came too soon: nothing was committed.
    NotYet { wait_ms: u64 },
}
