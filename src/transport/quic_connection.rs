//! One QUIC connection, and the two ends of a request on it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use futures::future::BoxFuture;
use iroh::endpoint::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::frame::{FrameReader, prefix};
use super::{
    Allowance, Budget, Charge, Closed, Connection, Incoming, IncomingOf, PeerKey, TransportError,
};
use crate::failpoint;

/// The code of a stream that is given up. Nobody looks at it.
const ABANDONED: VarInt = VarInt::from_u32(1);

const BINDING_LABEL: &[u8] = b"raft-once admission v1";

/// Pieces of a stream taken under one lock of the connection. A small frame arrives in one.
const PIECES_MAX: usize = 8;

pub(super) struct QuicConnection {
    /// Whoever holds it holds the socket, so nobody does for long but this. `Err` once the
    /// transport is closed.
    connection: RwLock<Result<Arc<iroh::endpoint::Connection>, Closed>>,
    remote_key: PeerKey,
    /// As dialed or as first seen: with relays off it does not change in our lifetime.
    remote_addr: Option<SocketAddr>,
    /// What this side closed it with, which QUIC does not tell its own side again.
    closed_here: OnceLock<Closed>,
}

impl QuicConnection {
    pub(super) fn new(
        connection: iroh::endpoint::Connection,
        remote_addr: Option<SocketAddr>,
    ) -> Self {
        Self {
            remote_key: PeerKey(*connection.remote_id().as_bytes()),
            connection: RwLock::new(Ok(Arc::new(connection))),
            remote_addr,
            closed_here: OnceLock::new(),
        }
    }

    /// Lets go of the socket. The transport has closed the connection.
    pub(super) fn release(&self) {
        let mut connection = self
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Ok(open) = &*connection {
            let reason = open.close_reason().map(|err| self.closed_by(err));
            *connection = Err(reason.unwrap_or_else(closed_with_transport));
        }
    }

    fn connection(&self) -> Result<Arc<iroh::endpoint::Connection>, Closed> {
        let connection = self
            .connection
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        connection.clone()
    }

    fn closed_by(&self, err: ConnectionError) -> Closed {
        match (err, self.closed_here.get()) {
            (ConnectionError::LocallyClosed, Some(closed)) => closed.clone(),
            (err, _) => closed_by(err),
        }
    }

    async fn exchange(
        &self,
        frame: Vec<u8>,
        reply_bytes_max: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let closed = |err| TransportError::Closed(self.closed_by(err));
        let (send, mut recv) = self.connection()?.open_bi().await.map_err(closed)?;
        // From here on a drop resets the stream: `recv` stops its half by itself.
        let mut send = Sending(Some(send));
        failpoint::hit("link.before_request");
        send.frame(frame).await.map_err(|err| self.own(err))?;
        failpoint::hit("link.after_request");
        let reply = read_frame(&mut recv, reply_bytes_max, None).await;
        let (reply, _) = reply.map_err(|err| self.own(err))?;
        // The peer has answered, so it has the request: there is nothing left to take back.
        send.0 = None;
        Ok(reply)
    }

    /// `err`, with the reason of our own close in place of "locally closed".
    fn own(&self, err: TransportError) -> TransportError {
        match (err, self.closed_here.get()) {
            (TransportError::Closed(closed), Some(here)) if !closed.by_peer => {
                TransportError::Closed(here.clone())
            }
            (err, _) => err,
        }
    }
}

impl Connection for QuicConnection {
    fn remote_key(&self) -> PeerKey {
        self.remote_key
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        self.remote_addr
    }

    fn binding(&self) -> Result<[u8; 32], TransportError> {
        let mut binding = [0; 32];
        self.connection()?
            .export_keying_material(&mut binding, BINDING_LABEL, b"")
            .map_err(|_| TransportError::Malformed("no keying material for the binding"))?;
        Ok(binding)
    }

    fn request(
        &self,
        frame: Vec<u8>,
        reply_bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(self.exchange(frame, reply_bytes_max))
    }

    fn incoming(&self) -> BoxFuture<'_, Result<Incoming, TransportError>> {
        Box::pin(async {
            let accepted = self.connection()?.accept_bi().await;
            let (send, recv) = accepted.map_err(|err| self.closed_by(err))?;
            Ok(Incoming(IncomingOf::Quic(QuicIncoming {
                send: Sending(Some(send)),
                recv,
            })))
        })
    }

    fn allow(&self, allowance: Allowance) {
        // Nothing to allow on one that is released already.
        if let Ok(connection) = self.connection() {
            connection.set_receive_window(VarInt::from_u32(allowance.receive_window_bytes));
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(allowance.streams_max));
        }
    }

    fn close(&self, code: u32, reason: &str) {
        let Ok(connection) = self.connection() else {
            return;
        };
        if connection.close_reason().is_none() {
            // Lost to another close of this side at the same moment: that one counts.
            let _ = self.closed_here.set(Closed::locally(code, reason));
        }
        connection.close(VarInt::from_u32(code), reason.as_bytes());
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(async {
            match self.connection() {
                Ok(connection) => self.closed_by(connection.closed().await),
                Err(closed) => closed,
            }
        })
    }
}

