//! Histories as text, and what recorders do with them.

use super::{Call, History, LineError, Outcome};

/// One operation of each kind, and each outcome.
fn all_kinds() -> History {
    let mut history = History::new();
    let claim = history.invoke(1, 0, Call::Claim(10));
    let write = history.invoke(2, 0, Call::Write(20));
    let lost = history.invoke(3, u32::MAX, Call::Claim(u64::MAX));
    let init = history.invoke(4, 0, Call::GetOrInit(30));
    let wait = history.invoke(5, 0, Call::Wait);
    let asked = history.invoke(6, 0, Call::ReadLinearizable);
    history.invoke(7, 0, Call::Write(40));
    let read = history.invoke(8, 0, Call::Read);
    let given_up = history.invoke(9, 0, Call::ReadLinearizable);
    history.finish(claim, Outcome::Won { version: 3 });
    history.finish(write, Outcome::Acknowledged { version: 4 });
    history.finish(lost, Outcome::Lost { winner: 0 });
    let saw = |value, version| Outcome::Saw { value, version };
    history.finish(init, saw(Some(10), 3));
    history.finish(wait, saw(Some(10), 4));
    history.finish(asked, saw(None, 0));
    history.finish(read, saw(None, u64::MAX));
    history.finish(given_up, Outcome::Unclear);
    history.observe(1, 0, Some(10), 4);
    history
}

#[test]
fn a_history_reads_as_it_was_written() {
    let history = all_kinds();
    let lines = history.to_lines();
    assert_eq!(lines.lines().count(), history.len());
    let again = History::from_lines(&lines).unwrap();
    assert_eq!(again, history);
    assert_eq!(again.digest(), history.digest());
    assert_eq!(format!("{history}"), lines);
    assert_eq!(format!("{history:?}"), lines);
}

#[test]
fn a_history_can_be_gone_on_with_after_it_was_read() {
    let mut history = History::from_lines(&all_kinds().to_lines()).unwrap();
    let op = history.invoke(1, 0, Call::Read);
    assert_eq!(history.line(op), "19.. client 1 cell 0 read: unclear");
}

#[test]
fn the_lines_are_these() {
    let expected = "\
1..10 client 1 cell 0 claim 10: won at 3
2..11 client 2 cell 0 write 20: acknowledged at 4
3..12 client 3 cell 4294967295 claim 18446744073709551615: lost to 0
4..13 client 4 cell 0 get_or_init 30: saw 10 at 3
5..14 client 5 cell 0 wait: saw 10 at 4
6..15 client 6 cell 0 read_linearizable: saw nothing at 0
7.. client 7 cell 0 write 40: unclear
8..16 client 8 cell 0 read: saw nothing at 18446744073709551615
9..17 client 9 cell 0 read_linearizable: unclear
18..18 client 1 cell 0 read: saw 10 at 4
";
    assert_eq!(all_kinds().to_lines(), expected);
}

#[test]
fn any_difference_changes_the_digest() {
    let lines = all_kinds().to_lines();
    let digest = all_kinds().digest();
    for (index, digit) in lines.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
        let mut other = lines.clone();
        let changed = if digit == '1' { "2" } else { "1" };
        other.replace_range(index..=index, changed);
        // What is no number of its kind any more is refused, which also is no collision.
        if let Ok(history) = History::from_lines(&other) {
            assert_ne!(history.digest(), digest, "{other}");
        }
    }
}

#[test]
fn a_line_that_is_no_operation_is_refused_by_its_number() {
    for text in [
        "",
        "1..2",
        "1..2 client 1 cell 0 read",
        "1..2 client 1 cell 0 read:",
        "1..2 client 1 cell 0 read: saw nothing",
        "1..2 client 1 cell 0 read: saw 7 at -1",
        "1..2 client 1 cell 0 read: saw 7 at 1 ",
        "1..2 client 1 cell 0 read 7: saw 7 at 1",
        "1..2 client 1 cell 0 write: unclear",
        "1..2 client 1 cell 0 write +7: unclear",
        "1..2 client 01 cell 0 read: unclear",
        "1..2 client 4294967296 cell 0 read: unclear",
        "1..2 client 1 cell 0 write 18446744073709551616: unclear",
        "1..2 client 1  cell 0 read: unclear",
        "1..2\tclient 1 cell 0 read: unclear",
        "1.. client 1 cell 0 read: saw 7 at 1",
        "..2 client 1 cell 0 read: unclear",
        "1-2 client 1 cell 0 read: unclear",
    ] {
        let lines = format!("1..2 client 1 cell 0 read: unclear\n{text}\n");
        let expected = LineError {
            line: 2,
            text: text.into(),
        };
        assert_eq!(History::from_lines(&lines), Err(expected));
    }
}

#[test]
fn a_finished_line_takes_the_place_of_its_invocation() {
    let lines = "\
1.. client 1 cell 0 write 10: unclear
2.. client 2 cell 0 write 20: unclear
1..3 client 1 cell 0 write 10: acknowledged at 1
";
    let expected = "\
1..3 client 1 cell 0 write 10: acknowledged at 1
2.. client 2 cell 0 write 20: unclear
";
    assert_eq!(History::from_lines(lines).unwrap().to_lines(), expected);
}

#[test]
fn two_finished_calls_of_one_time_stay_two() {
    let lines = "\
1..2 client 1 cell 0 read: saw nothing at 0
1..2 client 1 cell 0 read: saw nothing at 0
";
    assert_eq!(History::from_lines(lines).unwrap().len(), 2);
}

#[test]
fn a_line_that_was_torn_by_a_crash_is_left_out() {
    let mut recorded = String::new();
    let mut history = History::new();
    let op = history.invoke_at(100, 1, 0, Call::Write(10));
    recorded.push_str(&format!("{}\n", history.line(op)));
    let before = history.clone();
    history.finish_at(250, op, Outcome::Acknowledged { version: 3 });
    let line = format!("{}\n", history.line(op));
    for torn in 0..line.len() {
        let file = format!("{recorded}{}", &line[..torn]);
        assert_eq!(History::from_lines(&file).unwrap(), before);
    }
    let whole = History::from_lines(&format!("{recorded}{line}"));
    assert_eq!(whole.unwrap(), history);
}

#[test]
fn merging_orders_by_time_and_then_by_recorder() {
    let mut one = History::new();
    let op = one.invoke_at(30, 1, 0, Call::Write(10));
    one.finish_at(90, op, Outcome::Unclear);
    one.invoke_at(20, 1, 0, Call::Write(11));
    let mut other = History::new();
    other.invoke_at(30, 2, 0, Call::Write(12));
    other.observe_at(10, 2, 0, None, 0);
    let expected = "\
10..10 client 2 cell 0 read: saw nothing at 0
20.. client 1 cell 0 write 11: unclear
30..90 client 1 cell 0 write 10: unclear
30.. client 2 cell 0 write 12: unclear
";
    let mut merged = History::merge([one, other]);
    assert_eq!(merged.to_lines(), expected);
    // It goes on after the latest time of all.
    let op = merged.invoke(3, 0, Call::Wait);
    assert_eq!(merged.line(op), "91.. client 3 cell 0 wait: unclear");
}

#[test]
#[should_panic(expected = "finished already")]
fn a_call_is_finished_once() {
    let mut history = History::new();
    let op = history.invoke(1, 0, Call::Wait);
    history.finish(op, Outcome::Unclear);
    history.finish(op, Outcome::Unclear);
}
