//! What a worker keeps, and what it tells.

use std::io;
use std::sync::Mutex;

use super::*;
use crate::Network;
use crate::job::errand::key;
use crate::machine::job::Execution;
use crate::machine::task::{ClaimId, Failure, Outcome};

const ONCE: &str = r#"{"schedule": "0 0 0 1 1 *", "api": "http://x/", "type": "AT_MOST_ONCE"}"#;

/// A worker that knows the jobs of a namespace, and has begun nothing.
async fn worker(jobs: &Jobs) -> Worker {
    let mut worker = Worker::new(jobs.clone(), Caller::new());
    let (_, changed, removed) = changes(jobs.clone(), Version::ZERO).await;
    worker.note_removed(removed);
    changed.into_iter().for_each(|job| worker.learn(job));
    worker
}

fn done(worker: &Worker, id: JobId, what: Came) -> Done {
    let seen = worker.known[&id].job.changed;
    Done { id, seen, what }
}

#[tokio::test]
async fn a_claim_that_has_to_wait_keeps_its_id() {
    let network = Network::new("demo").await.unwrap();
    let jobs = Jobs::new(&network, "tests");
    let id = jobs.create(ONCE).await.unwrap().id();
    jobs.run_now(id).await.unwrap();
    let mut worker = worker(&jobs).await;
    worker.start_due();
    let first = worker.known[&id].claim.unwrap();
    worker.take(done(&worker, id, Came::Later(Duration::ZERO)));
    worker.start_due();
    let second = worker.known[&id].claim.unwrap();
    assert!(worker.known[&id].is_busy && first.id == second.id);
    network.shutdown().await;
}

#[tokio::test]
async fn what_is_refused_is_not_tried_again_at_once() {
    let network = Network::new("demo").await.unwrap();
    let jobs = Jobs::new(&network, "tests");
    let id = jobs.create(ONCE).await.unwrap().id();
    let mut worker = worker(&jobs).await;
    let same = worker.known[&id].job.clone();
    let again_in = |worker: &Worker| {
        worker.known[&id]
            .due_ms
            .unwrap()
            .saturating_sub(probe::now_ms())
    };
    worker.take(done(&worker, id, Came::Job(Some(same.clone()))));
    assert!(again_in(&worker) > REFUSED_MS / 2);
    // But what was seen before it changed.
    let before = Version::new(same.changed.as_u64() - 1);
    let what = Came::Job(Some(same));
    worker.take(Done {
        id,
        seen: before,
        what,
    });
    assert_eq!(again_in(&worker), 0);
    network.shutdown().await;
}

#[tokio::test]
async fn jobs_that_have_nothing_to_do_or_are_gone_are_not_kept() {
    let network = Network::new("demo").await.unwrap();
    let jobs = Jobs::new(&network, "tests");
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(jobs.create(ONCE).await.unwrap().id());
    }
    jobs.pause(made[0]).await.unwrap();
    let mut worker = worker(&jobs).await;
    worker.start_due();
    assert!(worker.known.keys().eq(&made[1..]));
    // A change brings it back.
    jobs.resume(made[0]).await.unwrap();
    jobs.delete(made[1]).await.unwrap();
    let (_, changed, removed) = changes(jobs.clone(), Version::ZERO).await;
    worker.note_removed(removed);
    changed.into_iter().for_each(|job| worker.learn(job));
    worker.start_due();
    assert_eq!(worker.known.len(), 3);
    let now_ms = probe::now_ms();
    assert!(worker.sweep_ms.is_some_and(|sweep_ms| sweep_ms > now_ms));
    worker.sweep_ms = Some(now_ms);
    worker.start_due();
    let swept = worker.doing.join_next().await.unwrap().unwrap();
    // One that comes meanwhile stays.
    made.push(jobs.create(ONCE).await.unwrap().id());
    let (_, changed, _) = changes(jobs.clone(), Version::ZERO).await;
    changed.into_iter().for_each(|job| worker.learn(job));
    worker.take(swept);
    assert!(worker.known.keys().eq([&made[0], &made[2], &made[3]]));
    network.shutdown().await;
}

#[tokio::test]
async fn when_the_clock_is_set_back_all_is_looked_at_again() {
    let network = Network::new("demo").await.unwrap();
    let jobs = Jobs::new(&network, "tests");
    let id = jobs.create(ONCE).await.unwrap().id();
    let mut worker = worker(&jobs).await;
    worker.start_due();
    let due = worker.known[&id].due_ms;
    worker.set_due(id, Some(u64::MAX));
    worker.looked_ms += 10 * LOOK_MS_MAX;
    worker.start_due();
    assert_eq!(worker.known[&id].due_ms, due);
    network.shutdown().await;
}

