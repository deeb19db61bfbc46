//! Jobs at random, and what is said about them.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;

use super::super::generate::{list, maybe, number, version};
use super::super::tasks::generate::name;
use super::{JobSeen, JobsAnswer, JobsQuery};
use crate::id::Version;
use crate::machine::job::{
    Action, Answer, Board, Call, Changes, Command, Job, JobId, Refusal, Slot, Spec, Step, Tick,
};
use crate::machine::task::{ClaimId, Failure, Outcome, Policy};

fn claim(rng: &mut StdRng) -> ClaimId {
    ClaimId([rng.random_range(0..4); 16])
}

fn tick(rng: &mut StdRng) -> Tick {
    Tick::of_utc(1_700_000_000_000 + 1_000 * rng.random_range(0..9)).expect("it is one")
}

fn slot(rng: &mut StdRng) -> Slot {
    match rng.random_range(0..4) {
        0 => Slot::Now(Version::new(rng.random_range(0..9))),
        _ => Slot::Tick(tick(rng)),
    }
}

fn id(rng: &mut StdRng) -> JobId {
    JobId::of(Version::new(rng.random_range(0..4)))
}

fn spec(rng: &mut StdRng) -> Spec {
    Spec {
        schedule: "0 0 12 * * *".into(),
        zone: "UTC".into(),
        after: Tick::of_utc(1_699_999_999_000).expect("it is one"),
        policy: match rng.random() {
            true => Policy::AtMostOnce,
            false => Policy::at_least_once(),
        },
        is_recurring: rng.random(),
        timeout_ms: rng.random_range(100..10_000),
        description: name(rng),
        action: match rng.random() {
            true => Action::Command(vec![name(rng)]),
            false => Action::Call(Call {
                method: "POST".into(),
                url: name(rng),
                headers: list(rng, |rng| (name(rng), name(rng))),
                body: name(rng),
            }),
        },
    }
}

pub(crate) fn command(rng: &mut StdRng) -> Command {
    Command {
        job: id(rng),
        id: claim(rng),
        by: name(rng),
        seen: version(rng),
        at_ms: number(rng),
        step: match rng.random_range(0..11) {
            0..2 => Step::Create(spec(rng).into()),
            2 => Step::Pause,
            3 => Step::Resume { after: tick(rng) },
            4 => Step::Delete,
            5 => Step::RunNow,
            6..8 => Step::Claim {
                slot: slot(rng),
                attempt: rng.random_range(0..3),
            },
            8 => Step::Finish {
                slot: slot(rng),
                outcome: match rng.random() {
                    true => Outcome::SUCCESS,
                    false => Outcome::Failed(Failure::Error("HTTP 503".into())),
                },
            },
            9 => Step::Expire { slot: slot(rng) },
            _ => Step::Miss {
                tick: tick(rng),
                due_ms: number(rng),
            },
        },
    }
}

/// What may be in a log at `at`.
pub(crate) fn sound_command(rng: &mut StdRng, at: u64) -> Command {
    Command {
        by: "host".into(),
        seen: Version::new(at - 1),
        at_ms: 1_700_000_000_000,
        ..command(rng)
    }
}

/// What a log may have made.
pub(crate) fn board(rng: &mut StdRng) -> Board {
    let mut board = Board::default();
    for at in 1..rng.random_range(2..40) {
        let step = sound_command(rng, at);
        board.apply(Version::new(at), &step, &mut Changes::default());
    }
    board
}

fn job(rng: &mut StdRng) -> Arc<Job> {
    loop {
        if let Some(job) = board(rng).jobs().values().next() {
            return job.clone();
        }
    }
}

pub(crate) fn answer(rng: &mut StdRng) -> Answer {
    Answer {
        refused: maybe(rng, |rng| {
            [
                Refusal::Missing,
                Refusal::Full,
                Refusal::Changed,
                Refusal::Paused,
                Refusal::Running,
                Refusal::Ended,
                Refusal::Superseded,
                Refusal::Early,
            ][rng.random_range(0..8)]
        }),
        job: maybe(rng, job),
    }
}

pub(crate) const QUERIES: usize = 3;

pub(crate) fn kind_of_query(query: &JobsQuery) -> usize {
    match query {
        JobsQuery::Look { .. } => 0,
        JobsQuery::Page { .. } => 1,
        JobsQuery::Renew { .. } => 2,
    }
}

pub(crate) fn query(rng: &mut StdRng) -> JobsQuery {
    match rng.random_range(0..QUERIES) {
        0 => JobsQuery::Look { job: id(rng) },
        1 => JobsQuery::Page { from: id(rng) },
        _ => JobsQuery::Renew {
            job: id(rng),
            slot: slot(rng),
            claim: claim(rng),
        },
    }
}

pub(crate) const ANSWERS: usize = 5;

pub(crate) fn kind_of_answer(answer: &JobsAnswer) -> usize {
    match answer {
        JobsAnswer::Seen { .. } => 0,
        JobsAnswer::Page { .. } => 1,
        JobsAnswer::Renewed(_) => 2,
        JobsAnswer::NotYet { .. } => 3,
        JobsAnswer::Changes { .. } => 4,
    }
}

fn seen(rng: &mut StdRng) -> JobSeen {
    JobSeen {
        job: job(rng),
        silent_ms: list(rng, |rng| (slot(rng), number(rng))),
    }
}

pub(crate) fn jobs_answer(rng: &mut StdRng) -> JobsAnswer {
    match rng.random_range(0..ANSWERS) {
        0 => JobsAnswer::Seen {
            version: version(rng),
            seen: maybe(rng, |rng| Box::new(seen(rng))),
        },
        1 => JobsAnswer::Page {
            version: version(rng),
            jobs: list(rng, seen),
            next: maybe(rng, id),
        },
        2 => JobsAnswer::Renewed(rng.random()),
        3 => JobsAnswer::NotYet {
            wait_ms: number(rng),
        },
        _ => JobsAnswer::Changes {
            jobs: list(rng, job),
            upto: version(rng),
            removed: version(rng),
        },
    }
}
