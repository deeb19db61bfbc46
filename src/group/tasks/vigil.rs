//! What a leader has heard of executors, and since when it has known of failures, by its monotonic
//! clock. None of it is in a log.
//!
//! It counts for the term that this voter leads, and no further: in another one executors may have
//! told somebody else. It outlives the instance of a leader that sleeps, whose term goes on.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::id::{GroupId, Version};
use crate::machine::task::{Name, Phase, Task};

/// What is watched: a task, or an execution of a job.
#[derive(Clone, Copy)]
pub(in super::super) struct Watch<'a> {
    pub(in super::super) name: &'a str,
    pub(in super::super) changed: Version,
    /// It runs, or waits for its next attempt.
    pub(in super::super) is_open: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn of(name: &'a Name, task: &Task) -> Self {
        Self {
            name,
            changed: task.changed,
            is_open: matches!(task.phase(), Phase::Running | Phase::Waiting),
        }
    }
}

/// The most tasks that are watched at once, of all groups. Where it is reached, those are forgotten
/// that nothing was heard of for long; whoever finds no room then is heard of just now at each look:
/// nobody is taken for dead too early, but dead ones may be noticed late.
const WATCHED_MAX: usize = 65_536;

/// Who was not heard of for this long makes room, if it is needed.
const STALE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(in super::super) struct Vigils(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    groups: BTreeMap<GroupId, Vigil>,
    tasks: usize,
}

struct Vigil {
    term: u64,
    tasks: BTreeMap<Name, Known>,
}

/// Since when a task is as it is, or its executor was last heard of.
struct Known {
    changed: Version,
    since: Instant,
}

impl Vigils {
    /// Every change under this lock is whole.
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long nothing was heard of a task that runs, or waits for its next attempt. Who asks
    /// for the first time, hears of it now.
    pub(in super::super) fn silent_for(
        &self,
        group: GroupId,
        term: u64,
        watch: Watch<'_>,
    ) -> Duration {
        let now = Instant::now();
        let since = self.watched().since(group, term, watch, now);
        now.saturating_duration_since(since)
    }

    /// The task is gone.
    pub(super) fn forget(&self, group: GroupId, name: &str) {
        self.watched().forget(group, name);
    }

    /// The executor was heard of, or the task has just become what it is.
    pub(in super::super) fn heard(&self, group: GroupId, term: u64, watch: Watch<'_>) {
        let now = Instant::now();
        let mut watched = self.watched();
        watched.since(group, term, watch, now);
        let known = watched.groups.get_mut(&group);
        if let Some(known) = known.and_then(|vigil| vigil.tasks.get_mut(watch.name)) {
            known.since = now;
        }
    }
}

impl Watched {
    fn since(&mut self, group: GroupId, term: u64, watch: Watch<'_>, now: Instant) -> Instant {
        if self
            .groups
            .get(&group)
            .is_some_and(|vigil| vigil.term != term)
            && let Some(vigil) = self.groups.remove(&group)
        {
            self.tasks -= vigil.tasks.len();
        }
        if !watch.is_open {
            self.forget(group, watch.name);
            return now;
        }
        if self.tasks >= WATCHED_MAX {
            self.make_room(now);
        }
        let is_full = self.tasks >= WATCHED_MAX;
        let vigil = self.groups.entry(group).or_insert_with(|| Vigil {
            term,
            tasks: BTreeMap::new(),
        });
        match vigil.tasks.get(watch.name) {
            Some(known) if known.changed == watch.changed => known.since,
            // An entry without tasks is of use to nobody; the next who makes room takes it away.
            None if is_full => now,
            known => {
                self.tasks += usize::from(known.is_none());
                let changed = watch.changed;
                let known = Known {
                    changed,
                    since: now,
                };
                vigil.tasks.insert(watch.name.into(), known);
                now
            }
        }
    }

    fn forget(&mut self, group: GroupId, name: &str) {
        let Some(vigil) = self.groups.get_mut(&group) else {
            return;
        };
        self.tasks -= usize::from(vigil.tasks.remove(name).is_some());
        if vigil.tasks.is_empty() {
            self.groups.remove(&group);
        }
    }

    fn make_room(&mut self, now: Instant) {
        self.groups.retain(|_, vigil| {
            vigil
                .tasks
                .retain(|_, known| now.saturating_duration_since(known.since) < STALE);
            !vigil.tasks.is_empty()
        });
        self.tasks = self.groups.values().map(|vigil| vigil.tasks.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use super::*;
    use crate::machine::task::Board;

    const GROUP: GroupId = GroupId::from_bytes([3; 32]);

    async fn pass(ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_begins_with_the_first_look_and_anew_with_each_word_change_and_term() {
        let vigils = Vigils::default();
        let mut board = Board::default();
        let task = generate::running(&mut board, "t", 1);
        let name = "t".to_string();
        let silent = |term, task: &Task| {
            let silent = vigils.silent_for(GROUP, term, Watch::of(&name, task));
            silent.as_millis() as u64
        };
        assert_eq!(silent(1, &task), 0);
        pass(700).await;
        assert_eq!(silent(1, &task), 700);
        vigils.heard(GROUP, 1, Watch::of(&name, &task));
        pass(300).await;
        assert_eq!(silent(1, &task), 300);
        assert_eq!(silent(2, &task), 0, "another term");
        pass(100).await;
        let next = generate::running(&mut board, "t", 2);
        assert_eq!(silent(2, &next), 0, "another state");
        pass(50).await;
        assert_eq!(silent(2, &next), 50);
        assert_eq!(vigils.watched().tasks, 1);
        vigils.forget(GROUP, &name);
        assert_eq!(vigils.watched().tasks, 0);
        assert!(vigils.watched().groups.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_room_who_is_silent_for_long_makes_some() {
        let vigils = Vigils::default();
        let task = generate::running(&mut Board::default(), "t", 1);
        let hear = |n: usize| vigils.heard(GROUP, 1, Watch::of(&n.to_string(), &task));
        let silent = |n: usize| vigils.silent_for(GROUP, 1, Watch::of(&n.to_string(), &task));
        (0..WATCHED_MAX).for_each(hear);
        pass(5_000).await;
        // No room: but nobody who is watched is forgotten.
        hear(WATCHED_MAX);
        pass(STALE.as_millis() as u64).await;
        hear(7);
        assert_eq!(silent(WATCHED_MAX).as_millis(), 0);
        pass(100).await;
        assert_eq!(silent(WATCHED_MAX).as_millis(), 100, "there is room now");
        assert_eq!(silent(7).as_millis(), 100, "it was heard of");
        assert_eq!(vigils.watched().tasks, 2);
    }
}
