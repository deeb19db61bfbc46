//! How many messages one after another a decision waits for. Only links take time here, the same
//! each way, so the simulated clock counts them.

use super::cluster::Cluster;
use super::schedules::{observer, order, set, settled};
use super::sleep::group;
use super::*;

const HOP: Duration = Duration::from_millis(10);

/// The hops of one proposal of `node` for `group`.
async fn hops(node: &Network, group: GroupId) -> u128 {
    let interest = node.open(group);
    let began = Instant::now();
    let deadline = began + Duration::from_secs(5);
    let directory = node.directory();
    let command = set(node, b"", vec![1]);
    let proposed = directory.propose(interest.group(), command, deadline);
    proposed.await.unwrap();
    began.elapsed().as_micros() / HOP.as_micros()
}

#[tokio::test(start_paused = true)]
async fn a_decision_waits_for_one_round_trip_beside_the_way_to_the_leader() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    net.set_delay(HOP, HOP);
    let order = order(&nodes);
    let all = [
        &nodes[order[0]],
        &nodes[order[1]],
        &nodes[order[2]],
        &observer,
    ];
    let mut births = Vec::new();
    let mut at_once_after = Vec::new();
    let mut later = Vec::new();
    for node in all {
        // Another group, whose leader by birth is the same node.
        let group = (0..=255)
            .map(|n| GroupId::from_bytes([n; 32]))
            .filter(|group| nodes[0].directory().known(*group).is_none())
            .find(|group| {
                let first = nodes[0].directory().peers().order(group)[0];
                first == nodes[order[0]].node_id()
            });
        let group = group.unwrap();
        births.push(hops(node, group).await);
        at_once_after.push(hops(node, group).await);
        later.push(hops(node, group).await);
    }
    assert_eq!(births, [2, 4, 4, 4]);
    // No instance was there: a round trip more, for its leader to be confirmed.
    assert_eq!(at_once_after, [4, 6, 6, 6]);
    assert_eq!(later, [2, 4, 4, 4]);
}

/// Messages, batches and syncs of all three voters together, for one decision at a time.
#[tokio::test(start_paused = true)]
async fn what_a_decision_costs_in_messages_and_syncs() {
    let cluster = Cluster::start(1, 3).await;
    let map = GroupId::of_map("map".into(), "u64");
    let costs = async |group: GroupId, slot: &[u8]| {
        let node = cluster.node(cluster.order(group)[0]);
        let interest = node.open(group);
        online(interest.view()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let counted = || {
            let syncs = cluster.up().map(|node| {
                let figures = node.status().figures;
                [figures.store_syncs, figures.store_lazy_syncs]
            });
            let syncs = syncs.fold([0, 0], |all, one| [all[0] + one[0], all[1] + one[1]]);
            [cluster.net.counts().delivered, syncs[0], syncs[1]]
        };
        let before = counted();
        let deadline = Instant::now() + Duration::from_secs(5);
        let command = set(node, slot, vec![1]);
        let proposed = node
            .directory()
            .propose(interest.group(), command, deadline);
        proposed.await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let after = counted();
        [0, 1, 2].map(|n| after[n] - before[n])
    };
    let birth = costs(group(7), b"").await;
    let first_claim = costs(map, b"one").await;
    let claim = costs(map, b"two").await;
    // Of the syncs the second number is for batches that nobody waits for.
    assert_eq!([birth, first_claim, claim], [[8, 6, 3]; 3]);
}
