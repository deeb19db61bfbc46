use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures::future::FutureExt;
use openraft::EntryPayload;
use tokio::sync::{mpsc, oneshot};

use super::super::raft::{LogPosition, Vote};
use super::super::wire::{RaftResponse, Response};
use super::super::{CallError, Peers};
use super::*;
use crate::group::peer::PeerFactory;
use crate::group::raft::{Entry, StoredVote};
use crate::group::slots::Ledger;
use crate::id::{GroupId, NodeId, Version};
use crate::store::Store;
use openraft::network::RaftNetworkFactory;

/// Answers each call when the test says so.
struct Slow {
    voters: BTreeSet<NodeId>,
    calls: Mutex<Vec<oneshot::Sender<Vec<u8>>>>,
}

impl Peers for Slow {
    fn me(&self) -> NodeId {
        NodeId::of_voter("a")
    }
    fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }
    fn order(&self, _: &GroupId) -> Vec<NodeId> {
        self.voters.iter().copied().collect()
    }
    fn follow_order(&self, group: &GroupId) -> Vec<NodeId> {
        self.order(group)
    }
    fn is_linked(&self, _: NodeId) -> bool {
        true
    }
    fn hearing(&self, _: NodeId) -> Option<Arc<crate::group::Hearing>> {
        None
    }
    fn call(&self, _: NodeId, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, CallError>> {
        let (answer, answered) = oneshot::channel();
        self.calls.lock().unwrap().push(answer);
        Box::pin(async move { answered.await.map_err(|_| CallError::Link("cut".into())) })
    }
    fn spawn(&self, _: BoxFuture<'static, ()>) {}
    fn jitter_ms(&self, _: u64) -> u64 {
        0
    }
    fn may_vote(&self) -> bool {
        true
    }
}

impl Slow {
    fn answer(&self, call: usize) {
        let answer = self.calls.lock().unwrap().remove(call);
        let appended = Response::Raft(RaftResponse::Appended);
        answer.send(appended.encode()).unwrap();
    }

    fn open(&self) -> usize {
        self.calls.lock().unwrap().len()
    }
}

fn at(index: u64) -> LogPosition {
    LogPosition { term: 1, index }
}

/// A message behind `prev` that carries the entries up to `last`.
fn message(prev: u64, last: u64) -> AppendEntriesRequest<Types> {
    let vote = StoredVote {
        term: 1,
        node: NodeId::of_voter("a"),
        committed: true,
    };
    let entry = |index| Entry {
        log_id: at(index).into(),
        payload: EntryPayload::Blank,
    };
    AppendEntriesRequest {
        vote: Vote::from(vote),
        prev_log_id: Some(at(prev).into()),
        entries: (prev + 1..=last).map(entry).collect(),
        leader_commit: Some(at(prev).into()),
    }
}

async fn peer() -> (Arc<Slow>, Peer) {
    let slow = Arc::new(Slow {
        voters: ["a", "b", "c"].map(NodeId::of_voter).into(),
        calls: Mutex::default(),
    });
    let mut factory = PeerFactory {
        peers: slow.clone(),
        group: GroupId::from_bytes([1; 32]),
        ballot: Arc::default(),
        notices: Arc::default(),
        pulse: Arc::default(),
        ledger: Ledger::new(
            Store::in_memory(),
            GroupId::from_bytes([1; 32]),
            Version::ZERO,
            0,
        ),
    };
    let b = NodeId::of_voter("b").as_u64();
    (slow, factory.new_client(b, &()).await)
}

fn input() -> (
    mpsc::UnboundedSender<AppendEntriesRequest<Types>>,
    impl Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let requests = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    (sender, requests)
}

const WITHIN: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn entries_overtake_a_notice_and_nothing_overtakes_entries() {
    let (slow, peer) = peer().await;
    let (requests, input) = input();
    let mut answers = pipelined(&peer, input, WITHIN);
    requests.send(message(5, 5)).unwrap();
    requests.send(message(5, 6)).unwrap();
    requests.send(message(6, 6)).unwrap();
    assert!(answers.next().now_or_never().is_none());
    assert_eq!(slow.open(), 2, "the notice and the entries");
    slow.answer(1);
    assert!(answers.next().now_or_never().is_none(), "not in order");
    slow.answer(0);
    let upto = |answer: Option<Answer>| answer.unwrap().unwrap().unwrap().map(|id| id.index());
    assert_eq!(upto(answers.next().await), Some(5));
    assert_eq!(upto(answers.next().await), Some(6));
    assert!(answers.next().now_or_never().is_none());
    assert_eq!(slow.open(), 1, "the second notice");
}

/// openraft takes the first answer for that of all messages that end at the same place, with the
/// time at which the last of them was sent.
#[tokio::test(start_paused = true)]
async fn a_notice_that_is_not_answered_confirms_no_leader() {
    let (slow, peer) = peer().await;
    let (requests, input) = input();
    let mut answers = pipelined(&peer, input, WITHIN);
    requests.send(message(5, 5)).unwrap();
    requests.send(message(5, 5)).unwrap();
    assert!(answers.next().now_or_never().is_none());
    assert_eq!(slow.open(), 2);
    slow.answer(0);
    assert!(answers.next().now_or_never().is_none(), "one is unanswered");
    slow.answer(0);
    assert!(answers.next().await.unwrap().is_ok());
    assert!(answers.next().now_or_never().is_none());
}
