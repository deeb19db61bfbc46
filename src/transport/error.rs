//! What can go wrong on a connection.

use std::net::SocketAddr;

use super::PeerKey;

/// Why a connection is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", if *by_peer { "closed by the peer" } else { "closed" })]
pub(crate) struct Closed {
    /// The code given to `close`; `None` if nobody called it, as after silence.
    pub(crate) code: Option<u32>,
    pub(crate) reason: String,
    /// Whether the peer said so. Silence and our own close are not the peer's doing.
    pub(crate) by_peer: bool,
}

impl Closed {
    /// The peer was not heard for longer than the idle timeout.
    pub(crate) fn silence() -> Self {
        Self {
            code: None,
            reason: "nothing heard of the peer for the idle timeout".into(),
            by_peer: false,
        }
    }

    /// This side closed it.
    pub(crate) fn locally(code: u32, reason: &str) -> Self {
        Self {
            code: Some(code),
            reason: reason.into(),
            by_peer: false,
        }
    }
}

/// Why a dial, a request or a bind failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("cannot bind {addr}: {reason}")]
    Bind { addr: SocketAddr, reason: String },
    /// Nobody listens there, or there is no way there.
    #[error("{addr} is unreachable: {reason}")]
    Unreachable { addr: SocketAddr, reason: String },
    /// Someone listens there, but it is not `peer` or does not speak our protocol.
    #[error("handshake with {peer:?} at {addr} failed: {reason}")]
    Handshake {
        peer: PeerKey,
        addr: SocketAddr,
        reason: String,
    },
    #[error("timed out")]
    TimedOut,
    #[error("the connection is {0}")]
    Closed(#[from] Closed),
    #[error("a frame of {bytes} bytes is larger than {bytes_max}")]
    FrameTooLarge { bytes: usize, bytes_max: usize },
    /// The peer makes this node hold as much as it may. It is to try again later.
    #[error("a frame of {bytes} bytes is more than what is left for the peer")]
    OverBudget { bytes: usize },
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
    /// The peer gave this one request up; the connection lives on.
    #[error("the peer reset the stream")]
    Reset,
}
