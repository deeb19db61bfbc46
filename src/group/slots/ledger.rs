//! Where the slots of one map are: durable ones in the store, and above them those that are
//! applied and not durable yet. None of the former is held in memory.
//!
//! Keys, behind those of any group: `r` + slot record, `c` + version the name of the slot that was
//! decided there, `n` how many are decided, `f` up to which version all are here although not
//! applied.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::super::disk::{
    APPLIED, Applied, ELECTORATE, ENTRY, PURGED, RECORD, VOTE, broken, key, pack, unpack,
};
use super::{Decided, PAGE, Range};
use crate::id::{GroupId, Version};
use crate::machine::{Command, Record, Reply, Slot, Slots, apply};
use crate::probe::{Bug, planted};
use crate::store::{Batch, Durability, PageMax, Pair, Store, StoreFailed};

const CHANGE: u8 = b'c';
pub(in super::super) const COUNT: u8 = b'n';
const FILLED: u8 = b'f';

/// How many names are read at a time where most of them may be another range's.
const NAMES: PageMax = PageMax {
    pairs: 4 * PAGE.pairs,
    bytes: 4 * PAGE.bytes,
};

/// How many log entries are read at a time.
const ENTRIES_A_PAGE: PageMax = PageMax {
    pairs: 1_024,
    bytes: 1024 * 1024,
};

/// A share in the slots of one map.
#[derive(Clone)]
pub(crate) struct Ledger {
    group: GroupId,
    store: Store,
    /// Entries leave it once they are durable and visible in the store. So whoever looks here
    /// first and into the store after misses none.
    recent: Arc<Mutex<Recent>>,
    /// Tells the version in there to those who wait for it.
    applied: Arc<watch::Sender<Version>>,
}

#[derive(Default)]
struct Recent {
    /// How far the map is applied, and how many slots are decided by then.
    version: Version,
    count: u64,
    by_slot: BTreeMap<Slot, Arc<Record>>,
    by_version: BTreeMap<Version, Slot>,
}

impl Ledger {
    /// Of a map that is applied up to `version`, durably, where `count` slots are decided.
    pub(crate) fn new(store: Store, group: GroupId, version: Version, count: u64) -> Self {
        let recent = Recent {
            version,
            count,
            ..Recent::default()
        };
        Self {
            group,
            store,
            recent: Arc::new(Mutex::new(recent)),
            applied: Arc::new(watch::Sender::new(version)),
        }
    }

    /// Of a map that nothing is applied to at the moment.
    pub(crate) fn at_rest(store: &Store, group: GroupId) -> Result<Self, StoreFailed> {
        let mut ledger = Self::new(store.clone(), group, Version::ZERO, 0);
        let applied: Option<Applied> = ledger.stored(APPLIED)?;
        let version = applied.map_or(Version::ZERO, |applied| applied.version);
        let count = ledger.stored(COUNT)?.unwrap_or(0);
        ledger = Self::new(store.clone(), group, version, count);
        Ok(ledger)
    }

