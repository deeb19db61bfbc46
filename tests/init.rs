//! Initialising a cell with a closure.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::*;
use futures::future::join_all;
use raft_once::{ClaimError, InitError, Once, Version};

#[tokio::test(start_paused = true)]
async fn the_closure_is_not_run_when_the_cell_is_set_anywhere() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(1), ms(5));
    let nodes = cluster.and_observer().await;
    for (writer, _) in nodes.iter().enumerate() {
        let id = format!("set by {writer}");
        Once::<u32>::writer(&nodes[writer], &id)
            .write(7)
            .await
            .unwrap();
        for node in &nodes {
            // A new handle, which knows nothing and must ask.
            let cell = Once::<u32>::writer(node, &id);
            let value = cell
                .get_or_init(async || unreachable!("the cell is set"))
                .await;
            assert_eq!(value.unwrap(), &7);
            let cell = Once::<u32>::writer(node, &id);
            let value = cell
                .get_or_try_init(async || -> Result<u32, ()> { unreachable!() })
                .await;
            assert_eq!(value.unwrap(), &7);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_on_all_nodes_return_the_winner() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(1), ms(20));
    let nodes = cluster.and_observer().await;
    for round in 0..10_u32 {
        let cells = writers(&nodes, &format!("round {round}"));
        let running = [const { AtomicU32::new(0) }; 4];
        let calls = (0..16_u32).map(|n| {
            let (node, cell) = (n as usize % 4, &cells[n as usize % 4]);
            let running = &running[node];
            async move {
                let init = async || {
                    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one a handle");
                    tokio::time::sleep(ms(10)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    n
                };
                *cell.get_or_init(init).await.unwrap()
            }
        });
        let values = within("all calls", PATIENCE, join_all(calls)).await;
        let winner = agreed(&cells).await;
        assert_eq!(values, vec![winner; 16]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_closure_leaves_the_cell_empty() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    for cell in &cells {
        let failed = cell.get_or_try_init(async || Err("no luck")).await;
        assert!(
            matches!(failed, Err(InitError::Init("no luck"))),
            "{failed:?}"
        );
        assert!(cell.is_none());
    }
    for cell in &cells {
        assert_eq!(cell.read_linearizable().await, Ok(None));
        assert_eq!(cell.version(), Version::ZERO, "nothing was offered");
    }
    let made = cells[3].get_or_try_init(async || Ok::<_, ()>(5)).await;
    assert_eq!(made.unwrap(), &5);
    assert_eq!(agreed(&cells).await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_failing_closure_lets_the_next_caller_try() {
    let cluster = Cluster::start(1, 3).await;
    let cell = Once::<u32>::writer(&cluster.voters[0], "cell");
    let tries = Arc::new(AtomicU32::new(0));
    let calls = (0..5).map(|_| {
        let (cell, tries) = (cell.clone(), tries.clone());
        tokio::spawn(async move {
            let init = async || {
                tokio::time::sleep(ms(50)).await;
                match tries.fetch_add(1, Ordering::SeqCst) {
                    2 => Ok(2),
                    n => Err(n),
                }
            };
            cell.get_or_try_init(init).await.copied()
        })
    });
    let results = within("all calls", PATIENCE, join_all(calls)).await;
    let results = results.into_iter().map(Result::unwrap);
    let (made, failed): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
    assert_eq!(
        made.into_iter().map(Result::unwrap).collect::<Vec<_>>(),
        [2, 2, 2]
    );
    assert_eq!(failed.len(), 2);
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_can_be_dropped_at_any_moment() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.set_delay(ms(3), ms(3));
    let nodes = cluster.and_observer().await;
    let mut finished = 0;
    for node in 0..4 {
        for moment in (0..60).step_by(2) {
            let cells = writers(&nodes, &format!("node {node}, dropped after {moment} ms"));
            let init = async || {
                tokio::time::sleep(ms(5)).await;
                1
            };
            let call = cells[node].get_or_init(init);
            match tokio::time::timeout(ms(moment), call).await {
                Ok(value) => {
                    assert_eq!(value.unwrap(), &1);
                    finished += 1;
                }
                // What it had offered may have won, or may still.
                Err(_) => assert!(matches!(cells[node].read(), None | Some(1))),
            }
            // Another one works: on the same handle, and on another node.
            let other = &cells[(node + 1) % 4];
            let both = async {
                tokio::join!(
                    cells[node].get_or_init(async || 2),
                    other.get_or_init(async || 3)
                )
            };
            let (here, there) = within("initialising after a drop", PATIENCE, both).await;
            let value = agreed(&cells).await;
            assert!([1, 2, 3].contains(&value));
            assert_eq!((here.unwrap(), there.unwrap()), (&value, &value));
        }
    }
    assert!(
        (1..120).contains(&finished),
        "some were dropped, some were not: {finished}"
    );
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_on_when_the_running_one_is_dropped() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for node in &nodes {
        let cell = Once::<u32>::writer(node, format!("{:?}", node.node_id()));
        let stuck = cell.clone();
        let stuck = tokio::spawn(async move {
            stuck
                .get_or_init(std::future::pending::<u32>)
                .await
                .copied()
                .map_err(drop)
        });
        tokio::time::sleep(ms(500)).await;
        let waiting = (0..3_u32).map(|n| {
            let cell = cell.clone();
            tokio::spawn(async move { *cell.get_or_init(async || n).await.unwrap() })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::time::sleep(ms(500)).await;
        assert!(
            waiting.iter().all(|waiting| !waiting.is_finished()),
            "one at a time"
        );
        stuck.abort();
        let values = within("the others", PATIENCE, join_all(waiting)).await;
        let value = cell.read().unwrap();
        assert!(values.into_iter().all(|other| other.unwrap() == value));
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_closure_does_not_keep_others_from_the_decision() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    all_online(&cells).await;
    let stuck = cells[0].clone();
    let stuck = tokio::spawn(async move { stuck.get_or_init(std::future::pending).await.copied() });
    tokio::time::sleep(ms(500)).await;
    let waiting = cells[0].clone();
    let waiting = tokio::spawn(async move {
        *waiting
            .get_or_init(async || unreachable!("it is decided meanwhile"))
            .await
            .unwrap()
    });
    tokio::time::sleep(ms(500)).await;
    cells[3].write(9).await.unwrap();
    assert_eq!(
        within("the one that waits", PATIENCE, waiting)
            .await
            .unwrap(),
        9
    );
    assert!(!stuck.is_finished());
    stuck.abort();
}

#[tokio::test(start_paused = true)]
async fn in_a_minority_the_closure_is_not_run() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    all_online(&cells).await;
    for alone in [0, 1, 2, 3] {
        cluster.net.isolate(nodes[alone].local_addr());
        let started = tokio::time::Instant::now();
        let init = async || unreachable!("nobody could be asked");
        let result = cells[alone].get_or_init(init).await;
        assert!(matches!(result, Err(ClaimError::Unreached)), "{result:?}");
        assert!(started.elapsed() <= WRITE_TIMEOUT + ms(100));
        cluster.heal().await;
        eventually("linked again", || {
            nodes[3].status().voters.iter().all(|v| v.linked)
        })
        .await;
    }
    assert_eq!(cells[3].get_or_init(async || 1).await.unwrap(), &1);
    assert_eq!(agreed(&cells).await, 1);
}
