//! The simulated network: who is where, which links are cut, and when a message arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, mpsc};

use super::super::{Closed, Connection, LinkConfig, PeerKey, TransportError, public_key};
use super::counts::SimCounts;
use super::link::{End, Link, Message, Side};
use super::node::{Handle, SimConnection, SimTransport};
use super::pace::Pace;
use crate::probe;

/// The first port that is tried for a node that binds port 0.
const PORT_FREE_MIN: u16 = 49_152;

/// A network inside one process whose links tests can cut and heal.
///
/// Nodes are known by the addresses they bound, which are names only: no socket is opened. Time is
/// that of tokio, so tests may run on a paused clock. A cut link behaves as a real one: what is
/// sent hangs, and both sides notice after the idle timeout; what was sent is delivered late if
/// the link heals before.
///
/// ```
/// use raft_once::{Network, Once, testing::SimNet};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let net = SimNet::new(7);
/// let electorate = [("a", "127.0.0.1:1"), ("b", "127.0.0.1:2"), ("c", "127.0.0.1:3")];
/// let mut nodes = Vec::new();
/// for (name, _) in electorate {
///     let node = Network::builder("test")
///         .electorate(electorate)
///         .voter(name)
///         .in_memory()
///         .simulated(&net);
///     nodes.push(node.start().await?);
/// }
/// let cell = Once::<u64>::writer(&nodes[1], "cell");
/// cell.when().online().await;
/// net.isolate("127.0.0.1:1".parse()?);
/// cell.write(42).await?;
/// net.heal_all();
/// assert_eq!(*Once::<u64>::reader(&nodes[0], "cell").wait().await?, 42);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SimNet {
    net: Arc<Mutex<Net>>,
    pub(super) config: LinkConfig,
}

impl std::fmt::Debug for SimNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimNet").finish_non_exhaustive()
    }
}

