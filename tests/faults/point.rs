//! How a process is brought to a failpoint, and dies there.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use raft_once::testing::FAILPOINTS;
use rustix::process::Signal;

use crate::process::{DEADLINE, until};
use crate::run::Run;

/// How long a process has to come to the failpoint that it is armed with.
const PATIENCE: Duration = Duration::from_secs(3);

/// The same where a group has to fall asleep before, which is idle for 10 s then.
const PATIENCE_FOR_SLEEP: Duration = Duration::from_secs(30);

/// Cells of which a voter should lead at least one.
const SLEEPY_CELLS: usize = 8;

/// What it takes that a process comes to a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing: its start or its clients do.
    Plain,
    /// The first start of a voter, in an empty folder.
    First,
    /// A start after a death at another failpoint.
    After(&'static str),
    /// Values that fill segments.
    Fill,
    /// Many writes of one cell.
    Churn,
    /// The same while its node is down.
    Absent,
    /// A group that falls asleep while another voter is down.
    Sleep,
}

impl Way {
    pub fn to(failpoint: &str) -> Self {
        match failpoint {
            "past.before_qualify" | "past.after_qualify" => Self::First,
            "recovery.before_unused" | "recovery.between_unused" | "recovery.after_unused" => {
                Self::After("segment.before_header")
            }
            "group.before_purge" | "group.after_purge" => Self::Churn,
            "group.before_install" | "group.after_install" => Self::Absent,
            _ => match room(failpoint) {
                "create" => Self::First,
                "segment" | "checkpoint" => Self::Fill,
                "mark" => Self::Sleep,
                _ => Self::Plain,
            },
        }
    }

    /// Whether no other fault may be beside it: it needs all other voters but one.
    pub fn is_alone(self) -> bool {
        matches!(self, Self::Absent | Self::Sleep)
    }
}

fn room(failpoint: &str) -> &str {
    failpoint
        .split('.')
        .next()
        .expect("a split has a first part")
}

/// Those that a process can die at in a later start than its first, and the others.
pub fn failpoints(first: bool) -> Vec<&'static str> {
    let names = FAILPOINTS.into_iter();
    names
        .filter(|name| (Way::to(name) == Way::First) == first)
        .collect()
}

/// Up to how many hits a process may live through: what it comes to within a second or two.
pub fn most_hits(failpoint: &str) -> u64 {
    match room(failpoint) {
        "store" => 150,
        "link" => 250,
        "segment" | "checkpoint" | "mark" => 2,
        "past" | "create" | "recovery" => 1,
        _ => match failpoint {
            "group.before_acknowledge" => 60,
            "group.before_apply" | "group.after_apply" => 10,
            "group.before_birth" | "group.after_birth" => 3,
            "group.before_purge" | "group.after_purge" => 2,
            "group.before_install" | "group.after_install" => 1,
            _ => 4,
        },
    }
}

impl Run<'_> {
    /// Starts a node's process again, armed.
    pub fn arm(&mut self, node: usize, name: &'static str, count: u64) {
        self.nodes[node].kill();
        let (helper, away) = self.beside(node);
        match Way::to(name) {
            Way::After(first) => return self.spawn_armed(node, first, 1),
            Way::Absent => {
                let written = self.churn(helper);
                // Answered or not: what comes of it shows.
                let _ = written.recv_timeout(DEADLINE);
            }
            Way::Sleep => self.nodes[away].kill(),
            _ => {}
        }
        self.spawn_armed(node, name, count);
    }

    fn spawn_armed(&mut self, node: usize, name: &str, count: u64) {
        self.spawn(node, Some(format!("{name}:{count}")));
        // It may be dead before it is ready.
        self.started.remove(&node);
        drop(self.set_to_work(node));
    }

    /// Ends what [`arm`](Self::arm) has begun.
    pub fn disarm(&mut self, node: usize, name: &'static str) {
        let mut down = vec![node];
        if Way::to(name) == Way::Sleep {
            down.push(self.beside(node).1);
        }
        for node in down {
            self.nodes[node].kill();
            self.spawn(node, None);
        }
    }

    /// Waits for the death at a failpoint; if it does not come, the process is killed.
    pub fn dies_at(&mut self, node: usize, name: &'static str, count: u64) -> bool {
        let mut way = Way::to(name);
        if let Way::After(first) = way {
            if !self.dies_on(Way::to(first), node) {
                self.deck.missed(name);
                return false;
            }
            self.spawn_armed(node, name, count);
            way = Way::Plain;
        }
        let dead = self.dies_on(way, node);
        if !dead {
            self.deck.missed(name);
        }
        dead
    }

    fn dies_on(&mut self, way: Way, node: usize) -> bool {
        let patience = match way {
            Way::Sleep => PATIENCE_FOR_SLEEP,
            _ => PATIENCE,
        };
        let deadline = Instant::now() + patience;
        let (helper, _) = self.beside(node);
        if way == Way::Sleep {
            for _ in 0..SLEEPY_CELLS {
                drop(self.write_filler(node, 1, 1));
            }
        }
        while Instant::now() < deadline {
            if self.has_aborted(node) {
                return true;
            }
            match way {
                Way::Fill => self.fill(helper),
                Way::Churn => {
                    let written = self.churn(helper);
                    let _ = written.recv_timeout(Duration::from_millis(200));
                }
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Lets the processes of first starts die where they are armed, and starts them again.
    pub fn await_first_deaths(&mut self, armed: &[(usize, &'static str)]) {
        for (node, name) in armed {
            let told = format!("{} dies at {name}", self.lab.name(*node));
            until(told, || self.has_aborted(*node));
            self.tally.died_at(name);
            self.spawn(*node, None);
        }
    }

    /// Whether the process has died, as it does at a failpoint.
    fn has_aborted(&self, node: usize) -> bool {
        let Some(status) = self.nodes[node].ended() else {
            return false;
        };
        assert!(
            status.core_dumped() || status.signal() == Some(Signal::ABORT.as_raw()),
            "{} died of something else: {status:?}: {}",
            self.lab.name(node),
            self.nodes[node].log()
        );
        true
    }

    /// Two other voters: one that helps, and one that may be down meanwhile.
    fn beside(&self, node: usize) -> (usize, usize) {
        let voters = self.lab.voters;
        ((node + 1) % voters, (node + 2) % voters)
    }
}
