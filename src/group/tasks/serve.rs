//! What has changed, as any voter knows.

use std::sync::Arc;

use super::super::directory::{Directory, Group};
use super::super::wake::Cause;
use super::lead::bytes_of;
use super::{PAGE_BYTES, TasksAnswer};
use crate::id::Version;
use crate::machine::task::Board;

impl Directory {
    /// The tasks that have changed behind a version, as far as this voter knows. Wakes the replica only
    /// if there are any: each page of them would read all tasks from the disk.
    pub(in super::super) async fn answer_task_changes(
        self: &Arc<Self>,
        group: &Arc<Group>,
        after: Version,
    ) -> Result<TasksAnswer, String> {
        if !group.id().is_tasks() {
            return Err("there are no tasks in this group".into());
        }
        let replica = match group.awake() {
            Some(replica) => replica,
            None => {
                let upto = self.load_log(self.store()?, group.id())?.applied.version;
                if upto <= after {
                    return Ok(TasksAnswer::Changes {
                        tasks: Vec::new(),
                        upto,
                        removed: Version::ZERO,
                    });
                }
                let cause = Cause::Ask {
                    first: None,
                    settles: true,
                    from: None,
                };
                self.wake_for(group, cause).await?.0
            }
        };
        Ok(replica.with_board(|board, version| changes(board, version, after)))
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
