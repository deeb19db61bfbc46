//! A map of write-once slots: every slot is decided once, whoever asks where, and whoever follows
//! misses none.

mod common;

use std::collections::BTreeMap;

use common::*;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use raft_once::testing::SimNet;
use raft_once::{
    Changes, Claim, ClaimError, EncodeError, Error, InitError, Network, OnceMap, OnceMapReader,
    OnceMapWriter, ReadError, Version,
};

type Map = OnceMapWriter<u64, String>;

fn open(node: &Network) -> Map {
    OnceMap::writer(node, "map")
}

async fn online(node: &Network) -> Map {
    let map = open(node);
    within("the map is online", PATIENCE, map.when().online()).await;
    map
}

/// The next `count` keys of a stream.
async fn next_keys(changes: &mut Changes<u64, String>, count: usize) -> Vec<u64> {
    let taken = changes.take(count).map_ok(|change| change.key);
    let keys = within("the changes come", PATIENCE, taken.try_collect()).await;
    keys.expect("the network is up")
}

async fn contents(map: &OnceMapReader<u64, String>) -> Vec<(u64, String)> {
    let entries = map.iter().try_collect();
    let entries = within("the map is read", PATIENCE, entries).await;
    entries.expect("a voter answers")
}

#[tokio::test(start_paused = true)]
async fn of_many_claimants_on_all_nodes_one_wins_each_slot() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let maps = join_all(nodes.iter().map(online)).await;
    const KEYS: u64 = 40;
    let claims = maps.iter().enumerate().flat_map(|(n, map)| {
        (0..KEYS).map(move |key| async move {
            let value = format!("node {n}");
            (
                key,
                value.clone(),
                map.claim(key, value).await.expect("a claim"),
            )
        })
    });
    let claims = within("all claims are answered", PATIENCE, join_all(claims)).await;
    let mut winners = BTreeMap::new();
    for (key, value, claim) in &claims {
        if let Claim::Won(version) = claim {
            let before = winners.insert(*key, (value.clone(), *version));
            assert!(before.is_none(), "slot {key} was won twice");
        }
    }
    assert_eq!(winners.len() as u64, KEYS);
    for (key, _, claim) in &claims {
        let (value, at) = &winners[key];
        if let Claim::Lost {
            winner, version, ..
        } = claim
        {
            assert_eq!((winner, version), (value, at));
        }
    }
    let expected: Vec<_> = winners
        .iter()
        .map(|(key, (value, _))| (*key, value.clone()))
        .collect();
    for node in &nodes {
        let map = OnceMap::<u64, String>::reader(node, "map");
        assert_eq!(map.len().await, Ok(KEYS));
        assert_eq!(contents(&map).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_handle_has_won_it_reads_on_any_node() {
    let cluster = Cluster::start(2, 3).await;
    for (n, node) in cluster.and_observer().await.iter().enumerate() {
        let map = online(node).await;
        for key in 0..20 {
            let key = 100 * n as u64 + key;
            assert_eq!(map.get_linearizable(&key).await, Ok(None));
            assert!(map.claim(key, "won".to_string()).await.unwrap().is_won());
            assert_eq!(map.get(&key).await, Ok(Some("won".into())));
            assert_eq!(map.contains_key(&key).await, Ok(true));
            assert_eq!(map.get_linearizable(&key).await, Ok(Some("won".into())));
        }
        assert_eq!(map.len().await, Ok(20 * (n as u64 + 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn every_stream_has_every_decision_once_and_in_order() {
    let cluster = Cluster::start(3, 3).await;
    let nodes = cluster.and_observer().await;
    let maps = join_all(nodes.iter().map(online)).await;
    // Streams begun before, in the middle and after; of all and of a part.
    let mut early: Vec<_> = maps.iter().map(|map| map.changes(..)).collect();
    let mut part: Vec<_> = maps.iter().map(|map| map.changes(100..200)).collect();
    const KEYS: u64 = 300;
    let writes = (0..KEYS).map(|key| {
        let map = &maps[key as usize % maps.len()];
        async move { map.write(key, format!("{key}")).await.expect("written") }
    });
    within("all are written", PATIENCE, join_all(writes)).await;
    let order = next_keys(&mut early[0], KEYS as usize).await;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..KEYS).collect::<Vec<_>>());
    let of_part: Vec<_> = order
        .iter()
        .copied()
        .filter(|key| (100..200).contains(key))
        .collect();
    for changes in &mut early[1..] {
        assert_eq!(next_keys(changes, KEYS as usize).await, order);
    }
    for changes in &mut part {
        assert_eq!(next_keys(changes, 100).await, of_part);
    }
    // One that goes on behind a version begins with the next.
    let mut changes = maps[3].changes(..);
    let middle = within("a change", PATIENCE, changes.by_ref().skip(99).next()).await;
    let middle = middle.unwrap().unwrap();
    assert_eq!(middle.key, order[99]);
    assert_eq!(middle.decision.version, middle.version);
    let mut rest = maps[1].changes_since(middle.version, ..);
    assert_eq!(next_keys(&mut rest, 200).await, order[100..]);
    // All of them are at the end, and hear of what comes next.
    maps[0].write(KEYS, "last".into()).await.unwrap();
    for changes in early.iter_mut().chain([&mut changes, &mut rest]) {
        let next = within("the last one", PATIENCE, changes.next());
        assert!(next.await.unwrap().unwrap().key >= 100);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_at_another_voter_and_misses_nothing() {
    let cluster = Cluster::start(4, 3).await;
    let observer = cluster.observer(0).await;
    let (writer, reader) = (online(&cluster.voters[0]).await, online(&observer).await);
    let mut changes = reader.changes(..);
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    for round in 0..12_u64 {
        let voter = round as usize % 3;
        // One voter is away from all others, the writer's too: it is offline then.
        cluster.cut_between(
            &[&cluster.voters[voter]],
            &[
                &cluster.voters[(voter + 1) % 3],
                &cluster.voters[(voter + 2) % 3],
                &observer,
            ],
        );
        for key in 10 * round..10 * round + 10 {
            let mut value = "x".to_string();
            loop {
                match writer.write(key, value).await {
                    Ok(_) => break,
                    Err(Error::Offline(same)) if voter == 0 => {
                        value = same;
                        cluster.heal().await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            expected.push(key);
        }
        let missing = expected.len() - seen.len();
        seen.extend(next_keys(&mut changes, missing).await);
        assert_eq!(seen, expected);
        cluster.heal().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_away_for_long_gets_all_slots_without_the_log() {
    let cluster = Cluster::start(5, 3).await;
    let maps = join_all(cluster.voters.iter().map(online)).await;
    maps[0].write(0, "before".into()).await.unwrap();
    cluster.cut_between(
        &[&cluster.voters[2]],
        &[&cluster.voters[0], &cluster.voters[1]],
    );
    // More than a log keeps.
    const KEYS: u64 = 12_000;
    for block in 0..KEYS / 100 {
        let keys = 100 * block + 1..=100 * block + 100;
        let writes = keys.map(|key| maps[0].write(key, format!("{key}")));
        for written in within("written", PATIENCE, join_all(writes)).await {
            written.unwrap();
        }
    }
    cluster.heal().await;
    let mut changes = maps[2].changes(..);
    let mut keys = next_keys(&mut changes, KEYS as usize + 1).await;
    keys.sort_unstable();
    assert!(keys.into_iter().eq(0..=KEYS));
    assert_eq!(maps[2].len().await, Ok(KEYS + 1));
    // It counts as a voter: with it, and without another one, writes go on.
    cluster.cut_between(
        &[&cluster.voters[1]],
        &[&cluster.voters[0], &cluster.voters[2]],
    );
    let next = within(
        "a write",
        PATIENCE,
        maps[2].claim(KEYS + 1, "next".to_string()),
    )
    .await;
    assert!(next.unwrap().is_won());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_key_is_told_and_of_no_other() {
    let cluster = Cluster::start(6, 3).await;
    let nodes = cluster.and_observer().await;
    let maps = join_all(nodes.iter().map(online)).await;
    let waits: Vec<_> = maps
        .iter()
        .flat_map(|map| (0..50_u64).map(move |key| (key, map.clone())))
        .map(|(key, map)| tokio::spawn(async move { map.wait(&key).await }))
        .collect();
    for key in (0..50).rev() {
        maps[1].write(key, format!("value {key}")).await.unwrap();
    }
    for (n, waited) in waits.into_iter().enumerate() {
        let value = within("the wait ends", PATIENCE, waited).await.unwrap();
        assert_eq!(value, Ok(format!("value {}", n % 50)));
    }
}

#[tokio::test(start_paused = true)]
async fn one_initialiser_runs_at_a_time_and_none_where_there_is_a_value() {
    let cluster = Cluster::start(7, 3).await;
    let map = online(&cluster.voters[1]).await;
    let failed = map
        .get_or_try_init(1, async || Err::<String, _>("no"))
        .await;
    assert!(matches!(failed, Err(InitError::Init("no"))));
    let runs = std::sync::atomic::AtomicU32::new(0);
    let init = || async {
        tokio::time::sleep(ms(20)).await;
        format!(
            "run {}",
            runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        )
    };
    let calls = join_all((0..10).map(|_| map.get_or_init(1, init))).await;
    for value in calls {
        assert_eq!(value.unwrap(), "run 0");
    }
    let elsewhere = online(&cluster.voters[2]).await;
    let value = elsewhere.get_or_init(1, async || unreachable!()).await;
    assert_eq!(value.unwrap(), "run 0");
}

#[tokio::test(start_paused = true)]
async fn a_minority_claims_nothing_and_its_pending_claim_is_the_same_later() {
    let cluster = Cluster::start(8, 3).await;
    let maps = join_all(cluster.voters.iter().map(online)).await;
    maps[0].write(1, "known".into()).await.unwrap();
    assert_eq!(maps[2].wait(&1).await, Ok("known".into()));
    cluster.cut_between(
        &[&cluster.voters[2]],
        &[&cluster.voters[0], &cluster.voters[1]],
    );
    let pending = match maps[2].claim(2, "two".to_string()).await {
        Err(ClaimError::Offline(pending)) => pending,
        other => panic!("nobody could confirm this: {other:?}"),
    };
    assert_eq!(
        maps[2].get(&1).await,
        Ok(Some("known".into())),
        "what is known stays so"
    );
    assert_eq!(maps[2].get_linearizable(&2).await, Err(ReadError::Offline));
    let unreached = maps[2].get_or_init(3, async || unreachable!()).await;
    assert!(matches!(unreached, Err(ClaimError::Unreached)));
    assert!(
        maps[0]
            .claim(2, "other".to_string())
            .await
            .unwrap()
            .is_won()
    );
    cluster.heal().await;
    match within("an answer", PATIENCE, maps[2].claim(2, pending)).await {
        Ok(Claim::Lost {
            winner, offered, ..
        }) => {
            assert_eq!((&*winner, &*offered), ("other", "two"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn bad_keys_and_values_are_handed_back_and_other_types_are_errors() {
    let net = SimNet::new(9);
    let cluster = Cluster::start_on(net, 1).await;
    let node = &cluster.voters[0];
    let map = OnceMap::<String, String>::writer(node, "strings");
    let long = "k".repeat(2_000);
    match map.claim(long.clone(), "value".to_string()).await {
        Err(ClaimError::Encoding(value, EncodeError::KeyLength { bytes, .. })) => {
            assert_eq!((&*value, bytes), ("value", 2_002));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(map.get(&long).await, Err(ReadError::Key(_))));
    let init = map.get_or_init(long, async || "made".to_string()).await;
    assert!(matches!(init, Err(ClaimError::Encoding(..))));
    let large = map.write("k".into(), "v".repeat(2 << 20)).await;
    assert!(matches!(
        large,
        Err(Error::Encoding(_, EncodeError::TooLarge { .. }))
    ));

    // The same map, taken for another: its name says nothing of types.
    let named = || raft_once::OnceConfig::new().type_name("v1");
    let texts = OnceMap::<String, String>::writer_with_config(node, "named", named());
    texts.write("a".into(), "text".into()).await.unwrap();
    let numbers = OnceMap::<u64, u64>::reader_with_config(node, "named", named());
    let read: Vec<_> = numbers.iter().collect().await;
    assert!(matches!(&read[..], [Err(ReadError::Decode(_))]), "{read:?}");
    let claims = OnceMap::<String, u64>::writer_with_config(node, "named", named());
    assert!(matches!(
        claims.claim("a".into(), 1).await,
        Err(ClaimError::Decode(_))
    ));
    assert_eq!(claims.contains_key(&"a".into()).await, Ok(true));
    assert!(matches!(
        claims.get(&"a".into()).await,
        Err(ReadError::Decode(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn nothing_hangs_after_shutdown() {
    let cluster = Cluster::start(10, 3).await;
    let map = online(&cluster.voters[0]).await;
    map.write(1, "one".into()).await.unwrap();
    let mut changes = map.changes(..);
    assert_eq!(next_keys(&mut changes, 1).await, [1]);
    let waiting = tokio::spawn({
        let map = map.clone();
        async move { map.wait(&2).await }
    });
    let next = tokio::spawn(async move { (changes.next().await, changes.next().await) });
    tokio::task::yield_now().await;
    cluster.voters[0].shutdown().await;
    assert_eq!(
        within("it ends", PATIENCE, waiting).await.unwrap(),
        Err(ReadError::NetworkDown)
    );
    let (last, none) = within("it ends", PATIENCE, next).await.unwrap();
    assert_eq!((last, none), (Some(Err(ReadError::NetworkDown)), None));
    assert!(matches!(
        map.write(3, "three".into()).await,
        Err(Error::NetworkDown)
    ));
    assert_eq!(map.get(&1).await, Err(ReadError::NetworkDown));
    assert_eq!(map.len().await, Err(ReadError::NetworkDown));
    assert!(map.version() > Version::ZERO);
}
