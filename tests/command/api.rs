//! The API of jobs: what its description says, the running server does.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::lab::{Lab, until};
use super::web::{Answer, JSON, Node, TOKEN, ask, raw};

/// The description, and what was seen of it.
struct Contract {
    addr: SocketAddr,
    description: Value,
    seen: BTreeSet<(String, u16)>,
}

impl Contract {
    fn of(node: &Node) -> Self {
        Self {
            addr: node.addr,
            description: node.ask("GET", "/api/openapi.json").expect(200),
            seen: BTreeSet::new(),
        }
    }

    fn operations(&self) -> Vec<(String, String)> {
        let paths = self.description["paths"].as_object().unwrap();
        let each = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| (path.clone(), method.to_uppercase()))
        });
        each.collect()
    }

    #[track_caller]
    fn check_schema(&self, schema: &Value, value: &Value) {
        let schema = json!({"components": self.description["components"], "allOf": [schema]});
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<_> = validator
            .iter_errors(value)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?} in {value}");
    }

    /// The answer is one of those that are described.
    #[track_caller]
    fn check(&mut self, method: &str, path: &str, answer: Answer) -> Answer {
        let operation = &self.description["paths"][path][method.to_lowercase()];
        let name = operation["operationId"].as_str().expect("it is described");
        let described = &operation["responses"][answer.status.to_string()];
        assert!(described.is_object(), "{name} does not describe {answer:?}");
        match described["content"].as_object() {
            Some(content) => {
                let kind = answer.header("content-type").unwrap();
                self.check_schema(&content[kind]["schema"], &answer.json());
            }
            None => assert_eq!(answer.body, ""),
        }
        for header in described["headers"].as_object().into_iter().flatten() {
            assert!(
                answer.header(header.0).is_some(),
                "{name} lacks {}",
                header.0
            );
        }
        self.seen.insert((name.into(), answer.status));
        answer
    }

    /// Asks as `path` of the description, with its id and behind it a query.
    #[track_caller]
    fn ask(&mut self, method: &str, path: &str, id: &Value, query: &str) -> Answer {
        let place = path.replace("{id}", id.to_string().trim_matches('"'));
        let body = (method == "POST" && path == "/api/jobs").then(|| once_a_day().to_string());
        let answer = ask(
            self.addr,
            method,
            &format!("{place}{query}"),
            &[JSON],
            body.as_deref(),
        );
        self.check(method, path, answer)
    }
}

fn once_a_day() -> Value {
    json!({"schedule": "0 0 12 * * *", "api": "http://127.0.0.1:9/", "type": "AT_MOST_ONCE"})
}

