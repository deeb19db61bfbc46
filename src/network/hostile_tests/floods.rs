//! More than a node can take: what is too much is refused, and the others are served all the same.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::group::wire::{GROUPS_A_FRAME, State, Subscribed};
use crate::limits::Limits;
use crate::network::limits::{
    OBSERVER_BYTES_MAX, OBSERVER_SHARE_BYTES, OBSERVER_STREAMS_MAX, OBSERVERS_BYTES_MAX,
};
use crate::network::links::UNADMITTED_MAX;
use crate::transport::Transport;
use crate::transport::raw::{self, RawStream};
use crate::transport::sim::SimNet;

/// Held by each of these tests: together they are more than a small machine can take.
pub(super) static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Names and addresses for three voters, on ports that the system hands out to nobody by itself.
pub(super) fn addresses() -> Vec<(String, String)> {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let free = || loop {
        let port = rand::random_range(12_000..20_000);
        if TAKEN.lock().unwrap().insert(port) && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    };
    NAMES.map(|name| (name.to_owned(), free())).into()
}

/// Dials from several endpoints for as long as it may, holds what it gets, and says nothing.
struct Flood {
    stop: CancellationToken,
    /// How many strangers have come.
    came: Arc<AtomicUsize>,
    endpoints: Vec<JoinHandle<Option<()>>>,
}

impl Flood {
    fn new(victim: &Victim, endpoints: u8) -> Self {
        let (stop, came) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let flooding = |n: u8| {
            let (key, addr, stop, came) = (victim.key(), victim.addr(), stop.clone(), came.clone());
            let flooding = async move {
                let endpoint = raw::endpoint([n + 100; 32]).await;
                let mut held = Vec::new();
                loop {
                    let dials = (0..10).map(|_| Raw::dial_from(&endpoint, key, addr));
                    held.extend(join_all(dials).await.into_iter().flatten());
                    came.fetch_add(10, Ordering::Relaxed);
                    held.retain(|raw| !raw.is_closed());
                }
            };
            tokio::spawn(async move { stop.run_until_cancelled(flooding).await })
        };
        let endpoints = (0..endpoints).map(flooding).collect();
        Self {
            stop,
            came,
            endpoints,
        }
    }

    async fn end(self) {
        self.stop.cancel();
        for flooding in self.endpoints {
            within("the flood ends", flooding).await.unwrap();
        }
    }
}

/// Strangers that say nothing fill all places: one that has something to say gets in at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_strangers_make_way_for_those_who_prove_something() {
    let _alone = ALONE.lock().await;
    let victim = Victim::alone().await;
    let flood = Flood::new(&victim, 3);
    until("all places are taken", || {
        victim.unadmitted() == [UNADMITTED_MAX, 0]
    })
    .await;
    // Admitted at the first attempt: `observer` makes no other.
    let raw = victim.observer([2; 32]).await;
    assert!(!raw.is_closed());
    flood.end().await;
    drop(raw);
    victim.survived().await;
}

/// Hundreds of strangers from several endpoints, again and again, while a link between two voters
/// breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_strangers_keeps_voters_neither_from_linking_nor_from_deciding() {
    let _alone = ALONE.lock().await;
    let voters = addresses();
    let mut nodes = Vec::new();
    for name in NAMES {
        nodes.push(Victim::start(name, &voters).await);
    }
    let linked = |node: &Victim| {
        let status = node.network.status();
        status.waiting_for.is_empty() && status.voters.iter().all(|voter| voter.linked)
    };
    until("all are linked", || nodes.iter().all(linked)).await;
    let victim = &nodes[0];
    let flood = Flood::new(victim, 5);
    until("a hundred strangers have come", || {
        flood.came.load(Ordering::Relaxed) >= 100
    })
    .await;
    for name in ["b", "c"] {
        let voter = NodeId::of_voter(name);
        let broken = victim.network.node.links.link(voter).unwrap();
        broken.connection.close(0, "broken by the test");
        until("it is linked anew", || {
            let link = victim.network.node.links.link(voter);
            link.is_some_and(|link| !Arc::ptr_eq(&link, &broken))
        })
        .await;
        victim.serves(&victim.network).await;
        victim.serves(&nodes[1].network).await;
    }
    assert!(victim.unadmitted()[0] <= UNADMITTED_MAX);
    flood.end().await;
    until("no stranger is left", || victim.unadmitted() == [0, 0]).await;
    victim.works().await;
    for node in &nodes {
        node.network.shutdown().await;
    }
}

