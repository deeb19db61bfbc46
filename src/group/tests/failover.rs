//! A leader that is gone is replaced sooner than its link ends, one that is there is left in place.

use super::schedules::{observer, order, settled};
use super::*;

/// Half of what a link takes to end.
const SOON: Duration = Duration::from_millis(750);

/// What a write of `node` takes, to be known by who waits for it.
async fn write_within(node: &Network, within: Duration) {
    let written = tokio::time::timeout(within, propose(node, 9)).await;
    let reply = written.expect("written in time").expect("written");
    assert_eq!(value(&reply), 1);
}

fn leader_and_term(node: &Network) -> (Option<NodeId>, u64) {
    let group = node.directory().known(GROUP).expect("it is awake here");
    let (term, leader) = group.awake().expect("it is awake here").term();
    (leader, term)
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_falls_silent_is_replaced_before_its_link_ends() {
    for seed in 0..16 {
        let net = SimNet::new(seed);
        let nodes = settled(&net, 3).await;
        let observer = observer(&net, &nodes).await;
        let order = order(&nodes);
        propose(&nodes[order[0]], 1).await.unwrap();
        // Whoever writes, and whoever is asked first, has yet to notice.
        let writer = [&nodes[order[1]], &nodes[order[2]], &observer][seed as usize % 3];
        propose(writer, 9).await.unwrap();
        net.isolate(addr(order[0]));
        write_within(writer, SOON).await;
        let peers = writer.directory().peers();
        assert!(peers.is_linked(nodes[order[0]].node_id()));
        assert!(!peers.is_live(nodes[order[0]].node_id()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_one_voter_does_not_hear_leads_on() {
    for seed in 0..16 {
        let net = SimNet::new(seed);
        let nodes = settled(&net, 3).await;
        let order = order(&nodes);
        propose(&nodes[order[0]], 1).await.unwrap();
        let writer = &nodes[order[1]];
        propose(writer, 9).await.unwrap();
        let before = leader_and_term(&nodes[order[0]]);
        net.cut(addr(order[0]), addr(order[1]));
        // By the one that hears both.
        write_within(writer, SOON).await;
        assert_eq!(leader_and_term(&nodes[order[0]]), before);
        assert_eq!(leader_and_term(&nodes[order[2]]), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_farther_away_than_it_was_is_not_replaced_again_and_again() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let order = order(&nodes);
    propose(&nodes[order[0]], 1).await.unwrap();
    let far = Duration::from_millis(60);
    net.set_delay(far, far);
    for n in 0..50 {
        let reply = propose(&nodes[order[n % 3]], 9).await.expect("written");
        assert_eq!(value(&reply), 1);
    }
    let suspected = |node: &Network| node.status().figures.voters_suspected;
    let suspected: u64 = nodes.iter().map(suspected).sum();
    // Each of six directions of a link may be surprised, and once more while it learns.
    assert!(suspected <= 12, "{suspected}");
    let (_, term) = leader_and_term(&nodes[order[0]]);
    assert!(term <= 4, "{term}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_ask_nothing_say_nothing() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    propose(&nodes[0], 1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = net.counts().delivered;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(net.counts().delivered, before);
    let suspected = |node: &Network| node.status().figures.voters_suspected;
    assert!(nodes.iter().all(|node| suspected(node) == 0));
}
