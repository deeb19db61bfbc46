//! How one replica of a group talks Raft to another: openraft's network, over the node's links.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::id::{GroupId, NodeId};
use crate::probe;

use super::notices::Notices;
use super::pipeline::pipelined;
use super::pulse::Pulse;
use super::raft::{LogPosition, Snapshot, StoredEntry, Types, Vote};
use super::route::LINK_BYTES_PER_MS;
use super::slots::Ledger;
use super::state::read_map_snapshot;
use super::wire::{Body, RaftRequest, RaftResponse, Request, Response};
use super::{CallError, Peers};

/// The pause before an append that failed is sent again, with a link to the voter (doubling from the
/// first to the second: it may be late because it has too much to answer) and without one.
const RETRY_MS: (u64, u64) = (100, 1_600);
const RETRY_UNLINKED_MS: u64 = 3_600_000;

/// How often a snapshot that was not sent looks for the link, in milliseconds.
const LINK_POLL_MS: u64 = 500;

/// What openraft learns of one message of a stream.
type Appended = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// What this replica's elections ran into: a voter with a longer log, which should lead instead.
#[derive(Debug, Default)]
pub(crate) struct Ballot {
    longer: Mutex<Option<NodeId>>,
    /// Told when a voter refused.
    refused: Notify,
}

impl Ballot {
    pub(crate) fn clear(&self) {
        *self.longer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn longer(&self) -> Option<NodeId> {
        *self.longer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn refused(&self) {
        self.refused.notified().await;
    }

    fn refused_by(&self, voter: NodeId, is_longer: bool) {
        if is_longer {
            *self.longer.lock().unwrap_or_else(PoisonError::into_inner) = Some(voter);
        }
        self.refused.notify_waiters();
    }
}

/// Makes clients; never connects itself, the node's links do.
pub(crate) struct PeerFactory {
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) group: GroupId,
    pub(crate) ballot: Arc<Ballot>,
    pub(crate) notices: Arc<Notices>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) ledger: Ledger,
}

impl RaftNetworkFactory<Types> for PeerFactory {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &()) -> Peer {
        Peer {
            peers: self.peers.clone(),
            group: self.group,
            target: NodeId::from_u64(target),
            ballot: self.ballot.clone(),
            notices: self.notices.clone(),
            pulse: self.pulse.clone(),
            ledger: self.ledger.clone(),
        }
    }
}

/// One other replica of the group.
pub(crate) struct Peer {
    peers: Arc<dyn Peers>,
    group: GroupId,
    target: NodeId,
    ballot: Arc<Ballot>,
    notices: Arc<Notices>,
    pulse: Arc<Pulse>,
    ledger: Ledger,
}

impl Peer {
    pub(super) fn group(&self) -> GroupId {
        self.group
    }

    /// Asks, for as long as the caller waits.
    pub(super) fn call_raw(
        &self,
        frame: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, CallError>> {
        self.peers.call(self.target, frame)
    }

    /// Sends one message of a leader, if it is heard.
    async fn lead(
        &self,
        action: RPCTypes,
        body: RaftRequest,
        within: Duration,
    ) -> Result<RaftResponse, RPCError<Types>> {
        if !self.pulse.may_send(self.peers.voters()) {
            return Err(Unreachable::from_string("no majority answers this leader").into());
        }
        let sent = Instant::now();
        let answer = self.call(action, body, within).await;
        match &answer {
            Ok(_) => self.pulse.heard(self.target),
            Err(_) => self.pulse.missed(self.target, sent),
        }
        answer
    }

    /// Sends one message and fails by `within` at the latest: openraft may wait for ever for a
    /// call that does not end, and that follower would stall even after the link has healed.
    async fn call(
        &self,
        action: RPCTypes,
        body: RaftRequest,
        within: Duration,
    ) -> Result<RaftResponse, RPCError<Types>> {
        let frame = Request::new(self.group, Body::Raft(body)).encode();
        let extra = Duration::from_millis(frame.len() as u64 / LINK_BYTES_PER_MS);
        let within = within + extra;
        let call = self.peers.call(self.target, frame);
        let reply = match tokio::time::timeout(within, call).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(Unreachable::new(&error).into()),
            Err(_) => {
                return Err(Timeout {
                    action,
                    id: self.peers.me().as_u64(),
                    target: self.target.as_u64(),
                    timeout: within,
                }
                .into());
            }
        };
        match Response::decode(&reply) {
            Ok(Response::Raft(response)) => Ok(response),
            Ok(other) => Err(Unreachable::from_string(format!("{other:?}")).into()),
            Err(error) => Err(Unreachable::new(&error).into()),
        }
    }

