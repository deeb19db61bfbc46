//! What must hold of a group's state on disk, and of a message of Raft.
//!
//! Every batch is written whole and in order, so no crash breaks any of it: where it does not
//! hold, the disk has changed what was written, or a build was at work that did not mean the same
//! by it. Such a group is not served here. What openraft takes for granted of a message is checked
//! before it gets one: it would stop for good.

use std::collections::BTreeSet;

use crate::id::{Kind, NodeId};
use crate::machine::{Command, Proposal};

use super::disk::Held;
use super::raft::{LogPosition, StoredEntry, StoredPayload, StoredVote};
use super::state::{read_jobs_snapshot, read_map_snapshot, read_snapshot, read_tasks_snapshot};
use super::wire::RaftRequest;

/// No history gets as far as this, one step at a time; so whatever comes next is a number, too.
const NUMBER_MAX: u64 = 1 << 62;

/// Why a message is not one that a voter of this electorate sends.
pub(super) fn check_message(
    message: &RaftRequest,
    voters: &BTreeSet<NodeId>,
    kind: Kind,
) -> Result<(), &'static str> {
    match message {
        RaftRequest::Append {
            vote,
            prev,
            entries,
            committed,
        } => {
            check_leader(vote, voters)?;
            let mut before = *prev;
            for entry in entries {
                if !follows(before, entry.at) || !is_whole(entry) {
                    return Err("the entries are not a piece of a log");
                }
                if !keeps_electorate(entry, voters) {
                    return Err("the electorate does not change");
                }
                before = Some(entry.at);
            }
            if before.max(*committed).is_some_and(|at| at.term > vote.term) {
                return Err("the log is newer than its leader");
            }
            check_reach(vote.term, [before, *committed])
        }
        RaftRequest::Vote { vote, last, .. } => {
            if vote.committed || !voters.contains(&vote.node) {
                return Err("the vote is not that of a candidate");
            }
            if last.is_some_and(|last| last.term > vote.term) {
                return Err("the log is newer than its candidate");
            }
            check_reach(vote.term, [*last, None])
        }
        RaftRequest::Snapshot { vote, meta, data } => {
            check_leader(vote, voters)?;
            let Some(at) = meta.at else {
                return Err("the snapshot is of no moment");
            };
            if at.term > vote.term {
                return Err("the snapshot is newer than its leader");
            }
            check_reach(vote.term, [Some(at), None])?;
            if meta.electorate.voters != *voters {
                return Err("the snapshot is of another electorate");
            }
            if kind == Kind::Tasks {
                let Ok((version, board)) = read_tasks_snapshot(data) else {
                    return Err("the snapshot is malformed");
                };
                board.check(version)?;
                let is_sound = version.as_u64() <= at.index;
                return is_sound
                    .then_some(())
                    .ok_or("the snapshot contradicts itself");
            }
            if kind == Kind::Jobs {
                let Ok((version, board)) = read_jobs_snapshot(data) else {
                    return Err("the snapshot is malformed");
                };
                board.check(version)?;
                let is_sound = version.as_u64() <= at.index;
                return is_sound
                    .then_some(())
                    .ok_or("the snapshot contradicts itself");
            }
            if kind == Kind::Map {
                let version = read_map_snapshot(data).map(|(version, _)| version.as_u64());
                return match version {
                    Ok(version) if version <= at.index => Ok(()),
                    Ok(_) => Err("the snapshot contradicts itself"),
                    Err(_) => Err("the snapshot is malformed"),
                };
            }
            let Ok((version, machine)) = read_snapshot(data) else {
                return Err("the snapshot is malformed");
            };
            let mut records = machine.records();
            let is_sound = version.as_u64() <= at.index
                && records
                    .all(|(_, record)| record.version <= version && is_offered(&record.proposal));
            is_sound
                .then_some(())
                .ok_or("the snapshot contradicts itself")
        }
        RaftRequest::Transfer { from, to, last } => {
            check_leader(from, voters)?;
            check_reach(from.term, [*last, None])?;
            voters
                .contains(to)
                .then_some(())
                .ok_or("the successor is no voter")
        }
    }
}