/// Every way in which an observer can name a group that nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_new_groups_leaves_bounded_state_behind() {
    let _alone = ALONE.lock().await;
    let victim = Victim::alone().await;
    let raw = victim.observer([7; 32]).await;
    let directory = victim.network.directory();
    let bodies = [Body::Barrier { within_ms: 100 }, Body::Status];
    for n in 0..3_000 {
        let answer = match n % 3 {
            2 => ask_many(&raw, Many::Unsubscribe(Batch::new(vec![(group(n), 1)]))).await,
            kind => ask(&raw, group(n), bodies[kind as usize].clone()).await,
        };
        assert!(answer.is_ok(), "{answer:?}");
    }
    until("nothing of it is left", || {
        directory.known_groups() == (0, 0)
    })
    .await;
    // What it follows is kept, up to a limit that the refusal names.
    let follow = |from: u64, to: u64| {
        let answer = ask_many(&raw, Many::Subscribe(wishes((from..to).map(group))));
        async move {
            match answer.await {
                Ok(Response::Subscribed(answers)) => answers.into_vec(),
                other => panic!("{other:?}"),
            }
        }
    };
    let subscriptions_max = Limits::default().subscriptions_per_observer_max;
    let many = subscriptions_max as u64 + 50;
    let step = GROUPS_A_FRAME as u64;
    let mut asked: FuturesUnordered<_> = (0..many)
        .step_by(GROUPS_A_FRAME)
        .map(|from| follow(from, many.min(from + step)))
        .collect();
    let mut refusals = Vec::new();
    while let Some(answers) = asked.next().await {
        for answer in answers {
            match answer {
                Subscribed::State(_) => {}
                Subscribed::No { reason } => refusals.push(reason),
                Subscribed::Alone => panic!("nothing here takes more"),
            }
        }
    }
    assert_eq!(refusals.len(), 50);
    assert!(refusals[0].contains("16384 groups"), "{}", refusals[0]);
    let known = subscriptions_max;
    until("the refused ones are forgotten", || {
        directory.known_groups() == (known, known)
    })
    .await;
    // What it followed before may still be followed anew, and others are served.
    let again = follow(0, 1).await;
    assert_eq!(again, [Subscribed::State(State::default())]);
    victim.works().await;
    drop(asked);
    drop(raw);
    until("all of it is forgotten", || {
        directory.known_groups() == (0, 0)
    })
    .await;
    victim.survived().await;
}

/// Streams of an observer that it can surely have: new credit is told in steps of an eighth.
const STREAMS: u32 = OBSERVER_STREAMS_MAX * 7 / 8;

/// As many streams, each of which announces this much and sends nothing of it.
async fn half_sent(raw: &Raw, bytes: u32) -> Vec<RawStream> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let opened = within("a stream", raw.send(&bytes.to_le_bytes())).await;
        streams.push(opened.unwrap());
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_frames_never_cost_more_than_the_budgets() {
    let _alone = ALONE.lock().await;
    let victim = Victim::alone().await;
    let shared = victim.network.node.links.budgets.observers.clone();
    let honest = Network::join(victim.network.ticket()).await.unwrap();
    victim.serves(&honest).await;
    let mut attackers = Vec::new();
    // One alone gets no more than is meant for one.
    for n in 0..6 {
        let raw = victim.observer([n + 1; 32]).await;
        let streams = half_sent(&raw, 16 << 20).await;
        let expected = ((usize::from(n) + 1) * OBSERVER_BYTES_MAX).min(OBSERVERS_BYTES_MAX);
        until("it has what it can get", || shared.used() == expected).await;
        attackers.push((raw, streams));
    }
    assert_eq!(shared.peak(), OBSERVERS_BYTES_MAX);
    // There is nothing left to share, and everybody has a share of his own.
    victim.serves(&honest).await;
    victim.works().await;
    let late = victim.observer([99; 32]).await;
    let small = ask(&late, group(1), propose(1, OBSERVER_SHARE_BYTES / 2)).await;
    assert!(matches!(small, Ok(Response::Committed { .. })), "{small:?}");
    let large = ask(&late, group(2), propose(1, 2 * OBSERVER_SHARE_BYTES)).await;
    assert!(large.is_err(), "{large:?}");
    assert!(!late.is_closed());
    drop(attackers);
    until("all is given back", || shared.used() == 0).await;
    let large = ask(&late, group(2), propose(1, 2 * OBSERVER_SHARE_BYTES)).await;
    assert!(matches!(large, Ok(Response::Committed { .. })), "{large:?}");
    assert_eq!(shared.peak(), OBSERVERS_BYTES_MAX);
    drop(late);
    honest.shutdown().await;
    victim.survived().await;
}

