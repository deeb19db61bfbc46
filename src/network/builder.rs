//! Describing a node before it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::electorate::{Electorate, check_network_name};
use super::hello::{Terms, expected_keys};
use super::node::{Node, Plan, Storage};
use super::proof::AdmissionKeys;
use super::ticket::{Ticket, TicketError};
use super::{Network, NetworkError, Secret, SecretError};
use crate::group::wire::EPOCH;
use crate::id::NodeId;
use crate::limits::Limits;
use crate::store::StoreConfig;
use crate::transport::{IrohTransport, LinkConfig, PeerKey, Transport, public_key};

/// What a network without a secret uses. It keeps nobody out, so it works on loopback only.
const LOOPBACK_SECRET: &[u8] = b"raft-once: loopback, no secret";

/// Describes a node and starts it. Made by [`Network::builder`].
///
/// ```
/// use raft_once::Network;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), raft_once::NetworkError> {
/// let network = Network::builder("demo")
///     .electorate([("a", "127.0.0.1:0")])
///     .voter("a")
///     .in_memory()
///     .start()
///     .await?;
/// network.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until start() is awaited"]
pub struct NetworkBuilder {
    network: String,
    electorate: Vec<(String, String)>,
    voter: Option<String>,
    secret: Option<Result<Secret, SecretError>>,
    storage: Option<Storage>,
    bind: Option<SocketAddr>,
    write_timeout: Duration,
    store_config: StoreConfig,
    limits: Limits,
    #[cfg(any(test, feature = "testing"))]
    sim: Option<crate::transport::sim::SimNet>,
}

impl NetworkBuilder {
    pub(super) fn new(network: String) -> Self {
        Self {
            network,
            electorate: Vec::new(),
            voter: None,
            secret: None,
            storage: None,
            bind: None,
            write_timeout: Duration::from_millis(5_000),
            store_config: StoreConfig::default(),
            limits: Limits::default(),
            #[cfg(any(test, feature = "testing"))]
            sim: None,
        }
    }

    /// The voters: 1, 3 or 5 names, each with the `host:port` at which the others reach it. The
    /// same names on every node; order does not matter, and addresses may differ from node to
    /// node. Host names are resolved at each connect.
    pub fn electorate<N, A>(mut self, voters: impl IntoIterator<Item = (N, A)>) -> Self
    where
        N: Into<String>,
        A: Into<String>,
    {
        let voters = voters.into_iter();
        self.electorate = voters.map(|(n, a)| (n.into(), a.into())).collect();
        self
    }

    /// This node is the voter of that name. Without it, the node is an observer.
    pub fn voter(mut self, name: impl Into<String>) -> Self {
        self.voter = Some(name.into());
        self
    }

    /// The secret that all nodes of the network share. Without one, only loopback addresses are
    /// bound, and any process of this machine may join.
    ///
    /// A secret that is too weak is reported by [`start`](Self::start).
    pub fn secret<S>(mut self, secret: S) -> Self
    where
        S: TryInto<Secret>,
        S::Error: Into<SecretError>,
    {
        self.secret = Some(secret.try_into().map_err(Into::into));
        self
    }

