//! Tasks: actions that are claimed before they are started. Each step, the creation, the claim of
//! an attempt, its outcome, is taken once within one generation, and asking for it again by the
//! same id gets the same answer.
//!
//! Pure, as all of `machine`: whatever time it is comes with the command, stamped by the leader that
//! puts it into the log. It decides one thing only, whether an ended task is forgotten.

mod board;
#[cfg(test)]
mod model_tests;
mod record;

use std::fmt;

use crate::codec::{Decode, Encode};
use crate::id::Version;

pub(crate) use board::{Board, Changes};
#[cfg(feature = "jobs")]
pub(crate) use record::WHO_BYTES_MAX;
pub(crate) use record::{
    Attempt, End, How, Made, Name, Phase, REASON_BYTES_MAX, Spec, Task, check_name, check_outcome,
    check_who,
};
pub use record::{ClaimId, ClaimIdError, Failure, Outcome, Policy};

/// The most tasks of one namespace, those that have ended and are kept included. A snapshot of all
/// of them is one frame.
pub(crate) const TASKS_MAX: usize = 10_000;

/// The most deeds of operators that are remembered; then the oldest is forgotten.
pub(crate) const DEEDS_MAX: usize = 256;

/// What is asked of one task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Command {
    pub(crate) task: Name,
    /// Of what is asked; that of a claim, and of what belongs to it, is the claim's.
    pub(crate) id: ClaimId,
    /// Who asks; of a claim, the executor.
    pub(crate) by: String,
    /// The version at which the task was seen that this is about: if it has changed since, other
    /// than by this very command, nothing is done. So a command that comes late, or twice, does
    /// not touch what it was not meant for. Outcomes and expiries belong to a claim instead.
    pub(crate) seen: Version,
    /// The leader's wall clock.
    pub(crate) at_ms: u64,
    pub(crate) step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Step {
    Create(Spec),
    /// Start the next attempt. A task that is not there is created.
    Claim(Spec),
    /// The attempt has ended.
    Finish(Outcome),
    /// The executor was not heard of for too long: another one may go on. Nobody but a leader
    /// proposes it, for it knows.
    Expire,
    /// An operator says how a task that runs, or did, has ended.
    Resolve(Outcome),
    /// Begin a new generation.
    Reset,
    Delete,
    /// Forget it if it is over.
    Judge,
}

impl Command {
    /// Why no honest node proposes it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        check_name(&self.task)?;
        check_who(&self.by)?;
        match &self.step {
            Step::Create(spec) | Step::Claim(spec) => spec.check(),
            Step::Finish(outcome) | Step::Resolve(outcome) => check_outcome(outcome),
            Step::Expire | Step::Reset | Step::Delete | Step::Judge => Ok(()),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match &self.step {
            Step::Create(_) => "create",
            Step::Claim(_) => "claim",
            Step::Finish(outcome) if outcome.is_success() => "finish, succeeded",
            Step::Finish(_) => "finish, failed",
            Step::Expire => "expire",
            Step::Resolve(_) => "resolve",
            Step::Reset => "reset",
            Step::Delete => "delete",
            Step::Judge => "judge",
        };
        write!(f, "{step} {:?} by {:?}", self.task, self.by)
    }
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Refusal {
    /// There is no such task.
    Missing,
    /// The task is there already.
    Exists,
    /// There is no room for another task.
    Full,
    /// It has changed since it was seen.
    Changed,
    /// Somebody else runs it.
    Running,
    /// It has an outcome.
    Ended,
    /// The claim is not that of the last attempt: it was taken over, or another generation began.
    /// Or what was to be created was, and somebody has ended it since.
    Superseded,
    /// Nobody runs it.
    NotRunning,
}

/// Whether what was asked for is so, and the task behind the command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Answer {
    pub(crate) refused: Option<Refusal>,
    pub(crate) task: Option<Task>,
}

/// What an operator did.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Deed {
    pub(crate) version: Version,
    pub(crate) at_ms: u64,
    pub(crate) by: String,
    pub(crate) task: Name,
    /// Of the task before.
    pub(crate) generation: Version,
    pub(crate) kind: DeedKind,
    /// Of the command that did it.
    pub(crate) id: ClaimId,
    /// Of the command that had made the task before.
    pub(crate) made: ClaimId,
}

