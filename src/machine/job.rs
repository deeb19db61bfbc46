//! Jobs: actions with a schedule, of which each tick is claimed before it is run. Each step, the
//! creation, the claim of a tick, its outcome, is taken once, and asking for it again by the same
//! id gets the same answer.
//!
//! Pure, as all of `machine`, and it knows no schedules and no zones either: a tick is a civil time
//! that some worker has found to be due. All it decides is whose it is.

mod board;
#[cfg(test)]
mod model_tests;
mod record;
mod spec;
mod tick;

use std::fmt;
use std::sync::Arc;

use crate::codec::{Decode, Encode};
use crate::id::Version;
use crate::machine::task::{ClaimId, Outcome, check_who};

pub(crate) use board::{Board, Changes};
pub(crate) use record::{
    Asked, ERROR_BYTES_MAX, End, Execution, How, Job, Made, OPERATIONS_MAX, Phase, check_error,
};
pub use record::{JobId, Slot};
pub(crate) use spec::{
    ARGUMENTS_MAX, Action, Call, SPEC_BYTES_MAX, Spec, TIMEOUT_MS_MAX, TIMEOUT_MS_MIN,
};
pub use tick::{Tick, TickError};

/// How far the civil time of a tick may be ahead of the leader's clock in UTC: the zone that is
/// furthest ahead is 14 hours, the rest is what clocks may differ by. Whose clock is years ahead would
/// take all ticks until then.
const AHEAD_MS_MAX: u64 = (14 * 60 + 15) * 60 * 1_000;

/// How far behind it the civil time may be at which a job is made: the zone that is furthest behind is 12
/// hours. All ticks since then would have been missed.
const BEHIND_MS_MAX: u64 = (12 * 60 + 15) * 60 * 1_000;

/// What is asked of one job.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Command {
    /// Of no meaning to a creation.
    pub(crate) job: JobId,
    /// Of what is asked; that of a claim, and of what belongs to it, is the claim's.
    pub(crate) id: ClaimId,
    /// Who asks; of a claim, the worker.
    pub(crate) by: String,
    /// The version at which whoever creates, pauses, resumes, asks for or deletes a job has seen it:
    /// if somebody has done any of this since, it is refused. What belongs to ticks needs none.
    pub(crate) seen: Version,
    /// The leader's wall clock.
    pub(crate) at_ms: u64,
    pub(crate) step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Step {
    Create(Arc<Spec>),
    /// Nothing is started until it is resumed, but what is asked for.
    Pause,
    /// Go on with the ticks that are later than this.
    Resume {
        after: Tick,
    },
    Delete,
    /// Run it once, whatever its schedule says.
    RunNow,
    /// Start this attempt.
    Claim {
        slot: Slot,
        attempt: u32,
    },
    /// The attempt has ended.
    Finish {
        slot: Slot,
        outcome: Outcome,
    },
    /// The worker was not heard of for too long: another one may go on. Nobody but a leader
    /// proposes it, for it knows.
    Expire {
        slot: Slot,
    },
    /// The tick came while nobody was there to run it. It was due at this instant: whether that is past the
    /// leader says, by its own clock.
    Miss {
        tick: Tick,
        due_ms: u64,
    },
}

impl Command {
    /// Why no honest node proposes it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        check_who(&self.by)?;
        match &self.step {
            Step::Create(spec) => spec.check(),
            Step::Finish { outcome, .. } => check_error(outcome),
            Step::Resume { after: tick }
            | Step::Miss { tick, .. }
            | Step::Claim {
                slot: Slot::Tick(tick),
                ..
            } if !tick.is_sound() => Err("there is no such tick"),
            _ => Ok(()),
        }
    }

    /// What it takes beside its frame, in bytes.
    pub(crate) fn value_bytes(&self) -> usize {
        match &self.step {
            Step::Create(spec) => spec.bytes(),
            _ => 0,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Step::Create(_) => f.write_str("create")?,
            Step::Pause => f.write_str("pause")?,
            Step::Resume { .. } => f.write_str("resume")?,
            Step::Delete => f.write_str("delete")?,
            Step::RunNow => f.write_str("run now")?,
            Step::Claim { slot, attempt } => write!(f, "claim {slot}, attempt {attempt}, of")?,
            Step::Finish { slot, outcome } if outcome.is_success() => {
                write!(f, "finish {slot}, succeeded, of")?;
            }
            Step::Finish { slot, .. } => write!(f, "finish {slot}, failed, of")?,
            Step::Expire { slot } => write!(f, "expire {slot} of")?,
            Step::Miss { tick, .. } => write!(f, "miss {tick} of")?,
        }
        write!(f, " job {} by {:?}", self.job, self.by)
    }
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Refusal {
    /// There is no such job, or none of its executions that are remembered is this one.
    Missing,
    /// There is no room for another job.
    Full,
    /// Somebody has acted on it since it was seen.
    Changed,
    /// Nothing is started.
    Paused,
    /// Somebody else runs it, or it was asked for already.
    Running,
    /// The tick was taken, or is over.
    Ended,
    /// The claim is not that of the last attempt.
    Superseded,
    /// The time is too far from the leader's: that of a tick in the future.
    Early,
}

