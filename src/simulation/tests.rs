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
use super::plan::Plan;
use super::run::{Report, on_all_cores, run};

/// How many seeds are played unless it is said otherwise: without optimisation a few.
const SEEDS: u64 = if cfg!(debug_assertions) { 16 } else { 500 };

/// What must have happened at least, in 100 seeds of ordinary length. A fault that is never
/// injected proves nothing.
const LEAST: [(&str, u64); 40] = [
    ("steps", 1_000_000),
    ("operations", 30_000),
    ("acknowledged", 4_000),
    ("won", 200),
    ("lost", 2_000),
    ("unclear", 2_000),
    ("observations", 20_000),
    ("cells decided", 1_000),
    ("handles opened", 5_000),
    ("calls given up", 500),
    ("votes", 2_000),
    ("applied", 10_000),
    ("groups put to sleep", 100),
    ("kill", 200),
    ("power cut", 200),
    ("doom", 400),
    ("died at an await point", 100),
    ("power up", 500),
    ("orderly restart", 50),
    ("pause", 100),
    ("resume", 100),
    ("isolate", 100),
    ("cut", 100),
    ("cut one way", 100),
    ("swizzle", 50),
    ("lost replies", 50),
    ("heal", 500),
    ("loss", 100),
    ("messages lost", 500),
    ("duplicates", 100),
    ("requests doubled", 500),
    ("delay", 100),
    ("slow disk", 100),
    ("held disk", 100),
    ("failing disk", 50),
    ("stopped by its disk", 20),
    ("clock", 100),
    ("observer joins", 50),
    ("observer leaves", 20),
    ("wipe", 5),
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
        report.wrong.as_deref().unwrap_or("all is well"),
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
            if let Some(wrong) = &report.wrong {
                eprintln!("seed {seed}: {wrong}");
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
    // A single seed is played to look at it, and shorter runs have less of everything.
    if seeds >= SEEDS && std::env::var_os("RAFT_ONCE_SIM_STEPS").is_none() {
        for (what, least) in LEAST {
            let times = total.get(what).copied().unwrap_or_default();
            let least = least * seeds / 100;
            assert!(times >= least, "{what}: {times} of at least {least}");
        }
    }
}
