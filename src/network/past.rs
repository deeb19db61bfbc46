//! What a voter remembers of itself and of its peers, so that a disk that was wiped, restored
//! or cloned is noticed: the votes it forgot could let two values win.
//!
//! A voter draws a random *incarnation* when its store is made and a random *boot id* at each
//! start, and notes with it how far its log reached. A peer remembers the last of both ids and
//! the highest sequence number that was told to be durable. It asks for all starts after the one
//! it remembers: a disk that went back in time lacks that one, or began the next one too early.

use std::collections::BTreeSet;

use super::electorate::Electorate;
use crate::codec::{self, Decode, Encode, MalformedError};
use crate::id::NodeId;
use crate::probe::{Bug, planted};

/// Random; drawn when a voter's store is made.
pub(crate) type Incarnation = [u8; 16];

/// Random; drawn at each start of a voter.
pub(crate) type BootId = [u8; 16];

/// A start of a voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Boot {
    pub(crate) id: BootId,
    /// The last sequence number in its log when it started: whatever was durable in the starts
    /// before is not above it, unless the disk went back.
    pub(crate) from: u64,
}

/// How many of its own starts a voter keeps. A peer that was away for more starts than that
/// takes the voter's disk for a restored one: safe, if unkind.
pub(crate) const BOOTS_MAX: usize = 4096;

const PAST_VERSION: u8 = 2;

/// What a voter says about its own store.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Claim {
    pub(crate) incarnation: Incarnation,
    pub(crate) boot: BootId,
    /// The last sequence number that is durable in its log.
    pub(crate) sequence: u64,
    /// Whether its store still waits for other voters to confirm that they never knew another
    /// incarnation.
    pub(crate) empty: bool,
}

/// Which state of a peer a voter remembers; the peer is asked for its starts since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Memory {
    pub(crate) incarnation: Incarnation,
    pub(crate) boot: BootId,
}

/// A voter's own past, kept on its disk.
///
/// Invariant: 1 to `BOOTS_MAX` starts, the current one last.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Myself {
    incarnation: Incarnation,
    boots: Vec<Boot>,
    /// The voters that confirmed that they never knew another incarnation of this one.
    qualified: BTreeSet<NodeId>,
}

impl Myself {
    /// The past of a voter that has none: its first start on an empty disk.
    pub(crate) fn new(incarnation: Incarnation, boot: BootId) -> Self {
        Self {
            incarnation,
            boots: vec![Boot { id: boot, from: 0 }],
            qualified: BTreeSet::new(),
        }
    }

    /// Notes another start, on a log that ends at `from`. It must be durable before the first
    /// hello.
    pub(crate) fn start(&mut self, boot: BootId, from: u64) {
        if self.boots.len() >= BOOTS_MAX {
            self.boots.drain(..=self.boots.len() - BOOTS_MAX);
        }
        self.boots.push(Boot { id: boot, from });
    }

    /// Notes that `peer` confirmed: it has this incarnation on its disk and never knew another.
    /// Whether that is news, and so must be made durable before this voter votes.
    pub(crate) fn qualify(&mut self, peer: NodeId) -> bool {
        self.qualified.insert(peer)
    }

    /// The id of the current start.
    pub(crate) fn boot(&self) -> BootId {
        self.boots.last().expect("there was at least one start").id
    }

    /// Whether voter `me` of `electorate` may vote, append and lead: every other voter has
    /// confirmed that it never knew another incarnation. Alone it needs nobody.
    pub(crate) fn may_vote(&self, electorate: &Electorate, me: NodeId) -> bool {
        self.waiting_for(electorate, me).is_empty()
    }

    /// The names of the voters that have not confirmed yet.
    pub(crate) fn waiting_for(&self, electorate: &Electorate, me: NodeId) -> Vec<String> {
        let others = electorate.voters().iter().filter(|voter| voter.id != me);
        others
            .filter(|voter| !self.qualified.contains(&voter.id))
            .map(|voter| voter.name.clone())
            .collect()
    }

    /// What this voter says about its store. `sequence` is the durable one of its log now.
    pub(crate) fn claim(&self, sequence: u64, electorate: &Electorate, me: NodeId) -> Claim {
        Claim {
            incarnation: self.incarnation,
            boot: self.boot(),
            sequence,
            empty: !self.may_vote(electorate, me),
        }
    }

