//! One life of a cluster: rounds of faults while clients run, and the judgement of what they saw.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use raft_once::testing::History;
use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};

use crate::client::now_ns;
use crate::fault::{Deck, Fault, Plan};
use crate::lab::{Lab, NAMES};
use crate::pressure::Pressure;
use crate::process::{Node, Reply, until};
use crate::tally::Tally;

/// How long a process has to come to the failpoint that it is armed with.
const FAILPOINT_MS: u64 = 3_000;

/// How long a write may take on a machine that keeps the processes from running.
const STARVED_MS: u64 = 30_000;

/// A value that fills a segment, with its kind.
const FILL_BYTES: u64 = 100 * 1024;

/// Lines of a process's log that are shown with a failure.
const LOG_LINES_MAX: usize = 20;

/// Cells looked at by one command.
const LOOK_CELLS_MAX: usize = 500;

pub struct Run<'a> {
    // In this order: the processes end before their namespaces and folders go.
    nodes: Vec<Node>,
    lab: Lab,
    network: String,
    deck: &'a mut Deck,
    tally: &'a mut Tally,
    /// By node: its process binds all addresses that it has.
    anywhere: Vec<bool>,
    /// Nodes whose processes were started and are not awaited yet.
    started: BTreeSet<usize>,
    began_ns: u64,
    fills: u64,
}

impl<'a> Run<'a> {
    pub fn start(life: usize, lab: Lab, deck: &'a mut Deck, tally: &'a mut Tally) -> Self {
        let mut run = Self {
            nodes: Vec::new(),
            network: format!("life-{life}"),
            deck,
            tally,
            anywhere: vec![false; lab.nodes],
            started: BTreeSet::new(),
            began_ns: now_ns(),
            fills: 0,
            lab,
        };
        for node in 0..run.lab.nodes {
            let process = run.process(node, None);
            run.nodes.push(process);
        }
        run.await_started();
        run.await_links();
        run
    }

    fn process(&mut self, node: usize, failpoint: Option<String>) -> Node {
        self.anywhere[node] = self.deck.random.random();
        self.started.insert(node);
        let mut spec = self.lab.spec(&self.network, node, self.anywhere[node]);
        if let Some(failpoint) = failpoint {
            let key = raft_once::testing::FAILPOINT_ENV.to_string();
            spec.env.push((key, failpoint));
        }
        Node::spawn(&spec)
    }

    /// Starts a node that is down.
    fn spawn(&mut self, node: usize, failpoint: Option<String>) {
        let process = self.process(node, failpoint);
        self.nodes[node] = process;
    }

