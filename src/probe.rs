//! Where the simulator reaches into a node that runs: it watches, it plants bugs to see them
//! caught, and it says whose task is running. In any other build all of this is nothing.

/// A defect that tests can plant. Each is a line of the library left out or done wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests plant bugs"))]
pub(crate) enum Bug {
    /// A vote is promised before it is durable.
    VoteNotSynced,
    /// A vote is never written.
    VoteNotWritten,
    /// An append is acknowledged before it is durable.
    AppendNotSynced,
    /// The store answers without any sync.
    StoreNotSynced,
    /// The second write to a slot replaces the first.
    ApplyOverwrites,
    /// A leader goes on leading after a crash.
    LeaderRestored,
    /// A group's first voter leads the first term again after a crash.
    FirstbornAgain,
    /// A first-born sends its first entry before that is durable.
    BirthNotSynced,
    /// A first entry is taken for committed when its leader alone has it.
    BornAlone,
    /// In the first term voters have not voted by birth.
    NoVoteByBirth,
    /// Each node has its own order of preference.
    OrderDiffers,
    /// Whoever wakes a group at the same time as others starts an instance of his own.
    TwoInstances,
    /// What a leader sends is shown before it is committed.
    UncommittedShown,
    /// A barrier asks nobody but this voter.
    BarrierAlone,
    /// A barrier takes no notice of entries that are not applied.
    BarrierWithoutTails,
    /// A write without an answer is acknowledged.
    UnclearAcknowledged,
    /// Every claim on a decided cell is told that it won.
    EveryoneWins,
    /// A claim that is repeated is another proposal.
    RetryLoses,
    /// `get_or_init` returns what its own initialiser made.
    InitKeepsItsOwn,
    /// A leader sleeps before the others have applied its log.
    SleepsTooEarly,
    /// Who follows a cell is not told of what is committed.
    FollowersNotTold,
    /// A stream of decisions goes on behind what is applied, and reads only what is durable.
    StreamSkips,
    /// A cell that falls asleep forgets its vote.
    SealForgetsVote,
    /// A voter goes on from a snapshot of a map whose slots it has not got.
    SnapshotUnfilled,
    /// A claim is answered before a majority has it.
    ClaimNotCommitted,
    /// A value is read otherwise than it was written.
    ValueChanged,
    /// A handle that is offline forgets what it knew.
    OfflineForgets,
    /// A version follows the last message, not the newest.
    VersionRunsBack,
    /// Voters are numbered by their position in the list.
    IdsByPosition,
    /// A voter whose disk was wiped is let in.
    WipedLetIn,
    /// A voter whose disk went back in time is let in.
    RestoredLetIn,
    /// A proof holds for either side.
    ProofReflected,
}

#[cfg(not(test))]
mod nothing {
    #[cfg(feature = "testing")]
    use std::net::SocketAddr;

    use super::Bug;
    use crate::id::{GroupId, NodeId};

    #[inline(always)]
    pub(crate) const fn planted(_: Bug) -> bool {
        false
    }

    /// Where a voter stands in the list of the running process.
    #[inline(always)]
    pub(crate) const fn position(_: &str) -> Option<u64> {
        None
    }

    /// `voter` tells `candidate` that it votes for it.
    #[inline(always)]
    pub(crate) fn granted(_voter: NodeId, _group: GroupId, _term: u64, _candidate: NodeId) {}

    /// `node` sends as the leader of a term.
    #[inline(always)]
    pub(crate) fn led(_node: NodeId, _group: GroupId, _term: u64) {}

    /// `node` applies an entry, which is committed thus. `digest` is asked for by tests alone.
    #[inline(always)]
    pub(crate) fn applied(
        _node: NodeId,
        _group: GroupId,
        _index: u64,
        _term: u64,
        _digest: impl FnOnce() -> [u8; 32],
    ) {
    }

    /// Something happened that a run has to see often enough.
    #[inline(always)]
    pub(crate) const fn count(_what: &'static str) {}

    /// A message of the simulated network arrives.
    #[cfg(feature = "testing")]
    #[inline(always)]
    pub(crate) fn delivered(_: SocketAddr, _: SocketAddr, _content: impl FnOnce() -> Vec<u8>) {}

    /// The wall clock of this process in milliseconds since 1970.
    pub(crate) fn now_ms() -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 is wrong; this time is information only.
        since.map_or(0, |since| since.as_millis() as u64)
    }

    /// Makes `future` a part of the process that runs now.
    #[inline(always)]
    pub(crate) fn of_current<F: Future>(future: F) -> F {
        future
    }
}

#[cfg(not(test))]
pub(crate) use nothing::*;
#[cfg(test)]
pub(crate) use watched::*;

#[cfg(test)]
mod watched {
    pub(crate) use crate::simulation::probes::{
        applied, count, delivered, granted, led, now_ms, of_current, plant, planted, position,
    };
}
