//! The board against a naive model, and single behaviours.

use std::collections::BTreeMap;

use super::record::{TASK_BYTES_MAX, WHO_BYTES_MAX};
use super::*;
use crate::codec;

fn id(n: u8) -> ClaimId {
    ClaimId([n; 16])
}

fn policy(retries_max: u32) -> Policy {
    Policy::AtLeastOnce {
        retries_max,
        backoff_first_ms: 10,
        backoff_max_ms: 40,
    }
}

/// A board, and commands on it one after another.
#[derive(Default)]
struct Story {
    board: Board,
    /// The same, made of nothing but what was said to have changed.
    copy: BTreeMap<Name, Task>,
    version: u64,
    now_ms: u64,
}

impl Story {
    fn command(&self, n: u8, step: Step) -> Command {
        Command {
            task: "t".into(),
            id: id(n),
            by: format!("host-{n}"),
            seen: Version::new(self.version),
            at_ms: self.now_ms,
            step,
        }
    }

    fn put(&mut self, command: &Command) -> Answer {
        self.version += 1;
        let mut changes = Changes::default();
        let version = Version::new(self.version);
        let answer = self.board.apply(version, command, &mut changes);
        for (name, task) in changes.tasks {
            match task {
                Some(task) => drop(self.copy.insert(name, task)),
                None => drop(self.copy.remove(&name)),
            }
        }
        assert_eq!(&self.copy, self.board.tasks());
        assert_eq!(self.board.check(version), Ok(()));
        answer
    }

    /// About the task as it stands.
    fn ask(&mut self, n: u8, step: Step) -> Answer {
        self.put(&self.command(n, step))
    }

    fn claim(&mut self, n: u8, policy: Policy) -> Answer {
        let spec = Spec {
            policy,
            ttl_ms: Some(100),
        };
        self.ask(n, Step::Claim(spec))
    }

    fn finish(&mut self, n: u8, success: bool) -> Answer {
        self.ask(n, Step::Finish(outcome(success)))
    }
}

fn outcome(success: bool) -> Outcome {
    match success {
        true => Outcome::SUCCESS,
        false => Outcome::Failed(Failure::Exit(1)),
    }
}

fn phase(answer: &Answer) -> Option<Phase> {
    answer.task.as_ref().map(Task::phase)
}

#[test]
fn of_two_claims_one_starts_and_a_retry_gets_the_same_answer() {
    let mut story = Story::default();
    let first = story.claim(1, Policy::AtMostOnce);
    assert_eq!(first.refused, None);
    assert_eq!(
        story.claim(2, Policy::AtMostOnce).refused,
        Some(Refusal::Running)
    );
    assert_eq!(story.claim(1, Policy::AtMostOnce), first);
    story.finish(1, false);
    let later = story.claim(2, Policy::AtMostOnce);
    assert_eq!(
        (later.refused, phase(&later)),
        (Some(Refusal::Ended), Some(Phase::Failed))
    );
}

#[test]
fn an_outcome_is_recorded_once_and_for_the_last_attempt_alone() {
    let mut story = Story::default();
    story.claim(1, Policy::AtMostOnce);
    assert_eq!(story.finish(2, true).refused, Some(Refusal::Superseded));
    let first = story.finish(1, true);
    assert_eq!(phase(&first), Some(Phase::Succeeded));
    assert_eq!(story.finish(1, false), first, "what was recorded stays");
    assert_eq!(story.ask(9, Step::Reset).refused, None);
    assert_eq!(story.finish(1, true).refused, Some(Refusal::Superseded));
    assert_eq!(story.ask(9, Step::Delete).refused, None);
    assert_eq!(story.finish(1, true).refused, Some(Refusal::Missing));
}

#[test]
fn a_dead_executor_is_replaced_only_where_it_may_be() {
    let mut story = Story::default();
    story.claim(1, Policy::AtMostOnce);
    assert_eq!(story.ask(1, Step::Expire).refused, Some(Refusal::Running));
    story.ask(9, Step::Delete);
    story.claim(2, policy(1));
    assert_eq!(
        story.ask(1, Step::Expire).refused,
        Some(Refusal::Superseded)
    );
    assert_eq!(phase(&story.ask(2, Step::Expire)), Some(Phase::Waiting));
    let next = story.claim(3, policy(1));
    assert_eq!(next.task.unwrap().attempt.unwrap().number, 2);
    assert_eq!(story.finish(2, true).refused, Some(Refusal::Superseded));
    assert_eq!(
        phase(&story.ask(3, Step::Expire)),
        Some(Phase::Failed),
        "the last one"
    );
    assert_eq!(story.claim(4, policy(1)).refused, Some(Refusal::Ended));
}

