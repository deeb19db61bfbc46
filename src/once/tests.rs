//! What a handle says when messages were lost, late or taken by another.

use std::sync::Arc;

use crate::id::Version;
use crate::network::Network;

use super::*;

async fn network() -> Network {
    Network::new("once").await.expect("loopback is there")
}

/// A claim that was committed, and whose reply was lost.
async fn claim_without_reply(once: &Once<u64>, value: u64) -> (Pending<u64>, Version) {
    let mut pending = Pending::from(value);
    let offer = pending
        .offer_to(once.group_id(), Vec::new(), |value| once.propose(value))
        .expect("a number fits");
    let reply = once.cell.propose(offer.command()).await;
    (pending, reply.expect("one voter is a majority").version)
}

#[tokio::test]
async fn a_retried_claim_that_had_won_is_told_the_original_version() {
    let network = network().await;
    let once = Once::<u64>::writer(&network, "slot");
    let (pending, won_at) = claim_without_reply(&once, 1).await;
    once.write(2).await.unwrap();
    // Through another handle, which has yet to learn that the cell is decided, or not.
    let other = Once::<u64>::writer(&network, "slot");
    assert_eq!(other.claim(pending).await.unwrap(), Claim::Won(won_at));
    network.shutdown().await;
}

#[tokio::test]
async fn a_retried_claim_that_had_lost_is_told_so_again() {
    let network = network().await;
    let once = Once::<u64>::writer(&network, "slot");
    let won_at = once.write(2).await.unwrap();
    let (pending, _) = claim_without_reply(&once, 2).await;
    let lost = Claim::Lost {
        winner: 2,
        version: won_at,
        offered: 2,
    };
    assert_eq!(once.claim(pending).await.unwrap(), lost);
    network.shutdown().await;
}

#[tokio::test]
async fn a_claim_that_won_one_cell_is_nothing_special_in_another() {
    let network = network().await;
    let first = Once::<u64>::writer(&network, "first");
    let second = Once::<u64>::writer(&network, "second");
    second.write(7).await.unwrap();
    let (pending, won_at) = claim_without_reply(&first, 7).await;
    assert!(!second.claim(pending).await.unwrap().is_won());
    assert_eq!(first.decision().unwrap().version, won_at);
    network.shutdown().await;
}

#[tokio::test]
async fn the_value_taken_out_is_a_new_proposal() {
    let network = network().await;
    let once = Once::<u64>::writer(&network, "slot");
    let (pending, _) = claim_without_reply(&once, 1).await;
    let again = once.claim(pending.into_value()).await.unwrap();
    assert!(!again.is_won());
    network.shutdown().await;
}

#[tokio::test]
async fn a_handle_never_lags_behind_its_view() {
    let network = network().await;
    let once = Once::<u64>::writer(&network, "slot");
    once.write(1).await.unwrap();
    let view = once.cell.view();
    let late = Once::<u64>::reader(&network, "slot");
    assert_eq!(late.version(), view.version());
    assert_eq!(late.get_ref(), Some(&1));
    // As if the view had not come round to telling this handle yet.
    let config = OnceConfig::new();
    let untold = Cell::<u64>::open(&network, once.group_id(), config);
    assert!(untold.outcome().is_some());
    assert_eq!(untold.decided().await, Ok(&1));
    network.shutdown().await;
}

#[tokio::test]
async fn a_cell_is_freed_with_its_last_handle() {
    let network = network().await;
    let once = Once::<u64>::writer(&network, "slot");
    let clone = once.clone();
    let cell = Arc::downgrade(&once.cell);
    drop(once);
    assert!(cell.upgrade().is_some());
    drop(clone);
    assert!(cell.upgrade().is_none());
    network.shutdown().await;
}
