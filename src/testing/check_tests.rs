//! What the checks accept and what they refuse, by name.

use super::{Checked, History, Violation};

/// The verdict on a history in lines; `client 1 cell 0` may be left out.
fn check(lines: &[&str]) -> Result<Checked, Violation> {
    let lines = lines.iter().map(|line| match line.split_once(' ') {
        Some((times, rest)) if !rest.starts_with("client") => {
            format!("{times} client 1 cell 0 {rest}\n")
        }
        _ => format!("{line}\n"),
    });
    History::from_lines(&lines.collect::<String>())
        .unwrap()
        .check()
}

macro_rules! refused {
    ($kind:ident, $lines:expr) => {
        let verdict = check(&$lines);
        assert!(
            matches!(verdict, Err(Violation::$kind { .. })),
            "{verdict:?}"
        );
    };
}

#[test]
fn an_ordinary_history_is_accepted_and_counted() {
    let checked = check(&[
        "1..2 client 1 cell 0 read_linearizable: saw nothing at 0",
        "3..10 client 1 cell 0 claim 10: won at 2",
        "4..11 client 2 cell 0 write 20: acknowledged at 3",
        "5..12 client 3 cell 0 claim 30: lost to 10",
        "6..6 client 3 cell 0 read: saw nothing at 0",
        "7.. client 4 cell 0 write 40: unclear",
        "8..13 client 5 cell 0 get_or_init 50: saw 10 at 2",
        "9..13 client 5 cell 0 wait: saw 10 at 2",
        "14..14 client 3 cell 0 read: saw 10 at 3",
        "15..15 client 6 cell 0 read: saw nothing at 1",
        "16..17 client 1 cell 1 write 60: acknowledged at 1",
        "18.. client 1 cell 2 write 70: unclear",
    ]);
    let expected = Checked {
        operations: 9,
        observations: 3,
        acknowledged: 2,
        unclear: 2,
        won: 1,
        lost: 1,
        cells: 3,
        cells_decided: 2,
    };
    assert_eq!(checked, Ok(expected));
}

#[test]
fn nothing_at_all_is_accepted() {
    assert_eq!(check(&[]), Ok(Checked::default()));
}

#[test]
fn cells_are_judged_each_by_itself() {
    let history = [
        "1..2 client 1 cell 0 claim 10: won at 1",
        "1..2 client 1 cell 1 claim 20: won at 1",
        "3..4 client 1 cell 2 read_linearizable: saw nothing at 0",
    ];
    assert_eq!(check(&history).map(|checked| checked.cells), Ok(3));
    // A value of the neighbour was not proposed here.
    refused!(
        Validity,
        [
            history[0],
            history[1],
            "3..4 client 1 cell 2 read_linearizable: saw 10 at 1"
        ]
    );
}

#[test]
fn what_no_handle_can_answer_is_malformed() {
    refused!(Malformed, ["2..1 claim 10: won at 1"]);
    refused!(Malformed, ["1..2 write 10: won at 1"]);
    refused!(Malformed, ["1..2 write 10: lost to 11"]);
    refused!(Malformed, ["1..2 claim 10: acknowledged at 1"]);
    refused!(Malformed, ["1..2 claim 10: saw 10 at 1"]);
    refused!(Malformed, ["1..2 get_or_init 10: lost to 11"]);
    refused!(Malformed, ["1..2 get_or_init 10: saw nothing at 1"]);
    refused!(Malformed, ["1..2 wait: saw nothing at 1"]);
    refused!(Malformed, ["1..2 read: won at 1"]);
    refused!(
        Malformed,
        ["1..2 write 10: acknowledged at 1", "3.. claim 10: unclear"]
    );
}

