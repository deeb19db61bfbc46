//! Who decided a cell, and when.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::id::{NodeId, Version};
use crate::machine::Record;

/// What is known of a decided cell besides its value: see [`Once::decision`].
///
/// [`Once::decision`]: crate::Once::decision
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The node whose proposal won.
    pub winner: NodeId,
    /// Its name, if it is a voter.
    pub winner_name: Option<String>,
    /// Where in the cell's history the proposal won. Greater versions belong to ignored writes.
    pub version: Version,
    /// The winner's wall clock when it made the proposal. Information only: clocks of different
    /// nodes differ and jump, and nothing in this library depends on them.
    pub proposed_at: SystemTime,
    /// The size of the encoded value, in bytes.
    pub value_bytes: usize,
}

impl Decision {
    pub(crate) fn new(record: &Record, winner_name: Option<String>) -> Self {
        let since_epoch = Duration::from_millis(record.proposal.proposed_at_ms);
        Self {
            winner: record.proposer(),
            winner_name,
            version: record.version,
            // A clock so wrong that the platform cannot express it carries no information.
            proposed_at: UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH),
            value_bytes: record.proposal.value.len(),
        }
    }
}
