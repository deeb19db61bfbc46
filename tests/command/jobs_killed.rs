//! Two hundred jobs that are due in the same second, on three `once serve` processes of which one or
//! another is killed at random moments.
//!
//! `RAFT_ONCE_JOBS_KILL_S` says for how many seconds, `RAFT_ONCE_JOBS_KILL_SEED` plays a plan of kills
//! again; what processes make of it is up to the machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use raft_once::job::{Execution, JobId, Jobs, Slot, State, Status, Tick};
use raft_once::{Network, Ticket};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::lab::PATIENCE;

const JOBS_OF_A_KIND: usize = 100;
/// All jobs are due at once, and so often.
const EVERY_MS: u64 = 10_000;
const SECONDS: u64 = 30;

/// How long a call is answered late, at most.
const ANSWER_MS_MAX: u64 = 60;
/// Of four kills one is so soon behind a moment at which all is due: calls are in flight then.
const BUSY_MS: u64 = 700;
const DOWN_MS_MAX: u64 = 3_000;

/// What a node may take to start, and a majority of them to elect a leader and to commit a claim. No
/// more than this is asked of a run; it is the bound from which a tick that was missed is a fault.
const SETTLED_MS: u64 = 10_000;
/// A tick that is later than this is not run any more (docs/design.md, section 10).
const LATE_MS_MAX: u64 = 60_000;

fn now_ms() -> u64 {
    ms(SystemTime::now())
}

fn ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// What was called with one key.
#[derive(Debug, Default, Clone, Copy)]
struct Calls {
    begun: u32,
    /// The caller was there yet.
    answered: u32,
}

/// Counts calls by their idempotency key.
#[derive(Clone)]
struct Target {
    addr: SocketAddr,
    calls: Arc<Mutex<BTreeMap<String, Calls>>>,
}

impl Target {
    async fn start(mut rng: StdRng) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Self {
            addr: listener.local_addr().unwrap(),
            calls: Arc::default(),
        };
        let serving = target.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let late = Duration::from_millis(rng.random_range(1..ANSWER_MS_MAX));
                let target = serving.clone();
                tokio::spawn(async move { target.answer(stream, late).await });
            }
        });
        target
    }

    async fn answer(&self, mut stream: TcpStream, late: Duration) {
        let mut head = Vec::new();
        let mut piece = [0; 1024];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut piece).await {
                // Killed before it had asked for anything.
                Ok(0) | Err(_) => return,
                Ok(count) => head.extend(&piece[..count]),
            }
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let key = lines.find_map(|line| line.strip_prefix("idempotency-key: "));
        let key = of_slot(key.expect("a key"));
        self.count(&key, |calls| calls.begun += 1);
        // It has said all it has to say: what comes now is its end.
        let gone = tokio::time::timeout(late, stream.read(&mut piece)).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        if gone.is_err() && stream.write_all(answer).await.is_ok() {
            self.count(&key, |calls| calls.answered += 1);
        }
    }

    fn count(&self, key: &str, count: impl FnOnce(&mut Calls)) {
        let mut calls = self.calls.lock().unwrap();
        count(calls.entry(key.to_string()).or_default());
    }

    fn calls(&self, key: &str) -> Calls {
        let calls = self.calls.lock().unwrap();
        calls.get(key).copied().unwrap_or_default()
    }
}

/// A key without what tells clusters apart: `17-2024-01-01T12:00:00`.
fn of_slot(key: &str) -> String {
    let (id, rest) = key.split_once('-').unwrap();
    let (_, slot) = rest.split_once('-').unwrap();
    format!("{id}-{slot}")
}

/// When each node was up, by the wall clock.
struct Lives {
    /// From when it was started until it was killed, if it was.
    of_each: [Vec<(u64, Option<u64>)>; 3],
}

impl Lives {
    /// How many nodes were up all the time, and for long enough before.
    fn up(&self, from_ms: u64, to_ms: u64) -> usize {
        let lived = |(born, died): &(u64, Option<u64>)| {
            born + SETTLED_MS <= from_ms && died.is_none_or(|died| died >= to_ms)
        };
        let nodes = self.of_each.iter();
        nodes.filter(|lives| lives.iter().any(lived)).count()
    }

    /// Why nobody has to have run a tick that was recorded as missed: those that were there when it
    /// was due did not live to claim it, or could not.
    fn may_miss(&self, due_ms: u64, missed_ms: u64) -> bool {
        missed_ms - due_ms > LATE_MS_MAX || self.up(due_ms, due_ms + SETTLED_MS) < 2
    }
}

