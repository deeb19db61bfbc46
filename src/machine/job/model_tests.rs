//! The board against a naive model, and single behaviours.

use std::collections::{BTreeMap, BTreeSet};

use super::board::{BOARD_BYTES_MAX, JOBS_MAX};
use super::record::{FRAME_BYTES_MAX, HISTORY_BYTES_MAX, HISTORY_MAX};
use super::*;
use crate::codec;
use crate::machine::task::{Failure, Policy};

fn id(n: u64) -> ClaimId {
    ClaimId(u128::from(n).to_be_bytes())
}

fn spec(policy: Policy, is_recurring: bool) -> Spec {
    Spec {
        schedule: "* * * * * *".into(),
        zone: "UTC".into(),
        after: tick(0),
        policy,
        is_recurring,
        timeout_ms: 30_000,
        description: String::new(),
        action: Action::Call(Call {
            method: "POST".into(),
            url: "https://example.com/".into(),
            headers: vec![],
            body: String::new(),
        }),
    }
}

fn at_least_once(retries_max: u32) -> Policy {
    Policy::AtLeastOnce {
        retries_max,
        backoff_first_ms: 1_000,
        backoff_max_ms: 300_000,
    }
}

fn tick(n: u64) -> Tick {
    Tick::of_utc(1_704_067_200_000 + n * 1_000).unwrap()
}

fn slot(n: u64) -> Slot {
    Slot::Tick(tick(n))
}

fn miss(n: u64) -> Step {
    let (tick, due_ms) = (tick(n), 0);
    Step::Miss { tick, due_ms }
}

fn outcome(success: bool) -> Outcome {
    match success {
        true => Outcome::SUCCESS,
        false => Outcome::Failed(Failure::Error("HTTP 503".into())),
    }
}

/// A board, and commands on it one after another.
#[derive(Default)]
struct Story {
    board: Board,
    /// The same, made of nothing but what was said to have changed.
    copy: BTreeMap<JobId, Arc<Job>>,
    version: u64,
    job: JobId,
}

impl Story {
    fn with(spec: Spec) -> Self {
        let mut story = Self::default();
        let made = story.ask(1_000, Step::Create(spec.into()));
        story.job = made.job.unwrap().id;
        story
    }

    fn command(&self, n: u64, step: Step) -> Command {
        Command {
            job: self.job,
            id: id(n),
            by: format!("node-{n}"),
            seen: Version::new(self.version),
            at_ms: 1_704_067_200_000,
            step,
        }
    }

    fn put(&mut self, command: &Command) -> Answer {
        self.version += 1;
        let (version, mut changes) = (Version::new(self.version), Changes::default());
        let answer = self.board.apply(version, command, &mut changes);
        for (id, job) in changes.jobs {
            match job {
                Some(job) => drop(self.copy.insert(id, job)),
                None => drop(self.copy.remove(&id)),
            }
        }
        assert_eq!(&self.copy, self.board.jobs());
        assert_eq!(self.board.check(version), Ok(()));
        let again = self.board.clone();
        let kept = Board::of(self.copy.values().cloned(), self.board.removed());
        assert_eq!(again, kept);
        answer
    }

    fn ask(&mut self, n: u64, step: Step) -> Answer {
        self.put(&self.command(n, step))
    }

    fn claim(&mut self, n: u64, slot: Slot, attempt: u32) -> Option<Refusal> {
        self.ask(n, Step::Claim { slot, attempt }).refused
    }

    fn finish(&mut self, n: u64, slot: Slot, success: bool) -> Option<Refusal> {
        let outcome = outcome(success);
        self.ask(n, Step::Finish { slot, outcome }).refused
    }

    fn job(&self) -> &Job {
        self.board.get(self.job).unwrap()
    }

    fn phase(&self, slot: Slot) -> Phase {
        self.job().phase(self.job().execution(slot).unwrap())
    }
}

#[test]
fn of_two_claims_of_a_tick_one_starts_and_a_retry_gets_the_same_answer() {
    let mut story = Story::with(spec(Policy::AtMostOnce, true));
    let claim = story.command(
        1,
        Step::Claim {
            slot: slot(5),
            attempt: 1,
        },
    );
    let first = story.put(&claim);
    assert_eq!(first.refused, None);
    assert_eq!(story.claim(2, slot(5), 1), Some(Refusal::Running));
    assert_eq!(story.put(&claim), first);
    assert_eq!(
        story.claim(2, slot(4), 1),
        Some(Refusal::Ended),
        "an earlier one"
    );
    assert_eq!(story.finish(2, slot(5), true), Some(Refusal::Superseded));
    assert_eq!(story.finish(1, slot(5), false), None);
    assert_eq!(
        story.finish(1, slot(5), true),
        None,
        "what was recorded stays"
    );
    assert_eq!(story.phase(slot(5)), Phase::Failed);
    for attempt in 0..3 {
        assert_eq!(story.claim(3, slot(5), attempt), Some(Refusal::Ended));
    }
    assert_eq!(story.put(&claim).refused, Some(Refusal::Ended), "late");
}

