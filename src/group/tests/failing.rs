//! Disks that fail under a running voter.

use super::cluster::{Cluster, until};
use super::*;

fn trouble(node: &Network, n: usize) -> Option<String> {
    let status = node.status();
    let voter = status
        .voters
        .into_iter()
        .find(|voter| voter.name == NAMES[n]);
    voter.filter(|voter| !voter.linked)?.trouble
}

/// Breaks the disk of the group's leader or of a follower, and lets it come back.
async fn a_disk_fails(follower: bool, break_disk: impl Fn(&crate::store::SimDisk)) {
    let mut cluster = Cluster::start(1, 3).await;
    let order = cluster.order(GROUP);
    let broken = order[usize::from(follower)];
    assert_eq!(value(&propose(cluster.node(broken), 42).await.unwrap()), 42);
    break_disk(&cluster.disks[broken]);
    let rest: Vec<_> = order.iter().copied().filter(|n| *n != broken).collect();
    let other = GroupId::from_bytes([77; 32]);
    for n in &rest {
        let reply = propose_to(cluster.node(*n), other, 7).await;
        assert_eq!(value(&reply.expect("two of three are well")), 7);
    }
    let node = cluster.node(broken);
    until("the voter stops", || node.status().failure.is_some()).await;
    let failure = node.status().failure.unwrap();
    assert!(failure.contains("mend the disk, or make room"), "{failure}");
    assert!(!node.status().in_touch);
    assert_eq!(propose(node, 43).await, None);
    for n in &rest {
        let node = cluster.node(*n);
        until("its peers see it leave", || trouble(node, broken).is_some()).await;
        assert_eq!(value(&propose(node, 43).await.unwrap()), 42);
    }
    // What its system had in the cache may be lost, as after a crash; nothing that it promised.
    cluster.cut_power(broken);
    cluster.power_up(broken).await;
    cluster.met().await;
    let node = cluster.node(broken);
    assert_eq!(value(&propose(node, 43).await.unwrap()), 42);
    let reply = propose_to(node, other, 8).await;
    assert_eq!(value(&reply.unwrap()), 7);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_sync_fails_leaves_its_links_and_the_others_go_on() {
    a_disk_fails(false, |disk| disk.fail_after_syncs(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_whose_sync_fails_leaves_its_links_and_the_others_go_on() {
    a_disk_fails(true, |disk| disk.fail_after_syncs(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_whose_writes_fail_leaves_its_links_and_the_others_go_on() {
    a_disk_fails(true, |disk| disk.fail_after_changes(1)).await;
}
