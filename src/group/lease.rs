//! Proof that some part of a group's instance still runs.

use std::sync::{Arc, Weak};

use tokio_util::sync::{CancellationToken, DropGuard};

/// Held by the log, every reader of it and the state machine, and while a group is born: nothing
/// of a group is written by anyone who does not hold it. No other instance of the group may start
/// before all have dropped it.
#[derive(Clone)]
pub(crate) struct Lease {
    _end: Arc<DropGuard>,
}

/// The end of a lease, to be waited for.
#[derive(Clone)]
pub(crate) struct LeaseEnd {
    ended: CancellationToken,
    parts: Weak<DropGuard>,
}

impl Lease {
    pub(crate) fn new() -> (Self, LeaseEnd) {
        let ended = CancellationToken::new();
        let guard = Arc::new(ended.clone().drop_guard());
        let parts = Arc::downgrade(&guard);
        (Self { _end: guard }, LeaseEnd { ended, parts })
    }
}

impl LeaseEnd {
    /// Nothing of the instance runs any more.
    pub(crate) fn is_reached(&self) -> bool {
        self.parts.strong_count() == 0
    }

    /// Stands for a part that runs on.
    #[cfg(test)]
    pub(crate) fn part(&self) -> Option<Lease> {
        self.parts.upgrade().map(|_end| Lease { _end })
    }

    pub(crate) async fn reached(&self) {
        self.ended.cancelled().await;
    }
}