/// A request of the peer: its stream, both halves.
pub(super) struct QuicIncoming {
    send: Sending,
    recv: RecvStream,
}

impl QuicIncoming {
    pub(super) async fn read(&mut self, bytes_max: usize) -> Result<Vec<u8>, TransportError> {
        Ok(read_frame(&mut self.recv, bytes_max, None).await?.0)
    }

    pub(super) async fn read_within(
        &mut self,
        bytes_max: usize,
        budget: &Budget,
    ) -> Result<(Vec<u8>, Charge), TransportError> {
        let (frame, charge) = read_frame(&mut self.recv, bytes_max, Some(budget)).await?;
        // A frame that is complete has been charged for.
        let charge = charge.ok_or(TransportError::OverBudget { bytes: frame.len() })?;
        Ok((frame, charge))
    }

    pub(super) async fn reply(mut self, frame: Vec<u8>) -> Result<(), TransportError> {
        failpoint::hit("link.before_reply");
        self.send.frame(frame).await?;
        failpoint::hit("link.after_reply");
        // Finished: dropping the stream now sends what is left of it.
        self.send.0 = None;
        Ok(())
    }
}

/// The sending half of a stream. Dropped, it is reset: iroh alone would finish it, and a frame cut
/// short would look like one that was meant so. `None` once it may be dropped in peace.
struct Sending(Option<SendStream>);

impl Sending {
    /// Sends a frame and the end of the stream.
    async fn frame(&mut self, frame: Vec<u8>) -> Result<(), TransportError> {
        let prefix = prefix(frame.len())?;
        let Some(send) = &mut self.0 else {
            return Err(TransportError::Reset);
        };
        // One write, so that a small frame is one packet, and no copy of the body.
        let mut pieces = [prefix.to_vec().into(), frame.into()];
        send.write_all_chunks(&mut pieces)
            .await
            .map_err(write_error)?;
        // It was open a moment ago, and only this side could have ended it.
        send.finish().map_err(|_| TransportError::Reset)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(mut send) = self.0.take() {
            // An error says that all of it has arrived already.
            let _ = send.reset(ABANDONED);
        }
    }
}

/// Reads one frame and the end of the stream.
async fn read_frame(
    recv: &mut RecvStream,
    bytes_max: usize,
    budget: Option<&Budget>,
) -> Result<(Vec<u8>, Option<Charge>), TransportError> {
    let mut reader = FrameReader::new(bytes_max, budget);
    let mut pieces: [_; PIECES_MAX] = Default::default();
    // The end of a stream is noticed with its last piece: no further lock for it.
    while let Some(count) = recv
        .read_many_chunks(&mut pieces)
        .await
        .map_err(read_error)?
    {
        for piece in &pieces[..count] {
            reader.push(piece)?;
        }
    }
    reader.finish()
}

fn read_error(err: ReadError) -> TransportError {
    match err {
        ReadError::ConnectionLost(err) => TransportError::Closed(closed_by(err)),
        ReadError::Reset(_) | ReadError::ClosedStream | ReadError::ZeroRttRejected => {
            TransportError::Reset
        }
    }
}

fn write_error(err: WriteError) -> TransportError {
    match err {
        WriteError::ConnectionLost(err) => TransportError::Closed(closed_by(err)),
        WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            TransportError::Reset
        }
    }
}

fn closed_with_transport() -> Closed {
    Closed::locally(0, "this transport is closed")
}

fn closed_by(err: ConnectionError) -> Closed {
    match err {
        ConnectionError::ApplicationClosed(close) => Closed {
            code: u32::try_from(close.error_code.into_inner()).ok(),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
            by_peer: true,
        },
        ConnectionError::TimedOut => Closed::silence(),
        // Our own close says more, where it is known.
        ConnectionError::LocallyClosed => closed_with_transport(),
        err => Closed {
            code: None,
            reason: err.to_string(),
            by_peer: matches!(
                err,
                ConnectionError::ConnectionClosed(_) | ConnectionError::Reset
            ),
        },
    }
}
