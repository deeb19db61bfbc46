//! The proof of life at the end of a round: new writes, and what is told where one is late.
//!
//! A write that is late is asked for again, and must then be acknowledged in time. Only on a machine
//! that is busy all the time lateness proves nothing, however often: there the write is asked for
//! until it is acknowledged, or until newer cells have shown that the machine is fast enough. How
//! many rounds may be late is for the tally to judge.

use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use crate::client::now_ns;
use crate::pressure::Pressure;
use crate::process::{DEADLINE, announce};
use crate::run::Run;

/// A cell is stuck if it was asked for again so often, while so many newer ones were acknowledged.
const ASKED_MIN: usize = 4;
const NEWER_MIN: usize = 100;

/// Lines of a process's log that are shown with a failure.
const LOG_LINES_MAX: usize = 20;

impl Run<'_> {
    /// A new write is acknowledged on every node, within its timeout.
    pub fn probe(&mut self, round: usize) {
        let pressure = Pressure::begin();
        let cells: Vec<_> = self.nodes.iter().map(|_| self.new_cell()).collect();
        let probes = self.nodes.iter().zip(&cells);
        let probes: Vec<_> = probes
            .map(|(node, cell)| node.begin(&["probe", cell]))
            .collect();
        // And whether the machine was busy, in this round.
        let mut late = None;
        for (node, probe) in probes.into_iter().enumerate() {
            let reply = self.nodes[node].receive("probe", &probe);
            let reply = reply.unwrap_or_else(|| vec!["its process died".into()]);
            if reply[0] == "ok" {
                continue;
            }
            let what = format!("round {round}: a write on {}", self.lab.name(node));
            late = Some(late.unwrap_or(true) && pressure.was_starving());
            announce(&format!("{what} was late, {pressure}: {reply:?}"));
            if self.lab.logs() {
                self.tell(&reply[1..]);
            }
            if let Some(stuck) = self.stuck(node, &cells[node]) {
                self.fail(format!("{what}: {stuck}"), &reply[1..]);
            }
        }
        match late {
            Some(true) => self.tally.starved += 1,
            Some(false) => self.tally.late += 1,
            None => {}
        }
    }

    /// A cell that no client uses.
    fn new_cell(&self) -> String {
        let cell = self.cells.get();
        self.cells.set(cell + 1);
        (1 << 31 | cell).to_string()
    }

    /// Asks for a write again. Returns what is wrong if it does not come true.
    fn stuck(&self, node: usize, cell: &str) -> Option<String> {
        let deadline = Instant::now() + DEADLINE;
        let (mut asked, mut newer) = (0, 0);
        loop {
            let pressure = Pressure::begin();
            let again = self.nodes[node].begin(&["probe", cell]);
            let reply = loop {
                match again.try_recv() {
                    Ok(reply) => break reply,
                    Err(TryRecvError::Disconnected) => return Some("its process died".into()),
                    Err(TryRecvError::Empty) => {}
                }
                let other = self.nodes[node].call(&["probe", &self.new_cell()]);
                newer += usize::from(other == ["ok"]);
            };
            asked += 1;
            if reply == ["ok"] {
                return None;
            }
            let is_fast = asked >= ASKED_MIN && newer >= NEWER_MIN;
            if !pressure.was_starving() || is_fast || Instant::now() > deadline {
                return Some(format!(
                    "not acknowledged, asked {asked} more times, while {newer} newer cells were, \
                     {pressure}: {reply:?}"
                ));
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