    /// Sets the clients of a node to work, which may not be ready yet; the reply says that they
    /// are.
    fn set_to_work(&mut self, node: usize) -> Receiver<Reply> {
        self.tally.starts += 1;
        let start = self.tally.starts;
        let path = self.lab.histories().join(format!("{start}.log"));
        let seed: u64 = self.deck.random.random();
        let words = [
            "clients".to_string(),
            path.display().to_string(),
            start.to_string(),
            self.began_ns.to_string(),
            seed.to_string(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.nodes[node].begin(&words)
    }

    fn await_started(&mut self) {
        for node in std::mem::take(&mut self.started) {
            self.nodes[node].ready();
            let working = self.set_to_work(node);
            let reply = self.nodes[node].receive("clients", &working);
            assert_eq!(reply.as_deref(), Some(&["ok".to_string()][..]));
        }
    }

    fn await_links(&self) {
        let voters = &NAMES[..self.lab.voters];
        for node in &self.nodes {
            node.linked_to(voters);
        }
    }

    /// Plays one round.
    pub fn round(&mut self, round: usize) {
        let Plan { faults, hold } = self.deck.plan(self.lab.voters, self.lab.nodes);
        let told = faults.iter().map(ToString::to_string);
        let told = told.collect::<Vec<_>>().join(", ");
        print!("round {round}: {told}");
        let began = Instant::now();
        for fault in &faults {
            self.begin(fault);
        }
        std::thread::sleep(hold);
        for fault in &faults {
            let bitten = self.bites(fault);
            if !bitten {
                print!(" (nothing came of {})", fault);
            }
            self.tally.fault(fault, bitten);
        }
        for fault in &faults {
            self.heal(fault);
        }
        self.await_started();
        for (node, process) in self.nodes.iter().enumerate() {
            let name = self.lab.name(node);
            assert!(
                process.ended().is_none(),
                "{name} died by itself: {:?}: {}",
                process.ended(),
                process.log()
            );
        }
        let healed = Instant::now();
        self.probe(round);
        self.await_links();
        let (took, mended) = (began.elapsed(), healed.elapsed());
        println!(
            ": {} ms, whole after {}",
            took.as_millis(),
            mended.as_millis()
        );
        self.tally.round(took);
    }

    /// A new write is acknowledged on every node, within its timeout. Where the processes were
    /// kept from running that is no verdict, and it is asked again; but it must come true.
    fn probe(&mut self, round: usize) {
        let pressure = Pressure::begin();
        let cells = (0..self.nodes.len()).map(|node| 1 << 31 | round << 4 | node);
        let cells: Vec<_> = cells.map(|cell| cell.to_string()).collect();
        let probes = self.nodes.iter().zip(&cells);
        let probes: Vec<_> = probes
            .map(|(node, cell)| node.begin(&["probe", cell]))
            .collect();
        for (node, probe) in probes.into_iter().enumerate() {
            let reply = self.nodes[node].receive("probe", &probe);
            let reply = reply.unwrap_or_else(|| vec!["its process died".into()]);
            if reply[0] == "ok" {
                continue;
            }
            let name = self.lab.name(node);
            if !pressure.was_starving() {
                let what = format!("round {round}: a write on {name}: {reply:?}");
                self.fail(what, &reply[1..]);
                continue;
            }
            print!(" (starved: a write on {name} was late)");
            self.tally.starved += 1;
            if self.lab.logs() {
                self.tell(&reply[1..]);
            }
            let deadline = Instant::now() + Duration::from_millis(STARVED_MS);
            let late = loop {
                let reply = self.nodes[node].call(&["probe", &cells[node]]);
                if reply == ["ok"] {
                    break None;
                }
                if Instant::now() > deadline {
                    break Some(reply);
                }
            };
            if let Some(late) = late {
                // Whether it is the cell or the node that is stuck.
                let other = (1 << 31 | 1 << 30 | round << 4 | node).to_string();
                let other = self.nodes[node].call(&["probe", &other]);
                let what = format!(
                    "round {round}: no write on {name} in {STARVED_MS} ms: {late:?}; of another \
                     cell: {other:?}"
                );
                let groups = late.iter().chain(&other).skip(1).cloned();
                self.fail(what, &groups.collect::<Vec<_>>());
            }
        }
    }

    /// Notes a failure that does not end the run, and tells what each node knows of these groups.
    fn fail(&mut self, what: String, groups: &[String]) {
        println!("\nFAILED: {what}");
        self.tell(groups);
        self.tally.failures.push(what);
    }

    /// Tells what each node knows of these groups, and keeps what they have logged.
    fn tell(&self, groups: &[String]) {
        println!();
        for (node, process) in self.nodes.iter().enumerate() {
            let status = process.status();
            let voters = &status.voters;
            println!(
                "{}: in touch: {}, waiting for [{}], failure [{}], voters {voters:?}",
                self.lab.name(node),
                status.in_touch,
                status.waiting_for,
                status.failure
            );
            for group in groups {
                match (status.cells.get(group), status.cells_told.get(group)) {
                    (Some((awake, term)), Some(told)) => {
                        println!("    {group}: awake: {awake}, term {term}, {told}");
                    }
                    _ => println!("    {group}: not in use"),
                }
            }
            // The last of it tells of this round.
            let log = process.log();
            let kept = format!(
                "raft-once-log-{}-{}-{node}.txt",
                std::process::id(),
                now_ns() / 1_000_000
            );
            let kept = std::env::temp_dir().join(kept);
            std::fs::write(&kept, &log).expect("there is space for a log");
            println!("    its whole log is in {}", kept.display());
            let lines: Vec<_> = log.lines().rev().take(LOG_LINES_MAX).collect();
            for line in lines.iter().rev() {
                println!("    {line}");
            }
        }
    }

    fn begin(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(nodes) => {
                for node in nodes {
                    self.signal(*node, Signal::KILL);
                }
                for node in nodes {
                    self.nodes[*node].kill();
                }
            }
            Fault::Restart(node) => {
                // Answered when it is down, which `bites` awaits.
                self.nodes[*node].begin(&["shutdown"]);
            }
            Fault::Failpoint { node, name, count } => {
                self.nodes[*node].kill();
                self.spawn(*node, Some(format!("{name}:{count}")));
                // It may be dead before it is ready.
                self.started.remove(node);
                drop(self.set_to_work(*node));
            }
            Fault::Pause(node, _) => self.signal(*node, Signal::STOP),
            Fault::Cut { .. } | Fault::Isolate(_) | Fault::Split(_) => self.cut(fault, true),
            Fault::Move(node) => {
                self.nodes[*node].kill();
                self.lab.renumber(*node);
            }
            Fault::Renumber(node) => match self.anywhere[*node] {
                true => self.lab.renumber(*node),
                false => self.lab.bare(*node, true),
            },
            Fault::FullDisk { node, .. } => self.lab.fill_disk(*node),
        }
    }

    /// Whether the fault has had its effect, which is waited for if it takes a while.
    fn bites(&mut self, fault: &Fault) -> bool {
        match fault {
            Fault::Kill(nodes) => nodes.iter().all(|node| {
                let ended = self.nodes[*node].ended();
                ended.is_some_and(|status| status.signal() == Some(Signal::KILL.as_raw()))
            }),
            Fault::Restart(node) => {
                // A second call returns when the first is done.
                self.nodes[*node].call(&["shutdown"]) == ["done"]
            }
            Fault::Failpoint { node, name, .. } => self.dies_at(*node, name),
            Fault::Pause(node, time) => {
                let stopped = state(self.nodes[*node].pid()) == Some('T');
                std::thread::sleep(*time);
                stopped
            }
            Fault::Cut { one, two, .. } => {
                // By the one who hears nothing more, unless that is told of voters alone.
                let (deaf, mute) = match *one < self.lab.voters {
                    true => (*two, *one),
                    false => (*one, *two),
                };
                self.await_loss(deaf, &[mute]);
                true
            }
            Fault::Isolate(node) => {
                let others: Vec<_> = (0..self.lab.voters).filter(|other| other != node).collect();
                self.await_loss(*node, &others);
                true
            }
            Fault::Split(side) => {
                let (here, there): (Vec<_>, Vec<_>) =
                    (0..self.lab.nodes).partition(|node| side.contains(node));
                for node in here {
                    let voters = there.iter().copied().filter(|n| *n < self.lab.voters);
                    self.await_loss(node, &voters.collect::<Vec<_>>());
                }
                true
            }
            Fault::Move(node) => self.lab.has_ip(*node),
            Fault::Renumber(node) => {
                if self.anywhere[*node] {
                    return self.lab.has_ip(*node);
                }
                let others: Vec<_> = (0..self.lab.voters).filter(|other| other != node).collect();
                self.await_loss(*node, &others);
                !self.lab.has_ip(*node)
            }
            Fault::FullDisk { node, .. } => {
                let helper = (*node + 1) % self.lab.voters;
                until(format!("{} is out of space", self.lab.name(*node)), || {
                    self.fill(helper);
                    let failure = self.nodes[*node].status().failure;
                    assert!(
                        failure.is_empty() || failure.contains("No space left"),
                        "{failure}"
                    );
                    !failure.is_empty()
                });
                true
            }
        }
    }

    fn heal(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(nodes) => {
                for node in nodes {
                    self.spawn(*node, None);
                }
            }
            Fault::Restart(node) | Fault::Move(node) | Fault::Failpoint { node, .. } => {
                self.nodes[*node].kill();
                self.spawn(*node, None);
            }
            Fault::Pause(node, _) => self.signal(*node, Signal::CONT),
            Fault::Cut { .. } | Fault::Isolate(_) | Fault::Split(_) => self.cut(fault, false),
            Fault::Renumber(node) => {
                if !self.anywhere[*node] {
                    self.lab.bare(*node, false);
                }
            }
            Fault::FullDisk { node, start } => {
                self.nodes[*node].kill();
                if *start {
                    self.spawn(*node, None);
                    let started = self.nodes[*node].try_ready();
                    self.tally.start_on_full_disk(&started);
                    self.nodes[*node].kill();
                }
                self.lab.empty_disk(*node);
                self.spawn(*node, None);
            }
        }
    }

