//! The model can fail: each thing done otherwise than the design says is found, by the property
//! that it breaks, with a way to get there.

use stateright::{Checker, Model};

use super::graph::explore;
use super::{AGREEMENT, ANSWERS, IMMUTABLE, ONE_LEADER, ONE_VOTE};
use super::{Action, Bounds, Defect, Protocol};

const fn within(terms: u8, entries: u8, crashes: u8) -> Bounds {
    Bounds {
        terms,
        entries,
        crashes,
    }
}

/// Fails unless the defect breaks this property.
fn breaks(defect: Defect, bounds: Bounds, property: &'static str) {
    breaks_after(&[], defect, bounds, property);
}

/// The same in a run that begins like this, where a search from the start would take long.
fn breaks_after(begun: &'static [Action], defect: Defect, bounds: Bounds, property: &'static str) {
    let (defect, only, ends) = (Some(defect), Some(property), false);
    let broken = Protocol {
        bounds,
        defect,
        only,
        begun,
        ends,
    };
    let checker = broken.checker().spawn_bfs().join();
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{defect:?} is not found within {bounds:?}"));
    let states = checker.unique_state_count();
    println!(
        "{defect:?}, after {states} states: not \"{property}\": {:?}",
        path.into_actions()
    );
}

#[test]
fn a_vote_that_is_not_durable_is_changed() {
    breaks(Defect::VoteNotDurable, within(2, 2, 1), ONE_VOTE);
}

#[test]
fn votes_that_are_not_durable_make_two_leaders_of_a_term() {
    breaks(Defect::VoteNotDurable, within(2, 2, 1), ONE_LEADER);
}

#[test]
fn votes_for_a_shorter_log_decide_two_values() {
    breaks(Defect::VoteIgnoresTheLog, within(2, 2, 0), AGREEMENT);
}

#[test]
fn a_vote_queued_behind_its_leaders_entries_lets_an_older_leader_undo_a_commit() {
    const BEGUN: &[Action] = &[
        Action::Birth { proposer: 0 },
        Action::Receive {
            v: 1,
            number: 0,
            len: 1,
            commit: 0,
        },
        // What is sent and then lost here is what comes back later.
        Action::Propose { v: 0, proposer: 1 },
        Action::Crash {
            v: 0,
            kept: 0,
            applied: 0,
        },
        Action::Elect { v: 1, term: 2 },
        Action::Grant {
            v: 0,
            term: 2,
            candidate: 1,
        },
        Action::Win { v: 1 },
        Action::Receive {
            v: 2,
            number: 1,
            len: 2,
            commit: 0,
        },
        Action::Acknowledge { v: 2 },
        Action::Commit {
            v: 1,
            upto: 2,
            counts_itself: true,
        },
    ];
    let bounds = within(3, 3, 2);
    breaks_after(BEGUN, Defect::VoteBehindEntries, bounds, IMMUTABLE);
}

#[test]
fn without_votes_by_birth_the_first_term_has_two_leaders() {
    breaks(Defect::NoVoteByBirth, within(2, 2, 0), ONE_LEADER);
}

#[test]
fn a_birth_that_is_sent_before_it_is_durable_decides_two_values() {
    breaks(Defect::BirthSentBeforeDurable, within(2, 2, 1), AGREEMENT);
}

#[test]
fn a_firstborn_that_bears_again_after_a_crash_decides_two_values() {
    breaks(Defect::BornTwice, within(2, 2, 1), AGREEMENT);
}

#[test]
fn a_firstborn_that_leads_its_term_again_after_a_crash_changes_an_entry() {
    breaks(Defect::FirstbornLeadsAgain, within(2, 2, 1), IMMUTABLE);
}

#[test]
fn a_leader_restored_after_a_crash_decides_two_values() {
    breaks(Defect::LeaderRestoredAfterCrash, within(2, 2, 1), AGREEMENT);
}

#[test]
fn an_append_acknowledged_before_it_is_durable_decides_two_values() {
    breaks(Defect::AckBeforeDurable, within(2, 2, 1), AGREEMENT);
}

#[test]
fn an_applied_position_ahead_of_its_log_tells_a_loser_it_won() {
    breaks(Defect::AppliedBeforeEntries, within(2, 2, 1), ANSWERS);
}

#[test]
fn counting_copies_of_entries_of_older_terms_decides_two_values() {
    const BEGUN: &[Action] = &[
        Action::Birth { proposer: 0 },
        Action::Elect { v: 1, term: 2 },
        Action::Grant {
            v: 2,
            term: 2,
            candidate: 1,
        },
        Action::Win { v: 1 },
        Action::Propose { v: 1, proposer: 1 },
        Action::Elect { v: 0, term: 3 },
    ];
    let bounds = within(4, 3, 0);
    breaks_after(BEGUN, Defect::CountsOlderTerms, bounds, AGREEMENT);
}

#[test]
fn a_leader_put_to_sleep_with_writes_under_way_decides_two_values() {
    const BEGUN: &[Action] = &[
        Action::Elect { v: 1, term: 2 },
        Action::Grant {
            v: 2,
            term: 2,
            candidate: 1,
        },
        Action::Win { v: 1 },
    ];
    let bounds = within(2, 2, 0);
    breaks_after(BEGUN, Defect::SleepUnsynced, bounds, AGREEMENT);
}

#[test]
fn an_apply_that_overwrites_decides_two_values() {
    breaks(Defect::ApplyOverwrites, within(2, 2, 0), AGREEMENT);
}

#[test]
fn a_retry_that_is_told_it_lost_may_have_won() {
    breaks(Defect::RetryToldLost, within(2, 2, 0), ANSWERS);
}

/// The bounds in which the ways to get stuck are looked for.
const SMALL: Bounds = within(2, 2, 0);

fn is_unanswered(defect: Option<Defect>) -> bool {
    let graph = explore(&Protocol {
        defect,
        ..Protocol::within(SMALL)
    });
    if let Some(stuck) = &graph.unanswered {
        println!("{defect:?}: never answered: {:?}", stuck.way);
    }
    graph.unanswered.is_some()
}

#[test]
fn nobody_is_stuck_where_the_ways_to_get_stuck_are_looked_for() {
    let graph = explore(&Protocol::within(SMALL));
    assert!(graph.unanswered.is_none() && graph.deaf.is_none());
}

#[test]
fn a_leader_asleep_that_no_proposal_wakes_leaves_it_unanswered() {
    assert!(is_unanswered(Some(Defect::SleeperNotWoken)));
}

#[test]
fn a_preferred_voter_that_does_not_hand_over_to_a_longer_log_leaves_a_proposal_unanswered() {
    assert!(is_unanswered(Some(Defect::NoHandover)));
}

#[test]
fn a_newborn_group_that_waits_for_its_leader_by_birth_leaves_a_proposal_unanswered() {
    assert!(is_unanswered(Some(Defect::NobodyElectsTheNewborn)));
}

#[test]
fn a_leader_that_falls_asleep_before_all_have_applied_leaves_somebody_deaf() {
    let defect = Some(Defect::SleepLeavesTail);
    let graph = explore(&Protocol {
        defect,
        ..Protocol::within(SMALL)
    });
    let stuck = graph.deaf.expect("it is found");
    println!("{defect:?}: deaf for ever: {:?}", stuck.way);
}