/// Kills and starts nodes by a plan that is drawn from the seed.
fn kill_and_start(
    cluster: &mut Cluster,
    lives: &mut Lives,
    mut rng: StdRng,
    seconds: u64,
) -> usize {
    let mut plan = Vec::new();
    for due_ms in (0..seconds * 1_000).step_by(EVERY_MS as usize) {
        for within_ms in [BUSY_MS, EVERY_MS, EVERY_MS, EVERY_MS] {
            let at_ms = due_ms + rng.random_range(0..within_ms);
            let node = rng.random_range(0..3);
            plan.push((at_ms, node, true));
            plan.push((at_ms + rng.random_range(0..DOWN_MS_MAX), node, false));
        }
    }
    plan.sort_unstable();
    let begin_ms = now_ms().next_multiple_of(EVERY_MS);
    let mut kills = 0;
    for (at_ms, node, is_kill) in plan {
        let pause_ms = (begin_ms + at_ms).saturating_sub(now_ms());
        std::thread::sleep(Duration::from_millis(pause_ms));
        let is_up = lives.of_each[node].last().unwrap().1.is_none();
        // Two plans for one node may overlap.
        match (is_kill, is_up) {
            (true, true) => {
                // It may have done things until it was waited for.
                cluster.kill(node);
                lives.of_each[node].last_mut().unwrap().1 = Some(now_ms());
                kills += 1;
            }
            (false, false) => {
                lives.of_each[node].push((now_ms(), None));
                cluster.serve(node);
            }
            _ => {}
        }
    }
    kills
}

type History = BTreeMap<(JobId, Slot), Execution>;

/// Jobs forget what is long ago, so that they are asked again and again.
async fn note(jobs: &Jobs, history: &Mutex<History>) -> Option<Vec<Status>> {
    let all = jobs.list().await.ok()?;
    let mut history = history.lock().unwrap();
    for execution in all.iter().flat_map(Status::history) {
        history.insert((execution.job, execution.slot), execution);
    }
    Some(all)
}