    /// The starts after the one that a peer remembers; `None` when that one is not in the list.
    /// To a peer that remembers nothing there is nothing to show.
    pub(crate) fn boots_since(&self, remembered: Option<&Memory>) -> Option<Vec<Boot>> {
        let Some(memory) = remembered else {
            return Some(Vec::new());
        };
        if memory.incarnation != self.incarnation {
            return None;
        }
        let at = self.boots.iter().position(|boot| boot.id == memory.boot)?;
        Some(self.boots[at + 1..].to_vec())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        codec::encode(PAST_VERSION, self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedError> {
        let myself: Self = codec::decode(PAST_VERSION, bytes)?;
        match myself.boots.len() {
            1..=BOOTS_MAX => Ok(myself),
            count => Err(MalformedError::Body(format!("{count} starts"))),
        }
    }
}

/// What a voter remembers of another one, kept on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Peer {
    pub(crate) incarnation: Incarnation,
    pub(crate) boot: BootId,
    /// The highest durable sequence number that the peer has told.
    pub(crate) sequence: u64,
    /// Why the peer is refused, for good.
    pub(crate) refused: Option<String>,
}

impl Peer {
    pub(crate) fn memory(&self) -> Memory {
        Memory {
            incarnation: self.incarnation,
            boot: self.boot,
        }
    }

    /// Notes the durable sequence number in a message; whether that is news. Messages overtake
    /// each other, so a lower one says nothing.
    pub(crate) fn heard(&mut self, sequence: u64) -> bool {
        let is_news = sequence > self.sequence;
        self.sequence = self.sequence.max(sequence);
        is_news
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        codec::encode(PAST_VERSION, self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedError> {
        codec::decode(PAST_VERSION, bytes)
    }
}

/// What a voter makes of a peer's claim.
///
/// The peer in it must be durable before the peer learns of the verdict: before the dialer
/// confirms, before the acceptor admits. Only then does the peer count as having been told that
/// no other incarnation of it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Never met before.
    New(Peer),
    /// The one that was met before, with its past.
    Known(Peer),
    /// Its disk was wiped, replaced, restored or cloned. It is refused for good.
    Refuse {
        peer: Peer,
        reason: String,
        remedy: &'static str,
    },
    /// Another link to this peer changed what is remembered since the question was asked, so the
    /// answer answers another question. Nothing to keep: drop the link and ask again.
    AskAgain,
}

pub(super) const REMEDY: &str = "stop that voter: its forgotten votes could let two values win, so it is \
    refused for good under this name; the others go on while they are a majority, and another \
    set of voters is another network";

/// Judges the claim of a peer.
///
/// `remembered` is what is remembered of it now, `asked` what was when it was asked for its
/// starts, `boots_since` its answer. The claim must have been made after the question came: then
/// whatever `asked` knew is in it, and a claim that knows less comes from a disk that went back.
pub(crate) fn judge(
    remembered: Option<&Peer>,
    asked: Option<&Peer>,
    claim: &Claim,
    boots_since: Option<&[Boot]>,
) -> Verdict {
    if let Some(peer) = remembered
        && let Some(reason) = &peer.refused
    {
        return Verdict::Refuse {
            peer: peer.clone(),
            reason: reason.clone(),
            remedy: REMEDY,
        };
    }
    if remembered.map(Peer::memory) != asked.map(Peer::memory) {
        return Verdict::AskAgain;
    }
    let (Some(peer), Some(asked)) = (remembered, asked) else {
        return Verdict::New(Peer {
            incarnation: claim.incarnation,
            boot: claim.boot,
            sequence: claim.sequence,
            refused: None,
        });
    };
    match contradiction(asked, claim, boots_since) {
        Some(reason) => Verdict::Refuse {
            peer: Peer {
                refused: Some(reason.clone()),
                ..peer.clone()
            },
            reason,
            remedy: REMEDY,
        },
        None => Verdict::Known(Peer {
            boot: claim.boot,
            sequence: claim.sequence.max(peer.sequence),
            ..peer.clone()
        }),
    }
}

/// What in the claim contradicts what was known.
fn contradiction(known: &Peer, claim: &Claim, boots_since: Option<&[Boot]>) -> Option<String> {
    let wiped = claim.incarnation != known.incarnation;
    if planted(Bug::WipedLetIn) && wiped {
        return None;
    }
    if wiped {
        return Some(
            "its disk was wiped or replaced: its store is not the one known before".into(),
        );
    }
    if planted(Bug::RestoredLetIn) {
        return None;
    }
    let Some(boots) = boots_since else {
        return Some(
            "its disk was restored or cloned: it does not remember a start that was seen".into(),
        );
    };
    // The current start is the last one since, or still the one that is remembered.
    if boots.last().map_or(known.boot, |boot| boot.id) != claim.boot {
        return Some("its disk was restored or cloned: its list of starts lacks this one".into());
    }
    // Each start went on where the one before ended, or later; so does the claim itself.
    let ends = boots.iter().map(|boot| boot.from).chain([claim.sequence]);
    let mut durable = known.sequence;
    for end in ends {
        if end < durable {
            return Some(format!(
                "its disk was restored: its log ended at {end}, where {durable} was durable before"
            ));
        }
        durable = end;
    }
    None
}

#[cfg(test)]
#[path = "past_tests.rs"]
mod tests;
