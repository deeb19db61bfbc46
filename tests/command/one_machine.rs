//! Tasks of one machine.

use super::lab::{Lab, ended, kill, until};

#[test]
fn of_fifty_that_race_one_runs() {
    let lab = Lab::new();
    let racers: Vec<_> = (0..50)
        .map(|_| lab.start_line("run k -- echo x >> out"))
        .collect();
    for racer in racers {
        ended(racer).expect(0);
    }
    assert_eq!(lab.lines("out"), ["x"]);
}

#[test]
fn many_keys_are_raced_for_without_a_double() {
    Lab::new().race_for_keys(40);
}

#[test]
fn a_watch_that_nobody_reads_ends() {
    let lab = Lab::new();
    lab.once("create a").expect(0);
    lab.script("once watch | head -1").expect(0);
}

#[test]
fn a_policy_is_that_of_whoever_created_the_task_but_once_is_once() {
    let lab = Lab::new();
    lab.once("create a --at-least-once --backoff 1ms").expect(0);
    let went = lab.once("run a -- echo x >> out; exit 3");
    assert!(went.err.contains("at least once"), "{went:?}");
    went.expect(3);
    assert_eq!(lab.lines("out").len(), 1);
}

#[test]
fn whoever_waits_goes_on_when_the_task_is_reset() {
    let lab = Lab::new();
    let old = lab.start_line("run a -- echo x >> out; until_go");
    until("it runs", || (!lab.lines("out").is_empty()).then_some(()));
    let waits = lab.start_line("wait a");
    let reset = lab.once("reset a");
    assert!(reset.err.contains("runs on"), "{reset:?}");
    lab.once("run a -- exit 6").expect(6);
    ended(waits).expect(6);
    std::fs::write(lab.path("go"), "").unwrap();
    ended(old).expect(0);
    assert_eq!(lab.state_of("a"), "failed");
}

#[test]
fn the_command_is_told_what_it_is() {
    let lab = Lab::new();
    lab.once("run a/b -- echo $ONCE_KEY $ONCE_ATTEMPT $ONCE_VERSION $ONCE_CLAIM_ID $ONCE_STATE_DIR > out").expect(0);
    let line = lab.lines("out").join("");
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[..3], ["a/b", "1", "1"]);
    assert_eq!(words[3].len(), 32);
    assert_eq!(words[4], lab.path("state").to_str().unwrap());
}

#[test]
fn namespaces_know_nothing_of_each_other() {
    let lab = Lab::new();
    for namespace in ["a", "b", "../c"] {
        lab.once(&format!("-n {namespace} run k -- echo x >> out"))
            .expect(0);
        lab.once(&format!("-n {namespace} run k -- echo x >> out"))
            .expect(0);
    }
    assert_eq!(lab.lines("out").len(), 3);
}

#[test]
fn a_failure_is_tried_again_where_that_is_asked_for() {
    let lab = Lab::new();
    let script = "echo $ONCE_ATTEMPT >> out; [ $ONCE_ATTEMPT = 3 ]";
    lab.once(&format!("run a --at-least-once --backoff 1ms -- {script}"))
        .expect(0);
    assert_eq!(lab.lines("out"), ["1", "2", "3"]);
    lab.once("run b --at-least-once --retries 1 --backoff 1ms -- echo b >> out; exit 9")
        .expect(9);
    assert_eq!(lab.lines("out")[3..], ["b", "b"]);
    lab.once("run b -- true").expect(9);
    // Whoever does not wait for the next attempt ends as the last one did.
    lab.once("run c --at-least-once --backoff 1h --no-wait -- exit 8")
        .expect(8);
    lab.once("run c --at-least-once --no-wait -- true")
        .expect(75);
}

#[test]
fn a_dead_executor_is_followed_by_one_that_waits() {
    let lab = Lab::new();
    let run = "run a --at-least-once --backoff 1ms -- echo $ONCE_ATTEMPT >> out; [ $ONCE_ATTEMPT = 2 ] || until_go";
    let first = lab.start_line(run);
    until("it runs", || (!lab.lines("out").is_empty()).then_some(()));
    let second = lab.start_line(run);
    kill(first);
    ended(second).expect(0);
    std::fs::write(lab.path("go"), "").unwrap();
    assert_eq!(lab.lines("out"), ["1", "2"]);
    assert_eq!(lab.state_of("a"), "succeeded");
}

#[test]
fn a_script_claims_and_finishes() {
    let lab = Lab::new();
    let claim = lab.once("claim a").expect(0);
    lab.once("claim a").expect(1);
    assert_eq!(lab.state_of("a"), "running");
    lab.once("run a --no-wait -- true").expect(75);
    let other = "0".repeat(32);
    lab.once(&format!("finish a --claim {other}")).expect(1);
    lab.once(&format!("finish a --claim {claim} --exit-code 4"))
        .expect(0);
    // Twice is as once.
    lab.once(&format!("finish a --claim {claim}")).expect(0);
    lab.once("run a -- true").expect(4);
    lab.once("claim a").expect(1);
}

