//! What a request of another node makes this one keep: a group, for as long as it takes. And how
//! groups that nobody needs any more are forgotten.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::id::{GroupId, NodeId};
use crate::machine::Command;
use crate::transport::{Pool, Taken};

use super::directory::{Directory, Group};

/// The most bytes of values that others have proposed here and that are not committed yet.
pub(crate) const PROPOSED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A value up to this size is always taken: there are no more of them than requests.
const PROPOSED_FREE_BYTES: usize = 4 * 1024;

/// Of how many groups that are forgotten it is remembered that they were led here.
const LED_REMEMBERED_MAX: usize = 16_384;

/// A group that is kept for another node at least until this is dropped.
pub(super) struct Visit {
    directory: Arc<Directory>,
    /// Always there; taken by `drop`.
    group: Option<Arc<Group>>,
}

impl Deref for Visit {
    type Target = Arc<Group>;

    fn deref(&self) -> &Arc<Group> {
        self.group.as_ref().expect("taken by drop alone")
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.directory.forget_idle(group);
        }
    }
}

impl Directory {
    /// The most groups that are kept here because any other node follows them or is at work on
    /// them: voters may go on where observers may not.
    pub(super) fn groups_of_others_max(&self) -> usize {
        2 * self.limits.groups_of_observers_max
    }

    /// The group, for `peer`.
    pub(super) fn visit(self: &Arc<Self>, peer: NodeId, id: GroupId) -> Result<Visit, String> {
        let max = match self.peers().voters().contains(&peer) {
            true => self.groups_of_others_max(),
            false => self.limits.groups_of_observers_max,
        };
        let Some(group) = self.group_of_others(id, max) else {
            self.counts.refused_groups_in_use.one();
            return Err(format!(
                "{max} groups are in use here by other nodes already; \
                 close handles there, or spread them over more voters"
            ));
        };
        Ok(Visit {
            directory: self.clone(),
            group: Some(group),
        })
    }

    /// Lets go of a group and forgets it if nobody needs it. Whoever was at work on one ends
    /// here, and the last to come sees that the map's own reference is the only one left.
    pub(super) fn forget_idle(&self, group: Arc<Group>) {
        let id = group.id();
        drop(group);
        let mut groups = self.groups();
        if groups.get(&id).is_some_and(is_idle)
            && let Some(group) = groups.remove(&id)
        {
            self.forgotten(&group);
        }
    }

    /// Forgets all that nobody needs: what held one for a moment only, and is gone, may have hidden
    /// that from whoever let go of it.
    pub(super) fn forget_all_idle(&self) {
        self.groups().retain(|_, group| {
            let idle = is_idle(group);
            if idle {
                self.forgotten(group);
            }
            !idle
        });
    }

    /// Every change under this lock is whole.
    pub(super) fn led(&self) -> MutexGuard<'_, BTreeSet<GroupId>> {
        self.led.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller holds the lock of `groups`, and forgets this one.
    fn remember_led(&self, group: &Group) {
        if group.berth.sleeps_as_leader() {
            let mut led = self.led();
            if led.len() >= LED_REMEMBERED_MAX {
                // They are elected the next time.
                led.clear();
            }
            led.insert(group.id());
        }
    }

    /// The caller holds the lock of `groups`.
    fn forgotten(&self, group: &Group) {
        self.remember_led(group);
        if group.of_others {
            self.counts.groups_of_others.sub(1);
        }
    }
}

/// Nobody but the map holds it, and whoever takes it from there holds the map's lock.
fn is_idle(group: &Arc<Group>) -> bool {
    // A berth that is taken holds the group, too.
    Arc::strong_count(group) == 1 && !group.berth.is_awake() && group.view.is_idle()
}

/// What a command costs while it waits; `None` if too much is waiting already.
pub(super) fn wait_in(proposed: &Arc<Pool>, command: &Command) -> Option<Option<Taken>> {
    match command {
        Command::Set { proposal, .. } if proposal.value.len() > PROPOSED_FREE_BYTES => {
            proposed.take(proposal.value.len()).map(Some)
        }
        Command::Set { .. } | Command::Touch { .. } | Command::Task(_) | Command::Job(_) => {
            Some(None)
        }
    }
}