#[test]
fn a_worker_that_died_holds_up_no_later_tick_and_may_still_say_how_it_ended() {
    let mut story = Story::with(spec(Policy::AtMostOnce, true));
    assert_eq!(story.claim(1, slot(1), 1), None);
    assert_eq!(
        story.ask(1, Step::Expire { slot: slot(1) }).refused,
        Some(Refusal::Running)
    );
    assert_eq!(story.claim(2, slot(2), 1), None);
    assert_eq!(story.phase(slot(1)), Phase::Running);
    assert_eq!(story.finish(1, slot(1), true), None);
    assert_eq!(story.phase(slot(1)), Phase::Succeeded);
}

#[test]
fn a_job_that_does_not_recur_has_one_tick_whatever_comes_of_it() {
    for success in [true, false] {
        let mut story = Story::with(spec(Policy::AtMostOnce, false));
        assert_eq!(story.claim(1, slot(1), 1), None);
        assert!(story.job().is_over);
        story.finish(1, slot(1), success);
        assert_eq!(story.claim(2, slot(2), 1), Some(Refusal::Ended));
    }
    let mut story = Story::with(spec(at_least_once(1), false));
    story.claim(1, slot(1), 1);
    story.finish(1, slot(1), false);
    assert_eq!(story.claim(2, slot(1), 2), None, "it is tried again");
    let mut story = Story::with(spec(Policy::AtMostOnce, false));
    assert_eq!(story.ask(1, miss(1)).refused, None);
    assert_eq!(story.claim(2, slot(2), 1), Some(Refusal::Ended));
}

#[test]
fn what_is_run_at_least_once_is_tried_again_and_is_one_tick_at_a_time() {
    let mut story = Story::with(spec(at_least_once(2), true));
    assert_eq!(story.claim(1, slot(1), 1), None);
    assert_eq!(story.claim(2, slot(2), 1), Some(Refusal::Running));
    assert_eq!(story.ask(2, miss(2)).refused, Some(Refusal::Running));
    assert_eq!(story.finish(1, slot(1), false), None);
    assert_eq!(story.phase(slot(1)), Phase::Waiting);
    assert_eq!(
        story.claim(1, slot(1), 2),
        Some(Refusal::Superseded),
        "it has started once"
    );
    assert_eq!(
        story.claim(2, slot(1), 3),
        Some(Refusal::Ended),
        "not the next"
    );
    assert_eq!(story.claim(2, slot(1), 2), None);
    assert_eq!(story.ask(2, Step::Expire { slot: slot(1) }).refused, None);
    assert_eq!(
        story.finish(2, slot(1), true),
        None,
        "late, and nobody has gone on"
    );
    assert_eq!(story.phase(slot(1)), Phase::Succeeded);
    assert_eq!(story.claim(3, slot(2), 1), None);
    for (claim, attempt) in [(3, 2), (4, 3)] {
        story.finish(claim, slot(2), false);
        assert_eq!(story.claim(claim + 1, slot(2), attempt), None);
    }
    story.ask(5, Step::Expire { slot: slot(2) });
    assert_eq!(story.phase(slot(2)), Phase::Failed, "the last one");
    assert_eq!(
        story.finish(5, slot(2), true),
        Some(Refusal::Ended),
        "others were told"
    );
    assert_eq!(story.claim(6, slot(3), 1), None);
}

#[test]
fn nothing_is_started_of_a_paused_job_and_it_goes_on_with_later_ticks() {
    let mut story = Story::with(spec(Policy::AtMostOnce, true));
    let pause = story.command(90, Step::Pause);
    assert_eq!(story.put(&pause).refused, None);
    assert_eq!(story.put(&pause).refused, None, "again");
    assert_eq!(story.claim(1, slot(1), 1), Some(Refusal::Paused));
    assert_eq!(story.ask(1, miss(1)).refused, Some(Refusal::Paused));
    assert_eq!(story.ask(91, Step::Resume { after: tick(5) }).refused, None);
    assert_eq!(
        story.put(&pause).refused,
        None,
        "it was done, and is not done again"
    );
    assert!(!story.job().is_paused);
    assert_eq!(story.claim(1, slot(5), 1), Some(Refusal::Ended));
    assert_eq!(story.claim(1, slot(6), 1), None);
    story.ask(92, Step::Resume { after: tick(50) });
    assert_eq!(story.claim(2, slot(7), 1), None, "it was not paused");
}

