//! Schedules with restarts, lost disks and cut links that broke drafts of this design.

use super::cluster::{Cluster, propose_aside, until};
use super::schedules::set;
use super::*;

const VALUE_BYTES: usize = 3 * 1024 * 1024;

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// Has the group led in a term that was elected, with nothing decided.
async fn warm(node: &Network) {
    let interest = node.open(GROUP);
    let touch = Command::Touch {
        slot: vec![],
        id: node.proposal_id(b"warm"),
    };
    let directory = node.directory();
    let touched = directory.propose(interest.group(), touch, deadline());
    touched.await.unwrap();
}

fn leader(cluster: &Cluster) -> usize {
    let leads = |n: &usize| {
        let group = cluster.node(*n).directory().known(GROUP);
        group.is_some_and(|group| group.awake().is_some_and(|replica| replica.leads()))
    };
    (0..cluster.count()).find(leads).expect("somebody leads")
}

async fn all_say(cluster: &Cluster, expected: u8) {
    for node in cluster.up() {
        assert_eq!(value(&propose(node, 99).await.unwrap()), expected);
    }
}

fn trouble(node: &Network, n: usize) -> String {
    let status = node.status();
    let voter = status.voters.iter().find(|voter| voter.name == NAMES[n]);
    voter.unwrap().trouble.clone().unwrap_or_default()
}

async fn is_refused(cluster: &Cluster, n: usize, words: &str) {
    for other in (0..cluster.count()).filter(|other| *other != n) {
        let node = cluster.node(other);
        until("the voter is refused", || trouble(node, n).contains(words)).await;
        assert!(trouble(node, n).contains("refused for good"));
    }
}

/// The followers committed what the leader itself lost. Restored as the leader of its term, it
/// would write something else at the same place.
#[tokio::test(start_paused = true)]
async fn a_leader_that_lost_its_unsynced_tail_does_not_go_on_as_leader() {
    let mut lost = 0;
    for seed in 0..12 {
        let mut cluster = Cluster::start(seed, 3).await;
        warm(cluster.node(0)).await;
        let leads = leader(&cluster);
        cluster.disks[leads].hold_syncs();
        let written = propose(cluster.node(leads), 42).await;
        assert_eq!(value(&written.unwrap()), 42, "two of three have it");
        cluster.cut_power(leads);
        cluster.power_up(leads).await;
        cluster.met().await;
        // It has had the time to take itself for the leader that it was.
        let directory = cluster.node(leads).directory();
        let replica = directory.wake(&directory.group(GROUP)).await.unwrap();
        let (_, last, _) = replica.status();
        lost += usize::from(last.unwrap().index < 3);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!replica.leads(), "seed {seed}");
        let again = propose(cluster.node(leads), 43).await;
        assert_eq!(value(&again.unwrap()), 42, "seed {seed}");
        all_say(&cluster, 42).await;
    }
    assert!((1..12).contains(&lost), "{lost} of 12 tails were lost");
}

