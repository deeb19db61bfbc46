//! What has changed, as any voter knows.

use std::sync::Arc;

use super::super::directory::{Directory, Group};
use super::lead::bytes_of;
use super::{PAGE_BYTES, TasksAnswer};
use crate::id::Version;
use crate::machine::task::Board;

impl Directory {
    /// The tasks that have changed behind a version, as far as this voter knows; wakes nothing.
    pub(in super::super) fn answer_task_changes(
        &self,
        group: &Arc<Group>,
        after: Version,
    ) -> Result<TasksAnswer, String> {
        if !group.id().is_tasks() {
            return Err("there are no tasks in this group".into());
        }
        let store = self.store()?;
        Ok(match group.awake() {
            Some(replica) => replica.with_board(|board, version| changes(board, version, after)),
            None => {
                let held = self.load(store, group.id())?;
                changes(&held.board, held.applied.version, after)
            }
        })
    }
}

fn changes(board: &Board, version: Version, after: Version) -> TasksAnswer {
    let all = board.tasks().iter();
    let mut changed: Vec<_> = all.filter(|(_, task)| task.changed > after).collect();
    changed.sort_by_key(|(_, task)| task.changed);
    let (mut tasks, mut bytes, mut upto) = (Vec::new(), 0, version);
    for (name, task) in changed {
        if bytes >= PAGE_BYTES {
            // No two changes are of one version.
            upto = tasks
                .last()
                .map_or(after, |(_, task): &(_, crate::machine::task::Task)| {
                    task.changed
                });
            break;
        }
        bytes += bytes_of(name, task);
        tasks.push((name.clone(), task.clone()));
    }
    TasksAnswer::Changes {
        tasks,
        upto,
        removed: board.removed(),
    }
}
