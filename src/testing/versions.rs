//! Versions are positions in the cell's log. What holds of them follows from that:
//!
//! * Each write and claim is a command of its own, so that no two have one version.
//! * A version that was told is that of a committed command. What is invoked after that is appended
//!   behind it, and has a greater version, whoever invokes it.
//! * A handle's version never runs backwards.
//! * The cell is decided by its first command. So the version at which it was won is the smallest
//!   of all acknowledged commands, no handle that knows the value has a smaller one, and it is
//!   greater than what was committed before the winner was invoked, or before a linearizable read
//!   was that found the cell empty.
//!
//! A write is acknowledged at the version of one of its commands, which need not be the first: a
//! write that won without hearing of it, and was repeated by the node, is told a greater version
//! than that at which it won. What is told `Won` is always told the latter.
//!
//! Two rules one might expect do not hold: a local read may lag behind what another handle
//! was told, and a handle may have a version that says that the cell is decided right after it was
//! found empty, since the value may arrive in between.

use std::collections::{BTreeMap, HashMap};

use super::check::Cell;
use super::linear::last_empty;
use super::operation::{Operation, Outcome};
use super::violation::Violation;

/// A version, and the operation it was told by.
type Told<'a> = (u64, &'a Operation);

pub(super) fn versions(cell: &Cell) -> Result<(), Violation> {
    one_command_each(cell)?;
    in_order_of_time(cell)?;
    decided_first(cell)
}

fn violation(cell: &Cell, rule: &'static str, earlier: &Operation, later: &Operation) -> Violation {
    Violation::Versions {
        cell: cell.number,
        rule,
        earlier: earlier.to_string(),
        later: later.to_string(),
    }
}

/// No two commands have one version.
fn one_command_each(cell: &Cell) -> Result<(), Violation> {
    let mut at = HashMap::<u64, &Operation>::new();
    for op in cell.iter().filter(|op| op.is_command()) {
        if let Some(other) = op.version().and_then(|version| at.insert(version, op)) {
            let rule = "no two commands have one version";
            return Err(violation(cell, rule, other, op));
        }
    }
    Ok(())
}

/// Commands are committed behind what was told before; handles never run backwards.
fn in_order_of_time(cell: &Cell) -> Result<(), Violation> {
    // At one time invocations come before returns: they order nothing.
    let mut events = Vec::with_capacity(2 * cell.operations.len());
    for op in cell.iter() {
        if let (Some(version), Some(ended)) = (op.version(), op.ended()) {
            events.push((op.invoked, false, version, op));
            events.push((ended, true, version, op));
        }
    }
    events.sort_by_key(|&(time, is_return, ..)| (time, is_return));

    let mut told_to_any: Option<Told> = None;
    let mut told_to = BTreeMap::<u32, Told>::new();
    for (_, is_return, version, op) in events {
        if is_return {
            if told_to_any.is_none_or(|(known, _)| known < version) {
                told_to_any = Some((version, op));
            }
            let known = told_to.entry(op.client).or_insert((version, op));
            if known.0 < version {
                *known = (version, op);
            }
        } else if op.is_command() {
            if let Some((_, before)) = told_to_any.filter(|(known, _)| *known >= version) {
                let rule = "a command is committed behind what was committed before it was invoked";
                return Err(violation(cell, rule, before, op));
            }
        } else if let Some((_, before)) = told_to
            .get(&op.client)
            .filter(|(known, _)| *known > version)
        {
            let rule = "the version of a handle never runs backwards";
            return Err(violation(cell, rule, before, op));
        }
    }
    Ok(())
}

/// There is a version at which the cell can have been decided.
fn decided_first(cell: &Cell) -> Result<(), Violation> {
    let winner = cell.value().and_then(|(_, value)| cell.proposer(value));
    let Some((highest, upper)) = decided_at_or_before(cell, winner) else {
        return Ok(());
    };
    // At 0 is what the log was born with.
    if highest == 0 {
        return Err(violation(cell, "no command is at 0", upper, upper));
    }
    let lower = decided_after(cell, winner);
    if let Some((_, lower)) = lower.filter(|(version, _)| *version >= highest) {
        let rule = "the cell was not decided when this was committed";
        return Err(violation(cell, rule, lower, upper));
    }
    // What was won tells the very version.
    let won = winner.filter(|op| matches!(op.outcome(), Outcome::Won { .. }));
    if let Some(won) = won.filter(|op| op.version().is_some_and(|version| version > highest)) {
        let rule = "the cell is decided by its first command";
        return Err(violation(cell, rule, won, upper));
    }
    Ok(())
}

/// The greatest version that was told before the cell can have been decided.
fn decided_after<'a>(cell: &Cell<'a>, winner: Option<&'a Operation>) -> Option<Told<'a>> {
    let undecided = winner
        .into_iter()
        .chain(last_empty(cell))
        .map(|op| op.invoked)
        .max()?;
    cell.iter()
        .filter(|op| op.ended().is_some_and(|ended| ended < undecided))
        .filter_map(|op| Some((op.version()?, op)))
        .max_by_key(|&(version, _)| version)
}

/// The smallest version by which the cell must have been decided.
fn decided_at_or_before<'a>(cell: &Cell<'a>, winner: Option<&'a Operation>) -> Option<Told<'a>> {
    cell.iter()
        .filter(|op| op.decided_by().is_some())
        .filter_map(|op| {
            // Commands other than the winner's are behind it.
            let behind = op.is_command()
                && winner.is_some_and(|winner| winner.call.proposes() != op.call.proposes());
            Some((op.version()?.saturating_sub(u64::from(behind)), op))
        })
        .min_by_key(|&(version, _)| version)
}
