//! What a disk is told to do wrong, and how often it did.

use std::collections::BTreeMap;
use std::io;

/// The kinds that tests count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Fault {
    PowerCut,
    Kill,
    /// Un-synced pages at a power cut: none of it, all of it, or a part of it survived.
    PageLost,
    PageKept,
    PageTorn,
    /// A file's new length did not survive.
    LengthLost,
    /// A creation, rename or removal did not survive.
    NameLost,
    SyncFailed,
    ReadFailed,
    NoSpace,
    /// No space, after a part was written.
    WriteCut,
    /// Something worked again on a disk that had been full.
    SpaceBack,
}

/// So many still succeed, and then so many fail.
#[derive(Clone, Copy)]
struct Spell {
    good: u64,
    bad: u64,
}

#[derive(Default)]
pub(super) struct Faults {
    /// How many changes still succeed; after that nothing does.
    pub(super) changes_left: Option<u64>,
    syncs: Option<Spell>,
    reads: Option<Spell>,
    /// In bytes, then in refused calls.
    space: Option<Spell>,
    pub(super) changes: u64,
    counted: BTreeMap<Fault, u64>,
}

impl Faults {
    /// For the next process on the same disk: nothing is wrong any more.
    pub(super) fn next(&self) -> Self {
        Self {
            counted: self.counted.clone(),
            ..Self::default()
        }
    }

    pub(super) fn fail_after_syncs(&mut self, good: u64) {
        let bad = u64::MAX;
        self.syncs = Some(Spell { good, bad });
    }

    pub(super) fn fail_reads(&mut self, good: u64, bad: u64) {
        self.reads = Some(Spell { good, bad });
    }

    pub(super) fn run_out_of_space(&mut self, good: u64, bad: u64) {
        self.space = Some(Spell { good, bad });
    }

    #[cfg(test)]
    pub(super) fn is_to_fail(&self) -> bool {
        self.syncs.is_some() || self.space.is_some() || self.changes_left.is_some()
    }

    pub(super) fn count(&mut self, fault: Fault, times: u64) {
        *self.counted.entry(fault).or_default() += times;
    }

    pub(super) fn counted(&self) -> BTreeMap<Fault, u64> {
        self.counted.clone()
    }

    pub(super) fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match &mut self.changes_left {
            Some(0) => Err(io::Error::other("the power is cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.change()?;
        if ends(&mut self.syncs) {
            self.count(Fault::SyncFailed, 1);
            return Err(io::Error::other("the sync failed"));
        }
        Ok(())
    }

    pub(super) fn read(&mut self) -> io::Result<()> {
        if ends(&mut self.reads) {
            self.count(Fault::ReadFailed, 1);
            return Err(io::Error::other("the read failed"));
        }
        Ok(())
    }

    /// How many of `bytes` more find room. A creation or a rename needs one.
    pub(super) fn room(&mut self, bytes: usize) -> usize {
        let Some(Spell { good, bad }) = &mut self.space else {
            return bytes;
        };
        if *good == 0 && *bad == 0 {
            self.space = None;
            self.count(Fault::SpaceBack, 1);
            return bytes;
        }
        let fits = (bytes as u64).min(*good);
        *good -= fits;
        if fits < bytes as u64 {
            *bad = bad.saturating_sub(1);
            self.count(Fault::NoSpace, 1);
            self.count(Fault::WriteCut, u64::from(fits > 0));
        }
        fits as usize
    }

    pub(super) fn room_for_name(&mut self) -> io::Result<()> {
        match self.room(1) {
            1 => Ok(()),
            _ => Err(no_space()),
        }
    }
}

pub(super) fn no_space() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// Counts a call down; says whether it is one of the bad ones.
fn ends(spell: &mut Option<Spell>) -> bool {
    match spell {
        None => false,
        Some(Spell { good: 0, bad: 0 }) => {
            *spell = None;
            false
        }
        Some(Spell { good: 0, bad }) => {
            *bad -= 1;
            true
        }
        Some(Spell { good, .. }) => {
            *good -= 1;
            false
        }
    }
}
