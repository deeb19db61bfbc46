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