impl Deed {
    /// Whether a copy of this command has taken its effect, and the task may be another since.
    fn answers(&self, command: &Command) -> bool {
        let is_same = match command.step {
            Step::Create(_) => self.made == command.id,
            _ => self.id == command.id && deed_of(&command.step) == Some(self.kind),
        };
        is_same && self.task == command.task
    }
}

/// What kind of thing it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum DeedKind {
    /// A new generation was begun.
    Reset,
    /// The task was deleted.
    Deleted,
    /// An abandoned task was given an outcome.
    Resolved,
}

/// Where the tasks of a namespace are kept: in memory, or on a disk that may fail to be read.
pub(crate) trait Shelf {
    type Error;

    fn task(&mut self, name: &str) -> Result<Option<Task>, Self::Error>;

    fn count(&mut self) -> Result<usize, Self::Error>;

    /// The last version at which a task was removed.
    fn removed(&mut self) -> Result<Version, Self::Error>;

    /// The tasks that are over; asked for when there is no room.
    fn over(&mut self, now_ms: u64) -> Result<Vec<Name>, Self::Error>;

    fn put(&mut self, name: &str, task: &Task);

    /// It is there.
    fn remove(&mut self, name: &str, at: Version);

    /// The deed that this is so of, if one is remembered.
    fn deed(&mut self, is_it: impl Fn(&Deed) -> bool) -> Result<Option<Deed>, Self::Error>;

    /// Remembers a deed, and forgets the oldest when there are more than [`DEEDS_MAX`].
    fn note(&mut self, deed: Deed);
}

/// Applies the command at log index `version`.
///
/// Total: any command in any state has an answer, and one that is applied again changes nothing.
pub(crate) fn apply<S: Shelf>(
    shelf: &mut S,
    version: Version,
    command: &Command,
) -> Result<Answer, S::Error> {
    let mut known = shelf.task(&command.task)?;
    if known
        .as_ref()
        .is_some_and(|task| task.is_over(command.at_ms))
    {
        shelf.remove(&command.task, version);
        known = None;
    }
    if shelf.deed(|deed| deed.answers(command))?.is_some() {
        let is_create = matches!(command.step, Step::Create(_));
        return Ok(Answer {
            refused: is_create.then_some(Refusal::Superseded),
            task: known,
        });
    }
    let done = match (known.clone(), &command.step) {
        (None, Step::Create(spec) | Step::Claim(spec)) => begin(shelf, version, command, *spec)?,
        (None, Step::Delete | Step::Judge) => Ok(None),
        (None, _) => Err(Refusal::Missing),
        (Some(task), step) => go_on(version, command, task, step),
    };
    let task = match done {
        Ok(task) if task == known => task,
        Ok(Some(task)) => {
            shelf.put(&command.task, &task);
            if let (Some(before), Some(kind)) = (&known, deed_of(&command.step)) {
                shelf.note(deed(version, command, before, kind));
            }
            Some(task)
        }
        Ok(None) => {
            shelf.remove(&command.task, version);
            if let (Some(before), Some(kind)) = (&known, deed_of(&command.step)) {
                shelf.note(deed(version, command, before, kind));
            }
            None
        }
        Err(refusal) => {
            return Ok(Answer {
                refused: Some(refusal),
                task: known,
            });
        }
    };
    Ok(Answer {
        refused: None,
        task,
    })
}

type Done = Result<Option<Task>, Refusal>;

fn deed_of(step: &Step) -> Option<DeedKind> {
    match step {
        Step::Reset => Some(DeedKind::Reset),
        Step::Delete => Some(DeedKind::Deleted),
        Step::Resolve(_) => Some(DeedKind::Resolved),
        Step::Create(_) | Step::Claim(_) | Step::Finish(_) | Step::Expire | Step::Judge => None,
    }
}

fn deed(version: Version, command: &Command, before: &Task, kind: DeedKind) -> Deed {
    Deed {
        version,
        at_ms: command.at_ms,
        by: command.by.clone(),
        task: command.task.clone(),
        generation: before.generation,
        kind,
        id: command.id,
        made: before.made.id,
    }
}

fn made(version: Version, command: &Command, spec: Spec) -> Task {
    Task {
        generation: version,
        changed: version,
        spec,
        made: Made {
            id: command.id,
            by: command.by.clone(),
            at_ms: command.at_ms,
        },
        attempt: None,
    }
}

