//! A node on a network: who may be on it, how they prove it, and the links between them.

mod admit;
mod base32;
mod book;
mod builder;
mod calls;
pub(crate) mod electorate;
mod error;
#[cfg(any(test, all(fuzzing, feature = "testing")))]
pub(crate) mod fuzzing;
#[cfg(test)]
pub(crate) mod generate;
pub(crate) mod hello;
mod limits;
mod links;
mod node;
pub(crate) mod past;
pub(crate) mod proof;
pub(crate) mod refusal;
pub(crate) mod secret;
mod status;
pub(crate) mod ticket;

#[cfg(test)]
mod hostile_tests;

use std::borrow::Borrow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::group::{Directory, Interest};
use crate::id::{GroupId, NodeId, ProposalId};

pub use builder::NetworkBuilder;
pub use electorate::ElectorateError;
pub use error::NetworkError;
pub use secret::{Secret, SecretError};
pub use status::{CellStatus, NetworkStatus, Role, VoterStatus};
pub use ticket::{Ticket, TicketError};

use node::Node;

/// A node on a network: what cells are opened on.
///
/// A network is the nodes that share a name and a secret. Its *voters* keep logs on disk and
/// decide; any other node is an *observer*, which forwards proposals and follows cells. A
/// `Network` is a handle: clones are the same node, and cells keep it alive. End it with
/// [`shutdown`](Self::shutdown), which hands leadership over and closes the disk in order.
///
/// ```
/// use raft_once::{Network, Once};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new("demo").await?;
/// let seed = Once::<u64>::writer(&network, "cluster-seed");
/// seed.write(42).await?;
/// assert_eq!(seed.read(), Some(42));
/// network.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Network {
    node: Arc<Node>,
}

impl Network {
    /// A network of one voter, alone, in memory, on a free loopback port, with a secret of its
    /// own: for tests and first steps. Other nodes join it by its [`ticket`](Self::ticket).
    ///
    /// # Errors
    ///
    /// When the name is empty or too long, or no loopback port can be bound.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops what was started.
    pub async fn new(name: impl Into<String>) -> Result<Self, NetworkError> {
        Self::builder(name)
            .electorate([("solo", "127.0.0.1:0")])
            .voter("solo")
            .secret(Secret::generate())
            .in_memory()
            .start()
            .await
    }

    /// Describes a node of the network called `name`.
    pub fn builder(name: impl Into<String>) -> NetworkBuilder {
        NetworkBuilder::new(name.into())
    }

    /// Joins the network that a ticket is for, as an observer.
    ///
    /// # Errors
    ///
    /// When no port can be bound. A ticket that the voters refuse, or voters that are down, are
    /// seen in [`status`](Self::status): the node keeps trying.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops what was started.
    pub async fn join(ticket: impl Borrow<Ticket>) -> Result<Self, NetworkError> {
        let ticket = ticket.borrow().clone();
        let base = Self::builder(ticket.network());
        NetworkBuilder::join(ticket, base).await
    }

    /// Joins by ticket on a simulated network.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    #[cfg(any(test, feature = "testing"))]
    pub async fn join_simulated(
        ticket: impl Borrow<Ticket>,
        net: &crate::transport::sim::SimNet,
    ) -> Result<Self, NetworkError> {
        let ticket = ticket.borrow().clone();
        let base = Self::builder(ticket.network()).simulated(net);
        NetworkBuilder::join(ticket, base).await
    }

    pub(crate) fn of_node(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.node.network
    }

    /// What another process needs to join as an observer. It is a secret: keep it in a file or
    /// the environment, never in an argument. It admits observers only; neither the network's
    /// secret nor a voter's key can be had from it.
    pub fn ticket(&self) -> Ticket {
        self.node.ticket.clone()
    }

    /// This node's id: a hash of a voter's name, or of an observer's key, which is new at each
    /// start.
    pub fn node_id(&self) -> NodeId {
        self.node.links.me
    }

    /// The address that this node is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.node.local_addr()
    }

    /// Who is linked, who is not and why, and what this node knows of its cells.
    pub fn status(&self) -> NetworkStatus {
        status::of(&self.node)
    }

    /// Stops this node: leadership is handed over, links and files are closed. When it returns,
    /// no task, socket or file of the node is left. Handles stay usable for reading what they
    /// know; everything else on them ends with `NetworkDown`.
    ///
    /// # Cancel safety
    ///
    /// Call it again to finish what a dropped call began.
    pub async fn shutdown(&self) {
        self.node.shut_down().await;
    }

    /// Cuts this node off from a voter, or mends that: on a real network, at this end. Links to
    /// and from it are closed, and refused until it is mended. Returns whether there is a voter
    /// of this name.
    #[cfg(feature = "testing")]
    pub fn refuse_voter(&self, voter: &str, refused: bool) -> bool {
        let links = &self.node.links;
        let Some(id) = links.electorate.by_name(voter).map(|voter| voter.id) else {
            return false;
        };
        for (key, _) in links.voter_keys.iter().filter(|(_, node)| **node == id) {
            links.transport.refuse(*key, refused);
        }
        true
    }

    /// Follows a group until the interest is dropped.
    pub(crate) fn open(&self, group: GroupId) -> Interest {
        self.node.directory.open(group)
    }

    pub(crate) fn directory(&self) -> &Arc<Directory> {
        &self.node.directory
    }

    /// Cancelled when the node is shut down.
    pub(crate) fn down(&self) -> &CancellationToken {
        &self.node.links.down
    }

    /// The id of a new proposal of this value.
    pub(crate) fn proposal_id(&self, value: &[u8]) -> ProposalId {
        let links = &self.node.links;
        ProposalId::new(links.random(), links.me, self.node.boot, value)
    }

    pub(crate) fn random_id(&self) -> [u8; 16] {
        self.node.links.random()
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        self.node.write_timeout
    }

    /// The wall clock in milliseconds since the Unix epoch: information, never a decision.
    pub(crate) fn now_ms(&self) -> u64 {
        crate::probe::now_ms()
    }

    /// The name of a voter.
    pub(crate) fn name_of(&self, node: NodeId) -> Option<String> {
        let voter = self.node.links.electorate.get(node)?;
        Some(voter.name.clone())
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("name", &self.name())
            .field("node_id", &self.node_id())
            .field("local_addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}
