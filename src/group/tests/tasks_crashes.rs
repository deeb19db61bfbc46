//! Random crashes, power cuts, slow disks, lost answers and cut links under voters and executors of
//! tasks: what is to start once starts once, attempts are told apart, and what somebody was told of
//! a task stays.
//!
//! `RAFT_ONCE_CRASH_SEEDS=500` runs more seeds than the few of an ordinary run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::cluster::Cluster;
use super::*;
use crate::probe::{Bug, plant};
use crate::task::{Outcome, Policy, Ran, State, Status, Task, TaskError, Tasks};

const SEEDS: u64 = 8;
const STEPS: usize = 80;
const NAMES_USED: u32 = 12;

const OFTEN: Policy = Policy::AtLeastOnce {
    retries_max: 1_000,
    backoff_first_ms: 100,
    backoff_max_ms: 1_000,
};

/// What executors have done and were told.
#[derive(Default)]
struct Seen {
    /// By name: the number and the version of each attempt that was started.
    started: BTreeMap<String, Vec<(u32, u64)>>,
    /// By name: how often an operator may have begun a new generation.
    resets: BTreeMap<String, usize>,
    /// By name and generation: the outcome that was told.
    told: BTreeMap<(String, u64), Outcome>,
    wrong: Vec<String>,
    elsewhere: usize,
    in_doubt: usize,
    here: usize,
}

#[derive(Clone, Default)]
struct Board(Arc<Mutex<Seen>>);

