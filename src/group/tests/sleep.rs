//! Replicas that nobody uses fall asleep, and cost nothing until they are woken.

use super::cluster::{Cluster, propose_aside, until, woken};
use super::*;
use crate::group::raft::LogPosition;
use crate::group::sleep::IDLE_AFTER_MS;
use crate::group::wire::Response;
use crate::probe::{Bug, plant};

const LONG: Duration = Duration::from_secs(10 * 60);

pub(super) fn group(n: u8) -> GroupId {
    GroupId::from_bytes([n; 32])
}

pub(super) async fn write_all(cluster: &Cluster, groups: std::ops::Range<u8>, voters: &[usize]) {
    for n in groups {
        let node = cluster.node(voters[n as usize % voters.len()]);
        let reply = propose_to(node, group(n), n).await;
        assert_eq!(value(&reply.expect("a majority is up")), n);
    }
}

/// The end of the log and what is applied, of a replica that may sleep.
pub(super) async fn status(
    node: &Network,
    id: GroupId,
) -> (Option<LogPosition>, Option<LogPosition>) {
    let group = node.directory().group(id);
    match node.directory().own_status(&group).await {
        Some(Response::Status { last, applied, .. }) => (last, applied),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn have_all_applied(cluster: &Cluster, groups: std::ops::Range<u8>) {
    for n in groups {
        let (last, _) = status(cluster.node(0), group(n)).await;
        assert!(last > Some(LogPosition::GENESIS));
        for node in cluster.up() {
            assert_eq!(status(node, group(n)).await, (last, last), "group {n}");
        }
    }
}

pub(super) fn marked(cluster: &Cluster, voter: usize) -> usize {
    let id = NodeId::of_voter(NAMES[voter]);
    cluster.up().map(|node| node.directory().marked(id)).sum()
}

#[tokio::test(start_paused = true)]
async fn idle_replicas_fall_asleep_on_all_voters_and_their_handles_read_and_wait() {
    bear_by_instance(ByInstance::All);
    for count in [1, 3, 5] {
        let cluster = Cluster::start(1, count).await;
        let interests: Vec<_> = cluster.up().map(|node| node.open(GROUP)).collect();
        for interest in &interests {
            online(interest.view()).await;
        }
        let written = propose(cluster.node(0), 7).await.unwrap();
        tokio::time::sleep(Duration::from_millis(IDLE_AFTER_MS / 2)).await;
        assert!(cluster.up().all(|node| node.status().cells[0].awake));
        cluster.all_asleep().await;
        for (node, interest) in cluster.up().zip(&interests) {
            let cell = node.status().cells.remove(0);
            assert!(!cell.awake && cell.online && cell.decided, "{cell:?}");
            assert!(cell.term > 0 && cell.leader.is_some(), "{cell:?}");
            assert_eq!(cell.version, written.version);
            assert_eq!(interest.view().record().unwrap().proposal.value[0], 7_u8);
        }
        have_all_applied(&cluster, 3..4).await;
        // Whoever waits is told of the next write, and that one only wakes them for a while.
        let mut waiting: Vec<_> = interests.iter().map(|i| i.view().versions()).collect();
        let next = propose(cluster.node(count - 1), 8).await.unwrap();
        assert_eq!(value(&next), 7);
        for versions in &mut waiting {
            let told = versions.wait_for(|version| *version >= next.version);
            let told = tokio::time::timeout(Duration::from_secs(1), told).await;
            told.expect("told within a second").unwrap();
        }
        cluster.all_asleep().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_wakes_one_group_and_no_other() {
    let cluster = Cluster::start(1, 3).await;
    write_all(&cluster, 0..20, &[0, 1, 2]).await;
    cluster.all_asleep().await;
    let before: Vec<u64> = cluster.up().map(woken).collect();
    propose_to(cluster.node(1), group(4), 9).await.unwrap();
    for (node, before) in cluster.up().zip(&before) {
        let awake = node.directory().berths.all();
        assert!(awake.iter().all(|awake| awake.id() == group(4)));
        assert!(woken(node) <= before + 1);
    }
    cluster.all_asleep().await;
    for (node, before) in cluster.up().zip(&before) {
        assert_eq!(woken(node), before + 1, "each of three has the entry");
    }
}

#[tokio::test(start_paused = true)]
async fn sleeping_groups_cost_no_message_no_task_and_no_timer() {
    let cluster = Cluster::start(1, 3).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    tokio::time::sleep(LONG).await;
    let before = tasks();
    write_all(&cluster, 0..20, &[0, 1, 2]).await;
    assert!(tasks() > before);
    cluster.all_asleep().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(tasks(), before, "a task outlives its replica");
    let counts = cluster.net.counts();
    tokio::time::sleep(LONG).await;
    assert_eq!(cluster.net.counts(), counts);
}

/// Asking for what stands reads the disk.
#[tokio::test(start_paused = true)]
async fn opening_a_sleeping_cell_wakes_nobody() {
    let cluster = Cluster::start(1, 3).await;
    write_all(&cluster, 0..3, &[0, 1, 2]).await;
    cluster.all_asleep().await;
    let before: Vec<u64> = cluster.up().map(woken).collect();
    for node in cluster.up() {
        for n in 0..3 {
            let interest = node.open(group(n));
            online(interest.view()).await;
            assert_eq!(interest.view().record().unwrap().proposal.value[0], n);
        }
    }
    assert_eq!(cluster.up().map(woken).collect::<Vec<_>>(), before);
}

/// A follower whose disk hangs is in reach and has not got the entry. Whether the leader is still
/// awake long after it was used.
async fn stays_awake_for_a_voter_that_is_behind() -> bool {
    let cluster = Cluster::start(1, 3).await;
    let order = cluster.order(GROUP);
    propose(cluster.node(order[0]), 7).await.unwrap();
    cluster.all_asleep().await;
    cluster.disks[order[2]].hold_syncs();
    propose(cluster.node(order[0]), 8).await.unwrap();
    tokio::time::sleep(3 * Duration::from_millis(IDLE_AFTER_MS)).await;
    let is_awake = cluster.node(order[0]).directory().berths.count().0 > 0;
    assert_eq!(marked(&cluster, order[2]), 0);
    cluster.disks[order[2]].release_syncs();
    cluster.all_asleep().await;
    have_all_applied(&cluster, 3..4).await;
    is_awake
}

#[tokio::test(start_paused = true)]
async fn a_leader_stays_awake_until_every_voter_in_reach_has_applied_its_last_entry() {
    assert!(stays_awake_for_a_voter_that_is_behind().await);
}

/// Without the check: else the test above proved nothing.
#[tokio::test(start_paused = true)]
async fn a_leader_that_sleeps_too_early_is_found() {
    let _planted = plant(Bug::SleepsTooEarly);
    assert!(!stays_awake_for_a_voter_that_is_behind().await);
}

fn term(node: &Network) -> u64 {
    node.status().cells[0].term
}

/// Nothing of it is lost, so it needs no election; a crash says nothing of the kind.
#[tokio::test(start_paused = true)]
async fn a_leader_that_was_put_to_sleep_leads_on_and_one_that_crashed_in_its_sleep_does_not() {
    bear_by_instance(ByInstance::All);
    for crashes in [false, true] {
        let mut cluster = Cluster::start(1, 3).await;
        let leads = cluster.order(GROUP)[0];
        let interest = cluster.node(leads).open(GROUP);
        propose(cluster.node(leads), 7).await.unwrap();
        let before = term(cluster.node(leads));
        cluster.all_asleep().await;
        assert_eq!(term(cluster.node(leads)), before);
        if crashes {
            cluster.cut_power(leads);
            cluster.power_up(leads).await;
            cluster.met().await;
        }
        let again = cluster.node(leads).open(GROUP);
        assert_eq!(value(&propose(cluster.node(leads), 8).await.unwrap()), 7);
        let after = term(cluster.node(leads));
        assert_eq!(after > before, crashes, "{before} {after}");
        drop((interest, again));
    }
}

/// It slept through an election.
#[tokio::test(start_paused = true)]
async fn a_leader_that_was_deposed_in_its_sleep_decides_nothing() {
    for seed in 0..6 {
        let cluster = Cluster::start(seed, 3).await;
        let order = cluster.order(GROUP);
        let interests: Vec<_> = cluster.up().map(|node| node.open(GROUP)).collect();
        let touch = Command::Touch {
            slot: vec![],
            id: cluster.node(order[0]).proposal_id(b"warm"),
        };
        let deadline = || Instant::now() + Duration::from_secs(5);
        let interest = &interests[order[0]];
        let directory = cluster.node(order[0]).directory();
        directory
            .propose(interest.group(), touch, deadline())
            .await
            .unwrap();
        cluster.all_asleep().await;
        cluster.net.isolate(addr(order[0]));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(value(&propose(cluster.node(order[1]), 1).await.unwrap()), 1);
        cluster.net.heal_all();
        cluster.met().await;
        let replica = directory.wake(interest.group()).await.unwrap();
        assert_eq!(value(&propose(cluster.node(order[0]), 2).await.unwrap()), 1);
        drop(replica);
        cluster.all_asleep().await;
    }
}

/// The notice that an entry is committed is lost together with the leader.
#[tokio::test(start_paused = true)]
async fn a_follower_with_a_tail_has_it_settled_before_it_sleeps() {
    for seed in 0..6 {
        let mut cluster = Cluster::start(seed, 3).await;
        let first = cluster.order(GROUP)[0];
        let hop = Duration::from_millis(5);
        cluster.net.set_delay(hop, hop);
        let written = propose_aside(cluster.node(first), GROUP, 7).await;
        assert_eq!(value(&written.unwrap().unwrap()), 7);
        cluster.kill(first);
        cluster.all_asleep().await;
        for node in cluster.up() {
            let (last, applied) = status(node, GROUP).await;
            assert!(last > Some(LogPosition::GENESIS) && last == applied);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_away_catches_up_in_the_groups_it_missed_and_wakes_no_other() {
    for leaders_restart in [false, true] {
        let mut cluster = Cluster::start(1, 3).await;
        write_all(&cluster, 0..20, &[0, 1, 2]).await;
        cluster.all_asleep().await;
        cluster.net.isolate(addr(2));
        tokio::time::sleep(Duration::from_secs(5)).await;
        // Some that it knows, and some that it does not.
        write_all(&cluster, 15..30, &[0, 1]).await;
        for n in 0..2 {
            let node = cluster.node(n).clone();
            until("they sleep without it", || {
                node.directory().berths.count().0 == 0
            })
            .await;
        }
        assert_eq!(marked(&cluster, 2), 15, "by the leader of each");
        if leaders_restart {
            for n in 0..2 {
                cluster.cut_power(n);
            }
            for n in 0..2 {
                cluster.power_up(n).await;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(marked(&cluster, 2), 15);
        }
        let before: Vec<u64> = cluster.up().map(woken).collect();
        cluster.net.heal_all();
        cluster.met().await;
        until("it has caught up", || marked(&cluster, 2) == 0).await;
        have_all_applied(&cluster, 0..30).await;
        cluster.all_asleep().await;
        for (node, before) in cluster.up().zip(&before) {
            let woken = woken(node) - before;
            assert!(woken <= 15, "{woken} were woken for 15");
        }
        assert!(woken(cluster.node(2)) - before[2] == 15);
        // The next time there is nothing to do.
        let before: Vec<u64> = cluster.up().map(woken).collect();
        cluster.net.isolate(addr(2));
        tokio::time::sleep(Duration::from_secs(60)).await;
        cluster.net.heal_all();
        cluster.met().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.up().map(woken).collect::<Vec<_>>(), before);
    }
}

/// The voter comes back and leaves again before it has got anything.
#[tokio::test(start_paused = true)]
async fn a_mark_stays_until_the_voter_has_it_all() {
    let cluster = Cluster::start(1, 3).await;
    cluster.net.isolate(addr(2));
    tokio::time::sleep(Duration::from_secs(5)).await;
    write_all(&cluster, 0..10, &[0, 1]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(marked(&cluster, 2), 10);
    let hop = Duration::from_millis(20);
    cluster.net.set_delay(hop, hop);
    cluster.net.heal_all();
    let away = cluster.node(2).node_id();
    until("a link is back", || {
        let back = |n: usize| cluster.node(n).directory().peers().is_linked(away);
        back(0) || back(1)
    })
    .await;
    // An append takes longer to arrive.
    cluster.disks[2].hold_syncs();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(marked(&cluster, 2), 10);
    cluster.net.isolate(addr(2));
    tokio::time::sleep(Duration::from_secs(30)).await;
    cluster.disks[2].release_syncs();
    assert_eq!(marked(&cluster, 2), 10);
    cluster.net.heal_all();
    cluster.met().await;
    until("it has caught up", || marked(&cluster, 2) == 0).await;
    have_all_applied(&cluster, 0..10).await;
    cluster.all_asleep().await;
}

#[tokio::test(start_paused = true)]
async fn idle_replicas_make_room_where_few_more_may_be_awake() {
    let cluster = Cluster::start(1, 3).await;
    for node in cluster.up() {
        node.directory().berths.limit(4);
    }
    for n in 0..40 {
        let reply = propose_to(cluster.node(n as usize % 3), group(n), n).await;
        assert_eq!(value(&reply.expect("room within the write's patience")), n);
        assert!(
            cluster
                .up()
                .all(|node| node.directory().berths.count().0 <= 4)
        );
    }
    cluster.all_asleep().await;
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_group_is_forgotten_with_its_last_handle() {
    let cluster = Cluster::start(1, 3).await;
    write_all(&cluster, 0..20, &[0, 1, 2]).await;
    let kept = cluster.node(0).open(group(0));
    cluster.all_asleep().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let known: Vec<_> = cluster
        .up()
        .map(|node| node.directory().known_groups().0)
        .collect();
    assert_eq!(known, [1, 0, 0]);
    drop(kept);
}

/// Whoever looks at many groups holds them for a moment, and is not the last to need them.
#[tokio::test(start_paused = true)]
async fn groups_that_were_held_when_they_fell_asleep_are_forgotten_later() {
    bear_by_instance(ByInstance::All);
    let cluster = Cluster::start(1, 3).await;
    let directory = cluster.node(0).directory();
    for forgets in ["a sweep", "a look at the status"] {
        write_all(&cluster, 0..20, &[0, 1, 2]).await;
        let held = directory.berths.all();
        assert_eq!(held.len(), 20);
        cluster.all_asleep().await;
        assert!(directory.known_groups().0 >= 20);
        drop(held);
        if forgets == "a sweep" {
            write_all(&cluster, 20..21, &[0]).await;
            cluster.all_asleep().await;
        } else {
            cluster.node(0).status();
        }
        assert_eq!(directory.known_groups(), (0, 0), "{forgets}");
    }
}
