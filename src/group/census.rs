//! How many groups this voter's disk holds: counted at each birth, since groups are never deleted.
//!
//! Key: `c`. The number is queued right before the batch that bears the group, under a lock of its
//! own, and rides with it: a crash leaves at most a few births counted that have not come about,
//! never one that has come about and is not counted.

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Counts;
use crate::store::{Batch, Durability, PageMax, Store, StoreFailed};

use super::disk::{ELECTORATE, pack, unpack_page};
use super::seal::SEALED;

const KEY: &[u8] = b"c";

/// How many pairs are read at a time where groups were born before they were counted.
const PAIRS_A_PAGE: PageMax = PageMax {
    pairs: 64,
    bytes: usize::MAX,
};

#[derive(Default)]
pub(crate) struct Census {
    /// Held while the number changes and is queued: the last one queued is the newest.
    in_order: Mutex<()>,
    /// Its `groups_stored` is the number.
    counts: Arc<Counts>,
}

impl Census {
    /// Of a node that stores nothing.
    pub(crate) fn of_nothing(counts: Arc<Counts>) -> Self {
        Self {
            in_order: Mutex::default(),
            counts,
        }
    }

    pub(crate) fn open(store: &Store, counts: Arc<Counts>) -> Result<Self, StoreFailed> {
        let stored: u64 = match store.get(KEY)? {
            Some(bytes) => unpack_page(&bytes).map_err(|error| {
                StoreFailed::Read(format!("the count of groups: {error}").into())
            })?,
            None => count(store)?,
        };
        counts
            .groups_stored
            .add(usize::try_from(stored).unwrap_or(usize::MAX));
        Ok(Self::of_nothing(counts))
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    pub(crate) fn stored(&self) -> u64 {
        self.counts.groups_stored.get()
    }

    /// The next batch that the caller queues bears a group.
    pub(super) fn born(&self, store: &Store) {
        let _in_order = self.in_order.lock().unwrap_or_else(PoisonError::into_inner);
        self.counts.groups_stored.add(1);
        let mut batch = Batch::default();
        batch.put(KEY.to_vec(), pack(&self.stored()));
        store.write(batch, Durability::Riding, |_| {});
    }
}

/// Each group has one electorate, or is sealed with it.
fn count(store: &Store) -> Result<u64, StoreFailed> {
    let (mut groups, mut after) = (0, Vec::new());
    loop {
        let (pairs, next) = store.scan_page(b"g", Bound::Excluded(&after), PAIRS_A_PAGE)?;
        let groups_here = pairs
            .iter()
            .filter(|(key, _)| matches!(key.get(33..), Some(&[ELECTORATE | SEALED])));
        groups += groups_here.count() as u64;
        match next {
            Some(next) => after = next,
            None => return Ok(groups),
        }
    }
}