impl Board {
    fn on(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    fn started(&self, name: &str, number: u32, version: u64) {
        let mut seen = self.on();
        let resets = seen.resets.get(name).copied().unwrap_or_default();
        let started = seen.started.entry(name.into()).or_default();
        started.push((number, version));
        let versions: BTreeSet<_> = started.iter().map(|(_, version)| *version).collect();
        let is_once = name.starts_with("once");
        let too_often = match is_once {
            true => started.len() > 1 + resets,
            false => versions.len() < started.len(),
        };
        let numbers: BTreeSet<_> = started.iter().map(|(number, _)| *number).collect();
        let confused = !is_once && resets == 0 && numbers.len() < started.len();
        if too_often || confused {
            let wrong = format!("{name} was started as {started:?} with {resets} resets");
            seen.wrong.push(wrong);
        }
    }

    fn told(&self, status: &Status) {
        let Some(outcome) = status.outcome.clone().filter(|_| status.has_ended()) else {
            return;
        };
        let mut seen = self.on();
        let key = (status.name.clone(), status.generation.as_u64());
        let first = seen.told.entry(key).or_insert_with(|| outcome.clone());
        if *first != outcome {
            let wrong = format!("{} has ended as {first:?}, and as {outcome:?}", status.name);
            seen.wrong.push(wrong);
        }
    }

    /// Runs a task; the action takes a while and may fail.
    async fn run(self, task: Task, takes: Duration, fails: bool) {
        let ran = task
            .run(|attempt| {
                self.started(attempt.name(), attempt.number(), attempt.version().as_u64());
                async move {
                    tokio::time::sleep(takes).await;
                    match fails && attempt.number() < 3 {
                        true => Err(format!("attempt {}", attempt.version())),
                        false => Ok(()),
                    }
                }
            })
            .await;
        match ran {
            Ok(Ran::Here(here)) => {
                self.on().here += 1;
                if let Some(status) = here.status {
                    self.told(&status);
                }
            }
            Ok(Ran::Elsewhere(status)) => {
                self.on().elsewhere += 1;
                self.told(&status);
            }
            Err(TaskError::InDoubt(_)) => self.on().in_doubt += 1,
            Err(TaskError::Offline | TaskError::NetworkDown | TaskError::Busy) => {}
            Err(error) => self.on().wrong.push(format!("a run: {error}")),
        }
    }
}

fn task(node: &Network, n: u32) -> Task {
    let tasks = Tasks::new(node, "crashes");
    match n % 3 {
        0 => tasks.task(format!("often {n}")).policy(OFTEN),
        _ => tasks.task(format!("once {n}")),
    }
}

async fn fault(cluster: &mut Cluster, chance: &mut StdRng) {
    let any = |chance: &mut StdRng| chance.random_range(0..3);
    let n = any(chance);
    match chance.random_range(0..7) {
        0 if cluster.is_up(n) => cluster.cut_power(n),
        1 if cluster.is_up(n) => cluster.kill(n),
        0..3 if !cluster.is_up(n) => cluster.power_up(n).await,
        2 if cluster.is_up(n) => cluster.disks[n].hold_syncs(),
        3 => {
            let other = any(chance);
            match chance.random_range(0..4) {
                0 => cluster.net.isolate(addr(n)),
                1 => cluster.net.cut_one_way(addr(n), addr(other)),
                2 => cluster.net.drop_replies(addr(n), addr(other)),
                _ => cluster.net.cut(addr(n), addr(other)),
            }
        }
        4 | 5 => {
            cluster.net.heal_all();
            cluster.disks[n].release_syncs();
        }
        _ => {}
    }
}

/// What was found wrong with a seed.
async fn play(seed: u64, total: &mut Seen) -> Vec<String> {
    let mut cluster = Cluster::start(seed, 3).await;
    let mut chance = StdRng::seed_from_u64(seed);
    let most = chance.random_range(3..30);
    cluster
        .net
        .set_delay(Duration::from_millis(1), Duration::from_millis(most));
    let board = Board::default();
    let mut running = Vec::new();
    for _ in 0..STEPS {
        for _ in 0..chance.random_range(0..4) {
            let n = chance.random_range(0..3);
            if !cluster.is_up(n) {
                continue;
            }
            let task = task(cluster.node(n), chance.random_range(0..NAMES_USED));
            if chance.random_bool(0.1) {
                let resets = board.clone();
                running.push(tokio::spawn(async move {
                    *resets.on().resets.entry(task.name().into()).or_default() += 1;
                    match task.reset().await {
                        Err(TaskError::Offline | TaskError::NetworkDown | TaskError::Busy) => {}
                        Err(TaskError::Missing) | Ok(_) => {}
                        Err(error) => resets.on().wrong.push(format!("a reset: {error}")),
                    }
                }));
                continue;
            }
            let takes_ms = [0, 10, 500, 8_000][chance.random_range(0..4)];
            let takes = Duration::from_millis(takes_ms);
            let ran = board.clone().run(task, takes, chance.random_bool(0.5));
            running.push(tokio::spawn(ran));
        }
        fault(&mut cluster, &mut chance).await;
        let pause = [0, 1, 5, 40, 400, 2_000, 12_000][chance.random_range(0..7)];
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    cluster.net.heal_all();
    for n in 0..3 {
        cluster.disks[n].release_syncs();
        if !cluster.is_up(n) {
            cluster.power_up(n).await;
        }
    }
    cluster.met().await;
    // Whatever was left, somebody ends it, and all say the same of it.
    for n in 0..NAMES_USED {
        let last = task(cluster.node(n as usize % 3), n);
        let ended = board.clone().run(last, Duration::ZERO, false);
        let ended = tokio::time::timeout(Duration::from_secs(120), ended).await;
        assert!(ended.is_ok(), "seed {seed}: task {n} does not end");
        for node in cluster.up() {
            let status = task(node, n).status().await;
            let status = status.expect("all is well").expect("it was run");
            let is_over = status.has_ended() || status.state == State::Abandoned;
            if !is_over {
                board.on().wrong.push(format!("not over: {status:?}"));
            }
            board.told(&status);
        }
    }
    for running in running {
        // Those of nodes that are gone end with them.
        running.abort();
    }
    let mut seen = std::mem::take(&mut *board.on());
    total.elsewhere += seen.elsewhere;
    total.in_doubt += seen.in_doubt;
    total.here += seen.here;
    std::mem::take(&mut seen.wrong)
}

#[tokio::test(start_paused = true)]
async fn no_crash_starts_a_task_too_often_or_changes_what_was_told_of_it() {
    let seeds = std::env::var("RAFT_ONCE_CRASH_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"));
    let mut total = Seen::default();
    for seed in 0..seeds {
        let wrong = play(seed, &mut total).await;
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    }
    let per_seed = |count: usize| count as u64 / seeds;
    eprintln!(
        "{seeds} seeds: {} ran here, {} elsewhere, {} in doubt",
        total.here, total.elsewhere, total.in_doubt
    );
    assert!(per_seed(total.here) >= 5);
    assert!(per_seed(total.elsewhere) >= 5);
    assert!(total.in_doubt > 0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_answered_before_a_majority_has_it_is_found_out() {
    let _planted = plant(Bug::ClaimNotCommitted);
    for seed in 0..4 * SEEDS {
        let wrong = play(seed, &mut Seen::default()).await;
        if wrong.iter().any(|wrong| wrong.contains("was started as")) {
            return;
        }
    }
    panic!("not found");
}