#[test]
fn the_description_holds_for_the_running_server() {
    let node = Node::start(1, "");
    let mut contract = Contract::of(&node);
    node.lab.once("run t -- true").expect(0);
    let id = contract
        .ask("POST", "/api/jobs", &Value::Null, "")
        .expect(201)["id"]
        .clone();
    let (a_call, a_command) = (
        json!({"schedule": "0 0 9 * * *", "timezone": "Europe/Berlin", "api": "https://example.com/", "method": "PUT",
            "headers": {"X-A": "b"}, "body": {"a": [1]}, "type": "AT_LEAST_ONCE", "maxRetryCount": 7, "timeout": 5,
            "isRecurring": true, "description": "all fields"}),
        json!({"schedule": "* * * * * *", "command": ["true"], "type": "AT_MOST_ONCE"}),
    );
    for job in [&a_call, &a_command] {
        contract.check_schema(&json!({"$ref": "#/components/schemas/NewJob"}), job);
        contract
            .check("POST", "/api/jobs", node.create(job))
            .expect(201);
    }
    // Those that are described are known, and no others.
    let known = contract.description["components"]["schemas"]["NewJob"]["properties"].clone();
    let known = known.as_object().unwrap();
    for name in known.keys().map(String::as_str).chain(["retries"]) {
        let refused = node.create(&json!({name: {}})).expect(400).to_string();
        assert_eq!(
            refused.contains("no such field"),
            !known.contains_key(name),
            "{name}: {refused}"
        );
    }
    let (long, job) = ("x".repeat(70_000), once_a_day().to_string());
    for (headers, body, status) in [(&[JSON][..], &long, 413), (&[], &job, 415)] {
        let refused = ask(node.addr, "POST", "/api/jobs", headers, Some(body));
        contract.check("POST", "/api/jobs", refused).expect(status);
    }
    for (path, method) in contract.operations() {
        let cross = [("Origin", "http://evil.example"), JSON];
        let place = path.replace("{id}", "1");
        contract
            .check(
                &method,
                &path,
                ask(node.addr, &method, &place, &cross, Some(&job)),
            )
            .expect(403);
        contract.ask(&method, &path, &id, "?colour=red").expect(400);
        if path.contains("{id}") {
            contract
                .ask(&method, &path, &json!("first"), "")
                .expect(400);
            contract
                .ask(&method, &path, &json!(999_999), "")
                .expect(404);
            if method != "DELETE" {
                contract.ask(&method, &path, &id, "").expect(200);
            }
        } else if method == "GET" {
            contract.ask(&method, &path, &id, "").expect(200);
        }
    }
    // It was asked for, and nobody works here.
    contract
        .ask("POST", "/api/jobs/{id}/run-now", &id, "")
        .expect(409);
    contract
        .ask("DELETE", "/api/jobs/{id}", &id, "")
        .expect(204);
    contract.ask("GET", "/api/jobs/{id}", &id, "").expect(404);

    // Nothing else is answered.
    let described: BTreeSet<_> = contract.operations().into_iter().collect();
    for (path, _) in &described {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if !described.contains(&(path.clone(), method.into())) {
                let refused = node.ask(method, &path.replace("{id}", "1"));
                refused.expect(405);
                assert!(!refused.header("allow").unwrap().contains(method));
            }
        }
    }
    for path in [
        "/api",
        "/api/",
        "/api/job",
        "/api/jobs/1/dance",
        "/api/jobs/1/history/2",
        "/x",
    ] {
        node.ask("GET", path).expect(404);
    }

    let token = Node::start(1, "--http-token-file token");
    let mut with_token = Contract::of(&token);
    for (path, method) in with_token.operations() {
        with_token.ask(&method, &path, &json!(1), "").expect(401);
        let bearer = format!("Bearer {TOKEN}");
        let answer = ask(
            token.addr,
            &method,
            &path.replace("{id}", "1"),
            &[("Authorization", &bearer), JSON],
            Some(&job),
        );
        assert!(with_token.check(&method, &path, answer).status != 401);
    }
    // A majority never comes.
    let alone = Node::start(3, "");
    let mut offline = Contract::of(&alone);
    for (path, method) in offline.operations() {
        if path != "/api/status" {
            offline.ask(&method, &path, &json!(1), "").expect(503);
        }
    }

    // All that is described was seen, but for what takes 10,000 jobs or others who act at the same time.
    let each = [&contract, &with_token, &offline].into_iter();
    let seen: BTreeSet<_> = each.flat_map(|one| one.seen.clone()).collect();
    for (path, method) in contract.operations() {
        let operation = &contract.description["paths"][path][method.to_lowercase()];
        let name = operation["operationId"].as_str().unwrap();
        for status in operation["responses"].as_object().unwrap().keys() {
            let status: u16 = status.parse().unwrap();
            let is_rare = status == 507
                || status == 409 && name != "runJob"
                || status == 503 && name == "status";
            assert!(
                is_rare || seen.contains(&(name.into(), status)),
                "{name} never answered {status}"
            );
        }
    }
}

#[test]
fn a_bad_job_is_refused_whole_with_its_field() {
    let node = Node::start(1, "");
    let with = |name: &str, value: Value| {
        let mut job = once_a_day();
        job[name] = value;
        job
    };
    for (field, job) in [
        ("schedule", with("schedule", json!("0 12 * * *"))),
        ("schedule", with("schedule", json!("0 0 12 30 2 *"))),
        ("type", with("type", json!("SOMETIMES"))),
        ("colour", with("colour", json!("red"))),
        ("api", with("api", json!("example.com"))),
        ("api", with("api", json!("ftp://example.com"))),
        ("command", with("command", json!(["true"]))),
        ("timeout", with("timeout", json!("1000h"))),
        ("timezone", with("timezone", json!("Mars/Olympus"))),
    ] {
        let refused = node.create(&job).expect(400);
        assert_eq!(refused["error"]["field"], field, "{refused}");
        assert!(
            refused["error"]["message"].as_str().unwrap().len() > 10,
            "{refused}"
        );
    }
    let five = node.create(&with("schedule", json!("0 12 * * *"))).body;
    assert!(five.contains("seconds come first"), "{five}");
    for body in ["", "{", "[]", "\"x\"", "{\"schedule\": \"\u{0}\"}"] {
        ask(node.addr, "POST", "/api/jobs", &[JSON], Some(body)).expect(400);
    }
    assert_eq!(
        node.ask("GET", "/api/jobs").expect(200),
        json!({"jobs": [], "next": null})
    );
}

