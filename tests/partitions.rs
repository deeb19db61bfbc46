//! What is promised while some nodes cannot see others.

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::*;
use futures::future::join_all;
use raft_once::testing::SimNet;
use raft_once::{Error, Network, OnceWriter, ReadError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const PAIRS: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];

/// Reads some handles all the time, and keeps every value that any of them ever showed.
struct Witness {
    seen: Arc<Mutex<BTreeSet<u32>>>,
    task: JoinHandle<()>,
}

impl Witness {
    fn of(cells: &[OnceWriter<u32>]) -> Self {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let (cells, kept) = (cells.to_vec(), seen.clone());
        let task = tokio::spawn(async move {
            loop {
                kept.lock()
                    .unwrap()
                    .extend(cells.iter().filter_map(|cell| cell.read()));
                tokio::time::sleep(ms(3)).await;
            }
        });
        Self { seen, task }
    }

    /// Nobody ever read anything but `value`.
    fn saw_only(self, value: u32) {
        self.task.abort();
        assert_eq!(*self.seen.lock().unwrap(), BTreeSet::from([value]));
    }
}

/// A write that must come back as `Offline`, with its value and in time.
async fn refused(cell: &OnceWriter<u32>, value: u32) {
    let started = Instant::now();
    match cell.write(value).await {
        Err(Error::Offline(back)) => assert_eq!(back, value),
        other => panic!("a minority cannot decide: {other:?}"),
    }
    let took = started.elapsed();
    assert!(took <= WRITE_TIMEOUT + ms(100), "{took:?}");
}

/// Ids of cells that voter `leader` leads when everyone is well. Which one that is depends on the
/// ids and the names of the voters only.
async fn ids_led_by(leader: usize, count: usize) -> Vec<String> {
    let scouts = Cluster::start(0, 3).await;
    let wanted = scouts.voters[leader].node_id();
    let mut ids = Vec::new();
    for n in 0.. {
        let id = format!("candidate {n}");
        let cell = OnceWriter::<u32>::writer(&scouts.voters[0], &id);
        cell.write(0).await.unwrap();
        let status = scouts.voters[0].status();
        let known = status
            .cells
            .iter()
            .find(|known| known.group == cell.group_id());
        if known.and_then(|known| known.leader) == Some(wanted) {
            ids.push(id);
        }
        if ids.len() == count {
            break;
        }
    }
    scouts.shutdown().await;
    ids
}

