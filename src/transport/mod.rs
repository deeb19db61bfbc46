//! The seam between the library and the wire: requests and replies on authenticated
//! connections. Two tenants: QUIC ([`quic`]) and a simulated network ([`sim`]).
//!
//! This folder is the only one that names iroh. A connection proves who the remote is, by its
//! key; whether that key may do anything is decided above.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;

mod budget;
mod error;
mod frame;
#[cfg(any(test, all(fuzzing, feature = "testing")))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod hostile_tests;
mod places;
mod quic;
mod quic_connection;
#[cfg(test)]
pub(crate) mod raw;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

pub(crate) use budget::{Budget, Charge, Pool, Taken};
pub(crate) use error::{Closed, TransportError};
pub(crate) use places::Places;
pub(crate) use quic::IrohTransport;

/// Handshakes of dialers that may be under way at once. One more, and the oldest is given up.
pub(crate) const HANDSHAKES_MAX: usize = 64;

/// The public half of a node's ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerKey(pub(crate) [u8; 32]);

/// The first 8 digits: enough for a person to tell peers apart in a log.
impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The public key of the ed25519 secret key with this seed.
pub(crate) fn public_key(seed: &[u8; 32]) -> PeerKey {
    PeerKey(*iroh::SecretKey::from_bytes(seed).public().as_bytes())
}

/// The bounds of every connection of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkConfig {
    /// A connection that sent nothing for this long sends a ping.
    pub(crate) keep_alive_ms: u64,
    /// A connection that heard nothing for this long is closed, on both sides.
    pub(crate) idle_timeout_ms: u64,
    /// A handshake that takes longer fails.
    pub(crate) handshake_timeout_ms: u64,
    /// What the peer may do until [`Connection::allow`] says more.
    pub(crate) allowance: Allowance,
    /// Bytes to the peer that it has not confirmed, all streams of a connection together.
    pub(crate) send_window_bytes: u32,
}

/// What the peer may make this side of a connection hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Requests of the peer that may be open at once; its next one waits.
    pub(crate) streams_max: u32,
    /// Bytes of the peer that may wait for us to read them, all streams of a connection together.
    pub(crate) receive_window_bytes: u32,
}

impl Allowance {
    /// Enough for two small requests, one after the other: what is needed to be admitted.
    pub(crate) const STRANGER: Self = Self {
        streams_max: 2,
        receive_window_bytes: 64 * 1024,
    };
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            keep_alive_ms: 500,
            idle_timeout_ms: 1_500,
            handshake_timeout_ms: 3_000,
            allowance: Allowance::STRANGER,
            send_window_bytes: 2 * 1024 * 1024,
        }
    }
}

/// One node's presence on a network.
pub(crate) trait Transport: Send + Sync + 'static {
    fn local_key(&self) -> PeerKey;

    /// The address that was really bound: port 0 is resolved.
    fn local_addr(&self) -> SocketAddr;

    /// Connects to `addr`, and fails unless the remote holds the key `peer`.
    fn dial(
        &self,
        peer: PeerKey,
        addr: SocketAddr,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>, TransportError>>;

    /// The next connection that someone else dialed; `None` once the transport is closed.
    /// Cancel safe. A slow or hostile dialer delays nobody else.
    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>>;

    /// From now on no connection to or from `peer` lives, or they may again. Only for tests, and
    /// only where there is a real network: a simulated one cuts its links itself.
    #[cfg(feature = "testing")]
    fn refuse(&self, _peer: PeerKey, _refused: bool) {}

    /// Closes every connection with code 0, then the socket. The peers are told.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// An authenticated connection. Both sides may send requests. It is closed with code 0 when its
/// last handle, the streams included, is dropped.
pub(crate) trait Connection: Send + Sync + 'static {
    fn remote_key(&self) -> PeerKey;

    fn remote_addr(&self) -> Option<SocketAddr>;

    /// A secret of this session, the same on both sides and of no other session.
    fn binding(&self) -> Result<[u8; 32], TransportError>;

    /// Sends `frame` on a stream of its own and waits for the reply. There is no deadline here:
    /// dropping the future abandons the stream, never the connection.
    fn request(
        &self,
        frame: Vec<u8>,
        reply_bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<u8>, TransportError>>;

    /// The next request of the peer. Cancel safe.
    fn incoming(&self) -> BoxFuture<'_, Result<Incoming, TransportError>>;

    /// From now on the peer may do this, which is no less than before.
    fn allow(&self, allowance: Allowance);

    /// Closes the connection now: what is in flight is lost. The first close counts.
    fn close(&self, code: u32, reason: &str);

    /// Resolves when the connection is gone, for whatever reason.
    fn closed(&self) -> BoxFuture<'_, Closed>;
}

/// A request of the peer. Dropped without a reply, it fails the request of the peer at once.
pub(crate) struct Incoming(IncomingOf);

/// An enum, not a trait object: it spares every request an allocation and a boxed future.
enum IncomingOf {
    Quic(quic_connection::QuicIncoming),
    #[cfg(any(test, feature = "testing"))]
    Sim(sim::SimIncoming),
}

impl Incoming {
    /// The frame of the request. A frame of more than `bytes_max` bytes is refused before
    /// anything is allocated for it. To be called once.
    pub(crate) async fn read(&mut self, bytes_max: usize) -> Result<Vec<u8>, TransportError> {
        match &mut self.0 {
            IncomingOf::Quic(incoming) => incoming.read(bytes_max).await,
            #[cfg(any(test, feature = "testing"))]
            IncomingOf::Sim(incoming) => incoming.read(bytes_max),
        }
    }

    /// As [`read`](Self::read), and the frame is paid for: it is refused, as soon as its length
    /// is known, if there is not that much left in the budget.
    pub(crate) async fn read_within(
        &mut self,
        bytes_max: usize,
        budget: &Budget,
    ) -> Result<(Vec<u8>, Charge), TransportError> {
        match &mut self.0 {
            IncomingOf::Quic(incoming) => incoming.read_within(bytes_max, budget).await,
            #[cfg(any(test, feature = "testing"))]
            IncomingOf::Sim(incoming) => {
                let frame = incoming.read(bytes_max)?;
                let bytes = frame.len();
                let charge = budget.take(bytes);
                Ok((frame, charge.ok_or(TransportError::OverBudget { bytes })?))
            }
        }
    }

    /// Hands the reply over for sending. `Ok` does not say that the peer got it.
    pub(crate) async fn reply(self, frame: Vec<u8>) -> Result<(), TransportError> {
        match self.0 {
            IncomingOf::Quic(incoming) => incoming.reply(frame).await,
            #[cfg(any(test, feature = "testing"))]
            IncomingOf::Sim(incoming) => incoming.reply(frame),
        }
    }
}
