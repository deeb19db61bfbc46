//! Tasks at random, and what is said about them.

use rand::RngExt;
use rand::rngs::StdRng;

use super::super::generate::{list, maybe, number, version};
use super::{Seen, TasksAnswer, TasksQuery};
use crate::id::{NodeId, Version};
use crate::machine::task::{
    Answer, Attempt, Board, Changes, ClaimId, Command, Deed, DeedKind, End, Failure, How, Made,
    Name, Outcome, Policy, Refusal, Spec, Step, Task,
};

/// A task that runs, in its `n`th attempt of this test.
pub(crate) fn running(board: &mut Board, name: &str, n: u64) -> Task {
    let mut changes = Changes::default();
    let mut act = |at: u64, id: ClaimId, step: Step| {
        let command = Command {
            task: name.into(),
            id,
            by: "host".into(),
            seen: Version::new(at - 1),
            at_ms: 0,
            step,
        };
        board.apply(Version::new(at), &command, &mut changes)
    };
    let spec = Spec {
        policy: Policy::at_least_once(),
        ttl_ms: None,
    };
    act(10 * n, ClaimId([n as u8 - 1; 16]), Step::Expire);
    let claimed = act(10 * n + 1, ClaimId([n as u8; 16]), Step::Claim(spec));
    claimed.task.expect("it was claimed")
}

/// Mostly names that a task may have.
pub(crate) fn name(rng: &mut StdRng) -> Name {
    match rng.random_range(0..6) {
        0 => "x".repeat(rng.random_range(0..300)),
        1 => String::from_utf8_lossy(&rng.random::<[u8; 5]>()).into_owned(),
        n => format!("task {n}"),
    }
}

fn claim(rng: &mut StdRng) -> ClaimId {
    ClaimId([rng.random_range(0..4); 16])
}

fn policy(rng: &mut StdRng) -> Policy {
    match rng.random() {
        true => Policy::AtMostOnce,
        false => Policy::AtLeastOnce {
            retries_max: rng.random_range(0..5),
            backoff_first_ms: number(rng),
            backoff_max_ms: rng.random_range(0..100_000),
        },
    }
}

fn spec(rng: &mut StdRng) -> Spec {
    Spec {
        policy: policy(rng),
        ttl_ms: maybe(rng, number),
    }
}

fn outcome(rng: &mut StdRng) -> Outcome {
    match rng.random_range(0..4) {
        0 => Outcome::Succeeded { code: rng.random() },
        1 => Outcome::Failed(Failure::Exit(rng.random())),
        2 => Outcome::Failed(Failure::Signal(rng.random())),
        _ => Outcome::Failed(Failure::Error(name(rng))),
    }
}

pub(crate) fn command(rng: &mut StdRng) -> Command {
    Command {
        task: name(rng),
        id: claim(rng),
        by: name(rng),
        seen: version(rng),
        at_ms: number(rng),
        step: match rng.random_range(0..9) {
            0 => Step::Create(spec(rng)),
            1 | 2 => Step::Claim(spec(rng)),
            3 => Step::Finish(outcome(rng)),
            4 => Step::Expire,
            5 => Step::Resolve(outcome(rng)),
            6 => Step::Reset,
            7 => Step::Delete,
            _ => Step::Judge,
        },
    }
}

/// What may be in a log at `at`.
pub(crate) fn sound_command(rng: &mut StdRng, at: u64) -> Command {
    Command {
        task: format!("task {}", rng.random_range(0..3)),
        by: "host".into(),
        seen: Version::new(at - 1),
        ..command(rng)
    }
}

fn task(rng: &mut StdRng) -> Task {
    Task {
        generation: version(rng),
        changed: version(rng),
        spec: spec(rng),
        made: Made {
            id: claim(rng),
            by: name(rng),
            at_ms: number(rng),
        },
        attempt: maybe(rng, |rng| Attempt {
            number: rng.random(),
            claim: claim(rng),
            executor: name(rng),
            at_ms: number(rng),
            version: version(rng),
            end: maybe(rng, |rng| End {
                at_ms: number(rng),
                how: match rng.random_range(0..3) {
                    0 => How::Ended(outcome(rng)),
                    1 => How::Expired,
                    _ => How::Resolved {
                        id: claim(rng),
                        outcome: outcome(rng),
                        by: name(rng),
                    },
                },
            }),
        }),
    }
}