#[test]
fn a_late_outcome_counts_while_nobody_has_gone_on() {
    let mut story = Story::default();
    story.claim(1, policy(3));
    story.ask(1, Step::Expire);
    assert_eq!(phase(&story.finish(1, true)), Some(Phase::Succeeded));
    assert_eq!(story.claim(2, policy(3)).refused, Some(Refusal::Ended));
}

#[test]
fn a_resolved_task_keeps_what_the_operator_said() {
    let mut story = Story::default();
    assert_eq!(
        story.ask(9, Step::Resolve(outcome(true))).refused,
        Some(Refusal::Missing)
    );
    story.claim(1, Policy::AtMostOnce);
    let resolve = story.command(9, Step::Resolve(outcome(false)));
    let resolved = story.put(&resolve);
    assert_eq!(phase(&resolved), Some(Phase::Failed));
    assert_eq!(story.put(&resolve), resolved, "again");
    assert_eq!(story.finish(1, true).refused, Some(Refusal::Ended));
    let deeds: Vec<_> = story.board.deeds().collect();
    assert_eq!((deeds.len(), deeds[0].by.as_str()), (1, "host-9"));
}

#[test]
fn commands_that_come_late_do_not_touch_what_they_were_not_meant_for() {
    let mut story = Story::default();
    let spec = Spec::default();
    let claim = story.command(1, Step::Claim(spec));
    let reset = {
        story.put(&claim);
        story.command(9, Step::Reset)
    };
    story.put(&reset);
    // The next generation is not claimed by a claim of the one before, nor reset once more.
    assert_eq!(story.put(&claim).refused, Some(Refusal::Changed));
    story.claim(2, Policy::AtMostOnce);
    assert_eq!(story.put(&reset).refused, None, "it is so");
    assert_eq!(story.board.get("t").unwrap().running(), Some(id(2)));
    let delete = story.command(9, Step::Delete);
    story.finish(2, true);
    assert_eq!(story.put(&delete).refused, Some(Refusal::Changed));
    story.ask(9, Step::Delete);
    assert_eq!(story.put(&claim).refused, Some(Refusal::Changed));
    assert_eq!(story.board.get("t"), None);
}

#[test]
fn a_copy_of_what_an_operator_did_does_not_do_it_to_the_next_generation() {
    let mut story = Story::default();
    let create = story.command(1, Step::Create(Spec::default()));
    story.put(&create);
    let delete = story.command(2, Step::Delete);
    assert_eq!(story.put(&delete).refused, None);
    assert_eq!(story.put(&create).refused, Some(Refusal::Superseded));
    assert_eq!(story.board.get("t"), None);
    story.claim(3, Policy::AtMostOnce);
    assert_eq!(story.put(&delete).refused, None, "it is done");
    // Nor does it if its sender looks again.
    let again = story.command(2, Step::Delete);
    assert_eq!(story.put(&again).refused, None);
    assert_eq!(story.board.get("t").unwrap().running(), Some(id(3)));
    assert_eq!(story.board.deeds().count(), 1);
}

#[test]
fn only_what_has_ended_is_forgotten() {
    let mut story = Story::default();
    story.claim(1, Policy::AtMostOnce);
    story.now_ms = 1_000_000;
    assert_eq!(phase(&story.ask(9, Step::Judge)), Some(Phase::Running));
    story.finish(1, true);
    story.now_ms += 99;
    assert_eq!(phase(&story.ask(9, Step::Judge)), Some(Phase::Succeeded));
    story.now_ms += 1;
    assert_eq!(story.ask(9, Step::Judge).task, None);
    let again = story.claim(2, Policy::AtMostOnce).task.unwrap();
    assert_eq!(
        again.generation,
        Version::new(story.version),
        "a new generation"
    );
}

#[test]
fn a_namespace_is_full_until_something_is_over() {
    let mut story = Story::default();
    let spec = Spec {
        ttl_ms: Some(0),
        ..Spec::default()
    };
    for n in 0..TASKS_MAX {
        let mut command = story.command(1, Step::Claim(spec));
        command.task = format!("task {n}");
        // Checking all of them each time would take long.
        story.version += 1;
        let version = Version::new(story.version);
        story
            .board
            .apply(version, &command, &mut Changes::default());
    }
    story.copy = story.board.tasks().clone();
    assert_eq!(
        story.ask(2, Step::Create(spec)).refused,
        Some(Refusal::Full)
    );
    let mut finish = story.command(1, Step::Finish(outcome(true)));
    finish.task = "task 7".into();
    story.put(&finish);
    assert_eq!(story.ask(2, Step::Create(spec)).refused, None);
    assert_eq!(story.board.get("task 7"), None, "it made room");
    assert_eq!(story.board.tasks().len(), TASKS_MAX);
}

