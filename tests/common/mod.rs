//! Clusters on a simulated network in paused time: voters `a`, `b`, `c`.. at fixed addresses,
//! observers by ticket, and links that are cut and healed by node.
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::panic::PanicHookInfo;
use std::sync::Once as Hook;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use raft_once::testing::SimNet;
use raft_once::{Network, NetworkBuilder, Once, OnceReader, OnceWriter, VoterStatus};

pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
pub const SECRET: &str = "a secret of the behaviour tests";
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A cut link is noticed after 1.5 s.
pub const SILENCE: Duration = Duration::from_millis(1_500);

/// What any single thing may take when nothing stands in its way, in simulated time.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The address of voter `n`.
pub fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 100 + n as u16))
}

/// The names and addresses of `count` voters.
pub fn electorate(count: usize) -> Vec<(&'static str, String)> {
    (0..count)
        .map(|n| (NAMES[n], addr(n).to_string()))
        .collect()
}

/// Voter `name` on `net`, to be finished by the test: its electorate is missing.
pub fn voter(net: &SimNet, name: &str) -> NetworkBuilder {
    fail_on_panics_of_the_library();
    Network::builder("test")
        .voter(name)
        .secret(SECRET)
        .in_memory()
        .simulated(net)
}

pub struct Cluster {
    pub net: SimNet,
    pub voters: Vec<Network>,
}

impl Cluster {
    /// `count` voters that are all linked and may vote.
    pub async fn start(seed: u64, count: usize) -> Self {
        Self::start_on(SimNet::new(seed), count).await
    }

    pub async fn start_on(net: SimNet, count: usize) -> Self {
        let mut voters = Vec::new();
        for name in &NAMES[..count] {
            let started = voter(&net, name)
                .electorate(electorate(count))
                .start()
                .await;
            voters.push(started.expect("a simulated voter starts"));
        }
        end_if_time_stands_still();
        let this = Self { net, voters };
        this.all_linked().await;
        this
    }

    /// An observer that joined by the ticket of voter `n` and is linked to all voters.
    pub async fn observer(&self, n: usize) -> Network {
        let joined = Network::join_simulated(self.voters[n].ticket(), &self.net).await;
        let observer = joined.expect("a simulated observer joins");
        eventually("the observer is linked to all voters", || {
            observer.status().voters.iter().all(|voter| voter.linked)
        })
        .await;
        observer
    }

    /// All voters and a new observer, the last one.
    pub async fn and_observer(&self) -> Vec<Network> {
        let mut nodes = self.voters.clone();
        nodes.push(self.observer(0).await);
        nodes
    }

    /// All voters are linked with each other, and may vote.
    pub async fn all_linked(&self) {
        eventually("all voters are linked and may vote", || {
            self.voters.iter().all(|node| {
                let status = node.status();
                status.waiting_for.is_empty() && status.voters.iter().all(|voter| voter.linked)
            })
        })
        .await;
    }

    /// Mends everything and waits until all voters have noticed.
    pub async fn heal(&self) {
        self.net.heal_all();
        self.all_linked().await;
    }

    /// Cuts voters `a` and `b` from each other, both ways.
    pub fn cut(&self, a: usize, b: usize) {
        self.net.cut(addr(a), addr(b));
    }

    /// Cuts every node in `some` from every one in `others`.
    pub fn cut_between(&self, some: &[&Network], others: &[&Network]) {
        for one in some {
            for other in others {
                self.net.cut(one.local_addr(), other.local_addr());
            }
        }
    }

    /// What voter `a` says of voter `b`.
    pub fn seen(&self, a: usize, b: usize) -> VoterStatus {
        seen(&self.voters[a], NAMES[b])
    }

    /// Voters `a` and `b` have both noticed that they are cut from each other.
    pub async fn noticed(&self, a: usize, b: usize) {
        eventually("both ends noticed the cut", || {
            !self.seen(a, b).linked && !self.seen(b, a).linked
        })
        .await;
    }

    pub async fn shutdown(&self) {
        for node in &self.voters {
            node.shutdown().await;
        }
    }
}

