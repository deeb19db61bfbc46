//! Manifests.

use super::lab::Lab;

fn apply(lab: &Lab, text: &str) -> super::lab::Went {
    std::fs::write(lab.path("m.yaml"), text).unwrap();
    lab.once("apply -f m.yaml")
}

const GOOD: &str = "\
apiVersion: konductor.io/v1
kind: Once
metadata:
  name: db-init
  namespace: default
spec:
  ttl: 24h
---
apiVersion: konductor.io/v1
kind: Once
metadata:
  name: stage-2-init
";

#[test]
fn a_manifest_creates_what_is_not_there() {
    let lab = Lab::new();
    assert_eq!(
        apply(&lab, GOOD).expect(0),
        "once db-init created\nonce stage-2-init created\n"
    );
    assert_eq!(
        apply(&lab, GOOD).expect(0),
        "once db-init unchanged\nonce stage-2-init unchanged\n"
    );
    apply(&lab, &GOOD.replace("24h", "1h")).expect(1);
    assert_eq!(lab.json("get db-init -o json")["spec"]["ttl"], "24h");
    assert_eq!(
        lab.json("get db-init -o json")["status"]["phase"],
        "Pending"
    );
}

#[test]
fn a_status_is_ignored_whatever_it_says() {
    let lab = Lab::new();
    let status = "status:\n  executed: true\n  executor: pod-xyz-123\n  phase: Executed\n  conditions:\n  - type: Ready\n";
    let head = "apiVersion: konductor.io/v1\nkind: Once\nmetadata:\n  name: app-init\n";
    apply(&lab, &format!("{head}{status}")).expect(0);
    assert_eq!(lab.state_of("app-init"), "pending");
    // Nothing of a manifest is created if one part of it cannot be.
    let other = head.replace("app-init", "other");
    apply(&lab, &format!("{other}---\n{head}spec:\n  ttl: 1h\n")).expect(1);
    lab.once("get other").expect(1);
}

#[test]
fn what_is_printed_can_be_applied() {
    let lab = Lab::new();
    apply(&lab, GOOD).expect(0);
    lab.once("create c --at-least-once --retries 5 --backoff 2s --ttl 1h30m")
        .expect(0);
    lab.once("run db-init -- true").expect(0);
    lab.once("run stage-2-init -- kill -9 $$").expect(137);
    let yaml = lab.once("list -o yaml").expect(0);
    let there = Lab::new();
    assert_eq!(apply(&there, &yaml).expect(0).lines().count(), 3);
    for name in ["db-init", "stage-2-init", "c"] {
        let get = format!("get {name} -o json");
        let (before, after) = (lab.json(&get), there.json(&get));
        assert_eq!(
            (&before["metadata"], &before["spec"]),
            (&after["metadata"], &after["spec"])
        );
        assert_eq!(after["status"]["phase"], "Pending");
    }
    let one = lab.once("get db-init -o yaml").expect(0);
    for line in [
        "apiVersion: konductor.io/v1",
        "kind: Once",
        "  executed: true",
        "  phase: Executed",
        "  - type: Ready",
    ] {
        assert!(one.contains(line), "{line}: {one}");
    }
}

#[test]
fn a_bad_manifest_is_refused_with_line_and_reason() {
    let lab = Lab::new();
    let head = "apiVersion: konductor.io/v1\nkind: Once\nmetadata:\n  name: a\n";
    for (text, line, reason) in [
        (
            "apiVersion: apps/v1\nkind: Once\nmetadata:\n  name: a\n".into(),
            1,
            "konductor.io/v1",
        ),
        (head.replace("Once", "Deployment"), 2, "Deployment"),
        (
            format!("{GOOD}---\n{}", head.replace("Once", "Job")),
            15,
            "Job",
        ),
        (format!("{head}spec:\n  ttl: soon\n"), 6, "soon"),
        (format!("{head}spec:\n  tll: 1h\n"), 6, "tll"),
        (format!("{head}speck:\n  ttl: 1h\n"), 5, "speck"),
        (format!("{head}  labels: {{}}\n"), 5, "labels"),
        (format!("{head}  name: b\n"), 5, "name"),
        (head.replace("  name: a", "  namespace: a"), 4, "name"),
        (head.replace("name: a", "name: \"\""), 4, "1 to 200 bytes"),
        (format!("{head}spec:\n\tttl: 1h\n"), 6, "tab"),
        (
            format!("{head}spec:\n  retries: x\n  policy: AtLeastOnce\n"),
            6,
            "u32",
        ),
        ("[".into(), 1, ""),
    ] {
        let went = apply(&lab, &text);
        assert_eq!(went.code, Some(64), "{text}: {went:?}");
        assert!(
            went.err.contains(&format!("m.yaml:{line}:")),
            "line {line} of {text}: {}",
            went.err
        );
        assert!(
            went.err.to_lowercase().contains(&reason.to_lowercase()),
            "{reason}: {}",
            went.err
        );
    }
    apply(&lab, "").expect(64);
    let went = apply(&lab, &format!("{head}spec:\n  retries: 3\n"));
    assert!(went.err.contains("m.yaml:"), "{went:?}");
    went.expect(64);
    assert_eq!(lab.json("list -o json"), serde_json::json!([]));
}
