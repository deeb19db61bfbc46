//! Signals reach the command, and its end is recorded all the same.

use nix::sys::signal::Signal;

use super::lab::{Lab, ended, signal, until};

const ENDLESS: &str = "until_go";

#[test]
fn a_signal_is_passed_on_and_the_end_is_recorded() {
    for (sent, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGINT, 130),
        (Signal::SIGHUP, 129),
        (Signal::SIGQUIT, 131),
        (Signal::SIGUSR1, 138),
        (Signal::SIGUSR2, 140),
        (Signal::SIGALRM, 142),
        (Signal::SIGPWR, 158),
    ] {
        if mask_of("self", "SigIgn:").is_some_and(|ignored| has(ignored, sent)) {
            eprintln!(
                "{sent} is ignored here, as under nohup, and so by all that this starts: left out"
            );
            continue;
        }
        let lab = Lab::new();
        let child = lab.start_line(&format!("run a -- echo x > out; {ENDLESS}"));
        until("it runs", || (!lab.lines("out").is_empty()).then_some(()));
        signal(&child, sent);
        ended(child).expect(code);
        assert_eq!(lab.state_of("a"), "failed");
        lab.once("run a -- true").expect(code);
    }
}

#[test]
fn a_command_may_end_well_after_term() {
    let lab = Lab::new();
    let child = lab.start_line(&format!(
        "run a -- trap 'exit 0' TERM; echo x > out; {ENDLESS}"
    ));
    until("it runs", || (!lab.lines("out").is_empty()).then_some(()));
    signal(&child, Signal::SIGTERM);
    ended(child).expect(0);
    assert_eq!(lab.state_of("a"), "succeeded");
}

#[test]
fn nothing_of_the_command_is_left_behind_term() {
    let lab = Lab::new();
    // Its child takes no notice of TERM, and outlives it.
    let script = format!(
        "(trap '' TERM; sh -c 'echo $PPID > pid'; {ENDLESS}) & until [ -s pid ]; do sleep 0.01; done; echo x > out; wait"
    );
    let child = lab.start_line(&format!("run a -- {script}"));
    until("it runs", || (!lab.lines("out").is_empty()).then_some(()));
    signal(&child, Signal::SIGTERM);
    ended(child).expect(143);
    let pid = nix::unistd::Pid::from_raw(lab.lines("pid")[0].parse().unwrap());
    // Whoever it was given to may take a moment to bury it.
    until("it is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

/// A mask of signals of a process.
fn mask_of(pid: &str, which: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix(which))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn has(mask: u64, signal: Signal) -> bool {
    mask & (1 << (signal as u64 - 1)) != 0
}

fn catches_term(child: &std::process::Child) -> Option<()> {
    let caught = mask_of(&child.id().to_string(), "SigCgt:")?;
    has(caught, Signal::SIGTERM).then_some(())
}

#[test]
fn one_that_waits_ends_by_a_signal_and_the_other_runs_on() {
    let lab = Lab::new();
    let first = lab.start_line("run a -- echo x > out; until_go");
    until("it runs", || (!lab.lines("out").is_empty()).then_some(()));
    let second = lab.start_line("run a -- true");
    // It catches signals before it claims, and so before it waits.
    until("it catches signals", || catches_term(&second));
    signal(&second, Signal::SIGTERM);
    ended(second).expect(143);
    std::fs::write(lab.path("go"), "").unwrap();
    ended(first).expect(0);
}

#[test]
fn what_was_ignored_from_the_start_is_ignored() {
    let lab = Lab::new();
    lab.script("true").expect(0);
    let mut command = lab.command("nohup");
    let script =
        "i=0; echo x > out; while [ ! -e go ] && [ $i -lt 15000 ]; do sleep 0.01; i=$((i+1)); done";
    let args = ["run", "a", "--", "sh", "-c", script];
    let child = command
        .arg(env!("CARGO_BIN_EXE_once"))
        .args(args)
        .spawn()
        .unwrap();
    until("it runs", || (!lab.lines("out").is_empty()).then_some(()));
    signal(&child, Signal::SIGHUP);
    // It would be passed on before this is.
    signal(&child, Signal::SIGCONT);
    std::fs::write(lab.path("go"), "").unwrap();
    ended(child).expect(0);
    assert_eq!(lab.state_of("a"), "succeeded");
}

/// Holds the lock of the embedded store, as a process does that is stopped in the middle.
#[test]
fn whoever_waits_for_the_store_ends_by_a_signal_and_claims_nothing() {
    let lab = Lab::new();
    lab.once("create a").expect(0);
    let lock = std::fs::File::open(lab.path("state/tasks/default/lock")).unwrap();
    lock.lock().unwrap();
    let child = lab.start_line("run a -- echo x >> out");
    until("it catches signals", || catches_term(&child));
    signal(&child, Signal::SIGTERM);
    ended(child).expect(143);
    drop(lock);
    assert_eq!(lab.state_of("a"), "pending");
    lab.once("run a -- echo x >> out").expect(0);
}

#[test]
fn a_killed_command_is_a_failure_and_nothing_hangs() {
    let lab = Lab::new();
    let child = lab.start_line(&format!("run a -- echo $$ > out; {ENDLESS}"));
    let pid = until("it runs", || {
        lab.lines("out").first().and_then(|pid| pid.parse().ok())
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    ended(child).expect(137);
    assert_eq!(lab.state_of("a"), "failed");
}
