//! Whether a history is one of cells that keep their promises. Each cell is judged by itself.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::AddAssign;

use super::linear::{self, linearizability};
use super::operation::{Call, Operation, Outcome};
use super::versions::versions;
use super::violation::Violation;

/// What was checked. A check of little says little: demand minimums of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Calls, but for local reads.
    pub operations: u64,
    /// Local reads.
    pub observations: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Calls of which nothing is known.
    pub unclear: u64,
    /// Calls that were told that they won.
    pub won: u64,
    /// Claims that were told that they lost.
    pub lost: u64,
    /// Cells that occur.
    pub cells: u64,
    /// Cells that somebody saw decided.
    pub cells_decided: u64,
}

impl AddAssign for Checked {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.observations += other.observations;
        self.acknowledged += other.acknowledged;
        self.unclear += other.unclear;
        self.won += other.won;
        self.lost += other.lost;
        self.cells += other.cells;
        self.cells_decided += other.cells_decided;
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations ({} writes acknowledged, {} won, {} lost, {} unclear) and {} local reads \
             on {} cells, {} of them decided",
            self.operations,
            self.acknowledged,
            self.won,
            self.lost,
            self.unclear,
            self.observations,
            self.cells,
            self.cells_decided
        )
    }
}

/// All that happened to one cell.
pub(super) struct Cell<'a> {
    pub(super) number: u32,
    pub(super) operations: Vec<&'a Operation>,
}

impl<'a> Cell<'a> {
    /// The operations of each cell, in the order of their recording.
    pub(super) fn split(operations: &'a [Operation]) -> Vec<Self> {
        let mut cells = BTreeMap::<u32, Vec<&Operation>>::new();
        for operation in operations {
            cells.entry(operation.cell).or_default().push(operation);
        }
        cells
            .into_iter()
            .map(|(number, operations)| Self { number, operations })
            .collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a Operation> {
        self.operations.iter().copied()
    }

    /// The first operation that tells the cell's value, and the value.
    pub(super) fn value(&self) -> Option<(&'a Operation, u64)> {
        self.iter().find_map(|op| Some((op, op.seen()?)))
    }

    /// The call that proposed `value`. Values are unique.
    pub(super) fn proposer(&self, value: u64) -> Option<&'a Operation> {
        self.iter().find(|op| op.call.proposes() == Some(value))
    }
}

pub(super) fn check(operations: &[Operation]) -> Result<Checked, Violation> {
    let mut checked = Checked::default();
    for cell in Cell::split(operations) {
        well_formed(&cell)?;
        values(&cell)?;
        stability(&cell)?;
        versions(&cell)?;
        count(&cell, &mut checked);
    }
    Ok(checked)
}

/// What follows from the values that were seen, and when: exactly linearizability, in parts that
/// have names of their own.
pub(super) fn values(cell: &Cell) -> Result<(), Violation> {
    winners(cell)?;
    validity(cell)?;
    agreement(cell)?;
    linearizability(cell)
}

/// The recorder has noted nothing but what the calls of a handle can answer.
fn well_formed(cell: &Cell) -> Result<(), Violation> {
    let mut proposed = HashMap::new();
    for op in cell.iter() {
        let malformed = |what| Violation::Malformed {
            cell: cell.number,
            what,
            operation: op.to_string(),
        };
        if op.returned.is_some_and(|(at, _)| at < op.invoked) {
            return Err(malformed("it ended before it began"));
        }
        if !fits(op.call, op.outcome()) {
            return Err(malformed("this call has no such outcome"));
        }
        if let Some(value) = op.call.proposes()
            && proposed.insert(value, op).is_some()
        {
            return Err(malformed("another call has proposed the same value"));
        }
    }
    Ok(())
}