/// Whether what was asked for is so, and the job behind the command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Answer {
    pub(crate) refused: Option<Refusal>,
    pub(crate) job: Option<Arc<Job>>,
}

impl Board {
    /// Applies the command at log index `version`.
    ///
    /// Total: any command in any state has an answer, and one that is applied again changes nothing.
    pub(crate) fn apply(
        &mut self,
        version: Version,
        command: &Command,
        changes: &mut Changes,
    ) -> Answer {
        let known = match command.step {
            Step::Create(_) => self.created_by(command.id),
            _ => self.get(command.job),
        };
        let known = known.cloned();
        let done = match (&known, &command.step) {
            (Some(_), Step::Create(_)) | (None, Step::Delete) => Ok(None),
            (None, Step::Create(spec)) => self.create(version, command, spec).map(Some),
            (None, _) => Err(Refusal::Missing),
            (Some(job), Step::Delete) => match job.operated > command.seen {
                true => Err(Refusal::Changed),
                false => {
                    self.remove(job.id, version, changes);
                    return Answer {
                        refused: None,
                        job: None,
                    };
                }
            },
            (Some(job), step) => go_on(version, command, job, step),
        };
        let (refused, job) = match done {
            Ok(Some(mut job)) => {
                job.changed = version;
                let job = Arc::new(job);
                self.put(job.clone(), changes);
                (None, Some(job))
            }
            Ok(None) => (None, known),
            Err(refusal) => (Some(refusal), known),
        };
        Answer { refused, job }
    }

    fn create(
        &self,
        version: Version,
        command: &Command,
        spec: &Arc<Spec>,
    ) -> Result<Job, Refusal> {
        if self.removed() > command.seen {
            return Err(Refusal::Changed);
        }
        if is_early(command, spec.after) || is_late(command, spec.after) {
            return Err(Refusal::Early);
        }
        if !self.has_room(Job::charge(spec)) {
            return Err(Refusal::Full);
        }
        Ok(Job {
            id: JobId::of(version),
            spec: spec.clone(),
            made: Made {
                id: command.id,
                by: command.by.clone(),
                at_ms: command.at_ms,
            },
            changed: version,
            operations: vec![command.id],
            operated: version,
            is_paused: false,
            is_over: false,
            last: spec.after,
            asked: None,
            executions: Vec::new(),
        })
    }
}

/// The job as it becomes, if it becomes another.
type Done = Result<Option<Job>, Refusal>;

/// What becomes of a job that is there.
fn go_on(version: Version, command: &Command, job: &Job, step: &Step) -> Done {
    match step {
        Step::Pause | Step::Resume { .. } | Step::RunNow => operate(version, command, job, step),
        Step::Claim { slot, attempt } => claim(version, command, job, *slot, *attempt),
        Step::Finish { slot, outcome } => {
            let execution = of_claim(command, job, *slot)?;
            match execution.end.as_ref().map(|end| &end.how) {
                Some(How::Ended(_)) => Ok(None),
                // Late, and nobody has gone on, nor was anybody told of another end.
                Some(_) if job.phase(execution) != Phase::Waiting => Err(Refusal::Ended),
                None | Some(_) => {
                    let how = How::Ended(outcome.clone());
                    Ok(Some(ended(version, command, job, execution, how)))
                }
            }
        }
        Step::Expire { slot } => {
            let execution = of_claim(command, job, *slot)?;
            match (execution.end.is_some(), job.is_at_least_once()) {
                (true, _) => Ok(None),
                (false, false) => Err(Refusal::Running),
                (false, true) => Ok(Some(ended(version, command, job, execution, How::Expired))),
            }
        }
        Step::Miss { tick, .. } => {
            let slot = Slot::Tick(*tick);
            if of_claim(command, job, slot).is_ok() {
                return Ok(None);
            }
            take(command, job, *tick)?;
            let mut execution = started(version, command, slot, 0);
            execution.end = Some(End {
                took_ms: 0,
                version,
                how: How::Missed,
            });
            Ok(Some(with_tick(job, *tick, execution)))
        }
        Step::Create(_) | Step::Delete => Ok(None),
    }
}