#[test]
fn what_is_asked_for_is_run_once_and_belongs_to_no_tick() {
    let mut story = Story::with(spec(Policy::AtMostOnce, false));
    story.ask(90, Step::Pause);
    let ask = story.command(91, Step::RunNow);
    story.put(&ask);
    let now = Slot::Now(Version::new(story.version));
    assert_eq!(story.put(&ask).refused, None, "the same");
    assert_eq!(story.ask(92, Step::RunNow).refused, Some(Refusal::Running));
    assert_eq!(
        story.claim(1, Slot::Now(Version::new(1)), 1),
        Some(Refusal::Ended)
    );
    assert_eq!(story.claim(1, now, 1), None);
    assert_eq!(story.claim(2, now, 1), Some(Refusal::Running));
    assert_eq!(story.put(&ask).refused, None, "it is so");
    story.finish(1, now, true);
    assert_eq!(story.claim(2, now, 1), Some(Refusal::Ended));
    story.ask(93, Step::Resume { after: tick(0) });
    assert_eq!(
        story.claim(3, slot(1), 1),
        None,
        "its own tick is still there"
    );
}

#[test]
fn what_was_asked_for_once_is_not_asked_for_again_whatever_others_did_since() {
    let mut story = Story::with(spec(Policy::AtMostOnce, true));
    let ask = story.command(91, Step::RunNow);
    story.put(&ask);
    let now = Slot::Now(Version::new(story.version));
    assert_eq!(story.claim(1, now, 1), None);
    story.ask(92, Step::Pause);
    // Its sender has looked again.
    let again = story.command(91, Step::RunNow);
    assert_eq!(story.put(&again).refused, None);
    assert_eq!(story.job().asked.map(|asked| asked.is_taken), Some(true));
    for n in 93..93 + OPERATIONS_MAX as u64 {
        story.ask(n, Step::Pause);
    }
    assert_eq!(story.put(&ask).refused, Some(Refusal::Changed), "forgotten");
}

#[test]
fn a_job_is_made_by_a_clock_that_is_near_the_leaders() {
    let at_ms = 1_704_067_200_000_u64;
    let hour = 60 * 60 * 1_000;
    for (after_ms, refused) in [
        (at_ms, None),
        (at_ms + 14 * hour, None),
        (at_ms - 12 * hour, None),
        (at_ms + 15 * hour, Some(Refusal::Early)),
        (at_ms - 13 * hour, Some(Refusal::Early)),
        (0, Some(Refusal::Early)),
    ] {
        let mut spec = spec(Policy::AtMostOnce, true);
        spec.after = Tick::of_utc(after_ms).unwrap();
        let made = Story::default().ask(1, Step::Create(spec.into()));
        assert_eq!(made.refused, refused, "{after_ms}");
    }
}

#[test]
fn a_creation_is_once_and_an_id_never_comes_back() {
    let mut story = Story::default();
    let create = story.command(1, Step::Create(spec(Policy::AtMostOnce, true).into()));
    let first = story.put(&create).job.unwrap();
    assert_eq!(story.put(&create).job.unwrap(), first, "again");
    story.job = first.id;
    let delete = story.command(2, Step::Delete);
    assert_eq!(story.put(&delete).refused, None);
    assert_eq!(story.put(&delete).refused, None, "it is so");
    assert_eq!(story.put(&create).refused, Some(Refusal::Changed), "late");
    assert_eq!(story.finish(3, slot(1), true), Some(Refusal::Missing));
    let second = story.ask(4, Step::Create(spec(Policy::AtMostOnce, true).into()));
    assert!(second.job.unwrap().id > first.id);
}

#[test]
fn a_worker_whose_clock_is_years_ahead_takes_no_ticks() {
    let mut story = Story::with(spec(Policy::AtMostOnce, true));
    let day = 24 * 60 * 60;
    assert_eq!(story.claim(1, slot(day), 1), Some(Refusal::Early));
    assert_eq!(story.ask(1, miss(day)).refused, Some(Refusal::Early));
    story.ask(2, Step::Pause);
    assert_eq!(
        story.ask(3, Step::Resume { after: tick(day) }).refused,
        Some(Refusal::Early)
    );
    story.ask(4, Step::Resume { after: tick(0) });
    assert_eq!(
        story.claim(1, slot(14 * 60 * 60), 1),
        None,
        "the zone that is furthest ahead"
    );
}