    pub(super) async fn append(
        &self,
        rpc: AppendEntriesRequest<Types>,
        within: Duration,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        probe::led(self.peers.me(), self.group, rpc.vote.leader_id.term);
        let committed = rpc.leader_commit.as_ref().map(LogPosition::from);
        let body = RaftRequest::Append {
            vote: (&rpc.vote).into(),
            prev: rpc.prev_log_id.as_ref().map(Into::into),
            entries: rpc.entries.iter().map(StoredEntry::from).collect(),
            committed,
        };
        let unheard = Unheard {
            peer: self,
            committed,
        };
        let answer = self.lead(RPCTypes::AppendEntries, body, within).await?;
        std::mem::forget(unheard);
        match answer {
            RaftResponse::Appended => {
                self.notices.heard(self.target, committed);
                Ok(AppendEntriesResponse::Success)
            }
            RaftResponse::AppendedUpTo(at) => {
                Ok(AppendEntriesResponse::PartialSuccess(at.map(Into::into)))
            }
            RaftResponse::Conflict => Ok(AppendEntriesResponse::Conflict),
            RaftResponse::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            other => Err(unexpected(&other)),
        }
    }

    async fn ballot(
        &self,
        request: VoteRequest<Types>,
        pre: bool,
        within: Duration,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let ours = request.last_log_id.as_ref().map(LogPosition::from);
        if !pre {
            // Whoever asks for a vote has given its own.
            let me = self.peers.me();
            probe::granted(me, self.group, request.vote.leader_id.term, me);
        }
        let body = RaftRequest::Vote {
            vote: (&request.vote).into(),
            last: ours,
            transfer: request.leadership_transfer,
            pre,
        };
        match self.call(RPCTypes::Vote, body, within).await? {
            RaftResponse::Vote {
                vote,
                granted,
                last,
            } => {
                if !granted {
                    self.ballot.refused_by(self.target, last > ours);
                }
                Ok(VoteResponse::new(
                    Vote::from(vote),
                    last.map(Into::into),
                    granted,
                ))
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// A message of which nobody knows whether it was heard. Dropped, also by whoever gives the call up,
/// it notes so.
struct Unheard<'a> {
    peer: &'a Peer,
    committed: Option<LogPosition>,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        self.peer.notices.lost(self.peer.target, self.committed);
    }
}

fn unexpected(response: &RaftResponse) -> RPCError<Types> {
    Unreachable::from_string(format!("the peer answered another question: {response:?}")).into()
}

impl Peer {
    /// Sends a snapshot, and before it whatever the voter lacks of it.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        within: Duration,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        if self.group.is_map() {
            let version = read_map_snapshot(&snapshot.snapshot).map(|(version, _)| version);
            let version = version.map_err(|error| Unreachable::new(&error))?;
            let filled = self.fill(&self.ledger, version, within).await;
            filled.map_err(Unreachable::from_string)?;
        }
        let body = RaftRequest::Snapshot {
            vote: (&vote).into(),
            meta: (&snapshot.meta).into(),
            data: snapshot.snapshot,
        };
        match self.lead(RPCTypes::InstallSnapshot, body, within).await {
            Ok(RaftResponse::Snapshot { vote }) => Ok(SnapshotResponse::new(vote.into())),
            Ok(other) => Err(Unreachable::from_string(format!("{other:?}")).into()),
            // It would be sent again at once, for ever.
            Err(RPCError::Timeout(error)) => Err(Unreachable::new(&error).into()),
            Err(RPCError::Unreachable(error)) => Err(error.into()),
            Err(RPCError::Network(error)) => Err(error.into()),
            Err(RPCError::RemoteError(error)) => Err(Unreachable::new(&error).into()),
        }
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Arc<[u8]>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.append(rpc, option.soft_ttl()).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let answers = pipelined(self, input, option.soft_ttl());
        Box::pin(async { Ok(answers) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(rpc, false, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(rpc, true, option.soft_ttl()).await
    }

    /// While there is no link there is nothing to try: the replica is told when it is back.
    fn backoff(&self) -> Option<Backoff> {
        let (peers, target) = (self.peers.clone(), self.target);
        let mut next_ms = RETRY_MS.0;
        let pauses = std::iter::repeat_with(move || {
            let mut pause_ms = RETRY_UNLINKED_MS;
            if peers.is_linked(target) {
                pause_ms = next_ms;
                next_ms = (2 * next_ms).min(RETRY_MS.1);
            }
            Duration::from_millis(pause_ms)
        });
        Some(Backoff::new(pauses))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = async {
            let sent = self.send_snapshot(vote, snapshot, option.soft_ttl()).await;
            if sent.is_err() {
                // The pause that follows ends with nothing but time, and is long without a link.
                while !self.peers.is_linked(self.target) {
                    tokio::time::sleep(Duration::from_millis(LINK_POLL_MS)).await;
                }
            }
            sent
        };
        tokio::select! {
            sent = sent => sent,
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let from: Vote = *request.from_leader();
        let last = request.last_log_id().map(LogPosition::from);
        let body = RaftRequest::Transfer {
            from: (&from).into(),
            to: NodeId::from_u64(*request.to_node_id()),
            last,
        };
        match self
            .call(RPCTypes::TransferLeader, body, option.soft_ttl())
            .await?
        {
            RaftResponse::Transferred => Ok(Ok(())),
            RaftResponse::NotTransferred => Ok(Err(TransferLeaderError::LogNotFlushed {
                expected: last.map(Into::into),
                actual: None,
            })),
            other => Err(unexpected(&other)),
        }
    }
}
