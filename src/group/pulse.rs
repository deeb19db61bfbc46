//! Whether a leader is heard. One that can send but hears nothing would keep its followers from
//! electing another: what it sends renews their leases, and commits nothing. openraft has no
//! answer to that, so its messages stop here once a majority has not answered for a lease, but
//! for a probe now and then, after which followers are free again for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::id::NodeId;

use super::config::LEASE_MS;

/// The pause between two probes: three leases, so that followers are free for two.
const PROBE_MS: u64 = 3 * LEASE_MS;

/// How long a probe lasts: all followers are probed together, so that they are free together.
const PROBE_LASTS_MS: u64 = 50;

#[derive(Debug, Default)]
struct Silence {
    /// Since when a voter has left every message unanswered.
    since: BTreeMap<NodeId, Instant>,
    probed: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Pulse(Mutex<Silence>);

impl Pulse {
    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `voter` answered, or its link is new and nothing can be said of it.
    pub(crate) fn heard(&self, voter: NodeId) {
        self.silence().since.remove(&voter);
    }

    /// A message sent to `voter` at `sent` had no answer.
    pub(crate) fn missed(&self, voter: NodeId, sent: Instant) {
        self.silence().since.entry(voter).or_insert(sent);
    }

    /// A leader among `voters` may send to its followers.
    pub(crate) fn may_send(&self, voters: &BTreeSet<NodeId>) -> bool {
        let now = Instant::now();
        let mut silence = self.silence();
        let lease = Duration::from_millis(LEASE_MS);
        let silent = silence.since.values().filter(|since| now - **since > lease);
        if voters.len() - silent.count() > voters.len() / 2 {
            silence.probed = None;
            return true;
        }
        let probed = *silence.probed.get_or_insert(now);
        match (now - probed).as_millis() as u64 {
            0..PROBE_LASTS_MS => true,
            PROBE_LASTS_MS..PROBE_MS => false,
            _ => {
                silence.probed = Some(now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_a_majority_does_not_answer_falls_silent_but_for_probes() {
        let ids = ["a", "b", "c"].map(NodeId::of_voter);
        let voters = BTreeSet::from(ids);
        let pulse = Pulse::default();
        let mut sent = 0;
        for _ in 0..1_000 {
            if pulse.may_send(&voters) {
                sent += 1;
                pulse.missed(ids[1], Instant::now());
                pulse.missed(ids[2], Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // One second of a lease, and then a twentieth of a second in each three of nine.
        assert!((100..130).contains(&sent), "{sent} of 1,000 messages");
        pulse.heard(ids[2]);
        assert!(pulse.may_send(&voters));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_has_nothing_to_say_for_long_may_speak() {
        let pulse = Pulse::default();
        tokio::time::sleep(Duration::from_secs(1_000)).await;
        assert!(pulse.may_send(&BTreeSet::from([NodeId::of_voter("a")])));
    }
}
