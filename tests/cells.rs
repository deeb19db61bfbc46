//! What a write-once cell is, on voters and observers.

mod common;

use common::*;
use futures::FutureExt;
use futures::future::join_all;
use raft_once::{Claim, Network, Once, OnceConfig, OnceReader, OnceWriter, Version};
use serde::{Deserialize, Serialize};

fn assert_set(cell: &OnceWriter<u32>, value: u32) {
    assert_eq!(cell.read(), Some(value));
    assert_eq!(cell.get(), Some(value));
    assert_eq!(cell.get_ref(), Some(&value));
    assert!(cell.is_some() && !cell.is_none() && !cell.is_empty());
}

fn assert_empty(cell: &OnceWriter<u32>) {
    assert_eq!(cell.read(), None);
    assert_eq!(cell.get(), None);
    assert_eq!(cell.get_ref(), None);
    assert!(!cell.is_some() && cell.is_none() && cell.is_empty());
    assert_eq!(cell.version(), Version::ZERO);
    assert!(cell.decision().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_first_write_stays_and_later_ones_only_advance_the_version() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for (first, _) in nodes.iter().enumerate() {
        let cells = writers(&nodes, &format!("written first by node {first}"));
        all_online(&cells).await;
        cells.iter().for_each(assert_empty);

        let mut version = cells[first].write(7).await.unwrap();
        assert_eq!(cells[first].version(), version);
        for (n, cell) in cells.iter().enumerate() {
            for alias in [false, true] {
                let value = 100 + n as u32;
                let later = match alias {
                    false => cell.write(value).await,
                    true => cell.set(value).await,
                };
                let later = later.unwrap();
                assert!(later > version, "{later} after {version}");
                version = later;
                // At the latest now this node knows the value.
                assert_set(cell, 7);
            }
        }
        for cell in &cells {
            let reached = cell.when().reaches(version);
            within("every node sees the last write", PATIENCE, reached).await;
            assert_set(cell, 7);
            assert_eq!(cell.version(), version);
            let decision = cell.decision().unwrap();
            assert_eq!(decision.winner, nodes[first].node_id());
            assert!(decision.version < version);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn set_decides_like_write() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for (n, _) in nodes.iter().enumerate() {
        let cells = writers(&nodes, &format!("set by node {n}"));
        let version = cells[n].set(3).await.unwrap();
        assert_set(&cells[n], 3);
        assert_eq!(agreed(&cells).await, 3);
        assert_eq!(cells[n].decision().unwrap().version, version);
    }
}

#[tokio::test(start_paused = true)]
async fn of_writers_on_all_nodes_one_wins_and_all_nodes_are_equal() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(1), ms(20));
    let nodes = cluster.and_observer().await;
    for round in 0..10 {
        let cells = writers(&nodes, &format!("contended {round}"));
        let writes = (0..16_u32).map(|n| {
            let cell = cells[n as usize % cells.len()].clone();
            tokio::spawn(async move { (n, cell.write(n).await.unwrap()) })
        });
        let written = join_all(writes).await;
        let written: Vec<(u32, Version)> = written.into_iter().map(Result::unwrap).collect();
        let value = agreed(&cells).await;
        let decided = cells[0].decision().unwrap();
        let winner = nodes
            .iter()
            .position(|node| node.node_id() == decided.winner);
        assert_eq!(winner, Some(value as usize % nodes.len()));
        for (n, version) in &written {
            if *n == value {
                assert_eq!(*version, decided.version);
            } else {
                assert!(*version > decided.version);
            }
        }
        cells.iter().for_each(|cell| assert_set(cell, value));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_late_catches_up() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(1), ms(5));
    let nodes = cluster.and_observer().await;
    let version = {
        let early = Once::<u32>::writer(&nodes[1], "seed");
        early.write(7).await.unwrap();
        early.write(8).await.unwrap()
    };
    // An observer that was not there when it was decided.
    let late = cluster.observer(2).await;
    for node in nodes.iter().chain([&late]) {
        let reader = OnceReader::<u32>::reader(node, "seed");
        within("a late reader is online", PATIENCE, reader.when().online()).await;
        // Online means: all that was committed before is known.
        assert_eq!(reader.read(), Some(7));
        assert_eq!(reader.version(), version);
        assert_eq!(reader.await_value().now_or_never(), Some(Ok(7)));
    }
    let mut version = version;
    for node in nodes.iter().chain([&late]) {
        let writer = Once::<u32>::writer(node, "seed");
        // Not online yet, and it does not know that it is late.
        let later = writer.write(9).await.unwrap();
        assert!(later > version);
        version = later;
        assert_set(&writer, 7);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_reads_its_own_write_at_once() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(1), ms(30));
    let nodes = cluster.and_observer().await;
    for (n, node) in nodes.iter().enumerate() {
        let cell = Once::<u32>::writer(node, format!("own {n}"));
        let other_handle = Once::<u32>::reader(node, format!("own {n}"));
        let version = cell.write(7).await.unwrap();
        assert_set(&cell, 7);
        assert_eq!(cell.clone().read(), Some(7));
        assert_eq!(other_handle.read(), Some(7), "of the same node");
        assert_eq!(cell.version(), version);
        assert_eq!(cell.read_linearizable().await, Ok(Some(7)));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_decision_and_at_once_after_it() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(1), ms(5));
    let nodes = cluster.and_observer().await;
    for (writer, _) in nodes.iter().enumerate() {
        let id = format!("awaited, written by {writer}");
        let cells = writers(&nodes, &id);
        let waiting: Vec<_> = readers(&nodes, &id)
            .into_iter()
            .flat_map(|reader| {
                let other = reader.clone();
                [
                    tokio::spawn(async move { reader.await_value().await }),
                    tokio::spawn(async move { other.wait().await.copied() }),
                ]
            })
            .collect();
        tokio::time::sleep(ms(10_000)).await;
        assert!(
            waiting.iter().all(|wait| !wait.is_finished()),
            "nothing is decided"
        );
        cells[writer].write(5).await.unwrap();
        for value in within("all that waited", PATIENCE, join_all(waiting)).await {
            assert_eq!(value.unwrap(), Ok(5));
        }
        for cell in &cells {
            assert_eq!(cell.wait().now_or_never(), Some(Ok(&5)));
            assert_eq!(cell.await_value().now_or_never(), Some(Ok(5)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ids_and_types_make_separate_cells() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for node in &nodes {
        let number = Once::<u32>::writer(node, "shared id");
        let text = Once::<String>::writer(node, "shared id");
        let other = Once::<u32>::writer(node, "another id");
        assert_ne!(number.group_id(), text.group_id());
        assert_ne!(number.group_id(), other.group_id());
    }
    let numbers = writers(&nodes, "shared id");
    let others = writers(&nodes, "another id");
    let texts: Vec<OnceWriter<String>> = nodes
        .iter()
        .map(|node| Once::writer(node, "shared id"))
        .collect();
    numbers[0].write(1).await.unwrap();
    assert_eq!(agreed(&numbers).await, 1);
    for cell in &texts {
        assert_eq!(cell.read_linearizable().await, Ok(None));
    }
    for cell in &others {
        assert_eq!(cell.read_linearizable().await, Ok(None));
    }
    texts[3].write("one".into()).await.unwrap();
    others[1].write(2).await.unwrap();
    for text in &texts {
        let value = within("the text arrives", PATIENCE, text.await_value()).await;
        assert_eq!(value.as_deref(), Ok("one"));
    }
    assert_eq!(agreed(&others).await, 2);
    assert_eq!(agreed(&numbers).await, 1);
}

mod before {
    use super::*;
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Seed(pub u32);
}

mod after {
    use super::*;
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Genesis(pub u32);
}

#[tokio::test(start_paused = true)]
async fn a_type_name_makes_one_cell_of_two_type_paths() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let named = || OnceConfig::new().type_name("orders.Seed.v1");
    let (old, new) = (&nodes[0], &nodes[3]);

    let before = Once::<before::Seed>::writer_with_config(old, "seed", named());
    let after = Once::<after::Genesis>::writer_with_config(new, "seed", named());
    assert_eq!(before.group_id(), after.group_id());
    assert!(before.claim(before::Seed(1)).await.unwrap().is_won());
    match after.claim(after::Genesis(2)).await.unwrap() {
        Claim::Lost { winner, .. } => assert_eq!(winner, after::Genesis(1)),
        won => panic!("two winners: {won:?}"),
    }

    // Without the name these are two cells, as documented.
    let before = Once::<before::Seed>::writer(old, "seed");
    let after = Once::<after::Genesis>::writer(new, "seed");
    assert_ne!(before.group_id(), after.group_id());
    assert!(before.claim(before::Seed(1)).await.unwrap().is_won());
    assert!(after.claim(after::Genesis(2)).await.unwrap().is_won());
}

#[tokio::test(start_paused = true)]
async fn a_cell_needs_no_handle_on_any_voter() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(1), ms(5));
    let (one, two) = (cluster.observer(0).await, cluster.observer(1).await);
    let written = Once::<u32>::writer(&one, "of observers");
    let followed = Once::<u32>::writer(&two, "of observers");
    within("online", PATIENCE, followed.when().online()).await;
    assert_eq!(followed.read_linearizable().await, Ok(None));
    let waiting = followed.clone();
    let waiting = tokio::spawn(async move { waiting.await_value().await });
    let first = written.write(4).await.unwrap();
    let value = within("the other observer learns it", PATIENCE, waiting).await;
    assert_eq!(value.unwrap(), Ok(4));
    assert!(followed.write(5).await.unwrap() > first);
    assert!(!written.claim(6).await.unwrap().is_won());
    // It outlives both of them.
    one.shutdown().await;
    two.shutdown().await;
    let third = cluster.observer(2).await;
    let late = Once::<u32>::reader(&third, "of observers");
    let value = within("a third one learns it", PATIENCE, late.await_value()).await;
    assert_eq!(value, Ok(4));
}

#[tokio::test(start_paused = true)]
async fn one_three_and_five_voters_decide() {
    for count in [1, 3, 5] {
        let cluster = Cluster::start(1, count).await;
        cluster.net.set_delay(ms(1), ms(5));
        let nodes = cluster.and_observer().await;
        assert_eq!(nodes[0].status().voters.len(), count);
        for (n, _) in nodes.iter().enumerate() {
            let cells = writers(&nodes, &format!("written by {n}"));
            let first = cells[n].write(n as u32).await.unwrap();
            assert!(cells[(n + 1) % nodes.len()].write(99).await.unwrap() > first);
            assert_eq!(agreed(&cells).await, n as u32);
        }
        nodes[count].shutdown().await;
        cluster.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cell_outlives_the_orderly_stop_of_any_voter() {
    for gone in 0..3 {
        let cluster = Cluster::start(1, 3).await;
        let nodes = cluster.and_observer().await;
        let cells = writers(&nodes, "seed");
        let rest: Vec<Network> = (0..4)
            .filter(|n| *n != gone)
            .map(|n| nodes[n].clone())
            .collect();
        cells[gone].write(3).await.unwrap();
        nodes[gone].shutdown().await;
        assert_eq!(
            cells[gone].read(),
            Some(3),
            "known here, also after shutdown"
        );
        let rest = writers(&rest, "seed");
        assert_eq!(agreed(&rest).await, 3);
        for cell in &rest {
            cell.write(4).await.unwrap();
            assert_set(cell, 3);
        }
    }
}
