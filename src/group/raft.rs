//! The types of openraft as this crate uses them, and the structs of our own that stand for them
//! on the wire and on disk. Nothing of openraft's is public or encoded by its own means, so that
//! another version of it is a change of this folder alone.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use openraft::alias::{
    CommittedLeaderIdOf, EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use openraft::{EntryPayload, Membership};

use crate::codec::{self, Decode, Encode};
use crate::id::NodeId;
use crate::machine::{Command, Reply};

openraft::declare_raft_types!(
    /// One leader per term, as in the Raft paper: a voter never votes twice in a term.
    pub(crate) Types:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = (),
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = super::runtime::Runtime,
);

pub(crate) type Entry = EntryOf<Types>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type StoredMembership = StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<Types>;
/// A snapshot is the encoded machine; a group's state is small and sent whole.
pub(crate) type Snapshot = SnapshotOf<Types, Arc<[u8]>>;

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { proposal, .. } => {
                write!(f, "set {:?} ({} B)", proposal.id, proposal.value.len())
            }
            Self::Touch { id, .. } => write!(f, "touch {id:?}"),
            Self::Task(command) => write!(f, "task {:?}: {command}", command.id),
            Self::Job(command) => write!(f, "job step {:?}: {command}", command.id),
        }
    }
}

/// A position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) struct LogPosition {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

impl LogPosition {
    /// Where the electorate stands in a log that nothing was written to yet.
    pub(crate) const GENESIS: Self = Self { term: 0, index: 0 };
}

impl From<&LogId> for LogPosition {
    fn from(id: &LogId) -> Self {
        Self {
            term: id.committed_leader_id().term,
            index: id.index(),
        }
    }
}

impl From<LogPosition> for LogId {
    fn from(position: LogPosition) -> Self {
        LogId::new(
            CommittedLeaderIdOf::<Types>::new(position.term),
            position.index,
        )
    }
}

/// A vote: the term, for whom, and whether a majority granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct StoredVote {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    pub(crate) committed: bool,
}

impl From<&Vote> for StoredVote {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: NodeId::from_u64(vote.leader_id.voted_for),
            committed: vote.committed,
        }
    }
}

impl From<StoredVote> for Vote {
    fn from(vote: StoredVote) -> Self {
        Self {
            leader_id: openraft::impls::leader_id_std::LeaderId {
                term: vote.term,
                voted_for: vote.node.as_u64(),
            },
            committed: vote.committed,
        }
    }
}

/// What a log entry carries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum StoredPayload {
    Blank,
    Command(Command),
    Electorate(BTreeSet<NodeId>),
}

impl StoredPayload {
    /// What entries are compared by.
    pub(crate) fn digest(&self) -> [u8; 32] {
        *blake3::hash(&codec::encode(0, self)).as_bytes()
    }
}

/// A log entry on the wire and on disk.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct StoredEntry {
    pub(crate) at: LogPosition,
    pub(crate) payload: StoredPayload,
}

impl StoredEntry {
    /// What its value takes, in bytes.
    pub(crate) fn value_bytes(&self) -> usize {
        match &self.payload {
            StoredPayload::Command(command) => command.value_bytes(),
            _ => 0,
        }
    }
}

impl From<&Entry> for StoredEntry {
    fn from(entry: &Entry) -> Self {
        Self {
            at: (&entry.log_id).into(),
            payload: match &entry.payload {
                EntryPayload::Blank => StoredPayload::Blank,
                EntryPayload::Normal(command) => StoredPayload::Command(command.clone()),
                EntryPayload::Membership(membership) => {
                    StoredPayload::Electorate(voters_of(membership))
                }
            },
        }
    }
}

impl From<StoredEntry> for Entry {
    fn from(entry: StoredEntry) -> Self {
        Self {
            log_id: entry.at.into(),
            payload: match entry.payload {
                StoredPayload::Blank => EntryPayload::Blank,
                StoredPayload::Command(command) => EntryPayload::Normal(command),
                StoredPayload::Electorate(voters) => {
                    EntryPayload::Membership(membership_of(&voters))
                }
            },
        }
    }
}

/// The electorate in force and the log entry that put it there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct StoredElectorate {
    pub(crate) at: Option<LogPosition>,
    pub(crate) voters: BTreeSet<NodeId>,
}

impl From<&StoredMembership> for StoredElectorate {
    fn from(stored: &StoredMembership) -> Self {
        Self {
            at: stored.log_id().as_ref().map(Into::into),
            voters: voters_of(stored.membership()),
        }
    }
}

impl From<&StoredElectorate> for StoredMembership {
    fn from(stored: &StoredElectorate) -> Self {
        let membership = if stored.voters.is_empty() {
            Membership::default()
        } else {
            membership_of(&stored.voters)
        };
        Self::new(stored.at.map(Into::into), membership)
    }
}

fn voters_of(membership: &Membership<u64, ()>) -> BTreeSet<NodeId> {
    membership.voter_ids().map(NodeId::from_u64).collect()
}

pub(crate) fn membership_of(voters: &BTreeSet<NodeId>) -> Membership<u64, ()> {
    let ids: BTreeSet<u64> = voters.iter().map(|voter| voter.as_u64()).collect();
    Membership::new_with_defaults(vec![ids.clone()], ids)
}

/// What stands at the front of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct StoredSnapshotMeta {
    pub(crate) at: Option<LogPosition>,
    pub(crate) electorate: StoredElectorate,
}

impl From<&SnapshotMeta> for StoredSnapshotMeta {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            at: meta.last_log_id.as_ref().map(Into::into),
            electorate: (&meta.last_membership).into(),
        }
    }
}

impl From<&StoredSnapshotMeta> for SnapshotMeta {
    fn from(meta: &StoredSnapshotMeta) -> Self {
        Self {
            last_log_id: meta.at.map(Into::into),
            last_membership: (&meta.electorate).into(),
        }
    }
}
