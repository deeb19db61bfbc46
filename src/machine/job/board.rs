//! All jobs of one group, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Job, JobId};
use crate::codec::VALUE_BYTES_CAP;
use crate::id::Version;
use crate::machine::task::ClaimId;

/// The most jobs of one group.
pub(crate) const JOBS_MAX: usize = 10_000;

/// What all of them may take at most. A snapshot is one frame.
pub(crate) const BOARD_BYTES_MAX: usize = VALUE_BYTES_CAP - 4_096;

/// The state of one group of jobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    jobs: BTreeMap<JobId, Arc<Job>>,
    removed: Version,
    // What follows is made of the jobs.
    by_creation: BTreeMap<ClaimId, JobId>,
    by_change: BTreeMap<Version, JobId>,
    charged: usize,
}

/// Two that hold the same are the same.
impl PartialEq for Board {
    fn eq(&self, other: &Self) -> bool {
        (&self.jobs, self.removed) == (&other.jobs, other.removed)
    }
}

impl Eq for Board {}

/// What has become different, and is to be written: the newest of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Without a job: it is gone.
    pub(crate) jobs: BTreeMap<JobId, Option<Arc<Job>>>,
    pub(crate) removed: Option<Version>,
}

impl Board {
    /// A board with exactly this on it.
    pub(crate) fn of(jobs: impl IntoIterator<Item = Arc<Job>>, removed: Version) -> Self {
        let mut board = Self::default();
        for job in jobs {
            board.insert(job);
        }
        board.removed = removed;
        board
    }

    pub(crate) fn get(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id)
    }

    pub(crate) fn jobs(&self) -> &BTreeMap<JobId, Arc<Job>> {
        &self.jobs
    }

    /// The last version at which a job was removed.
    pub(crate) fn removed(&self) -> Version {
        self.removed
    }

    /// The job that this has created.
    pub(super) fn created_by(&self, id: ClaimId) -> Option<&Arc<Job>> {
        self.by_creation.get(&id).and_then(|id| self.jobs.get(id))
    }

    /// The jobs that have changed behind a version, in the order of their changes.
    pub(crate) fn changed_after(&self, after: Version) -> impl Iterator<Item = &Arc<Job>> {
        let changed = self
            .by_change
            .range((Bound::Excluded(after), Bound::Unbounded));
        changed.filter_map(|(_, id)| self.jobs.get(id))
    }

    /// There is room for one that takes so much.
    pub(super) fn has_room(&self, charge: usize) -> bool {
        self.jobs.len() < JOBS_MAX && self.charged + charge <= BOARD_BYTES_MAX
    }

    pub(super) fn put(&mut self, job: Arc<Job>, changes: &mut Changes) {
        changes.jobs.insert(job.id, Some(job.clone()));
        self.insert(job);
    }

    pub(super) fn remove(&mut self, id: JobId, at: Version, changes: &mut Changes) {
        self.take(id);
        self.removed = at;
        changes.jobs.insert(id, None);
        changes.removed = Some(at);
    }

    fn insert(&mut self, job: Arc<Job>) {
        self.take(job.id);
        self.by_creation.insert(job.made.id, job.id);
        self.by_change.insert(job.changed, job.id);
        self.charged += Job::charge(&job.spec);
        self.jobs.insert(job.id, job);
    }

    fn take(&mut self, id: JobId) {
        if let Some(before) = self.jobs.remove(&id) {
            self.by_creation.remove(&before.made.id);
            self.by_change.remove(&before.changed);
            self.charged -= Job::charge(&before.spec);
        }
    }

    /// All that is on it, as if it had all changed just now.
    pub(crate) fn as_changes(&self) -> Changes {
        let jobs = self.jobs.iter();
        Changes {
            jobs: jobs.map(|(id, job)| (*id, Some(job.clone()))).collect(),
            removed: Some(self.removed),
        }
    }

    /// What has to change for it to become `other`.
    pub(crate) fn changes_to(&self, other: &Self) -> Changes {
        let mut changes = other.as_changes();
        for id in self.jobs.keys() {
            changes.jobs.entry(*id).or_insert(None);
        }
        changes
    }

    /// Why it is not what a log up to `version` can have made.
    pub(crate) fn check(&self, version: Version) -> Result<(), &'static str> {
        if self.jobs.len() > JOBS_MAX || self.charged > BOARD_BYTES_MAX {
            return Err("there are more jobs than may be");
        }
        if self.removed > version {
            return Err("a job was removed beyond what is applied");
        }
        let of_each = [self.by_creation.len(), self.by_change.len()];
        if of_each != [self.jobs.len(); 2] {
            return Err("two jobs were made, or have changed, at once");
        }
        self.jobs.values().try_for_each(|job| job.check(version))
    }
}
