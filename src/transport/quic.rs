//! The real network: QUIC through iroh, reduced to what is dialed and nothing else.
//!
//! No relay, no address lookup, no port mapping, no probes; one UDP socket at the given address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use iroh::endpoint::{
    ConnectError, ConnectWithOptsError, ConnectingError, ConnectionError, IdleTimeout,
    PortmapperConfig, QuicTransportConfig, VarInt, presets,
};
use iroh::{
    Endpoint, EndpointAddr, NetReportConfig, PublicKey, RelayMode, SecretKey, TransportAddr,
};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinHandle;

use super::quic_connection::QuicConnection;
use super::{
    Connection, HANDSHAKES_MAX, LinkConfig, PeerKey, Places, Transport, TransportError, public_key,
};

/// The protocol that both sides must speak.
const ALPN: &[u8] = b"raft-once/1";

/// How long `close` waits for peers to confirm. A live one does within a round trip; what a dead
/// one leaves behind is three probe timeouts of packets and then nothing.
const CLOSE_TIMEOUT_MS: u64 = 600;

/// What is assumed of a path before it is measured. It sets how soon a lost first packet is
/// repeated (three times this), and how long the close of a half-open connection takes.
const INITIAL_RTT_MS: u64 = 50;

/// Handshakes under way from which on a dialer must first prove that it holds its address.
const UNVALIDATED_HANDSHAKES_MAX: usize = HANDSHAKES_MAX / 2;

/// Pauses between attempts to bind an address again that went away under its socket.
const REBIND_MS: u64 = 100;

/// What one stream may have on the way; that of its connection counts besides.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// How long `close` waits, after that, for the socket to be closed: until the tasks that wait on a
/// connection have seen its end.
const RELEASE_TIMEOUT_MS: u64 = 200;

/// How often `close` looks whether the socket is closed.
const RELEASE_POLL_MS: u64 = 1;

/// One UDP socket and the connections over it.
pub(crate) struct IrohTransport {
    open: Arc<Opened>,
    /// Runs the handshakes of others. Taken by `close`.
    acceptor: Mutex<Option<JoinHandle<()>>>,
    links: Arc<Links>,
    local_key: PeerKey,
    local_addr: SocketAddr,
    handshake_timeout: Duration,
    accepted: AsyncMutex<mpsc::Receiver<Arc<dyn Connection>>>,
    #[cfg(feature = "testing")]
    refused: Mutex<std::collections::BTreeSet<PeerKey>>,
}

/// What there is until a transport is closed.
#[derive(Default)]
struct Opened(Mutex<Option<Endpoint>>);

impl Opened {
    fn lock(&self) -> MutexGuard<'_, Option<Endpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an endpoint is made of.
#[derive(Clone)]
struct Place {
    seed: [u8; 32],
    addr: SocketAddr,
    config: LinkConfig,
}

impl Place {
    async fn bind(&self) -> Result<Endpoint, String> {
        Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&self.seed))
            .alpns(vec![ALPN.to_vec()])
            .relay_mode(RelayMode::Disabled)
            .clear_address_lookup()
            .portmapper_config(PortmapperConfig::Disabled)
            .net_report_config(NetReportConfig::minimal())
            .transport_config(quic_config(&self.config))
            // Without this the IPv6 wildcard is bound next to an IPv4 address.
            .clear_ip_transports()
            .bind_addr(self.addr)
            .map_err(|err| format!("{err:#}"))?
            .bind()
            .await
            .map_err(|err| format!("{err:#}"))
    }
}

/// Every connection that someone may still hold: with its last handle goes the socket.
#[derive(Default)]
struct Links(Mutex<Vec<Weak<QuicConnection>>>);

impl Links {
    fn add(
        &self,
        connection: iroh::endpoint::Connection,
        remote_addr: Option<SocketAddr>,
    ) -> Arc<QuicConnection> {
        let connection = Arc::new(QuicConnection::new(connection, remote_addr));
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&connection));
        connection
    }

    #[cfg(feature = "testing")]
    fn close(&self, peer: PeerKey) {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for link in links.iter().filter_map(Weak::upgrade) {
            if link.remote_key() == peer {
                link.close(0, "cut by a test");
            }
        }
    }

    fn release(&self) {
        let links = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for link in links.iter().filter_map(Weak::upgrade) {
            link.release();
        }
    }
}

