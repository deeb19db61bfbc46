//! Jobs on a cluster of `once serve` processes that are killed.

use std::collections::BTreeSet;

use super::cluster::Cluster;
use super::lab::until;

/// Whoever runs it says so in a file, and takes a while.
fn job(kind: &str, file: &str) -> String {
    let script = format!("echo $ONCE_IDEMPOTENCY_KEY >> {file}; sleep 0.2");
    format!(
        r#"{{"schedule": "* * * * * *", "type": "{kind}", "isRecurring": true, "command": ["sh", "-c", "{script}"]}}"#
    )
}

#[test]
fn of_a_cluster_that_is_killed_again_and_again_each_tick_is_run_once_at_most() {
    let mut cluster = Cluster::start();
    let mut ids = Vec::new();
    for n in 0..6 {
        let kind = ["AT_MOST_ONCE", "AT_LEAST_ONCE"][n % 2];
        std::fs::write(cluster.lab.path("job.json"), job(kind, kind)).unwrap();
        ids.push(cluster.lab.once("jobs create -f job.json").expect(0));
    }
    for round in 0..5 {
        let seen = cluster.lab.lines("AT_MOST_ONCE").len();
        until("some ticks are run", || {
            (cluster.lab.lines("AT_MOST_ONCE").len() > seen + 6).then_some(())
        });
        cluster.kill(round % 3);
        cluster.serve(round % 3);
    }
    for id in &ids {
        cluster.answers();
        cluster.lab.once(&format!("jobs pause {id}")).expect(0);
    }
    let called = cluster.lab.lines("AT_MOST_ONCE");
    let once: BTreeSet<_> = called.iter().collect();
    assert_eq!(once.len(), called.len(), "{called:?}");
    for id in &ids {
        let history = cluster.lab.json(&format!("jobs history {id} --json"));
        let history = history.as_array().unwrap();
        assert!(
            history
                .iter()
                .any(|execution| execution["status"] == "SUCCESS"),
            "{history:?}"
        );
    }
    // Asked for, and told as the document has it.
    cluster
        .lab
        .once(&format!("jobs run-now {}", ids[0]))
        .expect(0);
    until("it is run once more", || {
        let last = cluster.lab.json(&format!("jobs get {}", ids[0]))["last"].clone();
        let is_asked = last["tick"]
            .as_str()
            .is_some_and(|tick| tick.starts_with("now-"));
        (is_asked && last["status"] == "SUCCESS").then_some(())
    });
    cluster
        .lab
        .once(&format!("jobs delete {}", ids[0]))
        .expect(0);
    cluster.lab.once(&format!("jobs get {}", ids[0])).expect(1);
}

#[test]
fn a_bad_job_is_refused_with_its_field_before_anybody_is_asked() {
    let cluster = Cluster::start();
    let bad = job("AT_MOST_ONCE", "x").replace("* * * * * *", "0 12 * * *");
    std::fs::write(cluster.lab.path("job.json"), bad).unwrap();
    let refused = cluster.lab.once("jobs create -f job.json");
    assert!(
        refused.err.contains("schedule:") && refused.err.contains("seconds come first"),
        "{}",
        refused.err
    );
    refused.expect(64);
    assert_eq!(cluster.lab.json("jobs list --json"), serde_json::json!([]));
}

/// A job that runs once, says so in `out`, and ends when there is a file `go`.
fn long_job() -> String {
    let script = "sleep 1000 & echo $! >> out; i=0; while [ ! -e go ] && [ $i -lt 15000 ]; do sleep 0.01; \
                  i=$((i+1)); done; kill $!";
    format!(
        r#"{{"schedule": "* * * * * *", "type": "AT_MOST_ONCE", "timeout": "10m", "command": ["sh", "-c", "{script}"]}}"#
    )
}

/// Whoever runs it.
fn runner(cluster: &Cluster, id: &str) -> usize {
    until("it runs", || {
        (!cluster.lab.lines("out").is_empty()).then_some(())
    });
    let job = cluster.lab.json(&format!("jobs get {id}"));
    Cluster::at(job["last"]["worker"].as_str().unwrap())
}

#[test]
fn a_voter_that_is_told_to_end_waits_for_the_jobs_that_run_there() {
    let mut cluster = Cluster::start();
    std::fs::write(cluster.lab.path("job.json"), long_job()).unwrap();
    let id = cluster.lab.once("jobs create -f job.json").expect(0);
    let at = runner(&cluster, &id);
    cluster.tell(at);
    until("it knows that it is to end", || {
        cluster.says(at, "begins no more jobs").then_some(())
    });
    std::fs::write(cluster.lab.path("go"), "").unwrap();
    assert_eq!(cluster.ended(at, false), Some(0));
    cluster.serve(at);
    cluster.answers();
    let last = cluster.lab.json(&format!("jobs get {id}"))["last"].clone();
    assert_eq!(last["status"], "SUCCESS", "{last}");
}

#[test]
fn a_voter_that_is_told_twice_gives_up_what_runs_there_with_all_its_processes() {
    let mut cluster = Cluster::start();
    std::fs::write(cluster.lab.path("job.json"), long_job()).unwrap();
    let id = cluster.lab.once("jobs create -f job.json").expect(0);
    let at = runner(&cluster, &id);
    let pid: i32 = cluster.lab.lines("out")[0].parse().unwrap();
    assert_eq!(cluster.ended(at, true), Some(0));
    let pid = nix::unistd::Pid::from_raw(pid);
    until("its processes are gone", || {
        // Whoever inherits a dead one may never look at it.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_gone = nix::sys::signal::kill(pid, None).is_err() || stat.contains(") Z ");
        is_gone.then_some(())
    });
}

#[test]
fn what_a_job_says_does_not_reach_the_terminal_as_it_is() {
    let cluster = Cluster::start();
    let bad = r#"{"schedule": "0 0 12 * * *", "type": "AT_MOST_ONCE", "command": ["echo", "\u001b[2J\u009b2J"]}"#;
    std::fs::write(cluster.lab.path("job.json"), bad).unwrap();
    let id = cluster.lab.once("--as x jobs create -f job.json").expect(0);
    for line in [
        "jobs list",
        &format!("jobs get {id}"),
        &format!("jobs history {id}"),
    ] {
        let said = cluster.lab.once(line).expect(0);
        let is_bad = |c: char| c.is_control() && c != '\n';
        assert!(!said.contains(is_bad), "{line}: {said:?}");
    }
}
