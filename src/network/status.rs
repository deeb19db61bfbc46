//! What a node can say about itself.

use std::net::SocketAddr;

use super::node::Node;
use super::proof::Kind;
use crate::group::Peers;
use crate::id::{GroupId, NodeId, Version};
use crate::limits::Limits;
use crate::metrics::Figures;

/// What a node does on its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// It keeps logs and decides.
    Voter,
    /// It forwards proposals and follows cells.
    Observer,
}

/// A node's view of its network at one moment. See [`Network::status`](crate::Network::status).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkStatus {
    /// The network's name.
    pub network: String,
    /// This node.
    pub node_id: NodeId,
    /// What this node does.
    pub role: Role,
    /// The address it is bound to.
    pub local_addr: SocketAddr,
    /// It reaches a majority of the voters, itself included if it is one that may vote; an
    /// observer: any voter. Only then can writes finish.
    pub in_touch: bool,
    /// This voter's first start waits for these voters: each must once confirm that it never
    /// knew another one under this voter's name.
    pub waiting_for: Vec<String>,
    /// Why the node stopped by itself: its disk failed.
    pub failure: Option<String>,
    /// The electorate, in order of node id.
    pub voters: Vec<VoterStatus>,
    /// Linked observers.
    pub observers: usize,
    /// The cells in use here, in order of group id.
    pub cells: Vec<CellStatus>,
    /// What this node has counted since it started.
    pub figures: Figures,
    /// The limits that it was started with.
    pub limits: Limits,
}

/// A voter, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VoterStatus {
    /// Its name.
    pub name: String,
    /// Its id.
    pub node_id: NodeId,
    /// The address at which this node looks for it.
    pub addr: String,
    /// An admitted link to it is up; true for this node itself.
    pub linked: bool,
    /// Why it is not linked, in words.
    pub trouble: Option<String>,
}

/// A cell, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CellStatus {
    /// The cell's group.
    pub group: GroupId,
    /// The highest version seen.
    pub version: Version,
    /// Its value is decided and known here.
    pub decided: bool,
    /// A handle on it is online.
    pub online: bool,
    /// This voter runs a Raft instance for it.
    pub awake: bool,
    /// The leader that this node knows of, which may be gone: of the term below if there is one,
    /// else the one that committed something for this node last.
    pub leader: Option<NodeId>,
    /// The Raft term that the replica is in, or was in when it fell asleep; 0 if that is not known.
    pub term: u64,
    /// Why a voter refused a proposal or a question of this node about the cell last, in words;
    /// `None` again when one was committed.
    pub trouble: Option<String>,
}

pub(super) fn of(node: &Node) -> NetworkStatus {
    let links = &node.links;
    let voters = links.electorate.voters().iter().map(|voter| {
        let linked = voter.id == links.me || links.is_linked(voter.id);
        let refused = links.book.as_ref().and_then(|book| book.refused(voter.id));
        VoterStatus {
            name: voter.name.clone(),
            node_id: voter.id,
            addr: voter.addr.clone(),
            linked,
            trouble: refused.or_else(|| links.trouble_with(voter.id)),
        }
    });
    let observers = links.linked().into_iter();
    let observers = observers.filter(|node| links.electorate.get(*node).is_none());
    let cells = node.directory.status().into_iter().map(|group| CellStatus {
        group: group.group,
        version: group.version,
        decided: group.decided,
        online: group.online,
        awake: group.awake,
        leader: group.leader,
        term: group.term,
        trouble: group.trouble,
    });
    NetworkStatus {
        network: node.network.clone(),
        node_id: links.me,
        role: match links.kind {
            Kind::Voter => Role::Voter,
            Kind::Observer => Role::Observer,
        },
        local_addr: node.local_addr(),
        in_touch: links.in_touch(),
        waiting_for: match &links.book {
            Some(book) => book.waiting_for(),
            None => Vec::new(),
        },
        failure: node.failure(),
        voters: voters.collect(),
        observers: observers.count(),
        cells: cells.collect(),
        figures: node.counts.figures(),
        limits: links.limits,
    }
}
