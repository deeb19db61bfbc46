//! Who wins, and who initialises.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use raft_once::{Claim, ClaimError, InitError, Once, Version};

use crate::{alone, network};

#[tokio::test]
async fn the_winner_and_only_the_winner_is_told() {
    let network = network().await;
    let cell = Once::<String>::writer(&network, "leader");
    let won = match cell.claim("alice".to_string()).await.unwrap() {
        Claim::Won(version) => version,
        lost => panic!("{lost:?}"),
    };
    match cell.claim("bob".to_string()).await.unwrap() {
        Claim::Lost {
            winner,
            version,
            offered,
            ..
        } => assert_eq!(
            (winner.as_str(), version, offered.as_str()),
            ("alice", won, "bob")
        ),
        won => panic!("{won:?}"),
    }
    // The same value is not the same proposal.
    assert!(!cell.claim("alice".to_string()).await.unwrap().is_won());
    // Nothing was sent for the claims that were lost here.
    assert_eq!(cell.version(), won);

    let decision = cell.decision().unwrap();
    assert_eq!(decision.winner, network.node_id());
    assert_eq!(decision.winner_name.as_deref(), Some("solo"));
    assert_eq!(decision.version, won);
    assert_eq!(decision.value_bytes, 1 + "alice".len());
    let age = decision.proposed_at.elapsed().unwrap_or_default();
    assert!(age < Duration::from_secs(60));
    network.shutdown().await;
}

#[tokio::test]
async fn of_many_claims_at_once_one_wins() {
    let network = network().await;
    let claims = (0..32).map(|n| {
        let cell = Once::<u32>::writer(&network, "slot");
        tokio::spawn(async move { cell.claim(n).await.unwrap().is_won() })
    });
    let answers = futures::future::join_all(claims).await;
    let winners = answers.into_iter().filter(|won| *won.as_ref().unwrap());
    assert_eq!(winners.count(), 1);
    network.shutdown().await;
}

#[tokio::test]
async fn only_one_initialiser_runs_at_a_time_and_all_get_its_value() {
    let network = network().await;
    let cell = Once::<u32>::writer(&network, "seed");
    let (runs, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let calls = (0..16).map(|n| {
        let (cell, runs, running) = (cell.clone(), runs.clone(), running.clone());
        tokio::spawn(async move {
            let init = async || {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                tokio::time::sleep(Duration::from_millis(5)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                runs.fetch_add(1, Ordering::SeqCst);
                n
            };
            *cell.get_or_init(init).await.unwrap()
        })
    });
    let values = futures::future::join_all(calls).await;
    let first = *values[0].as_ref().unwrap();
    assert!(values.iter().all(|value| *value.as_ref().unwrap() == first));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    network.shutdown().await;
}

#[tokio::test]
async fn a_waiting_initialiser_gives_way_to_a_value_from_elsewhere() {
    let network = network().await;
    let cell = Once::<u32>::writer(&network, "seed");
    let (stuck, waiting) = (cell.clone(), cell.clone());
    let stuck = tokio::spawn(async move {
        let init = std::future::pending;
        stuck.get_or_init(init).await.copied()
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let waiting = tokio::spawn(async move { *waiting.get_or_init(async || 1).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    Once::<u32>::writer(&network, "seed")
        .write(9)
        .await
        .unwrap();
    assert_eq!(waiting.await.unwrap(), 9);
    stuck.abort();
    network.shutdown().await;
}

#[tokio::test]
async fn a_failed_initialiser_leaves_the_cell_to_the_next() {
    let network = network().await;
    let cell = Once::<u32>::writer(&network, "seed");
    let failed = cell.get_or_try_init(async || "x".parse()).await;
    assert!(matches!(failed, Err(InitError::Init(_))));
    assert_eq!(cell.version(), Version::ZERO);
    let value = cell.get_or_try_init(async || "7".parse::<u32>()).await;
    assert_eq!(value.unwrap(), &7);
    let value = cell
        .get_or_try_init(async || Err::<u32, _>("not run"))
        .await;
    assert_eq!(value.unwrap(), &7);
    // Another handle of its own finds the value before it would run its initialiser.
    let other = Once::<u32>::writer(&network, "seed");
    assert_eq!(
        other.get_or_init(async || unreachable!()).await.unwrap(),
        &7
    );
    network.shutdown().await;
}

#[tokio::test]
async fn a_pending_claim_from_elsewhere_is_a_new_one_here() {
    let alone = alone(50).await;
    let there = Once::<u64>::writer(&alone, "there");
    let Err(ClaimError::Offline(pending)) = there.claim(7).await else {
        panic!("two voters are missing");
    };
    let network = network().await;
    let here = Once::<u64>::writer(&network, "here");
    here.write(7).await.unwrap();
    match here.claim(pending).await.unwrap() {
        Claim::Lost { winner, .. } => assert_eq!(winner, 7),
        won => panic!("the write won, not the claim: {won:?}"),
    }
    alone.shutdown().await;
    network.shutdown().await;
}