impl SimNet {
    /// A network without nodes, delays or cuts. Whatever is random on it comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            net: Arc::new(Mutex::new(Net {
                rng: StdRng::seed_from_u64(seed),
                pace: Pace::default(),
                nodes: BTreeMap::new(),
                links: BTreeMap::new(),
                cuts: BTreeSet::new(),
                isolated: BTreeMap::new(),
                replies_lost: BTreeSet::new(),
                counts: SimCounts::default(),
                node_last: 0,
                link_last: 0,
                topology: Arc::default(),
            })),
            config: LinkConfig::default(),
        }
    }

    /// What nodes on this network draw their own randomness from.
    pub(crate) fn random(&self) -> [u8; 32] {
        self.lock().rng.random()
    }

    /// A new node at `addr`; with port 0 at a free one.
    pub(crate) fn bind(
        &self,
        seed: [u8; 32],
        addr: SocketAddr,
    ) -> Result<SimTransport, TransportError> {
        let mut net = self.lock();
        let failed = |reason: &str| TransportError::Bind {
            addr,
            reason: reason.into(),
        };
        let addr = if addr.port() == 0 {
            (PORT_FREE_MIN..=u16::MAX)
                .map(|port| SocketAddr::new(addr.ip(), port))
                .find(|addr| !net.nodes.contains_key(addr))
                .ok_or_else(|| failed("no free port"))?
        } else if net.nodes.contains_key(&addr) {
            return Err(failed("address already in use"));
        } else {
            addr
        };
        let key = public_key(&seed);
        let (queue, accepted) = mpsc::unbounded_channel();
        net.node_last += 1;
        let id = net.node_last;
        net.nodes.insert(addr, Node { id, key, queue });
        drop(net);
        Ok(SimTransport::new(self.clone(), id, key, addr, accepted))
    }

    /// The process at `addr` dies: it says and hears nothing more, its address is free again, and
    /// its peers notice by its silence.
    pub fn kill(&self, addr: SocketAddr) {
        let id = self.lock().nodes.get(&addr).map(|node| node.id);
        if let Some(id) = id {
            self.kill_node(id);
        }
    }

    /// What was carried so far. A quiet cell adds nothing.
    pub fn counts(&self) -> SimCounts {
        self.lock().counts
    }

    /// Never held while a handle of a connection is dropped: that takes it too.
    pub(super) fn lock(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes who reaches whom, then starts and stops idle timeouts and frees held messages.
    pub(super) fn change(&self, change: impl FnOnce(&mut Net)) {
        let mut net = self.lock();
        change(&mut net);
        let ids: Vec<u64> = net.links.keys().copied().collect();
        for id in ids {
            self.review(&mut net, id);
        }
        net.topology.notify_waiters();
    }

    /// Brings a link in line with the cuts.
    fn review(&self, net: &mut Net, id: u64) {
        let Some(link) = net.links.get(&id) else {
            return;
        };
        let (a, b) = (link.end(Side::Dialer).addr, link.end(Side::Acceptor).addr);
        let towards = [
            (Side::Acceptor, link.dead || net.is_cut(a, b)),
            (Side::Dialer, link.dead || net.is_cut(b, a)),
        ];
        let silent = towards.iter().any(|(_, cut)| *cut);
        let Some(link) = net.links.get_mut(&id) else {
            return;
        };
        if link.silent != silent {
            link.silent = silent;
            link.silences += 1;
            if silent {
                self.start_idle_timeout(id, link.silences);
            }
        }
        for (side, _) in towards.iter().filter(|(_, cut)| !cut) {
            let held = match net.links.get_mut(&id) {
                Some(link) => std::mem::take(&mut link.end_mut(*side).held),
                None => Vec::new(),
            };
            for message in held {
                self.send(net, id, *side, message);
            }
        }
    }

    /// Both ends of a link close once it was silent for the idle timeout without a break.
    fn start_idle_timeout(&self, id: u64, silence: u64) {
        let this = self.clone();
        spawn(async move {
            tokio::time::sleep(Duration::from_millis(this.config.idle_timeout_ms)).await;
            let mut net = this.lock();
            if let Some(link) = net.links.get_mut(&id)
                && link.silent
                && link.silences == silence
            {
                let held = link.end(Side::Dialer).held.len() + link.end(Side::Acceptor).held.len();
                for side in [Side::Dialer, Side::Acceptor] {
                    link.end_mut(side).held.clear();
                    link.end_mut(side).close(&Closed::silence());
                }
                net.counts.dropped += held as u64;
            }
        });
    }

    /// Sends a message to the end `to` of a link. It arrives later, or waits for the link to heal.
    pub(super) fn send(&self, net: &mut Net, id: u64, to: Side, message: Message) {
        let Some(link) = net.links.get(&id) else {
            net.counts.dropped += 1;
            return;
        };
        let route = (link.end(to.other()).addr, link.end(to).addr);
        if message.is_reply() && net.replies_lost.contains(&route) {
            net.counts.dropped += 1;
            return;
        }
        if message.may_be_lost() && net.pace.loses(&mut net.rng) {
            net.counts.dropped += 1;
            net.counts.lost += 1;
            return;
        }
        if let Some(twin) = message.twin()
            && net.pace.doubles(&mut net.rng)
        {
            net.counts.doubled += 1;
            self.carry(net, id, to, twin);
        }
        self.carry(net, id, to, message);
    }

    fn carry(&self, net: &mut Net, id: u64, to: Side, message: Message) {
        let delay = net.delay(message.bytes());
        let Some(link) = net.links.get_mut(&id) else {
            return;
        };
        link.end_mut(to).sent += 1;
        let number = link.end(to).sent;
        let this = self.clone();
        spawn(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            this.lock().arrive(id, to, number, message);
        });
    }

    /// Waits until `from` and `to` reach each other. A dial that hangs does it here.
    async fn reach(&self, from: SocketAddr, to: SocketAddr) {
        loop {
            let topology = Arc::clone(&self.lock().topology);
            let changed = topology.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let net = self.lock();
                if !net.is_cut(from, to) && !net.is_cut(to, from) {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Opens a connection, after one round trip.
    pub(super) async fn connect(
        &self,
        dialer: &SimTransport,
        peer: PeerKey,
        addr: SocketAddr,
    ) -> Result<SimConnection, TransportError> {
        let from = dialer.addr;
        let handshake = async {
            self.reach(from, addr).await;
            let round_trip = {
                let mut net = self.lock();
                net.delay(0) + net.delay(0)
            };
            tokio::task::yield_now().await;
            if !round_trip.is_zero() {
                tokio::time::sleep(round_trip).await;
            }
            self.reach(from, addr).await;
        };
        let timeout = Duration::from_millis(self.config.handshake_timeout_ms);
        tokio::time::timeout(timeout, handshake)
            .await
            .map_err(|_| TransportError::TimedOut)?;

        let unreachable = |reason: &str| TransportError::Unreachable {
            addr,
            reason: reason.into(),
        };
        let mut net = self.lock();
        if net.nodes.get(&from).is_none_or(|node| node.id != dialer.id) {
            return Err(unreachable("this transport is closed"));
        }
        let Some(node) = net.nodes.get(&addr) else {
            return Err(unreachable("nobody listens there"));
        };
        if node.id == dialer.id {
            return Err(unreachable("a node does not connect to itself"));
        }
        if node.key != peer {
            return Err(TransportError::Handshake {
                peer,
                addr,
                reason: "the remote holds another key".into(),
            });
        }
        let (near, near_requests) = End::new(from, dialer.id);
        let (far, far_requests) = End::new(addr, node.id);
        let (near_key, far_key) = (dialer.key, node.key);
        let queue = node.queue.clone();
        net.link_last += 1;
        net.counts.connections += 1;
        let id = net.link_last;
        let binding = net.rng.random();
        net.links.insert(id, Link::new(near, far));
        self.review(&mut net, id);
        drop(net);
        let handle = |side| Handle::new(self.clone(), id, side);
        let (to_far, to_near) = ((far_key, addr), (near_key, from));
        let near = SimConnection::new(handle(Side::Dialer), to_far, binding, near_requests);
        let far = SimConnection::new(handle(Side::Acceptor), to_near, binding, far_requests);
        // A node that is gone by now drops its end, which closes the link.
        let _ = queue.send(Arc::new(far) as Arc<dyn Connection>);
        Ok(near)
    }

    /// A node closes: its peers are told.
    pub(super) fn close_node(&self, node: u64) {
        let mut net = self.lock();
        net.nodes.retain(|_, other| other.id != node);
        for (id, side) in net.ends_of(node) {
            self.close_end(&mut net, id, side, 0, "");
        }
    }

    /// A node dies: nobody is told.
    pub(super) fn kill_node(&self, node: u64) {
        let mut net = self.lock();
        net.nodes.retain(|_, other| other.id != node);
        for (id, side) in net.ends_of(node) {
            if let Some(link) = net.links.get_mut(&id) {
                link.dead = true;
                link.end_mut(side)
                    .close(&Closed::locally(0, "the node died"));
            }
            self.review(&mut net, id);
        }
    }

    /// Closes one end and tells the other.
    pub(super) fn close_end(&self, net: &mut Net, id: u64, side: Side, code: u32, reason: &str) {
        let Some(link) = net.links.get_mut(&id) else {
            return;
        };
        if link.end(side).closed.is_some() {
            return;
        }
        link.end_mut(side).close(&Closed::locally(code, reason));
        let reason = reason.to_owned();
        self.send(net, id, side.other(), Message::Close { code, reason });
    }

    /// The last handle of an end is gone.
    pub(super) fn drop_end(&self, id: u64, side: Side) {
        let mut net = self.lock();
        self.close_end(&mut net, id, side, 0, "");
        if let Some(link) = net.links.get_mut(&id) {
            link.end_mut(side).dropped = true;
            if link.end(side.other()).dropped {
                net.links.remove(&id);
            }
        }
    }
}

/// The state behind the one lock of a simulated network.
pub(super) struct Net {
    rng: StdRng,
    pub(super) pace: Pace,
    nodes: BTreeMap<SocketAddr, Node>,
    pub(super) links: BTreeMap<u64, Link>,
    /// Directions that are cut.
    pub(super) cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Isolated nodes, and whom they reach again.
    pub(super) isolated: BTreeMap<SocketAddr, BTreeSet<SocketAddr>>,
    /// Directions on which replies are lost.
    pub(super) replies_lost: BTreeSet<(SocketAddr, SocketAddr)>,
    counts: SimCounts,
    node_last: u64,
    link_last: u64,
    /// Told at every change of who reaches whom.
    topology: Arc<Notify>,
}

struct Node {
    id: u64,
    key: PeerKey,
    queue: mpsc::UnboundedSender<Arc<dyn Connection>>,
}

impl Net {
    fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let apart = |a, b| {
            let reached = self.isolated.get(&a);
            reached.is_some_and(|reached| !reached.contains(&b))
        };
        self.cuts.contains(&(from, to)) || apart(from, to) || apart(to, from)
    }

    fn delay(&mut self, bytes: usize) -> Duration {
        self.pace.draw(&mut self.rng, bytes)
    }

    fn ends_of(&self, node: u64) -> Vec<(u64, Side)> {
        let sides = [Side::Dialer, Side::Acceptor];
        self.links
            .iter()
            .flat_map(|(id, link)| sides.map(|side| (*id, side, link.end(side).node)))
            .filter(|(_, _, holder)| *holder == node)
            .map(|(id, side, _)| (id, side))
            .collect()
    }

    /// A message is there, unless the link was cut meanwhile.
    fn arrive(&mut self, id: u64, to: Side, number: u64, message: Message) {
        let Some(link) = self.links.get(&id) else {
            self.counts.dropped += 1;
            return;
        };
        let (from_addr, to_addr) = (link.end(to.other()).addr, link.end(to).addr);
        let cut = link.dead || self.is_cut(from_addr, to_addr);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let end = link.end_mut(to);
        if end.closed.is_some() {
            self.counts.dropped += 1;
        } else if cut {
            end.held.push(message);
        } else {
            probe::delivered(from_addr, to_addr, || message.content());
            end.receive(message);
            self.counts.delivered += 1;
            self.counts.reordered += u64::from(number < end.newest);
            end.newest = end.newest.max(number);
        }
    }
}

/// Spawns, if there is a runtime: a handle dropped after its runtime has nobody left to tell.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}
