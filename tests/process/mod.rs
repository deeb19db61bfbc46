//! Nodes as processes of their own.
//!
//! A child is the same test binary, executed again with [`CHILD`] in its environment, so that its
//! test `child_entry` runs a node instead of returning at once. Parent and child talk by lines on
//! the child's stdin and stdout. A child ends when its stdin does, and so never outlives its test.

#![allow(
    dead_code,
    unused_imports,
    reason = "every test file uses its own part"
)]

mod child;
mod cluster;
#[cfg(target_os = "linux")]
pub mod netns;
mod node;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Write;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use child::{child_entry, child_entry_with};
pub use cluster::Cluster;
pub use node::{Node, Reply};

/// What a child is to run: lines of `key=value`.
const CHILD: &str = "RAFT_ONCE_TEST_CHILD";

/// In front of every line of a child that is meant for its parent.
const MARK: &str = "@@ ";

/// Between the fields of a command or a reply, and between the records of a status.
const FIELD: char = '\x1f';
const RECORD: char = '\x1e';

/// How long anything may take. Nothing here asserts on speed: this only ends a hanging test.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A secret for tests.
pub const SECRET: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// The node that a child is to run.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    pub network: String,
    pub voters: Vec<(String, String)>,
    pub voter: Option<String>,
    pub dir: Option<PathBuf>,
    pub secret: Option<String>,
    pub bind: Option<String>,
    pub write_timeout_ms: Option<u64>,
    /// An `EnvFilter` for what the child logs; `warn` if there is none.
    pub log: Option<String>,
    /// Whether what it logs says when.
    pub log_times: bool,
    /// How big a segment of the log grows; needs the feature `testing`.
    pub segment_bytes: Option<u64>,
    /// More of the child's environment.
    pub env: Vec<(String, String)>,
    /// The network namespace to run in.
    pub netns: Option<String>,
    /// In a namespace: the file that is the child's `/etc/hosts`.
    pub hosts: Option<PathBuf>,
}

/// A port of 127.0.0.1 that is free now. It is below those that the system hands out by itself,
/// so that nobody takes it while its node is down.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap();
    for _ in 0..10_000 {
        let port = rand::random_range(20_000..32_000);
        if !taken.contains(&port) && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free UDP port found");
}

/// [`free_port`] as an address.
pub fn free_addr() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Waits until `reached` says yes, and fails with what was awaited if it never does.
pub fn until<D: Display>(awaited: D, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "in vain awaited: {awaited}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same in a task.
pub async fn until_async<D: Display>(awaited: D, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "in vain awaited: {awaited}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says what has to be seen also if the test passes: that something was left out. What `println`
/// and its like print is kept back then.
pub fn announce(line: &str) {
    // Nobody may be listening.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// The result of `work`, which fails with what was awaited if there is none.
pub async fn within<T>(awaited: impl Display, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(done) => done,
        Err(_) => panic!("in vain awaited: {awaited}"),
    }
}

/// Whether the test of this name is alone in its process. If not, it is run in one of its own,
/// where nothing else has threads or files, and fails if it does so there.
pub fn alone(test: &str) -> bool {
    const ALONE: &str = "RAFT_ONCE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().expect("has a path"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .expect("a test binary can be executed");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{test} failed alone:\n{out}\n{err}"
    );
    assert!(out.contains("1 passed"), "{test} did not run alone:\n{out}");
    false
}

/// The seed of this run, printed so that a failing one can be run again.
pub fn seed() -> u64 {
    const SEED: &str = "RAFT_ONCE_SEED";
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().expect("RAFT_ONCE_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("{SEED}={seed}");
    seed
}
