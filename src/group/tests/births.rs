//! The first term of a group belongs to one voter by birth, once.

use super::cluster::{Cluster, propose_aside, until};
use super::*;
use crate::group::raft::LogPosition;

const FIRST: LogPosition = LogPosition { term: 1, index: 1 };

/// The end of the log that a voter holds, in memory or on disk.
async fn last(node: &Network) -> Option<LogPosition> {
    use crate::group::wire::Response;
    let group = node.directory().group(GROUP);
    match node.directory().own_status(&group).await {
        Some(Response::Status { last, .. }) => last,
        other => panic!("{other:?}"),
    }
}

async fn all_say(cluster: &Cluster, expected: u8) {
    for node in cluster.up() {
        assert_eq!(value(&propose(node, 99).await.unwrap()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_born_leads_without_an_election_and_its_first_entry_is_the_value() {
    let cluster = Cluster::start(1, 3).await;
    let first = cluster.node(cluster.order(GROUP)[0]);
    let written = propose(first, 7).await.unwrap();
    assert_eq!(written.version, Version::new(FIRST.index));
    assert_eq!(last(first).await, Some(FIRST));
    assert_eq!(first.status().cells[0].term, FIRST.term);
}

#[tokio::test(start_paused = true)]
async fn the_others_elect_one_of_them_while_the_first_born_is_gone() {
    let mut cluster = Cluster::start(1, 3).await;
    let order = cluster.order(GROUP);
    cluster.kill(order[0]);
    let next = cluster.node(order[1]).clone();
    assert_eq!(value(&propose(&next, 2).await.unwrap()), 2);
    assert!(last(&next).await.unwrap().term > FIRST.term);
    // It comes back, knows nothing of the group, and is the one who is asked first.
    cluster.power_up(order[0]).await;
    cluster.met().await;
    let first = cluster.node(order[0]);
    assert_eq!(value(&propose(first, 1).await.unwrap()), 2);
    all_say(&cluster, 2).await;
}

/// Nothing leaves a first-born before its entry is on its disk: else it could lose that, lead
/// the same term again, and write another entry at the same place.
#[tokio::test(start_paused = true)]
async fn a_first_born_sends_nothing_before_its_first_entry_is_durable() {
    let mut kept = 0;
    for seed in 0..16 {
        let mut cluster = Cluster::start(seed, 3).await;
        let order = cluster.order(GROUP);
        let first = order[0];
        cluster.disks[first].hold_syncs();
        let lost = propose_aside(cluster.node(first), GROUP, 1);
        tokio::time::sleep(Duration::from_millis(700)).await;
        for other in &order[1..] {
            assert_eq!(
                last(cluster.node(*other)).await,
                Some(LogPosition::GENESIS),
                "seed {seed}: an entry was sent that its leader may lose"
            );
        }
        cluster.cut_power(first);
        lost.abort();
        cluster.power_up(first).await;
        cluster.met().await;
        let expected = match last(cluster.node(first)).await {
            Some(LogPosition::GENESIS) => 2,
            Some(FIRST) => {
                kept += 1;
                1
            }
            other => panic!("seed {seed}: {other:?}"),
        };
        assert_eq!(
            value(&propose(cluster.node(first), 2).await.unwrap()),
            expected
        );
        all_say(&cluster, expected).await;
    }
    assert!(
        (1..16).contains(&kept),
        "both ends of a torn birth are played"
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_born_that_crashed_never_leads_its_first_term_again() {
    for seed in 0..8 {
        let mut cluster = Cluster::start(seed, 3).await;
        let order = cluster.order(GROUP);
        let first = order[0];
        // One follower has the entry, and nobody hears that it is committed.
        cluster.net.cut(addr(first), addr(order[2]));
        cluster.net.drop_replies(addr(order[1]), addr(first));
        cluster.net.drop_replies(addr(first), addr(order[1]));
        let unclear = propose_aside(cluster.node(first), GROUP, 1);
        let follower = cluster.node(order[1]).clone();
        let mut sent = false;
        for _ in 0..700 {
            sent |= last(&follower).await == Some(FIRST);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(sent, "seed {seed}: the first entry reached nobody");
        cluster.cut_power(first);
        unclear.abort();
        cluster.net.heal_all();
        cluster.power_up(first).await;
        cluster.met().await;
        let node = cluster.node(first);
        assert_eq!(value(&propose(node, 2).await.unwrap()), 1);
        until("another term", || {
            node.status()
                .cells
                .iter()
                .any(|cell| cell.term > FIRST.term)
        })
        .await;
        all_say(&cluster, 1).await;
    }
}

/// Whoever waits for a write may stop waiting at any moment, also in the middle of a birth.
#[tokio::test(start_paused = true)]
async fn a_birth_that_is_given_up_half_way_leaves_one_instance_and_one_value() {
    for polls in 0..40 {
        let cluster = Cluster::start(polls, 3).await;
        let first = cluster.order(GROUP)[0];
        let node = cluster.node(first);
        cluster.disks[first].hold_syncs();
        let mut given_up = Box::pin(propose(node, 1));
        for _ in 0..polls {
            let _ = futures::poll!(given_up.as_mut());
            tokio::task::yield_now().await;
        }
        drop(given_up);
        let next = propose_aside(node, GROUP, 2);
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        cluster.disks[first].release_syncs();
        let decided = value(&next.await.unwrap().unwrap());
        all_say(&cluster, decided).await;
    }
}

/// The batch of a birth is on its way to a slow disk when nobody wants it any more, and an
/// instance starts that knows nothing of it and then gets a snapshot.
#[tokio::test]
async fn a_birth_that_was_given_up_leaves_no_entry_that_nobody_knows() {
    use crate::group::disk::{Applied, Disk, Held};
    use crate::group::raft::StoredVote;
    use crate::group::state::Contents;
    let voters = NAMES.map(NodeId::of_voter).into();
    let first = NodeId::of_voter("a");
    let newborn = || Held::newborn(&voters, Some(first));
    let store = crate::store::Store::in_memory();
    let value = vec![1];
    let proposal = Proposal {
        id: crate::id::ProposalId::new([1; 16], first, [2; 16], &value),
        value: value.into(),
        proposed_at_ms: 0,
    };
    let given_up = Disk::new(store.clone(), GROUP, newborn());
    let slot = vec![];
    given_up
        .bear(Command::Set { slot, proposal })
        .await
        .unwrap();
    let ignorant = Disk::new(store.clone(), GROUP, newborn());
    let vote = StoredVote {
        term: 2,
        node: NodeId::of_voter("b"),
        committed: false,
    };
    ignorant.save_vote(vote).await.unwrap();
    let at = LogPosition { term: 2, index: 70 };
    let applied = Applied {
        at: Some(at),
        version: Version::new(at.index),
    };
    let held = newborn();
    let installed = ignorant.install(applied, held.electorate, Contents::Cell(held.machine));
    installed.await.unwrap();
    ignorant.purge(at);
    store.flush().await.unwrap();
    let found = Disk::load(&store, GROUP, &voters, Some(first), true).unwrap();
    assert_eq!(found.last(), Some(at));
}

/// Nobody waits for it any more, and the note of it stays.
#[tokio::test(start_paused = true)]
async fn a_birth_on_a_disk_that_hangs_does_not_hold_up_the_end_of_its_voter() {
    let cluster = Cluster::start(1, 3).await;
    let first = cluster.order(GROUP)[0];
    let node = cluster.node(first);
    cluster.disks[first].hold_syncs();
    let born = propose_aside(node, GROUP, 1);
    let group = node.directory().group(GROUP);
    let is_born = || {
        let past = group.berth.changing.try_lock();
        past.is_err() && node.directory().berths.count().0 == 1
    };
    until("the birth waits for the disk", is_born).await;
    let stopped = tokio::time::timeout(Duration::from_secs(10), node.directory().stop());
    stopped.await.expect("it stops");
    let past = group.berth.changing.lock().await;
    assert!(past.end().expect("it is noted").is_reached());
    cluster.disks[first].release_syncs();
    let decided = born.await.unwrap().expect("the others are well");
    assert_eq!(value(&decided), 1);
}
