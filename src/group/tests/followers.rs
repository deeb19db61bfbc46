//! Many groups that one node follows: few tasks, few messages, and nothing missed.

use futures::StreamExt;

use super::cluster::until;
use super::schedules::{observer, set, settled, tail_of};
use super::*;
use crate::group::Interest;
use crate::group::raft::StoredPayload;
use crate::group::wire::{GROUPS_A_FRAME, RECORD_BYTES_A_FRAME};
use crate::{OnceConfig, OnceMap};

fn group(n: usize) -> GroupId {
    GroupId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn open(node: &Network, count: usize) -> Vec<Interest> {
    (0..count).map(|n| node.open(group(n))).collect()
}

async fn all_online(interests: &[Interest]) {
    until("all are online", || {
        interests.iter().all(|interest| interest.view().is_online())
    })
    .await;
}

async fn all_know(interests: &[Interest]) {
    until("all know the value", || {
        let mut records = interests.iter().map(|interest| interest.view().record());
        records.all(|record| record.is_some())
    })
    .await;
}

/// Decides groups through a voter, all at once.
async fn decide(node: &Network, groups: impl Iterator<Item = usize>, bytes: usize) {
    let written = groups.map(|n| async move {
        let interest = node.open(group(n));
        let command = set(node, b"", vec![n as u8; bytes]);
        let deadline = Instant::now() + Duration::from_secs(20);
        let written = node.directory();
        let written = written.propose(interest.group(), command, deadline);
        written.await.unwrap();
    });
    futures::future::join_all(written).await;
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// A frame to the voter and back, and one barrier of the voter, which asks two others.
const MESSAGES_A_FRAME: u64 = 2 + 4;

#[tokio::test(start_paused = true)]
async fn ten_thousand_cells_are_opened_and_closed_in_a_few_frames() {
    const COUNT: usize = 10_000;
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let (sent, before) = (net.counts().delivered, tasks());
    let interests = open(&observer, COUNT);
    assert!(tasks() <= before + 1, "one task for all of them");
    all_online(&interests).await;
    // Each voter has a third of them, and a last frame that is not full.
    let frames = (COUNT / GROUPS_A_FRAME + 3) as u64;
    let opened = net.counts().delivered - sent;
    assert!(opened <= frames * MESSAGES_A_FRAME, "{opened} messages");
    // Whoever looks whether voters are heard is gone by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(tasks(), before + 3, "one task for each voter that tells it");

    let sent = net.counts().delivered;
    drop(interests);
    assert!(tasks() <= before + 4, "one task for all of them");
    until("nothing is left of them", || {
        let mut nodes = nodes.iter().chain([&observer]);
        nodes.all(|node| node.directory().known_groups() == (0, 0))
    })
    .await;
    let closed = net.counts().delivered - sent;
    assert!(closed <= frames * 2, "{closed} messages");
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_is_opened_alone_waits_for_two_round_trips() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let hop = Duration::from_millis(20);
    net.set_delay(hop, hop);
    for n in 0..4 {
        let began = Instant::now();
        let interest = observer.open(group(n));
        online(interest.view()).await;
        assert!(began.elapsed() <= 4 * hop + Duration::from_millis(1));
        // What comes while others are on their way does not wait for them.
        let others: Vec<_> = (0..3)
            .map(|m| observer.open(group(10 + 4 * n + m)))
            .collect();
        tokio::time::sleep(hop / 2).await;
        let began = Instant::now();
        let late = observer.open(group(100 + n));
        online(late.view()).await;
        assert!(began.elapsed() <= 4 * hop + Duration::from_millis(1));
        all_online(&others).await;
    }
}

#[tokio::test(start_paused = true)]
async fn decided_cells_come_online_with_their_values_whatever_they_weigh() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    decide(&nodes[0], 0..300, 10).await;
    decide(&nodes[0], 300..330, RECORD_BYTES_A_FRAME / 4).await;
    decide(&nodes[0], 330..332, 3 * RECORD_BYTES_A_FRAME).await;
    let observer = observer(&net, &nodes).await;
    let interests = open(&observer, 332);
    for interest in &interests {
        online(interest.view()).await;
        assert!(interest.view().record().is_some());
    }
    // They were answered, so nobody pushed them as well.
    let pushed = |node: &Network| node.directory().counts.updates_pushed.get();
    assert_eq!(nodes.iter().map(pushed).sum::<u64>(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_decided_at_once_is_told_in_a_few_frames() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let interests = open(&observer, 400);
    all_online(&interests).await;
    // Nothing reaches the observer before all is decided.
    for n in 0..3 {
        net.cut(addr(n), observer.local_addr());
    }
    decide(&nodes[0], 0..400, 10).await;
    // Voters tell each other, too.
    until("all are asleep", || {
        let mut nodes = nodes.iter();
        nodes.all(|node| node.directory().berths.count().0 == 0)
    })
    .await;
    let sent = net.counts().delivered;
    for n in 0..3 {
        net.heal(addr(n), observer.local_addr());
    }
    all_know(&interests).await;
    let told = net.counts().delivered - sent;
    assert!(told <= 100, "{told} messages");
}

/// A record that does not fit beside others goes alone, and holds up none of them.
#[tokio::test(start_paused = true)]
async fn large_and_small_values_are_pushed() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let interests = open(&observer, 60);
    all_online(&interests).await;
    let small = decide(&nodes[0], (0..60).filter(|n| n % 3 > 0), 10);
    let large = decide(
        &nodes[1],
        (0..60).filter(|n| n % 3 == 0),
        RECORD_BYTES_A_FRAME,
    );
    tokio::join!(small, large);
    all_know(&interests).await;
}

#[tokio::test(start_paused = true)]
async fn many_cells_move_from_a_lost_voter_and_miss_nothing() {
    for gone in 0..3 {
        let net = SimNet::new(gone as u64);
        let nodes = settled(&net, 3).await;
        let observer = observer(&net, &nodes).await;
        let interests = open(&observer, 600);
        all_online(&interests).await;
        net.isolate(addr(gone));
        decide(&nodes[(gone + 1) % 3], 0..300, 10).await;
        all_online(&interests).await;
        all_know(&interests[..300]).await;
        decide(&nodes[(gone + 2) % 3], 300..600, 10).await;
        all_know(&interests).await;
        net.heal_all();
    }
}

/// The voter that leads is out of sight of another one, where the observer follows.
#[tokio::test(start_paused = true)]
async fn a_voter_follows_many_cells_around_a_gap() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let interests = open(&observer, 300);
    let own = open(&nodes[0], 300);
    all_online(&interests).await;
    all_online(&own).await;
    net.cut(addr(0), addr(1));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = tasks();
    decide(&nodes[2], 0..300, 10).await;
    all_know(&interests).await;
    all_know(&own).await;
    net.heal_all();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(tasks() <= before + 10, "{} after {before}", tasks());
}

/// One of many needs a leader: the others do not wait for it.
#[tokio::test(start_paused = true)]
async fn a_tail_is_settled_for_its_cell_alone() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let directory = nodes[2].directory().clone();
    let tail = directory.group(group(7));
    let replica = directory.wake(&tail).await.unwrap();
    let left = StoredPayload::Command(set(&nodes[0], b"", vec![7]));
    replica.answer(tail_of(&nodes[0], left)).await.unwrap();
    drop(replica);
    // Else one that has applied all of its log and one that knows nothing would do.
    net.isolate(addr(0));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let observer = Network::join_simulated(nodes[1].ticket(), &net)
        .await
        .unwrap();
    let interests = open(&observer, 50);
    all_online(&interests).await;
    assert_eq!(
        interests[7].view().record().unwrap().proposal.value[0],
        7_u8
    );
}

