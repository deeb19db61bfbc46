//! What jobs cost: three `once serve --jobs` processes, and a server here that counts the calls and
//! answers at once.
//!
//! `cargo bench --features cli --bench jobs`, or with what is to be measured behind ` -- `: `idle` is
//! 10,000 jobs that are not due; a number that many jobs of every second, for half a minute; `spread`
//! 10,000 jobs of which a tenth is due each second. Nodes and server share the machine.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{NAMES, Servers, start_once};
use raft_once::job::{JobId, Jobs, JobsError, State, Status, Tick};
use raft_once::{Network, Ticket};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

mod common;

const NAMESPACE: &str = "bench";
const JOBS_IDLE: usize = 10_000;
/// How many are created at a time.
const CREATING: usize = 256;
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(30);
/// How long calls of the last ticks are waited for.
const GRACE: Duration = Duration::from_secs(5);
/// Each call has a connection of its own, and an address has 28,000 for some time.
const LISTENERS: usize = 8;

/// When each tick of a job was called, in microseconds since 1970.
type Calls = Arc<Mutex<BTreeMap<(u64, Tick), Vec<u64>>>>;

struct Target {
    addrs: Vec<SocketAddr>,
    calls: Calls,
}

impl Target {
    fn start() -> Self {
        let calls = Calls::default();
        let addrs = (0..LISTENERS).map(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let addr = listener.local_addr().expect("bound");
            let calls = calls.clone();
            // One after the other: a request is there when its connection is, or very soon.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let _ = answer(stream, &calls);
                }
            });
            addr
        });
        Self {
            addrs: addrs.collect(),
            calls,
        }
    }
}

fn answer(mut stream: TcpStream, calls: &Calls) -> std::io::Result<()> {
    let at_us = us(SystemTime::now());
    let (mut head, mut length) = ([0; 2048], 0);
    while !head[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[length..])? {
            0 => return Ok(()),
            count => length += count,
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    let head = String::from_utf8_lossy(&head[..length]);
    let mut lines = head.lines();
    let key = lines.find_map(|line| line.strip_prefix("idempotency-key: "));
    // The job, what tells its cluster from others, and the tick.
    let mut parts = key.expect("a key").splitn(3, '-');
    let (job, tick) = (parts.next().expect("a job"), parts.nth(1).expect("a tick"));
    let key = (job.parse().expect("a job"), tick.parse().expect("a tick"));
    let mut calls = calls.lock().expect("nobody panics");
    calls.entry(key).or_default().push(at_us);
    Ok(())
}

fn us(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .expect("the clock is set")
        .as_micros() as u64
}

fn due_us(tick: Tick) -> u64 {
    let civil: jiff::civil::DateTime = tick.to_string().parse().expect("a civil time");
    let due = jiff::tz::TimeZone::UTC.to_timestamp(civil);
    due.expect("a moment").as_microsecond() as u64
}

/// What a process has used up, and uses.
#[derive(Clone, Copy)]
struct Used {
    at: Instant,
    processor: Duration,
    memory_kib: u64,
    written_bytes: u64,
}

impl Used {
    fn of(pid: u32) -> Self {
        let number = |file: &str, name: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.unwrap_or(0)
        };
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
        let nanos = tasks.flatten().map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
            nanos.unwrap_or(0)
        });
        Self {
            at: Instant::now(),
            processor: Duration::from_nanos(nanos.sum()),
            memory_kib: number("status", "VmRSS:"),
            // What it asked for: `write_bytes` counts whole folios, which are large by now.
            written_bytes: number("io", "wchar:"),
        }
    }

    /// In per cent of a core, since then.
    fn load(&self, before: &Self) -> f64 {
        let passed = (self.at - before.at).as_secs_f64();
        (self.processor.saturating_sub(before.processor)).as_secs_f64() / passed * 100.0
    }
}

struct Cluster {
    servers: Servers,
    ticket: Ticket,
    _folder: TempDir,
}

