//! One file's bytes: what a process sees, what is on the disk, and which pages differ.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::StdRng;

use super::bytes::Bytes;
use super::faults::{Fault, Faults};

const PAGE_BYTES: usize = 512;
/// What a disk writes at once, at the very least.
const SECTOR_BYTES: usize = 64;

#[derive(Clone, Default)]
pub(super) struct Contents {
    pub(super) now: Bytes,
    durable: Bytes,
    dirty: BTreeSet<usize>,
    /// Pages of a failed sync: in the cache, and clean as far as later syncs know.
    lost: BTreeSet<usize>,
}

impl Contents {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty
            .extend(from / PAGE_BYTES..to.div_ceil(PAGE_BYTES));
    }

    pub(super) fn write(&mut self, from: usize, bytes: &[u8]) {
        let to = from + bytes.len();
        if to > self.now.len() {
            self.set_len(to);
        }
        self.now.write(from, bytes);
        self.touch(from, to);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        let old = self.now.len();
        self.now.set_len(len);
        self.touch(old.min(len), old.max(len));
    }

    pub(super) fn sync(&mut self) {
        self.durable.set_len(self.now.len());
        for page in std::mem::take(&mut self.dirty) {
            let (from, to) = bounds(page, self.now.len());
            self.durable.copy_from(&self.now, from, to);
        }
    }

    pub(super) fn fail_sync(&mut self) {
        self.lost.append(&mut self.dirty);
    }

    /// As a copy of what a process sees has it.
    pub(super) fn settle(&mut self) {
        self.durable.clone_from(&self.now);
        self.dirty.clear();
        self.lost.clear();
    }

    /// Flips one bit of what is on the disk, and of what a process sees unless it has written
    /// there and not synced.
    pub(super) fn flip_bit(&mut self, bit: usize) {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        self.durable.flip(byte, mask);
        if !self.dirty.contains(&(byte / PAGE_BYTES)) {
            self.now.flip(byte, mask);
        }
    }

    /// A power cut. `kept` is the share of what was not synced that survives.
    pub(super) fn crash(&mut self, chance: &mut StdRng, kept: f64, faults: &mut Faults) {
        self.dirty.append(&mut self.lost);
        let mut len = self.now.len();
        if len != self.durable.len() && !chance.random_bool(kept) {
            len = self.durable.len();
            faults.count(Fault::LengthLost, 1);
        }
        self.durable.set_len(len);
        for page in std::mem::take(&mut self.dirty) {
            let (from, to) = bounds(page, len.min(self.now.len()));
            if from == to {
                continue;
            }
            let sectors = || (from..to).step_by(SECTOR_BYTES);
            let survives: Vec<usize> = match () {
                () if chance.random_bool(0.1) => {
                    faults.count(Fault::PageTorn, 1);
                    // From the front up to somewhere, or any of them.
                    if chance.random_bool(0.5) {
                        let cut = chance.random_range(from..=to);
                        sectors().take_while(|&sector| sector < cut).collect()
                    } else {
                        sectors().filter(|_| chance.random_bool(0.5)).collect()
                    }
                }
                () if chance.random_bool(kept) => {
                    faults.count(Fault::PageKept, 1);
                    sectors().collect()
                }
                () => {
                    faults.count(Fault::PageLost, 1);
                    continue;
                }
            };
            for sector in survives {
                let end = to.min(sector + SECTOR_BYTES);
                self.durable.copy_from(&self.now, sector, end);
            }
        }
        self.now.clone_from(&self.durable);
    }
}

fn bounds(page: usize, len: usize) -> (usize, usize) {
    let to = len.min((page + 1) * PAGE_BYTES);
    (to.min(page * PAGE_BYTES), to)
}
