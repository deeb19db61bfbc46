//! Schedules that once broke a promise, each kept as found.

use std::sync::Arc;

use super::*;
use crate::codec::{FRAME_BYTES_MAX, VALUE_BYTES_CAP};
use crate::group::Scope;
use crate::group::raft::{LogPosition, StoredEntry, StoredPayload, StoredVote};
use crate::group::wire::{Batch, Body, Many, RaftRequest, Request, Response, Wish};
use crate::id::NodeId;

pub(super) async fn settled(net: &SimNet, count: usize) -> Vec<Network> {
    let nodes = voters(net, count).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    nodes
}

pub(super) async fn observer(net: &SimNet, nodes: &[Network]) -> Network {
    let observer = Network::join_simulated(nodes[0].ticket(), net)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    observer
}

fn at(nodes: &[Network], id: NodeId) -> usize {
    nodes.iter().position(|node| node.node_id() == id).unwrap()
}

pub(super) fn order(nodes: &[Network]) -> Vec<usize> {
    let order = nodes[0].directory().peers().order(&GROUP);
    order.into_iter().map(|id| at(nodes, id)).collect()
}

pub(super) fn set(network: &Network, slot: &[u8], value: Vec<u8>) -> Command {
    Command::Set {
        slot: slot.to_vec(),
        proposal: Proposal {
            id: network.proposal_id(&value),
            value: value.into(),
            proposed_at_ms: 0,
        },
    }
}

async fn heard(view: &View, version: Version) -> bool {
    let mut versions = view.versions();
    let heard = versions.wait_for(|known| *known >= version);
    tokio::time::timeout(Duration::from_secs(60), heard)
        .await
        .is_ok()
}

/// A short stall between the leader and a follower swallows the notice that the entry is
/// committed, and the link never drops.
#[tokio::test(start_paused = true)]
async fn a_commit_notice_lost_in_a_short_stall_is_repeated() {
    for seed in 0..24 {
        let net = SimNet::new(seed);
        let nodes = settled(&net, 3).await;
        let (leader, follower) = (order(&nodes)[0], order(&nodes)[2]);
        let interests: Vec<_> = nodes.iter().map(|node| node.open(GROUP)).collect();
        for interest in &interests {
            online(interest.view()).await;
        }
        let directory = nodes[leader].directory();
        let deadline = || Instant::now() + Duration::from_secs(5);
        let touch = Command::Touch {
            slot: vec![],
            id: nodes[leader].proposal_id(b"warm"),
        };
        let group = interests[leader].group();
        directory.propose(group, touch, deadline()).await.unwrap();
        net.set_delay(Duration::from_millis(4), Duration::from_millis(6));
        let stall = async {
            while interests[leader].view().record().is_none() {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            net.cut(addr(leader), addr(follower));
            tokio::time::sleep(Duration::from_millis(1200)).await;
            net.set_delay(Duration::from_millis(1), Duration::from_millis(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
            net.heal(addr(leader), addr(follower));
        };
        let write = directory.propose(group, set(&nodes[leader], b"", vec![7]), deadline());
        let (written, ()) = tokio::join!(write, stall);
        let version = written.unwrap().version;
        assert!(
            heard(interests[follower].view(), version).await,
            "seed {seed}: {:?}",
            interests[follower].view()
        );
    }
}

/// A voter that answers too late is no voter that hears nothing: were each group to go on asking it
/// at once, it would never come round.
#[tokio::test(start_paused = true)]
async fn a_voter_that_answers_nothing_is_asked_ever_more_seldom() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let (leader, follower) = (order(&nodes)[0], order(&nodes)[2]);
    let interests: Vec<_> = nodes.iter().map(|node| node.open(GROUP)).collect();
    for interest in &interests {
        online(interest.view()).await;
    }
    net.drop_replies(addr(follower), addr(leader));
    let (directory, group) = (nodes[leader].directory(), interests[leader].group());
    let deadline = Instant::now() + Duration::from_secs(5);
    let write = directory.propose(group, set(&nodes[leader], b"", vec![7]), deadline);
    write.await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let replica = group.awake().expect("it leads");
    assert!(replica.owes_notice(), "the link is up, and silent");
    let before = net.counts().delivered;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let messages = net.counts().delivered - before;
    assert!(messages < 170, "{messages} messages in 30 s");
}

/// The observer is linked to all, but the voter that it follows at does not see the leader.
#[tokio::test(start_paused = true)]
async fn an_observer_hears_through_a_voter_that_cannot_see_the_leader() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let (group, followed, leader) = (0..=255)
        .find_map(|n| {
            let group = GroupId::from_bytes([n; 32]);
            let lead = nodes[0].directory().peers().order(&group)[0];
            let follow = observer.directory().peers().follow_order(&group)[0];
            (lead != follow).then(|| (group, at(&nodes, follow), at(&nodes, lead)))
        })
        .unwrap();
    let interest = observer.open(group);
    online(interest.view()).await;
    net.cut(addr(followed), addr(leader));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let own = nodes[leader].open(group);
    let written = nodes[leader].directory().propose(
        own.group(),
        set(&nodes[leader], b"", vec![7]),
        Instant::now() + Duration::from_secs(5),
    );
    let version = written.await.unwrap().version;
    assert!(
        heard(interest.view(), version).await,
        "{:?}",
        interest.view()
    );
}

/// Two instances of one group over one store could vote twice in a term.
#[tokio::test(start_paused = true)]
async fn a_node_that_stops_wakes_nothing_and_leaves_nothing_awake() {
    bear_by_instance(ByInstance::All);
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    propose(&nodes[2], 1).await.unwrap();
    let directory = nodes[2].directory().clone();
    let group = directory.group(GROUP);
    let end = group.berth.changing.lock().await.end().unwrap().clone();
    // Only this part of the shutdown: what comes after it would refuse by itself.
    let stopped = directory.clone();
    let stopping = tokio::spawn(async move { stopped.stop().await });
    tokio::task::yield_now().await;
    let other = directory.group(GroupId::from_bytes([9; 32]));
    assert!(directory.wake(&other).await.is_err());
    let vote = RaftRequest::Vote {
        vote: StoredVote {
            term: 5,
            node: nodes[0].node_id(),
            committed: false,
        },
        last: Some(LogPosition::GENESIS),
        transfer: false,
        pre: false,
    };
    let vote = Request::new(other.id(), Body::Raft(vote));
    let answer = directory.answer(nodes[0].node_id(), Ok(vote)).await;
    assert!(matches!(
        Response::decode(&answer),
        Ok(Response::Refused { .. })
    ));
    stopping.await.unwrap();
    assert!(directory.wake(&other).await.is_err());
    nodes[2].shutdown().await;
    assert!(end.is_reached(), "an instance outlives the shutdown");
}

#[tokio::test(start_paused = true)]
async fn a_proposal_for_a_foreign_slot_is_refused_and_harms_no_cell() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let body = Body::Propose {
        command: set(&observer, b"x", vec![66]),
        hops_left: 1,
        within_ms: 5_000,
    };
    let frame = Request::new(GROUP, body).encode();
    let peers = observer.directory().peers();
    let answer = peers.call(nodes[0].node_id(), frame).await.unwrap();
    assert!(matches!(
        Response::decode(&answer),
        Ok(Response::Refused { .. })
    ));
    assert_eq!(value(&propose(&nodes[1], 1).await.unwrap()), 1);
    assert_eq!(value(&propose(&nodes[2], 2).await.unwrap()), 1);
}