impl Cluster {
    fn start() -> Self {
        // On the disk that the project is built on: a memory file system would flatter.
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        let (servers, ticket) = start_once(folder.path(), &["--jobs", NAMESPACE]);
        Self {
            servers,
            ticket: read_ticket(&ticket),
            _folder: folder,
        }
    }

    fn used(&self) -> Vec<Used> {
        let servers = self.servers.0.iter();
        servers.map(|server| Used::of(server.id())).collect()
    }

    /// What the nodes use while nobody asks them for anything.
    async fn tell_idle(&self, what: &str) {
        tokio::time::sleep(SETTLE).await;
        let (before, packets) = (self.used(), packets());
        tokio::time::sleep(IDLE).await;
        println!("{what}:");
        tell(&before, &self.used());
        let a_second = (self::packets() - packets) as f64 / IDLE.as_secs_f64();
        println!("  packets of UDP on this machine {a_second:.0} a second");
    }
}

fn read_ticket(path: &Path) -> Ticket {
    let text = std::fs::read_to_string(path).expect("a ticket");
    text.trim().parse().expect("a ticket")
}

fn tell(before: &[Used], after: &[Used]) {
    for ((name, before), after) in NAMES.iter().zip(before).zip(after) {
        println!(
            "  node {name}: {:.1} % of a core, {:.1} MiB, {:.2} MiB/s written",
            after.load(before),
            after.memory_kib as f64 / 1024.0,
            (after.written_bytes - before.written_bytes) as f64
                / (after.at - before.at).as_secs_f64()
                / 1024.0
                / 1024.0,
        );
    }
}

/// All that the machine has sent by UDP.
fn packets() -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let mut udp = text.lines().filter(|line| line.starts_with("Udp: "));
    let fields = udp
        .nth(1)
        .and_then(|line| line.split(' ').nth(4)?.parse().ok());
    fields.unwrap_or(0)
}

/// Creates so many jobs, many at a time.
async fn create(jobs: &Jobs, count: usize, job: impl Fn(usize) -> serde_json::Value) -> Vec<JobId> {
    let (mut creating, mut made) = (JoinSet::new(), Vec::new());
    for n in 0..count {
        if creating.len() == CREATING
            && let Some(id) = creating.join_next().await
        {
            made.push(id.expect("it is created"));
        }
        let (jobs, job) = (jobs.clone(), job(n).to_string());
        creating.spawn(async move {
            loop {
                match jobs.create(&job).await {
                    Ok(made) => return made.id(),
                    // Those that are there are called already, and take all there is. It may be there
                    // twice then: a little more to do.
                    Err(JobsError::Offline) => {}
                    Err(error) => panic!("it is created: {error}"),
                }
            }
        });
    }
    made.extend(creating.join_all().await);
    made
}

async fn idle(target: &Target) {
    let cluster = Cluster::start();
    cluster.tell_idle("no jobs").await;
    let network = Network::join(&cluster.ticket).await.expect("an observer");
    let jobs = Jobs::new(&network, NAMESPACE);
    let begun = Instant::now();
    create(&jobs, JOBS_IDLE, |n| {
        json!({
            "schedule": "0 0 0 1 1 *", "type": "AT_MOST_ONCE", "isRecurring": true,
            "api": format!("http://{}/{n}", target.addrs[0]),
            "description": "once a year",
        })
    })
    .await;
    let took = begun.elapsed().as_secs_f64();
    println!("{JOBS_IDLE} jobs were created in {took:.2} s, {CREATING} at a time, by an observer");
    network.shutdown().await;
    cluster
        .tell_idle(&format!("{JOBS_IDLE} jobs of once a year"))
        .await;
}

