//! The protocol as designed: nothing wrong in any state within the bounds.

use std::time::Instant;

use stateright::{Checker, Model};

use super::graph::{Stuck, explore};
use super::{Bounds, Protocol};

/// Set to `large` for the bounds that take minutes.
const SIZE: &str = "RAFT_ONCE_MODEL";

/// Has stateright check every state, and the walk of our own that nobody is stuck. Both must find
/// the same number of states: neither is its own judge.
fn prove(bounds: Bounds) {
    let started = Instant::now();
    let checker = Protocol::within(bounds).checker().spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    drop(checker);
    let graph = explore(&Protocol::within(bounds));
    println!(
        "{bounds:?}: {states} states, {} of them calm, {:?}",
        graph.calm,
        started.elapsed()
    );
    assert_eq!(graph.states, states);
    assert!(
        graph.unanswered.is_none(),
        "unanswered: {}",
        show(graph.unanswered)
    );
    assert!(graph.deaf.is_none(), "deaf: {}", show(graph.deaf));
}

fn show(stuck: Option<Stuck>) -> String {
    stuck.map_or(String::new(), |stuck| {
        format!("{:?}\n{:?}", stuck.way, stuck.state)
    })
}

#[test]
fn two_terms_and_a_crash() {
    prove(Bounds {
        terms: 2,
        entries: 2,
        crashes: 1,
    });
}

#[test]
fn three_terms_without_a_crash() {
    prove(Bounds {
        terms: 3,
        entries: 2,
        crashes: 0,
    });
}

#[test]
fn larger_bounds_when_asked_for() {
    if std::env::var(SIZE).is_ok_and(|size| size == "large") {
        prove(Bounds {
            terms: 2,
            entries: 2,
            crashes: 2,
        });
        prove(Bounds {
            terms: 3,
            entries: 2,
            crashes: 1,
        });
    } else {
        println!("{SIZE}=large proves larger bounds");
    }
}
