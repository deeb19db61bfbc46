//! What an admitted observer may ask, and what it may not.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::group::wire::{EPOCH, GROUPS_A_FRAME, HOPS_MAX, RaftRequest, State, Subscribed};
use crate::group::{
    CallError, PROPOSED_BYTES_MAX, Peers, StoredElectorate, StoredSnapshotMeta, StoredVote,
};
use crate::id::Version;
use crate::machine::Record;
use crate::transport::{IrohTransport, LinkConfig, Transport};
use std::sync::Arc;

/// Term, version, whether it is decided, and how long its log is: what an attack must not change.
fn standing(victim: &Victim, id: GroupId) -> (u64, Version, bool, u64) {
    let directory = victim.network.directory();
    let status = directory.status();
    let group = status.iter().find(|status| status.group == id).unwrap();
    let length = directory.log_length(id);
    (group.term, group.version, group.decided, length)
}

fn raft_requests() -> Vec<RaftRequest> {
    let vote = StoredVote {
        term: 1_000,
        node: NodeId::from_u64(9),
        committed: true,
    };
    let last = None;
    let vote_request = |pre, transfer| RaftRequest::Vote {
        vote: StoredVote {
            committed: false,
            ..vote
        },
        last,
        transfer,
        pre,
    };
    vec![
        RaftRequest::Append {
            vote,
            prev: None,
            entries: vec![],
            committed: None,
        },
        vote_request(false, false),
        vote_request(true, false),
        vote_request(false, true),
        RaftRequest::Snapshot {
            vote,
            meta: StoredSnapshotMeta {
                at: None,
                electorate: StoredElectorate {
                    at: None,
                    voters: [NodeId::of_voter("a")].into(),
                },
            },
            data: Arc::from([0; 9].as_slice()),
        },
        RaftRequest::Transfer {
            from: vote,
            to: NodeId::of_voter("a"),
            last: None,
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_voters_may_send_raft_messages_and_what_follows_from_them() {
    let victim = Victim::alone().await;
    let raw = victim.observer([7; 32]).await;
    let _held = victim.network.directory().open(group(1));
    let decided = ask(&raw, group(1), propose(1, 8)).await;
    assert!(
        matches!(decided, Ok(Response::Committed { .. })),
        "{decided:?}"
    );
    let before = standing(&victim, group(1));
    let record = Arc::new(Record {
        proposal: match command(2, 8) {
            Command::Set { proposal, .. } => proposal,
            other => unreachable!("{other} does not set"),
        },
        version: Version::new(1),
    });
    let update = State {
        version: Version::new(99),
        record: Some(record),
    };
    let raft = raft_requests().into_iter().map(Body::Raft);
    let vote = StoredVote {
        term: 1,
        node: NodeId::of_voter("a"),
        committed: true,
    };
    let others = [Body::Status, Body::Durable, Body::Decided { vote }];
    for many in [
        Many::Status(Batch::new(vec![group(1), group(2)])),
        Many::Update(Batch::new(vec![(group(1), update)])),
        Many::Orphaned,
    ] {
        let reason = refused(&raw, &Request::of_many(many.clone()).encode()).await;
        assert_eq!(reason, "only voters may send this", "{many:?}");
    }
    for body in raft.chain(others) {
        for id in [group(1), group(2)] {
            let request = Request::new(id, body.clone());
            let reason = refused(&raw, &request.encode()).await;
            assert_eq!(reason, "only voters may send this", "{body:?}");
        }
    }
    assert_eq!(standing(&victim, group(1)), before);
    assert_eq!(victim.network.directory().known_groups(), (1, 0));
    drop(raw);
    victim.survived().await;
}

/// The first byte in which two encodings differ: the number of a variant.
fn variant(one: &[u8], other: &[u8]) -> usize {
    (0..one.len()).find(|at| one[*at] != other[*at]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_version_does_not_know_is_refused_and_never_applied() {
    let victim = Victim::alone().await;
    let raw = victim.observer([7; 32]).await;
    let good = Request::new(group(1), propose(1, 8)).encode();
    let touch = Command::Touch {
        slot: vec![],
        id: command(1, 8).id().unwrap(),
    };
    let touch = Body::Propose {
        command: touch,
        hops_left: 1,
        within_ms: 10_000,
    };
    let command_at = variant(&good, &Request::new(group(1), touch).encode());
    let body_at = variant(&good, &Request::new(group(1), Body::Status).encode());
    for (at, value, word) in [
        (0, 2, "format version 2"),
        (body_at, 200, "malformed"),
        (command_at, 3, "malformed"),
        (command_at, 200, "malformed"),
    ] {
        let mut bytes = good.clone();
        bytes[at] = value;
        let reason = refused(&raw, &bytes).await;
        assert!(reason.contains(word), "{reason}");
    }
    let epoch = Request {
        epoch: EPOCH + 1,
        ..Request::new(group(1), propose(1, 8))
    };
    let reason = refused(&raw, &epoch.encode()).await;
    assert_eq!(reason, "epoch 1 is not known here");
    let mut behind = good.clone();
    behind.push(0);
    let reason = refused(&raw, &behind).await;
    assert!(reason.contains("1 trailing bytes"), "{reason}");
    let reason = refused(&raw, &[]).await;
    assert!(reason.contains("empty"), "{reason}");
    // What no honest node proposes.
    let slot = Command::Touch {
        slot: vec![1],
        id: command(1, 8).id().unwrap(),
    };
    let slot = Body::Propose {
        command: slot,
        hops_left: 1,
        within_ms: 10_000,
    };
    let reason = refused(&raw, &Request::new(group(1), slot).encode()).await;
    assert_eq!(reason, "a cell has one slot");
    let large = propose(1, crate::codec::VALUE_BYTES_CAP + 1);
    let reason = refused(&raw, &Request::new(group(1), large).encode()).await;
    assert!(reason.contains("larger than any cell"), "{reason}");
    let command = command(1, 8);
    let (hops_left, within_ms) = (HOPS_MAX + 1, 10_000);
    for endless in [
        Body::Settle {
            hops_left,
            within_ms,
        },
        Body::Propose {
            command,
            hops_left,
            within_ms,
        },
    ] {
        let reason = refused(&raw, &Request::new(group(1), endless).encode()).await;
        assert_eq!(reason, "no request is handed on more than 2 times");
    }
    // None of it reached a group, and the link is as good as before.
    assert_eq!(victim.network.directory().known_groups(), (0, 0));
    let decided = ask_bytes(&raw, &good).await;
    assert!(
        matches!(decided, Ok(Response::Committed { .. })),
        "{decided:?}"
    );
    drop(raw);
    victim.survived().await;
}

/// Flips, cuts and insertions in what an observer may send; a failure comes again by its seed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_requests_are_answered_or_refused() {
    let victim = Victim::alone().await;
    let raw = victim.observer([7; 32]).await;
    let mut rng = StdRng::seed_from_u64(5);
    let samples = [
        Body::Barrier { within_ms: 100 },
        Body::Settle {
            hops_left: 1,
            within_ms: 100,
        },
        propose(1, 8),
    ];
    let three = |round: usize| (round..round + 3).map(|n| group(n as u64 % 8));
    for round in 0..200 {
        let id = group(round as u64 % 8);
        let request = match round % 6 {
            3 => Request::of_many(Many::Subscribe(wishes(three(round)))),
            5 => Request::of_many(Many::Rescope(wishes(three(round)))),
            4 => {
                let ends = three(round).map(|group| (group, 1)).collect();
                Request::of_many(Many::Unsubscribe(Batch::new(ends)))
            }
            sample => Request::new(id, samples[sample].clone()),
        };
        let mut bytes = request.encode();
        for _ in 0..rng.random_range(1..3) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, rng.random()),
            }
        }
        let answer = ask_bytes(&raw, &bytes).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert!(!raw.is_closed());
    raw.close();
    drop(raw);
    victim.survived().await;
}

/// A frame may be about so many groups, and says how many before any of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_about_too_many_groups_is_refused_and_leaves_nothing_behind() {
    let victim = Victim::alone().await;
    let raw = victim.observer([7; 32]).await;
    let frame = |groups: usize| {
        let groups = (0..groups as u64).map(group);
        Request::of_many(Many::Subscribe(wishes(groups))).encode()
    };
    let full = frame(GROUPS_A_FRAME);
    let Ok(Response::Subscribed(answers)) = ask_bytes(&raw, &full).await else {
        panic!("not answered");
    };
    let stands = Subscribed::State(State::default());
    assert!(answers.iter().all(|answer| *answer == stands));
    let followed = victim.network.directory().known_groups();
    assert_eq!(followed, (GROUPS_A_FRAME, GROUPS_A_FRAME));
    // The number of groups is written behind one byte more than fits into one, and is one more now.
    let count_at = variant(&frame(2), &frame(3));
    assert_eq!(full[count_at..count_at + 3], [251, 0, 1]);
    let mut many = full.clone();
    many[count_at + 1] = 1;
    many.extend_from_slice(&full[full.len() - 34..]);
    let reason = refused(&raw, &many).await;
    assert!(reason.contains("longer than it may be"), "{reason}");
    for count in [252, 253] {
        let mut huge = full[..count_at].to_vec();
        huge.extend([count, 255, 255, 255, 255, 255, 255, 255, 255]);
        let reason = refused(&raw, &huge).await;
        assert!(reason.contains("longer than it may be"), "{reason}");
    }
    assert_eq!(victim.network.directory().known_groups(), followed);
    drop(raw);
    victim.survived().await;
}

/// Streams that are no requests, from one that may send some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_no_frames_are_reset_and_the_link_lives_on() {
    let victim = Victim::alone().await;
    let raw = victim.observer([7; 32]).await;
    let long = u32::try_from(crate::codec::FRAME_BYTES_MAX + 1).unwrap();
    for stream in [
        &[9, 0, 0, 0, 7][..],
        &long.to_le_bytes(),
        &[0xff; 9],
        &[1, 0, 0, 0, 7, 7],
        &[],
    ] {
        let answer = within("a reset", raw.exchange(stream)).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    // Longer than a frame may be, and no end of the stream: refused by its length alone.
    let mut stream = raw.send(&long.to_le_bytes()).await.unwrap();
    within("a reset", stream.refused()).await;
    assert!(!raw.is_closed());
    let answer = ask(&raw, group(1), propose(1, 8)).await;
    assert!(
        matches!(answer, Ok(Response::Committed { .. })),
        "{answer:?}"
    );
    drop((raw, stream));
    victim.survived().await;
}

/// A frame a byte at a time: it is given up, and what it was charged for is free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_takes_too_long_is_given_up() {
    let victim = Victim::alone().await;
    let raw = victim.observer([7; 32]).await;
    let budget = victim.network.node.links.budgets.observers.clone();
    let mut stream = raw.send(&[0, 0, 16, 0]).await.unwrap();
    until("it is charged", || budget.used() == 1 << 20).await;
    let mut sent = 0;
    while stream.more(&[0]).await.is_ok() {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(sent < 600, "it goes on for ever");
    }
    until("it is free again", || budget.used() == 0).await;
    let answer = ask(&raw, group(1), propose(1, 8)).await;
    assert!(
        matches!(answer, Ok(Response::Committed { .. })),
        "{answer:?}"
    );
    drop((raw, stream));
    victim.survived().await;
}

