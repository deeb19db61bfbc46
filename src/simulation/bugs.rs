//! Is the simulator able to find anything? Each of these defects is planted, and must be found
//! within a part of an ordinary run.
//!
//! Two more need what no simulated run has: a stranger who reflects a proof, and a look at whether
//! an instance runs. The tests of those plant them: see `Bug::ProofReflected`, `Bug::SleepsTooEarly`.

use crate::probe::Bug;

/// All of those that show in what clients and nodes do, and the check that has to find each: what
/// its word begins with.
pub(super) const BUGS: [(Bug, &str); 29] = [
    (Bug::VoteNotSynced, "one vote a term"),
    (Bug::VoteNotWritten, "one vote a term"),
    (Bug::AppendNotSynced, "committed entries are immutable"),
    (Bug::StoreNotSynced, "not all nodes found each other"),
    (Bug::ApplyOverwrites, "panic"),
    (Bug::LeaderRestored, "committed entries are immutable"),
    (Bug::FirstbornAgain, "committed entries are immutable"),
    (Bug::BirthNotSynced, "committed entries are immutable"),
    (Bug::BornAlone, "committed entries are immutable"),
    (Bug::NoVoteByBirth, "one leader a term"),
    (Bug::OrderDiffers, "one leader a term"),
    (Bug::TwoInstances, "not live"),
    (Bug::UncommittedShown, "panic"),
    (Bug::BarrierAlone, "linearizability"),
    (Bug::BarrierWithoutTails, "linearizability"),
    (Bug::UnclearAcknowledged, "linearizability"),
    (Bug::EveryoneWins, "one winner"),
    (Bug::RetryLoses, "one winner"),
    (Bug::InitKeepsItsOwn, "agreement"),
    (Bug::FollowersNotTold, "not told"),
    (Bug::StreamSkips, "stream"),
    (Bug::SealForgetsVote, "not told"),
    (Bug::SnapshotUnfilled, "stream"),
    (Bug::ValueChanged, "validity"),
    (Bug::OfflineForgets, "stability"),
    (Bug::VersionRunsBack, "versions"),
    (Bug::IdsByPosition, "agreement"),
    (Bug::WipedLetIn, "a wiped voter"),
    (Bug::RestoredLetIn, "a restored voter"),
];

/// The one that `RAFT_ONCE_SIM_BUG` asks for.
pub(super) fn asked_for() -> Option<Bug> {
    let name = std::env::var("RAFT_ONCE_SIM_BUG").ok()?;
    let mut bugs = BUGS.into_iter().map(|(bug, _)| bug);
    let found = bugs.find(|bug| format!("{bug:?}") == name);
    Some(found.unwrap_or_else(|| panic!("RAFT_ONCE_SIM_BUG={name}: there are {BUGS:?}")))
}

/// Takes minutes unless built with `--release`, as `.ci/run` has it.
#[cfg(not(debug_assertions))]
mod in_runs {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::{BUGS, asked_for};
    use crate::probe::Bug;
    use crate::simulation::plan::Plan;
    use crate::simulation::run::{on_all_cores, run};

    /// How many seeds may be needed to find one: a fraction of those that every run plays.
    const SEEDS: u64 = 100;

    /// With which seed the check that has to find it does, and in which words. What else was found
    /// on the way, if it does not.
    fn find(bug: Bug, check: &str) -> Result<(u64, String), BTreeMap<String, u64>> {
        let mut others = BTreeMap::new();
        for seed in 0..SEEDS {
            for wrong in run(&Plan::of(seed), Some(bug)).wrong {
                if wrong.starts_with(check) {
                    return Ok((seed, wrong));
                }
                let words = wrong.chars().take(40).collect();
                others.entry(words).or_insert(seed);
            }
        }
        Err(others)
    }

    #[test]
    fn every_planted_bug_is_found_by_the_check_it_is_for() {
        let only = asked_for();
        let asked = BUGS.into_iter();
        let asked = asked.filter(|(bug, _)| only.is_none_or(|only| only == *bug));
        let left: Mutex<Vec<_>> = Mutex::new(asked.collect());
        let missed: Mutex<Vec<_>> = Mutex::default();
        on_all_cores(|| {
            let next = || left.lock().unwrap().pop();
            while let Some((bug, check)) = next() {
                match find(bug, check) {
                    Ok((seed, wrong)) => {
                        let first: String = wrong.chars().take(160).collect();
                        eprintln!("{bug:?}: seed {seed}: {}", first.replace('\n', " "));
                    }
                    Err(others) => missed.lock().unwrap().push((bug, check, others)),
                }
            }
        });
        let missed = missed.into_inner().unwrap();
        assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:#?}");
    }

    /// A check that no planted bug ever sets off proves nothing.
    #[test]
    fn each_check_has_a_bug_to_find() {
        let checks = [
            "one vote a term",
            "one leader a term",
            "committed entries are immutable",
            "validity",
            "one winner",
            "agreement",
            "stability",
            "linearizability",
            "versions",
            "not told",
            "a wiped voter",
            "a restored voter",
        ];
        for check in checks {
            assert!(BUGS.iter().any(|(_, by)| *by == check), "{check}");
        }
    }
}
