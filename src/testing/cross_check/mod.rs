//! The checker is not its own judge: on many thousand short histories its verdict is compared with
//! that of stateright's search through all orders.

mod generate;
mod judges;

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::check::{self, Cell};
use super::history::History;
use super::operation::Operation;
use super::violation::Violation;

/// Our verdict on the values that were seen, and when. What is more than linearizability, versions
/// and what a local read of nothing means to its own handle, stateright's register does not know.
fn ours(operations: &[Operation]) -> Result<(), Violation> {
    Cell::split(operations).iter().try_for_each(check::values)
}

/// How often we refused, by the reason, and how often we did not.
#[derive(Default)]
struct Verdicts(BTreeMap<&'static str, u64>);

impl Verdicts {
    /// All three judge `operations`.
    fn compare(&mut self, seed: u64, operations: &[Operation]) {
        let ours = ours(operations);
        let by_search = judges::by_our_spec(operations);
        let by_register = judges::by_their_register(operations);
        let text = || {
            let lines: String = operations.iter().map(|op| format!("{op}\n")).collect();
            format!("seed {seed}, we say {ours:?} of\n{lines}")
        };
        assert_eq!(ours.is_ok(), by_search, "our specification: {}", text());
        assert_eq!(ours.is_ok(), by_register, "their register: {}", text());
        *self.0.entry(reason(&ours)).or_default() += 1;
    }

    /// Few cases show little.
    fn assert_at_least(&self, minimum: u64, reasons: &[&'static str]) {
        println!("{:?}", self.0);
        for reason in reasons {
            let count = self.0.get(reason).copied().unwrap_or_default();
            assert!(count >= minimum, "only {count} are {reason}");
        }
    }
}

fn reason(verdict: &Result<(), Violation>) -> &'static str {
    match verdict {
        Ok(()) => "accepted",
        Err(Violation::Winners { one, other, .. }) if one == other => "lost to itself",
        Err(Violation::Winners { .. }) => "two winners",
        Err(Violation::Validity { .. }) => "never proposed",
        Err(Violation::Agreement { .. }) => "two values",
        Err(Violation::Linearizability { why, .. }) => why,
        Err(_) => "refused for another reason",
    }
}

#[test]
fn what_a_register_did_is_accepted_by_all() {
    let mut verdicts = Verdicts::default();
    for seed in 0..4_000 {
        let history = generate::valid(&mut StdRng::seed_from_u64(seed));
        if let Err(violation) = history.check() {
            panic!("seed {seed}: {violation}\n{history}");
        }
        verdicts.compare(seed, &history.operations);
    }
    verdicts.assert_at_least(4_000, &["accepted"]);
}

#[test]
fn what_was_tampered_with_is_judged_alike() {
    let mut verdicts = Verdicts::default();
    for seed in 0..12_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut operations = generate::valid(&mut rng).operations;
        for _ in 0..rng.random_range(1..=3) {
            generate::tamper(&mut rng, &mut operations);
        }
        verdicts.compare(seed, &operations);
    }
    verdicts.assert_at_least(
        50,
        &[
            "accepted",
            "lost to itself",
            "two winners",
            "never proposed",
            "two values",
            "it was found empty later by",
            "its value was proposed later by",
        ],
    );
}

#[test]
fn what_never_was_a_history_is_judged_alike() {
    let mut verdicts = Verdicts::default();
    for seed in 0..12_000 {
        let operations = generate::arbitrary(&mut StdRng::seed_from_u64(seed));
        verdicts.compare(seed, &operations);
    }
    verdicts.assert_at_least(
        50,
        &["accepted", "two winners", "never proposed", "two values"],
    );
}

/// The other judges are worth something: they refuse what they must.
#[test]
fn the_judges_tell_right_from_wrong() {
    let judge = |lines: &str| {
        let operations = History::from_lines(lines).unwrap().operations;
        let verdict = judges::by_our_spec(&operations);
        assert_eq!(judges::by_their_register(&operations), verdict);
        verdict
    };
    let claim = "1..4 client 1 cell 0 claim 10: won at 1\n";
    assert!(judge(claim));
    let overlapping = "3..5 client 2 cell 0 read_linearizable: saw nothing at 0\n";
    assert!(judge(&format!("{claim}{overlapping}")));
    let touching = "4..5 client 2 cell 0 read_linearizable: saw nothing at 0\n";
    assert!(judge(&format!("{claim}{touching}")));
    let later = "5..6 client 2 cell 0 read_linearizable: saw nothing at 0\n";
    assert!(!judge(&format!("{claim}{later}")));
    let lost = "2..3 client 2 cell 0 claim 20: lost to 10\n";
    assert!(judge(&format!("{claim}{lost}")));
    assert!(!judge(lost));
}
