//! The berths in use: of the groups that are awake, that wake or fall asleep, and of those whose
//! start was given up half way and has yet to be cleared away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::id::GroupId;
use crate::metrics::Counts;

use super::directory::Group;
use super::replica::Replica;

pub(crate) struct Berths {
    inner: Mutex<Inner>,
    counts: Arc<Counts>,
}

struct Inner {
    /// They are not forgotten while they are here.
    taken: BTreeMap<GroupId, Arc<Group>>,
    max: usize,
    /// A task looks for those that may fall asleep.
    swept: bool,
    #[cfg(test)]
    taken_ever: u64,
    /// The most that were taken at once.
    #[cfg(test)]
    most: usize,
    #[cfg(test)]
    tripped: Option<GroupId>,
}

impl Inner {
    /// How many may be taken for another reason than a message of Raft. With all berths open to
    /// proposals, voters that are full of what they want to send each other would wait for room
    /// at each other for ever.
    fn own_max(&self) -> usize {
        self.max - self.max / 4
    }
}

impl Berths {
    pub(crate) fn new(max: usize, counts: Arc<Counts>) -> Self {
        let inner = Inner {
            taken: BTreeMap::new(),
            max,
            swept: false,
            #[cfg(test)]
            taken_ever: 0,
            #[cfg(test)]
            most: 0,
            #[cfg(test)]
            tripped: None,
        };
        Self {
            inner: Mutex::new(inner),
            counts,
        }
    }

    /// Every change under this lock is whole, and no code that can panic runs under it.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the group's berth, for a message of Raft or else; whether the caller is to start the
    /// sweep. The error says how many may be taken for that, if there is none left.
    pub(crate) fn take(&self, group: &Arc<Group>, is_raft: bool) -> Result<bool, usize> {
        let mut inner = self.inner();
        let max = if is_raft { inner.max } else { inner.own_max() };
        if inner.taken.len() >= max && !inner.taken.contains_key(&group.id()) {
            return Err(max);
        }
        if inner.taken.insert(group.id(), group.clone()).is_none() {
            self.counts.groups_awake.add(1);
        }
        #[cfg(test)]
        {
            inner.taken_ever += 1;
            inner.most = inner.most.max(inner.taken.len());
        }
        Ok(!std::mem::replace(&mut inner.swept, true))
    }

    pub(crate) fn free(&self, group: GroupId) {
        let mut inner = self.inner();
        if inner.taken.remove(&group).is_some() {
            self.counts.groups_awake.sub(1);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Group>> {
        self.inner().taken.values().cloned().collect()
    }

    pub(crate) fn awake(&self) -> Vec<Arc<Replica>> {
        // Asked outside the lock: whoever holds that of a berth may want this one.
        let all = self.all().into_iter();
        all.filter_map(|group| group.awake()).collect()
    }

    /// More than half are taken.
    pub(crate) fn are_scarce(&self) -> bool {
        let inner = self.inner();
        inner.taken.len() > inner.max / 2
    }

    /// What is kept for messages of Raft is in use.
    pub(crate) fn are_crowded(&self) -> bool {
        let inner = self.inner();
        inner.taken.len() > inner.own_max()
    }

    /// Whether the sweep ends: nothing is left to look at. Whoever takes a berth next starts it.
    pub(crate) fn end_sweep(&self) -> bool {
        let mut inner = self.inner();
        inner.swept = !inner.taken.is_empty();
        !inner.swept
    }

    /// From now on whoever looks at `group` in order to put it to sleep panics.
    #[cfg(test)]
    pub(crate) fn set_trip(&self, group: Option<GroupId>) {
        self.inner().tripped = group;
    }

    #[cfg(test)]
    pub(crate) fn trip(&self, group: GroupId) {
        let is_tripped = self.inner().tripped == Some(group);
        assert!(!is_tripped, "a panic that a test asked for");
    }

    #[cfg(test)]
    pub(crate) fn limit(&self, max: usize) {
        self.inner().max = max;
    }

    #[cfg(test)]
    pub(crate) fn is_swept(&self) -> bool {
        self.inner().swept
    }

    #[cfg(test)]
    pub(crate) fn most(&self) -> usize {
        self.inner().most
    }

    /// How many are taken, and how many ever were.
    #[cfg(test)]
    pub(crate) fn count(&self) -> (usize, u64) {
        let inner = self.inner();
        (inner.taken.len(), inner.taken_ever)
    }
}
