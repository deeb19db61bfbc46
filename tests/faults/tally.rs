//! What was done and seen, and how much of it there must be at least.

use std::collections::BTreeMap;
use std::time::Duration;

use raft_once::testing::{Checked, FAILPOINTS};

use crate::answers::Answers;
use crate::fault::{Deck, Fault, Kind};

/// A long run, which has a machine that is fast enough for it: processes have died at every
/// failpoint, and what comes of each fault is counted. A shorter one counts what was tried where
/// it depends on the machine.
pub const LONG_ROUNDS: usize = 400;

/// Late writes without a reason are failures, but for one round: a machine may have stood still as
/// a whole for a moment, which nothing on it can tell.
const LATE_MAX: usize = 1;

/// A long run proves progress in all but one of so many rounds, though the machine may be busy.
const ROUNDS_PER_STARVED: usize = 20;

#[derive(Default)]
pub struct Tally {
    /// Processes that clients ran in.
    pub starts: u32,
    /// What went wrong and did not end the run.
    pub failures: Vec<String>,
    /// Rounds with writes that were late while the machine kept the processes from running.
    pub starved: usize,
    /// Rounds with such that were late though it did not.
    pub late: usize,
    rounds: usize,
    faults: BTreeMap<Kind, usize>,
    /// Faults that came to nothing: a failpoint that nothing came to.
    missed: BTreeMap<Kind, usize>,
    failpoints: BTreeMap<&'static str, usize>,
    full_starts: BTreeMap<bool, usize>,
    answers: Answers,
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
            self.died_at(name);
        }
        assert!(
            bitten || fault.kind() == Kind::Failpoint,
            "{fault} had no effect"
        );
    }

    pub fn died_at(&mut self, failpoint: &'static str) {
        *self.failpoints.entry(failpoint).or_default() += 1;
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
        self.answers.add(lines);
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
        println!(
            "rounds with late writes: {} on a busy machine, {} though it was not busy",
            self.starved, self.late
        );
        println!("deaths at failpoints: {:?}", self.failpoints);
        println!(
            "starts on a full disk that worked or not: {:?}",
            self.full_starts
        );
        println!("answers: {:?}", self.answers.0);
    }

    /// Fails if too little was done to prove anything.
    pub fn check(&self, kinds: &[Kind], rounds: usize) {
        assert_eq!(self.rounds, rounds, "rounds are missing");
        let is_long = rounds >= LONG_ROUNDS;
        for kind in kinds {
            let mut count = self.faults.get(kind).copied().unwrap_or_default();
            if !is_long {
                count += self.missed.get(kind).copied().unwrap_or_default();
            }
            let least = (Deck::least(*kind, kinds, rounds) / 2).max(1);
            assert!(count >= least, "{kind:?}: {count} of at least {least}");
        }
        if is_long && kinds.contains(&Kind::Failpoint) {
            let alive = FAILPOINTS.into_iter();
            let alive = alive.filter(|name| !self.failpoints.contains_key(name));
            let alive: Vec<_> = alive.collect();
            assert!(alive.is_empty(), "nobody died at {alive:?}");
        }
        assert!(
            self.late <= LATE_MAX,
            "writes were late in {} rounds though the machine was not busy",
            self.late
        );
        let starved_max = (rounds / ROUNDS_PER_STARVED).max(1);
        assert!(
            !is_long || self.starved <= starved_max,
            "the machine was too busy to prove progress: writes were late in {} of {rounds} \
             rounds, at most {starved_max} are excused",
            self.starved
        );
        if let Some(lack) = self.answers.lack(rounds) {
            panic!("{lack}");
        }
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
    }
}
