//! The tasks of one machine, in the user's state directory.
//!
//! Any number of processes share a namespace: each step is a short transaction of its own on the
//! journal, by the same rules as in a cluster ([`apply`](crate::machine::task::apply)). None is open
//! while an action runs.

mod journal;
mod locks;
mod place;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use journal::{Access, Journal};
pub(super) use locks::Keeper;
pub(super) use place::{make, state_dir};

use super::problem::{Problem, UNAVAILABLE};
use crate::group::{SILENT_MS, Seen};
use crate::id::Version;
use crate::machine::task::{Command, Deed, Phase, Refusal, Spec, Step, Task, check_name};
use crate::task::{ClaimId, Outcome, Policy, Status, TaskError};

/// A namespace of this machine.
#[derive(Debug, Clone)]
pub(super) struct Embedded {
    folder: PathBuf,
    /// Who acts.
    who: String,
}

/// What became of a claim.
pub(super) enum Claim {
    Here(Held),
    Elsewhere(Box<Status>),
    /// The last attempt has failed, and the next is to come after this pause.
    NotYet(Duration),
}

/// A claim that holds, and is held until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) claim: ClaimId,
    pub(super) attempt: u32,
    pub(super) version: Version,
    pub(super) _lock: Option<File>,
}

impl Embedded {
    pub(super) fn open(state: &Path, namespace: &str, who: &str) -> Result<Self, Problem> {
        let folder = place::folder_of(state, namespace)?;
        let who = who.into();
        Ok(Self { folder, who })
    }

    /// Claims a task for an attempt of this id, which was never used before, unless it is told to stop.
    pub(super) fn claim(
        &self,
        name: &str,
        spec: Spec,
        claim: ClaimId,
        keeper: Keeper,
        stop: &CancellationToken,
    ) -> Result<Claim, Problem> {
        check(name)?;
        // Of many who ask, most find it done: they need not wait for each other.
        let journal = Journal::open_unless(&self.folder, Access::Read, stop)?;
        if let Some(elsewhere) = self.elsewhere(&journal, name) {
            return Ok(elsewhere);
        }
        drop(journal);
        let mut journal = Journal::open_unless(&self.folder, Access::Write, stop)?;
        if stop.is_cancelled() {
            return Err(Problem::new(
                UNAVAILABLE,
                "told to stop; nothing was claimed",
            ));
        }
        if let Some(elsewhere) = self.elsewhere(&journal, name) {
            return Ok(elsewhere);
        }
        if let Some(dead) = look(&journal, name).and_then(Task::running) {
            journal.take(&self.command(&journal, name, dead, Step::Expire))?;
            // There is a pause behind that, as behind any failure.
            if let Some(elsewhere) = self.elsewhere(&journal, name) {
                return Ok(elsewhere);
            }
        }
        self.forget(&mut journal, name)?;
        let lock = locks::hold(&journal, claim, keeper);
        let lock =
            lock.map_err(|error| Problem::io("cannot lock a claim in", &self.folder, &error))?;
        let answer = journal.take(&self.command(&journal, name, claim, Step::Claim(spec)));
        let answer = answer.inspect_err(|_| locks::release(&self.folder, claim))?;
        if journal.version.as_u64().is_multiple_of(SWEEP_EVERY) {
            locks::sweep(&journal);
        }
        match (answer.refused, answer.task.and_then(|task| task.attempt)) {
            (None, Some(attempt)) => Ok(Claim::Here(Held {
                claim,
                attempt: attempt.number,
                version: attempt.version,
                _lock: Some(lock),
            })),
            (refused, _) => {
                locks::release(&self.folder, claim);
                Err(match refused {
                    Some(Refusal::Full) => TaskError::Full.into(),
                    // All else was looked for under the same lock.
                    _ => TaskError::Busy.into(),
                })
            }
        }
    }

    /// Why a claim is not to be made, if it is not.
    fn elsewhere(&self, journal: &Journal, name: &str) -> Option<Claim> {
        let task = look(journal, name)?;
        let status = || Claim::Elsewhere(Box::new(status_of(journal, name, task)));
        match (task.phase(), task.running()) {
            (Phase::Succeeded | Phase::Failed, _) => Some(status()),
            (Phase::Running, Some(claim)) => {
                let may_follow = matches!(task.spec.policy, Policy::AtLeastOnce { .. });
                (!may_follow || !locks::has_died(journal, claim)).then(status)
            }
            (Phase::Waiting, _) => {
                let attempt = task.attempt.as_ref()?;
                let since_ms = attempt.end.as_ref()?.at_ms;
                // A clock that was set back waits for the whole pause, and no longer.
                let passed_ms = now_ms().saturating_sub(since_ms);
                let left_ms = task
                    .spec
                    .policy
                    .backoff_ms(attempt.number)
                    .saturating_sub(passed_ms);
                (left_ms > 0).then(|| Claim::NotYet(Duration::from_millis(left_ms)))
            }
            _ => None,
        }
    }