fn check_reach(term: u64, positions: [Option<LogPosition>; 2]) -> Result<(), &'static str> {
    let far = |at: &LogPosition| at.index > NUMBER_MAX;
    if term > NUMBER_MAX || positions.iter().flatten().any(far) {
        return Err("no history gets that far");
    }
    Ok(())
}

fn check_leader(vote: &StoredVote, voters: &BTreeSet<NodeId>) -> Result<(), &'static str> {
    if !vote.committed || !voters.contains(&vote.node) {
        return Err("the vote is not that of a leader");
    }
    Ok(())
}

/// Why a group that was read from a disk cannot be what was written.
pub(super) fn check_stored(held: &Held) -> Result<(), &'static str> {
    check_log(held)?;
    check_applied(held)?;
    let term = held.vote.map_or(0, |vote| vote.term);
    check_reach(term, [held.last(), held.applied.at])?;
    let written_in = held.last().max(held.applied.at).map_or(0, |at| at.term);
    if term < written_in {
        // Its leader's vote was written before the entry: a vote is forgotten.
        return Err("its vote is older than its log");
    }
    Ok(())
}

fn check_log(held: &Held) -> Result<(), &'static str> {
    let mut before = held.purged;
    for (index, entry) in &held.entries {
        if *index != entry.at.index {
            return Err("a log entry lies in the place of another");
        }
        if !follows(before, entry.at) {
            return Err("its log has a gap");
        }
        if !is_whole(entry) {
            return Err("a value in its log is not the one that was proposed");
        }
        if !keeps_electorate(entry, &held.electorate.voters) {
            return Err("its log has another electorate");
        }
        before = Some(entry.at);
    }
    match before {
        Some(_) => Ok(()),
        None => Err("its log is missing"),
    }
}

fn check_applied(held: &Held) -> Result<(), &'static str> {
    let Some(at) = held.applied.at else {
        return Err("how far it is applied is missing");
    };
    if held.electorate.at != Some(LogPosition::GENESIS) {
        return Err("its electorate is not the one it was born with");
    }
    if held.purged > Some(at) {
        return Err("its log begins behind what is applied");
    }
    let is_in_log = match held.last() {
        // A snapshot was installed, and the log before it is not purged yet.
        Some(last) if last.index < at.index => last.term <= at.term,
        // Not there any more, but for the last one that was purged.
        _ => {
            held.entries
                .get(&at.index)
                .map_or(held.purged, |entry| Some(entry.at))
                == Some(at)
        }
    };
    if !is_in_log {
        return Err("what is applied is not in its log");
    }
    if held.applied.version.as_u64() > at.index {
        return Err("its version is beyond what is applied");
    }
    for (_, record) in held.machine.records() {
        if record.version > held.applied.version {
            return Err("a record is beyond what is applied");
        }
        if !is_offered(&record.proposal) {
            return Err("a decided value is not the one that was proposed");
        }
    }
    held.jobs.check(held.applied.version)?;
    held.board.check(held.applied.version)
}

/// Nothing may be missing between two entries; the first one of all is the electorate.
fn follows(before: Option<LogPosition>, at: LogPosition) -> bool {
    match before {
        Some(before) => before.index.checked_add(1) == Some(at.index) && before.term <= at.term,
        None => at == LogPosition::GENESIS,
    }
}

fn is_whole(entry: &StoredEntry) -> bool {
    match &entry.payload {
        StoredPayload::Command(Command::Set { proposal, .. }) => is_offered(proposal),
        StoredPayload::Command(Command::Task(step)) => step.check().is_ok(),
        StoredPayload::Command(Command::Job(step)) => step.check().is_ok(),
        _ => true,
    }
}

/// There is one electorate yet, and it stands where every log begins.
fn keeps_electorate(entry: &StoredEntry, voters: &BTreeSet<NodeId>) -> bool {
    match &entry.payload {
        StoredPayload::Electorate(named) => entry.at == LogPosition::GENESIS && named == voters,
        _ => entry.at != LogPosition::GENESIS,
    }
}

/// The value is the one that the proposal's id was made for.
pub(super) fn is_offered(proposal: &Proposal) -> bool {
    proposal.id.is_of(&proposal.value)
}

#[cfg(test)]
#[path = "sound_tests.rs"]
mod tests;
