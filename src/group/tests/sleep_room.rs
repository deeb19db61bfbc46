//! Few replicas may be awake at once, and many are wanted: nobody waits for ever.

use super::cluster::{Cluster, propose_aside};
use super::sleep::{group, have_all_applied, write_all};
use super::*;

const GROUPS: u8 = 60;

/// Each group has its own first voter, so all voters are full of what the others have no room for.
async fn all_decide_and_fall_asleep(count: usize, max: usize) {
    let cluster = Cluster::start(1, count).await;
    // So that each voter has room for other groups.
    cluster
        .net
        .set_delay(Duration::ZERO, Duration::from_millis(50));
    for node in cluster.up() {
        node.directory().berths.limit(max);
    }
    let proposed = (0..GROUPS).map(|n| {
        let node = cluster.node(cluster.order(group(n))[0]);
        propose_aside(node, group(n), n)
    });
    let proposed: Vec<_> = proposed.collect();
    let mut decided = 0;
    for (n, proposed) in (0..GROUPS).zip(proposed) {
        if let Some(reply) = proposed.await.unwrap() {
            assert_eq!(value(&reply), n);
            decided += 1;
        }
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    cluster.all_asleep().await;
    assert!(decided < GROUPS, "there was room for all");
    for node in cluster.up() {
        assert!(node.directory().berths.most() <= max);
        let peers = node.directory().peers();
        assert_eq!(peers.linked_voters().len() + 1, count);
        for voter in peers.linked_voters() {
            assert_eq!(node.directory().marked(voter), 0);
        }
    }
    // What was answered stays, and what was not is decided now if it was not then.
    for n in 0..GROUPS {
        let voters: Vec<_> = (0..count).collect();
        write_all(&cluster, n..n + 1, &voters).await;
    }
    cluster.all_asleep().await;
    have_all_applied(&cluster, 0..GROUPS).await;
}

#[tokio::test(start_paused = true)]
async fn voters_that_are_full_of_births_make_room_for_each_other() {
    for (count, max) in [(3, 4), (5, 8)] {
        all_decide_and_fall_asleep(count, max).await;
    }
}
