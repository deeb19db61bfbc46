//! A peer that speaks QUIC and keeps to no rule of ours: for tests of how nodes bear it.

use std::net::SocketAddr;
use std::time::Duration;

use iroh::endpoint::{QuicTransportConfig, RecvStream, SendStream, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, PublicKey, RelayMode, SecretKey, TransportAddr};

use super::PeerKey;

/// What a raw peer takes in unread, in bytes.
const WINDOW_BYTES: u32 = 64 * 1024;

pub(crate) struct Raw {
    endpoint: Endpoint,
    connection: iroh::endpoint::Connection,
}

/// A request that may be sent in any pieces, or never to its end.
pub(crate) struct RawStream {
    send: SendStream,
    recv: RecvStream,
}

/// An endpoint with the secret key `seed`, to dial with.
pub(crate) async fn endpoint(seed: [u8; 32]) -> Endpoint {
    let config = QuicTransportConfig::builder()
        .keep_alive_interval(Duration::from_millis(250))
        .max_idle_timeout(None)
        .default_path_max_idle_timeout(Duration::from_secs(600))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .build();
    Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&seed))
        .relay_mode(RelayMode::Disabled)
        .transport_config(config)
        .clear_ip_transports()
        .bind_addr(SocketAddr::from(([127, 0, 0, 1], 0)))
        .unwrap()
        .bind()
        .await
        .unwrap()
}

impl Raw {
    pub(crate) async fn dial(seed: [u8; 32], peer: PeerKey, addr: SocketAddr) -> Self {
        let endpoint = endpoint(seed).await;
        let dialed = Self::dial_from(&endpoint, peer, addr).await;
        dialed.expect("the handshake is open to anyone")
    }

    /// Dials from an endpoint that may have other connections; `None` if that failed.
    pub(crate) async fn dial_from(
        endpoint: &Endpoint,
        peer: PeerKey,
        addr: SocketAddr,
    ) -> Option<Self> {
        let id = PublicKey::from_bytes(&peer.0).unwrap();
        let to = EndpointAddr::from_parts(id, [TransportAddr::Ip(addr)]);
        let connection = endpoint.connect(to, b"raft-once/1").await.ok()?;
        Some(Self {
            endpoint: endpoint.clone(),
            connection,
        })
    }

    pub(crate) fn key(&self) -> PeerKey {
        PeerKey(*self.endpoint.id().as_bytes())
    }

    pub(crate) fn binding(&self) -> [u8; 32] {
        let mut binding = [0; 32];
        self.connection
            .export_keying_material(&mut binding, b"raft-once admission v1", b"")
            .unwrap();
        binding
    }

    /// Opens a stream and sends these bytes on it, and no end.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Result<RawStream, String> {
        let opened = self.connection.open_bi().await;
        let (send, recv) = opened.map_err(|error| error.to_string())?;
        let mut stream = RawStream { send, recv };
        stream.more(bytes).await?;
        Ok(stream)
    }

    /// Sends bytes and the end of the stream, and returns all that comes back.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut stream = self.send(bytes).await?;
        stream.finish();
        stream.rest().await
    }

    /// The same with the length in front, both ways.
    pub(crate) async fn request(&self, frame: &[u8]) -> Result<Vec<u8>, String> {
        let reply = self.exchange(&framed(frame)).await?;
        Ok(reply.get(4..).ok_or("no prefix")?.to_vec())
    }

    /// Why the other side closed the connection: its code and words.
    pub(crate) async fn closed(&self) -> String {
        self.connection.closed().await.to_string()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Goes without waiting for anybody.
    pub(crate) fn close(&self) {
        self.connection.close(VarInt::from_u32(9), b"");
    }
}

impl RawStream {
    pub(crate) async fn more(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.send.write_all(bytes).await;
        sent.map_err(|error| error.to_string())
    }

    pub(crate) fn finish(&mut self) {
        // It fails if the other side does not want the rest.
        let _ = self.send.finish();
    }

    /// All that comes back until the end of the stream.
    pub(crate) async fn rest(&mut self) -> Result<Vec<u8>, String> {
        let read = self.recv.read_to_end(usize::MAX).await;
        read.map_err(|error| error.to_string())
    }

    /// Waits until the other side does not want the rest.
    pub(crate) async fn refused(&mut self) {
        // An error says that the connection is gone, and then it does not either.
        let _ = self.send.stopped().await;
    }
}

/// The frame behind its length.
pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
    [&length[..], frame].concat()
}