fn deed(rng: &mut StdRng) -> Deed {
    Deed {
        version: version(rng),
        at_ms: number(rng),
        by: name(rng),
        task: name(rng),
        generation: version(rng),
        kind: [DeedKind::Reset, DeedKind::Deleted, DeedKind::Resolved][rng.random_range(0..3)],
        id: ClaimId(rng.random()),
        made: ClaimId(rng.random()),
    }
}

pub(crate) fn board(rng: &mut StdRng) -> Board {
    match rng.random() {
        true => {
            let tasks = list(rng, |rng| (name(rng), task(rng)));
            Board::of(tasks, version(rng), list(rng, deed))
        }
        // What a log may have made.
        false => {
            let mut board = Board::default();
            for at in 1..rng.random_range(2..30) {
                let step = sound_command(rng, at);
                board.apply(Version::new(at), &step, &mut Changes::default());
            }
            board
        }
    }
}

pub(crate) fn answer(rng: &mut StdRng) -> Answer {
    Answer {
        refused: maybe(rng, |rng| {
            [
                Refusal::Missing,
                Refusal::Exists,
                Refusal::Full,
                Refusal::Changed,
                Refusal::Running,
                Refusal::Ended,
                Refusal::Superseded,
                Refusal::NotRunning,
            ][rng.random_range(0..8)]
        }),
        task: maybe(rng, task),
    }
}

pub(crate) const QUERIES: usize = 4;

pub(crate) fn kind_of_query(query: &TasksQuery) -> usize {
    match query {
        TasksQuery::Look { .. } => 0,
        TasksQuery::Page { .. } => 1,
        TasksQuery::Deeds => 2,
        TasksQuery::Renew { .. } => 3,
    }
}

pub(crate) fn query(rng: &mut StdRng) -> TasksQuery {
    match rng.random_range(0..QUERIES) {
        0 => TasksQuery::Look { task: name(rng) },
        1 => TasksQuery::Page { from: name(rng) },
        2 => TasksQuery::Deeds,
        _ => TasksQuery::Renew {
            task: name(rng),
            claim: claim(rng),
        },
    }
}

pub(crate) const ANSWERS: usize = 6;

pub(crate) fn kind_of_answer(answer: &TasksAnswer) -> usize {
    match answer {
        TasksAnswer::Seen { .. } => 0,
        TasksAnswer::Page { .. } => 1,
        TasksAnswer::Deeds { .. } => 2,
        TasksAnswer::Renewed(_) => 3,
        TasksAnswer::NotYet { .. } => 4,
        TasksAnswer::Changes { .. } => 5,
    }
}

fn seen(rng: &mut StdRng) -> Seen {
    Seen {
        task: task(rng),
        silent_ms: number(rng),
    }
}

pub(crate) fn tasks_answer(rng: &mut StdRng) -> TasksAnswer {
    match rng.random_range(0..ANSWERS) {
        0 => TasksAnswer::Seen {
            version: version(rng),
            seen: maybe(rng, |rng| Box::new(seen(rng))),
        },
        1 => TasksAnswer::Page {
            tasks: list(rng, |rng| (name(rng), seen(rng))),
            next: maybe(rng, name),
        },
        2 => TasksAnswer::Deeds {
            deeds: list(rng, deed),
            leader: NodeId::of_voter("a"),
        },
        3 => TasksAnswer::Renewed(rng.random()),
        4 => TasksAnswer::NotYet {
            wait_ms: number(rng),
        },
        _ => TasksAnswer::Changes {
            tasks: list(rng, |rng| (name(rng), task(rng))),
            upto: version(rng),
            removed: version(rng),
        },
    }
}
