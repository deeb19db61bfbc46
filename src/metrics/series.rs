//! One figure each: the number that `Network::status` reads, and the handle by which the same
//! change is reported to the program's recorder.

use std::sync::atomic::{AtomicU64, Ordering};

/// Only ever grows.
pub(crate) struct Counter {
    value: AtomicU64,
    reported: ::metrics::Counter,
}

impl Counter {
    pub(super) fn new(reported: ::metrics::Counter) -> Self {
        Self {
            value: AtomicU64::new(0),
            reported,
        }
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.value.fetch_add(more, Ordering::Relaxed);
        self.reported.increment(more);
    }

    pub(crate) fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// How many of something there are. Whoever brings one in or takes it away says so at the same
/// place and under the same lock, so that it never drifts.
pub(crate) struct Gauge {
    value: AtomicU64,
    reported: ::metrics::Gauge,
}

impl Gauge {
    pub(super) fn new(reported: ::metrics::Gauge) -> Self {
        Self {
            value: AtomicU64::new(0),
            reported,
        }
    }

    // Reported by its changes, not by its value: those commute, so that nodes that follow each
    // other under one name, or two changes at a time, leave the right sum.
    pub(crate) fn add(&self, more: usize) {
        self.value.fetch_add(more as u64, Ordering::Relaxed);
        self.reported.increment(more as f64);
    }

    pub(crate) fn sub(&self, fewer: usize) {
        self.value.fetch_sub(fewer as u64, Ordering::Relaxed);
        self.reported.decrement(fewer as f64);
    }

    pub(crate) fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// A node that is gone has nothing any more.
impl Drop for Gauge {
    fn drop(&mut self) {
        self.reported.decrement(*self.value.get_mut() as f64);
    }
}

/// The powers of two up to this one bound the buckets.
const BUCKETS: usize = 33;

/// How large things are that come often.
pub(crate) struct Sizes {
    /// By the number of bits that it takes to count to one less: up to 1, 2, 4, 8 and so on.
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
    reported: ::metrics::Histogram,
}

impl Sizes {
    pub(super) fn new(reported: ::metrics::Histogram) -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
            reported,
        }
    }

    pub(crate) fn record(&self, size: usize) {
        let size = size as u64;
        let bits = (u64::BITS - size.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bits.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(size, Ordering::Relaxed);
        self.max.fetch_max(size, Ordering::Relaxed);
        self.reported.record(size as f64);
    }

    pub(super) fn get(&self) -> Distribution {
        let counts = self.buckets.each_ref().map(|n| n.load(Ordering::Relaxed));
        let max = self.max.load(Ordering::Relaxed);
        let buckets = counts.iter().enumerate().filter(|(_, n)| **n > 0);
        Distribution {
            count: counts.iter().sum(),
            sum: self.sum.load(Ordering::Relaxed),
            max,
            buckets: buckets
                .map(|(bits, n)| match bits == BUCKETS - 1 {
                    true => (u64::MAX, *n),
                    false => (1 << bits, *n),
                })
                .collect(),
        }
    }
}

/// How large things were that this node has seen since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Distribution {
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: u64,
    /// The largest.
    pub max: u64,
    /// A size, and how many there were up to it that are larger than half of it; sizes of which
    /// there were none are left out. The sizes are powers of two; what is larger than 2^31 is
    /// counted at `u64::MAX`.
    pub buckets: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fall_into_the_powers_of_two_that_hold_them() {
        let sizes = Sizes::new(::metrics::Histogram::noop());
        for size in [0, 1, 2, 3, 4, 5, 8, 9, 1 << 31, (1 << 31) + 1, usize::MAX] {
            sizes.record(size);
        }
        let known = sizes.get();
        assert_eq!(known.count, 11);
        assert_eq!(known.max, u64::MAX);
        let expected = [
            (1, 2),
            (2, 1),
            (4, 2),
            (8, 2),
            (16, 1),
            (1 << 31, 1),
            (u64::MAX, 2),
        ];
        assert_eq!(known.buckets, expected);
    }

    #[test]
    fn what_a_gauge_holds_comes_and_goes() {
        let gauge = Gauge::new(::metrics::Gauge::noop());
        gauge.add(3);
        gauge.sub(1);
        assert_eq!(gauge.get(), 2);
    }
}
