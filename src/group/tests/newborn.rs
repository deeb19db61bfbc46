//! Cells that are born, decided and sealed without an instance of openraft.

use super::cluster::{Cluster, propose_aside, until};
use super::seal::tags;
use super::sleep::{group, have_all_applied, marked, status, write_all};
use super::*;
use crate::group::first::FIRST;
use crate::group::raft::LogPosition;
use crate::group::seal::SEALED;

/// How many instances were started.
fn woken(cluster: &Cluster) -> u64 {
    let woken = cluster.up().map(|node| {
        let figures = node.status().figures;
        figures.wakes_by_message
            + figures.wakes_by_proposal
            + figures.wakes_by_settling
            + figures.wakes_by_birth
            + figures.wakes_by_help
    });
    woken.sum()
}

#[tokio::test(start_paused = true)]
async fn a_cell_is_decided_and_sealed_without_an_instance() {
    for count in [1, 3, 5] {
        let cluster = Cluster::start(1, count).await;
        let voters: Vec<_> = (0..count).collect();
        let watched = cluster.node(count - 1).open(group(1));
        online(watched.view()).await;
        write_all(&cluster, 1..9, &voters).await;
        until("who waits is told", || watched.view().record().is_some()).await;
        cluster.all_asleep().await;
        have_all_applied(&cluster, 1..9).await;
        for node in cluster.up() {
            for n in 1..9 {
                assert_eq!(tags(node, group(n)), [SEALED]);
            }
            let figures = node.status().figures;
            assert_eq!((figures.decisions, figures.groups_stored), (8, 8));
        }
        assert_eq!(woken(&cluster), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_opens_a_cell_while_it_is_born_wakes_nobody() {
    let cluster = Cluster::start(1, 3).await;
    cluster
        .net
        .set_delay(Duration::from_millis(1), Duration::from_millis(9));
    for n in 1..30 {
        let born = propose_aside(cluster.node(usize::from(n) % 3), group(n), n);
        tokio::time::sleep(Duration::from_millis(u64::from(n))).await;
        let opened: Vec<_> = cluster.up().map(|node| node.open(group(n))).collect();
        for interest in &opened {
            online(interest.view()).await;
        }
        assert_eq!(value(&born.await.unwrap().unwrap()), n);
    }
    assert_eq!(woken(&cluster), 0);
}

/// Its entry has reached the others, and it has not said what became of it.
#[tokio::test(start_paused = true)]
async fn what_a_first_born_that_died_left_behind_is_settled() {
    for seed in 0..8 {
        let mut cluster = Cluster::start(seed, 3).await;
        let order = cluster.order(GROUP);
        let (first, others) = (order[0], [order[1], order[2]]);
        let waiting = others.map(|other| cluster.node(other).open(GROUP));
        for interest in &waiting {
            online(interest.view()).await;
        }
        for other in others {
            cluster.net.drop_replies(addr(other), addr(first));
            cluster.net.drop_replies(addr(first), addr(other));
        }
        let unclear = propose_aside(cluster.node(first), GROUP, 1);
        // Their last entry, also while whoever asks is made to wait for more.
        for other in others {
            let held = || {
                let group = cluster.node(other).directory().group(GROUP);
                let newborn = group.berth.newborn();
                newborn.is_some_and(|newborn| newborn.disk().status().1 == Some(FIRST))
            };
            until("the entry is there", held).await;
        }
        match seed % 2 {
            0 => cluster.cut_power(first),
            _ => {
                // It lives, and nobody hears it.
                for other in others {
                    cluster.net.cut(addr(first), addr(other));
                }
            }
        }
        for interest in &waiting {
            until("who waits is told", || interest.view().record().is_some()).await;
        }
        unclear.abort();
        cluster.net.heal_all();
        if seed % 2 == 0 {
            cluster.power_up(first).await;
        }
        cluster.met().await;
        for node in cluster.up() {
            assert_eq!(value(&propose(node, 9).await.unwrap()), 1, "seed {seed}");
        }
        cluster.all_asleep().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_away_is_marked_and_gets_what_was_born() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.kill(2);
    let led_by_others = (1..60).filter(|n| cluster.order(group(*n))[0] != 2);
    let born: Vec<u8> = led_by_others.take(8).collect();
    for n in &born {
        write_all(&cluster, *n..*n + 1, &[0, 1]).await;
    }
    cluster.all_asleep().await;
    assert_eq!(woken(&cluster), 0);
    assert_eq!(marked(&cluster, 2), born.len());
    cluster.power_up(2).await;
    cluster.met().await;
    until("all marks are worked off", || marked(&cluster, 2) == 0).await;
    cluster.all_asleep().await;
    for n in born {
        have_all_applied(&cluster, n..n + 1).await;
    }
}

/// A follower is cut off between the entry and the word that it is committed.
#[tokio::test(start_paused = true)]
async fn a_word_that_is_lost_is_made_up_for() {
    let mut behind = 0;
    for seed in 0..24 {
        let cluster = Cluster::start(seed, 3).await;
        let order = cluster.order(GROUP);
        let (first, cut_off) = (order[0], order[2]);
        cluster
            .net
            .set_delay(Duration::from_millis(2), Duration::from_millis(6));
        let born = propose_aside(cluster.node(first), GROUP, 1);
        let group = cluster.node(cut_off).directory().group(GROUP);
        until("it has the entry", || group.berth.newborn().is_some()).await;
        tokio::time::sleep(Duration::from_micros(600 * seed)).await;
        cluster.net.cut(addr(first), addr(cut_off));
        cluster.net.cut(addr(order[1]), addr(cut_off));
        assert_eq!(value(&born.await.unwrap().unwrap()), 1);
        tokio::time::sleep(Duration::from_secs(3)).await;
        behind += u64::from(group.view.record().is_none());
        cluster.net.heal_all();
        let waiting = cluster.node(cut_off).open(GROUP);
        until("it is told", || waiting.view().record().is_some()).await;
        drop((waiting, group));
        cluster.all_asleep().await;
        let (last, _) = status(cluster.node(first), GROUP).await;
        for node in cluster.up() {
            assert_eq!(status(node, GROUP).await, (last, last), "seed {seed}");
        }
    }
    assert!(
        (1..24).contains(&behind),
        "{behind} of 24 were cut off in between"
    );
}

/// Power cuts at any moment of a birth, at one voter or at all.
#[tokio::test(start_paused = true)]
async fn a_birth_that_is_cut_short_leaves_one_value() {
    let (mut acknowledged, mut sealed, mut open) = (0, 0, 0);
    for seed in 0..60 {
        let mut cluster = Cluster::start(seed, 3).await;
        cluster
            .net
            .set_delay(Duration::from_micros(50), Duration::from_micros(300));
        let born = propose_aside(cluster.node(seed as usize % 3), GROUP, 1);
        tokio::time::sleep(Duration::from_micros(60 * seed)).await;
        let down: Vec<usize> = match seed % 3 {
            0 => vec![0, 1, 2],
            1 => vec![cluster.order(GROUP)[0]],
            _ => cluster.order(GROUP)[1..].to_vec(),
        };
        let told = match born.is_finished() {
            true => born.await.unwrap(),
            false => {
                born.abort();
                None
            }
        };
        for n in &down {
            cluster.cut_power(*n);
        }
        for n in &down {
            cluster.power_up(*n).await;
        }
        cluster.met().await;
        for node in cluster.up() {
            sealed += usize::from(tags(node, GROUP) == [SEALED]);
            let (last, applied) = status(node, GROUP).await;
            open += usize::from(last > applied && last > Some(LogPosition::GENESIS));
        }
        let decided = value(&propose(cluster.node(1), 2).await.unwrap());
        if told.is_some() {
            acknowledged += 1;
            assert_eq!(decided, 1, "seed {seed}");
        }
        for node in cluster.up() {
            let again = propose(node, 3).await.unwrap();
            assert_eq!(value(&again), decided, "seed {seed}");
        }
        cluster.all_asleep().await;
    }
    let played = [acknowledged, sealed, open];
    assert!(
        played.iter().all(|n| *n > 0),
        "all of it is played: {played:?}"
    );
}