    /// Where this voter keeps its log, on a local disk. It is created if it is missing, and it
    /// belongs to this voter alone: never copy, restore or share it.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.storage = Some(Storage::Folder(dir.into()));
        self
    }

    /// This voter keeps its log in memory. When it stops it has forgotten its votes, so the
    /// others refuse it from then on: for tests, and for electorates that start and stop as one.
    pub fn in_memory(mut self) -> Self {
        self.storage = Some(Storage::Memory);
        self
    }

    /// The address to bind, if it is not this voter's own in the electorate: `0.0.0.0:7400`
    /// behind address translation, say. An observer binds a free port by itself.
    pub fn bind(mut self, addr: SocketAddr) -> Self {
        self.bind = Some(addr);
        self
    }

    /// After how many milliseconds a write, a claim or a linearizable read that cannot be
    /// confirmed ends with `Offline`. The default is 5,000.
    pub fn write_timeout_ms(mut self, ms: u64) -> Self {
        self.write_timeout = Duration::from_millis(ms);
        self
    }

    /// How much this voter keeps, and how much of it others may make it keep.
    ///
    /// A limit that is out of its range is reported by [`start`](Self::start).
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How big a segment of the log grows, in bytes. A test with small ones sees the log continued
    /// and checkpoints taken within seconds.
    #[cfg(any(test, feature = "testing"))]
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.store_config.segment_bytes_max = bytes;
        self
    }

    /// This voter keeps its log on a simulated disk.
    #[cfg(test)]
    pub(crate) fn on_disk(mut self, disk: &crate::store::SimDisk) -> Self {
        self.storage = Some(Storage::Simulated(disk.clone()));
        self
    }

    /// Puts the node on a simulated network, whose links can be cut and healed.
    #[cfg(any(test, feature = "testing"))]
    pub fn simulated(mut self, net: &crate::transport::sim::SimNet) -> Self {
        self.sim = Some(net.clone());
        self
    }

    /// Starts the node. It returns once the address is bound and the data directory is read; it
    /// does not wait for other nodes.
    ///
    /// # Errors
    ///
    /// A [`NetworkError`] that says what to change. Nothing is left running.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops what was started. A data directory may be in use until a
    /// recovery that had begun has ended.
    pub async fn start(self) -> Result<Network, NetworkError> {
        check_network_name(&self.network)?;
        self.limits.check()?;
        let mut electorate = Electorate::new(self.electorate.clone())?;
        let secret = self.secret.clone().transpose()?;
        let voter = match (&self.voter, &self.storage) {
            (None, None | Some(Storage::Memory)) => None,
            (None, Some(_)) => return Err(NetworkError::StorageOfObserver),
            (Some(name), storage) => {
                if electorate.by_name(name).is_none() {
                    return Err(NetworkError::UnknownVoter {
                        name: name.clone(),
                        names: electorate.names().into_iter().map(Into::into).collect(),
                    });
                }
                let storage = storage
                    .clone()
                    .ok_or_else(|| NetworkError::NoStorage { name: name.clone() })?;
                Some((name.clone(), storage))
            }
        };

        let addr = self.addr_to_bind(&electorate).await?;
        let shared = match secret {
            Some(secret) => secret,
            None if addr.ip().is_loopback() => Secret::try_from(LOOPBACK_SECRET)?,
            None => return Err(NetworkError::SecretMissing { addr }),
        };
        let seeds = expected_keys(&electorate, &shared, &self.network);
        let own_id = voter.as_ref().map(|(name, _)| NodeId::of_voter(name));
        let seed = match own_id.and_then(|id| seeds.get(&id)) {
            Some(seed) => *seed,
            None => self.random(),
        };
        let transport = self.bind_at(seed, addr).await?;
        if let Some((name, _)) = &voter {
            electorate.bound(name, transport.local_addr());
        }
        let ticket = ticket_of(&self.network, &electorate, &shared)?;
        let keys = AdmissionKeys::of_secret(&shared, &self.network);
        let terms = Terms::new(keys, EPOCH, &self.network, &electorate);
        let voter_keys = seeds.iter().map(|(id, seed)| (public_key(seed), *id));
        self.run(
            voter,
            electorate,
            terms,
            voter_keys.collect(),
            transport,
            ticket,
        )
        .await
    }

    /// The ticket of the network that is described, by which observers join it. Nothing is started: the
    /// list of voters and the secret are enough.
    ///
    /// # Errors
    ///
    /// A [`NetworkError`] that says what is wrong with them; without a secret,
    /// [`SecretMissing`](NetworkError::SecretMissing).
    #[expect(clippy::result_large_err, reason = "once a process; as `start` has it")]
    pub fn ticket(&self) -> Result<Ticket, NetworkError> {
        let electorate = Electorate::new(self.electorate.clone())?;
        let secret = self.secret.clone().transpose()?;
        let addr = SocketAddr::from(([0, 0, 0, 0], 0));
        let secret = secret.ok_or(NetworkError::SecretMissing { addr })?;
        Ok(ticket_of(&self.network, &electorate, &secret)?)
    }

    /// Joins as an observer with what a ticket says.
    pub(super) async fn join(ticket: Ticket, base: Self) -> Result<Network, NetworkError> {
        let electorate = ticket.electorate()?;
        let addr = base.addr_to_bind(&electorate).await?;
        let transport = base.bind_at(base.random(), addr).await?;
        let keys = AdmissionKeys::of_observer_key(ticket.observer_key);
        let terms = Terms::new(keys, ticket.epoch, &ticket.network, &electorate);
        let voter_keys = ticket.voters.iter().map(|voter| {
            let id = NodeId::of_voter(&voter.name);
            (PeerKey(voter.public_key), id)
        });
        let voter_keys = voter_keys.collect();
        base.run(None, electorate, terms, voter_keys, transport, ticket)
            .await
    }

    async fn run(
        self,
        voter: Option<(String, Storage)>,
        electorate: Electorate,
        terms: Terms,
        voter_keys: Vec<(PeerKey, NodeId)>,
        transport: Arc<dyn Transport>,
        ticket: Ticket,
    ) -> Result<Network, NetworkError> {
        let entropy = self.random();
        let started = Node::start(Plan {
            network: self.network,
            electorate,
            voter,
            terms,
            voter_keys,
            transport: transport.clone(),
            ticket,
            write_timeout: self.write_timeout,
            entropy,
            store_config: self.store_config,
            limits: self.limits,
        });
        match started.await {
            Ok(node) => Ok(Network::of_node(node)),
            Err(error) => {
                transport.close().await;
                Err(error)
            }
        }
    }

    /// Seeded where the network is simulated: one seed, one history.
    fn random(&self) -> [u8; 32] {
        #[cfg(any(test, feature = "testing"))]
        if let Some(net) = &self.sim {
            return net.random();
        }
        rand::random()
    }

    async fn bind_at(
        &self,
        seed: [u8; 32],
        addr: SocketAddr,
    ) -> Result<Arc<dyn Transport>, NetworkError> {
        let failed = |error| NetworkError::of_bind(addr, error);
        #[cfg(any(test, feature = "testing"))]
        if let Some(net) = &self.sim {
            return Ok(Arc::new(net.bind(seed, addr).map_err(failed)?));
        }
        let bound = IrohTransport::bind(seed, addr, LinkConfig::default()).await;
        Ok(Arc::new(bound.map_err(failed)?))
    }

    /// What was asked for; else a voter's own address; else any port of an observer, on loopback
    /// if that is where the voters are.
    async fn addr_to_bind(&self, electorate: &Electorate) -> Result<SocketAddr, NetworkError> {
        if let Some(addr) = self.bind {
            return Ok(addr);
        }
        let own = self
            .voter
            .as_ref()
            .and_then(|name| electorate.by_name(name));
        if let Some(own) = own {
            let failed = |reason: String| NetworkError::Resolve {
                addr: own.addr.clone(),
                reason,
            };
            let mut found = tokio::net::lookup_host(&own.addr)
                .await
                .map_err(|error| failed(error.to_string()))?;
            return found.next().ok_or_else(|| failed("no address".into()));
        }
        let mut ips = Vec::new();
        for voter in electorate.voters() {
            // One that does not resolve now may do so when it is dialed.
            if let Ok(found) = tokio::net::lookup_host(&voter.addr).await {
                ips.extend(found.map(|addr| addr.ip()));
            }
        }
        let v6 = !ips.is_empty() && ips.iter().all(|ip| ip.is_ipv6());
        let loopback = !ips.is_empty() && ips.iter().all(|ip| ip.is_loopback());
        Ok(match (loopback, v6) {
            (true, false) => SocketAddr::from(([127, 0, 0, 1], 0)),
            (true, true) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)),
            (false, true) => SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)),
            (false, false) => SocketAddr::from(([0, 0, 0, 0], 0)),
        })
    }
}

fn ticket_of(
    network: &str,
    electorate: &Electorate,
    secret: &Secret,
) -> Result<Ticket, TicketError> {
    let public_key = |name: &str| public_key(&secret.voter_key_seed(network, name)).0;
    Ticket::new(
        network,
        EPOCH,
        secret.observer_key(network),
        electorate,
        public_key,
    )
}
