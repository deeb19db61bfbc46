//! A ledger against a naive model, and what it takes in from others.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ledger::Ledger;
use super::{Decided, PAGE, Range};
use crate::id::{GroupId, NodeId, ProposalId, Version};
use crate::machine::{Proposal, Record};
use crate::store::{Batch, SimDisk, Store, StoreConfig};

const GROUP: GroupId = GroupId::from_bytes(*b"a map of the unit tests:once-map");

fn decided(slot: &[u8], at: u64, value: Vec<u8>) -> Decided {
    let id = ProposalId::new([1; 16], NodeId::of_voter("a"), [0; 16], &value);
    let proposal = Proposal {
        id,
        value: value.into(),
        proposed_at_ms: 0,
    };
    let version = Version::new(at);
    (slot.to_vec(), Arc::new(Record { proposal, version }))
}

fn empty(store: &Store) -> Ledger {
    Ledger::new(store.clone(), GROUP, Version::ZERO, 0)
}

fn all_pages(ledger: &Ledger, range: Range) -> Vec<Decided> {
    let (mut all, mut next) = (Vec::new(), Some(range));
    while let Some(range) = next {
        let (page, rest) = ledger.page(&range).unwrap();
        assert!(page.len() <= PAGE.pairs);
        all.extend(page);
        next = rest;
    }
    all
}

fn all_changes(ledger: &Ledger, mut after: Version, range: &Range) -> Vec<Decided> {
    let mut all = Vec::new();
    while after < ledger.version() {
        let (page, upto) = ledger.changes(after, range).unwrap();
        assert!(page.len() <= PAGE.pairs && upto > after);
        all.extend(page);
        after = upto;
    }
    all
}

/// On a disk whose writer runs behind, so that what was written is partly durable, partly not.
#[tokio::test(start_paused = true)]
async fn it_reads_as_the_naive_model_does_whatever_is_durable_yet() {
    let mut rng = StdRng::seed_from_u64(5);
    let disk = SimDisk::new(5);
    disk.set_sync_ms(0, 20);
    let config = StoreConfig {
        segment_bytes_max: 20_000,
        ..StoreConfig::default()
    };
    let store = Store::open_simulated(&disk, config).unwrap();
    let ledger = empty(&store);
    let mut model: BTreeMap<Vec<u8>, Decided> = BTreeMap::new();
    let mut version = 0;
    for _ in 0..400 {
        let mut new = Vec::new();
        for _ in 0..rng.random_range(0..12) {
            version += rng.random_range(1..3);
            let slot = vec![rng.random_range(1..9), rng.random(), rng.random_range(0..3)];
            if model.contains_key(&slot) {
                continue;
            }
            let entry = decided(&slot, version, vec![7; rng.random_range(0..90)]);
            model.insert(slot, entry.clone());
            new.push(entry);
        }
        ledger.write(Batch::default(), Version::new(version), new);
        if rng.random_bool(0.3) {
            tokio::time::sleep(std::time::Duration::from_millis(rng.random_range(0..15))).await;
        }
        if !rng.random_bool(0.1) {
            continue;
        }
        assert_eq!(ledger.count(), model.len() as u64);
        let (from, to) = (vec![rng.random_range(0..9)], vec![rng.random_range(0..9)]);
        for range in [Range::default(), Range { from, to: Some(to) }] {
            let is_in = |(slot, _): &Decided| range.contains(slot);
            let expected: Vec<_> = model
                .values()
                .filter(|entry| is_in(entry))
                .cloned()
                .collect();
            assert_eq!(all_pages(&ledger, range.clone()), expected);
            let after = Version::new(rng.random_range(0..=version));
            let mut expected: Vec<_> = expected;
            expected.retain(|(_, record)| record.version > after);
            expected.sort_by_key(|(_, record)| record.version);
            assert_eq!(all_changes(&ledger, after, &range), expected);
        }
        for (slot, entry) in model.iter().take(20) {
            assert_eq!(ledger.get(slot).unwrap().as_ref(), Some(&entry.1));
        }
    }
    // At rest it is the same.
    store.flush().await.unwrap();
    let expected: Vec<_> = model.into_values().collect();
    assert_eq!(all_pages(&ledger, Range::default()), expected);
}

#[tokio::test]
async fn large_values_make_small_pages() {
    let store = Store::in_memory();
    let ledger = empty(&store);
    let large = |n: u8| decided(&[n], u64::from(n), vec![n; 150_000]);
    ledger.write(
        Batch::default(),
        Version::new(9),
        (1..=9).map(large).collect(),
    );
    let (page, next) = ledger.page(&Range::default()).unwrap();
    assert!(page.len() <= 3 && next.is_some(), "{}", page.len());
    let (changes, upto) = ledger.changes(Version::ZERO, &Range::default()).unwrap();
    assert!(changes.len() <= 3 && upto < Version::new(9));
    assert_eq!(all_pages(&ledger, Range::default()).len(), 9);
    assert_eq!(
        all_changes(&ledger, Version::ZERO, &Range::default()).len(),
        9
    );
}

#[tokio::test]
async fn pieces_are_taken_in_order_and_stay_and_nothing_is_read_beyond_what_is_applied() {
    let store = Store::in_memory();
    let ledger = empty(&store);
    let version = Version::new;
    let piece = [decided(b"a", 2, vec![1]), decided(b"b", 4, vec![2])];
    // Something is missing before it.
    assert_eq!(
        ledger.fill(version(3), version(5), &piece[1..]).await,
        Ok(Version::ZERO)
    );
    assert_eq!(ledger.get(b"b"), Ok(None));
    assert_eq!(
        ledger.fill(Version::ZERO, version(5), &piece).await,
        Ok(version(5))
    );
    // The same once more, and an older one.
    assert_eq!(
        ledger.fill(Version::ZERO, version(5), &piece).await,
        Ok(version(5))
    );
    assert_eq!(
        ledger.fill(Version::ZERO, version(3), &piece[..1]).await,
        Ok(version(5))
    );
    // What is decided is decided; how far it is applied, and so how many there are, is another matter.
    assert_eq!(ledger.get(b"b").unwrap().as_ref(), Some(&piece[1].1));
    assert_eq!((ledger.count(), ledger.version()), (0, Version::ZERO));
    assert_eq!(
        ledger.changes(Version::ZERO, &Range::default()).unwrap(),
        (vec![], Version::ZERO)
    );
    ledger.go_on(version(5), 2);
    assert_eq!(
        all_changes(&ledger, Version::ZERO, &Range::default()),
        piece
    );
}