    /// Every change under it is whole.
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, tag: u8, rest: &[u8]) -> Vec<u8> {
        key(self.group, Some(tag), rest)
    }

    fn unpack_record(&self, bytes: &[u8]) -> Result<Arc<Record>, StoreFailed> {
        unpack(self.group, bytes).map(Arc::new)
    }

    // -- reading -----------------------------------------------------------------------------

    pub(crate) fn get(&self, slot: &[u8]) -> Result<Option<Arc<Record>>, StoreFailed> {
        let recent = self.recent().by_slot.get(slot).cloned();
        if recent.is_some() {
            return Ok(recent);
        }
        let stored = self.store.get(&self.key(RECORD, slot))?;
        stored.map(|bytes| self.unpack_record(&bytes)).transpose()
    }

    /// The slots of these that are decided.
    pub(crate) fn fetch<'a>(
        &self,
        slots: impl IntoIterator<Item = &'a Slot>,
    ) -> Result<Fetched, StoreFailed> {
        let mut fetched = Fetched::default();
        let mut stored = Vec::new();
        {
            let recent = self.recent();
            for slot in slots {
                match recent.by_slot.get(slot) {
                    Some(record) => {
                        fetched.0.insert(slot.clone(), record.clone());
                    }
                    None => stored.push(slot),
                }
            }
        }
        // Many may be after the same one, which is read once.
        stored.sort_unstable();
        stored.dedup();
        let keys: Vec<_> = stored.iter().map(|slot| self.key(RECORD, slot)).collect();
        for (slot, found) in stored.iter().zip(self.store.get_all(&keys)?) {
            if let Some(bytes) = found {
                let record = self.unpack_record(&bytes)?;
                fetched.0.insert((*slot).clone(), record);
            }
        }
        Ok(fetched)
    }

    /// The first slots of the range by name, and where to go on if there may be more.
    pub(crate) fn page(&self, range: &Range) -> Result<(Vec<Decided>, Option<Range>), StoreFailed> {
        let mut slots: BTreeMap<Slot, Arc<Record>> = BTreeMap::new();
        for (slot, record) in self.recent().by_slot.range(range.from.clone()..) {
            if !range.is_before_end(slot) {
                break;
            }
            slots.insert(slot.clone(), record.clone());
        }
        let prefix = self.key(RECORD, &[]);
        let from = self.key(RECORD, &range.from);
        let (stored, end) = self
            .store
            .scan_page(&prefix, Bound::Included(&from), PAGE)?;
        for (key, value) in stored {
            let slot = &key[prefix.len()..];
            if !range.is_before_end(slot) {
                break;
            }
            slots.insert(slot.to_vec(), self.unpack_record(&value)?);
        }
        // What is behind the end of the page belongs to a later one.
        let end = end.map(|key| key[prefix.len()..].to_vec());
        let mut end = end.filter(|end| range.is_before_end(end));
        let mut page: Vec<Decided> = Vec::new();
        let (mut bytes, mut last) = (0, None);
        for (slot, record) in slots {
            if end.as_ref().is_some_and(|end| slot > *end) {
                break;
            }
            if page.len() == PAGE.pairs || bytes > PAGE.bytes {
                // Several sources may have filled it.
                end = last;
                break;
            }
            bytes += slot.len() + record.proposal.value.len();
            last = Some(slot.clone());
            page.push((slot, record));
        }
        Ok((page, end.map(|end| range.behind(&end))))
    }

    /// The first slots of the range that were decided behind `after`, in that order, and up to
    /// which version these are all.
    pub(crate) fn changes(
        &self,
        after: Version,
        range: &Range,
    ) -> Result<(Vec<Decided>, Version), StoreFailed> {
        let upto;
        let names: BTreeMap<Version, Slot> = {
            let recent = self.recent();
            upto = recent.version;
            if after >= upto {
                return Ok((Vec::new(), after));
            }
            let newer = (Bound::Excluded(after), Bound::Included(upto));
            if planted(Bug::StreamSkips) {
                // As if nothing were on its way to the disk.
                drop(recent);
                return self.with_durable_changes(after, upto, range, BTreeMap::new());
            }
            let names = recent.by_version.range(newer);
            names.map(|(at, slot)| (*at, slot.clone())).collect()
        };
        self.with_durable_changes(after, upto, range, names)
    }

    /// The same, with `names` for those that may not be durable yet.
    fn with_durable_changes(
        &self,
        after: Version,
        upto: Version,
        range: &Range,
        mut names: BTreeMap<Version, Slot>,
    ) -> Result<(Vec<Decided>, Version), StoreFailed> {
        let prefix = self.key(CHANGE, &[]);
        let from = self.key(CHANGE, &after.as_u64().to_be_bytes());
        let (stored, end) = self
            .store
            .scan_page(&prefix, Bound::Excluded(&from), NAMES)?;
        for (key, value) in stored {
            let at = self.version_of(&key[prefix.len()..])?;
            names.insert(at, unpack(self.group, &value)?);
        }
        let mut reached = upto;
        if let Some(end) = end {
            reached = reached.min(self.version_of(&end[prefix.len()..])?);
        }
        names.retain(|at, slot| *at <= reached && range.contains(slot));
        if names.len() > PAGE.pairs {
            let beyond = names.keys().nth(PAGE.pairs).copied();
            if let Some(beyond) = beyond {
                names.split_off(&beyond);
                reached = names.keys().next_back().copied().unwrap_or(after);
            }
        }
        self.records_of(names, reached)
    }

    /// The records of these slots, as many as one page may have.
    fn records_of(
        &self,
        names: BTreeMap<Version, Slot>,
        reached: Version,
    ) -> Result<(Vec<Decided>, Version), StoreFailed> {
        let mut slots: Vec<Decided> = Vec::new();
        let mut bytes = 0;
        let names: Vec<_> = names.into_iter().collect();
        // A few at a time, so that large values are not read in vain.
        let mut rest = names.as_slice();
        let mut count = 1;
        while !rest.is_empty() && bytes <= PAGE.bytes {
            let (some, later) = rest.split_at(count.min(rest.len()));
            rest = later;
            count = (2 * count).min(8);
            let fetched = self.fetch(some.iter().map(|(_, slot)| slot))?;
            for (at, slot) in some {
                let Some(record) = fetched.0.get(slot).filter(|record| record.version == *at)
                else {
                    return Err(broken(self.group, "a slot is not what its history says"));
                };
                if bytes > PAGE.bytes
                    && let Some((_, last)) = slots.last()
                {
                    let reached = last.version;
                    return Ok((slots, reached));
                }
                bytes += slot.len() + record.proposal.value.len();
                slots.push((slot.clone(), record.clone()));
            }
        }
        let reached = match slots.last() {
            Some((_, last)) if !rest.is_empty() => last.version,
            _ => reached,
        };
        Ok((slots, reached))
    }

    fn version_of(&self, bytes: &[u8]) -> Result<Version, StoreFailed> {
        let number = bytes.try_into().map(u64::from_be_bytes);
        let number = number.map_err(|_| broken(self.group, "a decision without a version"))?;
        Ok(Version::new(number))
    }

    fn stored<T: crate::codec::Decode<()>>(&self, tag: u8) -> Result<Option<T>, StoreFailed> {
        let stored = self.store.get(&self.key(tag, &[]))?;
        stored.map(|bytes| unpack(self.group, &bytes)).transpose()
    }

    /// How many slots are decided by what is applied.
    pub(crate) fn count(&self) -> u64 {
        self.recent().count
    }

    /// How far it is applied.
    pub(crate) fn version(&self) -> Version {
        self.recent().version
    }

    /// Waits until it is applied so far; for ever, if nothing is applied to it any more.
    pub(crate) async fn reaches(&self, version: Version) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`.
        let _ = applied.wait_for(|applied| *applied >= version).await;
    }

    /// Up to which version all slots are here, applied or not.
    pub(crate) fn filled(&self) -> Result<Version, StoreFailed> {
        let filled: Option<Version> = self.stored(FILLED)?;
        Ok(filled.unwrap_or(Version::ZERO).max(self.version()))
    }

    // -- writing -----------------------------------------------------------------------------

    fn put(&self, batch: &mut Batch, slots: &[Decided]) {
        for (slot, record) in slots {
            batch.put(self.key(RECORD, slot), pack(record.as_ref()));
            let at = record.version.as_u64().to_be_bytes();
            batch.put(self.key(CHANGE, &at), pack(slot));
        }
    }

    /// Adds what was decided to a batch that says that the map is applied up to `version`, and
    /// queues it. From now on it is read here.
    pub(crate) fn write(&self, mut batch: Batch, version: Version, new: Vec<Decided>) {
        self.put(&mut batch, &new);
        {
            let mut recent = self.recent();
            recent.version = version;
            recent.count += new.len() as u64;
            batch.put(self.key(COUNT, &[]), pack(&recent.count));
            for (slot, record) in &new {
                recent.by_slot.insert(slot.clone(), record.clone());
                recent.by_version.insert(record.version, slot.clone());
            }
        }
        self.applied.send_replace(version);
        let recent = self.recent.clone();
        self.store.write(batch, Durability::Lazy, move |result| {
            // What could not be written is not forgotten before this process ends.
            if result.is_ok() {
                let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
                for (slot, record) in &new {
                    recent.by_slot.remove(slot);
                    recent.by_version.remove(&record.version);
                }
            }
        });
    }

    /// Goes on from a later state, of which all slots are here already.
    pub(crate) fn put_count(&self, batch: &mut Batch, count: u64) {
        batch.put(self.key(COUNT, &[]), pack(&count));
    }

    /// That state is durable.
    pub(crate) fn go_on(&self, version: Version, count: u64) {
        let mut recent = self.recent();
        recent.version = version;
        recent.count = count;
        drop(recent);
        self.applied.send_replace(version);
    }

    /// Takes in what another voter has applied: all slots decided behind `after` up to `upto`.
    /// Returns up to which version all are here, durably.
    pub(crate) async fn fill(
        &self,
        after: Version,
        upto: Version,
        slots: &[Decided],
    ) -> Result<Version, StoreFailed> {
        let filled = self.filled()?;
        if after > filled || upto <= filled {
            return Ok(filled);
        }
        let mut batch = Batch::default();
        self.put(&mut batch, slots);
        batch.put(self.key(FILLED, &[]), pack(&upto));
        self.store.write_durably(batch).await?;
        Ok(upto)
    }
}

/// All that is stored of a group but its slots or tasks, of which there may be many.
pub(in super::super) fn find_without_slots(
    store: &Store,
    group: GroupId,
) -> Result<Vec<Pair>, StoreFailed> {
    let tags = [VOTE, PURGED, ELECTORATE, APPLIED, COUNT];
    let keys = tags.map(|tag| key(group, Some(tag), &[]));
    let values = store.get_all(&keys)?;
    let mut found: Vec<Pair> = keys
        .into_iter()
        .zip(values)
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let prefix = key(group, Some(ENTRY), &[]);
    let mut from = prefix.clone();
    loop {
        let (entries, end) = store.scan_page(&prefix, Bound::Excluded(&from), ENTRIES_A_PAGE)?;
        found.extend(entries);
        match end {
            Some(end) => from = end,
            None => return Ok(found),
        }
    }
}

/// What is known of some slots of a map.
#[derive(Default)]
pub(crate) struct Fetched(BTreeMap<Slot, Arc<Record>>);

impl Fetched {
    /// As [`apply`], where nothing can fail.
    pub(crate) fn apply(&mut self, version: Version, command: &Command) -> Reply {
        match apply(self, version, command) {
            Ok(reply) => reply,
            Err(never) => match never {},
        }
    }
}

impl Slots for Fetched {
    type Error = Infallible;

    fn record(&mut self, slot: &[u8]) -> Result<Option<Arc<Record>>, Infallible> {
        Ok(self.0.get(slot).cloned())
    }

    fn decide(&mut self, slot: &Slot, record: &Arc<Record>) {
        self.0.insert(slot.clone(), record.clone());
    }
}