#[test]
fn what_was_not_answered_can_be_asked_again_by_its_key() {
    let node = Node::start(1, "");
    let create = |key: &str, job: &Value| {
        ask(
            node.addr,
            "POST",
            "/api/jobs",
            &[JSON, ("Idempotency-Key", key)],
            Some(&job.to_string()),
        )
    };
    let id = create("welcome-123", &once_a_day()).expect(201)["id"].clone();
    assert_eq!(create("welcome-123", &once_a_day()).expect(201)["id"], id);
    assert_ne!(create("welcome-124", &once_a_day()).expect(201)["id"], id);
    let mut other = once_a_day();
    other["description"] = "another".into();
    let refused = create("welcome-123", &other).expect(400);
    assert_eq!(refused["error"]["field"], "idempotency-key");
    create(&"x".repeat(256), &other).expect(400);
    // In pages.
    let first = node.ask("GET", "/api/jobs?limit=1").expect(200);
    assert_eq!(
        (
            &first["jobs"][0]["id"],
            first["jobs"].as_array().unwrap().len()
        ),
        (&id, 1)
    );
    let second = node
        .ask("GET", &format!("/api/jobs?limit=9&from={}", first["next"]))
        .expect(200);
    assert_eq!(
        (second["jobs"].as_array().unwrap().len(), &second["next"]),
        (1, &Value::Null)
    );
    for name in ["c", "a", "b"] {
        node.lab.once(&format!("create {name}")).expect(0);
    }
    let names = |told: &Value| -> Vec<String> {
        let tasks = told["tasks"].as_array().unwrap().iter();
        tasks
            .map(|task| task["metadata"]["name"].as_str().unwrap().into())
            .collect()
    };
    let first = node.ask("GET", "/api/tasks?limit=2").expect(200);
    assert_eq!(
        (names(&first), &first["next"]),
        (vec!["a".into(), "b".into()], &json!("c"))
    );
    let second = node.ask("GET", "/api/tasks?limit=2&from=c").expect(200);
    assert_eq!(
        (names(&second), &second["next"]),
        (vec!["c".into()], &Value::Null)
    );
    // In a namespace of its own.
    assert_eq!(
        node.ask("GET", "/api/jobs?namespace=other").expect(200)["jobs"],
        json!([])
    );
}

#[test]
fn what_one_door_has_created_the_other_shows_and_a_worker_runs() {
    let node = Node::start(1, "--jobs default");
    let job = json!({"schedule": "0 0 12 * * *", "type": "AT_MOST_ONCE", "isRecurring": true,
        "command": ["sh", "-c", "echo $ONCE_IDEMPOTENCY_KEY >> out"]});
    let id = node.create(&job).expect(201)["id"].as_u64().unwrap();
    assert_eq!(node.lab.json(&format!("jobs get {id}"))["createdBy"], "a");
    node.ask("POST", &format!("/api/jobs/{id}/run-now"))
        .expect(200);
    let history = until("it was run", || {
        let history = node
            .ask("GET", &format!("/api/jobs/{id}/history"))
            .expect(200);
        (history[0]["status"] == "SUCCESS").then_some(history)
    });
    assert_eq!(
        (&history[0]["id"], &history[0]["retryCount"]),
        (&json!(id), &json!(0))
    );
    assert_eq!(node.lab.lines("out").len(), 1);
    node.lab.once(&format!("jobs pause {id}")).expect(0);
    assert_eq!(
        node.ask("GET", &format!("/api/jobs/{id}")).expect(200)["state"],
        "PAUSED"
    );
}

#[test]
fn whoever_talks_nonsense_or_says_nothing_keeps_nobody_from_asking() {
    let node = Node::start(1, "");
    assert_eq!(raw(node.addr, b"\0\0\0 hello\r\n\r\n").status, 400);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    assert!([400, 431, 0].contains(&raw(node.addr, long.as_bytes()).status));
    let silent: Vec<_> = (0..80)
        .map(|_| std::net::TcpStream::connect(node.addr).unwrap())
        .collect();
    node.ask("GET", "/api/status").expect(200);
    drop(silent);
}

#[test]
fn without_a_token_it_answers_to_this_machine_only() {
    let lab = Lab::new();
    lab.once("secret --out secret").expect(0);
    std::fs::write(lab.path("short"), "abc").unwrap();
    let serve = "serve --voter a --voters a=127.0.0.1:1 --secret-file secret --data-dir data";
    for (more, says) in [
        ("--http 0.0.0.0:0", "--http-token-file"),
        ("--http 127.0.0.1:0 --http-token-file short", "16 bytes"),
        ("--http 127.0.0.1:0 --http-token-file none", "none"),
        ("--http-token-file short", "--http"),
    ] {
        let refused = lab.once(&format!("{serve} {more}"));
        assert!(refused.err.contains(says), "{more}: {}", refused.err);
        refused.expect(64);
    }
}