fn fits(call: Call, outcome: Outcome) -> bool {
    match (call, outcome) {
        (_, Outcome::Unclear) => true,
        (Call::Write(_), outcome) => matches!(outcome, Outcome::Acknowledged { .. }),
        (Call::Claim(_), outcome) => {
            matches!(outcome, Outcome::Won { .. } | Outcome::Lost { .. })
        }
        (Call::GetOrInit(_), Outcome::Won { .. }) => true,
        (Call::Read | Call::ReadLinearizable, outcome) => matches!(outcome, Outcome::Saw { .. }),
        // They return when there is a value.
        (Call::GetOrInit(_) | Call::Wait, outcome) => {
            matches!(outcome, Outcome::Saw { value: Some(_), .. })
        }
    }
}

/// At most one is told that it won, and nobody that it lost to itself.
fn winners(cell: &Cell) -> Result<(), Violation> {
    let mut won: Option<&Operation> = None;
    for op in cell.iter() {
        let clash = match op.outcome() {
            Outcome::Won { .. } => won.replace(op),
            Outcome::Lost { winner } if op.call.proposes() == Some(winner) => Some(op),
            _ => None,
        };
        if let Some(one) = clash {
            return Err(Violation::Winners {
                cell: cell.number,
                one: one.to_string(),
                other: op.to_string(),
            });
        }
    }
    Ok(())
}

/// Every value that was seen had been proposed on this cell before.
fn validity(cell: &Cell) -> Result<(), Violation> {
    let proposed: HashMap<u64, u64> = cell
        .iter()
        .filter_map(|op| Some((op.call.proposes()?, op.invoked)))
        .collect();
    for op in cell.iter() {
        let (Some(value), Some(ended)) = (op.seen(), op.ended()) else {
            continue;
        };
        if proposed.get(&value).is_none_or(|&invoked| invoked > ended) {
            return Err(Violation::Validity {
                cell: cell.number,
                value,
                seen: op.to_string(),
            });
        }
    }
    Ok(())
}

/// All values that were seen are one.
fn agreement(cell: &Cell) -> Result<(), Violation> {
    let Some((one, value)) = cell.value() else {
        return Ok(());
    };
    match cell
        .iter()
        .find(|op| op.seen().is_some_and(|seen| seen != value))
    {
        None => Ok(()),
        Some(other) => Err(Violation::Agreement {
            cell: cell.number,
            one: one.to_string(),
            other: other.to_string(),
        }),
    }
}

/// A handle that was told that its cell is decided never finds it empty again, with no network.
/// What other handles find later is a matter of [`linearizability`].
fn stability(cell: &Cell) -> Result<(), Violation> {
    let mut knew = BTreeMap::<u32, &Operation>::new();
    for op in cell.iter().filter(|op| op.decided_by().is_some()) {
        let first = knew.entry(op.client).or_insert(op);
        if op.decided_by() < first.decided_by() {
            *first = op;
        }
    }
    for op in cell.iter() {
        let is_empty = matches!(op.outcome(), Outcome::Saw { value: None, .. });
        let Some(knew) = knew.get(&op.client).filter(|_| is_empty) else {
            continue;
        };
        if knew.decided_by().is_some_and(|known| known < op.invoked) {
            return Err(Violation::Stability {
                cell: cell.number,
                knew: knew.to_string(),
                empty: op.to_string(),
            });
        }
    }
    Ok(())
}

fn count(cell: &Cell, checked: &mut Checked) {
    checked.cells += 1;
    checked.cells_decided += u64::from(linear::decided(cell).is_some());
    for op in cell.iter() {
        match op.call {
            Call::Read => checked.observations += 1,
            _ => checked.operations += 1,
        }
        match op.outcome() {
            Outcome::Acknowledged { .. } => checked.acknowledged += 1,
            Outcome::Won { .. } => checked.won += 1,
            Outcome::Lost { .. } => checked.lost += 1,
            Outcome::Unclear => checked.unclear += 1,
            Outcome::Saw { .. } => {}
        }
    }
}