#[test]
fn a_value_must_have_been_proposed_before_it_is_seen() {
    refused!(Validity, ["1..2 read_linearizable: saw 10 at 1"]);
    refused!(Validity, ["1..1 read: saw 10 at 1"]);
    refused!(Validity, ["1..2 claim 11: lost to 10"]);
    let early = ["1..1 read: saw 10 at 1", "2..3 claim 10: won at 1"];
    refused!(Validity, early);
    // An unclear proposal, and one that only began, is one.
    let unclear = ["1.. write 10: unclear", "2..2 read: saw 10 at 1"];
    assert_eq!(check(&unclear).map(|checked| checked.unclear), Ok(1));
}

#[test]
fn at_most_one_is_told_that_it_won() {
    refused!(
        Winners,
        ["1..3 claim 10: won at 1", "2..4 claim 20: won at 2"]
    );
    refused!(
        Winners,
        ["1..3 claim 10: won at 1", "2..4 get_or_init 20: won at 1"]
    );
}

#[test]
fn nobody_is_told_that_it_lost_to_itself() {
    refused!(Winners, ["1..3 claim 10: lost to 10"]);
}

#[test]
fn the_values_seen_of_a_cell_are_one() {
    let proposed = ["1.. write 10: unclear", "2.. write 20: unclear"];
    for other in [
        "5..6 read: saw 20 at 1",
        "5..6 read_linearizable: saw 20 at 1",
        "5..6 wait: saw 20 at 1",
        "3..6 claim 30: lost to 20",
        "3..6 claim 30: won at 1",
        "3..6 get_or_init 30: saw 20 at 1",
    ] {
        refused!(
            Agreement,
            [proposed[0], proposed[1], "3..4 read: saw 10 at 1", other]
        );
    }
}

#[test]
fn the_winner_may_learn_it_as_any_other_reader() {
    let own = ["1..2 get_or_init 10: saw 10 at 1"];
    assert_eq!(check(&own).map(|checked| checked.cells_decided), Ok(1));
}

#[test]
fn a_handle_that_knew_a_value_is_never_empty_again() {
    for knew in [
        "1..4 client 1 cell 0 claim 10: won at 1",
        "1..4 client 1 cell 0 write 10: acknowledged at 1",
        "1..4 client 1 cell 0 get_or_init 10: won at 1",
    ] {
        let empty = "5..5 client 1 cell 0 read: saw nothing at 1";
        refused!(Stability, [knew, empty]);
        // It may be that the look came first.
        let meanwhile = "4..5 client 1 cell 0 read: saw nothing at 1";
        assert!(check(&[knew, meanwhile]).is_ok());
        // Another handle may lag.
        let elsewhere = "5..5 client 2 cell 0 read: saw nothing at 0";
        assert!(check(&[knew, elsewhere]).is_ok());
    }
    for knew in [
        "2..4 client 1 cell 0 read: saw 10 at 1",
        "2..4 client 1 cell 0 wait: saw 10 at 1",
        "2..4 client 1 cell 0 claim 20: lost to 10",
    ] {
        refused!(
            Stability,
            [
                "1.. client 2 cell 0 write 10: unclear",
                // The earliest of what it was told counts.
                "2..9 client 1 cell 0 wait: saw 10 at 1",
                knew,
                "5..5 client 1 cell 0 read: saw nothing at 1"
            ]
        );
    }
}

#[test]
fn once_acknowledged_no_later_linearizable_read_is_empty() {
    refused!(
        Linearizability,
        [
            "1..2 client 1 cell 0 write 10: acknowledged at 1",
            "3..4 client 2 cell 0 read_linearizable: saw nothing at 0"
        ]
    );
    let overlapping = [
        "1..3 client 1 cell 0 write 10: acknowledged at 1",
        "2..4 client 2 cell 0 read_linearizable: saw nothing at 0",
    ];
    assert!(check(&overlapping).is_ok());
    // What ends and begins at one time may have overlapped.
    let touching = [
        "1..3 client 1 cell 0 write 10: acknowledged at 1",
        "3..4 client 2 cell 0 read_linearizable: saw nothing at 0",
    ];
    assert!(check(&touching).is_ok());
}