/// What an operator does.
fn operate(version: Version, command: &Command, job: &Job, step: &Step) -> Done {
    if job.operations.contains(&command.id) {
        return Ok(None);
    }
    if job.operated > command.seen {
        return Err(Refusal::Changed);
    }
    let mut job = job.clone();
    match step {
        Step::Pause => job.is_paused = true,
        Step::Resume { after } => {
            if is_early(command, *after) {
                return Err(Refusal::Early);
            }
            if job.is_paused {
                job.last = job.last.max(*after);
            }
            job.is_paused = false;
        }
        _ => {
            if job.asked.is_some_and(|asked| !asked.is_taken) {
                return Err(Refusal::Running);
            }
            job.asked = Some(Asked {
                version,
                is_taken: false,
            });
        }
    }
    job.operated = version;
    job.operations.push(command.id);
    if job.operations.len() > OPERATIONS_MAX {
        job.operations.remove(0);
    }
    Ok(Some(job))
}

fn claim(version: Version, command: &Command, job: &Job, slot: Slot, attempt: u32) -> Done {
    if let Some(last) = job.execution(slot) {
        let next = started(version, command, slot, attempt);
        return match job.phase(last) {
            Phase::Running if last.claim == command.id => Ok(None),
            Phase::Running => Err(Refusal::Running),
            // Nobody starts what this claim has started once.
            Phase::Waiting if last.claim == command.id => Err(Refusal::Superseded),
            Phase::Waiting if job.is_paused && matches!(slot, Slot::Tick(_)) => {
                Err(Refusal::Paused)
            }
            Phase::Waiting if attempt == last.attempt + 1 => Ok(Some(with(job, next))),
            _ => Err(Refusal::Ended),
        };
    }
    if attempt != 1 {
        return Err(Refusal::Ended);
    }
    let execution = started(version, command, slot, attempt);
    match slot {
        Slot::Tick(tick) => {
            take(command, job, tick)?;
            Ok(Some(with_tick(job, tick, execution)))
        }
        Slot::Now(asked) => {
            if job
                .asked
                .is_none_or(|known| known.version != asked || known.is_taken)
            {
                return Err(Refusal::Ended);
            }
            check_free(job)?;
            let mut job = with(job, execution);
            job.asked = Some(Asked {
                version: asked,
                is_taken: true,
            });
            Ok(Some(job))
        }
    }
}

/// Whether a tick is there to be taken.
fn take(command: &Command, job: &Job, tick: Tick) -> Result<(), Refusal> {
    if job.is_over || tick <= job.last {
        return Err(Refusal::Ended);
    }
    if job.is_paused {
        return Err(Refusal::Paused);
    }
    if is_early(command, tick) {
        return Err(Refusal::Early);
    }
    check_free(job)
}

/// What is run at least once is run once at a time.
fn check_free(job: &Job) -> Result<(), Refusal> {
    match job.is_at_least_once() && job.open().next().is_some() {
        true => Err(Refusal::Running),
        false => Ok(()),
    }
}

fn is_early(command: &Command, tick: Tick) -> bool {
    let ahead = command.at_ms.saturating_add(AHEAD_MS_MAX);
    Tick::of_utc(ahead).is_none_or(|latest| tick > latest)
}

fn is_late(command: &Command, tick: Tick) -> bool {
    let behind = command.at_ms.saturating_sub(BEHIND_MS_MAX);
    Tick::of_utc(behind).is_some_and(|earliest| tick < earliest)
}

/// The execution of a slot, if it is under the claim of this command.
fn of_claim<'a>(command: &Command, job: &'a Job, slot: Slot) -> Result<&'a Execution, Refusal> {
    let execution = job.execution(slot).ok_or(Refusal::Missing)?;
    match execution.claim == command.id {
        true => Ok(execution),
        false => Err(Refusal::Superseded),
    }
}

fn started(version: Version, command: &Command, slot: Slot, attempt: u32) -> Execution {
    Execution {
        slot,
        attempt,
        claim: command.id,
        worker: command.by.clone(),
        at_ms: command.at_ms,
        version,
        end: None,
    }
}

fn ended(version: Version, command: &Command, job: &Job, execution: &Execution, how: How) -> Job {
    let mut execution = execution.clone();
    execution.end = Some(End {
        took_ms: command.at_ms.saturating_sub(execution.at_ms),
        version,
        how,
    });
    with(job, execution)
}

/// The job with this execution in the place of the one of its slot, or behind all others.
fn with(job: &Job, execution: Execution) -> Job {
    let mut job = job.clone();
    let known = job
        .executions
        .iter_mut()
        .rev()
        .find(|known| known.slot == execution.slot);
    match known {
        Some(known) => *known = execution,
        None => job.executions.push(execution),
    }
    job.trim();
    job
}

fn with_tick(job: &Job, tick: Tick, execution: Execution) -> Job {
    let mut job = with(job, execution);
    job.last = tick;
    job.is_over |= !job.spec.is_recurring;
    job
}
