//! The seeds of every test run, and how to run more.
//!
//! `RAFT_ONCE_SIM_SEEDS=100000` plays more seeds, `RAFT_ONCE_SIM_FIRST=17` begins with another one,
//! `RAFT_ONCE_SIM_STEPS=2000` makes runs shorter or longer. A seed that failed is played again, with
//! all that happens told, by `RUST_LOG=simulation=info,raft_once=debug` and the variables that its
//! failure names.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bugs::asked_for;
use super::plan::{Plan, STEPS};
use super::run::{Report, on_all_cores, run};

/// How many seeds are played unless it is said otherwise: without optimisation a few.
const SEEDS: u64 = if cfg!(debug_assertions) { 16 } else { 500 };

/// What must have happened at least in 100 seeds: about half of what does. A fault that is never
/// injected proves nothing.
const LEAST: [(&str, u64); 58] = [
    ("steps", 880_000),
    ("operations", 110_000),
    ("acknowledged", 20_000),
    ("won", 320),
    ("lost", 21_000),
    ("unclear", 35_000),
    ("observations", 67_000),
    ("cells decided", 1_300),
    ("handles opened", 54_000),
    ("calls given up", 1_100),
    ("votes", 7_100),
    ("applied", 62_000),
    ("groups put to sleep", 300),
    ("segments begun", 3_000),
    ("checkpoints", 3_200),
    ("pieces of a map sent", 14),
    ("runs with 1 voter", 5),
    ("runs with 3 voters", 34),
    ("runs with 5 voters", 10),
    ("kill", 780),
    ("power cut", 790),
    ("power failed at a change", 29),
    ("doom", 1_500),
    ("died at an await point", 110),
    ("power up", 2_200),
    ("orderly restart", 280),
    ("pause", 660),
    ("resume", 420),
    ("isolate", 310),
    ("cut", 300),
    ("cut one way", 300),
    ("split", 260),
    ("swizzle", 270),
    ("lost replies", 200),
    ("heal", 3_600),
    ("loss", 620),
    ("messages lost", 2_200),
    ("duplicates", 780),
    ("requests doubled", 3_800),
    ("delay", 920),
    ("messages reordered", 140_000),
    ("slow disk", 800),
    ("held disk", 500),
    ("failing disk", 330),
    ("full disk", 330),
    ("stopped by its disk", 140),
    ("pages lost", 610),
    ("pages torn", 180),
    ("lengths lost", 25),
    ("names lost", 100),
    ("clock", 780),
    ("observer joins", 220),
    ("observer leaves", 180),
    ("observer cut off", 180),
    ("observer died at an await point", 8),
    ("backup", 690),
    ("wipe", 9),
    ("restore", 5),
];

/// Seeds that found something, the steps of their runs, and what: they are played in every run.
const REGRESSIONS: [(u64, u64, &str); 8] = [
    (
        205,
        STEPS,
        "a leader restarted before a voter had missed it",
    ),
    (1039, STEPS, "an election given up left followers untold"),
    (1319, STEPS, "the same, with a third term"),
    (
        1401,
        STEPS,
        "a request to subscribe came twice, and failed once",
    ),
    (1457, STEPS, "an observer was told once to look elsewhere"),
    (1693, STEPS, "the same, another cell"),
    (5314, 500, "a voter was given up when it began to be one"),
    (222, STEPS, "two voters followed at each other without end"),
];

fn from_env(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |set| set.parse().expect("a number"))
}

/// With `RUST_LOG` set, what happens is told on stderr.
fn say() {
    if std::env::var_os("RUST_LOG").is_some() {
        // A second test of this process finds it set.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .without_time()
            .try_init();
    }
}

fn plan(seed: u64) -> Plan {
    let mut plan = Plan::of(seed);
    plan.steps = from_env("RAFT_ONCE_SIM_STEPS", plan.steps);
    plan
}

/// What failed, in full.
fn describe(report: &Report) -> String {
    format!(
        "seed {}: {}\n{}\n(again: RAFT_ONCE_SIM_FIRST={} RAFT_ONCE_SIM_SEEDS=1)",
        report.seed,
        report.wrong.join("\n"),
        report.history,
        report.seed
    )
}

#[test]
fn one_seed_gives_one_history() {
    for seed in 0..4 {
        let (first, second) = (run(&plan(seed), None), run(&plan(seed), None));
        for (at, (one, other)) in first.messages.iter().zip(&second.messages).enumerate() {
            let near = |messages: &[String]| messages[at.saturating_sub(3)..][..8].join("\n");
            assert_eq!(
                one,
                other,
                "seed {seed}: message {at} among\n{}\nand\n{}",
                near(&first.messages),
                near(&second.messages)
            );
        }
        assert_eq!(first.steps, second.steps, "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_eq!(first.counts, second.counts, "seed {seed}");
    }
}

#[test]
fn seeds_that_once_failed_do_not_fail_again() {
    for (seed, steps, found) in REGRESSIONS {
        let plan = Plan {
            steps,
            ..Plan::of(seed)
        };
        let report = run(&plan, None);
        assert!(report.wrong.is_empty(), "{found}: {}", describe(&report));
    }
}

#[test]
fn no_mix_of_faults_breaks_a_promise() {
    say();
    let first = from_env("RAFT_ONCE_SIM_FIRST", 0);
    let seeds = from_env("RAFT_ONCE_SIM_SEEDS", SEEDS);
    let next = AtomicU64::new(first);
    let total: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let failed: Mutex<Vec<String>> = Mutex::default();
    on_all_cores(|| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return;
            }
            let report = run(&plan(seed), asked_for());
            let mut total = total.lock().unwrap();
            *total.entry("steps").or_default() += report.steps;
            for (what, times) in &report.counts {
                *total.entry(what).or_default() += times;
            }
            if !report.wrong.is_empty() {
                eprintln!("seed {seed}: {}", report.wrong.join("\n"));
                failed.lock().unwrap().push(describe(&report));
            }
        }
    });
    let failed = failed.into_inner().unwrap();
    let total = total.into_inner().unwrap();
    eprintln!("{seeds} seeds: {total:#?}");
    assert!(
        failed.is_empty(),
        "{} failed, the first: {}",
        failed.len(),
        failed[0]
    );
    // Whoever names a first seed plays one again, or a part of many.
    if std::env::var_os("RAFT_ONCE_SIM_FIRST").is_none() {
        let steps = from_env("RAFT_ONCE_SIM_STEPS", STEPS);
        assert!(seeds >= SEEDS && steps >= STEPS, "too little was played");
        for (what, least) in LEAST {
            let times = total.get(what).copied().unwrap_or_default();
            // A handful of seeds differs more.
            let least = least * seeds / if seeds < 100 { 400 } else { 100 };
            assert!(times >= least, "{what}: {times} of at least {least}");
        }
    }
}
