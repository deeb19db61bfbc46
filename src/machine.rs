//! The heart: a replicated state machine in which the first write to a slot wins.
//!
//! Pure: a command in, a reply out. No IO, no clock, no runtime; what time it was and who asked
//! comes with the command. Every replica applies the same commands in the same order and so
//! holds the same records.

// A voter keeps jobs also if its own program has none.
#[cfg_attr(not(feature = "jobs"), allow(dead_code, unused_imports))]
pub(crate) mod job;
pub(crate) mod task;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use crate::codec::{Decode, Encode};
use crate::id::{NodeId, ProposalId, Version};
use crate::probe::{Bug, planted};

/// The name of a write-once place within a group. A cell has one, the empty name; a map has any
/// number, and none of them is empty.
pub(crate) type Slot = Vec<u8>;

/// The longest name of a slot, in bytes.
pub(crate) const SLOT_BYTES_MAX: usize = 1024;

/// What is asked of a group.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Command {
    /// Put `proposal` into `slot`, unless the slot is decided.
    Set { slot: Slot, proposal: Proposal },
    /// A write to a slot that its proposer knows to be decided: it only advances the version.
    /// It carries no value.
    Touch { slot: Slot, id: ProposalId },
    /// A step of a task, in a group of tasks.
    Task(task::Command),
    /// A step of a job, in a group of jobs.
    Job(job::Command),
}

impl Command {
    /// Empty if it is about none.
    pub(crate) fn slot(&self) -> &[u8] {
        match self {
            Self::Set { slot, .. } | Self::Touch { slot, .. } => slot,
            Self::Task(_) | Self::Job(_) => &[],
        }
    }

    /// What its value takes, in bytes.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::Set { proposal, .. } => proposal.value.len(),
            Self::Touch { .. } | Self::Task(_) => 0,
            Self::Job(command) => command.value_bytes(),
        }
    }

    pub(crate) fn id(&self) -> Option<ProposalId> {
        match self {
            Self::Set { proposal, .. } => Some(proposal.id),
            Self::Touch { id, .. } => Some(*id),
            Self::Task(_) | Self::Job(_) => None,
        }
    }
}

/// A value offered for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Proposal {
    pub(crate) id: ProposalId,
    pub(crate) value: Arc<[u8]>,
    /// The proposer's wall clock in milliseconds since the Unix epoch. Information only.
    pub(crate) proposed_at_ms: u64,
}

/// A decided slot. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Record {
    pub(crate) proposal: Proposal,
    /// Where in the log the proposal won.
    pub(crate) version: Version,
}

impl Record {
    pub(crate) fn proposer(&self) -> NodeId {
        self.proposal.id.node()
    }
}

/// The answer to a command: where it stands in the log, and what the slot holds after it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Reply {
    pub(crate) version: Version,
    /// `None` only for a [`Command::Touch`] of a slot that is not decided, which no proposer sends.
    pub(crate) record: Option<Arc<Record>>,
    /// The answer to a [`Command::Task`].
    pub(crate) task: Option<Box<task::Answer>>,
    /// The answer to a [`Command::Job`].
    pub(crate) job: Option<Box<job::Answer>>,
}

impl Reply {
    /// To a command that decides no slot, and to what is no command.
    pub(crate) fn at(version: Version) -> Self {
        Self {
            version,
            record: None,
            task: None,
            job: None,
        }
    }
}

/// Where records are kept: in memory, or on a disk that may fail to be read.
pub(crate) trait Slots {
    type Error;

    fn record(&mut self, slot: &[u8]) -> Result<Option<Arc<Record>>, Self::Error>;

    /// `slot` is decided. It was not before.
    fn decide(&mut self, slot: &Slot, record: &Arc<Record>);
}

