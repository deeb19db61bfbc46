//! Groups that some voter has not applied to the end, noted on the disk by the leader before it
//! falls asleep. When the link to that voter is back they are looked at again, and no others.
//! Also those in which a replica still waited for something when it had to make room: they are
//! marked for all other voters, and looked at again while those are linked.
//!
//! Keys: `b`, the voter's id in 8 bytes and the group id. A mark may be out of date; that costs
//! one question.

use std::ops::Bound;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, timeout};

use crate::failpoint;
use crate::id::{GroupId, NodeId};
use crate::machine::Slot;
use crate::store::{Batch, Durability, PageMax};

use super::ATTEMPT;
use super::directory::{Directory, GROUPS_AT_ONCE, Group};
use super::disk::pack;
use super::raft::LogPosition;
use super::route::Ask;
use super::wake::Cause;
use super::wire::{Body, Request, Response};

const MARK: u8 = b'b';

/// How many marks are read at a time.
const MARKS_A_PAGE: PageMax = PageMax {
    pairs: 256,
    bytes: usize::MAX,
};

/// How long one group of a voter is helped at a time, in milliseconds.
const HELP_MS: u64 = 5_000;

/// The pause before a voter that is linked and still behind is helped again, in milliseconds: at
/// first, and at most.
const AGAIN_MS: u64 = 1_000;
const AGAIN_MAX_MS: u64 = 60_000;

fn prefix(voter: NodeId) -> Vec<u8> {
    let mut key = vec![MARK];
    key.extend_from_slice(&voter.as_u64().to_be_bytes());
    key
}

fn key(voter: NodeId, group: GroupId) -> Vec<u8> {
    let mut key = prefix(voter);
    key.extend_from_slice(group.as_bytes());
    key
}

/// What became of one mark.
enum Helped {
    Done,
    /// Nothing can be done before the voter's next link.
    GivenUp,
    Later,
}

impl Directory {
    /// Notes that `voters` may not have applied all of the group. Returns when that is durable,
    /// and with it all that was queued before. The caller may end the group's instance.
    pub(super) async fn mark(&self, group: GroupId, voters: &[NodeId]) -> Result<(), String> {
        let mut batch = Batch::default();
        for voter in voters {
            batch.put(key(*voter, group), pack(&()));
        }
        // Also where there is a mark: a delete of it may be queued.
        if !voters.is_empty() {
            failpoint::hit("mark.before_write");
        }
        let written = self.store()?.write_durably(batch).await;
        if !voters.is_empty() {
            failpoint::hit("mark.after_write");
        }
        written.map(|_| ()).map_err(|error| error.to_string())
    }

    /// The link to `voter` is up: sees that it catches up in the groups that are marked. One task
    /// a voter at a time.
    pub(super) fn help(self: &Arc<Self>, voter: NodeId) {
        let mut helped = self.helped.lock().unwrap_or_else(PoisonError::into_inner);
        let once_more = helped.insert(voter, true).is_some();
        drop(helped);
        if once_more {
            return;
        }
        let this = self.clone();
        self.peers()
            .spawn(Box::pin(async move { this.help_all(voter).await }));
    }