/// Answers that are never read: they are paid for too, and given up after a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_bounded_and_given_up() {
    let _alone = ALONE.lock().await;
    let victim = Victim::alone().await;
    let shared = victim.network.node.links.budgets.observers.clone();
    let raw = victim.observer([1; 32]).await;
    let value = 8 << 20;
    let decided = ask(&raw, group(1), propose(1, value)).await;
    assert!(
        matches!(decided, Ok(Response::Committed { .. })),
        "{decided:?}"
    );
    until("its own answer is sent", || shared.used() == 0).await;
    let barrier = Request::new(group(1), Body::Barrier { within_ms: 1_000 }).encode();
    let barrier = raw::framed(&on_the_wire(&barrier));
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = raw.send(&barrier).await.unwrap();
        stream.finish();
        streams.push(stream);
    }
    // As many as one observer may have wait for it to read.
    let waiting = OBSERVER_BYTES_MAX / (value + 100) * value;
    until("answers wait", || shared.used() > waiting).await;
    victim.works().await;
    until("they are given up", || shared.used() == 0).await;
    assert!(shared.peak() <= OBSERVER_BYTES_MAX);
    drop((raw, streams));
    victim.survived().await;
}

/// Two are welcome at the same moment, and there is one place left for a link.
#[tokio::test(start_paused = true)]
async fn no_more_observers_are_linked_than_there_are_places() {
    let net = SimNet::new(1);
    let voters = [("a", "127.0.0.1:100")];
    let voter = Network::builder(NETWORK)
        .electorate(voters)
        .voter("a")
        .secret(secret())
        .in_memory()
        .simulated(&net);
    let victim = Victim {
        network: voter.start().await.unwrap(),
        electorate: Electorate::new(vec![("a".into(), "127.0.0.1:100".into())]).unwrap(),
        tasks: 0,
    };
    let terms = victim.observer_terms();
    let confirm = Confirm {
        sequence: 0,
        boots: None,
    };
    let mut peers = Vec::new();
    let links_max = Limits::default().observer_links_max;
    for n in 0..links_max + 2 {
        let seed = *blake3::hash(&n.to_le_bytes()).as_bytes();
        let peer = net.bind(seed, "127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = peer.dial(victim.key(), victim.addr()).await.unwrap();
        let binding = Binding {
            exported: connection.binding().unwrap(),
            dialer: peer.local_key().0,
            acceptor: victim.key().0,
        };
        let hello = Hello::new(&terms, Kind::Observer, &binding, None, None).unwrap();
        if n < links_max + 1 {
            let welcome = connection.request(hello.to_bytes(), 4_096).await.unwrap();
            assert!(answer_from_bytes::<Welcome>(&welcome).unwrap().is_ok());
        }
        peers.push((peer, connection, hello));
        // The last three are not confirmed yet.
        if n < links_max - 1 {
            let admitted = peers[n].1.request(confirm.to_bytes(), 4_096).await;
            let admitted = answer_from_bytes(&admitted.unwrap()).unwrap();
            assert_eq!(admitted, Ok(Admitted));
        }
    }
    let mut heard = Vec::new();
    for n in [links_max - 1, links_max] {
        let answer = peers[n].1.request(confirm.to_bytes(), 4_096).await.unwrap();
        heard.push(answer_from_bytes::<Admitted>(&answer).unwrap());
    }
    assert_eq!(heard, [Ok(Admitted), Err(Refusal::NotReady)]);
    assert_eq!(victim.network.node.links.linked().len(), links_max);
    // And whoever comes later hears why at once.
    let (_, late, hello) = peers.last().unwrap();
    let answer = late.request(hello.to_bytes(), 4_096).await.unwrap();
    let heard = answer_from_bytes::<Welcome>(&answer).unwrap().unwrap_err();
    assert!(matches!(heard, Refusal::Crowded { .. }), "{heard}");
    victim.network.shutdown().await;
}
