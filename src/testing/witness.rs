//! What must hold of the votes, leaders and logs of all groups, on all nodes and at all times.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::id::{GroupId, NodeId};

/// A contradiction between two facts that the [`Witness`] was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error(
        "one vote a term: in group {group:?}, term {term}, {voter} has voted for {first} \
         and then for {second}"
    )]
    TwoVotes {
        group: GroupId,
        term: u64,
        voter: NodeId,
        first: NodeId,
        second: NodeId,
    },
    #[error("one leader a term: group {group:?} has in term {term} both {first} and {second}")]
    TwoLeaders {
        group: GroupId,
        term: u64,
        first: NodeId,
        second: NodeId,
    },
    #[error("committed entries are immutable: in group {group:?} at {index}, {first} and {second}")]
    EntryChanged {
        group: GroupId,
        index: u64,
        first: Box<Applied>,
        second: Box<Applied>,
    },
}

/// An entry that a node has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) node: NodeId,
    pub(crate) term: u64,
    pub(crate) digest: [u8; 32],
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, term, digest } = self;
        write!(f, "{node} has applied that of term {term}, ")?;
        digest[..8]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Remembers what nodes did, over all their restarts: it is no part of them, and loses nothing
/// when they crash. Telling it a fact twice is no contradiction.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// By group, term and voter: whom the voter has promised that term.
    votes: BTreeMap<(GroupId, u64, NodeId), NodeId>,
    /// By group and term.
    leaders: BTreeMap<(GroupId, u64), NodeId>,
    /// By group and index: the entry, and who was the first to apply it.
    entries: BTreeMap<(GroupId, u64), Applied>,
}

impl Witness {
    /// `voter` has told `candidate`, which may be itself, that it votes for it.
    pub(crate) fn granted(
        &mut self,
        voter: NodeId,
        group: GroupId,
        term: u64,
        candidate: NodeId,
    ) -> Result<(), Violation> {
        let first = *self.votes.entry((group, term, voter)).or_insert(candidate);
        if first == candidate {
            return Ok(());
        }
        Err(Violation::TwoVotes {
            group,
            term,
            voter,
            first,
            second: candidate,
        })
    }

    /// `node` has taken itself for the leader of `term`.
    pub(crate) fn led(&mut self, node: NodeId, group: GroupId, term: u64) -> Result<(), Violation> {
        let first = *self.leaders.entry((group, term)).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(Violation::TwoLeaders {
            group,
            term,
            first,
            second: node,
        })
    }

    /// `node` has applied the entry of `term` whose contents have this digest, at `index`.
    pub(crate) fn applied(
        &mut self,
        node: NodeId,
        group: GroupId,
        index: u64,
        term: u64,
        digest: [u8; 32],
    ) -> Result<(), Violation> {
        let second = Applied { node, term, digest };
        let first = match self.entries.entry((group, index)) {
            Entry::Vacant(place) => *place.insert(second),
            Entry::Occupied(place) => *place.get(),
        };
        if (first.term, first.digest) == (term, digest) {
            return Ok(());
        }
        Err(Violation::EntryChanged {
            group,
            index,
            first: Box::new(first),
            second: Box::new(second),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::of_voter(name)
    }

    fn group(n: u8) -> GroupId {
        GroupId::from_bytes([n; 32])
    }

    #[test]
    fn a_voter_votes_once_a_term() {
        let mut witness = Witness::default();
        let [a, b, c] = ["a", "b", "c"].map(node);
        assert_eq!(witness.granted(a, group(1), 2, b), Ok(()));
        // Told again, as after a restart.
        assert_eq!(witness.granted(a, group(1), 2, b), Ok(()));
        // Another term, another voter, another group.
        assert_eq!(witness.granted(a, group(1), 3, c), Ok(()));
        assert_eq!(witness.granted(b, group(1), 2, c), Ok(()));
        assert_eq!(witness.granted(a, group(2), 2, c), Ok(()));
        let twice = Violation::TwoVotes {
            group: group(1),
            term: 2,
            voter: a,
            first: b,
            second: c,
        };
        assert_eq!(witness.granted(a, group(1), 2, c), Err(twice.clone()));
        // The first vote stays the one that counts.
        assert_eq!(witness.granted(a, group(1), 2, b), Ok(()));
        let text = twice.to_string();
        assert!(
            text.contains("term 2") && text.contains(&a.to_string()),
            "{text}"
        );
    }

    #[test]
    fn a_term_has_one_leader() {
        let mut witness = Witness::default();
        let [a, b] = ["a", "b"].map(node);
        assert_eq!(witness.led(a, group(1), 2), Ok(()));
        assert_eq!(witness.led(a, group(1), 2), Ok(()));
        assert_eq!(witness.led(b, group(1), 3), Ok(()));
        assert_eq!(witness.led(b, group(2), 2), Ok(()));
        let two = Violation::TwoLeaders {
            group: group(1),
            term: 2,
            first: a,
            second: b,
        };
        assert_eq!(witness.led(b, group(1), 2), Err(two));
    }

    #[test]
    fn a_committed_entry_is_one_for_all_nodes_and_times() {
        let mut witness = Witness::default();
        let [a, b] = ["a", "b"].map(node);
        assert_eq!(witness.applied(a, group(1), 5, 2, [7; 32]), Ok(()));
        assert_eq!(witness.applied(b, group(1), 5, 2, [7; 32]), Ok(()));
        assert_eq!(witness.applied(a, group(1), 5, 2, [7; 32]), Ok(()));
        assert_eq!(witness.applied(a, group(1), 6, 2, [8; 32]), Ok(()));
        assert_eq!(witness.applied(a, group(2), 5, 3, [8; 32]), Ok(()));
        for (node, term, digest) in [(b, 2, [8; 32]), (b, 3, [7; 32]), (a, 2, [8; 32])] {
            let changed = Violation::EntryChanged {
                group: group(1),
                index: 5,
                first: Box::new(Applied {
                    node: a,
                    term: 2,
                    digest: [7; 32],
                }),
                second: Box::new(Applied { node, term, digest }),
            };
            assert_eq!(
                witness.applied(node, group(1), 5, term, digest),
                Err(changed)
            );
        }
    }
}
