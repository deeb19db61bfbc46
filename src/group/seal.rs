//! A cell that is decided and asleep, as one value in the store: key `s`.
//!
//! Awake it has six: vote, log entries, electorate, how far it is applied, record. Most of that is
//! of no use once all of the log is applied: what is left is a snapshot and the vote. A voter holds
//! many cells, of which nearly all sleep, and each key costs a look at every open of the store.
//!
//! Sealed when the instance has ended, before another may start; broken by the first batch that
//! the next instance writes, as a part of it. So a group is on disk in one of the two forms, always.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::{Decode, Encode};
use crate::id::{GroupId, Version};
use crate::machine::task::Board;
use crate::machine::{Machine, Record, Slot};
use crate::probe::{Bug, planted};
use crate::store::{Batch, Store, StoreFailed};

use super::directory::Directory;
use super::disk::{APPLIED, Applied, ELECTORATE, ENTRY, Held, PURGED, RECORD, VOTE, key, pack};
use super::raft::{LogPosition, StoredElectorate, StoredVote};

pub(super) const SEALED: u8 = b's';

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Sealed {
    vote: Option<StoredVote>,
    /// The end of the log, all of it applied and none of it kept.
    at: LogPosition,
    version: Version,
    electorate: StoredElectorate,
    record: Arc<Record>,
}

impl Sealed {
    /// What is left of a cell in which nothing is open.
    fn of(held: &Held) -> Option<Self> {
        let at = held.applied.at.filter(|at| held.last() == Some(*at))?;
        let vote = held.vote.filter(|_| !planted(Bug::SealForgetsVote));
        Some(Self {
            vote,
            at,
            version: held.applied.version,
            electorate: held.electorate.clone(),
            record: held.machine.get(&[])?.clone(),
        })
    }

    pub(super) fn open(self) -> Held {
        Held {
            vote: self.vote,
            entries: BTreeMap::new(),
            purged: Some(self.at),
            applied: Applied {
                at: Some(self.at),
                version: self.version,
            },
            electorate: self.electorate,
            machine: Machine::from_records([(Slot::new(), self.record)]),
            count: 0,
            board: Board::default(),
            jobs: Default::default(),
            born: true,
            sealed: true,
        }
    }
}

/// Writes in place of the seal what an instance works on.
pub(super) fn unseal(group: GroupId, held: &Held, batch: &mut Batch) {
    batch.delete(key(group, Some(SEALED), &[]));
    put_frame(group, held, batch);
    if let Some(purged) = &held.purged {
        batch.put(key(group, Some(PURGED), &[]), pack(purged));
    }
    for (slot, record) in held.machine.records() {
        batch.put(key(group, Some(RECORD), slot), pack(record.as_ref()));
    }
}

/// Seals a cell whose log is its genesis and one entry, which is applied.
pub(super) fn seal_newborn(group: GroupId, held: &mut Held, batch: &mut Batch) {
    let sealed = Sealed::of(held).expect("all of its log is applied, and has decided it");
    for index in std::mem::take(&mut held.entries).into_keys() {
        batch.delete(key(group, Some(ENTRY), &index.to_be_bytes()));
    }
    for tag in [ELECTORATE, APPLIED, VOTE] {
        batch.delete(key(group, Some(tag), &[]));
    }
    batch.put(key(group, Some(SEALED), &[]), pack(&sealed));
    held.purged = Some(sealed.at);
    held.sealed = true;
}

/// What every group that is awake has beside its log and its records.
pub(super) fn put_frame(group: GroupId, held: &Held, batch: &mut Batch) {
    batch.put(key(group, Some(ELECTORATE), &[]), pack(&held.electorate));
    batch.put(key(group, Some(APPLIED), &[]), pack(&held.applied));
    if let Some(vote) = &held.vote {
        batch.put(key(group, Some(VOTE), &[]), pack(vote));
    }
}

/// All keys of a group.
pub(super) fn keys(store: &Store, group: GroupId) -> Result<Vec<Vec<u8>>, StoreFailed> {
    let found = store.scan(&key(group, None, &[]))?;
    Ok(found.into_iter().map(|(key, _)| key).collect())
}

impl Directory {
    /// Seals a cell whose instance has ended, and whose berth the caller holds: nobody else writes
    /// to it. Returns when that is durable, or is not to be, and whether the group waits for
    /// something.
    pub(super) async fn seal(&self, store: &Store, group: GroupId) -> Result<bool, String> {
        let held = self.load(store, group)?;
        let sealed = Sealed::of(&held).filter(|_| held.born && !held.sealed);
        let Some(sealed) = sealed.filter(|_| group.is_cell()) else {
            return Ok(held.is_unsettled());
        };
        let mut batch = Batch::default();
        for old in keys(store, group).map_err(|error| error.to_string())? {
            batch.delete(old);
        }
        batch.put(key(group, Some(SEALED), &[]), pack(&sealed));
        let sealed = store.write_durably(batch).await;
        sealed.map_err(|error| error.to_string())?;
        Ok(held.is_unsettled())
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::unpack;
    use super::*;
    use crate::id::{NodeId, ProposalId};
    use crate::machine::Proposal;

    const FIRST_FORM: &str = concat!(
        "01000103fd3e6a8fc47b03a7cf0103070701000003fd3e6a8fc47b03a7cffdb9ef900a7957c2d4fd",
        "978c3094741440e405050505050505050505050505050505fd978c3094741440e406060606060606",
        "06060606060606060606444a4916ee6fecd2666eb790b06edd633bb4b58287244579ad6def5fd95e",
        "0b0576616c7565fd0068e5cf8b01000001",
    );

    /// What the first build wrote that sealed cells is read by every later one.
    #[test]
    fn the_first_form_of_a_seal_is_read() {
        let voters = ["a", "b", "c"].map(NodeId::of_voter).into();
        let sealed = Sealed {
            vote: Some(StoredVote {
                term: 3,
                node: NodeId::of_voter("b"),
                committed: true,
            }),
            at: LogPosition { term: 3, index: 7 },
            version: Version::new(7),
            electorate: StoredElectorate {
                at: Some(LogPosition::GENESIS),
                voters,
            },
            record: Arc::new(Record {
                proposal: Proposal {
                    id: ProposalId::new([5; 16], NodeId::of_voter("c"), [6; 16], b"value"),
                    value: Arc::from(b"value".as_slice()),
                    proposed_at_ms: 1_700_000_000_000,
                },
                version: Version::new(1),
            }),
        };
        let stored: String = pack(&sealed).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(stored, FIRST_FORM);
        let bytes = pack(&sealed);
        let read: Sealed = unpack(GroupId::from_bytes([1; 32]), &bytes).unwrap();
        assert_eq!(read, sealed);
        assert_eq!(Sealed::of(&read.clone().open()), Some(read));
    }
}