#[test]
fn tasks_are_created_shown_reset_and_deleted() {
    let lab = Lab::new();
    assert!(lab.once("create a --ttl 1h").expect(0).contains("created"));
    lab.once("create a").expect(1);
    assert_eq!(
        lab.once("check a").expect(1),
        "once a has not been executed\n"
    );
    assert_eq!(
        lab.once("check b").expect(1),
        "once b has not been executed\n"
    );
    lab.once("run a -- true").expect(0);
    assert_eq!(lab.once("check a").expect(0), "once a has been executed\n");
    let table = lab.once("list").expect(0);
    assert!(
        table.starts_with("NAME") && table.contains("succeeded"),
        "{table}"
    );
    let task = lab.json("get a -o json");
    assert_eq!(task["spec"]["ttl"], "1h");
    assert_eq!(task["status"]["phase"], "Executed");
    assert_eq!(task["status"]["executed"], true);
    assert_eq!(task["status"]["exitCode"], 0);
    lab.once("reset a").expect(0);
    assert_eq!(lab.state_of("a"), "pending");
    lab.once("delete a").expect(0);
    lab.once("delete a").expect(0);
    lab.once("get a").expect(1);
    lab.once("reset a").expect(1);
}

#[test]
fn a_task_that_is_over_runs_again() {
    let lab = Lab::new();
    lab.once("run a --ttl 1ms -- echo x >> out").expect(0);
    until("it is forgotten", || {
        (lab.once("get a").code == Some(1)).then_some(())
    });
    lab.once("run a -- echo x >> out").expect(0);
    assert_eq!(lab.lines("out").len(), 2);
}

#[test]
fn a_schedule_s_tick_is_in_the_name() {
    let lab = Lab::new();
    for every in ["hour", "day", "week", "month"] {
        // The tick may change between two, once.
        let runs = || {
            lab.once(&format!(
                "run {every} --every {every} -- echo $ONCE_KEY >> out"
            ))
            .expect(0)
        };
        (0..3).for_each(|_| drop(runs()));
    }
    let lines = lab.lines("out");
    assert!((4..=8).contains(&lines.len()), "{lines:?}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("week@2") && line.contains("-W")),
        "{lines:?}"
    );
    let task = lab.json(&format!("get {} -o json", lines[0]));
    assert_eq!(task["spec"]["ttl"], "72h");
}

#[test]
fn a_report_says_what_came_of_it() {
    let lab = Lab::new();
    let report =
        || -> serde_json::Value { serde_json::from_str(&lab.lines("report").join("")).unwrap() };
    lab.once("run a --report report -- exit 3").expect(3);
    let first = report();
    assert_eq!(
        (&first["ran"], &first["exitCode"], &first["attempt"]),
        (&true.into(), &3.into(), &1.into())
    );
    lab.once("run a --report report -- exit 3").expect(3);
    assert_eq!(report()["ran"], false);
    assert_eq!(report()["task"]["status"]["state"], "failed");
}

#[test]
fn changes_are_shown_as_they_come() {
    use std::io::{BufRead, BufReader};
    let lab = Lab::new();
    lab.once("create a").expect(0);
    let mut watch = lab.start_line("watch");
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("a pending"));
    lab.once("run a -- true").expect(0);
    let mut line = next();
    if line.contains("running") {
        line = next();
    }
    assert!(line.starts_with("a succeeded"), "{line}");
    lab.once("delete a").expect(0);
    assert_eq!(next(), "a removed");
    kill(watch);
}

#[test]
fn there_are_completions_and_manual_pages() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            lab.once(&format!("completions {shell}"))
                .expect(0)
                .contains("once")
        );
    }
    std::fs::create_dir(lab.path("man")).unwrap();
    lab.once("man man").expect(0);
    let page = std::fs::read_to_string(lab.path("man/once-run.1")).unwrap();
    assert!(page.contains("ONCE_ATTEMPT"));
}

#[test]
fn a_wrapper_killed_at_any_moment_starts_it_at_most_once() {
    const KEYS: usize = 60;
    let lab = Lab::new();
    for key in 0..KEYS {
        let wrapper = lab.start_line(&format!("run {key} -- echo {key} >> out"));
        // From before it claims until behind its end, step by step.
        std::thread::sleep(std::time::Duration::from_micros(700 * key as u64));
        kill(wrapper);
    }
    let mut ran = 0;
    for key in 0..KEYS {
        match lab.once(&format!("run {key} -- echo {key} >> out")).code {
            Some(0) => ran += 1,
            // Claimed, and nobody knows how far it came.
            Some(79) => assert_eq!(lab.state_of(&key.to_string()), "abandoned"),
            other => panic!("{key}: {other:?}"),
        }
    }
    let mut lines = lab.lines("out");
    lines.sort();
    let count = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), count, "one was started twice");
    assert!((ran..=KEYS).contains(&count), "{ran} of {count}");
}
