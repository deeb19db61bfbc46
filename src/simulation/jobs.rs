//! Workers on simulated nodes: what they call is counted, and nothing else is done.

use std::collections::BTreeSet;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::RngExt;
use tokio::time::sleep;

use super::plan::Plan;
use super::probes;
use super::run::runtime;
use super::world::{World, addr, until};
use crate::job::{Caller, Execution, JobId, Jobs, Slot, State};
use crate::machine::task::Outcome;

/// How many seeds are played.
const SEEDS: u64 = if cfg!(debug_assertions) { 3 } else { 100 };

/// How many faults there are in each.
const FAULTS: u32 = 60;

/// How far the clock of a node may be off, in seconds.
const CLOCK_S: i64 = 90;

/// How long it may take until each job is called again once all is well, in seconds: for longer no tick
/// waits for whoever's clock is behind, and a minute is late.
const CALLED_WITHIN_S: u64 = 300;

/// What comes of a call with this key, in place of success.
type Answer = Arc<dyn Fn(&str) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// What was called: by which key, and in which attempt.
type Calls = Arc<Mutex<Vec<(String, u32)>>>;

pub(super) struct Lab {
    pub(super) world: World,
    calls: Calls,
    pub(super) answer: Answer,
    /// The lives that have a worker.
    hired: BTreeSet<u64>,
}

impl Lab {
    /// Has a worker on each node that has started and has none, or on one voter.
    pub(super) fn hire(&mut self, only: Option<usize>) {
        let lives: Vec<_> = match only {
            Some(n) => self.world.voters[n].life.iter().collect(),
            None => self.world.lives().collect(),
        };
        for life in lives {
            let Some(network) = life.network() else {
                continue;
            };
            if self.hired.insert(life.number) {
                let (calls, answer) = (self.calls.clone(), self.answer.clone());
                let caller = Caller::instead(Arc::new(move |key, attempt| {
                    let answered = answer(&key);
                    calls.lock().unwrap().push((key, attempt));
                    answered
                }));
                tokio::spawn(life.process.hold(async move {
                    let jobs = Jobs::new(&network, "jobs");
                    let _ = jobs.work_by(caller, pending()).await;
                }));
            }
        }
    }

    pub(super) fn jobs(&self, n: usize) -> Jobs {
        Jobs::new(&self.world.networks()[n], "jobs")
    }

    /// The ticks of a job that were called, in order of the calls.
    pub(super) fn called(&self, job: JobId) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let of_job = calls.iter().filter_map(|(key, _)| {
            let (id, rest) = key.split_once('-')?;
            let (_, slot) = rest.split_once('-')?;
            (id == job.to_string()).then(|| slot.to_string())
        });
        of_job.collect()
    }
}

/// Plays with voters that are up and have met.
pub(super) fn simulated(seed: u64, voters: usize, play: impl AsyncFnOnce(&mut Lab)) {
    let plan = Plan {
        voters,
        observers: 0,
        clients_per_node: 0,
        cells: 0,
        delay: (Duration::from_millis(1), Duration::from_millis(3)),
        sync_ms: (0, 2),
        calm_ms: 3_000,
        write_timeout_ms: 3_000,
        ..Plan::of(seed)
    };
    runtime(seed).block_on(async {
        probes::begin(None);
        let mut lab = Lab {
            world: World::new(&plan),
            calls: Calls::default(),
            answer: Arc::new(|_| {
                Box::pin(async {
                    sleep(Duration::from_millis(10)).await;
                    Outcome::SUCCESS
                })
            }),
            hired: BTreeSet::new(),
        };
        (0..voters).for_each(|n| lab.world.power_up(n));
        let met = until(Duration::from_secs(30), || lab.world.has_met()).await;
        assert!(met, "seed {seed}: the voters do not find each other");
        let played = AssertUnwindSafe(play(&mut lab)).catch_unwind().await;
        lab.world.end();
        // What was asserted in vain is among it.
        let wrong = probes::end().violations;
        assert!(played.is_ok() && wrong.is_empty(), "seed {seed}: {wrong:?}");
    });
}

async fn create(jobs: &Jobs, schedule: &str, kind: &str) -> JobId {
    let json = format!(
        r#"{{"schedule": "{schedule}", "type": "{kind}", "isRecurring": true, "api": "http://x/"}}"#
    );
    jobs.create(&json).await.unwrap().id()
}

pub(super) async fn history(jobs: &Jobs, job: JobId) -> Vec<Execution> {
    jobs.get(job).await.unwrap().unwrap().history()
}

/// Goes on until so many seconds after the simulation began, at a midnight.
pub(super) async fn until_second(second: u64) {
    let ms = (probes::EPOCH_MS + second * 1_000).saturating_sub(probes::now_ms());
    sleep(Duration::from_millis(ms)).await;
}

#[test]
fn a_claim_that_was_in_doubt_for_more_than_a_minute_is_not_run() {
    simulated(1, 3, async |lab| {
        let jobs = lab.jobs(1);
        let job = create(&jobs, "0 * * * * *", "AT_MOST_ONCE").await;
        lab.hire(Some(0));
        until_second(59).await;
        lab.world.net.isolate(addr(0));
        until_second(150).await;
        lab.world.net.rejoin(addr(0));
        until_second(200).await;
        // The second is half a minute late, and is run.
        let minute = |n: u32| format!("2026-01-01T00:0{n}:00");
        assert_eq!(lab.called(job), [minute(2), minute(3)]);
        let first = history(&jobs, job).await.remove(0);
        assert_eq!(
            (first.slot.to_string(), first.state),
            (minute(1), State::Failed)
        );
        let error = first.error.unwrap();
        assert!(
            error.starts_with("claimed 9") && error.contains("not run"),
            "{error}"
        );
    });
}

