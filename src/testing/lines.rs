//! Histories as text, one line an operation.
//!
//! ```text
//! 1..4 client 1 cell 0 claim 10: won at 3
//! 2..5 client 2 cell 0 write 20: acknowledged at 4
//! 3.. client 3 cell 0 get_or_init 30: unclear
//! 6..6 client 2 cell 0 read: saw 10 at 4
//! ```

use std::collections::BTreeMap;
use std::fmt;

use super::history::History;
use super::operation::{Call, Operation, Outcome};

/// A line that [`History::to_lines`] does not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no operation of a history: {text:?}")]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

impl History {
    /// The history as text, one line an operation, in the order of recording.
    pub fn to_lines(&self) -> String {
        self.to_string()
    }

    /// Reads what [`to_lines`](Self::to_lines) wrote, or what was put together from
    /// [`line`](Self::line)s.
    ///
    /// A finished operation takes the place of the line that was written when it was invoked. What
    /// stands behind the last end of line was being written when the recorder died, and is left
    /// out: the call was not made yet, or its invocation is in a line before.
    ///
    /// # Errors
    ///
    /// [`LineError`] for the first line that is no operation.
    pub fn from_lines(lines: &str) -> Result<Self, LineError> {
        let mut history = Self::new();
        let mut unfinished = BTreeMap::new();
        for (index, line) in lines.split_inclusive('\n').enumerate() {
            let Some(text) = line.strip_suffix('\n') else {
                break;
            };
            let operation = operation(text).ok_or_else(|| LineError {
                line: index + 1,
                text: text.to_owned(),
            })?;
            let Operation {
                client,
                cell,
                call,
                invoked,
                returned,
            } = operation;
            let key = (invoked, client, cell, call);
            match returned {
                None => {
                    unfinished.insert(key, history.add(operation));
                }
                Some((at, outcome)) => match unfinished.remove(&key) {
                    Some(op) => history.finish_at(at, op, outcome),
                    None => {
                        history.add(operation);
                    }
                },
            }
        }
        Ok(history)
    }
}

/// One line an operation.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operations
            .iter()
            .try_for_each(|operation| writeln!(f, "{operation}"))
    }
}

/// One line an operation.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", self.invoked)?;
        if let Some((at, _)) = self.returned {
            write!(f, "{at}")?;
        }
        write!(f, " client {} cell {} ", self.client, self.cell)?;
        match self.call {
            Call::Write(value) => write!(f, "write {value}")?,
            Call::Claim(value) => write!(f, "claim {value}")?,
            Call::GetOrInit(value) => write!(f, "get_or_init {value}")?,
            Call::Read => write!(f, "read")?,
            Call::ReadLinearizable => write!(f, "read_linearizable")?,
            Call::Wait => write!(f, "wait")?,
        }
        match self.outcome() {
            Outcome::Acknowledged { version } => write!(f, ": acknowledged at {version}"),
            Outcome::Won { version } => write!(f, ": won at {version}"),
            Outcome::Lost { winner } => write!(f, ": lost to {winner}"),
            Outcome::Saw {
                value: Some(value),
                version,
            } => write!(f, ": saw {value} at {version}"),
            Outcome::Saw {
                value: None,
                version,
            } => write!(f, ": saw nothing at {version}"),
            Outcome::Unclear => write!(f, ": unclear"),
        }
    }
}

/// The operation of a line. There is one way to write each: `+7`, `007` and an outcome of what has
/// not returned are refused.
fn operation(line: &str) -> Option<Operation> {
    parse(line).filter(|operation| operation.to_string() == line)
}

fn parse(text: &str) -> Option<Operation> {
    let (asked, answered) = text.split_once(": ")?;
    let asked: Vec<&str> = asked.split(' ').collect();
    let [times, "client", client, "cell", cell, call @ ..] = asked.as_slice() else {
        return None;
    };
    let (invoked, at) = times.split_once("..")?;
    let outcome = parse_outcome(answered)?;
    Some(Operation {
        client: client.parse().ok()?,
        cell: cell.parse().ok()?,
        call: parse_call(call)?,
        invoked: invoked.parse().ok()?,
        returned: match at {
            "" => None,
            at => Some((at.parse().ok()?, outcome)),
        },
    })
}

fn parse_call(words: &[&str]) -> Option<Call> {
    match words {
        ["write", value] => Some(Call::Write(value.parse().ok()?)),
        ["claim", value] => Some(Call::Claim(value.parse().ok()?)),
        ["get_or_init", value] => Some(Call::GetOrInit(value.parse().ok()?)),
        ["read"] => Some(Call::Read),
        ["read_linearizable"] => Some(Call::ReadLinearizable),
        ["wait"] => Some(Call::Wait),
        _ => None,
    }
}

fn parse_outcome(text: &str) -> Option<Outcome> {
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        ["acknowledged", "at", version] => Some(Outcome::Acknowledged {
            version: version.parse().ok()?,
        }),
        ["won", "at", version] => Some(Outcome::Won {
            version: version.parse().ok()?,
        }),
        ["lost", "to", winner] => Some(Outcome::Lost {
            winner: winner.parse().ok()?,
        }),
        ["saw", value, "at", version] => Some(Outcome::Saw {
            value: match *value {
                "nothing" => None,
                value => Some(value.parse().ok()?),
            },
            version: version.parse().ok()?,
        }),
        ["unclear"] => Some(Outcome::Unclear),
        _ => None,
    }
}