// -- maps -------------------------------------------------------------------------------------

fn open_map(node: &Network) -> OnceMap<u64, u64> {
    OnceMap::writer_with_config(node, "map", OnceConfig::new().type_name("u64"))
}

/// Voters that bring a handle online tell all followers what they find.
async fn open_maps(nodes: &[Network]) -> Vec<OnceMap<u64, u64>> {
    let maps: Vec<_> = nodes.iter().map(open_map).collect();
    for map in &maps {
        map.when().online().await;
    }
    maps
}

/// What voters have told those who follow there.
fn told(nodes: &[Network]) -> u64 {
    let pushed = |node: &Network| node.directory().counts.updates_pushed.get();
    nodes.iter().map(pushed).sum()
}

/// All voters write, to keys from here on.
async fn busy(nodes: &[Network], from: u64) {
    for n in 0..60 {
        open_map(&nodes[n as usize % nodes.len()])
            .write(from + n, n)
            .await
            .unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_one_key_of_a_busy_map_hears_of_no_other() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let map = open_map(&observer);
    map.when().online().await;
    let maps = open_maps(&nodes).await;
    busy(&nodes, 1_000).await;
    assert_eq!(told(&nodes), 0, "nobody waits for anything");
    let waiting = tokio::spawn({
        let map = map.clone();
        async move { map.wait(&7).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    busy(&nodes, 2_000).await;
    assert_eq!(told(&nodes), 0, "nobody waits for these");
    assert!(!waiting.is_finished());
    maps[1].write(7, 70).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(70));
    busy(&nodes, 3_000).await;
    assert_eq!(told(&nodes), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_range_is_told_of_the_range_and_after_it_of_nothing() {
    let net = SimNet::new(1);
    let nodes = settled(&net, 3).await;
    let observer = observer(&net, &nodes).await;
    let map = open_map(&observer);
    map.when().online().await;
    let _maps = open_maps(&nodes).await;
    let mut changes = map.changes(10..20);
    let reading = tokio::spawn(async move {
        let mut keys = Vec::new();
        while keys.len() < 10 {
            keys.push(changes.next().await.unwrap().unwrap().key);
        }
        keys
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    busy(&nodes, 1_000).await;
    assert_eq!(told(&nodes), 0);
    busy(&nodes, 0).await;
    assert_eq!(reading.await.unwrap(), (10..20).collect::<Vec<u64>>());
    let so_far = told(&nodes);
    assert!((1..=10).contains(&so_far), "{so_far}");
    // Whoever waits for any version is told of all, until nobody does.
    let version = map.version();
    let reached = map.when().reaches(Version::new(version.as_u64() + 100));
    let all = tokio::spawn(reached);
    busy(&nodes, 2_000).await;
    busy(&nodes, 3_000).await;
    assert!(all.await.unwrap().is_reached());
    let so_far = told(&nodes);
    assert!(so_far > 50, "{so_far}");
    busy(&nodes, 4_000).await;
    // The first one that nobody wanted.
    assert!(
        told(&nodes) <= so_far + 3,
        "{} after {so_far}",
        told(&nodes)
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_key_misses_it_at_no_voter() {
    for seed in 0..12 {
        let net = SimNet::new(seed);
        let nodes = settled(&net, 3).await;
        let observer = observer(&net, &nodes).await;
        let map = open_map(&observer);
        map.when().online().await;
        let mut waiting = Vec::new();
        // More than one follower may name one by one, and less.
        for key in 0..if seed % 2 == 0 { 5 } else { 100 } {
            let map = map.clone();
            waiting.push(tokio::spawn(async move { map.wait(&key).await }));
        }
        let gone = seed as usize % 3;
        tokio::time::sleep(Duration::from_millis(seed % 4)).await;
        net.isolate(addr(gone));
        tokio::time::sleep(Duration::from_millis(100 * seed)).await;
        let rest = [&nodes[(gone + 1) % 3], &nodes[(gone + 2) % 3]];
        for key in 0..waiting.len() as u64 {
            open_map(rest[key as usize % 2])
                .write(key, key)
                .await
                .unwrap();
        }
        for (key, waited) in waiting.into_iter().enumerate() {
            let waited = tokio::time::timeout(Duration::from_secs(60), waited).await;
            assert_eq!(waited.unwrap().unwrap(), Ok(key as u64), "seed {seed}");
        }
        net.heal_all();
    }
}

/// Keys are decided while it changes what is waited for.
#[tokio::test(start_paused = true)]
async fn nothing_is_missed_while_wishes_change() {
    for seed in 0..10 {
        let net = SimNet::new(seed);
        let nodes = settled(&net, 3).await;
        let observer = observer(&net, &nodes).await;
        net.set_delay(Duration::from_micros(100), Duration::from_millis(3));
        let map = open_map(&observer);
        let writers = nodes.iter().map(open_map).collect::<Vec<_>>();
        let write = async {
            for key in 0..60 {
                writers[key as usize % 3].write(key, key).await.unwrap();
            }
        };
        let wait = async {
            for key in 0..60 {
                let waited = tokio::time::timeout(Duration::from_secs(60), map.wait(&key)).await;
                assert_eq!(waited.expect("in vain"), Ok(key), "seed {seed}");
            }
        };
        tokio::join!(write, wait);
    }
}
