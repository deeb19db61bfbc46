//! A cell that nobody is writing costs nothing.

mod common;

use common::*;
use raft_once::testing::SimNet;
use raft_once::{Network, OnceReader};

const LONG: u64 = 10 * 60 * 1_000;

/// Nothing is sent in ten minutes, once what was under way has come to rest.
async fn is_quiet(net: &SimNet, what: &str) {
    tokio::time::sleep(ms(30_000)).await;
    let before = net.counts();
    tokio::time::sleep(ms(LONG)).await;
    assert_eq!(net.counts(), before, "messages of {what}");
}

fn nobody_is_awake(nodes: &[Network]) {
    for node in nodes {
        for cell in node.status().cells {
            assert!(!cell.awake, "{cell:?}");
            assert_eq!((cell.leader, cell.term), (None, 0), "{cell:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_without_cells_is_quiet() {
    let cluster = Cluster::start(1, 3).await;
    let _observer = cluster.observer(0).await;
    is_quiet(&cluster.net, "nodes without a cell").await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_cell_is_quiet_and_elects_nobody() {
    for count in [1, 3, 5] {
        let cluster = Cluster::start(1, count).await;
        let nodes = cluster.and_observer().await;
        let cells = writers(&nodes, "cell");
        all_online(&cells).await;
        let waiting: Vec<_> = cells
            .iter()
            .map(|cell| {
                let cell = cell.clone();
                tokio::spawn(async move { cell.await_value().await })
            })
            .collect();
        is_quiet(&cluster.net, "an empty cell that is waited for").await;
        nobody_is_awake(&nodes);
        for cell in &cells {
            assert_eq!(cell.read_linearizable().await, Ok(None));
        }
        nobody_is_awake(&nodes);
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_decided_cell_is_quiet() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for writer in 0..4 {
        let cells = writers(&nodes, &format!("written by {writer}"));
        all_online(&cells).await;
        cells[writer].write(1).await.unwrap();
        let version = cells[(writer + 1) % 4].write(2).await.unwrap();
        for cell in &cells {
            within("the last write", PATIENCE, cell.when().reaches(version)).await;
        }
        is_quiet(&cluster.net, "a decided cell").await;
        let reads = (0..1_000).map(|n| cells[n % 4].read());
        assert!(reads.into_iter().all(|value| value == Some(1)));
        is_quiet(&cluster.net, "reads").await;
    }
}

#[tokio::test(start_paused = true)]
async fn cells_are_quiet_again_after_a_cut_has_healed() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let (empty, decided) = (writers(&nodes, "empty"), writers(&nodes, "decided"));
    all_online(&empty).await;
    all_online(&decided).await;
    decided[0].write(1).await.unwrap();
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        cluster.cut(a, b);
        cluster.noticed(a, b).await;
        decided[a].write(2).await.unwrap();
        cluster.heal().await;
        all_online(&empty).await;
        all_online(&decided).await;
        is_quiet(&cluster.net, "cells after a cut").await;
    }
}

#[tokio::test(start_paused = true)]
async fn opening_a_reader_elects_nobody_and_wakes_nothing() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for node in &nodes {
        let cell = OnceReader::<u32>::reader(node, "cell");
        within("online", PATIENCE, cell.when().online()).await;
        assert_eq!(cell.read(), None);
        assert_eq!(cell.read_linearizable().await, Ok(None));
        nobody_is_awake(&nodes);
        drop(cell);
        nobody_is_awake(&nodes);
    }
}
