//! How many groups are stored is known.

use super::cluster::{Cluster, until};
use super::*;
use crate::store::{Batch, Durability};

pub(super) fn group(n: u16) -> GroupId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    GroupId::from_bytes(bytes)
}

pub(super) fn stored(node: &Network) -> u64 {
    node.status().figures.groups_stored
}

/// Also when the power fails at any moment: the number and what it counts are synced together.
#[tokio::test(start_paused = true)]
async fn stored_groups_are_counted_over_restarts() {
    for seed in 0..8 {
        let mut cluster = Cluster::start(seed, 3).await;
        let mut groups = 0;
        for n in 0..30 {
            let node = usize::from(n) % 3;
            let decided = propose_to(cluster.node(node), group(n), 1).await;
            groups += u64::from(decided.is_some());
            // Known ones are not counted anew.
            propose_to(cluster.node((node + 1) % 3), group(n / 2), 2).await;
            if n % 7 == 6 {
                cluster.cut_power(node);
                cluster.power_up(node).await;
                cluster.met().await;
            }
        }
        assert_eq!(groups, 30, "seed {seed}");
        until("every voter has all of them", || {
            cluster.up().all(|node| stored(node) >= groups)
        })
        .await;
        cluster.all_asleep().await;
        for node in cluster.up() {
            let store = node.directory().store().unwrap();
            let electorates = store.scan(b"g").unwrap();
            let electorates = electorates
                .iter()
                .filter(|(key, _)| matches!(key[33..], [b'm' | b's']));
            assert_eq!(electorates.count() as u64, groups, "seed {seed}");
            assert_eq!(stored(node), groups, "seed {seed}");
        }
    }
}

/// A disk that was written before groups were counted is counted once.
#[tokio::test(start_paused = true)]
async fn groups_that_were_never_counted_are_counted_at_the_start() {
    let mut cluster = Cluster::start(1, 1).await;
    for n in 0..150 {
        propose_to(cluster.node(0), group(n), 1).await.unwrap();
    }
    let mut forget = Batch::default();
    forget.delete(b"c".to_vec());
    let store = cluster.node(0).directory().store().unwrap().clone();
    store.write(forget, Durability::Now, |_| {});
    store.flush().await.unwrap();
    drop(store);
    cluster.kill(0);
    cluster.power_up(0).await;
    assert_eq!(stored(cluster.node(0)), 150);
    propose_to(cluster.node(0), group(150), 1).await.unwrap();
    cluster.kill(0);
    cluster.power_up(0).await;
    assert_eq!(stored(cluster.node(0)), 151);
}