#[test]
fn once_seen_by_anyone_no_later_linearizable_read_is_empty() {
    for seen in [
        "2..3 client 2 cell 0 claim 20: lost to 10",
        "3..3 client 2 cell 0 read: saw 10 at 1",
        "2..3 client 2 cell 0 wait: saw 10 at 1",
        "2..3 client 2 cell 0 read_linearizable: saw 10 at 1",
    ] {
        refused!(
            Linearizability,
            [
                "1..9 client 1 cell 0 claim 10: won at 1",
                seen,
                "4..5 client 3 cell 0 read_linearizable: saw nothing at 0"
            ]
        );
    }
}

#[test]
fn a_winner_cannot_be_later_than_an_acknowledged_loser() {
    refused!(
        Linearizability,
        [
            "1..2 client 1 cell 0 write 10: acknowledged at 1",
            "3..4 client 2 cell 0 claim 20: won at 2"
        ]
    );
    refused!(
        Linearizability,
        [
            "1..2 client 1 cell 0 write 10: acknowledged at 1",
            "3.. client 2 cell 0 write 20: unclear",
            "4..5 client 1 cell 0 read_linearizable: saw 20 at 3"
        ]
    );
}

#[test]
fn an_unclear_write_may_win_long_after_its_client_gave_up() {
    let late = [
        "1..2 client 1 cell 0 write 10: unclear",
        "3..4 client 2 cell 0 read_linearizable: saw nothing at 0",
        "5..6 client 2 cell 0 claim 20: lost to 10",
        "7..8 client 2 cell 0 read_linearizable: saw 10 at 1",
    ];
    assert!(check(&late).is_ok());
}

#[test]
fn an_unclear_read_says_nothing() {
    let unclear = [
        "1..2 client 1 cell 0 write 10: acknowledged at 1",
        "3..4 client 2 cell 0 read_linearizable: unclear",
        "5.. client 2 cell 0 wait: unclear",
    ];
    assert!(check(&unclear).is_ok());
}

#[test]
fn a_refusal_names_the_check_the_cell_and_the_operations() {
    let Err(violation) = check(&[
        "1..2 client 1 cell 7 write 10: acknowledged at 1",
        "3..4 client 2 cell 7 read_linearizable: saw nothing at 0",
    ]) else {
        panic!("accepted");
    };
    assert_eq!(
        violation.to_string(),
        "linearizability, cell 7: the cell was decided by the end of \
         [1..2 client 1 cell 7 write 10: acknowledged at 1], but it was found empty later by \
         [3..4 client 2 cell 7 read_linearizable: saw nothing at 0]"
    );
}

#[test]
fn no_two_commands_have_one_version() {
    refused!(
        Versions,
        [
            "1..3 write 10: acknowledged at 5",
            "2..4 write 20: acknowledged at 5"
        ]
    );
    refused!(
        Versions,
        [
            "1..3 claim 10: won at 5",
            "2..4 write 20: acknowledged at 5"
        ]
    );
}

#[test]
fn no_command_is_where_the_log_was_born() {
    refused!(Versions, ["1..3 write 10: acknowledged at 0"]);
    refused!(Versions, ["1..3 claim 10: won at 0"]);
}

#[test]
fn acknowledged_writes_in_real_time_have_increasing_versions() {
    refused!(
        Versions,
        [
            "1..2 client 1 cell 0 write 10: acknowledged at 5",
            "3..4 client 2 cell 0 write 20: acknowledged at 4"
        ]
    );
    let overlapping = [
        "1..3 client 1 cell 0 write 10: acknowledged at 5",
        "2..4 client 2 cell 0 write 20: acknowledged at 4",
    ];
    assert!(check(&overlapping).is_ok());
    let touching = [
        "1..3 client 1 cell 0 write 10: acknowledged at 5",
        "3..4 client 2 cell 0 write 20: acknowledged at 4",
    ];
    assert!(check(&touching).is_ok());
}

