//! A claim: a proposal that learns whether it won.

use std::fmt;
use std::sync::Arc;

use crate::id::{GroupId, ProposalId, Version};
use crate::machine::{Command, Proposal, Slot};
use crate::probe::{Bug, planted};

/// The answer to a [`claim`](crate::Once::claim).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim<T> {
    /// This claim decided the cell, at this version. At most one claim on a cell is ever told
    /// so, and a retry of it is told the same version again.
    Won(Version),
    /// The cell was decided by another proposal.
    #[non_exhaustive]
    Lost {
        /// The value of the cell.
        winner: T,
        /// Where in the cell's history the winner won.
        version: Version,
        /// The value that was claimed with, handed back.
        offered: T,
    },
}

impl<T> Claim<T> {
    /// This claim decided the cell.
    pub fn is_won(&self) -> bool {
        matches!(self, Self::Won(_))
    }

    /// The version at which the cell was decided, by whomever.
    pub fn version(&self) -> Version {
        match self {
            Self::Won(version) | Self::Lost { version, .. } => *version,
        }
    }
}

/// A value to [`claim`](crate::Once::claim) a cell with, and, once it was offered, the identity of
/// that proposal.
///
/// A fresh one comes from a value: `claim(value)` makes it by itself. A claim that could not be
/// confirmed hands it back in [`ClaimError::Offline`](crate::ClaimError::Offline); offered to the
/// same cell again, through any handle in this process, it is **the same proposal**: if it had won
/// meanwhile, the answer is [`Claim::Won`] with the original version. To take the value out with
/// [`into_value`](Self::into_value) and claim with that is a new proposal, which loses to the old
/// one.
///
/// Offered once, it is bound to that cell, or that slot of a map. For any other cell it is like a fresh one: a new
/// proposal, of which nothing that happened in the first cell is reported, and from then on it is
/// bound to the other cell.
///
/// It can be neither cloned nor serialized: one proposal has one owner, and never outlives its
/// process.
///
/// ```no_run
/// use raft_once::{Claim, ClaimError, Once, Pending};
///
/// /// Asks until there is an answer.
/// async fn claim(cell: &Once<String>, name: String) -> Option<Claim<String>> {
///     let mut pending = Pending::from(name);
///     loop {
///         match cell.claim(pending).await {
///             Ok(answer) => return Some(answer),
///             Err(ClaimError::Offline(same)) => pending = same,
///             Err(_) => return None,
///         }
///     }
/// }
/// ```
pub struct Pending<T> {
    value: T,
    offer: Option<Arc<Offer>>,
}

/// A value as it was offered to a group. It keeps the bytes: all retries of a proposal carry the
/// same ones, whatever `Serialize` would make of the value the next time.
pub(crate) struct Offer {
    group: GroupId,
    slot: Slot,
    proposal: Proposal,
}

impl Offer {
    pub(crate) fn id(&self) -> ProposalId {
        self.proposal.id
    }

    pub(crate) fn command(&self) -> Command {
        Command::Set {
            slot: self.slot.clone(),
            proposal: self.proposal.clone(),
        }
    }
}

impl<T> Pending<T> {
    /// The value to claim with.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Takes the value out and forgets the proposal. Claiming with the value is a new proposal.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The offer of this value to a slot of `group`: the one made before, if it was made to that
    /// slot, else one made by `new`.
    pub(crate) fn offer_to<E>(
        &mut self,
        group: GroupId,
        slot: Slot,
        new: impl FnOnce(&T) -> Result<Proposal, E>,
    ) -> Result<Arc<Offer>, E> {
        let known = self.offer.as_ref();
        if let Some(offer) = known.filter(|offer| offer.group == group && offer.slot == slot)
            && !planted(Bug::RetryLoses)
        {
            return Ok(offer.clone());
        }
        let proposal = new(&self.value)?;
        let offer = Arc::new(Offer {
            group,
            slot,
            proposal,
        });
        self.offer = Some(offer.clone());
        Ok(offer)
    }
}

/// A value that was not offered yet.
impl<T> From<T> for Pending<T> {
    fn from(value: T) -> Self {
        Self { value, offer: None }
    }
}

/// Shows which cell it is bound to, never the value.
impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = self.offer.as_ref().map(|offer| offer.group);
        let id = self.offer.as_ref().map(|offer| offer.id());
        f.debug_struct("Pending")
            .field("group", &group)
            .field("proposal", &id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::id::NodeId;

    fn numbered(n: u8) -> impl FnOnce(&u8) -> Result<Proposal, Infallible> {
        move |value| {
            let id = ProposalId::new([n; 16], NodeId::of_voter("a"), [0; 16], &[*value]);
            Ok(Proposal {
                id,
                value: Arc::from([*value].as_slice()),
                proposed_at_ms: u64::from(n),
            })
        }
    }

    fn group(n: u8) -> GroupId {
        GroupId::from_bytes([n; 32])
    }

    #[test]
    fn a_retry_on_the_same_cell_is_the_same_proposal() {
        let mut pending = Pending::from(7);
        let first = pending
            .offer_to(group(1), Slot::new(), numbered(1))
            .unwrap();
        let again = pending
            .offer_to(group(1), Slot::new(), numbered(2))
            .unwrap();
        assert_eq!(first.proposal, again.proposal);
        assert_eq!(again.command(), first.command());
    }

    #[test]
    fn on_another_cell_it_is_a_new_proposal_bound_to_that_one() {
        let mut pending = Pending::from(7);
        let first = pending
            .offer_to(group(1), Slot::new(), numbered(1))
            .unwrap();
        let other = pending
            .offer_to(group(2), Slot::new(), numbered(2))
            .unwrap();
        assert_ne!(first.id(), other.id());
        assert_eq!(other.group, group(2));
        // Back at the first cell it does not claim what the first proposal may have won.
        let back = pending
            .offer_to(group(1), Slot::new(), numbered(3))
            .unwrap();
        assert_ne!(first.id(), back.id());
    }

    #[test]
    fn in_another_slot_it_is_a_new_proposal() {
        let mut pending = Pending::from(7);
        let first = pending.offer_to(group(1), vec![1], numbered(1)).unwrap();
        let other = pending.offer_to(group(1), vec![2], numbered(2)).unwrap();
        assert_ne!(first.id(), other.id());
        assert_eq!(other.command().slot(), [2]);
    }

    #[test]
    fn a_value_that_cannot_be_encoded_leaves_it_unbound() {
        let mut pending = Pending::from(7);
        assert_eq!(
            pending
                .offer_to(group(1), Slot::new(), |_| Err("too large"))
                .err(),
            Some("too large")
        );
        assert!(pending.offer.is_none());
        assert_eq!(pending.into_value(), 7);
    }

    #[test]
    fn the_value_is_not_shown() {
        let mut pending = Pending::from(77);
        assert!(!format!("{pending:?}").contains("77"));
        pending
            .offer_to(group(1), Slot::new(), numbered(1))
            .unwrap();
        assert!(format!("{pending:?}").contains("01010101"));
    }
}
