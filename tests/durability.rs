//! Acknowledged is durable: voters are killed with SIGKILL while clients claim cells, and every
//! value that anybody was told of is there afterwards, on every node, at the version told.

mod process;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use process::{Cluster, Node, Reply, seed, until};

/// A run of clients goes on at least as long as this many cells.
const CELLS_MIN: usize = 60;

#[test]
fn child_entry() {
    process::child_entry();
}

/// What clients were told of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    value: String,
    version: u64,
}

/// All that clients were told, by cell.
#[derive(Default)]
struct Book {
    cells: Mutex<BTreeMap<String, Told>>,
    /// The claims that were told that they won.
    won: Mutex<BTreeMap<String, String>>,
}

impl Book {
    /// Notes an answer, which must not contradict an earlier one.
    fn note(&self, cell: &str, offered: &str, reply: &Reply) {
        let version = reply[1].parse().expect("a version");
        let value = match reply[0].as_str() {
            "won" => {
                let before = self.won.lock().unwrap().insert(cell.into(), offered.into());
                assert_eq!(before, None, "{cell}: two claims won");
                offered.to_string()
            }
            "lost" => {
                assert_eq!(
                    reply[3], offered,
                    "{cell}: a lost claim hands its value back"
                );
                assert_ne!(reply[2], offered, "{cell}: lost to itself");
                reply[2].clone()
            }
            other => panic!("{cell}: {other} {reply:?}"),
        };
        let told = Told { value, version };
        let mut cells = self.cells.lock().unwrap();
        let known = cells.entry(cell.into()).or_insert_with(|| told.clone());
        assert_eq!(
            *known, told,
            "{cell}: two clients were told different things"
        );
    }

    fn len(&self) -> usize {
        self.cells.lock().unwrap().len()
    }

    /// Waits until so many more cells are decided.
    fn grows_by(&self, more: usize) {
        let (before, started) = (self.len(), Instant::now());
        until(format!("{more} cells after the first {before}"), || {
            self.len() >= before + more
        });
        println!("{more} cells more after {:?}", started.elapsed());
    }

    /// Every node must say what clients were told.
    fn check(&self, nodes: &[&Node]) {
        let cells = self.cells.lock().unwrap();
        println!("checking {} cells on {} nodes", cells.len(), nodes.len());
        for node in nodes {
            let asked = |word: &'static str| -> Vec<Vec<&str>> {
                cells.keys().map(|cell| vec![word, cell.as_str()]).collect()
            };
            let read = node.call_all(&asked("linear"));
            for ((cell, told), mut read) in cells.iter().zip(read) {
                if read[0] == "offline" {
                    read = node.linear(cell);
                }
                assert_eq!(read, ["some", &*told.value], "{cell} on {}", node.name);
            }
            for ((cell, told), decision) in cells.iter().zip(node.call_all(&asked("decision"))) {
                let version = told.version.to_string();
                assert_eq!(
                    decision[..2],
                    ["some", &*version],
                    "{cell} on {}",
                    node.name
                );
            }
        }
    }
}

/// The terms that voters told: a voter that runs back in one may vote twice in it.
#[derive(Default)]
struct Terms(BTreeMap<(String, String), u64>);

impl Terms {
    fn note(&mut self, voter: &Node) {
        for (group, (awake, term)) in voter.status().cells {
            // Asleep, it tells none.
            if !awake {
                continue;
            }
            let known = self
                .0
                .entry((voter.name.clone(), group.clone()))
                .or_default();
            assert!(
                term >= *known,
                "{} was in term {known} of {group}, and is in {term} now",
                voter.name
            );
            *known = term;
        }
    }
}

/// Claims the same cells through two clients until `enough`, noting every answer.
fn claim_on(clients: [&Node; 2], book: &Book, enough: &AtomicBool, seed: u64) {
    let done = [const { AtomicUsize::new(0) }; 2];
    std::thread::scope(|scope| {
        for (at, client) in clients.into_iter().enumerate() {
            let done = &done;
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed ^ at as u64);
                let mut next = 0;
                while next < CELLS_MIN || !enough.load(Ordering::Relaxed) {
                    let (cell, value) = (format!("cell-{seed}-{next}"), format!("{at}:{next}"));
                    let reply = client.claim(&cell, &value);
                    book.note(&cell, &value, &reply);
                    done[at].fetch_add(1, Ordering::Relaxed);
                    next += 1;
                    // Spreads the claims over the crashes.
                    std::thread::sleep(Duration::from_millis(random.random_range(0..40)));
                }
            });
        }
    });
    println!("the clients claimed {done:?} cells");
}

