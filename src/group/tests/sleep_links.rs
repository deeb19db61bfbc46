//! Links that come up while a group wakes, and voters in reach that refuse a group.

use super::cluster::Cluster;
use super::sleep::status;
use super::*;

/// It has begun to lead, and taken a voter for one that is not linked, before its berth is filled.
#[tokio::test(start_paused = true)]
async fn a_leader_that_wakes_while_a_link_comes_up_sends_to_that_voter() {
    let cluster = Cluster::start(1, 3).await;
    let [first, _, third] = cluster.order(GROUP)[..] else {
        panic!("three voters");
    };
    let node = cluster.node(first);
    propose(node, 7).await.unwrap();
    cluster.all_asleep().await;
    cluster.net.isolate(addr(third));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let directory = node.directory();
    let links_up = directory.links_up();
    propose(node, 8).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // As if it had not been there yet.
    let group = directory.group(GROUP);
    let changing = group.berth.changing.lock().await;
    let woken = group.berth.clear_if(|_| true).expect("it is awake");
    cluster.net.heal_all();
    cluster.met().await;
    directory.fill(&group, &woken, links_up);
    drop((changing, woken));
    propose(node, 9).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (last, _) = status(node, GROUP).await;
    assert_eq!(status(cluster.node(third), GROUP).await, (last, last));
}
