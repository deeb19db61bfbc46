//! What nodes say to each other about groups. One request, one reply, each a frame of its own.

use std::sync::Arc;

use crate::codec::{self, AtMost, Decode, Encode, MalformedError};
use crate::id::{GroupId, NodeId, Version};
use crate::machine::{Command, Record, Reply as Applied};

use super::jobs::{JobsAnswer, JobsQuery};
use super::raft::{LogPosition, StoredEntry, StoredSnapshotMeta, StoredVote};
use super::scope::Scope;
use super::slots::{SlotsRequest, SlotsResponse};
use super::tasks::{TasksAnswer, TasksQuery};

/// The format of the frames below.
const FRAME_VERSION: u8 = 1;

/// Electorates never change yet; the field is there so that they can.
pub(crate) const EPOCH: u32 = 0;

/// How often a proposal may be handed on: to a voter that sees the leader, and to the leader.
pub(crate) const HOPS_MAX: u8 = 2;

/// How many groups one frame may be about.
pub(crate) const GROUPS_A_FRAME: usize = 256;

/// The most bytes of records in a frame about many groups, unless there is one group only.
pub(crate) const RECORD_BYTES_A_FRAME: usize = 64 * 1024;

/// One each of the groups that a frame is about.
pub(crate) type Batch<T> = AtMost<T, GROUPS_A_FRAME>;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Request {
    pub(crate) epoch: u32,
    pub(crate) subject: Subject,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Subject {
    One(GroupId, Body),
    Many(Many),
}

/// What a subscriber wants to be told, and the number of its subscription.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Wish {
    pub(crate) group: GroupId,
    pub(crate) number: u64,
    /// Of a cell it is all.
    pub(crate) scope: Scope,
}

/// What is said of many groups at once, or of none. The answer is a batch of answers in the same
/// order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Many {
    /// As [`Body::Status`], without the records. Between voters only; wakes nothing.
    Status(Batch<GroupId>),
    /// Tell me of commits from now on, and what stands now. A higher number is newer: an
    /// end that was overtaken by a new beginning ends nothing.
    Subscribe(Batch<Wish>),
    /// To be told of something else from now on, in the place of a subscription that stands.
    Rescope(Batch<Wish>),
    Unsubscribe(Batch<(GroupId, u64)>),
    /// To a subscriber: this stands now.
    Update(Batch<(GroupId, State)>),
    /// To all subscribers of a voter that lost its majority: look elsewhere.
    Orphaned,
    /// Are you there? Of no group, as the next.
    Ping,
    /// This voter does not answer me: look whether it answers you.
    Doubt {
        voter: NodeId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Body {
    /// Raft, between voters only.
    Raft(RaftRequest),
    /// What does this voter hold of the group? Between voters only; wakes nothing.
    Status,
    /// Commit this. `hops_left` bounds how often it may be handed on.
    Propose {
        command: Command,
        hops_left: u8,
        within_ms: u64,
    },
    /// Commit whatever may be committed, and say what stands then.
    Settle { hops_left: u8, within_ms: u64 },
    /// Ask a majority what stands, on behalf of an observer.
    Barrier { within_ms: u64 },
    /// As `Status`, but only what no crash of this voter can take back.
    Durable,
    /// About the slots of a map, as of this version or a later one.
    Slots {
        at_least: Version,
        request: SlotsRequest,
    },
    /// To the leader of a group of tasks.
    Tasks {
        query: TasksQuery,
        hops_left: u8,
        within_ms: u64,
    },
    /// Which tasks have changed behind this version, as far as this voter knows?
    TaskChanges { after: Version },
    /// The first entry of this leader by birth is committed. The answer is `Done` if that is on
    /// the disk now, and that entry is all there is of the group.
    Decided { vote: StoredVote },
    /// To the leader of a group of jobs.
    Jobs {
        query: JobsQuery,
        hops_left: u8,
        within_ms: u64,
    },
    /// Which jobs have changed behind this version, as far as this voter knows?
    JobChanges { after: Version },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum RaftRequest {
    Append {
        vote: StoredVote,
        prev: Option<LogPosition>,
        entries: Vec<StoredEntry>,
        committed: Option<LogPosition>,
    },
    Vote {
        vote: StoredVote,
        last: Option<LogPosition>,
        transfer: bool,
        pre: bool,
    },
    Snapshot {
        vote: StoredVote,
        meta: StoredSnapshotMeta,
        data: Arc<[u8]>,
    },
    Transfer {
        from: StoredVote,
        to: NodeId,
        last: Option<LogPosition>,
    },
}

/// What a node knows of a group: a decided record is final, a version may grow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct State {
    pub(crate) version: Version,
    pub(crate) record: Option<Arc<Record>>,
}

/// What a voter holds of a group, but for the record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Standing {
    pub(crate) version: Version,
    pub(crate) is_decided: bool,
    pub(crate) last: Option<LogPosition>,
    pub(crate) applied: Option<LogPosition>,
}

/// What became of one subscription of many.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Subscribed {
    /// It stands, and so does this.
    State(State),
    /// Subscribe to this group alone: there is more to send or to find out than a batch may take.
    Alone,
    /// Not now, or not here.
    No { reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Response {
    Raft(RaftResponse),
    Status {
        state: State,
        last: Option<LogPosition>,
        applied: Option<LogPosition>,
    },
    /// Committed and applied, by this leader.
    Committed {
        reply: Applied,
        leader: NodeId,
    },
    State(State),
    Done,
    /// Nothing was appended here. The hint is a voter that may be able to.
    Elsewhere {
        hint: Option<NodeId>,
    },
    /// May or may not be committed now or later.
    Unclear,
    /// This node cannot serve the request, whoever asks how often.
    Refused {
        reason: String,
    },
    Slots(SlotsResponse),
    /// Nothing of those that are not served here.
    Standings(Batch<Option<Standing>>),
    Subscribed(Batch<Subscribed>),
    /// Whether the subscriber still wants to be told.
    Wanted(Batch<bool>),
    Tasks(TasksAnswer),
    Jobs(JobsAnswer),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum RaftResponse {
    Appended,
    AppendedUpTo(Option<LogPosition>),
    Conflict,
    HigherVote(StoredVote),
    Vote {
        vote: StoredVote,
        granted: bool,
        last: Option<LogPosition>,
    },
    Snapshot {
        vote: StoredVote,
    },
    Transferred,
    /// The vote changed, or the log is not there yet.
    NotTransferred,
}

impl Body {
    /// About slots, as of any version.
    pub(crate) fn of_slots(request: SlotsRequest) -> Self {
        Self::Slots {
            at_least: Version::ZERO,
            request,
        }
    }
}

impl Request {
    pub(crate) fn new(group: GroupId, body: Body) -> Self {
        Self {
            epoch: EPOCH,
            subject: Subject::One(group, body),
        }
    }

    pub(crate) fn of_many(many: Many) -> Self {
        Self {
            epoch: EPOCH,
            subject: Subject::Many(many),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(FRAME_VERSION, self)
    }

    pub(crate) fn decode(frame: &[u8]) -> Result<Self, MalformedError> {
        codec::decode(FRAME_VERSION, frame)
    }
}

impl Response {
    /// It is what a leader says, whoever hands it on.
    pub(crate) fn is_of_leader(&self) -> bool {
        matches!(
            self,
            Self::Committed { .. } | Self::State(_) | Self::Tasks(_) | Self::Jobs(_)
        )
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(FRAME_VERSION, self)
    }

    pub(crate) fn decode(frame: &[u8]) -> Result<Self, MalformedError> {
        codec::decode(FRAME_VERSION, frame)
    }
}
