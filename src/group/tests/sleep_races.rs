//! Whatever happens while a group falls asleep or wakes: one instance, one value, nothing lost.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::cluster::{Cluster, propose_aside, until, woken};
use super::*;
use crate::group::sleep::{IDLE_AFTER_MS, SWEEP_MS};

/// The latest moment at which a replica that is idle from now on begins to fall asleep.
const ASLEEP_BY_MS: u64 = IDLE_AFTER_MS + SWEEP_MS;

async fn all_say(cluster: &Cluster, expected: u8) {
    for node in cluster.up() {
        let reply = propose(node, 99).await.expect("a majority is up");
        assert_eq!(value(&reply), expected);
    }
}

/// Until the replica, which was used just now, begins to fall asleep: from there on the caller goes
/// poll by poll.
async fn until_a_sweep(node: &Network) {
    tokio::time::sleep(Duration::from_millis(IDLE_AFTER_MS - 10)).await;
    for _ in 0..SWEEP_MS + 100 {
        tokio::time::advance(Duration::from_millis(1)).await;
        let group = node.directory().group(GROUP);
        assert!(group.awake().is_some(), "it fell asleep unseen");
        for _ in 0..20 {
            if group.berth.changing.try_lock().is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
    panic!("nothing falls asleep");
}

#[tokio::test(start_paused = true)]
async fn writes_at_the_moment_of_falling_asleep_find_one_value() {
    let (mut slept, mut acknowledged) = (0, 0);
    for seed in 0..20 {
        let cluster = Cluster::start(seed, [3, 3, 5, 1][seed as usize % 4]).await;
        let mut chance = StdRng::seed_from_u64(seed);
        let max = Duration::from_millis(chance.random_range(0..4));
        cluster.net.set_delay(Duration::ZERO, max);
        propose(cluster.node(0), 1).await.unwrap();
        for round in 0..12_u8 {
            // Idle for about as long as it takes.
            let idle = chance.random_range(IDLE_AFTER_MS - 20..ASLEEP_BY_MS + 40);
            tokio::time::sleep(Duration::from_millis(idle)).await;
            let mut waiting = Vec::new();
            for _ in 0..chance.random_range(1..6) {
                let n = chance.random_range(0..cluster.count());
                let proposed = propose_aside(cluster.node(n), GROUP, 100 + round);
                for _ in 0..chance.random_range(0..20) {
                    tokio::task::yield_now().await;
                }
                match chance.random_range(0..3) {
                    0 => proposed.abort(),
                    _ => waiting.push(proposed),
                }
            }
            for proposed in waiting {
                let reply = proposed.await.unwrap().expect("all are up");
                assert_eq!(value(&reply), 1, "seed {seed}");
                acknowledged += 1;
            }
        }
        cluster.all_asleep().await;
        slept += cluster.slept();
    }
    assert!(
        slept > 20 * 12 && acknowledged > 20 * 12,
        "{slept} {acknowledged}"
    );
}

/// The first write to a group, also given up half way, meets one that falls asleep: an empty
/// group that was woken to settle a read.
#[tokio::test(start_paused = true)]
async fn wakings_that_are_given_up_half_way_leave_one_instance() {
    bear_by_instance(ByInstance::All);
    for polls in 0..40 {
        let cluster = Cluster::start(polls, 3).await;
        let first = cluster.order(GROUP)[0];
        let node = cluster.node(first);
        propose(node, 1).await.unwrap();
        until_a_sweep(node).await;
        cluster.disks[first].hold_syncs();
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        // One is given up while the disk hangs; another waits.
        let mut given_up = Box::pin(propose(node, 2));
        for _ in 0..polls % 7 {
            if futures::poll!(given_up.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(given_up);
        let waits = propose_aside(node, GROUP, 3);
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.disks[first].release_syncs();
        assert_eq!(value(&waits.await.unwrap().unwrap()), 1);
        all_say(&cluster, 1).await;
        cluster.all_asleep().await;
    }
}

/// A disk that hangs while its voter falls asleep does not hold up those who can do without it.
#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_while_its_leader_falls_asleep_holds_up_no_write() {
    bear_by_instance(ByInstance::All);
    for polls in 0..40 {
        let cluster = Cluster::start(polls, 3).await;
        let first = cluster.order(GROUP)[0];
        let node = cluster.node(first);
        propose(node, 1).await.unwrap();
        until_a_sweep(node).await;
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        cluster.disks[first].hold_syncs();
        for n in 0..3 {
            let reply = propose(cluster.node(n), 2).await;
            assert_eq!(value(&reply.expect("two are well")), 1, "{polls}, {n}");
        }
        cluster.disks[first].release_syncs();
        cluster.all_asleep().await;
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    PowerCut,
    Shutdown,
}

/// Ends a voter at each step of falling asleep, and of waking up.
async fn ends_at_every_step(waking: bool) {
    let mut ended_awake = [0, 0];
    for polls in 0..40 {
        // Each end meets the leader and a follower, with and without a disk that hangs.
        let victim = polls as usize % 2;
        let ends = [End::Kill, End::PowerCut, End::Shutdown];
        let end = ends[polls as usize % ends.len()];
        let mut cluster = Cluster::start(polls, 3).await;
        let victim = cluster.order(GROUP)[victim];
        let node = cluster.node(victim).clone();
        propose(cluster.node(0), 1).await.unwrap();
        let mut waking_write = None;
        if waking {
            cluster.all_asleep().await;
            waking_write = Some(propose_aside(&node, GROUP, 2));
        } else {
            until_a_sweep(&node).await;
        }
        if polls % 5 == 4 {
            cluster.disks[victim].hold_syncs();
        }
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        let is_awake = node.directory().group(GROUP).awake().is_some();
        ended_awake[usize::from(is_awake)] += 1;
        match end {
            End::Kill => cluster.kill(victim),
            End::PowerCut => cluster.cut_power(victim),
            End::Shutdown => {
                let group = node.directory().group(GROUP);
                cluster.disks[victim].release_syncs();
                let stopped = tokio::time::timeout(Duration::from_secs(10), node.shutdown());
                stopped.await.expect("an orderly end");
                let past = group.berth.changing.lock().await;
                assert!(past.end().is_none_or(|end| end.is_reached()));
                cluster.kill(victim);
            }
        }
        drop(node);
        if let Some(write) = waking_write {
            write.abort();
        }
        cluster.power_up(victim).await;
        cluster.met().await;
        all_say(&cluster, 1).await;
        cluster.all_asleep().await;
    }
    assert!(
        ended_awake.iter().all(|times| *times > 0),
        "{ended_awake:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_voter_may_end_at_any_step_of_falling_asleep() {
    bear_by_instance(ByInstance::All);
    ends_at_every_step(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_may_end_at_any_step_of_waking() {
    ends_at_every_step(true).await;
}

/// What an instance has queued is part of what the next one loads.
#[tokio::test(start_paused = true)]
async fn a_group_that_wakes_again_has_all_that_it_had() {
    let cluster = Cluster::start(1, 3).await;
    let mut last = propose(cluster.node(0), 1).await.unwrap().version;
    for n in 0..30 {
        // Enough for a snapshot and a purge now and then.
        for _ in 0..10 {
            let reply = propose(cluster.node(n % 3), 2).await.unwrap();
            assert_eq!(value(&reply), 1);
            assert!(reply.version > last);
            last = reply.version;
        }
        cluster.all_asleep().await;
        for node in cluster.up() {
            let woken_before = woken(node);
            let directory = node.directory();
            let group = directory.group(GROUP);
            let replica = directory.wake(&group).await.unwrap();
            assert_eq!(replica.status().0.version, last);
            assert_eq!(woken(node), woken_before + 1);
            drop(replica);
            directory.forget_idle(group);
        }
    }
    until("it is asleep again", || {
        cluster
            .up()
            .all(|node| node.directory().berths.count().0 == 0)
    })
    .await;
}