#[tokio::test(start_paused = true)]
async fn a_minority_hands_the_value_back_and_the_majority_decides() {
    for alone in 0..3 {
        for noticed in [false, true] {
            let cluster = Cluster::start(1, 3).await;
            let nodes = cluster.and_observer().await;
            let cells = writers(&nodes, "cell");
            all_online(&cells).await;
            let witness = Witness::of(&cells);
            cluster.net.isolate(addr(alone));
            if noticed {
                cluster.noticed(alone, (alone + 1) % 3).await;
                cluster.noticed(alone, (alone + 2) % 3).await;
            }
            let (minority, majority) = (&cells[alone], &cells[(alone + 1) % 3]);
            let ((), decided) = tokio::join!(refused(minority, 1), majority.write(2));
            decided.expect("the majority decides");
            refused(minority, 3).await;
            let rest: Vec<_> = (0..4)
                .filter(|n| *n != alone)
                .map(|n| cells[n].clone())
                .collect();
            assert_eq!(agreed(&rest).await, 2);
            assert!(minority.is_none(), "it cannot know");
            assert_eq!(minority.read_linearizable().await, Err(ReadError::Offline));
            cluster.heal().await;
            assert_eq!(agreed(&cells).await, 2);
            minority.write(4).await.expect("in touch again");
            assert_eq!(agreed(&cells).await, 2);
            witness.saw_only(2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_of_five_decide_nothing_and_three_do() {
    let cluster = Cluster::start(1, 5).await;
    for few in [[0, 1], [1, 3], [2, 4], [0, 4]] {
        let cells = writers(&cluster.voters, &format!("{few:?} are few"));
        all_online(&cells).await;
        let witness = Witness::of(&cells);
        let (few, many): (Vec<_>, Vec<_>) = (0..5).partition(|n| few.contains(n));
        for one in &few {
            many.iter().for_each(|other| cluster.cut(*one, *other));
        }
        let minority =
            async { tokio::join!(refused(&cells[few[0]], 10), refused(&cells[few[1]], 11)) };
        let majority = join_all(many.iter().map(|n| cells[*n].write(*n as u32)));
        let (_, written) = tokio::join!(minority, majority);
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        cluster.heal().await;
        let value = agreed(&cells).await;
        assert!(many.contains(&(value as usize)));
        witness.saw_only(value);
    }
}

#[tokio::test(start_paused = true)]
async fn writes_on_both_sides_of_a_cut_never_make_two_values() {
    for (side, moment) in [0, 1, 2].into_iter().flat_map(|side| {
        [0, 10, 30, 50, 70, 90, 120]
            .into_iter()
            .map(move |moment| (side, moment))
    }) {
        let cluster = Cluster::start(1, 3).await;
        cluster.net.set_delay(ms(10), ms(10));
        let nodes = cluster.and_observer().await;
        let cells = writers(&nodes, "cell");
        all_online(&cells).await;
        let witness = Witness::of(&cells);
        // Both are under way when the cut comes.
        let writes = [side, (side + 1) % 3].map(|n| {
            let cell = cells[n].clone();
            tokio::spawn(async move { cell.write(n as u32).await })
        });
        tokio::time::sleep(ms(moment)).await;
        cluster.net.isolate(addr(side));
        let [one, other] = writes;
        let one = within("the minority's write ends", WRITE_TIMEOUT + ms(500), one)
            .await
            .unwrap();
        let other = within("the majority's write ends", WRITE_TIMEOUT, other)
            .await
            .unwrap();
        other.expect("the majority's write is acknowledged");
        assert!(matches!(one, Ok(_) | Err(Error::Offline(_))), "{one:?}");
        cluster.heal().await;
        let value = agreed(&cells).await;
        assert!(value == side as u32 || value == (side as u32 + 1) % 3);
        witness.saw_only(value);
    }
}

/// Everyone writes, at once and then one by one, and everyone reads the same. `cells` is what the
/// nodes have of one cell.
async fn everyone_writes_and_agrees(cells: &[OnceWriter<u32>]) -> u32 {
    let witness = Witness::of(cells);
    let waiting: Vec<_> = cells
        .iter()
        .map(|cell| {
            let cell = cell.clone();
            tokio::spawn(async move { cell.await_value().await })
        })
        .collect();
    let writes = cells
        .iter()
        .enumerate()
        .map(|(n, cell)| cell.write(n as u32));
    for (n, written) in join_all(writes).await.into_iter().enumerate() {
        written.unwrap_or_else(|error| panic!("node {n} writes, with the others: {error:?}"));
    }
    for (n, cell) in cells.iter().enumerate() {
        let written = cell.write(50).await;
        written.unwrap_or_else(|error| panic!("node {n} writes, alone: {error:?}"));
    }
    let value = agreed(cells).await;
    for learned in within("all that waited", PATIENCE, join_all(waiting)).await {
        assert_eq!(learned.unwrap(), Ok(value));
    }
    witness.saw_only(value);
    value
}

async fn writes_around_a_gap(leader: usize) {
    let ids = ids_led_by(leader, 2).await;
    for (a, b) in PAIRS {
        for noticed in [false, true] {
            let cluster = Cluster::start(1, 3).await;
            let nodes = cluster.and_observer().await;
            let decided = writers(&nodes, &ids[0]);
            let fresh = writers(&nodes, &ids[1]);
            all_online(&decided).await;
            all_online(&fresh).await;
            decided[0].write(99).await.unwrap();
            assert_eq!(agreed(&decided).await, 99);

            cluster.cut(a, b);
            if noticed {
                cluster.noticed(a, b).await;
            }
            assert_eq!(everyone_writes_and_agrees(&decided).await, 99);
            assert!(everyone_writes_and_agrees(&fresh).await < 4);
            // A cell that was opened during the cut.
            let late = writers(&nodes, "late");
            everyone_writes_and_agrees(&late).await;
            cluster.heal().await;
            for cells in [&decided, &fresh, &late] {
                everyone_writes_again(cells).await;
            }
        }
    }
}

async fn everyone_writes_again(cells: &[OnceWriter<u32>]) {
    let value = agreed(cells).await;
    for cell in cells {
        cell.write(60).await.expect("all is well");
    }
    assert_eq!(agreed(cells).await, value);
}

#[tokio::test(start_paused = true)]
async fn two_voters_that_do_not_see_each_other_still_write_when_the_first_leads() {
    writes_around_a_gap(0).await;
}

#[tokio::test(start_paused = true)]
async fn two_voters_that_do_not_see_each_other_still_write_when_the_second_leads() {
    writes_around_a_gap(1).await;
}

#[tokio::test(start_paused = true)]
async fn two_voters_that_do_not_see_each_other_still_write_when_the_third_leads() {
    writes_around_a_gap(2).await;
}

#[tokio::test(start_paused = true)]
async fn waiters_on_a_voter_that_does_not_see_the_leader_learn_the_decision() {
    for leader in 0..3 {
        let ids = ids_led_by(leader, 8).await;
        for (a, b) in PAIRS {
            let cluster = Cluster::start(1, 3).await;
            let nodes = cluster.and_observer().await;
            let mut ids = ids.iter();
            for noticed in [true, false] {
                for writer in 0..4 {
                    let cells = writers(&nodes, ids.next().unwrap());
                    all_online(&cells).await;
                    let waiting = cells.iter().map(|cell| {
                        let cell = cell.clone();
                        tokio::spawn(async move { cell.await_value().await })
                    });
                    let waiting: Vec<_> = waiting.collect();
                    cluster.cut(a, b);
                    if noticed {
                        cluster.noticed(a, b).await;
                    }
                    // One write, and nothing else that would bring the news about.
                    cells[writer].write(writer as u32).await.unwrap();
                    for (n, wait) in waiting.into_iter().enumerate() {
                        let what = format!(
                            "node {n} learns what node {writer} wrote, {leader} preferred, \
                             {a} and {b} cut, noticed: {noticed}"
                        );
                        let value = within(&what, PATIENCE, wait).await.unwrap();
                        assert_eq!(value, Ok(writer as u32));
                    }
                    cluster.heal().await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_one_way_stops_nobody() {
    for leader in 0..3 {
        let ids = ids_led_by(leader, 2).await;
        for (from, to) in PAIRS.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            let cluster = Cluster::start(1, 3).await;
            let nodes = cluster.and_observer().await;
            let decided = writers(&nodes, &ids[0]);
            let fresh = writers(&nodes, &ids[1]);
            all_online(&decided).await;
            all_online(&fresh).await;
            decided[0].write(99).await.unwrap();
            cluster.net.cut_one_way(addr(from), addr(to));
            assert!(everyone_writes_and_agrees(&fresh).await < 4);
            assert_eq!(everyone_writes_and_agrees(&decided).await, 99);
            cluster.noticed(from, to).await;
            assert_eq!(everyone_writes_and_agrees(&decided).await, 99);
            cluster.heal().await;
            everyone_writes_again(&fresh).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_nobody_hears_decides_nothing_and_stops_nobody() {
    for mute in 0..3 {
        for deaf in [false, true] {
            let cluster = Cluster::start(1, 3).await;
            let nodes = cluster.and_observer().await;
            let cells = writers(&nodes, "cell");
            all_online(&cells).await;
            let witness = Witness::of(&cells);
            for other in (0..3).filter(|other| *other != mute) {
                match deaf {
                    false => cluster.net.cut_one_way(addr(mute), addr(other)),
                    true => cluster.net.cut_one_way(addr(other), addr(mute)),
                }
            }
            let rest: Vec<_> = (0..4)
                .filter(|n| *n != mute)
                .map(|n| cells[n].clone())
                .collect();
            // A deaf one is heard once more, so that its write may win; no more can be said.
            let write = cells[mute].clone();
            let write = tokio::spawn(async move { write.write(7).await });
            for cell in &rest {
                cell.write(8).await.expect("the others are a majority");
            }
            let write = within("its write ends", WRITE_TIMEOUT + ms(500), write)
                .await
                .unwrap();
            assert!(matches!(write, Err(Error::Offline(7))), "{write:?}");
            let value = agreed(&rest).await;
            assert!(value == 8 || (deaf && value == 7));
            cluster.heal().await;
            assert_eq!(agreed(&cells).await, value);
            witness.saw_only(value);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_loses_its_voter_moves_to_another() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let observer = nodes[3].local_addr();
    for round in 0..4 {
        for lost in 0..3 {
            // Either the observer loses the voter, or the voter its majority.
            for how in [
                "cut from the observer",
                "cut from the voters",
                "cut from all",
            ] {
                let cells = writers(&nodes, &format!("{round}: {lost} is {how}"));
                all_online(&cells).await;
                let waiting = cells[3].clone();
                let waiting = tokio::spawn(async move { waiting.await_value().await });
                match how {
                    "cut from the observer" => cluster.net.cut(observer, addr(lost)),
                    "cut from all" => cluster.net.isolate(addr(lost)),
                    _ => {
                        cluster.net.isolate(addr(lost));
                        cluster.net.heal(observer, addr(lost));
                    }
                }
                let writer = &cells[(lost + 1) % 3];
                let version = writer.write(1).await.unwrap();
                let value = within("the observer learns the value", PATIENCE, waiting).await;
                assert_eq!(value.unwrap(), Ok(1));
                // Also what comes after it has moved, and its own writes get through.
                let later = writer.write(2).await.unwrap();
                assert!(later > version);
                within("a later commit", PATIENCE, cells[3].when().reaches(later)).await;
                within("online", PATIENCE, cells[3].when().online()).await;
                let own = cells[3].write(3).await.expect("a majority is in reach");
                assert!(own > later);
                cluster.heal().await;
                eventually("the observer is linked to all again", || {
                    nodes[3].status().voters.iter().all(|voter| voter.linked)
                })
                .await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_missed_the_decision_reads_nothing_stale_linearizably() {
    for late in 0..3 {
        // The others decide at once, without asking the one that is away.
        let id = ids_led_by((late + 1) % 3, 1).await.remove(0);
        for heals in [false, true] {
            let cluster = Cluster::start(1, 3).await;
            let nodes = cluster.and_observer().await;
            let cells = writers(&nodes, &id);
            all_online(&cells).await;
            cluster.net.isolate(addr(late));
            // Acknowledged before its links are noticed to be down.
            cells[(late + 1) % 3].write(5).await.unwrap();
            assert!(cluster.seen(late, (late + 1) % 3).linked, "not noticed yet");
            let started = Instant::now();
            let reading = cells[late].clone();
            let reading = tokio::spawn(async move { reading.read_linearizable().await });
            if heals {
                tokio::time::sleep(ms(700)).await;
                cluster.net.heal_all();
            }
            let value = reading.await.unwrap();
            assert!(started.elapsed() <= WRITE_TIMEOUT + ms(100));
            let expected = if heals {
                Ok(Some(5))
            } else {
                Err(ReadError::Offline)
            };
            assert_eq!(value, expected);
        }
    }
}

/// Random cuts between the voters, each healed before the next, so that a majority is connected.
async fn one_cut_at_a_time(net: SimNet, nodes: Vec<Network>, mut random: StdRng) {
    loop {
        tokio::time::sleep(ms(random.random_range(0..400))).await;
        let one = random.random_range(0..nodes.len());
        let other = (one + random.random_range(1..nodes.len())) % nodes.len();
        match random.random_range(0..3) {
            0 => net.isolate(nodes[one].local_addr()),
            1 => net.cut_one_way(nodes[one].local_addr(), nodes[other].local_addr()),
            _ => net.cut(nodes[one].local_addr(), nodes[other].local_addr()),
        }
        tokio::time::sleep(ms(random.random_range(0..2_500))).await;
        net.heal_all();
    }
}

/// Linearizable reads on all nodes around one write, under cuts: `None` only from calls that
/// began before the write was acknowledged anywhere.
async fn linearizable_reads_around_a_write(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start(seed, 3).await;
    let nodes = cluster.and_observer().await;
    cluster.net.set_delay(ms(0), ms(random.random_range(1..40)));
    let chaos = StdRng::seed_from_u64(random.random());
    let chaos = tokio::spawn(one_cut_at_a_time(cluster.net.clone(), nodes.clone(), chaos));
    let order = Arc::new(AtomicU64::new(1));
    // 0 until acknowledged.
    let acknowledged = Arc::new(AtomicU64::new(0));
    let reads = nodes.iter().cloned().map(|node| {
        let (order, acknowledged) = (order.clone(), acknowledged.clone());
        let pause = random.random_range(1..40);
        tokio::spawn(async move {
            let mut nones = 0;
            loop {
                // A handle of its own, so that it does not know the value yet.
                let cell = OnceWriter::<u32>::writer(&node, "cell");
                let began = order.fetch_add(1, Ordering::SeqCst);
                match cell.read_linearizable().await {
                    Ok(Some(value)) => {
                        assert_eq!(value, 5);
                        return nones;
                    }
                    Ok(None) => {
                        let at = acknowledged.load(Ordering::SeqCst);
                        assert!(
                            at == 0 || began < at,
                            "None from a call after the acknowledgement"
                        );
                        nones += 1;
                    }
                    Err(ReadError::Offline) => {}
                    Err(error) => panic!("{error:?}"),
                }
                drop(cell);
                tokio::time::sleep(ms(pause)).await;
            }
        })
    });
    let reads: Vec<_> = reads.collect();
    tokio::time::sleep(ms(random.random_range(0..2_000))).await;
    let writer = OnceWriter::<u32>::writer(&nodes[random.random_range(0..4)], "cell");
    let writing = async { while writer.write(5).await.is_err() {} };
    within("the write", 4 * PATIENCE, writing).await;
    acknowledged.store(order.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
    for reads in within("all read the value", 4 * PATIENCE, join_all(reads)).await {
        reads.unwrap();
    }
    chaos.abort();
}

#[test]
fn a_linearizable_none_is_never_stale() {
    for_seeds(0..40, linearizable_reads_around_a_write);
}
