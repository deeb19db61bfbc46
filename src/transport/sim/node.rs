//! The simulated tenant of the transport seam.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};

use super::super::{
    Allowance, Closed, Connection, Incoming, IncomingOf, PeerKey, Transport, TransportError,
};
use super::link::{Message, Request, Side};
use super::net::SimNet;

/// Requests of one end of a connection that may be open at once.
const STREAMS_MAX: usize = 256;

/// A node on a [`SimNet`]. Dropped unclosed, it is a process that died.
pub(crate) struct SimTransport {
    net: SimNet,
    pub(super) id: u64,
    pub(super) key: PeerKey,
    pub(super) addr: SocketAddr,
    accepted: AsyncMutex<mpsc::UnboundedReceiver<Arc<dyn Connection>>>,
}

impl SimTransport {
    pub(super) fn new(
        net: SimNet,
        id: u64,
        key: PeerKey,
        addr: SocketAddr,
        accepted: mpsc::UnboundedReceiver<Arc<dyn Connection>>,
    ) -> Self {
        Self {
            net,
            id,
            key,
            addr,
            accepted: AsyncMutex::new(accepted),
        }
    }
}

impl Transport for SimTransport {
    fn local_key(&self) -> PeerKey {
        self.key
    }

    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn dial(
        &self,
        peer: PeerKey,
        addr: SocketAddr,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>, TransportError>> {
        Box::pin(async move {
            let connection = self.net.connect(self, peer, addr).await?;
            Ok(Arc::new(connection) as Arc<dyn Connection>)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>> {
        // The queue ends when the network forgets this node.
        Box::pin(async { self.accepted.lock().await.recv().await })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.net.close_node(self.id) })
    }
}

impl Drop for SimTransport {
    fn drop(&mut self) {
        // Nothing is left to kill after a close.
        self.net.kill_node(self.id);
    }
}

/// One end of a link, as long as someone holds it.
pub(super) struct Handle {
    net: SimNet,
    link: u64,
    side: Side,
}

impl Handle {
    /// To be made once for each end of a link, and without the lock of `net`.
    pub(super) fn new(net: SimNet, link: u64, side: Side) -> Self {
        Self { net, link, side }
    }

    /// Why this end is closed. A link is forgotten only after its handles.
    fn why(&self) -> Option<Closed> {
        let net = self.net.lock();
        let link = net.links.get(&self.link)?;
        link.end(self.side).closed.clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.net.drop_end(self.link, self.side);
    }
}

pub(crate) struct SimConnection {
    handle: Arc<Handle>,
    remote_key: PeerKey,
    remote_addr: SocketAddr,
    binding: [u8; 32],
    requests: AsyncMutex<mpsc::UnboundedReceiver<Request>>,
    streams: Semaphore,
}

impl SimConnection {
    pub(super) fn new(
        handle: Handle,
        (remote_key, remote_addr): (PeerKey, SocketAddr),
        binding: [u8; 32],
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        let streams = Semaphore::new(STREAMS_MAX);
        Self {
            handle: Arc::new(handle),
            remote_key,
            remote_addr,
            binding,
            requests: AsyncMutex::new(requests),
            streams,
        }
    }

    async fn exchange(
        &self,
        frame: Vec<u8>,
        reply_bytes_max: usize,
    ) -> Result<Vec<u8>, TransportError> {
        // Never closed, so it fails only with the link gone.
        let _stream = tokio::select! {
            biased;
            closed = self.closed() => return Err(TransportError::Closed(closed)),
            stream = self.streams.acquire() => stream.map_err(|_| TransportError::Reset)?,
        };
        let Handle { net, link, side } = &*self.handle;
        let (stream, replied) = {
            let mut state = net.lock();
            let gone = || TransportError::Closed(Closed::locally(0, "the link is gone"));
            let end = state.links.get_mut(link).ok_or_else(gone)?.end_mut(*side);
            let (stream, replied) = end.open()?;
            let message = Message::Request { stream, frame };
            net.send(&mut state, *link, side.other(), message);
            (stream, replied)
        };
        let mut waiting = Waiting {
            handle: &self.handle,
            stream: Some(stream),
        };
        let reply = replied.await.unwrap_or(Err(TransportError::Reset));
        waiting.stream = None;
        let reply = reply?;
        if reply.len() > reply_bytes_max {
            return Err(TransportError::FrameTooLarge {
                bytes: reply.len(),
                bytes_max: reply_bytes_max,
            });
        }
        Ok(reply)
    }
}

impl Connection for SimConnection {
    fn remote_key(&self) -> PeerKey {
        self.remote_key
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.remote_addr)
    }

    fn binding(&self) -> Result<[u8; 32], TransportError> {
        Ok(self.binding)
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
            match self.requests.lock().await.recv().await {
                Some(Request { stream, frame }) => Ok(Incoming(IncomingOf::Sim(SimIncoming {
                    handle: Arc::clone(&self.handle),
                    stream: Some(stream),
                    frame,
                }))),
                None => Err(TransportError::Closed(self.closed().await)),
            }
        })
    }

    /// Who is on a simulated network means well: all may do the same from the start.
    fn allow(&self, _: Allowance) {}

    fn close(&self, code: u32, reason: &str) {
        let Handle { net, link, side } = &*self.handle;
        let mut state = net.lock();
        net.close_end(&mut state, *link, *side, code, reason);
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(async {
            let Handle { net, link, side } = &*self.handle;
            let on_closed = {
                let state = net.lock();
                let link = state.links.get(link);
                link.map(|link| Arc::clone(&link.end(*side).on_closed))
            };
            let Some(on_closed) = on_closed else {
                return Closed::locally(0, "the link is gone");
            };
            loop {
                let notified = on_closed.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if let Some(closed) = self.handle.why() {
                    return closed;
                }
                notified.await;
            }
        })
    }
}