/// A task that is not there is created, and claimed if that is what was asked for.
fn begin<S: Shelf>(
    shelf: &mut S,
    version: Version,
    command: &Command,
    spec: Spec,
) -> Result<Done, S::Error> {
    if shelf.removed()? > command.seen {
        return Ok(Err(Refusal::Changed));
    }
    if shelf.count()? >= TASKS_MAX {
        for name in shelf.over(command.at_ms)? {
            shelf.remove(&name, version);
        }
        if shelf.count()? >= TASKS_MAX {
            return Ok(Err(Refusal::Full));
        }
    }
    let mut task = made(version, command, spec);
    if matches!(command.step, Step::Claim(_)) {
        task.attempt = Some(attempt(version, command, 1));
    }
    Ok(Ok(Some(task)))
}

fn attempt(version: Version, command: &Command, number: u32) -> Attempt {
    Attempt {
        number,
        claim: command.id,
        executor: command.by.clone(),
        at_ms: command.at_ms,
        version,
        end: None,
    }
}

/// What becomes of a task that is there.
fn go_on(version: Version, command: &Command, task: Task, step: &Step) -> Done {
    let phase = task.phase();
    let is_unchanged = task.changed <= command.seen;
    let is_of_last = task
        .attempt
        .as_ref()
        .is_some_and(|last| last.claim == command.id);
    let changed = |mut task: Task| {
        task.changed = version;
        Ok(Some(task))
    };
    let ended = |mut task: Task, how: How| {
        if let Some(last) = &mut task.attempt {
            let at_ms = command.at_ms;
            last.end = Some(End { at_ms, how });
        }
        changed(task)
    };
    match step {
        Step::Create(_) if task.made.id == command.id => Ok(Some(task)),
        Step::Create(_) => Err(Refusal::Exists),
        Step::Claim(_) => match phase {
            Phase::Running if is_of_last => Ok(Some(task)),
            Phase::Running => Err(Refusal::Running),
            Phase::Succeeded | Phase::Failed => Err(Refusal::Ended),
            // Nobody starts what this claim has started once.
            Phase::Waiting if is_of_last => Err(Refusal::Superseded),
            Phase::Pending | Phase::Waiting if !is_unchanged => Err(Refusal::Changed),
            Phase::Pending | Phase::Waiting => {
                let before = task.attempt.as_ref().map_or(0, |last| last.number);
                let attempt = Some(attempt(version, command, before + 1));
                changed(Task { attempt, ..task })
            }
        },
        Step::Finish(_) if !is_of_last => Err(Refusal::Superseded),
        Step::Finish(outcome) => match task.attempt.as_ref().and_then(|last| last.end.as_ref()) {
            None => ended(task, How::Ended(outcome.clone())),
            Some(End {
                how: How::Ended(_), ..
            }) => Ok(Some(task)),
            // Late, and nobody has gone on, nor was anybody told of another end.
            Some(_) if phase == Phase::Waiting => ended(task, How::Ended(outcome.clone())),
            Some(_) => Err(Refusal::Ended),
        },
        Step::Expire if !is_of_last => Err(Refusal::Superseded),
        Step::Expire => match (phase, task.spec.policy) {
            (Phase::Running, Policy::AtLeastOnce { .. }) => ended(task, How::Expired),
            (Phase::Running, Policy::AtMostOnce) => Err(Refusal::Running),
            _ => Ok(Some(task)),
        },
        Step::Resolve(outcome) => match task.attempt.as_ref().and_then(|last| last.end.as_ref()) {
            Some(End {
                how: How::Resolved { id, .. },
                ..
            }) if *id == command.id => Ok(Some(task)),
            _ if phase != Phase::Running => Err(Refusal::NotRunning),
            _ if !is_unchanged => Err(Refusal::Changed),
            _ => {
                let how = How::Resolved {
                    id: command.id,
                    outcome: outcome.clone(),
                    by: command.by.clone(),
                };
                ended(task, how)
            }
        },
        Step::Reset if task.made.id == command.id => Ok(Some(task)),
        Step::Reset | Step::Delete if !is_unchanged => Err(Refusal::Changed),
        Step::Reset => Ok(Some(made(version, command, task.spec))),
        Step::Delete => Ok(None),
        Step::Judge => Ok(Some(task)),
    }
}
