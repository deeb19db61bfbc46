//! What changed since the last checkpoint, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::batch::Op;

/// What an entry costs beside its key and value: two vectors and its share of a tree node.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// The later of the two beginnings. A key that starts with the prefix is not less than it.
pub(super) fn start_of<'a>(prefix: &'a [u8], from: Bound<&'a [u8]>) -> Bound<&'a [u8]> {
    match from {
        Bound::Included(key) | Bound::Excluded(key) if key >= prefix => from,
        _ => Bound::Included(prefix),
    }
}

/// Keys and their newest values; `None` says deleted, whatever an older table holds.
#[derive(Default)]
pub(super) struct Table {
    entries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl Table {
    pub(super) fn apply(&mut self, ops: Vec<Op>) {
        for (key, value) in ops {
            let value_bytes = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
            let key_bytes = key.len();
            self.bytes += value_bytes(&value);
            match self.entries.insert(key, value) {
                Some(old) => self.bytes -= value_bytes(&old),
                None => self.bytes += key_bytes + ENTRY_OVERHEAD_BYTES,
            }
        }
    }

    /// For the only table there is: with nothing older below it, a delete needs no mark.
    pub(super) fn apply_alone(&mut self, ops: Vec<Op>) {
        for (key, value) in ops {
            match value {
                Some(value) => self.entries.insert(key, Some(value)),
                None => self.entries.remove(&key),
            };
        }
    }

    /// `Some(None)`: deleted. `None`: this table does not know.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<&Vec<u8>>> {
        self.entries.get(key).map(Option::as_ref)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    pub(super) fn scan(&self, prefix: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Option<Vec<u8>>)> {
        self.entries
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The same, from somewhere on.
    pub(super) fn scan_from(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&Vec<u8>, &Option<Vec<u8>>)> {
        self.entries
            .range::<[u8], _>((start_of(prefix, from), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how much memory the table takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