#[tokio::test]
async fn a_defect_is_told_and_ends_nothing_else() {
    let id = JobId::default();
    let came = unless_it_panics(id, async { panic!("a defect of a test") }).await;
    assert!(matches!(came, Came::Later(pause) if !pause.is_zero()));
    // Nor does one in what is run.
    let network = Network::new("demo").await.unwrap();
    let jobs = Jobs::new(&network, "tests");
    let id = jobs.create(ONCE).await.unwrap().id();
    jobs.run_now(id).await.unwrap();
    let caller = Caller::instead(Arc::new(|_, _| {
        Box::pin(async { panic!("a defect of a test") })
    }));
    let working = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.work_by(caller, std::future::pending()).await }
    });
    let error = loop {
        let history = jobs.get(id).await.unwrap().unwrap().history();
        if let Some(error) = history.into_iter().find_map(|one| one.error) {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(error, "the worker panicked");
    network.shutdown().await;
    assert!(working.await.unwrap().is_err());
}

#[tokio::test]
async fn keys_are_those_of_one_cluster() {
    let mut keys = Vec::new();
    for namespace in ["a", "b"] {
        let network = Network::new("demo").await.unwrap();
        let jobs = Jobs::new(&network, namespace);
        let id = jobs.create(ONCE).await.unwrap().id();
        let job = worker(&jobs).await.known[&id].job.clone();
        let tick = Slot::Tick("2024-01-01T12:00:00".parse().unwrap());
        let text = key(&job, tick);
        let parts: Vec<_> = text.splitn(3, '-').collect();
        assert_eq!(
            (parts[0], parts[2]),
            (id.to_string().as_str(), "2024-01-01T12:00:00")
        );
        assert!(parts[1].len() == 32 && parts[1].bytes().all(|byte| byte.is_ascii_hexdigit()));
        keys.push(text);
        network.shutdown().await;
    }
    assert_ne!(keys[0], keys[1]);
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_lines_of_the_log_are_those_of_the_document() {
    let network = Network::new("demo").await.unwrap();
    let jobs = Jobs::new(&network, "tests");
    let mut ids = Vec::new();
    for more in [
        r#""type": "AT_MOST_ONCE", "isRecurring": true"#,
        r#""type": "AT_MOST_ONCE""#,
        r#""type": "AT_LEAST_ONCE", "maxRetryCount": 1, "isRecurring": true"#,
    ] {
        let json = format!(r#"{{"schedule": "0 0 12 * * *", "api": "http://x/", {more}}}"#);
        ids.push(jobs.create(&json).await.unwrap().id());
    }
    let worker = worker(&jobs).await;
    let lines = Lines::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || written.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    let failure = || Outcome::Failed(Failure::Error("HTTP 503 Service Unavailable".into()));
    tracing::subscriber::with_default(subscriber, || {
        for (id, attempt, outcome) in [
            (ids[0], 1, failure()),
            (ids[1], 1, failure()),
            (ids[1], 1, Outcome::SUCCESS),
            (ids[2], 1, failure()),
            (ids[2], 2, failure()),
        ] {
            let execution = Execution {
                slot: Slot::Tick("2024-01-01T12:00:00".parse().unwrap()),
                attempt,
                claim: ClaimId([1; 16]),
                worker: "a".into(),
                at_ms: 0,
                version: Version::ZERO,
                end: None,
            };
            worker
                .errand(worker.known[&id].job.clone())
                .log(&execution, &outcome);
        }
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let [a, b, c] = [ids[0], ids[1], ids[2]];
    assert_eq!(
        text.lines().map(str::trim).collect::<Vec<_>>(),
        [
            format!(
                "ERROR Job {a} (AT_MOST_ONCE) failed, no retry attempted error=HTTP 503 Service Unavailable"
            ),
            format!(
                "ERROR Job {b} (AT_MOST_ONCE) failed, no retry attempted error=HTTP 503 Service Unavailable"
            ),
            format!("INFO Non-recurring job {b} failed, schedule deleted"),
            format!("INFO Job {b} (AT_MOST_ONCE) succeeded"),
            format!("INFO Non-recurring job {b} executed, schedule deleted"),
            format!(
                "WARN Job {c} (AT_LEAST_ONCE) failed, attempt 1, to be retried: HTTP 503 Service Unavailable"
            ),
            format!(
                "ERROR Job {c} (AT_LEAST_ONCE) failed, attempt 2, given up: HTTP 503 Service Unavailable"
            ),
        ]
    );
    network.shutdown().await;
}
