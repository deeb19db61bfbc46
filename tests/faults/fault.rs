//! What a round does to whom, drawn from the seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::point::{Way, failpoints, most_hits};

/// A pause of a process. Links end after 1,500 ms of silence: some pauses outlast them.
const PAUSE_MS: (f64, f64) = (200.0, 4_000.0);

/// How long what needs no sign of its own lasts, before it is healed.
const HOLD_MS: (u64, u64) = (30, 400);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// SIGKILL of one node.
    Kill,
    /// SIGKILL of every voter.
    KillAll,
    /// An orderly shutdown and a new start.
    Restart,
    /// Death at a failpoint.
    Failpoint,
    /// SIGSTOP, and SIGCONT some time later.
    Pause,
    /// Two nodes do not hear each other.
    CutPair,
    /// One node is not heard by another, but hears it.
    CutOneWay,
    /// A node and everybody else.
    Isolate,
    /// Two sides, one of which has no majority.
    Split,
    /// A voter that is killed and comes back at another address.
    Move,
    /// A running voter whose address changes, or goes away for a while.
    Renumber,
    /// A voter without space on its disk.
    FullDisk,
}

impl Kind {
    /// What a run begins with: each once.
    pub const ALL: [Self; 12] = [
        Self::Kill,
        Self::KillAll,
        Self::Restart,
        Self::Failpoint,
        Self::Pause,
        Self::CutPair,
        Self::CutOneWay,
        Self::Isolate,
        Self::Split,
        Self::Move,
        Self::Renumber,
        Self::FullDisk,
    ];

    /// How often it is among each further deck's worth of rounds.
    pub fn weight(self) -> usize {
        match self {
            Self::Failpoint => 10,
            Self::Kill => 6,
            Self::Pause => 4,
            Self::Restart | Self::FullDisk | Self::Move => 2,
            _ => 1,
        }
    }

    pub fn needs_spaces(self) -> bool {
        matches!(self, Self::Move | Self::Renumber)
    }
}

#[derive(Debug, Clone)]
pub enum Fault {
    Kill(Vec<usize>),
    Restart(usize),
    Failpoint {
        node: usize,
        name: &'static str,
        count: u64,
    },
    Pause(usize, Duration),
    Cut {
        one: usize,
        two: usize,
        /// From `one` to `two` alone.
        one_way: bool,
    },
    Isolate(usize),
    Split(Vec<usize>),
    Move(usize),
    Renumber(usize),
    FullDisk {
        node: usize,
        /// It is also started once while there is no space.
        start: bool,
    },
}

impl Fault {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Kill(nodes) if nodes.len() > 1 => Kind::KillAll,
            Self::Kill(_) => Kind::Kill,
            Self::Restart(_) => Kind::Restart,
            Self::Failpoint { .. } => Kind::Failpoint,
            Self::Pause(..) => Kind::Pause,
            Self::Cut { one_way: false, .. } => Kind::CutPair,
            Self::Cut { one_way: true, .. } => Kind::CutOneWay,
            Self::Isolate(_) => Kind::Isolate,
            Self::Split(_) => Kind::Split,
            Self::Move(_) => Kind::Move,
            Self::Renumber(_) => Kind::Renumber,
            Self::FullDisk { .. } => Kind::FullDisk,
        }
    }

    /// Whether no other fault may be beside it.
    fn is_alone(&self) -> bool {
        match self {
            Self::Split(_) => true,
            Self::Kill(nodes) => nodes.len() > 1,
            Self::Failpoint { name, .. } => Way::to(name).is_alone(),
            _ => false,
        }
    }

    /// The nodes whose processes or links it touches; nothing else may be done to them meanwhile.
    fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Kill(nodes) | Self::Split(nodes) => nodes.clone(),
            Self::Cut { one, two, .. } => vec![*one, *two],
            Self::Restart(node)
            | Self::Pause(node, _)
            | Self::Isolate(node)
            | Self::Move(node)
            | Self::Renumber(node)
            | Self::Failpoint { node, .. }
            | Self::FullDisk { node, .. } => vec![*node],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(nodes) => write!(f, "kill {nodes:?}"),
            Self::Restart(node) => write!(f, "restart {node}"),
            Self::Failpoint { node, name, count } => write!(f, "die {node} at {name}:{count}"),
            Self::Pause(node, time) => write!(f, "pause {node} for {} ms", time.as_millis()),
            Self::Cut { one, two, one_way } => {
                let between = if *one_way { ">" } else { "|" };
                write!(f, "cut {one}{between}{two}")
            }
            Self::Isolate(node) => write!(f, "isolate {node}"),
            Self::Split(side) => write!(f, "split off {side:?}"),
            Self::Move(node) => write!(f, "move {node}"),
            Self::Renumber(node) => write!(f, "renumber {node}"),
            Self::FullDisk { node, start } => {
                let also = if *start { ", start on it" } else { "" };
                write!(f, "fill the disk of {node}{also}")
            }
        }
    }
}

/// One round.
#[derive(Debug, Clone)]
pub struct Plan {
    pub faults: Vec<Fault>,
    pub hold: Duration,
}