#[test]
fn the_history_of_a_job_is_bounded_and_keeps_what_is_open_for_longer() {
    let mut story = Story::with(spec(Policy::AtMostOnce, true));
    story.claim(500, slot(1), 1);
    for n in 2..40 {
        story.claim(n, slot(n), 1);
        let outcome = Outcome::Failed(Failure::Error("x".repeat(256)));
        story.ask(
            n,
            Step::Finish {
                slot: slot(n),
                outcome,
            },
        );
        assert!(story.job().executions.len() <= 5);
        assert_eq!(story.phase(slot(1)), Phase::Running);
    }
    let mut story = Story::with(spec(Policy::AtMostOnce, true));
    for n in 1..60 {
        story.claim(n, slot(n), 1);
    }
    let count = story.job().executions.len();
    assert!(count > 8 && count <= HISTORY_MAX, "{count}");
    assert_eq!(
        story.finish(1, slot(1), true),
        Some(Refusal::Missing),
        "it was forgotten"
    );
    assert_eq!(
        story.claim(99, slot(1), 1),
        Some(Refusal::Ended),
        "and does not come back"
    );
}

#[test]
fn the_largest_board_is_one_frame_and_ten_thousand_usual_jobs_have_room() {
    let mut board = Board::default();
    let usual = Spec {
        description: "d".repeat(100),
        ..spec(at_least_once(3), true)
    };
    let create = |n: u64, spec: &Spec| Command {
        job: JobId::default(),
        id: id(n),
        by: "w".repeat(128),
        seen: Version::new(n),
        at_ms: 1_704_067_200_000,
        step: Step::Create(spec.clone().into()),
    };
    for n in 1..=JOBS_MAX as u64 + 1 {
        let created = board.apply(Version::new(n), &create(n, &usual), &mut Changes::default());
        assert_eq!(created.refused.is_some(), n > JOBS_MAX as u64, "{n}");
    }
    // As large as it can become.
    let long = Outcome::Failed(Failure::Error("r".repeat(ERROR_BYTES_MAX)));
    let far = Version::new(u64::MAX);
    let execution = Execution {
        slot: Slot::Tick(Tick::of_utc(4_000_000_000_000).unwrap()),
        attempt: u32::MAX,
        claim: id(1),
        worker: "w".repeat(128),
        at_ms: u64::MAX,
        version: far,
        end: Some(End {
            took_ms: u64::MAX,
            version: far,
            how: How::Ended(long),
        }),
    };
    let job = board.jobs().values().next().unwrap();
    let mut largest = Job {
        id: JobId::of(far),
        changed: far,
        operated: far,
        operations: vec![id(1); OPERATIONS_MAX],
        made: Made {
            at_ms: u64::MAX,
            ..job.made.clone()
        },
        asked: Some(Asked {
            version: far,
            is_taken: true,
        }),
        executions: vec![execution; 20],
        ..Job::clone(job)
    };
    largest.trim();
    assert!(!largest.executions.is_empty());
    assert!(codec::encode(0, &largest.executions[..1].to_vec()).len() <= HISTORY_BYTES_MAX);
    let bytes = codec::encode(0, &largest).len() - usual.bytes();
    assert!(bytes <= FRAME_BYTES_MAX + HISTORY_BYTES_MAX, "{bytes}");
    const { assert!(BOARD_BYTES_MAX + 64 < codec::VALUE_BYTES_CAP) };
}

