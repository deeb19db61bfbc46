//! Data directories: in use, unwritable, of another, wiped, and used again.

mod process;

use std::path::Path;

use raft_once::{Network, NetworkBuilder, NetworkError, Once};

use process::{Cluster, Node, SECRET, Spec, free_addr, until, until_async, within};

#[test]
fn child_entry() {
    process::child_entry();
}

/// The only voter of a network, on this disk.
fn solo(addr: &str, dir: &Path) -> NetworkBuilder {
    Network::builder("solo")
        .electorate([("a", addr)])
        .voter("a")
        .data_dir(dir)
}

async fn refused(builder: NetworkBuilder) -> NetworkError {
    match within("an error", builder.start()).await {
        Ok(network) => panic!("{network:?} started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_another_process_uses_is_refused_until_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let other = Node::spawn(&Spec {
        network: "solo".into(),
        voters: vec![("a".into(), free_addr())],
        voter: Some("a".into()),
        dir: Some(dir.path().into()),
        ..Spec::default()
    });
    other.ready();
    assert_eq!(other.answered(&["write", "cell", "theirs"])[0], "ok");

    let error = refused(solo("127.0.0.1:0", dir.path())).await;
    let text = error.to_string();
    assert!(
        matches!(&error, NetworkError::DataDirInUse { dir: named } if named == dir.path()),
        "{error:?}"
    );
    assert!(text.contains(dir.path().to_str().unwrap()), "{text}");
    assert!(text.contains("in use"), "{text}");
    // It was only looked at.
    assert_eq!(other.answered(&["write", "other", "theirs"])[0], "ok");

    // A lock dies with its process, whatever that had no time for.
    other.kill();
    let network = solo("127.0.0.1:0", dir.path()).start().await.unwrap();
    for cell in ["cell", "other"] {
        let cell = Once::<String>::reader(&network, cell);
        let value = within("the value", cell.await_value()).await.unwrap();
        assert_eq!(value, "theirs");
    }
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_another_node_of_this_process_uses_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = solo("127.0.0.1:0", dir.path()).start().await.unwrap();
    let cell = Once::<u64>::writer(&first, "cell");
    cell.write(1).await.unwrap();
    for _ in 0..2 {
        let error = refused(solo("127.0.0.1:0", dir.path())).await;
        assert!(
            matches!(error, NetworkError::DataDirInUse { .. }),
            "{error:?}"
        );
    }
    assert!(Once::<u64>::writer(&first, "other").write(2).await.is_ok());
    first.shutdown().await;
    let second = solo("127.0.0.1:0", dir.path()).start().await.unwrap();
    let cell = Once::<u64>::reader(&second, "other");
    assert_eq!(within("the value", cell.await_value()).await, Ok(2));
    second.shutdown().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "not a folder").unwrap();
    // These stop root, too.
    for bad in [file.join("below"), file.clone(), "/proc/raft-once".into()] {
        let error = refused(solo("127.0.0.1:0", &bad)).await;
        assert!(
            matches!(&error, NetworkError::DataDirUnwritable { dir, .. } if *dir == bad),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.contains(bad.to_str().unwrap()), "{text}");
        assert!(text.contains("check who owns it"), "{text}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a folder");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_voter_network_or_electorate_is_refused_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let network = solo("127.0.0.1:0", dir.path()).start().await.unwrap();
    Once::<u64>::writer(&network, "cell")
        .write(42)
        .await
        .unwrap();
    network.shutdown().await;

    let other_voter = Network::builder("solo")
        .electorate([("b", "127.0.0.1:0")])
        .voter("b");
    let other_network = Network::builder("duo")
        .electorate([("a", "127.0.0.1:0")])
        .voter("a");
    let other_electorate = Network::builder("solo")
        .electorate([
            ("a", "127.0.0.1:0"),
            ("b", "127.0.0.1:1"),
            ("c", "127.0.0.1:2"),
        ])
        .voter("a");
    for (builder, names) in [
        (other_voter, ["\"b\"", "\"a\""]),
        (other_network, ["\"duo\"", "\"solo\""]),
        (other_electorate, ["a, b, c", "electorate a,"]),
    ] {
        let error = refused(builder.data_dir(dir.path())).await;
        assert!(
            matches!(error, NetworkError::DataDirOfAnother { .. }),
            "{error:?}"
        );
        let text = error.to_string();
        for name in names {
            assert!(text.contains(name), "{name} is not in: {text}");
        }
        assert!(
            text.contains("give each voter its own data directory"),
            "{text}"
        );
        assert!(text.contains(dir.path().to_str().unwrap()), "{text}");
    }

    let network = solo("127.0.0.1:0", dir.path()).start().await.unwrap();
    let cell = Once::<u64>::reader(&network, "cell");
    assert_eq!(within("the value", cell.await_value()).await, Ok(42));
    network.shutdown().await;
}

