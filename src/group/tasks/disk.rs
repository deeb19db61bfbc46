//! Tasks on the disk. Keys, behind those of any group: `t` + name the task, `x` the version of the
//! last removal, `d` + version what an operator did.

use super::super::disk::{Disk, Held, broken, key, pack, unpack};
use crate::id::{GroupId, Version};
use crate::machine::task::{Board, Changes, Deed, Name, Task};
use crate::machine::{Command, Reply};
use crate::store::{Batch, Durability, StoreFailed};

const TASK: u8 = b't';
const REMOVED: u8 = b'x';
const DEED: u8 = b'd';

/// Adds to a batch what has changed.
pub(in super::super) fn put(group: GroupId, batch: &mut Batch, changes: &Changes) {
    let key = |tag, rest: &[u8]| key(group, Some(tag), rest);
    for (name, task) in &changes.tasks {
        let key = key(TASK, name.as_bytes());
        match task {
            Some(task) => batch.put(key, pack(task)),
            None => batch.delete(key),
        }
    }
    if let Some(removed) = changes.removed {
        batch.put(key(REMOVED, &[]), pack(&removed));
    }
    for (at, deed) in &changes.deeds {
        let key = key(DEED, &at.as_u64().to_be_bytes());
        match deed {
            Some(deed) => batch.put(key, pack(deed)),
            None => batch.delete(key),
        }
    }
}

/// What was found of a board so far.
#[derive(Default)]
pub(in super::super) struct Found {
    tasks: Vec<(Name, Task)>,
    removed: Version,
    deeds: Vec<Deed>,
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
            TASK => {
                let name = String::from_utf8(rest.to_vec());
                let name = name.map_err(|_| broken(group, "a task whose name is no text"))?;
                self.tasks.push((name, unpack(group, value)?));
            }
            REMOVED => self.removed = unpack(group, value)?,
            DEED => {
                let deed: Deed = unpack(group, value)?;
                if rest != deed.version.as_u64().to_be_bytes() {
                    return Err(broken(group, "a deed lies in the place of another"));
                }
                self.deeds.push(deed);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(in super::super) fn board(self) -> Board {
        Board::of(self.tasks, self.removed, self.deeds)
    }
}

impl Held {
    /// Applies a step of a task, and notes what it has changed. Anything else is nothing here.
    pub(in super::super) fn apply_step(
        &mut self,
        version: Version,
        command: &Command,
        changes: &mut Changes,
    ) -> Reply {
        let mut reply = Reply::at(version);
        if let Command::Task(command) = command {
            let answer = self.board.apply(version, command, changes);
            reply.task = Some(Box::new(answer));
        }
        reply
    }
}

impl Disk {
    /// As `save_applied` of slots.
    pub(in super::super) fn save_tasks(&self, held: &mut Held, changes: &Changes) {
        let mut batch = self.applied_batch(held);
        put(self.group, &mut batch, changes);
        self.store().write(batch, Durability::Lazy, |_| {});
    }
}
