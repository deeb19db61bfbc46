//! Is the simulator able to find anything? Each of these defects is planted, and must be found
//! within a part of an ordinary run.

use super::probes;
use crate::network::proof::{AdmissionKeys, Binding, Kind, Role};
use crate::network::secret::Secret;
use crate::probe::Bug;

/// All of those that show in what clients and nodes do.
pub(super) const BUGS: [Bug; 22] = [
    Bug::VoteNotSynced,
    Bug::VoteNotWritten,
    Bug::AppendNotSynced,
    Bug::StoreNotSynced,
    Bug::ApplyOverwrites,
    Bug::LeaderRestored,
    Bug::FirstbornAgain,
    Bug::BirthNotSynced,
    Bug::NoVoteByBirth,
    Bug::OrderDiffers,
    Bug::TwoInstances,
    Bug::UncommittedShown,
    Bug::BarrierAlone,
    Bug::BarrierWithoutTails,
    Bug::UnclearAcknowledged,
    Bug::EveryoneWins,
    Bug::RetryLoses,
    Bug::InitKeepsItsOwn,
    Bug::VersionRunsBack,
    Bug::IdsByPosition,
    Bug::WipedLetIn,
    Bug::RestoredLetIn,
];

/// The one that `RAFT_ONCE_SIM_BUG` asks for.
pub(super) fn asked_for() -> Option<Bug> {
    let name = std::env::var("RAFT_ONCE_SIM_BUG").ok()?;
    let found = BUGS.into_iter().find(|bug| format!("{bug:?}") == name);
    Some(found.unwrap_or_else(|| panic!("RAFT_ONCE_SIM_BUG={name}: there are {BUGS:?}")))
}

/// Takes minutes unless built with `--release`, as `.ci/run` has it.
#[cfg(not(debug_assertions))]
mod in_runs {
    use std::sync::Mutex;

    use super::{BUGS, asked_for};
    use crate::probe::Bug;
    use crate::simulation::plan::Plan;
    use crate::simulation::run::{on_all_cores, run};

    /// How many seeds may be needed to find one: a fraction of those that every run plays.
    const SEEDS: u64 = 100;

    /// With which seed it is found, and by what.
    fn find(bug: Bug) -> Option<(u64, String)> {
        (0..SEEDS).find_map(|seed| {
            let report = run(&Plan::of(seed), Some(bug));
            report.wrong.map(|wrong| (seed, wrong))
        })
    }

    #[test]
    fn every_planted_bug_is_found() {
        let only = asked_for();
        let asked = BUGS.into_iter();
        let asked = asked.filter(|bug| only.is_none_or(|only| only == *bug));
        let left: Mutex<Vec<Bug>> = Mutex::new(asked.collect());
        let missed: Mutex<Vec<Bug>> = Mutex::default();
        on_all_cores(|| {
            let next = || left.lock().unwrap().pop();
            while let Some(bug) = next() {
                match find(bug) {
                    Some((seed, wrong)) => {
                        let first: String = wrong.chars().take(160).collect();
                        eprintln!("{bug:?}: seed {seed}: {}", first.replace('\n', " "));
                    }
                    None => missed.lock().unwrap().push(bug),
                }
            }
        });
        let missed = missed.into_inner().unwrap();
        assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
    }
}

/// Reflection needs someone without the secret, and nobody in the simulator is.
#[test]
fn a_proof_that_holds_for_either_side_is_found() {
    let holds = |bug| {
        let secret = Secret::try_from("a secret of the simulator").expect("it is long enough");
        let keys = AdmissionKeys::of_secret(&secret, "simulated");
        let binding = Binding {
            exported: [1; 32],
            dialer: [2; 32],
            acceptor: [3; 32],
        };
        let mut reflected = false;
        probes::with(bug, || {
            let proof = keys.prove(Kind::Voter, Role::Dialer, &binding);
            let proof = proof.expect("it has the key");
            reflected = keys.verify(&proof, Kind::Voter, Role::Acceptor, &binding);
        });
        reflected
    };
    assert!(!holds(None));
    assert!(holds(Some(Bug::ProofReflected)));
}