#[test]
fn the_largest_board_is_one_frame() {
    let who = "w".repeat(WHO_BYTES_MAX);
    let outcome = Outcome::Failed(Failure::Error("r".repeat(REASON_BYTES_MAX)));
    let far = Version::new(u64::MAX);
    let task = Task {
        generation: far,
        changed: far,
        spec: Spec {
            policy: Policy::AtLeastOnce {
                retries_max: 1_000,
                backoff_first_ms: u64::MAX,
                backoff_max_ms: u64::MAX,
            },
            ttl_ms: Some(u64::MAX),
        },
        made: Made {
            id: id(1),
            by: who.clone(),
            at_ms: u64::MAX,
        },
        attempt: Some(Attempt {
            number: 1_001,
            claim: id(2),
            executor: who.clone(),
            at_ms: u64::MAX,
            version: far,
            end: Some(End {
                at_ms: u64::MAX,
                how: How::Resolved {
                    id: id(3),
                    outcome,
                    by: who.clone(),
                },
            }),
        }),
    };
    let name = |n: usize| format!("{n:0>200}");
    assert!(codec::encode(1, &(name(1), &task)).len() <= TASK_BYTES_MAX);
    let deed = |n: usize| Deed {
        version: Version::new(u64::MAX - n as u64),
        at_ms: u64::MAX,
        by: who.clone(),
        task: name(n),
        generation: far,
        kind: DeedKind::Reset,
        id: id(1),
        made: id(2),
    };
    let tasks = (0..TASKS_MAX).map(|n| (name(n), task.clone()));
    let board = Board::of(tasks, far, (0..DEEDS_MAX).map(deed));
    let bytes = codec::encode(1, &board);
    assert!(bytes.len() < codec::VALUE_BYTES_CAP, "{}", bytes.len());
    assert_eq!(codec::decode(1, &bytes), Ok(board));
}

/// One task, as plainly as it can be told.
#[derive(Default)]
struct Model {
    /// Whether it is there, and its policy then.
    there: Option<Policy>,
    /// In this generation: claims, and how each ended.
    claims: Vec<(ClaimId, Option<&'static str>)>,
    ended_at_ms: u64,
    /// All claims that were ever started, with what they were told.
    started: Vec<(u64, ClaimId, u32)>,
    generation: u64,
}

impl Model {
    fn may_follow(&self) -> bool {
        let retries = match self.there {
            Some(Policy::AtLeastOnce { retries_max, .. }) => retries_max as usize,
            _ => 0,
        };
        match self.claims.last() {
            None => true,
            Some((_, Some("failed" | "expired"))) => self.claims.len() <= retries,
            Some(_) => false,
        }
    }

    fn forget_if_over(&mut self, now_ms: u64) {
        let ended = self.claims.last().is_some_and(|last| last.1.is_some()) && !self.may_follow();
        if ended && now_ms >= self.ended_at_ms + 100 {
            self.there = None;
            self.claims.clear();
        }
    }

    /// Does what is asked for if it may be done.
    fn act(&mut self, command: &Command, fresh: bool, version: u64) -> bool {
        self.forget_if_over(command.at_ms);
        let last = self.claims.last().copied();
        let is_last = last.is_some_and(|(claim, _)| claim == command.id);
        match &command.step {
            Step::Claim(spec) => {
                if is_last && last.is_some_and(|(_, end)| end.is_none()) {
                    return true;
                }
                if !fresh || is_last || !self.may_follow() {
                    return false;
                }
                if self.there.is_none() {
                    (self.there, self.generation) = (Some(spec.policy), version);
                }
                self.claims.push((command.id, None));
                let number = self.claims.len() as u32;
                self.started.push((self.generation, command.id, number));
                true
            }
            Step::Finish(outcome) if is_last => {
                let how = if outcome.is_success() {
                    "well"
                } else {
                    "failed"
                };
                let may = match last.and_then(|(_, end)| end) {
                    None => true,
                    Some("well" | "failed") => return true,
                    Some("expired") => self.may_follow(),
                    Some(_) => false,
                };
                if may {
                    self.end(how, command.at_ms);
                }
                may
            }
            Step::Expire if is_last => {
                let runs = last.is_some_and(|(_, end)| end.is_none());
                if runs && self.there == Some(Policy::AtMostOnce) {
                    return false;
                }
                if runs {
                    self.end("expired", command.at_ms);
                }
                true
            }
            Step::Resolve(_) => {
                let runs = last.is_some_and(|(_, end)| end.is_none());
                if runs && fresh {
                    self.end("resolved", command.at_ms);
                }
                runs && fresh
            }
            Step::Reset => {
                let may = self.there.is_some() && fresh;
                if may {
                    self.claims.clear();
                    self.generation = version;
                }
                may
            }
            Step::Delete => {
                let may = self.there.is_none() || fresh;
                if may {
                    self.there = None;
                    self.claims.clear();
                }
                may
            }
            Step::Judge => true,
            _ => false,
        }
    }

