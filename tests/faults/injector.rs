//! What is done to processes, links, addresses and disks, and undone.

use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::fault::Fault;
use crate::lab::NAMES;
use crate::process::{Reply, until};
use crate::run::Run;

/// A value that fills a segment, with its kind.
const FILL_BYTES: usize = 100 * 1024;

/// Writes of one cell: its log is cut behind 64 of them, to the last 16.
const CHURN_WRITES: usize = 200;

impl Run<'_> {
    pub fn begin(&mut self, fault: &Fault) {
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
            Fault::Failpoint { node, name, count } => self.arm(*node, name, *count),
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
    pub fn bites(&mut self, fault: &Fault) -> bool {
        match fault {
            Fault::Kill(nodes) => nodes.iter().all(|node| {
                let ended = self.nodes[*node].ended();
                ended.is_some_and(|status| status.signal() == Some(Signal::KILL.as_raw()))
            }),
            Fault::Restart(node) => {
                // A second call returns when the first is done.
                self.nodes[*node].call(&["shutdown"]) == ["done"]
            }
            Fault::Failpoint { node, name, count } => self.dies_at(*node, name, *count),
            Fault::Pause(node, time) => {
                // Each of its threads stops when it next comes to run.
                let pid = self.nodes[*node].pid();
                until(format!("process {pid} stops"), || state(pid) == Some('T'));
                std::thread::sleep(*time);
                true
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

    pub fn heal(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(nodes) => {
                for node in nodes {
                    self.spawn(*node, None);
                }
            }
            Fault::Failpoint { node, name, .. } => self.disarm(*node, name),
            Fault::Restart(node) | Fault::Move(node) => {
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

    /// Has a value written that fills a segment, whatever comes of it.
    pub fn fill(&mut self, node: usize) {
        let written = self.write_filler(node, FILL_BYTES, 1);
        // One at a time where it is answered soon.
        let _ = written.recv_timeout(Duration::from_millis(50));
    }

    /// Has a cell written so often that its log is cut.
    pub fn churn(&mut self, node: usize) -> Receiver<Reply> {
        self.write_filler(node, 1, CHURN_WRITES)
    }

    /// Has a new cell, which no client uses, written so many times with so many bytes.
    pub fn write_filler(&mut self, node: usize, bytes: usize, times: usize) -> Receiver<Reply> {
        self.fillers += 1;
        let (bytes, times) = (bytes.to_string(), times.to_string());
        self.nodes[node].begin(&["fill", &format!("fill-{}", self.fillers), &bytes, &times])
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
}

/// The state of a process, as the system tells it: `T` is stopped.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}