async fn sustained(
    target: &Target,
    count: usize,
    a_second: usize,
    schedule: impl Fn(usize) -> String,
) {
    let cluster = Cluster::start();
    let network = Network::join(&cluster.ticket).await.expect("an observer");
    let jobs = Jobs::new(&network, NAMESPACE);
    create(&jobs, count, |n| {
        json!({
            "schedule": schedule(n), "type": "AT_MOST_ONCE", "isRecurring": true,
            "api": format!("http://{}/{n}", target.addrs[n % LISTENERS]),
        })
    })
    .await;
    tokio::time::sleep(GRACE).await;
    // From the middle of a second, so that no tick is at the edge.
    let past_us = us(SystemTime::now()) % 1_000_000;
    tokio::time::sleep(Duration::from_micros((1_500_000 - past_us) % 1_000_000)).await;
    let from_us = us(SystemTime::now());
    let version = jobs.version().as_u64();
    let (before, own) = (cluster.used(), Used::of(std::process::id()));
    tokio::time::sleep(WINDOW).await;
    let (after, own_after) = (cluster.used(), Used::of(std::process::id()));
    let commands = jobs.version().as_u64() - version;
    let to_us = us(SystemTime::now());
    tokio::time::sleep(GRACE).await;
    let calls = std::mem::take(&mut *target.calls.lock().expect("nobody panics"));
    let due = a_second * WINDOW.as_secs() as usize;

    let window = from_us..to_us;
    let mut delays_us = Vec::new();
    for ((_, tick), calls) in &calls {
        assert_eq!(calls.len(), 1, "called twice");
        let due_us = due_us(*tick);
        if window.contains(&due_us) {
            delays_us.push(calls[0].saturating_sub(due_us));
        }
    }
    let made = calls.values().filter(|calls| window.contains(&calls[0]));
    let made = made.count();
    delays_us.sort_unstable();
    let ms = |share: f64| {
        let at = (delays_us.len() as f64 * share) as usize;
        delays_us.get(at).map_or(f64::NAN, |us| *us as f64 / 1e3)
    };
    println!("{count} jobs, {a_second} ticks due each second:");
    println!(
        "  {:.0} calls a second; of {due} ticks {} were called within {GRACE:?}; delay median \
         {:.0} ms, p99 {:.0} ms, worst {:.0} ms",
        made as f64 / WINDOW.as_secs_f64(),
        delays_us.len(),
        ms(0.5),
        ms(0.99),
        ms(1.0 - f64::EPSILON),
    );
    tell(&before, &after);
    println!("  this process: {:.1} % of a core", own_after.load(&own));
    let written = before.iter().zip(&after);
    let written: u64 = written
        .map(|(b, a)| a.written_bytes - b.written_bytes)
        .sum();
    let of_each = |amount: u64| amount as f64 / made.max(1) as f64;
    println!(
        "  of each call: {:.0} bytes written by all, {:.2} commands in the log",
        of_each(written),
        of_each(commands)
    );
    // The last ones that are remembered.
    let mut states = BTreeMap::new();
    match jobs.list().await {
        Ok(all) => {
            for execution in all.iter().flat_map(Status::history) {
                *states.entry(State::as_str(execution.state)).or_insert(0) += 1;
            }
            println!("  remembered: {states:?}");
        }
        Err(error) => println!("  what is remembered is not known: {error}"),
    }
    network.shutdown().await;
}

fn main() {
    let mut what: Vec<_> = std::env::args().skip(1).collect();
    what.retain(|arg| !arg.starts_with('-'));
    if what.is_empty() {
        what = ["idle", "250", "500", "1000", "2000", "spread"]
            .map(Into::into)
            .into();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let target = Target::start();
    runtime.block_on(async {
        for what in what {
            match what.as_str() {
                "idle" => idle(&target).await,
                "spread" => {
                    let spread = |n: usize| {
                        let seconds = (0..6).map(|ten| (ten * 10 + n % 10).to_string());
                        format!("{} * * * * *", seconds.collect::<Vec<_>>().join(","))
                    };
                    sustained(&target, JOBS_IDLE, JOBS_IDLE / 10, spread).await;
                }
                count => {
                    let count = count.parse().expect("idle, spread, or how many jobs");
                    sustained(&target, count, count, |_| "* * * * * *".into()).await;
                }
            }
        }
    });
}