impl IrohTransport {
    /// Binds `addr`, and only it, as the node with the secret key `seed`.
    pub(crate) async fn bind(
        seed: [u8; 32],
        addr: SocketAddr,
        config: LinkConfig,
    ) -> Result<Self, TransportError> {
        let failed = |reason: String| TransportError::Bind { addr, reason };
        let handshake_timeout = Duration::from_millis(config.handshake_timeout_ms);
        let mut place = Place { seed, addr, config };
        let endpoint = place.bind().await.map_err(failed)?;
        let Some(local_addr) = endpoint.bound_sockets().first().copied() else {
            endpoint.close().await;
            return Err(failed("the socket has no address".into()));
        };
        place.addr = local_addr;
        let (queue, accepted) = mpsc::channel(HANDSHAKES_MAX);
        let links = Arc::new(Links::default());
        let open = Arc::new(Opened(Mutex::new(Some(endpoint))));
        let keeping = keep_accepting(Arc::clone(&open), place, Arc::clone(&links), queue);
        let acceptor = tokio::spawn(keeping);
        Ok(Self {
            open,
            acceptor: Mutex::new(Some(acceptor)),
            links,
            local_key: public_key(&seed),
            local_addr,
            handshake_timeout,
            accepted: AsyncMutex::new(accepted),
            #[cfg(feature = "testing")]
            refused: Mutex::default(),
        })
    }

    fn take_acceptor(&self) -> Option<JoinHandle<()>> {
        let mut acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner);
        acceptor.take()
    }

    #[cfg(feature = "testing")]
    fn refuses(&self, peer: PeerKey) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.contains(&peer)
    }

    async fn connect(
        &self,
        peer: PeerKey,
        addr: SocketAddr,
    ) -> Result<Arc<dyn Connection>, TransportError> {
        let failed = |reason: String| TransportError::Handshake { peer, addr, reason };
        #[cfg(feature = "testing")]
        if self.refuses(peer) {
            let reason = "cut by a test".into();
            return Err(TransportError::Unreachable { addr, reason });
        }
        let id = PublicKey::from_bytes(&peer.0).map_err(|err| failed(format!("{err:#}")))?;
        let to = EndpointAddr::from_parts(id, [TransportAddr::Ip(addr)]);
        let endpoint = self.open.lock().clone();
        let endpoint = endpoint.ok_or_else(|| closed(addr))?;
        let connecting = endpoint.connect(to, ALPN);
        let connection = tokio::time::timeout(self.handshake_timeout, connecting)
            .await
            .map_err(|_| TransportError::TimedOut)?
            .map_err(|err| dial_error(peer, addr, err))?;
        // The handshake has checked it already; a second look costs nothing.
        if connection.remote_id() != id {
            connection.close(VarInt::from_u32(0), b"wrong key");
            return Err(failed("the remote holds another key".into()));
        }
        Ok(self.links.add(connection, Some(addr)))
    }
}

impl Transport for IrohTransport {
    fn local_key(&self) -> PeerKey {
        self.local_key
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn dial(
        &self,
        peer: PeerKey,
        addr: SocketAddr,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>, TransportError>> {
        Box::pin(self.connect(peer, addr))
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>> {
        Box::pin(async {
            loop {
                let connection = self.accepted.lock().await.recv().await?;
                #[cfg(feature = "testing")]
                if self.refuses(connection.remote_key()) {
                    continue;
                }
                return self.open.lock().is_some().then_some(connection);
            }
        })
    }

    #[cfg(feature = "testing")]
    fn refuse(&self, peer: PeerKey, refused: bool) {
        let mut peers = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if !refused {
            peers.remove(&peer);
            return;
        }
        peers.insert(peer);
        drop(peers);
        self.links.close(peer);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(endpoint) = self.open.lock().take() else {
                return;
            };
            // Not cancelled on timeout: iroh would neither finish nor abort a close cut short.
            let closing = tokio::spawn(async move { endpoint.close().await });
            let bound = Duration::from_millis(CLOSE_TIMEOUT_MS);
            let closed = tokio::time::timeout(bound, closing).await.is_ok();
            if let Some(acceptor) = self.take_acceptor() {
                acceptor.abort();
                // An error says that it was aborted or panicked: either way it is gone.
                let _ = acceptor.await;
            }
            self.links.release();
            let bound = Duration::from_millis(RELEASE_TIMEOUT_MS);
            let released = closed && tokio::time::timeout(bound, self.released()).await.is_ok();
            if !released {
                tracing::debug!(addr = %self.local_addr, "the socket closes in the background");
            }
        })
    }
}

impl IrohTransport {
    /// Waits until the socket is closed. iroh closes it on another thread, once its last handle is
    /// gone, and tells nobody: so look whether the address is free.
    async fn released(&self) {
        while std::net::UdpSocket::bind(self.local_addr).is_err() {
            tokio::time::sleep(Duration::from_millis(RELEASE_POLL_MS)).await;
        }
    }