/// Deals faults; the same ones for the same seed.
pub struct Deck {
    random: StdRng,
    /// For what is drawn as processes start, and so depends on the machine: faults do not.
    pub aside: StdRng,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
    failpoints: Vec<&'static str>,
    /// Those of first starts.
    firsts: Vec<&'static str>,
}

impl Deck {
    /// Of these kinds: each once, before anything else is dealt.
    pub fn new(seed: u64, kinds: &[Kind]) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut left = kinds.to_vec();
        left.shuffle(&mut random);
        Self {
            aside: StdRng::seed_from_u64(random.random()),
            random,
            kinds: kinds.to_vec(),
            left,
            failpoints: Vec::new(),
            firsts: Vec::new(),
        }
    }

    /// How many times a kind comes at least as the first fault of so many rounds.
    pub fn least(kind: Kind, kinds: &[Kind], rounds: usize) -> usize {
        let weights: usize = kinds.iter().map(|kind| kind.weight()).sum();
        1 + rounds.saturating_sub(kinds.len()) / weights * kind.weight()
    }

    fn kind(&mut self) -> Kind {
        if self.left.is_empty() {
            let kinds = self.kinds.iter();
            self.left = kinds
                .flat_map(|kind| std::iter::repeat_n(*kind, kind.weight()))
                .collect();
            self.left.shuffle(&mut self.random);
        }
        self.left.pop().expect("there are kinds")
    }

    /// Every name comes once before any comes again; one that did not bite comes again at once.
    fn failpoint(&mut self) -> &'static str {
        if self.failpoints.is_empty() {
            self.failpoints = failpoints(false);
            self.failpoints.shuffle(&mut self.random);
        }
        self.failpoints.pop().expect("there are failpoints")
    }

    /// Where the first processes of a life die: that of each voter but the last, if any.
    pub fn first_failpoints(&mut self, voters: usize) -> Vec<&'static str> {
        if !self.kinds.contains(&Kind::Failpoint) {
            return Vec::new();
        }
        let mut dealt = Vec::new();
        for _ in 1..voters {
            if self.firsts.is_empty() {
                self.firsts = failpoints(true);
                self.firsts.shuffle(&mut self.random);
            }
            dealt.extend(self.firsts.pop());
        }
        dealt
    }

    pub fn missed(&mut self, failpoint: &'static str) {
        self.failpoints.push(failpoint);
    }

    pub fn plan(&mut self, voters: usize, nodes: usize) -> Plan {
        let kind = self.kind();
        let mut faults = vec![self.fault(kind, voters, nodes)];
        if !faults[0].is_alone() && self.random.random_range(0..3) == 0 {
            let beside: Vec<_> = [Kind::Kill, Kind::Pause, Kind::Failpoint, Kind::CutPair]
                .into_iter()
                .filter(|kind| self.kinds.contains(kind))
                .collect();
            if !beside.is_empty() {
                let kind = beside[self.random.random_range(0..beside.len())];
                let second = self.fault(kind, voters, nodes);
                let touched = faults[0].nodes();
                let clash = second.nodes().iter().any(|node| touched.contains(node));
                if !clash && !second.is_alone() {
                    faults.push(second);
                } else if let Fault::Failpoint { name, .. } = second {
                    self.missed(name);
                }
            }
        }
        let hold = self.random.random_range(HOLD_MS.0..=HOLD_MS.1);
        Plan {
            faults,
            hold: Duration::from_millis(hold),
        }
    }

    fn fault(&mut self, kind: Kind, voters: usize, nodes: usize) -> Fault {
        // Observers get their share, where they can be meant.
        let any = self.random.random_range(0..nodes);
        let voter = self.random.random_range(0..voters);
        match kind {
            Kind::Kill => Fault::Kill(vec![any]),
            Kind::KillAll => Fault::Kill((0..voters).collect()),
            Kind::Restart => Fault::Restart(any),
            Kind::Failpoint => {
                let name = self.failpoint();
                let most = most_hits(name) as f64;
                let count = most.powf(self.random.random()).round() as u64;
                Fault::Failpoint {
                    node: voter,
                    name,
                    count,
                }
            }
            Kind::Pause => {
                let factor = (PAUSE_MS.1 / PAUSE_MS.0).powf(self.random.random::<f64>().powi(2));
                Fault::Pause(any, Duration::from_millis((PAUSE_MS.0 * factor) as u64))
            }
            Kind::CutPair | Kind::CutOneWay => {
                let two = (voter + self.random.random_range(1..nodes)) % nodes;
                let (one, two) = match self.random.random() {
                    true => (voter, two),
                    false => (two, voter),
                };
                let one_way = kind == Kind::CutOneWay;
                Fault::Cut { one, two, one_way }
            }
            Kind::Isolate => Fault::Isolate(any),
            Kind::Split => {
                let mut side: Vec<_> = (0..voters).collect();
                side.shuffle(&mut self.random);
                side.truncate(self.random.random_range(1..=voters / 2));
                // Observers fall to either side.
                side.extend((voters..nodes).filter(|_| self.random.random()));
                Fault::Split(side)
            }
            Kind::Move => Fault::Move(voter),
            Kind::Renumber => Fault::Renumber(voter),
            Kind::FullDisk => Fault::FullDisk {
                node: voter,
                start: self.random.random(),
            },
        }
    }
}