/// A request that waits for its reply. Dropped before it came, it abandons the stream.
struct Waiting<'a> {
    handle: &'a Handle,
    stream: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        let Handle { net, link, side } = self.handle;
        let mut state = net.lock();
        if let Some(link) = state.links.get_mut(link) {
            link.end_mut(*side).pending.remove(&stream);
        }
        net.send(&mut state, *link, side.other(), Message::Abandon { stream });
    }
}

/// A request of the peer. `stream` is `None` once it is answered.
pub(crate) struct SimIncoming {
    handle: Arc<Handle>,
    stream: Option<u64>,
    frame: Vec<u8>,
}

impl SimIncoming {
    pub(crate) fn read(&mut self, bytes_max: usize) -> Result<Vec<u8>, TransportError> {
        if self.frame.len() > bytes_max {
            return Err(TransportError::FrameTooLarge {
                bytes: self.frame.len(),
                bytes_max,
            });
        }
        Ok(std::mem::take(&mut self.frame))
    }

    pub(crate) fn reply(mut self, frame: Vec<u8>) -> Result<(), TransportError> {
        let Some(stream) = self.stream.take() else {
            return Err(TransportError::Reset);
        };
        let Handle { net, link, side } = &*self.handle;
        let mut state = net.lock();
        if let Some(link) = state.links.get_mut(link) {
            let end = link.end_mut(*side);
            if let Some(closed) = &end.closed {
                return Err(TransportError::Closed(closed.clone()));
            }
            if end.abandoned.remove(&stream) {
                return Err(TransportError::Reset);
            }
        }
        let message = Message::Reply { stream, frame };
        net.send(&mut state, *link, side.other(), message);
        Ok(())
    }
}

impl Drop for SimIncoming {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            let Handle { net, link, side } = &*self.handle;
            let mut state = net.lock();
            if let Some(link) = state.links.get_mut(link) {
                // Nobody waits for what was abandoned.
                if link.end_mut(*side).abandoned.remove(&stream) {
                    return;
                }
            }
            net.send(&mut state, *link, side.other(), Message::Reset { stream });
        }
    }
}
