//! Groups of tasks: what nodes ask each other about them, where they are kept, and what a leader
//! judges by its own clock.
//!
//! All tasks of a namespace are held in memory by a replica that is awake, and are one key each on
//! the disk. What a leader hears of executors is in no log: it is gone with its term.

mod ask;
mod disk;
#[cfg(test)]
pub(crate) mod generate;
mod lead;
mod serve;
mod vigil;

use crate::codec::{Decode, Encode};
use crate::id::{GroupId, NodeId, Version};
use crate::machine::task::{Answer, ClaimId, Command, Deed, Name, Step, Task, check_name};

pub(super) use disk::{Found, put};
pub(super) use vigil::{Vigils, Watch};

/// How often an executor tells the leader that it is at work, in milliseconds.
pub(crate) const RENEW_MS: u64 = 3_000;

/// For how long a leader must not have heard of an executor before it takes it for dead, in
/// milliseconds.
pub(crate) const SILENT_MS: u64 = 15_000;

/// The most bytes of tasks that are sent at once, unless the first of them is larger.
const PAGE_BYTES: usize = 256 * 1024;

/// What the leader of a group of tasks is asked beside steps to commit. It answers when a majority
/// has confirmed that it leads.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum TasksQuery {
    /// How does this task stand? What is over is forgotten first, and who is silent, expired.
    Look { task: Name },
    /// The tasks from this name on.
    Page { from: Name },
    /// What have operators done?
    Deeds,
    /// The executor with this claim is at work.
    Renew { task: Name, claim: ClaimId },
}

impl TasksQuery {
    /// Why no honest node asks it in this group.
    pub(super) fn check(&self, group: GroupId) -> Result<(), &'static str> {
        if !group.is_tasks() {
            return Err("there are no tasks in this group");
        }
        match self {
            Self::Look { task } | Self::Renew { task, .. } => check_name(task),
            Self::Page { from } if from.is_empty() => Ok(()),
            Self::Page { from } => check_name(from),
            Self::Deeds => Ok(()),
        }
    }
}

/// Why no honest node proposes this step: who is silent the leader says, and nobody else.
pub(super) fn check_proposed(command: &Command) -> Result<(), &'static str> {
    match command.step {
        Step::Expire | Step::Judge => Err("only a leader judges tasks"),
        _ => command.check(),
    }
}

/// A task, and for how long the leader has not heard of its executor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Seen {
    pub(crate) task: Task,
    pub(crate) silent_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum TasksAnswer {
    Seen {
        /// As of which version.
        version: Version,
        seen: Option<Box<Seen>>,
    },
    Page {
        tasks: Vec<(Name, Seen)>,
        /// Where to go on, if there are more.
        next: Option<Name>,
    },
    Deeds {
        deeds: Vec<Deed>,
        /// Who says so.
        leader: NodeId,
    },
    /// Whether the claim is still the one under which the task runs.
    Renewed(bool),
    /// A claim comes too soon after an attempt that failed.
    NotYet { wait_ms: u64 },
    /// The tasks that have changed, in the order of their changes: all there are up to a version.
    Changes {
        tasks: Vec<(Name, Task)>,
        upto: Version,
        /// The last version at which any was removed.
        removed: Version,
    },
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// It was committed, and this is the answer.
    Taken(Box<Answer>),
    /// A claim that came too soon: nothing was committed.
    NotYet { wait_ms: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::task::{Outcome, Spec};

    fn step(task: &str, step: Step) -> Command {
        Command {
            task: task.into(),
            id: ClaimId([1; 16]),
            by: "host".into(),
            seen: Version::ZERO,
            at_ms: 0,
            step,
        }
    }

    #[test]
    fn nobody_else_says_for_a_leader_who_is_silent_or_what_is_over() {
        for judged in [Step::Expire, Step::Judge] {
            assert!(check_proposed(&step("t", judged)).is_err());
        }
        for asked in [Step::Claim(Spec::default()), Step::Finish(Outcome::SUCCESS)] {
            assert!(check_proposed(&step("t", asked.clone())).is_ok());
            assert!(check_proposed(&step("", asked)).is_err());
        }
    }

    #[test]
    fn tasks_are_asked_for_by_names_that_may_be_and_in_their_groups_alone() {
        let group = GroupId::of_tasks("t");
        let look = |task: &str| TasksQuery::Look { task: task.into() };
        assert!(look("t").check(group).is_ok());
        assert!(look("t\n").check(group).is_err());
        assert!(look("t").check(GroupId::from_bytes([1; 32])).is_err());
        assert!(
            TasksQuery::Deeds
                .check(GroupId::of_map("t".into(), "u64"))
                .is_err()
        );
    }
}