    pub(super) fn finish(
        &self,
        name: &str,
        claim: ClaimId,
        outcome: Outcome,
    ) -> Result<Status, Problem> {
        check(name)?;
        let (refused, status) = self.act(name, claim, Step::Finish(outcome))?;
        let status = match (refused, status) {
            (None, Some(status)) => Ok(status),
            (Some(Refusal::Ended), Some(status)) => Err(TaskError::Ended(Box::new(status)).into()),
            (Some(Refusal::Superseded), _) => Err(TaskError::Superseded.into()),
            _ => Err(TaskError::Missing.into()),
        };
        // In this order: whoever finds the lock free finds the outcome, too.
        locks::release(&self.folder, claim);
        status
    }

    pub(super) fn status(&self, name: &str) -> Result<Option<Status>, Problem> {
        check(name)?;
        let journal = Journal::open(&self.folder, Access::Read)?;
        Ok(look(&journal, name).map(|task| status_of(&journal, name, task)))
    }

    pub(super) fn list(&self) -> Result<Vec<Status>, Problem> {
        Ok(self.list_at()?.1)
    }

    /// All tasks, and the version at which they stand so.
    pub(super) fn list_at(&self) -> Result<(Version, Vec<Status>), Problem> {
        let journal = Journal::open(&self.folder, Access::Read)?;
        let now_ms = now_ms();
        let tasks = journal
            .board
            .tasks()
            .iter()
            .filter(|(_, task)| !task.is_over(now_ms));
        let all = tasks
            .map(|(name, task)| status_of(&journal, name, task))
            .collect();
        Ok((journal.version, all))
    }

    pub(super) fn deeds(&self) -> Result<Vec<Deed>, Problem> {
        let journal = Journal::open(&self.folder, Access::Read)?;
        Ok(journal.board.deeds().cloned().collect())
    }

    pub(super) fn create(&self, name: &str, spec: Spec) -> Result<Status, Problem> {
        check(name)?;
        match self.act(name, new_id(), Step::Create(spec))? {
            (None, Some(status)) => Ok(status),
            (Some(Refusal::Exists), Some(status)) => {
                Err(TaskError::Exists(Box::new(status)).into())
            }
            _ => Err(TaskError::Full.into()),
        }
    }

    pub(super) fn reset(&self, name: &str) -> Result<Status, Problem> {
        check(name)?;
        match self.act(name, new_id(), Step::Reset)? {
            (None, Some(status)) => Ok(status),
            _ => Err(TaskError::Missing.into()),
        }
    }

    pub(super) fn delete(&self, name: &str) -> Result<bool, Problem> {
        if self.status(name)?.is_none() {
            return Ok(false);
        }
        self.act(name, new_id(), Step::Delete)?;
        Ok(true)
    }

    /// A script's claim has no lock that tells of its end: that may be resolved at any time.
    pub(super) fn resolve(&self, name: &str, outcome: Outcome) -> Result<Status, Problem> {
        check(name)?;
        let mut journal = Journal::open(&self.folder, Access::Write)?;
        let Some(task) = look(&journal, name).cloned() else {
            return Err(TaskError::Missing.into());
        };
        let is_held = task
            .running()
            .is_none_or(|claim| locks::is_held(&journal, claim));
        if is_held {
            let status = status_of(&journal, name, &task);
            return Err(TaskError::NotAbandoned(Box::new(status)).into());
        }
        let answer =
            journal.take(&self.command(&journal, name, new_id(), Step::Resolve(outcome)))?;
        let task = answer.task.ok_or(TaskError::Missing)?;
        Ok(status_of(&journal, name, &task))
    }

    /// Blocks until the executor of the task that runs has ended or died, if that can be waited for;
    /// else returns `false` at once.
    pub(super) fn wait_for_executor(&self, name: &str) -> Result<bool, Problem> {
        let journal = Journal::open(&self.folder, Access::Read)?;
        let running = look(&journal, name).and_then(Task::running);
        drop(journal);
        Ok(running.is_some_and(|claim| locks::wait(&self.folder, claim)))
    }

    fn act(
        &self,
        name: &str,
        id: ClaimId,
        step: Step,
    ) -> Result<(Option<Refusal>, Option<Status>), Problem> {
        let mut journal = Journal::open(&self.folder, Access::Write)?;
        self.forget(&mut journal, name)?;
        let answer = journal.take(&self.command(&journal, name, id, step))?;
        let status = answer.task.map(|task| status_of(&journal, name, &task));
        Ok((answer.refused, status))
    }

    /// Has a task that is over forgotten: to a command it would have changed since it was seen.
    fn forget(&self, journal: &mut Journal, name: &str) -> Result<(), Problem> {
        if journal.board.get(name).is_some() && look(journal, name).is_none() {
            journal.take(&self.command(journal, name, new_id(), Step::Judge))?;
        }
        Ok(())
    }

