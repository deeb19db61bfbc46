//! Exit codes, each as documented.

use super::lab::{Lab, ended, kill, until};

#[test]
fn it_ends_as_the_command_did_here_and_elsewhere() {
    let lab = Lab::new();
    lab.once("run well -- echo x >> out").expect(0);
    lab.once("run well -- echo x >> out").expect(0);
    lab.once("run badly -- echo x >> out; exit 3").expect(3);
    let again = lab.once("run badly -- echo x >> out; exit 4");
    assert!(again.err.contains("once reset badly"), "{again:?}");
    again.expect(3);
    lab.once("run shot -- kill -9 $$").expect(137);
    lab.once("run shot -- true").expect(137);
    assert_eq!(lab.lines("out"), ["x", "x"]);
}

#[test]
fn a_skip_has_the_code_that_was_asked_for() {
    let lab = Lab::new();
    lab.once("run a --skip-exit-code 100 -- true").expect(0);
    lab.once("run a --skip-exit-code 100 -- true").expect(100);
    lab.once("run b --skip-exit-code 100 -- exit 5").expect(5);
    lab.once("run b --skip-exit-code 100 -- exit 5").expect(5);
}

#[test]
fn a_wrong_command_line_is_64() {
    let lab = Lab::new();
    for line in [
        "",
        "dance",
        "run",
        "run a",
        "run a --ttl soon -- true",
        "run a --every decade -- true",
        "run a --every day --timezone Mars/Olympus -- true",
        "run a --wait 1s --no-wait -- true",
        "run a --retries 3 -- true",
        "finish a --claim nonsense",
        "resolve a",
        "--ticket-file /no/such/file list",
        "status",
        "serve --voter a --voters a --data-dir d",
        "serve --voter a --voters a=127.0.0.1:1 --data-dir d",
    ] {
        lab.once(line).expect(64);
    }
    let long = "x".repeat(300);
    lab.once(&format!("run {long} -- true")).expect(64);
    lab.once("--help").expect(0);
    lab.once("run --help").expect(0);
    assert_eq!(lab.json("list -o json"), serde_json::json!([]));
}

#[test]
fn what_cannot_be_executed_claims_nothing() {
    let lab = Lab::new();
    let run = |command: &str| ended(lab.start(["run", "a", "--", command]));
    run("no-such-command").expect(127);
    run("/no/such/command").expect(127);
    std::fs::write(lab.path("plain"), "no program").unwrap();
    run("./plain").expect(126);
    run("/").expect(126);
    lab.once("get a").expect(1);
    lab.once("run a -- true").expect(0);
}

#[test]
fn what_runs_elsewhere_is_waited_for_or_75() {
    let lab = Lab::new();
    let first = lab.start_line("run a -- echo x >> out; until_go; exit 7");
    until("it runs", || (!lab.lines("out").is_empty()).then_some(()));
    lab.once("run a --no-wait -- echo y >> out").expect(75);
    lab.once("run a --wait 50ms -- echo y >> out").expect(75);
    lab.once("wait a --timeout 50ms").expect(75);
    let waits = [
        lab.start_line("run a -- echo y >> out"),
        lab.start_line("wait a"),
    ];
    std::fs::write(lab.path("go"), "").unwrap();
    ended(first).expect(7);
    for wait in waits {
        ended(wait).expect(7);
    }
    assert_eq!(lab.lines("out"), ["x"]);
}

#[test]
fn what_is_abandoned_is_79_until_somebody_sees_to_it() {
    let lab = Lab::new();
    let wrapper = lab.start_line("run a -- echo $$ >> out; until_go");
    until("it runs", || (!lab.lines("out").is_empty()).then_some(()));
    let waits = lab.start_line("wait a");
    kill(wrapper);
    ended(waits).expect(79);
    let again = lab.once("run a -- echo y >> out");
    assert!(
        again.err.contains("once resolve a") && again.err.contains("once reset a"),
        "{again:?}"
    );
    again.expect(79);
    assert_eq!(lab.state_of("a"), "abandoned");
    lab.once("resolve a --failed no-idea").expect(0);
    lab.once("run a -- echo y >> out").expect(1);
    lab.once("reset a").expect(0);
    lab.once("run a -- echo y >> out").expect(0);
    std::fs::write(lab.path("go"), "").unwrap();
    assert_eq!(lab.lines("out")[1..], ["y"]);
    let deeds = lab.json("deeds --json");
    let deeds: Vec<_> = deeds
        .as_array()
        .unwrap()
        .iter()
        .map(|deed| deed["deed"].as_str().unwrap())
        .collect();
    assert_eq!(deeds, ["resolved", "reset"]);
}

#[test]
fn a_store_that_is_damaged_is_69_and_nothing_runs() {
    let lab = Lab::new();
    for task in ["a", "b", "c"] {
        lab.once(&format!("create {task}")).expect(0);
    }
    let path = lab.path("state/tasks/default/journal");
    let bytes = std::fs::read(&path).unwrap();
    let mut flipped = bytes.clone();
    flipped[100] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    lab.once("run d -- echo x >> out").expect(69);
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    lab.once("run c -- echo x >> out").expect(69);
    assert!(lab.lines("out").is_empty());
}
