//! A cell that is decided and asleep is one value on each disk.

use super::cluster::Cluster;
use super::sleep::{group, have_all_applied, write_all};
use super::*;
use crate::group::seal::{SEALED, keys};

pub(super) fn tags(node: &Network, id: GroupId) -> Vec<u8> {
    let store = node.directory().store().expect("a voter");
    let keys = keys(store, id).expect("it can be read").into_iter();
    keys.map(|key| key[33]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_decided_cell_that_sleeps_is_one_value_and_goes_on_when_it_is_woken() {
    let mut cluster = Cluster::start(1, 3).await;
    write_all(&cluster, 1..4, &[0, 1, 2]).await;
    cluster.all_asleep().await;
    for node in cluster.up() {
        for n in 1..4 {
            assert_eq!(tags(node, group(n)), [SEALED]);
        }
    }
    have_all_applied(&cluster, 1..4).await;
    // Another leader than before, which has to elect itself over a log of which nothing is left.
    cluster.kill(0);
    for n in 1..4 {
        let before = propose_to(cluster.node(1), group(n), 9).await.unwrap();
        assert_eq!(value(&before), n);
        assert!(
            tags(cluster.node(1), group(n)).len() > 1,
            "the seal is broken"
        );
        let later = propose_to(cluster.node(2), group(n), 9).await.unwrap();
        assert!(later.version > before.version);
    }
    cluster.all_asleep().await;
    // And a voter that has the older seal is brought up to the newer one.
    cluster.power_up(0).await;
    cluster.met().await;
    let interest = cluster.node(0).open(group(1));
    online(interest.view()).await;
    write_all(&cluster, 1..4, &[0]).await;
    cluster.all_asleep().await;
    have_all_applied(&cluster, 1..4).await;
    for node in cluster.up() {
        assert_eq!(tags(node, group(1)), [SEALED]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_is_not_decided_is_not_sealed() {
    let cluster = Cluster::start(1, 3).await;
    let node = cluster.node(0);
    let interest = node.open(GROUP);
    let touch = Command::Touch {
        slot: vec![],
        id: node.proposal_id(b"touch"),
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    let touched = node.directory().propose(interest.group(), touch, deadline);
    assert_eq!(touched.await.unwrap().record, None);
    cluster.all_asleep().await;
    let tags = tags(node, GROUP);
    assert!(tags.len() > 1 && !tags.contains(&SEALED), "{tags:?}");
}

/// Power cuts at any moment around the time at which cells fall asleep and are woken.
#[tokio::test(start_paused = true)]
async fn a_seal_that_is_cut_short_leaves_one_of_the_two_forms() {
    bear_by_instance(ByInstance::All);
    let mut sealed = 0;
    for seed in 0..24 {
        let mut cluster = Cluster::start(seed, 3).await;
        write_all(&cluster, 1..4, &[0, 1, 2]).await;
        let asleep = Duration::from_millis(crate::group::sleep::IDLE_AFTER_MS);
        tokio::time::sleep(asleep).await;
        for _ in 0..seed {
            // The sweep looks once a second; what it writes takes some tenths of a millisecond.
            tokio::time::sleep(Duration::from_micros(100_170)).await;
        }
        for n in 0..3 {
            cluster.cut_power(n);
        }
        for n in 0..3 {
            cluster.power_up(n).await;
        }
        cluster.met().await;
        for n in 1..4 {
            let node = cluster.node(usize::from(n) % 3);
            sealed += usize::from(tags(node, group(n)) == [SEALED]);
            let reply = propose_to(node, group(n), 9).await.unwrap();
            assert_eq!(value(&reply), n, "seed {seed}");
        }
        cluster.all_asleep().await;
        have_all_applied(&cluster, 1..4).await;
    }
    assert!((1..72).contains(&sealed), "{sealed} of 72 were sealed");
}