/// A leader that has lost the others: what it is asked to commit has to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_asked_for_ends_with_its_link() {
    let voters = super::floods::addresses();
    let mut nodes = Vec::new();
    for name in NAMES {
        nodes.push(Victim::start(name, &voters).await);
    }
    for node in &nodes {
        let status = || node.network.status();
        until("all may vote", || {
            status().waiting_for.is_empty() && status().voters.iter().all(|voter| voter.linked)
        })
        .await;
    }
    let others = nodes.split_off(1);
    let victim = nodes.pop().unwrap();
    let raw = victim.observer([7; 32]).await;
    let decided = ask(&raw, group(1), propose(1, 8)).await;
    let me = victim.network.node_id();
    assert!(
        matches!(&decided, Ok(Response::Committed { leader, .. }) if *leader == me),
        "{decided:?}"
    );
    for other in others {
        other.network.shutdown().await;
    }
    let links = &victim.network.node.links;
    until("the others are gone", || links.linked().len() == 1).await;
    let forever = Body::Propose {
        command: command(1, 8_000),
        hops_left: 1,
        within_ms: u64::MAX,
    };
    let frame = on_the_wire(&Request::new(group(1), forever).encode());
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = raw
            .send(&crate::transport::raw::framed(&frame))
            .await
            .unwrap();
        stream.finish();
        streams.push(stream);
    }
    let directory = victim.network.directory();
    until("ten proposals wait", || directory.proposed.used() == 80_000).await;
    raw.close();
    // Long before the minute is over that any request may take.
    let gone = tokio::time::timeout(DEADLINE / 3, async {
        while directory.proposed.used() > 0 || !links.linked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    gone.await.expect("the requests end with the link");
    victim.network.shutdown().await;
}

/// The values of others that wait for a commit have a limit; small ones are always taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_beyond_the_limit_is_sent_elsewhere() {
    let victim = Victim::alone().await;
    let raw = victim.observer([7; 32]).await;
    let directory = victim.network.directory();
    let held = directory.proposed.take(PROPOSED_BYTES_MAX - 9_999).unwrap();
    let large = ask(&raw, group(1), propose(1, 10_000)).await;
    assert_eq!(large, Ok(Response::Elsewhere { hint: None }));
    for (n, bytes) in [(2, 9_999), (3, 8)] {
        let answer = ask(&raw, group(n), propose(1, bytes)).await;
        assert!(
            matches!(answer, Ok(Response::Committed { .. })),
            "{answer:?}"
        );
    }
    assert_eq!(directory.proposed.used(), PROPOSED_BYTES_MAX - 9_999);
    drop(held);
    let large = ask(&raw, group(1), propose(1, 10_000)).await;
    assert!(matches!(large, Ok(Response::Committed { .. })), "{large:?}");
    drop(raw);
    victim.survived().await;
}

