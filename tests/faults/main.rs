//! Faults on real processes: voters and observers are killed, paused, cut off, moved, left without
//! space and made to die at failpoints, while clients run on all of them; then what the clients
//! saw is judged, and every node has to be live again after each round.
//!
//! ```text
//! RAFT_ONCE_FAULT_ROUNDS=1700 cargo test --release --all-features --test faults -- --nocapture
//! ```
//!
//! `RAFT_ONCE_FAULT_SEED` draws the faults, which are always the same unless the run is long; what
//! processes make of them depends on the machine. Network namespaces and small file systems need
//! root on Linux: where they are forbidden the run says so on stderr, cuts links inside the
//! transport, and leaves out what cannot be done.
//!
//! A slow machine fails no short run, and excuses no cell that is stuck: see `probe`.
#![cfg(target_os = "linux")]

mod answers;
mod client;
mod fault;
mod injector;
mod lab;
mod point;
mod pressure;
mod probe;
#[path = "../process/mod.rs"]
mod process;
mod run;
mod tally;

use std::sync::Mutex;

use fault::{Deck, Kind};
use lab::Lab;
use run::Run;
use tally::{LONG_ROUNDS, Tally};

/// Rounds of the ordinary run.
const ROUNDS: usize = 16;

/// The seed of all runs but long ones: who changes nothing shall not meet other faults.
const SEED: u64 = 1;

/// After so many rounds a new cluster is made, and the history of the old one judged. A cell that
/// was written stays in memory, and is talked about when a link returns, for as long as a cluster
/// lives. A short run has two lives.
const ROUNDS_PER_LIFE: (usize, usize) = (8, 40);

const OBSERVERS: usize = 1;

#[test]
fn child_entry() {
    process::child_entry_with(client::answer);
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn run(rounds: usize, kinds: &[Kind], in_spaces: bool) {
    // One at a time: they would take the processors from each other.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    let seed = variable("RAFT_ONCE_FAULT_SEED").unwrap_or_else(|| match rounds < LONG_ROUNDS {
        true => SEED,
        false => rand::random(),
    });
    println!("RAFT_ONCE_FAULT_SEED={seed} RAFT_ONCE_FAULT_ROUNDS={rounds}");
    lab::sweep();
    let mut kinds = kinds.to_vec();
    let mut deck = None;
    let mut tally = Tally::default();
    let per_life = (rounds / 2).clamp(ROUNDS_PER_LIFE.0, ROUNDS_PER_LIFE.1);
    let mut played = 0;
    for life in 0.. {
        if played == rounds {
            break;
        }
        let voters = if life % 3 == 1 { 5 } else { 3 };
        let lab = Lab::new(voters, OBSERVERS, in_spaces);
        kinds.retain(|kind| lab.has_spaces() || !kind.needs_spaces());
        kinds.retain(|kind| lab.has_disks() || *kind != Kind::FullDisk);
        let deck = deck.get_or_insert_with(|| Deck::new(seed, &kinds));
        let mut run = Run::start(life, lab, deck, &mut tally);
        for _ in 0..per_life.min(rounds - played) {
            played += 1;
            run.round(played);
        }
        run.end();
    }
    tally.print();
    tally.check(&kinds, rounds);
}

#[test]
fn processes_that_die_pause_move_and_lose_links_or_space_keep_every_promise() {
    let rounds = variable("RAFT_ONCE_FAULT_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    run(rounds, &Kind::ALL, true);
}

#[test]
fn links_that_are_cut_inside_the_transport_do_as_well() {
    use Kind::{CutOneWay, CutPair, Isolate, Kill, Split};
    run(5, &[CutPair, CutOneWay, Isolate, Split, Kill], false);
}
