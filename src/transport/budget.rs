//! Bytes that peers make this node hold: taken from a budget when they are announced, before
//! there is any memory for them, and given back when they are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that is never exceeded. What does not fit is refused, not waited for: who
/// waits may hold what the others wait for.
#[derive(Debug)]
pub(crate) struct Pool {
    bytes_max: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        })
    }

    /// Takes `bytes`, until the result is dropped; `None` if there are not so many left.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let more = |used: usize| {
            let used = used.checked_add(bytes)?;
            (used <= self.bytes_max).then_some(used)
        };
        let order = Ordering::Relaxed;
        let before = self.used.fetch_update(order, order, more).ok()?;
        self.peak.fetch_max(before + bytes, order);
        Some(Taken {
            pool: self.clone(),
            bytes,
        })
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The most that was ever taken at once.
    #[cfg(test)]
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

/// Bytes taken from a [`Pool`], given back on drop.
#[derive(Debug)]
pub(crate) struct Taken {
    pool: Arc<Pool>,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What one peer may make this node hold.
#[derive(Debug)]
pub(crate) struct Budget {
    /// For this peer alone: nobody else can use it up.
    own: Arc<Pool>,
    /// Beyond it: the most of this peer, and what it shares with others of its kind.
    beyond: Option<(Arc<Pool>, Arc<Pool>)>,
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    _taken: Taken,
    _shared: Option<Taken>,
}

impl Budget {
    /// `bytes_max`, and no more.
    pub(crate) fn alone(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            own: Pool::new(bytes_max),
            beyond: None,
        })
    }

    /// A share of `own_bytes_max`, and beyond it up to `beyond_bytes_max` of what is `shared`.
    pub(crate) fn sharing(
        own_bytes_max: usize,
        beyond_bytes_max: usize,
        shared: Arc<Pool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            own: Pool::new(own_bytes_max),
            beyond: Some((Pool::new(beyond_bytes_max), shared)),
        })
    }

    /// Takes `bytes`, until the result is dropped; `None` if there are not so many left.
    pub(crate) fn take(&self, bytes: usize) -> Option<Charge> {
        if let Some(taken) = self.own.take(bytes) {
            return Some(Charge {
                _taken: taken,
                _shared: None,
            });
        }
        let (beyond, shared) = self.beyond.as_ref()?;
        Some(Charge {
            _taken: beyond.take(bytes)?,
            _shared: Some(shared.take(bytes)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_what_it_has_and_takes_it_back() {
        let pool = Pool::new(10);
        let six = pool.take(6).unwrap();
        assert!(pool.take(5).is_none());
        let four = pool.take(4).unwrap();
        assert_eq!(pool.used(), 10);
        assert!(pool.take(usize::MAX).is_none());
        drop(six);
        assert_eq!(pool.used(), 4);
        assert!(pool.take(6).is_some());
        drop(four);
        assert_eq!((pool.used(), pool.peak()), (0, 10));
    }

    #[test]
    fn what_is_refused_half_way_is_given_back() {
        let shared = Pool::new(10);
        let budget = Budget::sharing(1, 100, shared.clone());
        assert!(budget.take(11).is_none());
        let (beyond, _) = budget.beyond.as_ref().unwrap();
        assert_eq!((beyond.used(), shared.used()), (0, 0));
    }

    #[test]
    fn a_peer_keeps_its_share_whatever_the_others_take() {
        let shared = Pool::new(100);
        let greedy = Budget::sharing(10, 60, shared.clone());
        let modest = Budget::sharing(10, 60, shared.clone());
        // One peer alone cannot use up what all share.
        let held = greedy.take(60).unwrap();
        assert!(greedy.take(11).is_none());
        let other = Budget::sharing(10, 60, shared.clone());
        let rest = other.take(40).unwrap();
        assert!(modest.take(11).is_none());
        let own = modest.take(10).unwrap();
        assert!(modest.take(1).is_none());
        drop((held, rest, own));
        assert_eq!(shared.used(), 0);
    }
}
