//! What is logged: nothing while all is well; at `debug`, the way of every proposal.

mod process;

use process::{Cluster, Node, until};

#[test]
fn child_entry() {
    process::child_entry();
}

fn well(name: &str, log: &str) {
    // Whoever wrote it: an operator reads one log.
    assert!(log.is_empty(), "{name} logs while all is well:\n{log}");
}

#[test]
fn at_info_nothing_is_logged_while_all_is_well() {
    let mut cluster = Cluster::new("quiet");
    cluster.spec.log = Some("info".into());
    cluster.spec.write_timeout_ms = Some(30_000);
    cluster.start_all([0, 1, 2]);
    let observer = cluster.observer();
    let everybody = |cluster: &Cluster, observer: &Node, round: usize| {
        for (at, node) in cluster.up().chain([observer]).enumerate() {
            let cell = format!("cell-{round}-{at}");
            assert_eq!(node.call(&["claim", &cell, "value"])[0], "won");
            assert_eq!(node.call(&["write", &cell, "ignored"])[0], "ok");
        }
        for node in cluster.up().chain([observer]) {
            for at in 0..4 {
                let cell = format!("cell-{round}-{at}");
                assert_eq!(node.call(&["wait", &cell]), ["some", "value"]);
                assert_eq!(node.linear(&cell), ["some", "value"]);
            }
        }
    };
    everybody(&cluster, &observer, 0);
    // An orderly restart of one, and all go on.
    let log = cluster.end(1);
    well("a voter that was shut down", &log);
    cluster.start_all([0, 1, 2]);
    observer.linked_to(&["a", "b", "c"]);
    everybody(&cluster, &observer, 1);

    well("the observer", &observer.end());
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        well(name, &cluster.end(at));
    }
}

/// The value of a field of an event.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let at = line.find(&format!("{name}="))? + name.len() + 1;
    line[at..].split_whitespace().next()
}

#[test]
fn at_debug_a_proposal_can_be_followed_through_all_nodes() {
    let mut cluster = Cluster::new("followed");
    cluster.spec.log = Some("raft_once=debug".into());
    cluster.spec.write_timeout_ms = Some(30_000);
    cluster.start_all([0, 1, 2]);
    let observer = cluster.observer();
    for cell in ["first", "second"] {
        assert_eq!(observer.call(&["claim", cell, "hunter2"])[0], "won");
    }
    let group = observer.call(&["group", "second"])[0][..8].to_string();
    for node in cluster.up() {
        assert_eq!(node.call(&["wait", "second"]), ["some", "hunter2"]);
    }
    let of_group = |log: &str, event: &str| -> Vec<String> {
        let lines = log.lines().filter(|line| line.contains(event));
        let lines = lines.filter(|line| field(line, "group") == Some(&*group));
        lines.map(str::to_string).collect()
    };
    let client = observer.log();
    let proposed = of_group(&client, "proposed");
    assert_eq!(proposed.len(), 1, "{proposed:?} in:\n{client}");
    // It names the proposal; the same name is in what every later node says of it.
    let ids: Vec<&str> = proposed[0]
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .filter(|word| *word != group)
        .collect();
    assert!(!ids.is_empty(), "no proposal id in: {}", proposed[0]);
    let same = |line: &String| ids.iter().any(|id| line.contains(id));

    let voters: Vec<String> = cluster.up().map(Node::log).collect();
    let asked: Vec<String> = voters
        .iter()
        .flat_map(|log| of_group(log, "asked to commit"))
        .collect();
    assert!(asked.iter().any(same), "{ids:?} is not in: {asked:?}");
    let committed = of_group(&client, "committed");
    assert!(
        committed.iter().any(same),
        "{ids:?} is not in: {committed:?}"
    );
    let version = field(&committed[0], "version")
        .expect("a version")
        .to_string();
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let mut applied = Vec::new();
        until(
            format!("{name} says that it applied version {version}"),
            || {
                applied = of_group(&cluster.node(at).log(), "applied");
                applied
                    .iter()
                    .any(|line| field(line, "version") == Some(&*version))
            },
        );
        assert!(
            applied.iter().any(same),
            "{name}: {ids:?} is not in: {applied:?}"
        );
    }
    for log in voters.iter().chain([&client]) {
        assert!(!log.contains("hunter2"), "a value is in the log");
        assert!(!log.contains(process::SECRET), "the secret is in the log");
    }
}