/// It would be appended by the leader, could be sent to nobody, and would make the leader's log
/// the longest.
#[tokio::test(start_paused = true)]
async fn a_value_that_fits_a_proposal_but_no_append_is_refused() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    for bytes in [VALUE_BYTES_CAP + 1, FRAME_BYTES_MAX - 1024] {
        let body = Body::Propose {
            command: set(&observer, b"", vec![0; bytes]),
            hops_left: 1,
            within_ms: 3_000,
        };
        let frame = Request::new(GROUP, body).encode();
        assert!(frame.len() <= FRAME_BYTES_MAX && Request::decode(&frame).is_ok());
        let peers = observer.directory().peers();
        let answer = peers.call(nodes[0].node_id(), frame).await.unwrap();
        assert!(matches!(
            Response::decode(&answer),
            Ok(Response::Refused { .. })
        ));
    }
    let third = order(&nodes)[2];
    net.isolate(addr(third));
    tokio::time::sleep(Duration::from_secs(3)).await;
    for node in nodes.iter().enumerate().filter(|(n, _)| *n != third) {
        assert_eq!(value(&propose(node.1, 1).await.unwrap()), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_value_that_a_cell_may_hold_is_decided() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let interest = nodes[1].open(GROUP);
    let written = nodes[1].directory().propose(
        interest.group(),
        set(&nodes[1], b"", vec![0; VALUE_BYTES_CAP]),
        Instant::now() + Duration::from_secs(30),
    );
    let version = written.await.unwrap().version;
    for node in &nodes {
        let interest = node.open(GROUP);
        assert!(heard(interest.view(), version).await);
    }
}

/// The first entry of a log, which `leader` has not committed.
pub(super) fn tail_of(leader: &Network, payload: StoredPayload) -> RaftRequest {
    RaftRequest::Append {
        vote: StoredVote {
            term: 5,
            node: leader.node_id(),
            committed: true,
        },
        prev: Some(LogPosition::GENESIS),
        entries: vec![StoredEntry {
            at: LogPosition { term: 5, index: 1 },
            payload,
        }],
        committed: Some(LogPosition::GENESIS),
    }
}

/// A leader left an entry and is gone or silent: settling it must not spin.
#[tokio::test(start_paused = true)]
async fn a_tail_that_a_leader_left_is_settled() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let directory = nodes[2].directory().clone();
    let group = directory.group(GROUP);
    let replica = directory.wake(&group).await.unwrap();
    let tail = tail_of(&nodes[0], StoredPayload::Blank);
    replica.answer(tail).await.unwrap();
    assert!(replica.has_tail());
    net.isolate(addr(0));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!replica.has_tail());
}