#[test]
fn what_was_asked_for_more_than_a_minute_ago_is_not_run() {
    simulated(2, 3, async |lab| {
        let jobs = lab.jobs(0);
        let job = create(&jobs, "0 0 12 * * *", "AT_MOST_ONCE").await;
        lab.hire(Some(0));
        until_second(20).await;
        jobs.run_now(job).await.unwrap();
        lab.world.net.isolate(addr(0));
        until_second(100).await;
        lab.world.net.rejoin(addr(0));
        until_second(120).await;
        assert!(lab.called(job).is_empty(), "{:?}", lab.called(job));
        let asked = history(&jobs, job).await.remove(0);
        assert!(matches!(asked.slot, Slot::Now(_)));
        assert!(asked.error.unwrap().contains("not run"));
        // Asked again, it is run.
        jobs.run_now(job).await.unwrap();
        until_second(130).await;
        assert_eq!(lab.called(job).len(), 1);
    });
}

#[test]
fn what_came_due_during_a_short_break_is_run() {
    simulated(3, 3, async |lab| {
        let jobs = lab.jobs(1);
        lab.hire(Some(0));
        let job = create(&jobs, "* * * * * *", "AT_MOST_ONCE").await;
        until_second(20).await;
        lab.world.net.isolate(addr(0));
        until_second(25).await;
        lab.world.net.rejoin(addr(0));
        until_second(60).await;
        let called = lab.called(job);
        let first: u32 = called[0][17..].parse().unwrap();
        let all: Vec<_> = (first..60)
            .map(|s| format!("2026-01-01T00:00:{s:02}"))
            .collect();
        assert!(first < 20 && called[..all.len()] == all, "{called:?}");
    });
}

#[test]
fn what_came_while_a_tick_was_tried_is_run_behind_it_at_least_once() {
    simulated(5, 1, async |lab| {
        lab.answer = Arc::new(|key| {
            let takes_s = if key.ends_with("00:00:10") { 150 } else { 1 };
            Box::pin(async move {
                sleep(Duration::from_secs(takes_s)).await;
                Outcome::SUCCESS
            })
        });
        let jobs = lab.jobs(0);
        let json = r#"{"schedule": "*/10 * * * * *", "type": "AT_LEAST_ONCE", "isRecurring": true,
            "api": "http://x/", "timeout": "10m"}"#;
        let job = jobs.create(json).await.unwrap().id();
        lab.hire(None);
        until_second(155).await;
        assert_eq!(lab.called(job).len(), 1, "one at a time");
        until_second(205).await;
        let all = (1..=20).map(|n| format!("2026-01-01T00:{:02}:{:02}", n / 6, n % 6 * 10));
        assert_eq!(lab.called(job), all.collect::<Vec<_>>());
    });
}

#[test]
fn a_worker_that_is_told_to_stop_ends_what_it_has_begun_and_begins_nothing() {
    simulated(4, 1, async |lab| {
        let jobs = lab.jobs(0);
        let calls = lab.calls.clone();
        let caller = Caller::instead(Arc::new(move |key, attempt| {
            calls.lock().unwrap().push((key, attempt));
            Box::pin(async {
                sleep(Duration::from_secs(29)).await;
                Outcome::SUCCESS
            })
        }));
        let job = create(&jobs, "* * * * * *", "AT_MOST_ONCE").await;
        let began = tokio::time::Instant::now();
        jobs.work_by(caller, sleep(Duration::from_secs(3)))
            .await
            .unwrap();
        assert!((29..40).contains(&began.elapsed().as_secs()));
        let history = history(&jobs, job).await;
        assert!((2..5).contains(&history.len()), "{history:?}");
        assert!(history.iter().all(|one| one.state == State::Succeeded));
        assert_eq!(lab.called(job).len(), history.len());
    });
}

#[test]
fn no_attempt_is_made_twice_whatever_fails_and_in_the_end_all_jobs_are_called() {
    for seed in 0..SEEDS {
        simulated(seed, 3, async |lab| {
            let jobs = lab.jobs(0);
            let mut made = Vec::new();
            for n in 0..4 {
                let kind = ["AT_MOST_ONCE", "AT_LEAST_ONCE"][n % 2];
                made.push(create(&jobs, ["* * * * * *", "*/7 * * * * *"][n / 2], kind).await);
            }
            drop(jobs);
            let ahead_ms =
                [(); 3].map(|()| lab.world.chance.random_range(-CLOCK_S..CLOCK_S) * 1_000);
            let set_clocks = |world: &World| {
                for (voter, ahead_ms) in world.voters.iter().zip(ahead_ms) {
                    let life = voter.life.iter();
                    life.for_each(|life| life.process.set_clock_ahead_ms(ahead_ms));
                }
            };
            for _ in 0..FAULTS {
                set_clocks(&lab.world);
                lab.hire(None);
                lab.world.pass(lab.world.plan.calm_ms).await;
                lab.world.bury();
                lab.world.end_failed();
                lab.world.note_meetings();
                lab.world.fault().await;
            }
            lab.world.bury();
            lab.world.heal().await;
            let before: Vec<_> = made.iter().map(|job| lab.called(*job).len()).collect();
            for _ in 0..CALLED_WITHIN_S {
                set_clocks(&lab.world);
                lab.hire(None);
                sleep(Duration::from_secs(1)).await;
            }
            let calls = lab.calls.lock().unwrap().clone();
            let once: BTreeSet<_> = calls.iter().collect();
            assert_eq!(once.len(), calls.len(), "seed {seed}: {calls:?}");
            for (job, before) in made.iter().zip(before) {
                let after = lab.called(*job).len();
                assert!(
                    after > before,
                    "seed {seed}: job {job} is not called any more"
                );
            }
        });
    }
}