    fn signal(&self, node: usize, signal: Signal) {
        let pid = Pid::from_raw(self.nodes[node].pid() as i32).expect("no process is 0");
        kill_process(pid, signal).expect("the process is our child");
    }

    /// Waits until `node` has no link to any of these voters.
    fn await_loss(&self, node: usize, voters: &[usize]) {
        let name = self.lab.name(node);
        until(format!("{name} loses {voters:?}"), || {
            let status = self.nodes[node].status();
            voters.iter().all(|voter| !status.voters[NAMES[*voter]].0)
        });
    }

    /// Waits for the death at a failpoint; if it does not come, the process is killed.
    fn dies_at(&mut self, node: usize, name: &'static str) -> bool {
        let deadline = Instant::now() + Duration::from_millis(FAILPOINT_MS);
        let is_of_disk = name.starts_with("segment") || name.starts_with("checkpoint");
        while Instant::now() < deadline {
            if let Some(status) = self.nodes[node].ended() {
                let log = self.nodes[node].log();
                assert!(
                    status.core_dumped() || status.signal() == Some(Signal::ABORT.as_raw()),
                    "{} died of something else: {status:?}: {log}",
                    self.lab.name(node)
                );
                return true;
            }
            if is_of_disk {
                self.fill((node + 1) % self.lab.voters);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.deck.missed(name);
        false
    }

    /// Has a big value written, whatever comes of it.
    fn fill(&mut self, node: usize) {
        self.fills += 1;
        let (cell, bytes) = (format!("fill-{}", self.fills), FILL_BYTES.to_string());
        let written = self.nodes[node].begin(&["fill", &cell, &bytes]);
        // One at a time where it is answered soon.
        let _ = written.recv_timeout(Duration::from_millis(50));
    }

    fn cut(&self, fault: &Fault, cut: bool) {
        let pairs: Vec<(usize, usize)> = match fault {
            Fault::Cut { one, two, one_way } => match one_way {
                true => vec![(*one, *two)],
                false => vec![(*one, *two), (*two, *one)],
            },
            Fault::Isolate(node) if self.lab.has_spaces() => {
                return self.lab.unplug(*node, cut);
            }
            Fault::Isolate(node) => (0..self.lab.voters)
                .filter(|other| other != node)
                .map(|other| (other, *node))
                .collect(),
            Fault::Split(side) => (0..self.lab.nodes)
                .filter(|there| !side.contains(there))
                .flat_map(|there| side.iter().flat_map(move |n| [(*n, there), (there, *n)]))
                .collect(),
            other => unreachable!("{other} cuts nothing"),
        };
        for (from, to) in pairs {
            if self.lab.has_spaces() {
                self.lab.cut(from, to, cut);
            } else if from < self.lab.voters {
                // The process has no ear for it. Of observers it knows no names, but they do.
                let reply = self.nodes[to].call(&["refuse", NAMES[from], &cut.to_string()]);
                assert_eq!(reply, ["ok"]);
            } else {
                let reply = self.nodes[from].call(&["refuse", NAMES[to], &cut.to_string()]);
                assert_eq!(reply, ["ok"]);
            }
        }
    }

    /// Every node looks at every cell once more; then the history is judged.
    pub fn end(mut self) {
        let mut cells = BTreeSet::new();
        for line in self.lab.history_lines().lines() {
            cells.extend(cell_of(line));
        }
        let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
        for chunk in cells.chunks(LOOK_CELLS_MAX) {
            let mut words = vec!["look"];
            words.extend(chunk.iter().map(String::as_str));
            let looks: Vec<_> = self.nodes.iter().map(|node| node.begin(&words)).collect();
            for (node, look) in looks.into_iter().enumerate() {
                let reply = self.nodes[node].receive("look", &look);
                if reply.as_deref() != Some(&["0".to_string()]) {
                    let name = self.lab.name(node);
                    self.fail(
                        format!("last looks on {name} without an answer: {reply:?}"),
                        &[],
                    );
                }
            }
        }
        for node in &self.nodes {
            node.kill();
        }
        let lines = self.lab.history_lines();
        let history = History::from_lines(&lines).expect("clients write good lines");
        match history.check() {
            Ok(checked) => {
                println!("{}: {checked}", self.network);
                self.tally.checked(checked, &lines);
            }
            Err(violation) => self.fail_for_good(&violation.to_string(), &lines),
        }
    }

    fn fail_for_good(&self, violation: &str, lines: &str) -> ! {
        let kept = format!("raft-once-history-{}.txt", std::process::id());
        let kept = std::env::temp_dir().join(kept);
        std::fs::write(&kept, lines).expect("there is space for a history");
        panic!(
            "{}: {violation}\nthe history is in {}",
            self.network,
            kept.display()
        );
    }
}

fn cell_of(line: &str) -> Option<u32> {
    let (_, cell) = line.split_once(" cell ")?;
    cell.split(' ').next()?.parse().ok()
}

/// The state of a process, as the system tells it: `T` is stopped.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}