#[test]
fn a_wiped_voter_is_refused_with_reason_and_remedy_and_the_others_go_on() {
    let mut cluster = Cluster::new("wiped");
    cluster.spec.write_timeout_ms = Some(2_000);
    cluster.start_all([0, 1, 2]);
    assert_eq!(cluster.node(0).claim("cell", "kept")[0], "won");
    assert_eq!(cluster.node(2).linear("cell"), ["some", "kept"]);
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data_dir(2)).unwrap();
    cluster.start(2);

    let told = |node: &Node, voter: &'static str, words: &[&str]| {
        let mut trouble = String::new();
        until(format!("{} says of {voter}: {words:?}", node.name), || {
            let (linked, text) = node.status().voters[voter].clone();
            trouble = text;
            assert!(!linked || trouble.is_empty(), "linked, and yet: {trouble}");
            !linked && trouble.contains("wiped")
        });
        for word in words {
            assert!(
                trouble.contains(word),
                "{} says of {voter}: {trouble:?}, where {word:?} is missing",
                node.name
            );
        }
    };
    let words = ["wiped or replaced", "stop that voter", "the others go on"];
    told(cluster.node(2), "a", &words);
    told(cluster.node(2), "b", &words);
    let wiped = cluster.node(2).status();
    assert!(
        !wiped.in_touch,
        "a voter that may not vote is in touch: {wiped:?}"
    );
    let mut waiting_for: Vec<_> = wiped.waiting_for.split(',').collect();
    waiting_for.sort();
    assert_eq!(waiting_for, ["a", "b"]);
    assert_eq!(
        cluster.node(2).call(&["write", "cell", "forged"]),
        ["offline", "forged"]
    );
    assert_eq!(cluster.node(2).call(&["linear", "new"]), ["offline"]);

    // The others go on, and remember over a restart.
    assert_eq!(cluster.node(1).claim("next", "on")[0], "won");
    cluster.end(0);
    cluster.start(0);
    cluster.node(0).linked_to(&["b"]);
    until("a remembers whom it refused", || {
        cluster.node(0).status().voters["c"].1.contains("wiped")
    });
    for at in [0, 1] {
        assert_eq!(cluster.node(at).linear("cell"), ["some", "kept"]);
        assert_eq!(cluster.node(at).linear("next"), ["some", "on"]);
        told(cluster.node(at), "c", &words);
    }
}

#[test]
fn after_an_orderly_shutdown_of_all_every_value_is_there() {
    let mut cluster = Cluster::new("orderly");
    cluster.start_all([0, 1, 2]);
    let mut versions = Vec::new();
    for cell in 0..20 {
        let (cell, value) = (format!("cell-{cell}"), format!("value-{cell}"));
        let won = cluster.node(cell.len() % 3).claim(&cell, &value);
        assert_eq!(won[0], "won", "{cell}: {won:?}");
        versions.push((cell, value, won[1].clone()));
    }
    for at in [1, 0, 2] {
        cluster.end(at);
    }
    cluster.start_all([2, 1, 0]);
    for (cell, value, version) in &versions {
        for at in 0..3 {
            assert_eq!(cluster.node(at).linear(cell), ["some", value]);
            assert_eq!(cluster.node(at).call(&["decision", cell])[1], *version);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_and_start_in_the_same_place_at_once_twenty_times_in_a_row() {
    let mut cluster = Cluster::new("again");
    let dir = cluster.data_dir(2);
    cluster.spawn(0);
    cluster.spawn(1);
    cluster.node(0).ready();
    cluster.node(1).ready();
    let builder = Network::builder("again")
        .electorate(cluster.spec.voters.clone())
        .voter("c")
        .secret(SECRET)
        .data_dir(&dir)
        .write_timeout_ms(30_000);
    let mut held = Vec::new();
    for round in 0..20_u64 {
        let network = within("the start", builder.clone().start()).await;
        let network = network.unwrap_or_else(|error| panic!("round {round}: {error}"));
        until_async(format!("c is in touch in round {round}"), || {
            network.status().in_touch
        })
        .await;
        let cell = Once::<u64>::writer(&network, format!("cell-{round}"));
        let written = within("a write", cell.write(round)).await;
        written.unwrap_or_else(|error| panic!("round {round}: {error}"));
        for before in 0..round {
            let cell = Once::<u64>::reader(&network, format!("cell-{before}"));
            assert_eq!(within("an old value", cell.await_value()).await, Ok(before));
        }
        within("the shutdown", network.shutdown()).await;
        // Handles are kept: they must not keep the port or the disk.
        held.push((network, cell));
    }
}