    #[cfg(test)]
    pub(super) fn bound(&self) -> Vec<SocketAddr> {
        let open = self.open.lock();
        open.iter().flat_map(Endpoint::bound_sockets).collect()
    }
}

impl Drop for IrohTransport {
    fn drop(&mut self) {
        // The task holds the endpoint: without this a transport dropped unclosed would live on.
        self.open.lock().take();
        if let Some(acceptor) = self.take_acceptor() {
            acceptor.abort();
        }
    }
}

/// Accepts until the transport is closed, on one endpoint after the other.
///
/// iroh binds its socket anew when the addresses of the machine change. If its own is not among
/// them at that moment, the endpoint ends for good, and so do its connections. An address that
/// comes back must bring the node back with it.
async fn keep_accepting(
    open: Arc<Opened>,
    place: Place,
    links: Arc<Links>,
    queue: mpsc::Sender<Arc<dyn Connection>>,
) {
    let handshake_timeout = Duration::from_millis(place.config.handshake_timeout_ms);
    loop {
        let Some(endpoint) = open.lock().clone() else {
            return;
        };
        accept_all(&endpoint, handshake_timeout, &links, &queue).await;
        if open.lock().is_none() {
            return;
        }
        tracing::warn!(addr = %place.addr, "the socket is gone: it is bound again when it can be");
        // All that is left of it goes first: it would take the address when that is back.
        links.release();
        let closing = tokio::spawn(async move { endpoint.close().await });
        let _ = tokio::time::timeout(Duration::from_millis(CLOSE_TIMEOUT_MS), closing).await;
        let endpoint = loop {
            match place.bind().await {
                Ok(endpoint) => break endpoint,
                Err(error) => tracing::debug!(addr = %place.addr, %error, "not bound"),
            }
            tokio::time::sleep(Duration::from_millis(REBIND_MS)).await;
            if open.lock().is_none() {
                return;
            }
        };
        tracing::info!(addr = %place.addr, "bound again");
        let mut open = open.lock();
        if open.is_none() {
            return;
        }
        *open = Some(endpoint);
    }
}

/// Runs the handshakes of all dialers, side by side and bounded in number and time, until the
/// endpoint is closed.
async fn accept_all(
    endpoint: &Endpoint,
    handshake_timeout: Duration,
    links: &Links,
    queue: &mpsc::Sender<Arc<dyn Connection>>,
) {
    let mut handshakes = FuturesUnordered::new();
    let places = Places::new(HANDSHAKES_MAX);
    loop {
        let dialer = tokio::select! {
            biased;
            Some(()) = handshakes.next(), if !handshakes.is_empty() => continue,
            dialer = endpoint.accept() => dialer,
        };
        let Some(dialer) = dialer else { return };
        if places.len() >= UNVALIDATED_HANDSHAKES_MAX && !dialer.remote_addr_validated() {
            // Fails only for a validated address, which this is not.
            let _ = dialer.retry();
            continue;
        }
        let remote_addr = match dialer.remote_addr() {
            iroh::endpoint::IncomingAddr::Ip(addr) => Some(addr),
            _ => None,
        };
        let place = places.take();
        handshakes.push(async move {
            let handshake = async {
                match tokio::time::timeout(handshake_timeout, dialer).await {
                    Ok(Ok(connection)) => {
                        // An error says that the transport is gone, and the connection with it.
                        let _ = queue.send(links.add(connection, remote_addr)).await;
                    }
                    Ok(Err(err)) => tracing::debug!(?remote_addr, "handshake failed: {err:#}"),
                    Err(_) => tracing::debug!(?remote_addr, "handshake timed out"),
                }
            };
            if place.hold(handshake).await.is_none() {
                tracing::debug!(?remote_addr, "handshake gave way to newer ones");
            }
        });
    }
}

fn quic_config(config: &LinkConfig) -> QuicTransportConfig {
    let keep_alive = Duration::from_millis(config.keep_alive_ms);
    let idle = u32::try_from(config.idle_timeout_ms).unwrap_or(u32::MAX);
    let window = VarInt::from_u32(config.allowance.receive_window_bytes);
    QuicTransportConfig::builder()
        .keep_alive_interval(keep_alive)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        // iroh ends a path after 15 s of silence by itself; there is only one path here.
        .default_path_max_idle_timeout(Duration::from_millis(config.idle_timeout_ms))
        .initial_rtt(Duration::from_millis(INITIAL_RTT_MS))
        .max_concurrent_bidi_streams(VarInt::from_u32(config.allowance.streams_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(window)
        // One stream may use all that its connection has, however much that will be.
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .send_window(u64::from(config.send_window_bytes))
        .send_observed_address_reports(false)
        .receive_observed_address_reports(false)
        .build()
}

/// A dial on a transport that is closed.
fn closed(addr: SocketAddr) -> TransportError {
    TransportError::Unreachable {
        addr,
        reason: "this transport is closed".into(),
    }
}

fn dial_error(peer: PeerKey, addr: SocketAddr, err: ConnectError) -> TransportError {
    let reason = format!("{err:#}");
    match err {
        ConnectError::Connect { source, .. } => match source {
            ConnectWithOptsError::EndpointClosed { .. } => closed(addr),
            _ => TransportError::Unreachable { addr, reason },
        },
        ConnectError::Connection { source, .. }
        | ConnectError::Connecting {
            source: ConnectingError::ConnectionError { source, .. },
            ..
        } => match source {
            ConnectionError::TimedOut => TransportError::TimedOut,
            ConnectionError::LocallyClosed => closed(addr),
            _ => TransportError::Handshake { peer, addr, reason },
        },
        _ => TransportError::Handshake { peer, addr, reason },
    }
}
