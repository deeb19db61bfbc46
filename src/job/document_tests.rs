//! What is accepted of jobs, and what is refused with its field.

use serde_json::json;

use super::*;

fn now() -> Timestamp {
    "2024-01-01T00:00:00Z".parse().unwrap()
}

/// A job that is sound, with some fields in place of its own; null takes one away.
fn with(changes: Value) -> Result<Spec> {
    let mut job = json!({
        "schedule": "0 0 12 * * *",
        "api": "https://example.com/send-notification",
        "type": "AT_MOST_ONCE",
    });
    let fields = job.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(fields.remove(name)),
            value => drop(fields.insert(name.clone(), value.clone())),
        }
    }
    read(&job.to_string(), now())
}

#[test]
fn the_jobs_of_the_document_are_accepted_as_they_stand() {
    let once = r#"{
      "schedule": "0 0 12 * * *",
      "api": "https://example.com/send-notification",
      "type": "AT_MOST_ONCE",
      "isRecurring": false,
      "description": "Send one-time notification"
    }"#;
    let once = read(once, now()).unwrap();
    assert_eq!(
        (once.policy, once.is_recurring),
        (Policy::AtMostOnce, false)
    );
    assert_eq!((once.zone.as_str(), once.timeout_ms), ("UTC", 30_000));
    assert_eq!(once.description, "Send one-time notification");
    let Action::Call(call) = &once.action else {
        panic!("{once:?}")
    };
    assert_eq!(call.method, "POST");
    for (schedule, is_recurring) in [
        ("0 0 12 * * MON-FRI", json!(true)),
        ("0 0 9 * * *", json!(null)),
        ("0 0 2 * * *", json!(null)),
        ("0 0 1 1 * *", json!(null)),
        ("0 0 3 * * *", json!(null)),
    ] {
        let job = with(json!({"schedule": schedule, "isRecurring": is_recurring})).unwrap();
        assert_eq!(job.is_recurring, is_recurring == json!(true));
    }
}

#[test]
fn what_else_a_job_may_say() {
    let job = with(json!({
        "type": "AT_LEAST_ONCE", "maxRetryCount": 7, "timeout": "1m30s", "method": "PUT",
        "timezone": "Europe/Berlin", "headers": {"X-Team": "a"}, "body": {"userId": 123},
    }));
    let job = job.unwrap();
    assert!(matches!(
        job.policy,
        Policy::AtLeastOnce {
            retries_max: 7,
            backoff_max_ms: 300_000,
            ..
        }
    ));
    assert_eq!(
        (job.timeout_ms, job.after.to_string()),
        (90_000, "2024-01-01T01:00:00".into())
    );
    let Action::Call(call) = job.action else {
        panic!()
    };
    assert_eq!(
        (call.body.as_str(), call.headers.len()),
        (r#"{"userId":123}"#, 2)
    );
    let job = with(json!({"api": null, "command": ["backup", "--all"], "timeout": 5})).unwrap();
    assert_eq!(
        job.action,
        Action::Command(vec!["backup".into(), "--all".into()])
    );
    assert_eq!(job.timeout_ms, 5_000);
}

#[test]
fn what_is_wrong_is_refused_with_its_field() {
    for (changes, field, word) in [
        (
            json!({"schedule": "0 12 * * *"}),
            "schedule",
            "seconds come first",
        ),
        (json!({"schedule": "0 0 0 30 2 *"}), "schedule", "never due"),
        (
            json!({"schedule": "2016-12-31T23:59:60Z"}),
            "schedule",
            "leap second",
        ),
        (json!({"schedule": null}), "schedule", "needs"),
        (json!({"schedule": 5}), "schedule", "text"),
        (json!({"timezone": "Mars/Olympus"}), "timezone", "IANA"),
        (json!({"type": "EXACTLY_ONCE"}), "type", "AT_LEAST_ONCE"),
        (json!({"type": null}), "type", "needs"),
        (json!({"retries": 3}), "retries", "no such field"),
        (json!({"api": "example.com/x"}), "api", "no URL"),
        (
            json!({"api": "ftp://example.com/x"}),
            "api",
            "http or https",
        ),
        (json!({"api": "https://"}), "api", "no URL"),
        (
            json!({"api": "https://me:pw@example.com/"}),
            "api",
            "Authorization",
        ),
        (json!({"api": null}), "api", "needs"),
        (json!({"command": ["x"]}), "command", "not both"),
        (json!({"api": null, "command": []}), "command", "list"),
        (json!({"api": null, "command": ["x", 1]}), "command", "list"),
        (
            json!({"api": null, "command": ["x"], "body": "y"}),
            "body",
            "belongs to an api",
        ),
        (json!({"timeout": "0s"}), "timeout", "no time at all"),
        (json!({"timeout": "9w"}), "timeout", "100ms to 1h"),
        (json!({"timeout": -1}), "timeout", "duration"),
        (json!({"timeout": u64::MAX}), "timeout", "100ms to 1h"),
        (
            json!({"maxRetryCount": 3}),
            "maxRetryCount",
            "never retried",
        ),
        (
            json!({"type": "AT_LEAST_ONCE", "maxRetryCount": 1001}),
            "maxRetryCount",
            "0 to 1000",
        ),
        (
            json!({"isRecurring": "yes"}),
            "isRecurring",
            "true or false",
        ),
        (json!({"method": "BREW"}), "method", "none of"),
        (json!({"method": "GET", "body": "x"}), "body", "no body"),
        (json!({"headers": {"Host": "x"}}), "headers.Host", "itself"),
        (json!({"headers": {"a b": "x"}}), "headers.a b", "no name"),
        (json!({"headers": {"A": "x\r\ny"}}), "headers.A", "ASCII"),
        (
            json!({"description": "x".repeat(2_000)}),
            "description",
            "1,024",
        ),
        (json!({"body": "x".repeat(9_000)}), "", "8 KiB"),
    ] {
        let error = with(changes.clone()).unwrap_err();
        assert_eq!(error.field, field, "{changes}: {error}");
        assert!(error.to_string().contains(word), "{changes}: {error}");
    }
    for (twice, field) in [
        (
            r#"{"type": "AT_MOST_ONCE", "api": "http://x/", "type": "AT_LEAST_ONCE"}"#,
            "type",
        ),
        (
            r#"{"headers": {"A": "x", "B": "y", "A": "x"}}"#,
            "headers.A",
        ),
        (
            r#"{"body": [1, {"user": {"id": 1, "id": 2}}]}"#,
            "body.user.id",
        ),
    ] {
        let error = read(twice, now()).unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.message.as_str()),
            (field, "this stands there twice")
        );
    }
    assert!(read("{", now()).unwrap_err().message.contains("JSON"));
    assert!(read("[]", now()).unwrap_err().message.contains("object"));
}
