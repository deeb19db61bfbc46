//! Where this node follows a group, and what it asked to be told.

use std::collections::BTreeMap;

use crate::id::NodeId;

use super::scope::Scope;
use super::slots::Range;
use super::view::View;

/// A subscription of this node at a voter.
pub(super) struct Following {
    pub(super) number: u64,
    /// What the voter was asked to tell, unless it may not have heard of that.
    scope: Option<Scope>,
}

impl View {
    pub(crate) fn following(&self) -> BTreeMap<NodeId, u64> {
        let inner = self.inner();
        let numbers = inner.following.iter();
        numbers
            .map(|(voter, known)| (*voter, known.number))
            .collect()
    }

    /// Notes that this node follows at `voter`, unless nobody needs that any more: whoever was the
    /// last has taken back all that was noted until then.
    pub(crate) fn follow(&self, voter: NodeId, number: u64, scope: Scope) -> bool {
        let mut inner = self.inner();
        let is_needed = !inner.is_idle();
        if is_needed {
            let scope = Some(scope);
            inner.following.insert(voter, Following { number, scope });
        }
        is_needed
    }

    /// What this node's program waits for.
    pub(crate) fn scope(&self) -> Scope {
        self.inner().wants.scope()
    }

    pub(crate) fn want(&self, range: &Range) {
        self.inner().wants.add(range);
    }

    pub(crate) fn want_no_more(&self, range: &Range) {
        self.inner().wants.remove(range);
    }

    /// The voters that do not tell all that is wanted, and with `or_more` those that tell more.
    pub(crate) fn told_otherwise(&self, or_more: bool) -> Vec<NodeId> {
        let inner = self.inner();
        let scope = inner.wants.scope();
        let following = inner.following.iter();
        let otherwise = following.filter(|(_, known)| match or_more {
            true => known.scope.as_ref() != Some(&scope),
            false => known.scope.as_ref().is_none_or(|told| !told.covers(&scope)),
        });
        otherwise.map(|(voter, _)| *voter).collect()
    }

    /// Notes that `voter` is asked for what is wanted now, if this node follows there.
    pub(crate) fn rescope(&self, voter: NodeId, number: u64) -> Option<Scope> {
        let mut inner = self.inner();
        let scope = inner.wants.scope();
        let known = inner.following.get_mut(&voter)?;
        known.number = number;
        known.scope = Some(scope.clone());
        Some(scope)
    }

    /// It is not known whether `voter` heard of it.
    pub(crate) fn rescope_failed(&self, voter: NodeId, number: u64) {
        let mut inner = self.inner();
        let known = inner.following.get_mut(&voter);
        if let Some(known) = known.filter(|known| known.number == number) {
            known.scope = None;
        }
    }

    pub(crate) fn unfollow(&self, voter: NodeId) -> bool {
        self.inner().following.remove(&voter).is_some()
    }

    /// The same, unless it is followed by another subscription.
    pub(crate) fn unfollow_if(&self, voter: NodeId, number: u64) -> bool {
        let mut inner = self.inner();
        let known = inner.following.get(&voter);
        let is_known = known.is_some_and(|known| known.number == number);
        if is_known {
            inner.following.remove(&voter);
        }
        is_known
    }
}
