//! What was done and seen, and how much of it there must be at least.

use std::collections::BTreeMap;
use std::time::Duration;

use raft_once::testing::{Checked, FAILPOINTS};

use crate::fault::{Fault, Kind};

/// From so many rounds on, processes have died at every failpoint.
const ROUNDS_OF_ALL_FAILPOINTS: usize = 400;

/// Answered calls of clients per round.
const ANSWERED_PER_ROUND_MIN: usize = 50;

#[derive(Default)]
pub struct Tally {
    /// Processes that clients ran in.
    pub starts: u32,
    /// What went wrong and did not end the run.
    pub failures: Vec<String>,
    /// Writes that were late while the machine kept the processes from running.
    pub starved: usize,
    rounds: usize,
    faults: BTreeMap<Kind, usize>,
    /// Faults that came to nothing: a failpoint that nothing came to.
    missed: BTreeMap<Kind, usize>,
    failpoints: BTreeMap<&'static str, usize>,
    full_starts: BTreeMap<bool, usize>,
    outcomes: BTreeMap<String, usize>,
    checked: Checked,
    slowest: Duration,
    spent: Duration,
}

impl Tally {
    pub fn fault(&mut self, fault: &Fault, bitten: bool) {
        let counts = match bitten {
            true => &mut self.faults,
            false => &mut self.missed,
        };
        *counts.entry(fault.kind()).or_default() += 1;
        if let (Fault::Failpoint { name, .. }, true) = (fault, bitten) {
            *self.failpoints.entry(name).or_default() += 1;
        }
        assert!(
            bitten || fault.kind() == Kind::Failpoint,
            "{fault} had no effect"
        );
    }

    pub fn round(&mut self, took: Duration) {
        self.rounds += 1;
        self.spent += took;
        self.slowest = self.slowest.max(took);
    }

    /// A start without space works, or says what is missing.
    pub fn start_on_full_disk(&mut self, started: &Result<(), String>) {
        if let Err(reason) = started {
            assert!(reason.contains("No space left"), "{reason}");
        }
        *self.full_starts.entry(started.is_ok()).or_default() += 1;
    }

    pub fn checked(&mut self, checked: Checked, lines: &str) {
        self.checked += checked;
        for line in lines.lines() {
            let Some((call, outcome)) = line.split_once(": ") else {
                continue;
            };
            // A line that was written before the call has no end of it.
            if call
                .split(' ')
                .next()
                .is_some_and(|time| time.ends_with(".."))
            {
                continue;
            }
            let call = call.split(' ').nth(5).unwrap_or_default();
            let outcome = match outcome.strip_prefix("saw nothing") {
                Some(_) => "nothing",
                None => outcome.split(' ').next().unwrap_or_default(),
            };
            *self
                .outcomes
                .entry(format!("{call} {outcome}"))
                .or_default() += 1;
        }
    }

    pub fn print(&self) {
        println!(
            "{} rounds in {} s, the slowest in {} ms; {} starts of processes; {}",
            self.rounds,
            self.spent.as_secs(),
            self.slowest.as_millis(),
            self.starts,
            self.checked
        );
        println!(
            "faults: {:?}; without effect: {:?}",
            self.faults, self.missed
        );
        println!("writes late on a starved machine: {}", self.starved);
        println!("deaths at failpoints: {:?}", self.failpoints);
        println!(
            "starts on a full disk that worked or not: {:?}",
            self.full_starts
        );
        println!("answers: {:?}", self.outcomes);
    }

    /// Fails if too little was done to prove anything.
    pub fn check(&self, kinds: &[Kind], rounds: usize) {
        assert_eq!(self.rounds, rounds, "rounds are missing");
        let least = (rounds / 100).max(1);
        for kind in kinds {
            let count = self.faults.get(kind).copied().unwrap_or_default();
            assert!(count >= least, "{kind:?}: {count} of at least {least}");
        }
        if kinds.contains(&Kind::Failpoint) && rounds >= ROUNDS_OF_ALL_FAILPOINTS {
            for name in FAILPOINTS {
                assert!(self.failpoints.contains_key(name), "nobody died at {name}");
            }
        }
        let answers = self.outcomes.iter();
        let answers = answers.filter(|(outcome, _)| !outcome.ends_with("unclear"));
        let answered: usize = answers.map(|(_, count)| count).sum();
        let least = rounds * ANSWERED_PER_ROUND_MIN;
        assert!(answered >= least, "{answered} answers of at least {least}");
        for outcome in [
            "write acknowledged",
            "claim won",
            "claim lost",
            "get_or_init won",
            "read saw",
            "read_linearizable saw",
            "read_linearizable nothing",
            "wait saw",
        ] {
            let count = self.outcomes.get(outcome).copied().unwrap_or_default();
            assert!(count >= rounds, "{outcome}: {count}");
        }
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
    }
}
