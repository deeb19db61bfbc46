//! All tasks of one namespace, in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::{Answer, Command, DEEDS_MAX, Deed, Name, Shelf, TASKS_MAX, Task, apply, check_name};
use super::{check_who, record::TASK_BYTES_MAX};
use crate::codec::{Decode, Encode, VALUE_BYTES_CAP};
use crate::id::Version;

/// What a deed takes at most.
const DEED_BYTES_MAX: usize = 512;

// A snapshot is one frame.
const _: () = assert!(TASKS_MAX * TASK_BYTES_MAX + DEEDS_MAX * DEED_BYTES_MAX < VALUE_BYTES_CAP);

/// The state of one group of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Board {
    tasks: BTreeMap<Name, Task>,
    removed: Version,
    deeds: BTreeMap<Version, Deed>,
}

/// What has become different, and is to be written: the newest of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Without a task: it is gone.
    pub(crate) tasks: BTreeMap<Name, Option<Task>>,
    pub(crate) removed: Option<Version>,
    pub(crate) deeds: BTreeMap<Version, Option<Deed>>,
}

struct Applying<'a> {
    board: &'a mut Board,
    changes: &'a mut Changes,
}

impl Board {
    /// A board with exactly this on it.
    pub(crate) fn of(
        tasks: impl IntoIterator<Item = (Name, Task)>,
        removed: Version,
        deeds: impl IntoIterator<Item = Deed>,
    ) -> Self {
        let deeds = deeds.into_iter().map(|deed| (deed.version, deed));
        Self {
            tasks: tasks.into_iter().collect(),
            removed,
            deeds: deeds.collect(),
        }
    }

    /// As [`apply`], where nothing can fail.
    pub(crate) fn apply(
        &mut self,
        version: Version,
        command: &Command,
        changes: &mut Changes,
    ) -> Answer {
        let mut applying = Applying {
            board: self,
            changes,
        };
        match apply(&mut applying, version, command) {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Task> {
        self.tasks.get(name)
    }

    pub(crate) fn tasks(&self) -> &BTreeMap<Name, Task> {
        &self.tasks
    }

    /// The last version at which a task was removed.
    pub(crate) fn removed(&self) -> Version {
        self.removed
    }

    pub(crate) fn deeds(&self) -> impl Iterator<Item = &Deed> {
        self.deeds.values()
    }

    /// All that is on it, as if it had all changed just now.
    pub(crate) fn as_changes(&self) -> Changes {
        let tasks = self.tasks.iter();
        let deeds = self.deeds.iter();
        Changes {
            tasks: tasks
                .map(|(name, task)| (name.clone(), Some(task.clone())))
                .collect(),
            removed: Some(self.removed),
            deeds: deeds.map(|(at, deed)| (*at, Some(deed.clone()))).collect(),
        }
    }

    /// What has to change for it to become `other`.
    pub(crate) fn changes_to(&self, other: &Self) -> Changes {
        let mut changes = other.as_changes();
        for name in self.tasks.keys() {
            changes.tasks.entry(name.clone()).or_insert(None);
        }
        for at in self.deeds.keys() {
            changes.deeds.entry(*at).or_insert(None);
        }
        changes
    }

    /// Why it is not what a log up to `version` can have made.
    pub(crate) fn check(&self, version: Version) -> Result<(), &'static str> {
        if self.tasks.len() > TASKS_MAX || self.deeds.len() > DEEDS_MAX {
            return Err("there are more tasks than may be");
        }
        if self.removed > version {
            return Err("a task was removed beyond what is applied");
        }
        for (name, task) in &self.tasks {
            check_name(name)?;
            task.check(version)?;
        }
        for (at, deed) in &self.deeds {
            if *at != deed.version || *at > version || deed.generation > *at {
                return Err("a deed is beyond what is applied");
            }
            check_name(&deed.task)?;
            check_who(&deed.by)?;
        }
        Ok(())
    }
}

impl Shelf for Applying<'_> {
    type Error = Infallible;

    fn task(&mut self, name: &str) -> Result<Option<Task>, Infallible> {
        Ok(self.board.tasks.get(name).cloned())
    }

    fn count(&mut self) -> Result<usize, Infallible> {
        Ok(self.board.tasks.len())
    }

    fn removed(&mut self) -> Result<Version, Infallible> {
        Ok(self.board.removed)
    }

    fn over(&mut self, now_ms: u64) -> Result<Vec<Name>, Infallible> {
        let over = self
            .board
            .tasks
            .iter()
            .filter(|(_, task)| task.is_over(now_ms));
        Ok(over.map(|(name, _)| name.clone()).collect())
    }

    fn put(&mut self, name: &str, task: &Task) {
        self.board.tasks.insert(name.into(), task.clone());
        self.changes.tasks.insert(name.into(), Some(task.clone()));
    }

    fn remove(&mut self, name: &str, at: Version) {
        self.board.tasks.remove(name);
        self.board.removed = at;
        self.changes.tasks.insert(name.into(), None);
        self.changes.removed = Some(at);
    }

    fn deed(&mut self, is_it: impl Fn(&Deed) -> bool) -> Result<Option<Deed>, Infallible> {
        Ok(self
            .board
            .deeds
            .values()
            .rev()
            .find(|deed| is_it(deed))
            .cloned())
    }

    fn note(&mut self, deed: Deed) {
        let at = deed.version;
        self.changes.deeds.insert(at, Some(deed.clone()));
        self.board.deeds.insert(at, deed);
        while self.board.deeds.len() > DEEDS_MAX
            && let Some((oldest, _)) = self.board.deeds.pop_first()
        {
            self.changes.deeds.insert(oldest, None);
        }
    }
}
