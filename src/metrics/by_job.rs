//! What became of the executions of each job. They are as many as users make, so that only some have
//! a series of their own.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use ::metrics::{Key, KeyName, Label, Recorder, SharedString, Unit};

use super::METADATA;
use crate::id::GroupId;

/// Another name than that of all jobs together, or sums would count all of it twice.
pub(super) const NAME: &str = "raft_once_executions_by_job_total";

/// The most jobs of a node that have series of their own; those that come behind them have one
/// together.
const JOBS_MAX: usize = 1_000;

/// And its label.
const OTHERS: &str = "others";

pub(crate) struct ByJob {
    node: [Label; 2],
    seen: Mutex<BTreeSet<(GroupId, u64)>>,
}

impl ByJob {
    pub(super) fn on(recorder: &dyn Recorder, network: &str, node: &str) -> Self {
        recorder.describe_counter(
            KeyName::from_const_str(NAME),
            Some(Unit::Count),
            "Executions that this node ran or found missed, by job and outcome.".into(),
        );
        Self {
            node: [
                Label::new("network", network.to_owned()),
                Label::new("node", node.to_owned()),
            ],
            seen: Mutex::default(),
        }
    }

    /// Counts one, with the recorder that is in force now.
    pub(crate) fn one(&self, group: GroupId, job: u64, outcome: &'static str) {
        let mut labels = self.node.to_vec();
        let (group, job): (SharedString, SharedString) = match self.has_its_own(group, job) {
            true => (group.to_string().into(), job.to_string().into()),
            false => (OTHERS.into(), OTHERS.into()),
        };
        labels.extend([
            Label::new("group", group),
            Label::new("id", job),
            Label::from_static_parts("outcome", outcome),
        ]);
        let key = Key::from_parts(NAME, labels);
        ::metrics::with_recorder(|recorder| {
            recorder.register_counter(&key, &METADATA).increment(1);
        });
    }

    fn has_its_own(&self, group: GroupId, job: u64) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.contains(&(group, job)) || (seen.len() < JOBS_MAX && seen.insert((group, job)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_jobs_have_series_of_their_own() {
        let counts = ByJob::on(&::metrics::NoopRecorder, "", "");
        let group = GroupId::of_jobs("shop");
        for job in 0..JOBS_MAX as u64 {
            assert!(counts.has_its_own(group, job));
        }
        assert!(!counts.has_its_own(group, JOBS_MAX as u64));
        assert!(counts.has_its_own(group, 7));
    }

    #[test]
    fn the_operations_manual_lists_it() {
        let manual = include_str!("../../docs/operations.md");
        assert!(manual.contains(&format!("| `{NAME}` |")));
    }
}
