//! What is given wrongly is refused before anything is sent, in words that say what was wrong and
//! what to do; and nothing that was there is lost.

mod process;

use std::net::UdpSocket;

use raft_once::{
    ElectorateError, EncodeError, Error, Network, NetworkBuilder, NetworkError, Once, OnceConfig,
    Secret, SecretError, Ticket, TicketError,
};

use process::{SECRET, free_addr, until_async, within};

const OTHER_SECRET: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn three() -> [(&'static str, String); 3] {
    ["a", "b", "c"].map(|name| (name, free_addr()))
}

/// Starts, and expects an error that has all these words.
async fn refused(builder: NetworkBuilder, words: &[&str]) -> NetworkError {
    let error = match within("an error", builder.start()).await {
        Ok(network) => panic!("{network:?} started"),
        Err(error) => error,
    };
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    error
}

/// Waits for what a node says of a voter that it cannot link, and expects all these words in it.
async fn trouble(network: &Network, voter: &str, words: &[&str]) {
    let said = || {
        let status = network.status();
        let voter = status.voters.into_iter().find(|v| v.name == voter).unwrap();
        assert!(!voter.linked);
        voter.trouble
    };
    until_async(format!("trouble with {voter}"), || said().is_some()).await;
    // The first reason may be one of the moment.
    let deadline = tokio::time::Instant::now() + process::DEADLINE / 4;
    loop {
        let text = said().unwrap_or_default();
        let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{missing:?} missing in what is said of {voter}: {text:?}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_voter_that_is_not_in_the_electorate() {
    let builder = Network::builder("bad")
        .electorate(three())
        .voter("d")
        .in_memory();
    let error = refused(
        builder,
        &["\"d\"", "a, b, c", "start this node under one of"],
    )
    .await;
    assert!(matches!(error, NetworkError::UnknownVoter { name, .. } if name == "d"));
}

#[tokio::test]
async fn an_electorate_that_makes_no_sense() {
    let of = |count: usize| {
        let voters = (0..count).map(|n| (format!("v{n}"), format!("127.0.0.1:{}", 7_000 + n)));
        Network::builder("bad")
            .electorate(voters.collect::<Vec<_>>())
            .voter("v0")
            .in_memory()
    };
    refused(of(0), &["empty", "1, 3 or 5"]).await;
    refused(
        of(2),
        &[
            "electorate of 2",
            "no more failures than one of 1",
            "1, 3 or 5",
        ],
    )
    .await;
    refused(
        of(4),
        &[
            "electorate of 4",
            "no more failures than one of 3",
            "1, 3 or 5",
        ],
    )
    .await;
    for count in [6, 7] {
        let error = refused(of(count), &["too large", "observers", "1, 3 or 5"]).await;
        let expected = ElectorateError::TooLarge { voters: count };
        assert!(matches!(error, NetworkError::Electorate(error) if error == expected));
    }

    let pairs = |pairs: [(&str, &str); 3]| {
        let pairs = pairs.map(|(name, addr)| (name.to_string(), addr.to_string()));
        Network::builder("bad")
            .electorate(pairs)
            .voter("a")
            .in_memory()
    };
    let same = [
        ("a", "127.0.0.1:7001"),
        ("b", "127.0.0.1:7002"),
        ("a", "127.0.0.1:7003"),
    ];
    refused(
        pairs(same),
        &["two voters are called \"a\"", "make the names differ"],
    )
    .await;
    let same = [
        ("a", "127.0.0.1:7001"),
        ("b", "127.0.0.1:7002"),
        ("c", "127.0.0.1:7002"),
    ];
    refused(
        pairs(same),
        &["\"b\"", "\"c\"", "same address", "127.0.0.1:7002"],
    )
    .await;
    let nameless = [
        ("a", "127.0.0.1:7001"),
        ("", "127.0.0.1:7002"),
        ("c", "127.0.0.1:7003"),
    ];
    refused(pairs(nameless), &["empty name", "give it one"]).await;
    let solo = || {
        Network::builder("")
            .electorate([("a", "127.0.0.1:0")])
            .voter("a")
            .in_memory()
    };
    refused(solo(), &["network name", "1 to 64 bytes"]).await;
}

#[tokio::test]
async fn an_address_that_does_not_parse_is_refused_whoever_it_belongs_to() {
    for (bad, what) in [
        ("not an address", "has no port"),
        ("127.0.0.1", "has no port"),
        ("127.0.0.1:http", "port that is not a number"),
        ("127.0.0.1:70000", "port that is not a number"),
        ("::1:7400", "IPv6 address without brackets"),
        ("300.0.0.1:7400", "is not an IPv4 address"),
        ("under the bridge:7400", "no host name has"),
    ] {
        for own in [true, false] {
            let mut voters = three();
            voters[if own { 0 } else { 1 }].1 = bad.into();
            let builder = Network::builder("bad")
                .electorate(voters)
                .voter("a")
                .in_memory();
            let name = if own { "\"a\"" } else { "\"b\"" };
            refused(builder, &[bad, what, name, "write host:port"]).await;
        }
    }
}

#[tokio::test]
async fn an_own_address_that_does_not_resolve_is_refused() {
    let mut voters = three();
    voters[0].1 = "no-such-host.invalid:7400".into();
    let builder = Network::builder("bad")
        .electorate(voters)
        .voter("a")
        .in_memory();
    let words = [
        "no-such-host.invalid:7400",
        "does not resolve",
        "check the address",
    ];
    let error = refused(builder, &words).await;
    assert!(matches!(error, NetworkError::Resolve { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peers_address_that_does_not_resolve_is_told_by_a_node_that_starts() {
    let mut voters = three();
    voters[1].1 = "no-such-host.invalid:7400".into();
    let builder = Network::builder("bad")
        .electorate(voters)
        .voter("a")
        .in_memory();
    // Bound by itself, since the electorate is not all loopback; its own address still is.
    let network = within("the start", builder.start()).await.unwrap();
    trouble(&network, "b", &["no-such-host.invalid:7400"]).await;
    assert!(!network.status().in_touch);
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_secret_nothing_but_loopback_is_bound_and_nothing_is_sent() {
    let peers = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let voters = [
        ("a", free_addr()),
        ("b", peers[0].local_addr().unwrap().to_string()),
        ("c", peers[1].local_addr().unwrap().to_string()),
    ];
    let open = "0.0.0.0:0".parse().unwrap();
    for voter in [Some("a"), None] {
        let mut builder = Network::builder("bad")
            .electorate(voters.clone())
            .in_memory()
            .bind(open);
        if let Some(voter) = voter {
            builder = builder.voter(voter);
        }
        let words = [
            "0.0.0.0:0",
            "needs a secret",
            "Secret::generate()",
            "loopback",
        ];
        let error = refused(builder, &words).await;
        assert!(matches!(error, NetworkError::SecretMissing { addr } if addr == open));
    }
    for peer in &peers {
        peer.set_nonblocking(true).unwrap();
        let received = peer.recv_from(&mut [0; 2048]);
        assert!(received.is_err(), "something was sent: {received:?}");
    }
}

#[tokio::test]
async fn a_secret_that_is_too_weak() {
    let with = |secret: &str| {
        Network::builder("bad")
            .electorate(three())
            .voter("a")
            .in_memory()
            .secret(secret)
    };
    let error = refused(with("hunter2"), &["128", "Secret::generate()"]).await;
    assert!(
        matches!(error, NetworkError::Secret(SecretError::TooShort { .. })),
        "{error:?}"
    );
    assert!(!error.to_string().contains("hunter2"), "{error}");
    refused(with(""), &["128"]).await;
    refused(with(&"ab".repeat(40)), &["Secret::generate()"]).await;
    assert!(Secret::try_from("hunter2").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_different_secrets_do_not_link_and_say_why() {
    let voters = three();
    let start = async |name: &str, secret: &str| {
        let builder = Network::builder("secrets")
            .electorate(voters.clone())
            .secret(secret);
        let started = builder
            .voter(name)
            .in_memory()
            .write_timeout_ms(1_000)
            .start();
        within("the start", started).await.unwrap()
    };
    let right = [start("a", SECRET).await, start("b", SECRET).await];
    let wrong = start("c", OTHER_SECRET).await;
    let words = ["secret"];
    trouble(&wrong, "a", &words).await;
    trouble(&wrong, "b", &words).await;
    trouble(&right[0], "c", &words).await;
    trouble(&right[1], "c", &words).await;
    let write = Once::<u64>::writer(&wrong, "cell").write(1).await;
    assert!(matches!(write, Err(Error::Offline(1))), "{write:?}");

    // Stopped and given the right one, it is one of them, and all is well.
    wrong.shutdown().await;
    let mended = start("c", SECRET).await;
    for network in [&right[0], &right[1], &mended] {
        until_async("all are linked", || {
            network.status().voters.iter().all(|v| v.linked)
        })
        .await;
    }
    let cell = Once::<u64>::writer(&mended, "cell");
    within("the write", cell.write(2)).await.unwrap();
    assert_eq!(cell.read(), Some(2));
    for network in right.into_iter().chain([mended]) {
        network.shutdown().await;
    }
}

#[tokio::test]
async fn storage_given_to_the_wrong_kind_of_node_or_not_at_all() {
    let builder = Network::builder("bad").electorate(three()).voter("a");
    let error = refused(builder, &["\"a\"", "data_dir", "in_memory()"]).await;
    assert!(matches!(error, NetworkError::NoStorage { .. }), "{error:?}");

    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let builder = Network::builder("bad").electorate(three()).data_dir(&kept);
    let error = refused(builder, &["observer", "remove data_dir", "name the voter"]).await;
    assert!(
        matches!(error, NetworkError::StorageOfObserver),
        "{error:?}"
    );
    assert!(
        !kept.exists(),
        "something was made for a node that did not start"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_is_named_and_the_disk_stays_free() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let builder = || {
        Network::builder("bad")
            .electorate([("a", addr.to_string())])
            .voter("a")
            .data_dir(dir.path())
    };
    let error = refused(
        builder(),
        &[&addr.to_string(), "cannot be bound", "another process"],
    )
    .await;
    assert!(matches!(error, NetworkError::Bind { addr: named, .. } if named == addr));
    let elsewhere = Network::builder("bad").electorate([("a", "192.0.2.1:7400")]);
    let elsewhere = elsewhere.voter("a").secret(SECRET).in_memory();
    refused(elsewhere, &["192.0.2.1:7400", "address of this machine"]).await;
    drop(taken);
    let network = within("the start", builder().start()).await.unwrap();
    assert_eq!(network.local_addr(), addr);
    network.shutdown().await;
}

#[tokio::test]
async fn a_ticket_that_is_empty_damaged_or_something_else() {
    let network = Network::new("tickets").await.unwrap();
    let good = network.ticket().to_string();
    assert!(good.parse::<Ticket>().is_ok());
    let parsed = |text: &str| text.parse::<Ticket>().unwrap_err();
    for none in ["", "  \n", "hunter2", "https://example.com"] {
        assert_eq!(parsed(none), TicketError::NotATicket, "{none:?}");
        assert!(parsed(none).to_string().contains("starts with \"once1\""));
    }
    let half = &good[..good.len() / 2];
    let mut swapped = good.clone().into_bytes();
    let middle = swapped.len() / 2;
    let at = (middle..)
        .find(|at| swapped[*at] != swapped[*at + 1])
        .unwrap();
    swapped.swap(at, at + 1);
    let swapped = String::from_utf8(swapped).unwrap();
    for damaged in [half, &swapped, "once1", &format!("{good}a")] {
        let error = parsed(damaged);
        assert_eq!(error, TicketError::Damaged, "{damaged}");
        assert!(error.to_string().contains("copy it again"), "{error}");
    }
    assert!(matches!(
        parsed(&"once1".repeat(4_000)),
        TicketError::TooLong { .. }
    ));
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_made_with_another_secret_does_not_admit_and_status_says_why() {
    let addr = free_addr();
    let start = async |secret: &str| {
        let builder = Network::builder("tickets")
            .electorate([("a", addr.clone())])
            .secret(secret);
        within("the start", builder.voter("a").in_memory().start())
            .await
            .unwrap()
    };
    let old = start(OTHER_SECRET).await;
    let stale = old.ticket();
    old.shutdown().await;
    let network = start(SECRET).await;

    let observer = within("joining", Network::join(&stale)).await.unwrap();
    trouble(&observer, "a", &["secret", "ticket"]).await;
    assert!(!observer.status().in_touch);
    assert_eq!(network.status().observers, 0);
    observer.shutdown().await;

    let observer = within("joining", Network::join(network.ticket()))
        .await
        .unwrap();
    until_async("the new ticket admits", || observer.status().in_touch).await;
    observer.shutdown().await;
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_too_large_is_handed_back_and_the_cell_lives_on() {
    let network = Network::new("large").await.unwrap();
    let observer = Network::join(network.ticket()).await.unwrap();
    let small = OnceConfig::new().value_bytes_max(100);
    let mib = 1024 * 1024;
    for node in [&network, &observer] {
        for (config, limit) in [(OnceConfig::new(), mib), (small.clone(), 100)] {
            let cell = Once::<String>::writer_with_config(node, format!("cell-{limit}"), config);
            let version = cell.version();
            let value = "x".repeat(limit);
            let Err(Error::Encoding(back, error)) = cell.write(value.clone()).await else {
                panic!("a value of more than {limit} bytes was taken");
            };
            assert_eq!(back, value);
            assert_eq!(error, EncodeError::TooLarge { bytes_max: limit });
            let text = error.to_string();
            assert!(text.contains(&limit.to_string()), "{text}");
            assert!(text.contains("OnceConfig::value_bytes_max"), "{text}");
            assert_eq!(cell.version(), version, "something was sent");
        }
    }
    // What just fits is written and read elsewhere, whole.
    let fits = "x".repeat(mib - 8);
    let cell = Once::<String>::writer(&observer, format!("cell-{mib}"));
    within("the write", cell.write(fits.clone())).await.unwrap();
    let there = Once::<String>::reader(&network, format!("cell-{mib}"));
    let found = within("the value", there.await_value()).await.unwrap();
    assert!(found == fits);
    observer.shutdown().await;
    network.shutdown().await;
}