    fn end(&mut self, how: &'static str, now_ms: u64) {
        if let Some(last) = self.claims.last_mut() {
            last.1 = Some(how);
        }
        self.ended_at_ms = now_ms;
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }

    fn tenths(&mut self, tenths: u64) -> bool {
        self.below(10) < tenths
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

#[test]
fn any_history_agrees_with_the_naive_model() {
    for seed in 0_u64..400 {
        let mut rng = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut story, mut model) = (Story::default(), Model::default());
        let at_most_once = seed % 2 == 0;
        let policy = match at_most_once {
            true => Policy::AtMostOnce,
            false => policy(rng.below(4) as u32),
        };
        let (mut ids, mut others) = (0, 0);
        for _ in 0..60 {
            story.now_ms += rng.of(&[0, 1, 60, 200]);
            let spec = Spec {
                policy,
                ttl_ms: Some(100),
            };
            let step = match rng.below(12) {
                0..5 => Step::Claim(spec),
                5..8 => Step::Finish(outcome(rng.tenths(4))),
                8 => Step::Expire,
                9 if rng.tenths(3) => Step::Reset,
                10 if rng.tenths(3) => Step::Delete,
                11 if rng.tenths(3) => Step::Resolve(outcome(true)),
                _ => Step::Judge,
            };
            // Mostly of the newest claim, and what is new has a new id.
            let is_new = !matches!(step, Step::Finish(_) | Step::Expire) && rng.tenths(8);
            ids += u8::from(is_new);
            let back = rng.of(&[0, 0, 0, 1, 2]);
            let n = if is_new {
                ids
            } else {
                ids.saturating_sub(back)
            };
            let mut command = story.command(n, step);
            // A resolution or a new generation is not asked for by the same id twice: a model of
            // that is the code itself.
            if matches!(command.step, Step::Resolve(_) | Step::Reset) {
                others += 1;
                command.id = ClaimId([others, 0xff].repeat(8).try_into().unwrap());
            }
            let was_forgotten = {
                let before = story.board.get("t");
                before.is_some_and(|task| task.is_over(story.now_ms))
            };
            let fresh = rng.tenths(8);
            if !fresh {
                command.seen = Version::ZERO;
            }
            // What was removed since it was seen has changed, too.
            let removed = story.board.removed() > Version::ZERO;
            let there = story.board.get("t").is_some() && !was_forgotten;
            let fresh = match there {
                true => fresh,
                false => !was_forgotten && (fresh || !removed),
            };
            let answer = story.put(&command);
            let done = model.act(&command, fresh, story.version);
            assert_eq!(
                answer.refused.is_none(),
                done,
                "seed {seed}: {command:?} {answer:?}"
            );
            assert_eq!(answer.task.is_some(), model.there.is_some(), "seed {seed}");
            let claimed = answer.task.as_ref().and_then(|task| task.attempt.as_ref());
            let number = claimed.map_or(0, |last| last.number as usize);
            assert_eq!(number, model.claims.len(), "seed {seed}: {command:?}");
            // The same once more changes nothing, and says the same.
            let before = story.board.clone();
            let again = story.put(&command);
            if answer.refused.is_none() {
                assert_eq!(again, answer, "seed {seed}: {command:?}");
            }
            assert_eq!(story.board, before, "seed {seed}: {command:?}");
        }
        for (at, (generation, _, number)) in model.started.iter().enumerate() {
            let of_same = model.started[..at].iter().filter(|(g, ..)| g == generation);
            let of_same: Vec<_> = of_same.collect();
            assert!(!at_most_once || of_same.is_empty(), "seed {seed}");
            assert!(of_same.iter().all(|(.., before)| before < number));
        }
    }
}
