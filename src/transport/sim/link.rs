//! The state of one simulated connection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};

use super::super::{Closed, TransportError};

/// One of the two ends of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialer = 0,
    Acceptor = 1,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Side::Dialer => Side::Acceptor,
            Side::Acceptor => Side::Dialer,
        }
    }
}

/// What travels over a link. Streams are numbered by their requester.
#[derive(Debug)]
pub(super) enum Message {
    Request {
        stream: u64,
        frame: Vec<u8>,
    },
    Reply {
        stream: u64,
        frame: Vec<u8>,
    },
    /// The requester does not wait any more.
    Abandon {
        stream: u64,
    },
    /// The responder will not answer.
    Reset {
        stream: u64,
    },
    Close {
        code: u32,
        reason: String,
    },
}

impl Message {
    /// How much there is to send.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Message::Request { frame, .. } | Message::Reply { frame, .. } => frame.len(),
            Message::Abandon { .. } | Message::Reset { .. } | Message::Close { .. } => 0,
        }
    }

    /// A part of a request that can be lost while its link lives on. That a connection ends is
    /// always learned, if only from its silence.
    pub(super) fn may_be_lost(&self) -> bool {
        !matches!(self, Message::Close { .. })
    }

    /// The same request once more.
    pub(super) fn twin(&self) -> Option<Self> {
        match self {
            Message::Request { stream, frame } => Some(Message::Request {
                stream: *stream,
                frame: frame.clone(),
            }),
            _ => None,
        }
    }

    /// What it carries, for the history of a simulation.
    pub(super) fn content(&self) -> Vec<u8> {
        match self {
            Message::Request { stream, frame } | Message::Reply { stream, frame } => {
                [&stream.to_le_bytes(), &frame[..]].concat()
            }
            Message::Abandon { stream } | Message::Reset { stream } => stream.to_le_bytes().into(),
            Message::Close { code, .. } => code.to_le_bytes().into(),
        }
    }

    /// Whether it answers a request, well or badly.
    pub(super) fn is_reply(&self) -> bool {
        matches!(self, Message::Reply { .. } | Message::Reset { .. })
    }
}

/// A request that has arrived.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) stream: u64,
    pub(super) frame: Vec<u8>,
}

/// What becomes of a request.
type Replied = Result<Vec<u8>, TransportError>;

/// One end of a link. Once `closed` is set it never changes, `inbox` is `None` and `pending` is
/// empty for good.
pub(super) struct End {
    pub(super) addr: SocketAddr,
    /// The node that holds this end; another one may have bound its address since.
    pub(super) node: u64,
    pub(super) closed: Option<Closed>,
    pub(super) on_closed: Arc<Notify>,
    /// Requests that have arrived here.
    inbox: Option<mpsc::UnboundedSender<Request>>,
    /// Requests sent from here that wait for their reply.
    pub(super) pending: BTreeMap<u64, oneshot::Sender<Replied>>,
    /// Streams of the peer that it abandoned, if this side still may answer them.
    pub(super) abandoned: BTreeSet<u64>,
    /// The number of the newest stream that was opened here.
    stream_last: u64,
    /// How many messages were sent to this end, and which was the newest of those that arrived.
    pub(super) sent: u64,
    pub(super) newest: u64,
    /// Messages on the way to this end that wait for the link to heal, oldest first.
    pub(super) held: Vec<Message>,
    /// No handle of it is left.
    pub(super) dropped: bool,
}

impl End {
    pub(super) fn new(addr: SocketAddr, node: u64) -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (inbox, requests) = mpsc::unbounded_channel();
        let end = Self {
            addr,
            node,
            closed: None,
            on_closed: Arc::default(),
            inbox: Some(inbox),
            pending: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            stream_last: 0,
            sent: 0,
            newest: 0,
            held: Vec::new(),
            dropped: false,
        };
        (end, requests)
    }

    /// Opens a stream from this end.
    pub(super) fn open(&mut self) -> Result<(u64, oneshot::Receiver<Replied>), TransportError> {
        if let Some(closed) = &self.closed {
            return Err(TransportError::Closed(closed.clone()));
        }
        self.stream_last += 1;
        let (reply, replied) = oneshot::channel();
        self.pending.insert(self.stream_last, reply);
        Ok((self.stream_last, replied))
    }

    /// Closes this end, if it is still open.
    pub(super) fn close(&mut self, closed: &Closed) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(closed.clone());
        self.inbox = None;
        for (_, reply) in std::mem::take(&mut self.pending) {
            // An error says that the requester has gone.
            let _ = reply.send(Err(TransportError::Closed(closed.clone())));
        }
        self.on_closed.notify_waiters();
    }

    /// Takes a message that has arrived at this end.
    pub(super) fn receive(&mut self, message: Message) {
        match message {
            Message::Request { stream, frame } => {
                // One that was overtaken by its own end never happened.
                if !self.abandoned.remove(&stream)
                    && let Some(inbox) = &self.inbox
                {
                    let _ = inbox.send(Request { stream, frame });
                }
            }
            Message::Abandon { stream } => {
                self.abandoned.insert(stream);
            }
            Message::Reply { stream, frame } => self.settle(stream, Ok(frame)),
            Message::Reset { stream } => self.settle(stream, Err(TransportError::Reset)),
            Message::Close { code, reason } => self.close(&Closed {
                code: Some(code),
                reason,
                by_peer: true,
            }),
        }
    }

    fn settle(&mut self, stream: u64, result: Replied) {
        if let Some(reply) = self.pending.remove(&stream) {
            let _ = reply.send(result);
        }
    }
}

/// A simulated connection. Forgotten once both ends are dropped.
pub(super) struct Link {
    /// Indexed by [`Side`].
    ends: [End; 2],
    /// A process at one end died: nothing passes any more.
    pub(super) dead: bool,
    /// Whether some direction is cut, so that the idle timeout runs.
    pub(super) silent: bool,
    /// Counts the changes of `silent`: an idle timeout of an earlier silence does nothing.
    pub(super) silences: u64,
}

impl Link {
    pub(super) fn new(dialer: End, acceptor: End) -> Self {
        Self {
            ends: [dialer, acceptor],
            dead: false,
            silent: false,
            silences: 0,
        }
    }

    pub(super) fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    pub(super) fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }
}
