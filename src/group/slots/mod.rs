//! The slots of a map: where they are kept, how they are read, and how a voter that is behind
//! gets them.
//!
//! A record never changes, and a state is all records up to a version. So an older state is a
//! prefix of a newer one, whoever has it: readers and voters that are behind go on where they
//! stopped, at any voter, and nobody has to hold a state still for them.

mod ask;
mod fill;
mod ledger;
mod serve;
#[cfg(test)]
mod tests;

use std::ops::Bound;
use std::sync::Arc;

use crate::codec::{Decode, Encode};
use crate::id::Version;
use crate::machine::{Record, Slot};
use crate::store::PageMax;

pub(super) use ledger::{COUNT, Fetched, Ledger, find_without_slots};

/// A slot and its record.
pub(crate) type Decided = (Slot, Arc<Record>);

/// The most slots that are read or sent at once, unless the first of them is larger.
pub(super) const PAGE: PageMax = PageMax {
    pairs: 1_024,
    bytes: 256 * 1024,
};

/// Slots that follow each other by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) struct Range {
    /// The first name that is in it.
    pub(crate) from: Slot,
    /// The first name behind it; without one it goes on for ever.
    pub(crate) to: Option<Slot>,
}

impl Range {
    pub(crate) fn of_bounds(from: Bound<Slot>, to: Bound<Slot>) -> Self {
        let after = |slot: Slot| [&slot[..], &[0]].concat();
        Self {
            from: match from {
                Bound::Included(slot) => slot,
                Bound::Excluded(slot) => after(slot),
                Bound::Unbounded => Slot::new(),
            },
            to: match to {
                Bound::Included(slot) => Some(after(slot)),
                Bound::Excluded(slot) => Some(slot),
                Bound::Unbounded => None,
            },
        }
    }

    /// This one alone.
    pub(crate) fn of_slot(slot: Slot) -> Self {
        Self::of_bounds(Bound::Included(slot.clone()), Bound::Included(slot))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    /// Of both bounds.
    pub(crate) fn bytes(&self) -> usize {
        self.from.len() + self.to.as_ref().map_or(0, Vec::len)
    }

    /// All that is in `other` is in this one.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        let ends_before = match (&self.to, &other.to) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => theirs <= ours,
        };
        self.from <= other.from && ends_before
    }

    pub(crate) fn contains(&self, slot: &[u8]) -> bool {
        self.from.as_slice() <= slot && self.is_before_end(slot)
    }

    fn is_before_end(&self, slot: &[u8]) -> bool {
        self.to.as_ref().is_none_or(|to| slot < to.as_slice())
    }

    /// What is behind `slot`.
    fn behind(&self, slot: &[u8]) -> Self {
        Self {
            from: [slot, &[0]].concat(),
            to: self.to.clone(),
        }
    }
}

/// What nodes ask each other about the slots of a map.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum SlotsRequest {
    /// As `Body::Status`, with the record of this slot. Between voters only; wakes nothing.
    Status { slot: Slot },
    /// What does this voter know of the slot?
    Get { slot: Slot },
    /// Ask a majority, on behalf of an observer.
    Barrier { slot: Slot, within_ms: u64 },
    /// Commit whatever may be committed, and say what stands in the slot then.
    Settle {
        slot: Slot,
        hops_left: u8,
        within_ms: u64,
    },
    /// The first slots of the range that this voter knows, by name.
    Page { range: Range },
    /// The first slots of the range that were decided after this version, in the order in which
    /// they were.
    Changes { after: Version, range: Range },
    /// How many slots does this voter know to be decided?
    Count,
    /// Up to which version are all slots here? Between voters only; wakes nothing.
    Filled,
    /// All slots that were decided behind `after`, up to `upto`. Between voters only.
    Fill {
        after: Version,
        upto: Version,
        slots: Vec<Decided>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum SlotsResponse {
    Record(Option<Arc<Record>>),
    /// And what to ask for next, if there may be more.
    Page {
        slots: Vec<Decided>,
        next: Option<Range>,
    },
    /// All there are in the range up to the version `upto`, and how far this voter is.
    Changes {
        slots: Vec<Decided>,
        upto: Version,
        version: Version,
    },
    Count(u64),
    Filled(Version),
}