    /// A command about the task as it is seen now; nobody changes it meanwhile.
    fn command(&self, journal: &Journal, name: &str, id: ClaimId, step: Step) -> Command {
        Command {
            task: name.into(),
            id,
            by: self.who.clone(),
            seen: journal.version,
            at_ms: now_ms(),
            step,
        }
    }
}

/// How often, in claims and other changes, files of claims that were left behind are looked for.
const SWEEP_EVERY: u64 = 256;

fn check(name: &str) -> Result<(), Problem> {
    check_name(name).map_err(Problem::usage)
}

fn now_ms() -> u64 {
    crate::probe::now_ms()
}

pub(super) fn new_id() -> ClaimId {
    ClaimId(rand::random())
}

/// The task as of now: one that is over is not there.
fn look<'a>(journal: &'a Journal, name: &str) -> Option<&'a Task> {
    journal
        .board
        .get(name)
        .filter(|task| !task.is_over(now_ms()))
}

fn status_of(journal: &Journal, name: &str, task: &Task) -> Status {
    let has_died = task
        .running()
        .is_some_and(|claim| locks::has_died(journal, claim));
    let silent_ms = if has_died { SILENT_MS } else { 0 };
    let task = task.clone();
    Status::of(name.into(), &Seen { task, silent_ms })
}

/// For when there is no state directory at all.
impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::new(UNAVAILABLE, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::State;

    fn open(folder: &Path) -> Embedded {
        Embedded::open(folder, "default", "tests").unwrap()
    }

    fn held(claim: Claim) -> Held {
        match claim {
            Claim::Here(held) => held,
            Claim::Elsewhere(status) => panic!("claimed elsewhere: {status:?}"),
            Claim::NotYet(pause) => panic!("not yet: {pause:?}"),
        }
    }

    fn state(store: &Embedded, name: &str) -> State {
        store.status(name).unwrap().unwrap().state
    }

    #[test]
    fn a_claim_stands_while_its_lock_is_held_and_is_abandoned_then() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let claim = || {
            store
                .claim(
                    "a",
                    Spec::default(),
                    new_id(),
                    Keeper::Process,
                    &CancellationToken::new(),
                )
                .unwrap()
        };
        let mine = held(claim());
        assert_eq!(state(&store, "a"), State::Running);
        assert!(matches!(claim(), Claim::Elsewhere(status) if status.state == State::Running));
        let id = mine.claim;
        drop(mine);
        assert!(matches!(claim(), Claim::Elsewhere(status) if status.state == State::Abandoned));
        // Late, and recorded all the same.
        store.finish("a", id, Outcome::SUCCESS).unwrap();
        assert_eq!(state(&store, "a"), State::Succeeded);
    }

    #[test]
    fn a_dead_executor_is_followed_if_the_task_may_be_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let policy = Policy::AtLeastOnce {
            retries_max: 1,
            backoff_first_ms: 0,
            backoff_max_ms: 0,
        };
        let spec = Spec {
            policy,
            ttl_ms: None,
        };
        let claim = || {
            store
                .claim(
                    "a",
                    spec,
                    new_id(),
                    Keeper::Process,
                    &CancellationToken::new(),
                )
                .unwrap()
        };
        let first = held(claim());
        assert!(matches!(claim(), Claim::Elsewhere(_)));
        drop(first);
        let second = held(claim());
        assert_eq!(second.attempt, 2);
        drop(second);
        // It was started as often as it may be.
        assert!(matches!(claim(), Claim::NotYet(_) | Claim::Elsewhere(_)));
        assert_eq!(state(&store, "a"), State::Failed);
    }

    #[test]
    fn a_script_s_claim_stands_until_it_is_finished_or_resolved() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let claim = |name: &str| {
            held(
                store
                    .claim(
                        name,
                        Spec::default(),
                        new_id(),
                        Keeper::Script,
                        &CancellationToken::new(),
                    )
                    .unwrap(),
            )
            .claim
        };
        let first = claim("a");
        assert_eq!(state(&store, "a"), State::Running);
        store.finish("a", first, Outcome::SUCCESS).unwrap();
        claim("b");
        store.resolve("b", Outcome::SUCCESS).unwrap();
        assert_eq!(
            (state(&store, "a"), state(&store, "b")),
            (State::Succeeded, State::Succeeded)
        );
        assert!(store.resolve("a", Outcome::SUCCESS).is_err());
    }

    #[test]
    fn a_task_that_is_over_runs_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let spec = Spec {
            ttl_ms: Some(0),
            ..Spec::default()
        };
        for _ in 0..3 {
            let held = held(
                store
                    .claim(
                        "a",
                        spec,
                        new_id(),
                        Keeper::Process,
                        &CancellationToken::new(),
                    )
                    .unwrap(),
            );
            store.finish("a", held.claim, Outcome::SUCCESS).unwrap();
            assert_eq!(store.status("a").unwrap(), None);
        }
    }
}
