//! The proof of life at the end of a round: new writes, and what is told where one is late.

use std::time::{Duration, Instant};

use crate::client::now_ns;
use crate::pressure::Pressure;
use crate::run::Run;

/// How long a write may take on a machine that keeps the processes from running.
const STARVED_MS: u64 = 30_000;

/// Lines of a process's log that are shown with a failure.
const LOG_LINES_MAX: usize = 20;

impl Run<'_> {
    /// A new write is acknowledged on every node, within its timeout. Where the processes were
    /// kept from running that is no verdict, and it is asked again; but it must come true.
    pub fn probe(&mut self, round: usize) {
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
    pub fn fail(&mut self, what: String, groups: &[String]) {
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
}