/// Its copy was taken in the very start that its peers know, and written to since.
#[tokio::test(start_paused = true)]
async fn a_leader_restarted_from_an_older_copy_of_its_disk_is_refused_for_good() {
    for seed in 0..6 {
        let mut cluster = Cluster::start(seed, 3).await;
        warm(cluster.node(0)).await;
        let leads = leader(&cluster);
        let copy = cluster.disks[leads].copy();
        let (near, far) = ((leads + 1) % 3, (leads + 2) % 3);
        for _ in 0..3 {
            assert_eq!(value(&propose(cluster.node(leads), 42).await.unwrap()), 42);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // All at once: nobody has the time to write down what it only heard.
        cluster.kill(leads);
        cluster.cut_power(near);
        cluster.cut_power(far);
        cluster.disks[leads] = copy;
        // Started in vain a few times, its log outgrows what the others remember.
        cluster.net.isolate(addr(leads));
        for _ in 0..20 {
            cluster.power_up(leads).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.kill(leads);
        }
        for n in [leads, near, far] {
            cluster.power_up(n).await;
        }
        cluster.net.heal_all();
        is_refused(&cluster, leads, "was restored").await;
        assert_eq!(propose(cluster.node(leads), 43).await, None);
        for rest in [near, far] {
            assert_eq!(value(&propose(cluster.node(rest), 44).await.unwrap()), 42);
        }
        // For good: another restart changes nothing.
        cluster.kill(leads);
        cluster.power_up(leads).await;
        is_refused(&cluster, leads, "was restored").await;
        assert_eq!(propose(cluster.node(leads), 43).await, None);
    }
}

/// Two processes live on from one disk.
#[tokio::test(start_paused = true)]
async fn a_clone_is_refused_once_the_original_has_started_again() {
    let mut cluster = Cluster::start(1, 3).await;
    assert_eq!(value(&propose(cluster.node(0), 42).await.unwrap()), 42);
    cluster.kill(2);
    let clone = cluster.disks[2].copy();
    cluster.power_up(2).await;
    cluster.met().await;
    cluster.kill(2);
    cluster.disks[2] = clone;
    cluster.power_up(2).await;
    is_refused(&cluster, 2, "restored or cloned").await;
    assert_eq!(propose(cluster.node(2), 43).await, None);
    assert_eq!(value(&propose(cluster.node(0), 44).await.unwrap()), 42);
}

/// The one that missed the value knows nothing of it, but it knows whose disk that was.
#[tokio::test(start_paused = true)]
async fn a_wiped_voter_and_the_one_that_missed_the_value_decide_nothing() {
    for wiped in 0..2 {
        let mut cluster = Cluster::start(1, 3).await;
        cluster.net.isolate(addr(2));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(value(&propose(cluster.node(0), 42).await.unwrap()), 42);
        cluster.kill(0);
        cluster.kill(1);
        cluster.disks[wiped] = crate::store::SimDisk::new(99);
        cluster.net.heal_all();
        cluster.power_up(wiped).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        for node in [wiped, 2] {
            assert_eq!(
                propose(cluster.node(node), 43).await,
                None,
                "wiped: {wiped}"
            );
        }
        cluster.power_up(1 - wiped).await;
        is_refused(&cluster, wiped, "wiped or replaced").await;
        for rest in [1 - wiped, 2] {
            assert_eq!(value(&propose(cluster.node(rest), 44).await.unwrap()), 42);
        }
        let waits_for = cluster.node(wiped).status().waiting_for;
        assert_eq!(waits_for.len(), 2, "{waits_for:?}");
    }
}

/// The leader dies after it has answered and before anyone heard that the entry is committed.
#[tokio::test(start_paused = true)]
async fn a_linearizable_read_sees_what_a_killed_leader_committed_and_nobody_applied() {
    for (seed, warmed) in (0..12).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut cluster = Cluster::start(seed, 3).await;
        if warmed {
            warm(cluster.node(0)).await;
        }
        let leads = match warmed {
            true => leader(&cluster),
            false => cluster.order(GROUP)[0],
        };
        let hop = Duration::from_millis(5);
        cluster.net.set_delay(hop, hop);
        let written = propose_aside(cluster.node(leads), GROUP, 42);
        assert_eq!(value(&written.await.unwrap().unwrap()), 42);
        cluster.kill(leads);
        let interests: Vec<_> = cluster.up().map(|node| node.open(GROUP)).collect();
        for interest in &interests {
            assert_eq!(interest.view().record(), None, "the notice came first");
        }
        for (node, interest) in cluster.up().zip(&interests) {
            let directory = node.directory();
            let state = directory.barrier(interest.group(), deadline()).await;
            let record = state.unwrap().record.expect("a stale read");
            assert_eq!(record.proposal.value[0], 42_u8, "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_lost_the_commit_notice_hears_of_it_after_a_long_idle_time() {
    for leader_dies in [false, true] {
        let mut cluster = Cluster::start(1, 3).await;
        warm(cluster.node(0)).await;
        let leads = leader(&cluster);
        let follower = (leads + 1) % 3;
        let interest = cluster.node(follower).open(GROUP);
        online(interest.view()).await;
        let hop = Duration::from_millis(5);
        cluster.net.set_delay(hop, hop);
        let written = propose_aside(cluster.node(leads), GROUP, 42);
        assert_eq!(value(&written.await.unwrap().unwrap()), 42);
        if leader_dies {
            cluster.kill(leads);
        } else {
            cluster.net.cut(addr(leads), addr(follower));
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        cluster.net.heal_all();
        let mut versions = interest.view().versions();
        let heard = versions.wait_for(|version| *version > Version::new(2));
        let heard = tokio::time::timeout(Duration::from_secs(60), heard).await;
        assert!(heard.is_ok(), "leader dies: {leader_dies}");
        assert_eq!(interest.view().record().unwrap().proposal.value[0], 42_u8);
    }
}

/// Everyone asks the preferred voter first, and its log is too short to win.
#[tokio::test(start_paused = true)]
async fn a_preferred_candidate_with_the_shorter_log_hands_over() {
    for seed in 0..6 {
        let mut cluster = Cluster::start(seed, 3).await;
        let order = cluster.order(GROUP);
        cluster.net.isolate(addr(order[0]));
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..3 {
            assert_eq!(
                value(&propose(cluster.node(order[1]), 42).await.unwrap()),
                42
            );
        }
        cluster.kill(order[1]);
        cluster.net.heal_all();
        for node in [order[0], order[2]] {
            let reply = propose(cluster.node(node), 43).await;
            assert_eq!(value(&reply.expect("a majority is up")), 42, "seed {seed}");
        }
    }
}

/// They see the third, and not each other.
#[tokio::test(start_paused = true)]
async fn two_voters_that_do_not_see_each_other_do_not_depose_each_other_in_turn() {
    for seed in 0..4 {
        let cluster = Cluster::start(seed, 3).await;
        let order = cluster.order(GROUP);
        cluster.net.cut(addr(order[0]), addr(order[1]));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let term = |n: usize| {
            cluster
                .node(n)
                .status()
                .cells
                .first()
                .map_or(0, |cell| cell.term)
        };
        let _open = cluster.node(order[2]).open(GROUP);
        propose(cluster.node(order[0]), 42).await.unwrap();
        propose(cluster.node(order[1]), 43).await.unwrap();
        let before = term(order[2]);
        for n in 0..40 {
            let reply = propose(cluster.node(order[n % 2]), 44).await;
            assert_eq!(value(&reply.expect("each sees a majority")), 42);
        }
        assert_eq!(term(order[2]), before, "seed {seed}: leaders were deposed");
    }
}

/// At this speed the message takes twice the time that an append without a value has.
#[tokio::test(start_paused = true)]
async fn an_append_that_takes_longer_than_an_append_may_is_given_the_time_that_it_needs() {
    let cluster = Cluster::start(1, 3).await;
    for slow in 0..2 {
        let group = GroupId::from_bytes([40 + slow; 32]);
        cluster.net.set_bytes_per_ms(4 * 1024);
        let node = cluster.node(slow as usize);
        let interest = node.open(group);
        let written = node.directory().propose(
            interest.group(),
            set(node, b"", vec![slow; VALUE_BYTES]),
            Instant::now() + Duration::from_secs(30),
        );
        let version = written.await.unwrap().version;
        for node in cluster.up() {
            let interest = node.open(group);
            let mut versions = interest.view().versions();
            let heard = versions.wait_for(|known| *known >= version);
            let heard = tokio::time::timeout(Duration::from_secs(60), heard).await;
            heard.expect("heard within a simulated minute").unwrap();
        }
    }
}

/// Two instances of one group over one store could vote twice in a term.
#[tokio::test(start_paused = true)]
async fn a_group_that_is_woken_from_all_sides_has_one_instance() {
    for seed in 0..20 {
        let cluster = Cluster::start(seed, 3).await;
        let node = cluster.node(0);
        let directory = node.directory();
        let group = directory.group(GROUP);
        let waking = (0..20).map(|n| {
            let (directory, group) = (directory.clone(), group.clone());
            let node = node.clone();
            tokio::spawn(async move {
                match n % 3 {
                    0 => directory.wake(&group).await.ok(),
                    // Given up after a moment, wherever it is then.
                    1 => {
                        let moment = Duration::from_micros(n);
                        let woken = tokio::time::timeout(moment, directory.wake(&group)).await;
                        woken.ok()?.ok()
                    }
                    _ => {
                        propose(&node, n as u8).await.unwrap();
                        group.awake()
                    }
                }
            })
        });
        let woken = futures::future::join_all(waking.collect::<Vec<_>>()).await;
        let mut woken = woken.into_iter().filter_map(|woken| woken.unwrap());
        let first = woken.next().unwrap();
        assert!(woken.all(|replica| std::sync::Arc::ptr_eq(&replica, &first)));
    }
}

/// What makes it a voter is given up half way, at every step of its admission.
#[tokio::test(start_paused = true)]
async fn a_voter_whose_disk_hangs_at_its_first_start_votes_when_it_goes_on() {
    let ms = Duration::from_millis;
    for moment in 0..60 {
        let cluster = Cluster::begin(1, 3).await;
        cluster.net.set_delay(ms(3), ms(3));
        tokio::time::sleep(ms(moment)).await;
        for disk in &cluster.disks {
            disk.hold_syncs();
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        for disk in &cluster.disks {
            disk.release_syncs();
        }
        cluster.met().await;
    }
}
