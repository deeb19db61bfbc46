//! Jobs on the disk. Keys, behind those of any group: `j` + id the job, `x` the version of the last
//! removal.

use std::sync::Arc;

use super::super::disk::{Disk, Held, broken, key, pack, unpack};
use crate::id::{GroupId, Version};
use crate::machine::job::{Board, Changes, Job};
use crate::machine::{Command, Reply};
use crate::store::{Batch, Durability, StoreFailed};

const JOB: u8 = b'j';
const REMOVED: u8 = b'x';

/// Adds to a batch what has changed.
pub(in super::super) fn put(group: GroupId, batch: &mut Batch, changes: &Changes) {
    for (id, job) in &changes.jobs {
        let key = key(group, Some(JOB), &id.as_u64().to_be_bytes());
        match job {
            Some(job) => batch.put(key, pack(job.as_ref())),
            None => batch.delete(key),
        }
    }
    if let Some(removed) = changes.removed {
        batch.put(key(group, Some(REMOVED), &[]), pack(&removed));
    }
}

/// What was found of a board so far.
#[derive(Default)]
pub(in super::super) struct Found {
    jobs: Vec<Arc<Job>>,
    removed: Version,
}

impl Found {
    /// Takes in what is under a key; `false` if it is of another kind.
    pub(in super::super) fn take(
        &mut self,
        group: GroupId,
        (tag, rest): (u8, &[u8]),
        value: &[u8],
    ) -> Result<bool, StoreFailed> {
        match tag {
            JOB => {
                let job: Job = unpack(group, value)?;
                if rest != job.id.as_u64().to_be_bytes() {
                    return Err(broken(group, "a job lies in the place of another"));
                }
                self.jobs.push(Arc::new(job));
            }
            REMOVED => self.removed = unpack(group, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(in super::super) fn board(self) -> Board {
        Board::of(self.jobs, self.removed)
    }
}

impl Held {
    /// Applies a step of a job, and notes what it has changed. Anything else is nothing here.
    pub(in super::super) fn apply_job(
        &mut self,
        version: Version,
        command: &Command,
        changes: &mut Changes,
    ) -> Reply {
        let mut reply = Reply::at(version);
        if let Command::Job(command) = command {
            let answer = self.jobs.apply(version, command, changes);
            reply.job = Some(Box::new(answer));
        }
        reply
    }
}

impl Disk {
    /// As `save_applied` of slots.
    pub(in super::super) fn save_jobs(&self, held: &mut Held, changes: &Changes) {
        let mut batch = self.applied_batch(held);
        put(self.group, &mut batch, changes);
        self.store().write(batch, Durability::Lazy, |_| {});
    }
}