/// An observer has little to say: a long answer of it is not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_of_an_observer_is_refused() {
    let victim = Victim::alone().await;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let liar = IrohTransport::bind([7; 32], loopback, LinkConfig::default()).await;
    let liar = liar.unwrap();
    let connection = liar.dial(victim.key(), victim.addr()).await.unwrap();
    let binding = Binding {
        exported: connection.binding().unwrap(),
        dialer: liar.local_key().0,
        acceptor: victim.key().0,
    };
    let terms = victim.observer_terms();
    let hello = Hello::new(&terms, Kind::Observer, &binding, None, None).unwrap();
    connection.request(hello.to_bytes(), 4_096).await.unwrap();
    let confirm = Confirm {
        sequence: 0,
        boots: None,
    };
    connection.request(confirm.to_bytes(), 4_096).await.unwrap();
    let links = victim.network.node.links.clone();
    let peer = links.linked()[0];
    let asked = links.call(peer, vec![1]);
    let answering = async {
        let mut incoming = connection.incoming().await.unwrap();
        incoming.read(4_096).await.unwrap();
        incoming.reply(vec![0; 5_000]).await
    };
    let (answer, _) = within("an answer", async { tokio::join!(asked, answering) }).await;
    let error = answer.unwrap_err();
    let CallError::Link(text) = &error else {
        panic!("{error}");
    };
    assert!(text.contains("larger than 4104"), "{text}");
    liar.close().await;
    victim.survived().await;
}
