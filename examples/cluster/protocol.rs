//! What parent and node say to each other: one line each, in fields separated by tabs. Our values
//! contain neither tabs nor newlines.

use std::fmt;

/// In front of what a node says unasked: its view, whenever that has changed.
pub const EVENT: &str = "*";

/// What the parent asks for. A node answers each with one line, an [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Claim the cell for this value.
    Claim(String),
    /// Offer this value, without asking whether it won.
    Write(String),
    /// What do you see?
    View,
    /// Read what stands now, from your disk or from a majority; then: what do you see?
    ReadLinearizable,
    /// What must another process know to join as an observer?
    Ticket,
    /// End in order.
    Stop,
}

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is up, with this node id.
    Ready(String),
    /// Its address is taken.
    PortTaken(String),
    Won {
        version: u64,
    },
    Lost {
        winner: String,
    },
    Written {
        version: u64,
    },
    /// No majority confirmed it. Here is the value.
    Offline(String),
    View(View),
    Ticket(String),
    Stopped,
    /// It could not do what it was asked to.
    Failed(String),
}

/// A node's view of the cell and of its network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub value: Option<String>,
    pub version: u64,
    pub decision: Option<Decision>,
    pub online: bool,
    /// How many voters it sees, itself included.
    pub voters: usize,
    /// Voters that its first start still waits for.
    pub waiting_for: usize,
    pub leader: Option<String>,
}

/// Who decided the cell, by node id, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub winner: String,
    pub version: u64,
    pub proposed_at_ms: u128,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(value) => write!(f, "claim\t{value}"),
            Self::Write(value) => write!(f, "write\t{value}"),
            Self::View => f.write_str("view"),
            Self::ReadLinearizable => f.write_str("read"),
            Self::Ticket => f.write_str("ticket"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

impl Ask {
    pub fn parse(line: &str) -> Option<Self> {
        Some(match *line.split('\t').collect::<Vec<_>>() {
            ["claim", value] => Self::Claim(value.into()),
            ["write", value] => Self::Write(value.into()),
            ["view"] => Self::View,
            ["read"] => Self::ReadLinearizable,
            ["ticket"] => Self::Ticket,
            ["stop"] => Self::Stop,
            _ => return None,
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(node_id) => write!(f, "ready\t{node_id}"),
            Self::PortTaken(reason) => write!(f, "port-taken\t{reason}"),
            Self::Won { version } => write!(f, "won\t{version}"),
            Self::Lost { winner } => write!(f, "lost\t{winner}"),
            Self::Written { version } => write!(f, "written\t{version}"),
            Self::Offline(value) => write!(f, "offline\t{value}"),
            Self::View(view) => write!(f, "view\t{view}"),
            Self::Ticket(ticket) => write!(f, "ticket\t{ticket}"),
            Self::Stopped => f.write_str("stopped"),
            Self::Failed(reason) => write!(f, "failed\t{reason}"),
        }
    }
}

impl Answer {
    pub fn parse(line: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok();
        Some(match *line.split('\t').collect::<Vec<_>>() {
            ["ready", node_id] => Self::Ready(node_id.into()),
            ["port-taken", reason] => Self::PortTaken(reason.into()),
            ["won", version] => Self::Won {
                version: number(version)?,
            },
            ["lost", winner] => Self::Lost {
                winner: winner.into(),
            },
            ["written", version] => Self::Written {
                version: number(version)?,
            },
            ["offline", value] => Self::Offline(value.into()),
            ["view", ..] => Self::View(View::parse(line.strip_prefix("view\t")?)?),
            ["ticket", ticket] => Self::Ticket(ticket.into()),
            ["stopped"] => Self::Stopped,
            ["failed", reason] => Self::Failed(reason.into()),
            _ => return None,
        })
    }
}

impl fmt::Display for View {
    /// An absent text is empty, one that is there begins with `=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &Option<String>| text.as_ref().map_or(String::new(), |t| format!("={t}"));
        let (winner, at, when) = match &self.decision {
            Some(d) => (Some(d.winner.clone()), d.version, d.proposed_at_ms),
            None => (None, 0, 0),
        };
        write!(
            f,
            "{}\t{}\t{}\t{at}\t{when}\t{}\t{}\t{}\t{}",
            text(&self.value),
            self.version,
            text(&winner),
            self.online,
            self.voters,
            self.waiting_for,
            text(&self.leader),
        )
    }
}

impl View {
    pub fn parse(line: &str) -> Option<Self> {
        let text = |text: &str| text.strip_prefix('=').map(String::from);
        let fields: Vec<&str> = line.split('\t').collect();
        let [
            value,
            version,
            winner,
            at,
            when,
            online,
            voters,
            waiting_for,
            leader,
        ] = *fields
        else {
            return None;
        };
        let decision = match text(winner) {
            Some(winner) => Some(Decision {
                winner,
                version: at.parse().ok()?,
                proposed_at_ms: when.parse().ok()?,
            }),
            None => None,
        };
        Some(Self {
            value: text(value),
            version: version.parse().ok()?,
            decision,
            online: online.parse().ok()?,
            voters: voters.parse().ok()?,
            waiting_for: waiting_for.parse().ok()?,
            leader: text(leader),
        })
    }
}