    async fn help_all(self: &Arc<Self>, voter: NodeId) {
        let mut pause_ms = AGAIN_MS;
        loop {
            {
                let mut helped = self.helped.lock().unwrap_or_else(PoisonError::into_inner);
                match helped.get_mut(&voter) {
                    Some(again) if *again => *again = false,
                    _ => {
                        helped.remove(&voter);
                        return;
                    }
                }
            }
            if self.help_once(voter).await || !self.peers().is_linked(voter) {
                continue;
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (2 * pause_ms).min(AGAIN_MAX_MS);
            self.helped
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(voter, true);
        }
    }

    /// Goes through all marks of `voter` once; whether none is left for later.
    async fn help_once(self: &Arc<Self>, voter: NodeId) -> bool {
        let prefix = prefix(voter);
        let (mut after, mut done) = (prefix.clone(), true);
        loop {
            let page = match self.store() {
                Ok(store) => store.scan_page(&prefix, Bound::Excluded(&after), MARKS_A_PAGE),
                // It stops, or may not vote yet: then it has never marked anything.
                Err(_) => return true,
            };
            let Ok((marks, next)) = page else {
                return true;
            };
            let groups = marks.iter().filter_map(|(key, _)| {
                let id = key[prefix.len()..].try_into().ok()?;
                Some(GroupId::from_bytes(id))
            });
            let mut helped = futures::stream::iter(groups.collect::<Vec<_>>())
                .map(|group| self.help_in(voter, group))
                .buffer_unordered(GROUPS_AT_ONCE);
            while let Some(helped) = helped.next().await {
                done &= !matches!(helped, Helped::Later);
            }
            match next {
                Some(next) if self.peers().is_linked(voter) => after = next,
                _ => return done,
            }
        }
    }

    /// Sees that `voter` applies all of one group, without waking it if it has already.
    async fn help_in(self: &Arc<Self>, voter: NodeId, id: GroupId) -> Helped {
        let Ok(group) = self.visit(self.peers().me(), id) else {
            return Helped::Later;
        };
        let deadline = Instant::now() + Duration::from_millis(HELP_MS);
        while self.peers().is_linked(voter) && Instant::now() < deadline {
            let request = Request::new(id, Body::Durable).encode();
            let answer = timeout(ATTEMPT, self.peers().call(voter, request)).await;
            let Ok(Ok(frame)) = answer else {
                return Helped::Later;
            };
            match Response::decode(&frame) {
                Ok(Response::Status { applied, .. }) => {
                    if self.unmark(voter, &group, applied).await {
                        return Helped::Done;
                    }
                }
                // It cannot serve the group, however often it is asked, or it may not vote yet,
                // which nobody is told when it changes. Asking on would cost messages for ever.
                Ok(Response::Refused { .. }) => return Helped::GivenUp,
                _ => return Helped::Later,
            }
            // Woken on its behalf, if there is room.
            if !self.is_overloaded() && self.wake_for(&group, Cause::Help).await.is_err() {
                return Helped::Later;
            }
            // Whoever leads then sends the voter all that it lacks.
            let served = self
                .serve(&group, Ask::Settle(Slot::new()), 1, deadline, None)
                .await;
            if let Some(Response::Refused { .. }) = served {
                // No room, as a rule.
                return Helped::Later;
            }
            let pause = Duration::from_millis(20 + self.peers().jitter_ms(80));
            tokio::time::sleep(pause).await;
        }
        Helped::Later
    }

    /// Deletes a mark if the voter has applied all that is held here, and this one waits for
    /// nothing itself; whether that is so.
    async fn unmark(&self, voter: NodeId, group: &Group, applied: Option<LogPosition>) -> bool {
        // A mark that is written from now on says more than `applied` does: it is written under
        // the same lock, and stays.
        let Ok(_change) = self.change(group).await else {
            return false;
        };
        let Ok(store) = self.store() else {
            return false;
        };
        let (last, is_unsettled) = match group.awake() {
            Some(replica) => (replica.status().1, replica.is_unsettled()),
            None => match self.load_log(store, group.id()) {
                Ok(held) => (held.last(), held.is_unsettled()),
                Err(_) => return false,
            },
        };
        if applied < last || is_unsettled {
            return false;
        }
        let mut batch = Batch::default();
        batch.delete(key(voter, group.id()));
        store.write(batch, Durability::Lazy, |_| {});
        true
    }

    /// The groups in which `voter` is known to be behind.
    #[cfg(test)]
    pub(super) fn marked(&self, voter: NodeId) -> usize {
        let store = self.store().expect("a voter");
        store.scan(&prefix(voter)).expect("it is open").len()
    }
}
