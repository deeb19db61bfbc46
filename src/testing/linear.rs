//! Linearizability of one write-once cell, in linear time.
//!
//! An operation takes effect at one moment between its invocation and its return; an unclear one
//! at any moment after its invocation, or never. A write-once cell changes once, at the moment *d*
//! at which it is decided. All other moments can be chosen freely on the right side of *d*: no
//! operation before *d* changes anything, nor does any after it. So a history is linearizable
//! exactly if some *d* leaves each operation a moment on its side. All values proposed are
//! different, so each operation's side is known:
//!
//! * Before *d*: a completed linearizable read that found the cell empty. Its moment can lie before
//!   *d* exactly if it was invoked before *d*.
//! * After *d*: whatever tells the cell's value, which is a read that saw it, local or not, a wait,
//!   a claim that lost; and an acknowledged write that did not win, for else it had decided the
//!   cell. Their moments can lie after *d* exactly if they returned after *d*.
//! * At *d*: the winner's. It was invoked before *d*, and if it has returned, then after *d*.
//! * On either side: a local read that found nothing, for it may be stale, and what is unclear. An
//!   unclear write after *d* changes nothing, and never taking effect it does not either.
//!
//! So *d* exists exactly if the latest invocation of those on the left, and of the winner, is
//! not after the earliest return of those on the right, and of the winner. It remains to say who the
//! winner is.
//!
//! *Some value was seen.* By agreement and validity, which are checked before, it is one value and
//! one call proposed it. That call is the winner. It was not told otherwise: told that it lost, or
//! that it saw another value, it would break agreement. Nobody else was told that he won: he would
//! have told another value.
//!
//! *No value was seen.* Then nobody was told that it won or lost, all completed proposals are
//! acknowledged writes, and any one proposal may have won. If none is acknowledged, nothing needs
//! to be decided: let *d* be after all. Else let the acknowledged write that returned first be the
//! winner: it was invoked before the earliest return, since that is its own. So no history is
//! refused for want of a winner that was early enough, and only empty reads bound *d* from below.
//!
//! Times that are equal order nothing: such operations may have overlapped.

use super::check::Cell;
use super::operation::Operation;
use super::violation::Violation;

/// The operation by whose end the cell was decided: of all that show it decided, the one that
/// returned first.
pub(super) fn decided<'a>(cell: &Cell<'a>) -> Option<(&'a Operation, u64)> {
    cell.iter()
        .filter_map(|op| Some((op, op.decided_by()?)))
        .min_by_key(|&(_, at)| at)
}

/// The latest linearizable read that found the cell empty.
pub(super) fn last_empty<'a>(cell: &Cell<'a>) -> Option<&'a Operation> {
    cell.iter()
        .filter(|op| op.found_empty())
        .max_by_key(|op| op.invoked)
}

/// The moment at which the cell was decided exists. Validity and agreement hold.
pub(super) fn linearizability(cell: &Cell) -> Result<(), Violation> {
    let Some((decided, by)) = decided(cell) else {
        return Ok(());
    };
    let violation = |why, late: &Operation| Violation::Linearizability {
        cell: cell.number,
        decided: decided.to_string(),
        why,
        late: late.to_string(),
    };
    if let Some(empty) = last_empty(cell).filter(|op| op.invoked > by) {
        return Err(violation("it was found empty later by", empty));
    }
    let winner = cell.value().and_then(|(_, value)| cell.proposer(value));
    if let Some(winner) = winner.filter(|op| op.invoked > by) {
        return Err(violation("its value was proposed later by", winner));
    }
    Ok(())
}
