//! What is used often, or for long, stays as fast and as small as at first.

mod common;

use common::*;
use raft_once::{Claim, Network, Once, OnceReader};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_thousand_ignored_writes_cost_as_much_as_the_first() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    all_online(&cells).await;
    let first = cells[0].write(7).await.unwrap();
    // One way 1 ms, so that time counts round trips.
    cluster.net.set_delay(ms(1), ms(1));
    let mut costs = Vec::new();
    for hundred in 0..10 {
        let (started, sent) = (Instant::now(), cluster.net.counts().delivered);
        for n in 0..100_u64 {
            let version = cells[n as usize % 4].write(9).await.unwrap();
            // One log entry each: nothing is written twice.
            assert_eq!(version.as_u64(), first.as_u64() + 100 * hundred + n + 1);
        }
        costs.push((started.elapsed(), cluster.net.counts().delivered - sent));
    }
    let (time, messages) = costs[0];
    for cost in &costs {
        assert!(
            cost.0 <= time * 3 / 2 && cost.1 <= messages * 3 / 2,
            "{costs:?}"
        );
    }
    let last = first.as_u64() + 1_000;
    for (node, cell) in nodes.iter().zip(&cells) {
        eventually("the last version everywhere", || {
            cell.version().as_u64() == last
        })
        .await;
        assert_eq!(
            (cell.read(), cell.decision().unwrap().version),
            (Some(7), first)
        );
        let status = node.status();
        assert_eq!(status.cells.len(), 1);
        assert!(status.cells[0].decided);
        assert_eq!(status.cells[0].version.as_u64(), last);
        // Nobody was deposed on the way.
        assert!(status.cells[0].term <= 1, "{:?}", status.cells);
    }
    // Whoever comes now gets the value and the version, not the history.
    let late = cluster.observer(1).await;
    let before = cluster.net.counts().delivered;
    let reader = Once::<u32>::reader(&late, "cell");
    within("online", PATIENCE, reader.when().online()).await;
    assert_eq!((reader.read(), reader.version().as_u64()), (Some(7), last));
    assert!(cluster.net.counts().delivered - before <= 20);
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_missed_hundreds_of_writes_catches_up() {
    let cluster = Cluster::start(1, 3).await;
    for away in 0..3 {
        let cells = writers(&cluster.voters, &format!("without {away}"));
        cells[away].write(1).await.unwrap();
        assert_eq!(agreed(&cells).await, 1);
        cluster.net.isolate(addr(away));
        let mut version = cells[(away + 1) % 3].write(2).await.unwrap();
        for n in 1..300 {
            version = cells[(away + 1 + n % 2) % 3].write(2).await.unwrap();
        }
        cluster.heal().await;
        let reached = cells[away].when().reaches(version);
        within(
            "the voter that was away sees the last write",
            PATIENCE,
            reached,
        )
        .await;
        let later = cells[away].write(3).await.unwrap();
        assert!(later > version);
        // It counts again: another one may go.
        cluster.net.isolate(addr((away + 1) % 3));
        let last = cells[away]
            .write(4)
            .await
            .expect("a majority with the one that was away");
        assert!(last > later);
        cluster.heal().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_cells_live_on_one_network() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let all: Vec<_> = (0..200)
        .map(|n| writers(&nodes, &format!("cell {n}")))
        .collect();
    let claims = all.iter().enumerate().flat_map(|(n, cells)| {
        // Two rivals a cell, all cells at once.
        [n % 4, (n + 1) % 4].map(|node| {
            let cell = cells[node].clone();
            tokio::spawn(async move { cell.claim(node as u32).await.unwrap() })
        })
    });
    let claims = futures::future::join_all(claims.collect::<Vec<_>>());
    let answers: Vec<Claim<u32>> = within("all claims", PATIENCE, claims)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    for (n, (cells, answers)) in all.iter().zip(answers.chunks(2)).enumerate() {
        assert_eq!(
            answers.iter().filter(|answer| answer.is_won()).count(),
            1,
            "cell {n}"
        );
        let winner = if answers[0].is_won() {
            n % 4
        } else {
            (n + 1) % 4
        };
        assert_eq!(agreed(cells).await, winner as u32, "cell {n}");
    }
    // A decision may be faster than the barrier that each handle passes.
    for cell in all.iter().flatten() {
        within("every handle online", PATIENCE, cell.when().online()).await;
    }
    let mut led = [0; 3];
    for node in &nodes {
        let status = node.status();
        assert_eq!(status.cells.len(), 200);
        assert!(status.cells.iter().all(|cell| cell.decided && cell.online));
    }
    for cell in nodes[0].status().cells {
        let leader = nodes
            .iter()
            .position(|node| Some(node.node_id()) == cell.leader);
        led[leader.expect("a voter leads")] += 1;
    }
    assert!(
        led.iter().all(|count| *count > 30),
        "the leaders are spread: {led:?}"
    );
}

fn cells_of(nodes: &[Network]) -> Vec<usize> {
    nodes.iter().map(|node| node.status().cells.len()).collect()
}

/// Neither handles nor messages of them are left, so what is left now stays.
async fn nothing_is_left(nodes: &[Network], of: &str) {
    tokio::time::sleep(ms(20_000)).await;
    assert!(
        cells_of(nodes).iter().all(|count| *count == 0),
        "{of}: {:?}",
        cells_of(nodes)
    );
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_is_dropped_at_once_leaves_nothing() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for (n, node) in nodes.iter().enumerate() {
        drop(Once::<u32>::writer(node, "cell"));
        nothing_is_left(&nodes, &format!("a handle on node {n}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_is_dropped_while_it_comes_online_leaves_nothing() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for (n, node) in nodes.iter().enumerate() {
        for moment in 0..80 {
            // Messages overtake each other.
            cluster.net.set_delay(ms(0), ms(20));
            let cell = OnceReader::<u32>::reader(node, format!("cell {moment}"));
            tokio::time::sleep(ms(moment)).await;
            drop(cell);
            // Another one, as long as the first is on its way out.
            if moment % 2 == 0 {
                drop(OnceReader::<u32>::reader(node, format!("cell {moment}")));
            }
        }
        nothing_is_left(&nodes, &format!("handles on node {n}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn handles_that_are_dropped_during_a_cut_leave_nothing() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for (n, node) in nodes.iter().enumerate() {
        let before = OnceReader::<u32>::reader(node, "before");
        within("online", PATIENCE, before.when().online()).await;
        cluster.net.isolate(node.local_addr());
        let during = OnceReader::<u32>::reader(node, "during");
        tokio::time::sleep(ms(1_000)).await;
        drop(before);
        tokio::time::sleep(ms(5_000)).await;
        drop(during);
        cluster.heal().await;
        nothing_is_left(&nodes, &format!("handles on node {n}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn handles_that_are_dropped_leave_nothing() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for n in 0..1_000 {
        let node = &nodes[n % 4];
        match n % 3 {
            // At once, online, and with something that was waited for.
            0 => drop(Once::<u32>::writer(node, format!("cell {}", n % 7))),
            1 => {
                let cell = OnceReader::<u32>::reader(node, format!("cell {n}"));
                within("online", PATIENCE, cell.when().online()).await;
            }
            _ => {
                let cell = Once::<u32>::writer(node, "the same");
                let (wait, updated) = (cell.wait(), cell.when().updated());
                tokio::select! {
                    biased;
                    _ = wait => unreachable!("nobody writes"),
                    _ = updated => unreachable!("nobody writes"),
                    () = tokio::time::sleep(ms(n as u64 % 5)) => {}
                }
                assert_eq!(cell.read_linearizable().await, Ok(None));
            }
        }
    }
    nothing_is_left(&nodes, "a thousand handles").await;
}

#[tokio::test(start_paused = true)]
async fn handles_of_a_decided_cell_that_are_dropped_leave_one_replica_a_voter() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for n in 0..1_000_u32 {
        let cell = Once::<u32>::writer(&nodes[n as usize % 4], "cell");
        if n % 2 == 0 {
            cell.write(n).await.unwrap();
        } else {
            within("online", PATIENCE, cell.when().online()).await;
        }
        assert_eq!(cell.read(), Some(0));
    }
    eventually("nothing is left on the observer", || {
        cells_of(&nodes)[3] == 0
    })
    .await;
    // A voter has one replica of it awake, however many handles there were.
    assert!(cells_of(&nodes)[..3].iter().all(|count| *count <= 1));
}
