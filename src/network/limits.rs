//! What the peers of this node may make it hold.

use std::sync::Arc;

use crate::transport::{Allowance, Budget, Pool};

/// Of a voter: requests open at once, bytes on the way, bytes of requests being put together.
const VOTER_ALLOWANCE: Allowance = Allowance {
    streams_max: 256,
    receive_window_bytes: 8 * 1024 * 1024,
};
const VOTER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Of an observer: requests open at once, bytes on the way.
pub(super) const OBSERVER_STREAMS_MAX: u32 = 64;
const OBSERVER_ALLOWANCE: Allowance = Allowance {
    streams_max: OBSERVER_STREAMS_MAX,
    receive_window_bytes: 1024 * 1024,
};

/// Bytes of requests, until they are answered, and of answers, until they are sent: what each
/// observer may always have, what one may have beyond it, and what all may have beyond it.
pub(super) const OBSERVER_SHARE_BYTES: usize = 256 * 1024;
pub(super) const OBSERVER_BYTES_MAX: usize = 64 * 1024 * 1024;
pub(super) const OBSERVERS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The longest answer of an observer, which has little to say.
pub(super) const OBSERVER_REPLY_BYTES_MAX: usize = 4 * 1024;

pub(super) fn allowance(is_voter: bool) -> Allowance {
    if is_voter {
        VOTER_ALLOWANCE
    } else {
        OBSERVER_ALLOWANCE
    }
}

/// The budgets of all peers of a node.
pub(super) struct Budgets {
    pub(super) observers: Arc<Pool>,
}

impl Budgets {
    pub(super) fn new() -> Self {
        Self {
            observers: Pool::new(OBSERVERS_BYTES_MAX),
        }
    }

    /// The budget of a new link.
    pub(super) fn of(&self, is_voter: bool) -> Arc<Budget> {
        if is_voter {
            return Budget::alone(VOTER_BYTES_MAX);
        }
        let shared = self.observers.clone();
        Budget::sharing(OBSERVER_SHARE_BYTES, OBSERVER_BYTES_MAX, shared)
    }
}
