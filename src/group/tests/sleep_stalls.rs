//! What goes wrong while groups fall asleep keeps no other group awake, and leaves nobody deaf.

use super::cluster::{Cluster, propose_aside, until};
use super::sleep::{group, have_all_applied, marked, status, write_all};
use super::*;
use crate::group::raft::LogPosition;
use crate::group::replica::Lead;
use crate::group::sleep::{IDLE_AFTER_MS, SWEEP_MS};
use crate::limits::Limits;

fn awake(node: &Network) -> usize {
    node.directory().berths.count().0
}

/// More of them than are looked at at a time.
#[tokio::test(start_paused = true)]
async fn instances_that_do_not_end_hold_up_no_other_group() {
    bear_by_instance(ByInstance::All);
    let cluster = Cluster::start(1, 3).await;
    write_all(&cluster, 0..30, &[0, 1, 2]).await;
    let node = cluster.node(0);
    let mut parts = Vec::new();
    for n in 0..20 {
        let group = node.directory().group(group(n));
        let past = group.berth.changing.lock().await;
        parts.extend(past.end().expect("an instance runs").part());
    }
    until("the others sleep", || awake(node) == parts.len()).await;
    let directory = node.directory();
    for n in 0..20 {
        let reply = propose_to(node, group(n), 99).await;
        assert_eq!(value(&reply.expect("two are well")), n);
        assert!(directory.group(group(n)).awake().is_none(), "a second one");
    }
    drop(parts);
    cluster.all_asleep().await;
    for n in 0..20 {
        assert_eq!(value(&propose_to(node, group(n), 99).await.unwrap()), n);
    }
    cluster.all_asleep().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_one_group_falls_asleep_keeps_no_other_awake() {
    let cluster = Cluster::start(1, 3).await;
    let berths = &cluster.node(0).directory().berths;
    berths.set_trip(Some(group(0)));
    for _ in 0..2 {
        write_all(&cluster, 0..5, &[0, 1, 2]).await;
        until("the others sleep", || awake(cluster.node(0)) == 1).await;
    }
    berths.set_trip(None);
    cluster.all_asleep().await;
}

/// Begins an election in which nobody answers in time.
async fn elect_in_vain(node: &Network) {
    let directory = node.directory();
    let group = directory.group(GROUP);
    let replica = directory.wake(&group).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(6);
    let lead = replica.find_leader(deadline, None, |_| false).await;
    assert_eq!(lead, Lead::Nobody);
    drop(replica);
    directory.forget_idle(group);
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// It deposes a leader that had yet to send a voter what was decided. No link goes down or comes
/// up, so nobody is reminded of it.
#[tokio::test(start_paused = true)]
async fn an_election_that_was_given_up_leaves_nobody_deaf() {
    for seed in 0..4 {
        let cluster = Cluster::start(seed, 3).await;
        let [first, second, third] = cluster.order(GROUP)[..] else {
            panic!("three voters");
        };
        let waits = cluster.node(third).open(GROUP);
        online(waits.view()).await;
        let berths = &cluster.node(third).directory().berths;
        berths.limit(0);
        propose(cluster.node(first), 7).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        // The leader hears nothing and falls silent, so that others may elect.
        cluster.net.drop_replies(addr(second), addr(first));
        cluster.disks[first].hold_syncs();
        elect_in_vain(cluster.node(second)).await;
        let peers = cluster.node(first).directory().peers();
        assert_eq!(peers.linked_voters().len(), 2);
        cluster.net.heal_all();
        cluster.disks[first].release_syncs();
        berths.limit(Limits::default().awake_groups_max);
        assert!(waits.view().record().is_none());
        let told = || waits.view().record().is_some();
        until("everyone is told", told).await;
        cluster.all_asleep().await;
        have_all_applied(&cluster, 3..4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_in_which_nothing_was_offered_sleeps_without_a_leader() {
    for seed in 0..4 {
        let cluster = Cluster::start(seed, 3).await;
        let order = cluster.order(GROUP);
        for other in [0, 2] {
            cluster.disks[order[other]].hold_syncs();
        }
        elect_in_vain(cluster.node(order[1])).await;
        for other in [0, 2] {
            cluster.disks[order[other]].release_syncs();
        }
        cluster.all_asleep().await;
        for node in cluster.up() {
            assert_eq!(status(node, GROUP).await.0, Some(LogPosition::GENESIS));
        }
    }
}

/// When its link came up there was no mark, so nobody would help it.
#[tokio::test(start_paused = true)]
async fn a_voter_whose_link_comes_back_while_the_leader_falls_asleep_is_not_left_behind() {
    bear_by_instance(ByInstance::All);
    let hop = Duration::from_millis(100);
    let mut came_in_between = 0;
    for offset in 0..12 {
        let cluster = Cluster::start(offset, 3).await;
        let [first, _, third] = cluster.order(GROUP)[..] else {
            panic!("three voters");
        };
        cluster.net.isolate(addr(third));
        tokio::time::sleep(Duration::from_secs(5)).await;
        propose(cluster.node(first), 7).await.unwrap();
        cluster.net.set_delay(hop, hop);
        let berths = &cluster.node(third).directory().berths;
        berths.limit(0);
        let node = cluster.node(first);
        let group = node.directory().group(GROUP);
        let early = Duration::from_millis(IDLE_AFTER_MS - 1_000 + 60 * offset);
        tokio::time::sleep(early).await;
        cluster.net.heal_all();
        let away = cluster.node(third).node_id();
        let is_linked = || node.directory().peers().is_linked(away);
        until("the link is back", is_linked).await;
        if group.berth.changing.try_lock().is_err() {
            came_in_between += 1;
        }
        tokio::time::sleep(Duration::from_millis(3 * SWEEP_MS)).await;
        berths.limit(Limits::default().awake_groups_max);
        cluster.net.set_delay(Duration::ZERO, Duration::ZERO);
        // Longer than the pauses between two attempts to help it.
        tokio::time::sleep(Duration::from_secs(120)).await;
        cluster.all_asleep().await;
        have_all_applied(&cluster, 3..4).await;
    }
    assert!(came_in_between > 0, "the moment was missed");
}

/// A mark that is being written says more than what the voter answered before.
#[tokio::test(start_paused = true)]
async fn no_mark_is_deleted_while_its_group_falls_asleep_or_wakes() {
    let cluster = Cluster::start(1, 3).await;
    let [first, second, third] = cluster.order(GROUP)[..] else {
        panic!("three voters");
    };
    cluster.net.isolate(addr(third));
    tokio::time::sleep(Duration::from_secs(5)).await;
    propose(cluster.node(first), 7).await.unwrap();
    until("it is marked", || marked(&cluster, third) == 1).await;
    cluster.all_asleep().await;
    let group = cluster.node(first).directory().group(GROUP);
    let changing = group.berth.changing.lock().await;
    cluster.net.heal_all();
    cluster.met().await;
    // So that it has all that is held by the one that marked it.
    propose(cluster.node(second), 8).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (last, applied) = status(cluster.node(third), GROUP).await;
    assert!(applied > Some(LogPosition::GENESIS) && last == applied);
    assert_eq!(marked(&cluster, third), 1);
    drop(changing);
    until("no mark is left", || marked(&cluster, third) == 0).await;
    cluster.all_asleep().await;
}

/// What was found when the others were asked has to be so still when the instance is stopped.
#[tokio::test(start_paused = true)]
async fn a_leader_falls_asleep_only_as_it_was_when_the_others_were_asked() {
    bear_by_instance(ByInstance::All);
    let cluster = Cluster::start(1, 3).await;
    let first = cluster.order(GROUP)[0];
    propose(cluster.node(first), 7).await.unwrap();
    let directory = cluster.node(first).directory();
    let group = directory.group(GROUP);
    let changing = group.berth.changing.lock().await;
    tokio::time::sleep(2 * Duration::from_millis(IDLE_AFTER_MS)).await;
    let checked = directory
        .check(&group)
        .await
        .unwrap()
        .expect("it may sleep");
    let replica = group.awake().unwrap();
    assert_eq!(checked.voters.len(), 2);
    assert!(checked.leads && directory.is_as_checked(&replica, &checked));
    for missing in checked.voters.clone() {
        let mut before = checked.clone();
        before.voters.retain(|voter| *voter != missing);
        assert!(!directory.is_as_checked(&replica, &before), "a new link");
    }
    let mut before = checked.clone();
    before.last = Some(LogPosition::GENESIS);
    assert!(!directory.is_as_checked(&replica, &before), "a new entry");
    before = checked.clone();
    before.leads = false;
    assert!(!directory.is_as_checked(&replica, &before), "a new leader");
    replica.touch();
    assert!(!directory.is_as_checked(&replica, &checked), "a new use");
    drop((replica, changing));
    cluster.all_asleep().await;
}

/// It is queued for the disk, so a load that did not wait for it would find a newborn group.
#[tokio::test(start_paused = true)]
async fn a_birth_that_was_given_up_is_where_the_next_instance_begins() {
    bear_by_instance(ByInstance::All);
    let mut born = 0;
    for polls in 0..20 {
        let cluster = Cluster::start(polls, 3).await;
        let first = cluster.order(GROUP)[0];
        let node = cluster.node(first);
        cluster.disks[first].hold_syncs();
        let mut given_up = Box::pin(propose(node, 1));
        for _ in 0..=polls {
            assert!(futures::poll!(given_up.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        drop(given_up);
        let group = node.directory().group(GROUP);
        let is_born = group.berth.changing.lock().await.end().is_some();
        let again = propose_aside(node, GROUP, 2);
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.disks[first].release_syncs();
        let decided = value(&again.await.unwrap().expect("all are well"));
        assert_eq!(decided, if is_born { 1 } else { 2 }, "polled {polls} times");
        born += u64::from(is_born);
        drop(group);
        cluster.all_asleep().await;
    }
    assert!(born > 0);
}

/// It answered every message; after a power cut it would not know that the entry is committed.
#[tokio::test(start_paused = true)]
async fn a_leader_stays_awake_while_a_voter_has_applied_its_last_entry_in_memory_alone() {
    let cluster = Cluster::start(1, 3).await;
    let [first, _, third] = cluster.order(GROUP)[..] else {
        panic!("three voters");
    };
    let hop = Duration::from_millis(5);
    cluster.net.set_delay(hop, hop);
    propose(cluster.node(first), 7).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    propose(cluster.node(first), 8).await.unwrap();
    // It has synced the entry, and is about to be told that it is committed.
    cluster.disks[third].hold_syncs();
    tokio::time::sleep(3 * Duration::from_millis(IDLE_AFTER_MS)).await;
    let (last, applied) = status(cluster.node(third), GROUP).await;
    assert_eq!(applied, last);
    let group = cluster.node(first).directory().group(GROUP);
    let replica = group.awake().expect("it stays awake");
    assert!(!replica.owes_notice());
    drop((replica, group));
    cluster.disks[third].release_syncs();
    cluster.all_asleep().await;
    have_all_applied(&cluster, 3..4).await;
}
