//! Links that come up while a group wakes, and voters in reach that refuse a group.

use super::cluster::{Cluster, until};
use super::sleep::{marked, status};
use super::*;
use crate::group::disk;
use crate::group::sleep::IDLE_AFTER_MS;
use crate::store::Batch;

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

/// It told one of the others, and is back before the third has missed it.
#[tokio::test(start_paused = true)]
async fn what_a_leader_committed_before_it_restarted_is_told_to_whoever_waits() {
    bear_by_instance(ByInstance::All);
    let mut cluster = Cluster::start(1, 3).await;
    let [first, second, third] = cluster.order(GROUP)[..] else {
        panic!("three voters");
    };
    let interest = cluster.node(third).open(GROUP);
    online(interest.view()).await;
    cluster.net.cut_one_way(addr(first), addr(third));
    propose(cluster.node(first), 7).await.unwrap();
    let applied = |n: usize| {
        let group = cluster.node(n).directory().group(GROUP);
        group.awake().is_some_and(|replica| !replica.is_unsettled())
    };
    until("the second has applied it", || applied(second)).await;
    cluster.kill(first);
    cluster.net.heal_all();
    cluster.power_up(first).await;
    cluster.met().await;
    until("the third is told", || interest.view().record().is_some()).await;
}

/// What a voter cannot serve it refuses for ever.
#[tokio::test(start_paused = true)]
async fn a_group_that_a_voter_in_reach_refuses_falls_asleep_and_is_marked() {
    let cluster = Cluster::start(1, 3).await;
    let [first, _, third] = cluster.order(GROUP)[..] else {
        panic!("three voters");
    };
    let mut damage = Batch::default();
    damage.put(disk::key(GROUP, Some(b'?'), &[]), vec![]);
    let store = cluster.node(third).directory().store().unwrap().clone();
    store.write_durably(damage).await.unwrap();
    propose(cluster.node(first), 7).await.unwrap();
    cluster.all_asleep().await;
    assert_eq!(marked(&cluster, third), 1);
    let counts = cluster.net.counts();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(cluster.net.counts(), counts);
}

/// Somebody uses it, or a notice is owed.
#[tokio::test(start_paused = true)]
async fn a_leader_that_may_not_sleep_after_all_writes_no_mark_at_every_look() {
    let cluster = Cluster::start(1, 3).await;
    let [first, _, third] = cluster.order(GROUP)[..] else {
        panic!("three voters");
    };
    cluster.net.isolate(addr(third));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let node = cluster.node(first);
    propose(node, 7).await.unwrap();
    let in_use = node.directory().group(GROUP).awake();
    tokio::time::sleep(Duration::from_millis(IDLE_AFTER_MS / 2)).await;
    let store = node.directory().store().unwrap().clone();
    let before = store.sequence();
    let looks = 4;
    tokio::time::sleep(looks * Duration::from_millis(IDLE_AFTER_MS)).await;
    assert_eq!(marked(&cluster, third), 1);
    // What is remembered of a peer may ride with each.
    let written = store.sequence() - before;
    assert!(written <= 2 * u64::from(looks), "{written} batches");
    drop(in_use);
    until("it sleeps", || node.directory().berths.count().0 == 0).await;
}