/// The end of the first subscription may arrive after the beginning of the second.
#[tokio::test(start_paused = true)]
async fn a_handle_that_is_opened_again_is_told() {
    for seed in 0..20 {
        let net = SimNet::new(seed);
        let nodes = settled(&net, 3).await;
        let observer = observer(&net, &nodes).await;
        net.set_delay(Duration::from_micros(100), Duration::from_millis(2));
        let first = observer.open(GROUP);
        online(first.view()).await;
        drop(first);
        let again = observer.open(GROUP);
        online(again.view()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let written = propose(&nodes[0], 7).await.unwrap();
        assert!(heard(again.view(), written.version).await, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_to_nothing_leave_no_group_behind() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    net.cut(addr(0), addr(1));
    net.cut(addr(0), addr(2));
    tokio::time::sleep(Duration::from_secs(5)).await;
    for n in 0..100 {
        let wish = Wish {
            group: GroupId::from_bytes([n; 32]),
            number: 1,
            scope: Scope::All,
        };
        let wishes = vec![wish; 1 + usize::from(n) % 3];
        let frame = Request::of_many(Many::Subscribe(Batch::new(wishes))).encode();
        let peers = observer.directory().peers();
        let _ = peers.call(nodes[0].node_id(), frame).await.unwrap();
    }
    assert_eq!(nodes[0].directory().groups().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn handles_are_opened_and_dropped_on_any_thread() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let interest = observer.open(GROUP);
    online(interest.view()).await;
    std::thread::spawn(move || drop(interest)).join().unwrap();
    let other = Arc::new(observer.clone());
    std::thread::spawn(move || drop(other.open(GROUP)))
        .join()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn groups_elect_and_write_over_slow_links() {
    for one_way_ms in [60, 90, 110, 130, 150] {
        let net = SimNet::new(3);
        let nodes = settled(&net, 3).await;
        let delay = Duration::from_millis(one_way_ms);
        net.set_delay(delay, delay);
        for n in 0..5 {
            let interest = nodes[0].open(GroupId::from_bytes([100 + n; 32]));
            let written = nodes[0].directory().propose(
                interest.group(),
                set(&nodes[0], b"", vec![1]),
                Instant::now() + Duration::from_secs(5),
            );
            assert!(written.await.is_ok(), "{one_way_ms} ms one way");
        }
    }
}

/// Else every voter would find another value behind the id than was proposed, and would take the
/// group for damaged when it reads it from its disk.
#[tokio::test(start_paused = true)]
async fn a_value_that_its_id_was_not_made_for_is_refused() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let mut command = set(&observer, b"", vec![1]);
    if let Command::Set { proposal, .. } = &mut command {
        proposal.value = vec![2].into();
    }
    let body = Body::Propose {
        command,
        hops_left: 1,
        within_ms: 3_000,
    };
    let frame = Request::new(GROUP, body).encode();
    let peers = observer.directory().peers();
    let answer = peers.call(nodes[0].node_id(), frame).await.unwrap();
    assert!(matches!(
        Response::decode(&answer),
        Ok(Response::Refused { .. })
    ));
    assert_eq!(value(&propose(&nodes[1], 7).await.unwrap()), 7);
}

/// Voters that cannot see the leader ask each other for it. How often a request is handed on is
/// their own business: with as many hops as one frame can ask for, they would ask until its
/// deadline.
#[tokio::test(start_paused = true)]
async fn a_request_that_asks_for_many_hops_gets_few() {
    bear_by_instance(ByInstance::All);
    let net = SimNet::new(1);
    let nodes = settled(&net, 5).await;
    let observer = observer(&net, &nodes).await;
    propose(&nodes[0], 1).await.unwrap();
    let leader = (0..5).find(|n| nodes[*n].status().cells[0].leader == Some(nodes[*n].node_id()));
    let leader = leader.expect("one of the voters leads");
    for other in (0..5).filter(|other| *other != leader) {
        net.cut(addr(leader), addr(other));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked = (leader + 1) % 5;
    let body = Body::Settle {
        hops_left: u8::MAX,
        within_ms: 900,
    };
    net.set_delay(Duration::from_millis(1), Duration::from_millis(1));
    let before = net.counts().delivered;
    let frame = Request::new(GROUP, body).encode();
    let peers = observer.directory().peers();
    let call = peers.call(nodes[asked].node_id(), frame);
    let _ = tokio::time::timeout(Duration::from_secs(2), call).await;
    let messages = net.counts().delivered - before;
    assert!(messages < 200, "{messages} messages for one request");
}
