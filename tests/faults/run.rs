//! One life of a cluster: rounds of faults while clients run, and the judgement of what they saw.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use raft_once::testing::History;
use rand::RngExt;

use crate::answers::Answers;
use crate::client::now_ns;
use crate::fault::{Deck, Plan};
use crate::lab::{Lab, NAMES};
use crate::point::most_hits;
use crate::pressure::Pressure;
use crate::process::{DEADLINE, Node, Reply, until};
use crate::tally::Tally;

/// Clients of all processes together.
const CLIENTS: usize = 12;

/// Cells looked at by one command.
const LOOK_CELLS_MAX: usize = 100;

pub struct Run<'a> {
    // In this order: the processes end before their namespaces and folders go.
    pub nodes: Vec<Node>,
    pub lab: Lab,
    network: String,
    pub deck: &'a mut Deck,
    pub tally: &'a mut Tally,
    /// By node: its process binds all addresses that it has.
    pub anywhere: Vec<bool>,
    /// Nodes whose processes were started and are not awaited yet.
    pub started: BTreeSet<usize>,
    began_ns: u64,
    rounds: usize,
    /// Cells of probes that were made.
    pub cells: Cell<u32>,
    /// Cells that nobody looks at that were made.
    pub fillers: u64,
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
            rounds: 0,
            cells: Cell::new(0),
            fillers: 0,
            lab,
        };
        let firsts = run.deck.first_failpoints(run.lab.voters);
        let firsts: Vec<_> = firsts.into_iter().enumerate().collect();
        for node in 0..run.lab.nodes {
            let armed = firsts.get(node);
            let armed = armed.map(|(_, name)| format!("{name}:{}", most_hits(name)));
            let process = run.process(node, armed);
            run.nodes.push(process);
        }
        run.await_first_deaths(&firsts);
        run.await_started();
        run.await_links();
        run
    }

    fn process(&mut self, node: usize, failpoint: Option<String>) -> Node {
        self.anywhere[node] = self.deck.aside.random();
        self.started.insert(node);
        let mut spec = self.lab.spec(&self.network, node, self.anywhere[node]);
        if let Some(failpoint) = failpoint {
            let key = raft_once::testing::FAILPOINT_ENV.to_string();
            spec.env.push((key, failpoint));
        }
        Node::spawn(&spec)
    }

    /// Starts a node that is down.
    pub fn spawn(&mut self, node: usize, failpoint: Option<String>) {
        let process = self.process(node, failpoint);
        self.nodes[node] = process;
    }

    /// Sets the clients of a node to work, which may not be ready yet; the reply says that they
    /// are.
    pub fn set_to_work(&mut self, node: usize) -> Receiver<Reply> {
        self.tally.starts += 1;
        let start = self.tally.starts;
        let path = self.lab.histories().join(format!("{start}.log"));
        let seed: u64 = self.deck.aside.random();
        let words = [
            "clients".to_string(),
            path.display().to_string(),
            start.to_string(),
            self.began_ns.to_string(),
            seed.to_string(),
            (CLIENTS / self.lab.nodes).to_string(),
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
        // Progress is promised to a majority that is in touch.
        self.await_links();
        self.probe(round);
        self.rounds += 1;
        let (took, mended) = (began.elapsed(), healed.elapsed());
        println!(
            ": {} ms, whole after {}",
            took.as_millis(),
            mended.as_millis()
        );
        self.tally.round(took);
    }

    /// Every node looks at every cell once more; then the history is judged.
    pub fn end(mut self) {
        // Clients on a slow machine go on until they have done enough.
        until(format!("{} answers enough", self.network), || {
            let mut answers = Answers::default();
            answers.add(&self.lab.history_lines());
            answers.lack(self.rounds).is_none()
        });
        let mut cells = BTreeSet::new();
        for line in self.lab.history_lines().lines() {
            cells.extend(cell_of(line));
        }
        let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
        let pressure = Pressure::begin();
        let deadline = Instant::now() + DEADLINE;
        for chunk in cells.chunks(LOOK_CELLS_MAX) {
            let mut words = vec!["look"];
            words.extend(chunk.iter().map(String::as_str));
            let looks: Vec<_> = self.nodes.iter().map(|node| node.begin(&words)).collect();
            for (node, look) in looks.into_iter().enumerate() {
                let mut reply = self.nodes[node].receive("look", &look);
                // As for a write that is late: on a busy machine it is asked again.
                while reply.as_ref().is_some_and(|reply| *reply != ["0"])
                    && pressure.was_starving()
                    && Instant::now() < deadline
                {
                    reply = self.nodes[node].try_call(&words);
                }
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