/// What all jobs come to, once it is so.
async fn until(what: &str, jobs: &Jobs, history: &Mutex<History>, is_so: impl Fn(&Status) -> bool) {
    let wait = async {
        loop {
            if let Some(all) = note(jobs, history).await
                && all.iter().all(&is_so)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        let all = note(jobs, history).await.unwrap_or_default();
        let late = all.iter().find(|status| !is_so(status));
        panic!("it was waited in vain until {what}: {late:?}");
    }
}

fn due_ms(tick: Tick) -> u64 {
    let civil: jiff::civil::DateTime = tick.to_string().parse().unwrap();
    let due = jiff::tz::TimeZone::UTC.to_timestamp(civil).unwrap();
    due.as_millisecond() as u64
}

fn tick_of(slot: Slot) -> Tick {
    match slot {
        Slot::Tick(tick) => tick,
        other => panic!("nobody has asked for {other}"),
    }
}

fn last_due_ms(status: &Status) -> u64 {
    let history = status.history();
    history.last().map_or(0, |last| due_ms(tick_of(last.slot)))
}

fn is_open(status: &Status) -> bool {
    let open = [State::Running, State::Retrying];
    status
        .history()
        .iter()
        .any(|execution| open.contains(&execution.state))
}

/// Creates all jobs, by number of type, and when that was done.
async fn create(jobs: &Jobs, target: SocketAddr) -> (BTreeMap<JobId, bool>, u64) {
    let mut creating = JoinSet::new();
    for n in 0..2 * JOBS_OF_A_KIND {
        let is_at_most_once = n % 2 == 0;
        let mut job = json!({
            "schedule": "*/10 * * * * *",
            "api": format!("http://{target}/{n}"),
            "type": "AT_MOST_ONCE",
            "isRecurring": true,
        });
        if !is_at_most_once {
            job["type"] = "AT_LEAST_ONCE".into();
            // Each worker that dies costs one.
            job["maxRetryCount"] = 1_000.into();
        }
        let jobs = jobs.clone();
        creating.spawn(async move {
            let made = jobs.create(&job.to_string()).await.unwrap();
            (made.id(), is_at_most_once)
        });
    }
    (creating.join_all().await.into_iter().collect(), now_ms())
}

#[derive(Debug, Default)]
struct Told {
    calls: u32,
    calls_cut: u32,
    calls_repeated: u32,
    succeeded: u32,
    missed: u32,
    abandoned: u32,
    retried: u32,
}

/// Judges one execution by what was called for it.
fn judge(
    execution: &Execution,
    is_at_most_once: bool,
    calls: Calls,
    lives: &Lives,
    told: &mut Told,
) {
    let what = || format!("{execution:?}, at most once: {is_at_most_once}, {calls:?}");
    if is_at_most_once {
        assert!(calls.begun <= 1, "called twice: {}", what());
    }
    match execution.state {
        State::Succeeded => {
            assert!(calls.answered >= 1, "a success of no call: {}", what());
            told.succeeded += 1;
        }
        State::Missed => {
            assert_eq!(calls.begun, 0, "called and missed: {}", what());
            let due_ms = due_ms(tick_of(execution.slot));
            let may_miss = lives.may_miss(due_ms, ms(execution.at));
            assert!(may_miss, "missed, and nodes were there: {}", what());
            told.missed += 1;
        }
        State::Abandoned if is_at_most_once => told.abandoned += 1,
        // No majority was there for a minute: on a machine that is very slow.
        State::Failed if is_at_most_once && calls.begun == 0 => told.missed += 1,
        _ => panic!("the target is healthy: {}", what()),
    }
    told.retried += u32::from(execution.retries > 0);
}

#[test]
fn of_jobs_due_at_once_on_nodes_that_are_killed_no_tick_is_called_twice_or_forgotten() {
    let seconds = number("RAFT_ONCE_JOBS_KILL_S").unwrap_or(SECONDS);
    let seed = number("RAFT_ONCE_JOBS_KILL_SEED").unwrap_or_else(rand::random);
    eprintln!("RAFT_ONCE_JOBS_KILL_SEED={seed} RAFT_ONCE_JOBS_KILL_S={seconds}");
    let born_ms = now_ms();
    let mut cluster = Cluster::start();
    let mut lives = Lives {
        of_each: [(); 3].map(|()| vec![(born_ms, None)]),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ticket = std::fs::read_to_string(cluster.lab.path("ticket")).unwrap();
    let ticket: Ticket = ticket.trim().parse().unwrap();
    let network = runtime.block_on(Network::join(&ticket)).unwrap();
    let jobs = Jobs::new(&network, "default");
    let target = runtime.block_on(Target::start(StdRng::seed_from_u64(seed + 1)));
    let creating_ms = now_ms();
    let (made, made_ms) = runtime.block_on(create(&jobs, target.addr));

    let history = Arc::new(Mutex::new(History::new()));
    let noting = runtime.spawn({
        let (jobs, history) = (jobs.clone(), history.clone());
        async move {
            loop {
                note(&jobs, &history).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    });
    let kills = kill_and_start(
        &mut cluster,
        &mut lives,
        StdRng::seed_from_u64(seed),
        seconds,
    );
    noting.abort();
    cluster.answers();
    // Two ticks more come to all when nobody is killed.
    let healed_ms = now_ms() + SETTLED_MS;
    runtime.block_on(async {
        until("all have caught up", &jobs, &history, |status| {
            last_due_ms(status) > healed_ms
        })
        .await;
        let mut pausing = JoinSet::new();
        for id in made.keys().copied() {
            let jobs = jobs.clone();
            pausing.spawn(async move { jobs.pause(id).await.unwrap() });
        }
        pausing.join_all().await;
        until("nothing is open", &jobs, &history, |status| {
            !is_open(status)
        })
        .await;
        network.shutdown().await;
    });

    let history = history.lock().unwrap();
    let calls = target.calls.lock().unwrap().clone();
    let mut told = Told::default();
    let mut of_each: BTreeMap<JobId, Vec<u64>> = BTreeMap::new();
    for ((id, slot), execution) in history.iter() {
        let calls = target.calls(&format!("{id}-{slot}"));
        judge(execution, made[id], calls, &lives, &mut told);
        of_each.entry(*id).or_default().push(due_ms(tick_of(*slot)));
    }
    // Nothing was called for what is not recorded.
    let recorded: Vec<_> = history
        .keys()
        .map(|(id, slot)| format!("{id}-{slot}"))
        .collect();
    for key in calls.keys() {
        assert!(recorded.contains(key), "{key} was called: {:?}", calls[key]);
    }
    // No tick is forgotten, from the first one on.
    for id in made.keys() {
        let ticks = &of_each[id];
        let first_ms = creating_ms.next_multiple_of(EVERY_MS)..=made_ms.next_multiple_of(EVERY_MS);
        assert!(first_ms.contains(&ticks[0]), "job {id}: {ticks:?}");
        for two in ticks.windows(2) {
            assert_eq!(two[1] - two[0], EVERY_MS, "job {id}: {ticks:?}");
        }
    }
    for calls in calls.values() {
        told.calls += calls.begun;
        told.calls_cut += calls.begun - calls.answered;
        told.calls_repeated += calls.begun.saturating_sub(1);
    }
    eprintln!("{kills} kills, {} ticks: {told:?}", history.len());
    // What was seen is no proof unless something was there to be seen.
    assert!(kills as u64 > seconds / 10, "{kills} kills");
    assert!(told.calls as usize >= 2 * made.len(), "{told:?}");
    if seconds >= 120 {
        assert!(
            told.abandoned + told.retried > 0,
            "no kill has hit: {told:?}"
        );
    }
}
