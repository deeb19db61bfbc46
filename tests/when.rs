//! Waiting for what happens to a cell: online, offline, updated, reaches.

mod common;

use std::future::Future;

use common::*;
use futures::FutureExt;
use futures::future::join_all;
use raft_once::{Network, Observed, Once, OnceWriter, Version};
use tokio::task::JoinHandle;

/// Spawned, so `'static`, and made before it is first polled.
fn spawn(future: impl Future<Output = Observed> + Send + 'static) -> JoinHandle<Observed> {
    tokio::spawn(future)
}

async fn reached(what: &str, waiting: JoinHandle<Observed>) {
    let observed = within(what, PATIENCE, waiting).await.unwrap();
    assert_eq!(observed, Observed::Reached, "{what}");
}

async fn online(cell: &OnceWriter<u32>) {
    assert_eq!(
        within("online", PATIENCE, cell.when().online()).await,
        Observed::Reached
    );
}

fn is_online(cell: &OnceWriter<u32>) -> bool {
    let online = cell.when().online().now_or_never().is_some();
    let offline = cell.when().offline().now_or_never().is_some();
    assert_ne!(online, offline, "either the one or the other");
    online
}

#[tokio::test(start_paused = true)]
async fn a_cell_comes_online_on_voters_and_observers() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(5), ms(5));
    let nodes = cluster.and_observer().await;
    for node in &nodes {
        let cell = Once::<u32>::writer(node, "cell");
        assert!(!is_online(&cell), "offline for a moment");
        let waiting = spawn(cell.when().online());
        reached("online", waiting).await;
        assert!(is_online(&cell));
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_without_a_majority_is_offline_until_it_returns() {
    for alone in 0..3 {
        let cluster = Cluster::start(1, 3).await;
        let nodes = cluster.and_observer().await;
        for decided in [false, true] {
            let cells = writers(&nodes, &format!("decided: {decided}"));
            all_online(&cells).await;
            if decided {
                cells[alone].write(1).await.unwrap();
                assert_eq!(agreed(&cells).await, 1);
            }
            let offline = spawn(cells[alone].when().offline());
            tokio::time::sleep(ms(60_000)).await;
            assert!(!offline.is_finished(), "nothing happened yet");

            cluster.net.isolate(addr(alone));
            reached("the lone voter goes offline", offline).await;
            // The majority goes on, and so does the observer, wherever it had followed.
            cells[(alone + 1) % 3].write(2).await.unwrap();
            online(&cells[(alone + 1) % 3]).await;
            online(&cells[(alone + 2) % 3]).await;
            online(&cells[3]).await;
            assert!(!is_online(&cells[alone]));

            let again = spawn(cells[alone].when().online());
            tokio::time::sleep(ms(60_000)).await;
            assert!(!again.is_finished(), "still alone");
            cluster.net.heal_all();
            reached("online again", again).await;
            // Online: it knows what was committed meanwhile.
            assert_eq!(cells[alone].read(), Some(if decided { 1 } else { 2 }));
            cluster.heal().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_lost_voter_of_three_takes_nobody_else_offline() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    all_online(&cells).await;
    cluster.net.isolate(addr(0));
    let (one, two) = (
        spawn(cells[1].when().offline()),
        spawn(cells[2].when().offline()),
    );
    tokio::time::sleep(ms(30_000)).await;
    assert!(!one.is_finished() && !two.is_finished());
    assert!(
        is_online(&cells[3]),
        "the observer may have moved, but is online"
    );
}

#[tokio::test(start_paused = true)]
async fn an_observer_without_a_voter_is_offline_until_one_returns() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    all_online(&cells).await;
    for back in 0..3 {
        let offline = spawn(cells[3].when().offline());
        cluster.net.isolate(nodes[3].local_addr());
        reached("the observer goes offline", offline).await;
        let again = spawn(cells[3].when().online());
        tokio::time::sleep(ms(30_000)).await;
        assert!(!again.is_finished(), "still cut off");
        // One voter that has a majority is enough.
        cluster.net.heal(nodes[3].local_addr(), addr(back));
        reached("online again", again).await;
        let updated = spawn(cells[3].when().updated());
        let version = cells[(back + 1) % 3].write(back as u32).await.unwrap();
        reached("an update through that voter", updated).await;
        assert_eq!(cells[3].version(), version);
        cluster.heal().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_of_voters_without_a_majority_is_offline_until_there_is_one() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    all_online(&cells).await;
    let offline: Vec<_> = cells
        .iter()
        .map(|cell| spawn(cell.when().offline()))
        .collect();
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        cluster.cut(a, b);
    }
    // The observer still has its links, to voters that cannot say what is current.
    for (n, waiting) in offline.into_iter().enumerate() {
        reached(&format!("node {n} goes offline"), waiting).await;
    }
    let again: Vec<_> = cells
        .iter()
        .map(|cell| spawn(cell.when().online()))
        .collect();
    tokio::time::sleep(ms(30_000)).await;
    assert!(again.iter().all(|waiting| !waiting.is_finished()));
    assert!(nodes[3].status().voters.iter().all(|voter| voter.linked));
    cluster.net.heal_all();
    for (n, waiting) in again.into_iter().enumerate() {
        reached(&format!("node {n} is online again"), waiting).await;
    }
    cells[3].write(1).await.unwrap();
    assert_eq!(agreed(&cells).await, 1);
}

#[tokio::test(start_paused = true)]
async fn every_commit_is_an_update_everywhere_an_ignored_one_too() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(1), ms(5));
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    all_online(&cells).await;
    for n in 0..20 {
        let before: Vec<Version> = cells.iter().map(|cell| cell.version()).collect();
        // Made before the commit, polled after it.
        let unpolled: Vec<_> = cells.iter().map(|cell| cell.when().updated()).collect();
        let spawned: Vec<_> = cells
            .iter()
            .map(|cell| spawn(cell.when().updated()))
            .collect();
        tokio::time::sleep(ms(1_000)).await;
        assert!(
            spawned.iter().all(|waiting| !waiting.is_finished()),
            "no commit yet"
        );
        let version = cells[n % 4].write(n as u32).await.unwrap();
        for (node, waiting) in spawned.into_iter().enumerate() {
            reached(&format!("node {node} sees commit {n}"), waiting).await;
        }
        for (node, waiting) in unpolled.into_iter().enumerate() {
            let seen = within(&format!("node {node} saw commit {n}"), PATIENCE, waiting).await;
            assert_eq!(seen, Observed::Reached);
        }
        for (cell, before) in cells.iter().zip(before) {
            assert!(cell.version() > before);
            assert_eq!(cell.version(), version);
            assert_eq!(cell.read(), Some(0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_node_reaches_every_version_of_every_writer() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(1), ms(20));
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    let beyond: Vec<_> = cells
        .iter()
        .map(|cell| spawn(cell.when().reaches(Version::new(1_000))))
        .collect();
    let writes = (0..40_u32).map(|n| {
        let cell = cells[n as usize % 4].clone();
        tokio::spawn(async move { cell.write(n).await.unwrap() })
    });
    let mut versions: Vec<Version> = join_all(writes)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    versions.sort();
    for cell in &cells {
        for version in &versions {
            reached(
                "a version that was acknowledged",
                spawn(cell.when().reaches(*version)),
            )
            .await;
            assert!(cell.version() >= *version);
        }
        // At once, if it was reached.
        let again = cell.when().reaches(versions[39]).now_or_never();
        assert_eq!(again, Some(Observed::Reached));
    }
    versions.dedup();
    assert_eq!(versions.len(), 40, "every write has a version of its own");
    assert!(beyond.iter().all(|waiting| !waiting.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn a_version_waited_for_during_a_cut_is_reached_after_it() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for (away, node) in nodes.iter().enumerate() {
        let cells = writers(&nodes, &format!("without node {away}"));
        all_online(&cells).await;
        cluster.net.isolate(node.local_addr());
        let writer = &cells[(away + 1) % 3];
        writer.write(1).await.unwrap();
        let version = writer.write(2).await.unwrap();
        let waiting = spawn(cells[away].when().reaches(version));
        tokio::time::sleep(ms(10_000)).await;
        assert!(!waiting.is_finished());
        cluster.net.heal_all();
        reached("the version from during the cut", waiting).await;
        assert_eq!(cells[away].read(), Some(1));
        cluster.heal().await;
    }
}

/// All that can be waited for and does not happen by itself.
fn wait_for_all(cell: &OnceWriter<u32>) -> Vec<JoinHandle<Observed>> {
    vec![
        spawn(cell.when().updated()),
        spawn(cell.when().reaches(Version::new(1_000))),
    ]
}

async fn all_say_down(waiting: Vec<JoinHandle<Observed>>) {
    for observed in within(
        "what waits ends with the network",
        PATIENCE,
        join_all(waiting),
    )
    .await
    {
        assert_eq!(observed.unwrap(), Observed::NetworkDown);
    }
}

async fn is_down(cell: &OnceWriter<u32>) {
    let when = cell.when();
    for observed in [
        within("online", PATIENCE, when.online()).await,
        within("offline", PATIENCE, when.offline()).await,
        within("updated", PATIENCE, when.updated()).await,
        within("reaches", PATIENCE, when.reaches(Version::new(1_000))).await,
    ] {
        assert_eq!(observed, Observed::NetworkDown);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_hangs_after_shutdown() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    all_online(&cells).await;
    // Last to first: the observer, then voter by voter, so that the last ones are offline.
    for (node, cell) in nodes.iter().zip(&cells).rev() {
        let mut waiting = wait_for_all(cell);
        let offline = cell.when().offline().now_or_never();
        waiting.push(match offline {
            None => spawn(cell.when().offline()),
            Some(_) => spawn(cell.when().online()),
        });
        tokio::time::sleep(ms(100)).await;
        let undisturbed = waiting.iter().all(|waiting| !waiting.is_finished());
        assert!(undisturbed, "nothing has happened yet");
        within("shutdown", PATIENCE, node.shutdown()).await;
        all_say_down(waiting).await;
        is_down(cell).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_hangs_after_shutdown_of_a_node_that_is_cut_off() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for n in [0, 3] {
        let node: &Network = &nodes[n];
        let cell = Once::<u32>::writer(node, "cell");
        online(&cell).await;
        let offline = spawn(cell.when().offline());
        cluster.net.isolate(node.local_addr());
        reached("offline", offline).await;
        let mut waiting = wait_for_all(&cell);
        waiting.push(spawn(cell.when().online()));
        let write = cell.clone();
        let write = tokio::spawn(async move { write.write(1).await });
        tokio::time::sleep(ms(100)).await;
        within("shutdown", PATIENCE, node.shutdown()).await;
        all_say_down(waiting).await;
        is_down(&cell).await;
        let write = within("the write ends", PATIENCE, write).await.unwrap();
        assert!(
            matches!(write, Err(raft_once::Error::NetworkDown)),
            "{write:?}"
        );
    }
}