/// Applies the command at log index `version`. The first write to a slot stays.
///
/// Total: any command in any state has an answer, and applying one twice changes nothing.
pub(crate) fn apply<S: Slots>(
    slots: &mut S,
    version: Version,
    command: &Command,
) -> Result<Reply, S::Error> {
    if matches!(command, Command::Task(_) | Command::Job(_)) {
        // Of no group with slots.
        return Ok(Reply::at(version));
    }
    let known = slots.record(command.slot())?;
    let record = match (command, known) {
        (Command::Set { slot, proposal }, known)
            if known.is_none() || planted(Bug::ApplyOverwrites) =>
        {
            let record = Arc::new(Record {
                proposal: proposal.clone(),
                version,
            });
            slots.decide(slot, &record);
            Some(record)
        }
        (_, known) => known,
    };
    Ok(Reply {
        record,
        ..Reply::at(version)
    })
}

/// All records of one group, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Machine {
    records: BTreeMap<Slot, Arc<Record>>,
}

impl Machine {
    /// As [`apply`], where nothing can fail.
    pub(crate) fn apply(&mut self, version: Version, command: &Command) -> Reply {
        match apply(self, version, command) {
            Ok(reply) => reply,
            Err(never) => match never {},
        }
    }

    pub(crate) fn get(&self, slot: &[u8]) -> Option<&Arc<Record>> {
        self.records.get(slot)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = (&Slot, &Arc<Record>)> {
        self.records.iter()
    }

    /// A machine that holds exactly these records.
    pub(crate) fn from_records(records: impl IntoIterator<Item = (Slot, Arc<Record>)>) -> Self {
        Self {
            records: records.into_iter().collect(),
        }
    }
}

impl Slots for Machine {
    type Error = Infallible;

    fn record(&mut self, slot: &[u8]) -> Result<Option<Arc<Record>>, Infallible> {
        Ok(self.records.get(slot).cloned())
    }

    fn decide(&mut self, slot: &Slot, record: &Arc<Record>) {
        self.records.insert(slot.clone(), record.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ProposalId {
        ProposalId::new([n; 16], NodeId::of_voter("a"), [0; 16], &[n])
    }

    fn set(slot: &[u8], n: u8) -> Command {
        Command::Set {
            slot: slot.to_vec(),
            proposal: Proposal {
                id: id(n),
                value: Arc::from([n].as_slice()),
                proposed_at_ms: 0,
            },
        }
    }

    #[test]
    fn the_first_write_stays_and_later_ones_learn_it() {
        let mut machine = Machine::default();
        let first = machine.apply(Version::new(2), &set(b"", 1));
        let second = machine.apply(Version::new(3), &set(b"", 2));
        assert_eq!(first.record, second.record);
        assert_eq!(second.version, Version::new(3));
        let record = second.record.unwrap();
        assert_eq!(
            (record.proposal.id, record.version),
            (id(1), Version::new(2))
        );
    }

    #[test]
    fn a_retried_proposal_learns_the_version_at_which_it_won() {
        let mut machine = Machine::default();
        machine.apply(Version::new(2), &set(b"", 1));
        let again = machine.apply(Version::new(9), &set(b"", 1));
        assert_eq!(again.record.unwrap().version, Version::new(2));
    }

    #[test]
    fn a_touch_changes_nothing() {
        let mut machine = Machine::default();
        let touch = Command::Touch {
            slot: vec![],
            id: id(3),
        };
        assert_eq!(machine.apply(Version::new(1), &touch).record, None);
        machine.apply(Version::new(2), &set(b"", 1));
        let before = machine.clone();
        let reply = machine.apply(Version::new(3), &touch);
        assert_eq!(reply.record.unwrap().version, Version::new(2));
        assert_eq!(machine, before);
    }

    /// The naive model: of all commands applied so far, the first set of a slot is its record.
    #[test]
    fn any_history_agrees_with_the_naive_model() {
        let mut seed = 0x9e37_79b9_u64;
        for _ in 0..200 {
            let mut machine = Machine::default();
            let mut model: Vec<(Slot, u8, u64)> = vec![];
            for version in 1..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let slot = vec![(seed >> 33) as u8 % 4];
                let n = (seed >> 41) as u8;
                model.push((slot.clone(), n, version));
                let reply = machine.apply(Version::new(version), &set(&slot, n));
                let (_, first, at) = model.iter().find(|(s, ..)| *s == slot).unwrap();
                let record = reply.record.unwrap();
                assert_eq!(*record.proposal.value, [*first]);
                assert_eq!(record.version, Version::new(*at));
            }
        }
    }
}
