//! Workers and a server that counts what it is called for. Real time: jobs are due each second.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Execution, JobId, Jobs, Slot, State, Status};
use crate::network::Network;
use crate::transport::sim::SimNet;

/// What was called: by path the idempotency keys, in order.
type Calls = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

struct Server {
    addr: SocketAddr,
    calls: Calls,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let calls = Calls::default();
        let mut serving = JoinSet::new();
        let counted = calls.clone();
        serving.spawn(async move {
            let mut answering = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                answering.spawn(answer(stream, counted.clone()));
            }
        });
        Self {
            addr,
            calls,
            _serving: serving,
        }
    }

    fn keys(&self, path: &str) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.get(path).cloned().unwrap_or_default()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

async fn answer(mut stream: TcpStream, calls: Calls) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend(&piece[..count]),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or("").to_string();
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("idempotency-key: "));
    let times = {
        let mut calls = calls.lock().unwrap();
        let keys = calls.entry(path.clone()).or_default();
        keys.push(key.unwrap_or("").to_string());
        keys.len()
    };
    let response = match path.as_str() {
        "/slow" => return std::future::pending().await,
        "/gone" => return,
        "/fail" => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        "/twice" if times < 3 => "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
        "/loop" => "HTTP/1.1 307 Again\r\nlocation: /loop\r\ncontent-length: 0\r\n\r\n",
        "/big" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
            return;
        }
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    };
    let _ = stream.write_all(response.as_bytes()).await;
}

async fn create(jobs: &Jobs, job: Value) -> JobId {
    jobs.create(&job.to_string()).await.unwrap().id()
}

/// Only what never answers runs out of time, however slow this machine is.
fn timeout(is_stuck: bool) -> &'static str {
    if is_stuck { "300ms" } else { "10m" }
}

fn job(api: String, kind: &str) -> Value {
    let timeout = timeout(api.ends_with("/slow"));
    json!({"schedule": "* * * * * *", "api": api, "type": kind, "timeout": timeout})
}

/// The job, once it is so.
async fn until(jobs: &Jobs, id: JobId, is_so: impl Fn(&Status) -> bool) -> Status {
    let wait = async {
        loop {
            if let Ok(Some(status)) = jobs.get(id).await
                && is_so(&status)
            {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.expect("it becomes so within a minute")
}

/// It was run, and nothing of it is open.
fn has_ended(status: &Status) -> bool {
    let open = [State::Running, State::Retrying];
    let history = status.history();
    !history.is_empty()
        && history
            .iter()
            .all(|execution| !open.contains(&execution.state))
}

async fn ended(jobs: &Jobs, id: JobId) -> Execution {
    let status = until(jobs, id, has_ended).await;
    status.history().pop().unwrap()
}

#[tokio::test]
async fn what_does_not_recur_is_called_once_whatever_comes_of_it() {
    let (network, server) = (Network::new("demo").await.unwrap(), Server::start().await);
    let jobs = Jobs::new(&network, "tests");
    let working = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.work().await }
    });
    let mut made = Vec::new();
    for path in ["/ok", "/fail", "/slow", "/gone", "/big"] {
        made.push((
            path,
            create(&jobs, job(server.url(path), "AT_MOST_ONCE")).await,
        ));
    }
    for (path, id) in &made {
        let last = ended(&jobs, *id).await;
        let (state, error) = (last.state, last.error.unwrap_or_default());
        match *path {
            "/ok" | "/big" => assert_eq!((state, &*error), (State::Succeeded, ""), "{path}"),
            "/fail" => assert_eq!(error, "HTTP 503 Service Unavailable"),
            "/slow" => assert_eq!(error, "timed out after 300ms"),
            _ => assert_eq!(state, State::Failed, "{path}: {error}"),
        }
        let json = jobs.get(*id).await.unwrap().unwrap().to_json();
        assert_eq!(
            (&json["state"], &json["last"]["id"]),
            (&json!("OVER"), &json!(id.as_u64()))
        );
        assert_eq!(json["last"]["retryCount"], 0);
    }
    // Another tick comes, and nothing is called for it.
    let again = create(&jobs, job(server.url("/again"), "AT_MOST_ONCE")).await;
    ended(&jobs, again).await;
    for (path, id) in &made {
        let status = jobs.get(*id).await.unwrap().unwrap();
        let Slot::Tick(tick) = status.history()[0].slot else {
            panic!("{status:?}");
        };
        let keys = server.keys(path);
        let [key] = &keys[..] else {
            panic!("{path} is called {} times", keys.len());
        };
        let is_ours = key.starts_with(&format!("{id}-")) && key.ends_with(&format!("-{tick}"));
        assert!(is_ours, "{path}: {key}");
        assert_eq!(status.history().len(), 1);
    }
    let figures = network.status().figures;
    assert_eq!(
        (
            figures.job_executions_succeeded,
            figures.job_executions_failed
        ),
        (3, 3)
    );
    network.shutdown().await;
    assert!(working.await.unwrap().is_err());
}