#[test]
fn any_one_voter_killed_at_any_moment_loses_nothing() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new("one-by-one");
    cluster.start_all([0, 1, 2]);
    let clients = [cluster.observer(), cluster.observer()];
    let (book, enough) = (Book::default(), AtomicBool::new(false));
    let mut terms = Terms::default();
    std::thread::scope(|scope| {
        let claiming = scope.spawn(|| claim_on([&clients[0], &clients[1]], &book, &enough, seed));
        // Also when an assertion below fails, or the clients would go on for ever.
        let _enough = SetOnDrop(&enough);
        for _ in 0..6 {
            let victim = random.random_range(0..3);
            book.grows_by(random.random_range(3..12));
            std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
            terms.note(cluster.node(victim));
            println!("kill {victim} after {} cells", book.len());
            cluster.kill(victim);
            // Two of three go on, with or without having noticed.
            book.grows_by(random.random_range(0..6));
            cluster.start_all([0, 1, 2]);
            terms.note(cluster.node(victim));
        }
        drop(_enough);
        claiming.join().expect("the clients contradict nothing");
    });
    for voter in cluster.up() {
        terms.note(voter);
    }
    let fresh = cluster.observer();
    book.check(&[cluster.node(0), cluster.node(1), cluster.node(2), &fresh]);
}

#[test]
fn all_voters_killed_at_once_lose_nothing_whatever_the_order_they_come_back_in() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new("all-at-once");
    cluster.start_all([0, 1, 2]);
    let clients = [cluster.observer(), cluster.observer()];
    let (book, enough) = (Book::default(), AtomicBool::new(false));
    let mut terms = Terms::default();
    std::thread::scope(|scope| {
        let claiming = scope.spawn(|| claim_on([&clients[0], &clients[1]], &book, &enough, seed));
        let _enough = SetOnDrop(&enough);
        for _ in 0..4 {
            book.grows_by(random.random_range(3..12));
            std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
            for voter in cluster.up() {
                terms.note(voter);
            }
            println!("kill all after {} cells", book.len());
            for at in 0..3 {
                cluster.kill(at);
            }
            let mut order = [0, 1, 2];
            order.shuffle(&mut random);
            for at in order {
                cluster.start(at);
                std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
            }
            cluster.start_all(order);
            for voter in cluster.up() {
                terms.note(voter);
            }
        }
        drop(_enough);
        claiming.join().expect("the clients contradict nothing");
    });
    let fresh = cluster.observer();
    book.check(&[cluster.node(0), cluster.node(1), cluster.node(2), &fresh]);

    // Nobody writes any more: what is on the disks is all there is.
    for at in 0..3 {
        cluster.kill(at);
    }
    cluster.start_all([2, 0, 1]);
    book.check(&[cluster.node(0), cluster.node(1), cluster.node(2), &fresh]);

    // A later write wakes every replica: its term goes on from where it was.
    let cells: Vec<String> = book.cells.lock().unwrap().keys().cloned().collect();
    for cell in &cells {
        let reply = clients[0].answered(&["write", cell, "too late"]);
        let told = book.cells.lock().unwrap()[cell].version;
        let version: u64 = reply[1].parse().expect("a version");
        assert!(version > told, "{cell}: version {version} after {told}");
    }
    for voter in cluster.up() {
        terms.note(voter);
    }
    book.check(&[cluster.node(0), cluster.node(1), cluster.node(2), &fresh]);
}

/// With two of three voters killed nothing is acknowledged; the one that is left goes on reading.
#[test]
fn a_lone_survivor_acknowledges_nothing_and_reads_what_it_knows() {
    let mut cluster = Cluster::new("survivor");
    cluster.spec.write_timeout_ms = Some(1_000);
    cluster.start_all([0, 1, 2]);
    let survivor = 1;
    let won = cluster.node(survivor).claim("cell", "before");
    assert_eq!(won[0], "won", "{won:?}");
    cluster.kill(0);
    cluster.kill(2);
    let node = cluster.node(survivor);
    until("the survivor notices", || !node.status().in_touch);
    assert_eq!(node.call(&["read", "cell"]), ["some", "before"]);
    assert_eq!(node.call(&["write", "other", "mine"]), ["offline", "mine"]);
    assert_eq!(node.call(&["claim", "third", "mine"]), ["offline", "mine"]);
    cluster.start_all([2, 0, 1]);
    // The same proposal, asked again: it won, or nobody has.
    assert_eq!(cluster.node(survivor).claim("third", "mine")[0], "won");
    assert_eq!(cluster.node(0).linear("third"), ["some", "mine"]);
    assert_eq!(cluster.node(2).linear("cell"), ["some", "before"]);
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
