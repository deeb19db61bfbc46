//! Who may have a new group made. Each takes a place on the disks of all voters for ever, and for a
//! while one among the replicas that are awake; and any id may be that of a group.
//!
//! So their number has a limit, of which voters and their programs have the last quarter to
//! themselves. Observers have two more, which hold off those that ask for many in a short time:
//! one each, so that none crowds out the others, and together they leave half of the berths.
//! Messages of Raft are not held off: another voter has let that group in.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::id::NodeId;

use super::directory::Directory;

/// For how long what an observer does not ask for is saved up.
const SAVED_S: u64 = 4;

/// What observers may still ask for: those that have asked since they were linked.
#[derive(Default)]
pub(super) struct Births(Mutex<BTreeMap<NodeId, Saved>>);

/// Counted in thousandths, so that no part of a millisecond's share is lost.
struct Saved {
    thousandths: u64,
    at: Instant,
}

impl Saved {
    fn full(a_second: u64, at: Instant) -> Self {
        let thousandths = SAVED_S * a_second * 1_000;
        Self { thousandths, at }
    }

    fn take(&mut self, a_second: u64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_millis();
        let passed_ms = u64::try_from(passed).unwrap_or(u64::MAX);
        let saved = passed_ms.saturating_mul(a_second);
        let saved = self.thousandths.saturating_add(saved);
        let max = Self::full(a_second, now).thousandths;
        // Time is counted in whole milliseconds; what is left of one counts the next time.
        if passed_ms > 0 {
            self.at += std::time::Duration::from_millis(passed_ms);
        }
        self.thousandths = saved.min(max);
        let has_one = self.thousandths >= 1_000;
        if has_one {
            self.thousandths -= 1_000;
        }
        has_one
    }
}

impl Births {
    fn take(&self, observer: NodeId, a_second: u64) -> bool {
        let now = Instant::now();
        let mut saved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_observer = saved.entry(observer);
        let of_observer = of_observer.or_insert_with(|| Saved::full(a_second, now));
        of_observer.take(a_second, now)
    }

    pub(super) fn forget(&self, node: NodeId) {
        let mut saved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        saved.remove(&node);
    }
}

impl Directory {
    /// Whether a group of which this disk holds nothing may be made because `from` asks for it, or
    /// this node itself; why not, if not.
    pub(super) fn may_bear(&self, from: Option<NodeId>) -> Result<(), String> {
        let observer = from.filter(|from| !self.peers().voters().contains(from));
        let (limits, counts) = (&self.limits, &self.counts);
        let mut stored_max = limits.groups_stored_max;
        if observer.is_some() {
            stored_max -= stored_max / 4;
        }
        if self.census.stored() >= stored_max as u64 {
            let reason = format!(
                "{stored_max} groups are stored at this voter, as many as may be for whoever asks; \
                 raise groups_stored_max on all voters, or use cells that exist: none is ever deleted"
            );
            if counts.refused_groups_stored.get() == 0 {
                // Once: it does not go away by itself.
                tracing::warn!(reason, "a new cell was refused");
            }
            counts.refused_groups_stored.one();
            return Err(reason);
        }
        let Some(observer) = observer else {
            return Ok(());
        };
        let a_second = limits.observer_births_per_second_max as u64;
        let is_crowd = self.berths.are_scarce();
        if is_crowd || !self.births.take(observer, a_second) {
            counts.refused_births.one();
            return Err(match is_crowd {
                true => format!(
                    "more than half of the {} groups that may be awake at this voter are; \
                     try again when some have fallen asleep, or raise awake_groups_max",
                    limits.awake_groups_max
                ),
                false => format!(
                    "an observer may have {a_second} new groups a second made at this voter; \
                     write to new cells more slowly, or raise observer_births_per_second_max"
                ),
            });
        }
        if !self.peers().is_linked(observer) {
            // It was forgotten before it asked for this one.
            self.births.forget(observer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_was_quiet_has_seconds_saved_and_then_its_rate() {
        let births = Births::default();
        let (one, other) = (NodeId::of_voter("x"), NodeId::of_voter("y"));
        let take = |node, most: usize| (0..most).take_while(|_| births.take(node, 10)).count();
        assert_eq!(take(one, 100), 40);
        assert_eq!(take(other, 5), 5, "each has its own");
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(take(one, 100), 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(take(one, 100), 1, "halves add up");
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(take(one, 100), 40, "no more than that is saved");
        births.forget(one);
        assert_eq!(take(one, 100), 40);
    }
}