#[tokio::test]
async fn a_redirect_is_followed_a_few_times_and_a_refused_connection_is_a_failure() {
    let (network, server) = (Network::new("demo").await.unwrap(), Server::start().await);
    let jobs = Jobs::new(&network, "tests");
    let worker = jobs.clone();
    let working = tokio::spawn(async move { worker.work().await });
    let around = create(&jobs, job(server.url("/loop"), "AT_MOST_ONCE")).await;
    let nobody = create(&jobs, job("http://127.0.0.1:1/".into(), "AT_MOST_ONCE")).await;
    let last = ended(&jobs, around).await;
    assert!(last.error.unwrap().contains("redirects"));
    assert!(server.keys("/loop").len() <= 6);
    assert!(
        ended(&jobs, nobody)
            .await
            .error
            .unwrap()
            .contains("cannot connect")
    );
    network.shutdown().await;
    assert!(working.await.unwrap().is_err());
}

#[tokio::test]
async fn a_command_is_run_and_its_exit_code_recorded() {
    let network = Network::new("demo").await.unwrap();
    let jobs = Jobs::new(&network, "tests");
    let worker = jobs.clone();
    let working = tokio::spawn(async move { worker.work().await });
    for (script, error) in [
        ("test -n \"$ONCE_IDEMPOTENCY_KEY\"", None),
        ("exit 3", Some("exit code 3")),
        ("kill -9 $$", Some("ended by signal 9")),
        ("sleep 60", Some("timed out after 300ms")),
    ] {
        let job = json!({"schedule": "* * * * * *", "command": ["sh", "-c", script], "type": "AT_MOST_ONCE", "timeout": timeout(script.starts_with("sleep"))});
        let id = create(&jobs, job).await;
        assert_eq!(ended(&jobs, id).await.error.as_deref(), error, "{script}");
    }
    network.shutdown().await;
    assert!(working.await.unwrap().is_err());
}

#[tokio::test]
async fn what_is_run_at_least_once_is_called_until_it_succeeds() {
    let (network, server) = (Network::new("demo").await.unwrap(), Server::start().await);
    let jobs = Jobs::new(&network, "tests");
    let worker = jobs.clone();
    let working = tokio::spawn(async move { worker.work().await });
    let id = create(&jobs, job(server.url("/twice"), "AT_LEAST_ONCE")).await;
    let last = ended(&jobs, id).await;
    assert_eq!((last.state, last.retries), (State::Succeeded, 2));
    let keys = server.keys("/twice");
    assert!(
        keys.len() == 3 && keys.iter().all(|key| *key == keys[0]),
        "{keys:?}"
    );
    // And once more, because somebody asks for it.
    jobs.run_now(id).await.unwrap();
    let status = until(&jobs, id, |status| {
        status.history().len() == 2 && has_ended(status)
    })
    .await;
    assert!(matches!(status.history()[1].slot, Slot::Now(_)));
    assert_eq!(server.keys("/twice").len(), 4);
    network.shutdown().await;
    assert!(working.await.unwrap().is_err());
}

#[tokio::test]
async fn of_three_workers_one_makes_the_call_of_each_tick() {
    let (net, server) = (SimNet::new(5), Server::start().await);
    let names = ["a", "b", "c"];
    let electorate = [
        ("a", "127.0.0.1:100"),
        ("b", "127.0.0.1:101"),
        ("c", "127.0.0.1:102"),
    ];
    let mut nodes = Vec::new();
    for name in names {
        let builder = Network::builder("jobs").electorate(electorate).voter(name);
        let builder = builder
            .secret("a secret of the tests")
            .in_memory()
            .simulated(&net);
        nodes.push(builder.start().await.unwrap());
    }
    let mut working = JoinSet::new();
    for node in &nodes {
        let jobs = Jobs::new(node, "tests");
        working.spawn(async move { jobs.work().await });
    }
    let jobs = Jobs::new(&nodes[0], "tests");
    let mut made = Vec::new();
    for n in 0..20 {
        let mut job = job(server.url(&format!("/{n}")), "AT_MOST_ONCE");
        job["isRecurring"] = true.into();
        made.push(create(&jobs, job).await);
    }
    for id in &made {
        let is_so = |status: &Status| status.history().len() >= 4;
        until(&jobs, *id, is_so).await;
        jobs.pause(*id).await.unwrap();
    }
    for (n, id) in made.iter().enumerate() {
        let status = until(&jobs, *id, has_ended).await;
        let history = status.history();
        assert!(
            history
                .iter()
                .all(|execution| execution.state == State::Succeeded)
        );
        let mut ticks: Vec<_> = history.iter().map(|execution| execution.slot).collect();
        ticks.dedup();
        assert_eq!(ticks.len(), history.len());
        let called = server.keys(&format!("/{n}"));
        let mut once = called.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), called.len(), "{called:?}");
    }
    for node in nodes {
        node.shutdown().await;
    }
    while working.join_next().await.is_some() {}
}
