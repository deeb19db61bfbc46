//! Before a peer is admitted.

use super::*;
use crate::network::hello::{ADMISSION_BYTES_MAX, HELLO_BYTES_MAX, answer_to_bytes};
use crate::network::limits::OBSERVER_STREAMS_MAX;
use crate::network::past::{Boot, Claim as Past};
use crate::transport::raw::framed;
use crate::transport::{IrohTransport, LinkConfig, Transport};

/// The places of three voters of whom only the first is a real one, and where the others would be.
fn three(real: &str, others: [SocketAddr; 2]) -> Vec<(String, String)> {
    let addrs = [
        real.to_owned(),
        others[0].to_string(),
        others[1].to_string(),
    ];
    NAMES.map(str::to_owned).into_iter().zip(addrs).collect()
}

fn nowhere(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// One of three voters, the others do not exist.
async fn one_of_three() -> Victim {
    Victim::start("a", &three("127.0.0.1:0", [nowhere(1), nowhere(2)])).await
}

fn voter_seed(name: &str) -> [u8; 32] {
    secret().voter_key_seed(NETWORK, name)
}

fn past() -> Past {
    Past {
        incarnation: [4; 16],
        boot: [5; 16],
        sequence: 6,
        empty: true,
    }
}

async fn is_closed(raw: &Raw) {
    let closed = within("the end of a connection", raw.closed()).await;
    assert!(closed.contains("closed by peer"), "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_proves_nothing_hears_wrong_secret_and_is_gone() {
    let victim = one_of_three().await;
    let other = Secret::try_from("another secret than theirs").unwrap();
    let other = victim.terms(AdmissionKeys::of_secret(&other, NETWORK));
    let mut strangers = Vec::new();
    for (kind, seed) in [
        (Kind::Observer, [7; 32]),
        (Kind::Voter, [8; 32]),
        // As if a voter's TLS key had been stolen, and the secret had not.
        (Kind::Voter, voter_seed("b")),
        (Kind::Observer, voter_seed("c")),
    ] {
        let raw = victim.dial(seed).await;
        let past = (kind == Kind::Voter).then(past);
        let hello = Hello::new(&other, kind, &victim.binding(&raw), past, None).unwrap();
        let heard = welcome(&raw, &hello.to_bytes()).await;
        assert_eq!(heard.unwrap_err(), Refusal::WrongSecret);
        strangers.push(raw);
    }
    // The proof of an observer does not prove a voter, whatever key it is sent with.
    for seed in [[9; 32], voter_seed("b")] {
        let raw = victim.dial(seed).await;
        let mut hello = victim.hello(&raw).to_bytes();
        hello[0] = Kind::Voter.as_u8();
        let heard = welcome(&raw, &hello).await;
        assert_eq!(heard.unwrap_err(), Refusal::WrongSecret);
        strangers.push(raw);
    }
    for raw in &strangers {
        is_closed(raw).await;
    }
    assert!(victim.network.node.links.linked().is_empty());
    let figures = victim.network.status().figures;
    assert_eq!(figures.refused_secret, strangers.len() as u64);
    assert_eq!((figures.voter_links, figures.observer_links), (0, 0));
    victim.is_alone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_good_on_its_own_connection_only() {
    let victim = Victim::alone().await;
    let first = victim.observer([7; 32]).await;
    let hello = victim.hello(&first).to_bytes();
    // Replayed on another connection, by another and by the same node.
    for seed in [[8; 32], [7; 32]] {
        let raw = victim.dial(seed).await;
        let heard = welcome(&raw, &hello).await;
        assert_eq!(heard.unwrap_err(), Refusal::WrongSecret);
    }
    // The acceptor's own proof, sent back to it.
    let raw = victim.dial([9; 32]).await;
    let binding = victim.binding(&raw);
    let terms = victim.observer_terms();
    let theirs = Welcome::new(&terms, Kind::Observer, &binding, None, None, None).unwrap();
    let mut hello = victim.hello(&raw);
    hello.proof = theirs.proof;
    let heard = welcome(&raw, &hello.to_bytes()).await;
    assert_eq!(heard.unwrap_err(), Refusal::WrongSecret);
    drop((first, raw));
    victim.survived().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_without_the_key_of_a_voter_makes_no_voter() {
    let victim = one_of_three().await;
    let raw = victim.dial([7; 32]).await;
    let binding = victim.binding(&raw);
    let terms = victim.voter_terms();
    let hello = Hello::new(&terms, Kind::Voter, &binding, Some(past()), None).unwrap();
    let heard = welcome(&raw, &hello.to_bytes()).await;
    assert_eq!(heard.unwrap_err(), Refusal::NotAVoter);
    assert!(victim.network.node.links.linked().is_empty());
    drop(raw);
    victim.is_alone().await;
}

/// Whoever answers with a voter's TLS key, but does not know the secret, sends back what it got.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acceptor_that_echoes_the_proof_is_not_believed() {
    let config = LinkConfig::default();
    let false_b = IrohTransport::bind(voter_seed("b"), nowhere(0), config).await;
    let false_b = false_b.unwrap();
    let voters = three("127.0.0.1:0", [false_b.local_addr(), nowhere(2)]);
    let victim = Victim::start("a", &voters).await;
    let connection = within("a dial", false_b.accept()).await.unwrap();
    let mut first = within("a hello", connection.incoming()).await.unwrap();
    let hello = first.read(HELLO_BYTES_MAX).await.unwrap();
    let binding = Binding {
        exported: connection.binding().unwrap(),
        dialer: victim.key().0,
        acceptor: false_b.local_key().0,
    };
    let own = Hello::admit(
        &hello,
        &victim.voter_terms(),
        &binding,
        Some(NodeId::of_voter("a")),
    )
    .unwrap();
    let terms = victim.voter_terms();
    let mut welcome = Welcome::new(&terms, Kind::Voter, &binding, Some(past()), None, None);
    welcome.as_mut().unwrap().proof = own.proof;
    let answer = answer_to_bytes(&Ok::<_, Refusal>(welcome.unwrap()));
    first.reply(answer).await.unwrap();
    let closed = within("the end", connection.closed()).await;
    assert!(closed.by_peer, "{closed}");
    let links = &victim.network.node.links;
    until("a word on b", || {
        let trouble = links.trouble_with(NodeId::of_voter("b"));
        trouble.is_some_and(|trouble| trouble.contains("the secret or the name"))
    })
    .await;
    assert!(links.linked().is_empty());
    false_b.close().await;
    victim.network.shutdown().await;
}

/// Whoever holds a voter's key may keep its dialers waiting, but not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acceptor_that_falls_silent_is_given_up() {
    let config = LinkConfig::default();
    let silent = IrohTransport::bind(voter_seed("b"), nowhere(0), config).await;
    let silent = silent.unwrap();
    let voters = three("127.0.0.1:0", [silent.local_addr(), nowhere(2)]);
    let victim = Victim::start("a", &voters).await;
    // Not a word; and not a word after the hello.
    for _ in 0..2 {
        let connection = within("a dial", silent.accept()).await.unwrap();
        let hello = within("a hello", connection.incoming()).await;
        let closed = within("the end", connection.closed()).await;
        assert!(closed.by_peer, "{closed}");
        drop(hello);
    }
    // A welcome, and not a word after the confirmation.
    let connection = within("a dial", silent.accept()).await.unwrap();
    let mut first = within("a hello", connection.incoming()).await.unwrap();
    first.read(HELLO_BYTES_MAX).await.unwrap();
    let binding = Binding {
        exported: connection.binding().unwrap(),
        dialer: victim.key().0,
        acceptor: silent.local_key().0,
    };
    let start = Boot {
        id: [5; 16],
        from: 0,
    };
    let (terms, boots) = (victim.voter_terms(), Some(vec![start]));
    let welcome = Welcome::new(&terms, Kind::Voter, &binding, Some(past()), None, boots);
    let answer = answer_to_bytes(&Ok::<_, Refusal>(welcome.unwrap()));
    first.reply(answer).await.unwrap();
    let mut second = within("a confirmation", connection.incoming())
        .await
        .unwrap();
    second.read(ADMISSION_BYTES_MAX).await.unwrap();
    let closed = within("the end", connection.closed()).await;
    assert!(closed.by_peer, "{closed}");
    assert!(victim.network.node.links.linked().is_empty());
    silent.close().await;
    victim.network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_hello_is_refused() {
    let victim = Victim::alone().await;
    let mut gone = Vec::new();
    // Frames that are whole, and nothing that was ever agreed.
    let noise: Vec<u8> = (0..HELLO_BYTES_MAX).map(|n| (n * 7) as u8).collect();
    for frame in [&[][..], b"GET / HTTP/1.1\r\n\r\n", &[1; 33], &noise] {
        let raw = victim.dial([7; 32]).await;
        let heard = welcome(&raw, frame).await;
        assert_eq!(heard.unwrap_err(), Refusal::WrongSecret);
        gone.push(raw);
    }
    // Streams that are no frames: cut, too long by a byte, by far, with bytes behind, or empty.
    let long = u32::try_from(HELLO_BYTES_MAX + 1).unwrap().to_le_bytes();
    for stream in [
        &[9, 0, 0, 0, 7][..],
        &[9, 0],
        &[&long[..], &[0; HELLO_BYTES_MAX + 1]].concat(),
        &[0xff; 40],
        &[1, 0, 0, 0, 7, 7],
        &[],
    ] {
        let raw = victim.dial([7; 32]).await;
        let answer = within("a reset", raw.exchange(stream)).await;
        assert!(answer.is_err(), "{answer:?}");
        gone.push(raw);
    }
    for raw in &gone {
        is_closed(raw).await;
    }
    victim.survived().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_out_of_order_are_refused() {
    let victim = Victim::alone().await;
    let confirmation = Confirm {
        sequence: 0,
        boots: None,
    };
    // Confirm first.
    let first = victim.dial([1; 32]).await;
    let heard = welcome(&first, &confirmation.to_bytes()).await;
    assert_eq!(heard.unwrap_err(), Refusal::WrongSecret);
    // A request first.
    let request = victim.dial([2; 32]).await;
    let body = Request::new(group(1), propose(1, 8)).encode();
    let heard = welcome(&request, &on_the_wire(&body)).await;
    assert_eq!(heard.unwrap_err(), Refusal::WrongSecret);
    // A hello twice, and a request before the confirmation.
    let mut gone = vec![first, request];
    let frame = on_the_wire(&body);
    for (seed, second) in [([3; 32], None), ([4; 32], Some(frame))] {
        let raw = victim.dial(seed).await;
        let hello = victim.hello(&raw).to_bytes();
        welcome(&raw, &hello).await.unwrap();
        let answer = raw.request(second.as_deref().unwrap_or(&hello)).await;
        let heard = answer_from_bytes::<Admitted>(&answer.unwrap()).unwrap();
        let heard = heard.unwrap_err();
        assert!(
            matches!(
                heard,
                Refusal::Malformed(_) | Refusal::UnknownVersion { .. }
            ),
            "{heard}"
        );
        gone.push(raw);
    }
    for raw in &gone {
        is_closed(raw).await;
    }
    assert!(victim.network.node.links.linked().is_empty());
    assert_eq!(victim.network.directory().known_groups(), (0, 0));
    // Confirm twice: the second is a request that makes no sense, and harms nobody.
    let raw = victim.observer([5; 32]).await;
    let answer = ask_bytes(&raw, &confirmation.to_bytes()).await;
    assert!(
        matches!(&answer, Ok(Response::Refused { .. })),
        "{answer:?}"
    );
    assert!(!raw.is_closed());
    drop(raw);
    victim.survived().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_versions_and_epochs_are_named_in_the_refusal() {
    let victim = Victim::alone().await;
    let raw = victim.dial([7; 32]).await;
    let mut hello = victim.hello(&raw).to_bytes();
    hello[33] = 9;
    let heard = welcome(&raw, &hello).await.unwrap_err();
    assert!(
        matches!(heard, Refusal::UnknownVersion { found: 9, .. }),
        "{heard}"
    );
    let raw = victim.dial([8; 32]).await;
    let terms = Terms {
        epoch: 3,
        ..victim.observer_terms()
    };
    let binding = victim.binding(&raw);
    let hello = Hello::new(&terms, Kind::Observer, &binding, None, None).unwrap();
    let heard = welcome(&raw, &hello.to_bytes()).await.unwrap_err();
    assert_eq!(heard, Refusal::Epoch { theirs: 3, ours: 0 });
    drop(raw);
    victim.survived().await;
}

/// At every point at which a peer can stop talking, and with streams that never end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_falls_silent_before_it_is_admitted_is_gone_after_a_while() {
    let victim = Victim::alone().await;
    let silent = victim.dial([1; 32]).await;
    let begun = victim.dial([2; 32]).await;
    let _stream = begun.send(&[40, 0, 0, 0, 1]).await.unwrap();
    let welcomed = victim.dial([3; 32]).await;
    welcome(&welcomed, &victim.hello(&welcomed).to_bytes())
        .await
        .unwrap();
    // A byte at a time, and never to the end.
    let slow = victim.dial([4; 32]).await;
    let hello = framed(&victim.hello(&slow).to_bytes());
    let mut stream = slow.send(&[]).await.unwrap();
    let dripping = async {
        for byte in &hello[..hello.len() - 1] {
            if stream.more(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ends = async {
        for raw in [&silent, &begun, &welcomed, &slow] {
            is_closed(raw).await;
        }
    };
    until("all have come", || victim.unadmitted()[0] == 4).await;
    tokio::join!(dripping, ends);
    // One that vanishes without a word frees its place too.
    let vanishing = victim.dial([5; 32]).await;
    until("it is noticed", || victim.unadmitted()[0] == 1).await;
    vanishing.close();
    victim.is_alone().await;
    victim.survived().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_keeps_its_small_allowance_until_it_is_admitted() {
    let victim = Victim::alone().await;
    let raw = victim.dial([1; 32]).await;
    let never = Duration::from_millis(200);
    let _one = raw.send(&[1]).await.unwrap();
    let _two = raw.send(&[1]).await.unwrap();
    assert!(tokio::time::timeout(never, raw.send(&[1])).await.is_err());
    let admitted = victim.observer([2; 32]).await;
    let mut streams = Vec::new();
    // New credit is told in steps of an eighth.
    for _ in 0..OBSERVER_STREAMS_MAX * 7 / 8 {
        let opened = within("a stream", admitted.send(&[1])).await;
        streams.push(opened.unwrap());
    }
    while let Ok(opened) = tokio::time::timeout(never, admitted.send(&[1])).await {
        streams.push(opened.unwrap());
        assert!(streams.len() <= OBSERVER_STREAMS_MAX as usize);
    }
    drop((raw, admitted, streams));
    victim.survived().await;
}
