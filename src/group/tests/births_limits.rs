//! Who may have new groups made.

use super::census::{group, stored};
use super::cluster::until;
use super::*;
use crate::limits::Limits;

async fn alone(net: &SimNet, limits: Limits) -> Network {
    let node = Network::builder("test")
        .electorate([("a", addr(0).to_string())])
        .voter("a")
        .secret("a secret of the tests")
        .in_memory()
        .limits(limits)
        .simulated(net)
        .start();
    node.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_last_quarter_of_what_may_be_stored_is_for_voters() {
    let net = SimNet::new(1);
    let node = alone(&net, Limits::default().groups_stored_max(8)).await;
    let observer = Network::join_simulated(node.ticket(), &net).await.unwrap();
    for n in 0..7 {
        let decided = propose_to(&observer, group(n), 1).await;
        assert_eq!(decided.is_some(), n < 6, "{n}");
    }
    for n in 6..9 {
        let decided = propose_to(&node, group(n), 1).await;
        assert_eq!(decided.is_some(), n < 8, "{n}");
    }
    assert_eq!(stored(&node), 8);
    // What is there can be written on.
    assert!(propose_to(&observer, group(7), 2).await.is_some());
    assert!(node.status().figures.refused_groups_stored > 1);
}

/// Settling what nobody has written would elect, and so write.
#[tokio::test(start_paused = true)]
async fn observers_that_have_many_unknown_groups_settled_are_held_off_too() {
    use crate::group::wire::{Body, Request, Response};

    let net = SimNet::new(1);
    let node = alone(&net, Limits::default().observer_births_per_second_max(1)).await;
    let observer = Network::join_simulated(node.ticket(), &net).await.unwrap();
    until("they are linked", || node.status().observers == 1).await;
    let directory = node.directory();
    let mut refused = Vec::new();
    for n in 0..10 {
        let body = Body::Settle {
            hops_left: 0,
            within_ms: 1_000,
        };
        let request = Request::new(group(n), body);
        let answer = directory.answer(observer.node_id(), Ok(request)).await;
        if let Ok(Response::Refused { reason }) = Response::decode(&answer) {
            refused.push(reason);
        }
    }
    let figures = node.status().figures;
    assert_eq!(figures.refused_births, refused.len() as u64);
    assert!(refused.len() >= 5, "{refused:?}");
    assert!(
        refused[0].contains("observer_births_per_second_max"),
        "{}",
        refused[0]
    );
    assert!(figures.groups_stored <= 5, "{figures:?}");
}

/// Whatever the observers are, half of the berths stays for what is there already.
#[tokio::test(start_paused = true)]
async fn new_groups_of_observers_leave_half_of_the_berths() {
    bear_by_instance(ByInstance::All);
    let net = SimNet::new(1);
    let node = alone(&net, Limits::default().awake_groups_max(16)).await;
    let mut proposed = Vec::new();
    for n in 0..30 {
        let observer = Network::join_simulated(node.ticket(), &net).await.unwrap();
        proposed.push(tokio::spawn(async move {
            propose_to(&observer, group(n), 1).await.is_some()
        }));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let figures = node.status().figures;
    assert_eq!(figures.groups_awake, 9, "one more than half");
    assert!(figures.refused_births > 0);
    assert!(propose_to(&node, group(99), 1).await.is_some());
    // As some fall asleep, others have their turn: nobody is refused for long.
    let mut decided = 0;
    for proposed in proposed {
        decided += usize::from(proposed.await.unwrap());
    }
    assert!(decided > 9, "{decided}");
}
