//! One Raft group a cell: proposing, following, and leadership on demand. The only room that
//! names openraft.

mod barrier;
mod berth;
mod berths;
mod births;
#[cfg(test)]
mod by_instance;
mod census;
mod config;
mod directory;
mod disk;
mod first;
mod follow;
mod following;
#[cfg(any(test, all(fuzzing, feature = "testing")))]
pub(crate) mod fuzzing;
#[cfg(test)]
pub(crate) mod generate;
mod hearing;
mod jobs;
mod join;
mod lease;
mod log;
mod marks;
mod newborn;
mod newborn_taken;
mod notices;
mod peer;
mod pipeline;
mod pulse;
mod push;
mod raft;
mod replica;
mod replica_answers;
mod route;
mod runtime;
mod scope;
mod seal;
mod serve;
mod sleep;
mod slots;
mod sound;
mod state;
mod subscribers;
mod tasks;
mod trouble;
mod view;
mod visit;
mod wake;
mod want;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::id::{GroupId, NodeId};

#[cfg(test)]
pub(crate) use by_instance::{ByInstance, bear_by_instance};
pub(crate) use census::Census;
pub(crate) use directory::{Directory, Group, Interest};
pub(crate) use hearing::{Asked, Hearing};
#[cfg(test)]
pub(crate) use jobs::generate as generate_jobs;
#[cfg(feature = "jobs")]
pub(crate) use jobs::{JobSeen, JobStepped, JobsAnswer, JobsQuery, MISSED_AFTER_MS};
#[cfg(test)]
pub(crate) use raft::{StoredElectorate, StoredSnapshotMeta, StoredVote};
#[cfg(test)]
pub(crate) use scope::Scope;
pub(crate) use slots::{Decided, Range};
#[cfg(test)]
pub(crate) use tasks::generate as generate_tasks;
pub(crate) use tasks::{RENEW_MS, SILENT_MS, Seen, Stepped, TasksAnswer, TasksQuery};
pub(crate) use view::{Sink, View};
#[cfg(test)]
pub(crate) use visit::PROPOSED_BYTES_MAX;
pub(crate) use want::Want;

/// Why a message to another node had no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no link to node {0}")]
    NoLink(NodeId),
    #[error("the link failed: {0}")]
    Link(String),
}

/// The other nodes, as a group sees them. The `network` room above provides it.
pub(crate) trait Peers: Send + Sync + 'static {
    /// This node.
    fn me(&self) -> NodeId;
    /// The electorate.
    fn voters(&self) -> &BTreeSet<NodeId>;
    /// The voters in the order in which they should lead `group`.
    fn order(&self, group: &GroupId) -> Vec<NodeId>;
    /// The voters in the order in which this node should follow `group` at them.
    fn follow_order(&self, group: &GroupId) -> Vec<NodeId>;
    /// An admitted link to `node` is up.
    fn is_linked(&self, node: NodeId) -> bool;
    /// Whether a linked voter is heard is looked after there.
    fn hearing(&self, voter: NodeId) -> Option<Arc<Hearing>>;
    /// Asks `node` and waits for its answer, for ever if need be: callers have deadlines.
    fn call(&self, node: NodeId, frame: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, CallError>>;
    /// Runs a task until it ends or the node is shut down.
    fn spawn(&self, task: BoxFuture<'static, ()>);
    /// A random number of milliseconds below `max_ms`.
    fn jitter_ms(&self, max_ms: u64) -> u64;
    /// This voter's disk is known not to have lost a vote: it may vote, append and lead.
    fn may_vote(&self) -> bool;

    /// This node belongs to the electorate.
    fn is_voter(&self) -> bool {
        self.voters().contains(&self.me())
    }

    /// A voter is linked and not suspected to be gone, or this node itself.
    fn is_live(&self, voter: NodeId) -> bool {
        let hearing = self.hearing(voter);
        voter == self.me() || hearing.is_some_and(|hearing| !hearing.is_suspected())
    }

    /// How many voters are a majority.
    fn majority(&self) -> usize {
        self.voters().len() / 2 + 1
    }

    /// The other voters that are linked.
    fn linked_voters(&self) -> Vec<NodeId> {
        let others = self.voters().iter().filter(|voter| **voter != self.me());
        others
            .copied()
            .filter(|voter| self.is_linked(*voter))
            .collect()
    }

    /// Enough voters are in reach: a majority, this one included; for an observer, any.
    fn in_touch(&self) -> bool {
        let linked = self.linked_voters().len();
        if self.is_voter() {
            self.may_vote() && linked + 1 >= self.majority()
        } else {
            linked > 0
        }
    }
}

/// How long one attempt at another node may take before the next in order is asked.
const ATTEMPT: Duration = Duration::from_millis(1_000);