#[test]
fn a_command_is_behind_what_any_handle_knew_when_it_was_invoked() {
    for version in [5, 6] {
        refused!(
            Versions,
            [
                "1..1 client 1 cell 0 read: saw nothing at 6",
                &format!("2..3 client 2 cell 0 write 10: acknowledged at {version}")
            ]
        );
        refused!(
            Versions,
            [
                "1..1 client 1 cell 0 read: saw nothing at 6",
                &format!("2..3 client 2 cell 0 claim 10: won at {version}")
            ]
        );
    }
    let behind = [
        "1..1 client 1 cell 0 read: saw nothing at 6",
        "2..3 client 2 cell 0 write 10: acknowledged at 7",
    ];
    assert!(check(&behind).is_ok());
}

#[test]
fn the_version_of_a_handle_never_runs_backwards() {
    let earlier = "1..1 client 1 cell 0 read: saw nothing at 6";
    refused!(
        Versions,
        [earlier, "2..2 client 1 cell 0 read: saw nothing at 5"]
    );
    refused!(
        Versions,
        [
            "1..2 client 1 cell 0 write 10: acknowledged at 6",
            "3..3 client 1 cell 0 read: saw 10 at 5"
        ]
    );
    // Another handle may lag, another cell has a log of its own, and the same version is fine.
    let elsewhere = [
        earlier,
        "2..2 client 2 cell 0 read: saw nothing at 5",
        "2..2 client 1 cell 1 read: saw nothing at 5",
        "2..2 client 1 cell 0 read: saw nothing at 6",
    ];
    assert!(check(&elsewhere).is_ok());
}

#[test]
fn a_cell_is_won_at_its_smallest_acknowledged_version() {
    refused!(
        Versions,
        [
            "1..3 client 1 cell 0 claim 10: won at 5",
            "2..4 client 2 cell 0 write 20: acknowledged at 4"
        ]
    );
    let behind = [
        "1..3 client 1 cell 0 claim 10: won at 5",
        "2..4 client 2 cell 0 write 20: acknowledged at 6",
    ];
    assert!(check(&behind).is_ok());
    // A winner that repeated its write may be told a later version.
    let repeated = [
        "1..3 client 1 cell 0 write 10: acknowledged at 5",
        "2..4 client 2 cell 0 write 20: acknowledged at 4",
        "5..5 client 2 cell 0 read: saw 10 at 4",
    ];
    assert!(check(&repeated).is_ok());
}

#[test]
fn no_handle_knows_a_value_below_the_version_at_which_it_won() {
    refused!(
        Versions,
        [
            "1..3 client 1 cell 0 claim 10: won at 5",
            "4..4 client 2 cell 0 read: saw 10 at 4"
        ]
    );
    // Nor below all that can be one.
    refused!(
        Versions,
        [
            "1.. client 1 cell 0 write 10: unclear",
            "4..4 client 2 cell 0 read: saw 10 at 0"
        ]
    );
}

#[test]
fn a_cell_is_decided_behind_what_was_committed_while_it_was_empty() {
    // The winner was invoked when 6 was committed, and somebody knows it won by 5.
    refused!(
        Versions,
        [
            "1..1 client 1 cell 0 read: saw nothing at 6",
            "2.. client 2 cell 0 write 10: unclear",
            "3..3 client 3 cell 0 read: saw 10 at 6"
        ]
    );
    // So too if the winner began early, but the cell was empty late.
    let early = "1..5 client 2 cell 0 write 10: acknowledged at 3";
    let known = "2..2 client 1 cell 0 read: saw nothing at 6";
    let empty = "3..4 client 3 cell 0 read_linearizable: saw nothing at 6";
    refused!(Versions, [early, known, empty]);
    assert!(check(&[early, known]).is_ok());
    // A write behind it leaves no room for the winner.
    refused!(
        Versions,
        [
            known,
            "3.. client 2 cell 0 write 10: unclear",
            "2..5 client 3 cell 0 write 20: acknowledged at 7",
            "6..6 client 3 cell 0 read: saw 10 at 9"
        ]
    );
}