/// What `node` says of the voter called `name`.
pub fn seen(node: &Network, name: &str) -> VoterStatus {
    let voters = node.status().voters;
    let voter = voters.into_iter().find(|voter| voter.name == name);
    voter.expect("a voter of the electorate")
}

/// A handle of the cell `id` on every node.
pub fn writers(nodes: &[Network], id: &str) -> Vec<OnceWriter<u32>> {
    nodes.iter().map(|node| Once::writer(node, id)).collect()
}

pub fn readers(nodes: &[Network], id: &str) -> Vec<OnceReader<u32>> {
    nodes
        .iter()
        .map(|node| OnceReader::reader(node, id))
        .collect()
}

/// Waits until the cell is online on all of these.
pub async fn all_online<const W: bool>(cells: &[Once<u32, W>]) {
    for (n, cell) in cells.iter().enumerate() {
        within(
            &format!("handle {n} is online"),
            PATIENCE,
            cell.when().online(),
        )
        .await;
    }
}

/// Waits until the cell is decided on all of these, and returns the value, which is one.
pub async fn agreed<const W: bool>(cells: &[Once<u32, W>]) -> u32 {
    let mut values = Vec::new();
    for (n, cell) in cells.iter().enumerate() {
        let what = format!("handle {n} learns the value");
        values.push(
            within(&what, PATIENCE, cell.await_value())
                .await
                .expect("a value"),
        );
    }
    assert!(
        values.iter().all(|value| *value == values[0]),
        "one value: {values:?}"
    );
    let decisions: Vec<_> = cells
        .iter()
        .map(|cell| cell.decision().expect("decided"))
        .collect();
    for decision in &decisions {
        assert_eq!(
            (decision.winner, decision.version),
            (decisions[0].winner, decisions[0].version),
            "one decision"
        );
    }
    values[0]
}

/// The result of `work`, which must come within this simulated time.
pub async fn within<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => panic!("not within {limit:?} of simulated time: {what}"),
    }
}

/// Waits until `holds` does, looking every 5 simulated milliseconds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(ms(5)).await;
        }
    };
    within(what, PATIENCE, looking).await;
}

/// Runs `test` once for each seed, each time on a new runtime in paused time, and names the seed
/// of a run that panics.
pub fn for_seeds<Fut>(seeds: impl IntoIterator<Item = u64>, test: impl Fn(u64) -> Fut)
where
    Fut: Future<Output = ()>,
{
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {} failed", self.0);
            }
        }
    }
    for seed in seeds {
        let _named = Named(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(test(seed));
    }
}

/// A panic in a task of the library is nobody's result and would pass unseen, above all the one
/// that says "agreement broken". It ends the test process instead.
fn fail_on_panics_of_the_library() {
    static HOOK: Hook = Hook::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            usual(panic);
            let of_a_test = panic
                .location()
                .is_some_and(|at| at.file().starts_with("tests/"));
            if !of_a_test {
                // Not by `eprintln!`, whose output is held back and would be lost with the process.
                let test = test_name();
                let _ = writeln!(std::io::stderr(), "the library panicked in {test}: {panic}");
                std::process::exit(101);
            }
        }));
    });
}

/// A task of the library that spins without ever waiting stops the simulated clock, so that no
/// deadline comes. It ends the test process, instead of hanging it, when nothing else of this
/// test was run for a minute.
fn end_if_time_stands_still() {
    let beats = Arc::new(AtomicU64::new(0));
    let (watched, test): (Weak<AtomicU64>, _) = (Arc::downgrade(&beats), test_name());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            beats.fetch_add(1, Ordering::Relaxed);
        }
    });
    std::thread::spawn(move || {
        let (mut last, mut still) = (0, 0);
        while let Some(beats) = watched.upgrade() {
            let now = beats.load(Ordering::Relaxed);
            drop(beats);
            still = if now == last { still + 1 } else { 0 };
            last = now;
            if still == 60 {
                let _ = writeln!(std::io::stderr(), "simulated time stands still in {test}");
                std::process::exit(101);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}

fn test_name() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}
