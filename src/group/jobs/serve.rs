//! What has changed, as any voter knows.

use std::sync::Arc;

use super::super::directory::{Directory, Group};
use super::lead::bytes_of;
use super::{JobsAnswer, PAGE_BYTES};
use crate::id::Version;
use crate::machine::job::{Board, Execution, Job};

impl Directory {
    /// The jobs that have changed behind a version, as far as this voter knows; wakes nothing.
    pub(in super::super) fn answer_job_changes(
        &self,
        group: &Arc<Group>,
        after: Version,
    ) -> Result<JobsAnswer, String> {
        if !group.id().is_jobs() {
            return Err("there are no jobs in this group".into());
        }
        let store = self.store()?;
        Ok(match group.awake() {
            Some(replica) => replica.with_jobs(|board, version| changes(board, version, after)),
            None => {
                let held = self.load(store, group.id())?;
                changes(&held.jobs, held.applied.version, after)
            }
        })
    }
}

/// Costs what has changed, however many jobs there are.
fn changes(board: &Board, version: Version, after: Version) -> JobsAnswer {
    let (mut jobs, mut bytes, mut upto) = (Vec::new(), 0, version);
    for job in board.changed_after(after) {
        if bytes >= PAGE_BYTES {
            // No two changes are of one version.
            upto = jobs.last().map_or(after, |job: &Arc<Job>| job.changed);
            break;
        }
        let mut job = Job::clone(job);
        let is_open = |execution: &Execution| job.open().any(|open| open == execution);
        let last = job.last_run();
        let kept = job.executions.iter();
        let kept = kept.filter(|execution| Some(*execution) == last || is_open(execution));
        job.executions = kept.cloned().collect();
        bytes += bytes_of(&job);
        jobs.push(Arc::new(job));
    }
    JobsAnswer::Changes {
        jobs,
        upto,
        removed: board.removed(),
    }
}
