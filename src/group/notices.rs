//! Commit notices that a follower may not have heard. openraft repeats entries until they are
//! acknowledged, but a notice that carries none it sends once and leaves the rest to heartbeats,
//! which are off here. A follower that missed it would hold a committed entry and never know.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::id::NodeId;

use super::raft::LogPosition;

#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// How far the log was committed when a message to that voter had no answer.
    unheard: Mutex<BTreeMap<NodeId, Option<LogPosition>>>,
    changed: Notify,
}

impl Notices {
    fn unheard(&self) -> MutexGuard<'_, BTreeMap<NodeId, Option<LogPosition>>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message to `voter` that said how far the log is committed had no answer.
    pub(crate) fn lost(&self, voter: NodeId, committed: Option<LogPosition>) {
        let mut unheard = self.unheard();
        let known = unheard.entry(voter).or_default();
        *known = committed.max(*known);
        self.changed.notify_one();
    }

    /// `voter` acknowledged a message that said how far the log is committed.
    pub(crate) fn heard(&self, voter: NodeId, committed: Option<LogPosition>) {
        let mut unheard = self.unheard();
        if unheard.get(&voter).is_some_and(|lost| *lost <= committed) {
            unheard.remove(&voter);
        }
    }

    /// Some voter for which `reachable` holds has not heard.
    pub(crate) fn any(&self, reachable: impl Fn(NodeId) -> bool) -> bool {
        self.unheard().keys().any(|voter| reachable(*voter))
    }

    /// Look again: a notice was lost, or a link came back.
    pub(crate) fn nudge(&self) {
        self.changed.notify_one();
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_notice_does_not_stand_for_a_newer_one_that_was_lost() {
        let (notices, voter) = (Notices::default(), NodeId::of_voter("a"));
        let at = |index| Some(LogPosition { term: 1, index });
        notices.lost(voter, at(5));
        notices.heard(voter, at(4));
        assert!(notices.any(|_| true));
        assert!(!notices.any(|_| false), "not reachable now");
        notices.heard(voter, at(5));
        assert!(!notices.any(|_| true));
    }
}