/// One job, as plainly as it can be told: all executions there ever were.
struct Model {
    retries: usize,
    is_at_least_once: bool,
    is_recurring: bool,
    is_paused: bool,
    passed: u64,
    /// Of each tick: its attempts, and how each ended.
    ticks: BTreeMap<u64, Vec<(u64, Option<&'static str>)>>,
    /// All that were ever started: no two of one attempt.
    started: BTreeSet<(u64, usize)>,
}

impl Model {
    fn is_open(&self, attempts: &[(u64, Option<&'static str>)]) -> bool {
        match attempts.last() {
            Some((_, None)) => true,
            Some((_, Some("failed" | "expired"))) => attempts.len() <= self.retries,
            _ => false,
        }
    }

    fn may_begin(&self, tick: u64) -> bool {
        let last = self.ticks.last_key_value().map_or(0, |(tick, _)| *tick);
        let is_over = !self.is_recurring && !self.ticks.is_empty();
        let is_busy = self.is_at_least_once && self.ticks.values().any(|t| self.is_open(t));
        tick > last.max(self.passed) && !is_over && !is_busy && !self.is_paused
    }

    fn claim(&mut self, n: u64, tick: u64, attempt: u32) -> bool {
        let attempts = self.ticks.get(&tick).cloned().unwrap_or_default();
        if attempts.last() == Some(&(n, None)) {
            return true;
        }
        let may = match attempts.last() {
            None => self.may_begin(tick),
            Some((claim, Some(_))) => self.is_open(&attempts) && *claim != n && !self.is_paused,
            Some((_, None)) => false,
        };
        let may = may && attempt as usize == attempts.len() + 1;
        if may {
            self.ticks.entry(tick).or_default().push((n, None));
            assert!(self.started.insert((tick, attempts.len())), "started twice");
        }
        may
    }

    fn end(&mut self, n: u64, tick: u64, how: &'static str) -> bool {
        let attempts = self.ticks.get(&tick).cloned().unwrap_or_default();
        let Some((_, end)) = attempts.last().filter(|(claim, _)| *claim == n) else {
            return false;
        };
        let may = match (how, end) {
            ("expired", None) => self.is_at_least_once,
            ("expired", Some(_)) => return true,
            (_, None) => true,
            (_, Some("well" | "failed")) => return true,
            (_, Some("expired")) => self.is_open(&attempts),
            _ => false,
        };
        if may && let Some(last) = self.ticks.get_mut(&tick).and_then(|t| t.last_mut()) {
            last.1 = Some(how);
        }
        may
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
}

#[test]
fn any_history_agrees_with_the_naive_model() {
    for seed in 0_u64..600 {
        let mut rng = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let retries = rng.below(4) as u32;
        let is_at_least_once = seed % 2 == 0;
        let is_recurring = seed % 3 != 0;
        let policy = match is_at_least_once {
            true => at_least_once(retries),
            false => Policy::AtMostOnce,
        };
        let mut story = Story::with(spec(policy, is_recurring));
        let mut model = Model {
            retries: if is_at_least_once {
                retries as usize
            } else {
                0
            },
            is_at_least_once,
            is_recurring,
            is_paused: false,
            passed: 0,
            ticks: BTreeMap::new(),
            started: BTreeSet::new(),
        };
        let mut now = 1;
        for _ in 0..60 {
            now += rng.below(3) / 2;
            // Few enough that all of them are remembered.
            if now > 9 {
                break;
            }
            let (n, tick_of) = (rng.below(5), now - rng.below(2).min(now - 1));
            let attempt = 1 + rng.below(3) as u32;
            let (accepted, expected) = match rng.below(10) {
                0..5 => {
                    let refused = story.claim(n, slot(tick_of), attempt);
                    (refused.is_none(), model.claim(n, tick_of, attempt))
                }
                5..7 => {
                    let success = rng.below(2) == 0;
                    let how = if success { "well" } else { "failed" };
                    let refused = story.finish(n, slot(tick_of), success);
                    (refused.is_none(), model.end(n, tick_of, how))
                }
                7 => {
                    let expire = Step::Expire {
                        slot: slot(tick_of),
                    };
                    let refused = story.ask(n, expire).refused;
                    (refused.is_none(), model.end(n, tick_of, "expired"))
                }
                8 if rng.below(3) == 0 => {
                    let id = 100 + story.version;
                    let (step, is_paused) = match rng.below(3) {
                        0 => (Step::Pause, true),
                        _ => (Step::Resume { after: tick(now) }, false),
                    };
                    if model.is_paused && !is_paused {
                        model.passed = model.passed.max(now);
                    }
                    model.is_paused = is_paused;
                    (story.ask(id, step).refused.is_none(), true)
                }
                9 if rng.below(3) == 0 => {
                    let id = 100 + story.version;
                    let may = model.may_begin(tick_of);
                    if may {
                        model.ticks.insert(tick_of, vec![(id, Some("missed"))]);
                    }
                    (story.ask(id, miss(tick_of)).refused.is_none(), may)
                }
                _ => continue,
            };
            assert_eq!(accepted, expected, "seed {seed}: {:?}", story.job());
            for (tick, attempts) in &model.ticks {
                let execution = story.job().execution(slot(*tick)).unwrap();
                let told = match execution.end.as_ref().map(|end| &end.how) {
                    None => None,
                    Some(How::Missed) => Some("missed"),
                    Some(How::Expired) => Some("expired"),
                    Some(How::Ended(outcome)) if outcome.is_success() => Some("well"),
                    Some(How::Ended(_)) => Some("failed"),
                };
                assert_eq!(
                    Some(&(told)),
                    attempts.last().map(|(_, end)| end),
                    "seed {seed}"
                );
            }
            assert_eq!(story.job().executions.len(), model.ticks.len());
        }
    }
}
