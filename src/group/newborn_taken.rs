//! Births without an instance, at those voters that do not lead.

use std::sync::Arc;

use futures::StreamExt;

use crate::id::NodeId;
use crate::machine::Command;

use super::directory::{Directory, GROUPS_AT_ONCE, Group};
use super::disk::Disk;
use super::first::{FIRST, FIRST_TERM};
use super::newborn::{Newborn, until_durable};
use super::raft::{LogPosition, StoredEntry, StoredPayload, StoredVote};
use super::wake::Cause;
use super::wire::{RaftRequest, RaftResponse, Response};

impl Directory {
    /// Takes the first entry of a cell of which this disk holds nothing from the leader that it has
    /// by birth. `None`: an instance is to answer.
    pub(super) async fn take_first(
        self: &Arc<Self>,
        group: &Arc<Group>,
        peer: NodeId,
        message: &RaftRequest,
    ) -> Result<Option<RaftResponse>, String> {
        let RaftRequest::Append {
            vote,
            prev: Some(LogPosition::GENESIS),
            entries,
            committed,
        } = message
        else {
            return Ok(None);
        };
        let [StoredEntry { at: FIRST, payload }] = entries.as_slice() else {
            return Ok(None);
        };
        let StoredPayload::Command(command @ Command::Set { .. }) = payload else {
            return Ok(None);
        };
        #[cfg(test)]
        if super::by_instance::by_instance(self.peers().me()) {
            return Ok(None);
        }
        let is_new = vote.term == FIRST_TERM
            && *committed <= Some(LogPosition::GENESIS)
            && command.slot().is_empty();
        if !is_new || vote.node != peer || !group.id().is_cell() || group.berth.is_awake() {
            return Ok(None);
        }
        let mut change = self.change_asleep(group).await?;
        if group.berth.is_awake() || group.berth.newborn().is_some() {
            return Ok(None);
        }
        let store = self.store()?;
        let held = self.load(store, group.id())?;
        let disk = Disk::new(store.clone(), group.id(), held).counted(self.census.clone());
        if !disk.is_firstborn(peer) {
            return Ok(None);
        }
        self.take_berth(group, Cause::Message)?;
        let newborn = Newborn::new(disk);
        let written = self.write_first(group, &mut change, &newborn, command.clone());
        written.await?;
        group.remember(FIRST_TERM, Some(peer));
        Ok(Some(RaftResponse::Appended))
    }

    /// The leader by birth says that its first entry is committed. The answer is `Done` when that
    /// is on the disk.
    pub(super) async fn take_decided(
        self: &Arc<Self>,
        group: &Arc<Group>,
        peer: NodeId,
        vote: StoredVote,
    ) -> Result<Response, String> {
        if vote.node != peer {
            return Err("only the leader of a term says what is committed in it".into());
        }
        let mut change = self.change_asleep(group).await?;
        let Some(newborn) = group.berth.newborn() else {
            return Ok(Response::Unclear);
        };
        let is_of_peer = {
            let held = newborn.disk().held();
            held.vote == Some(vote) && held.last() == Some(FIRST)
        };
        if group.berth.is_awake() || !is_of_peer || !newborn.is_unsettled() {
            return Ok(Response::Unclear);
        }
        let (_, sealed) = self.decide_first(group, &mut change, &newborn);
        drop(change);
        self.unless_stopping(until_durable(sealed)).await?;
        self.end_birth(group, false).await?;
        Ok(Response::Done)
    }

    /// What a leader by birth that is gone left behind: an instance finds out what became of it.
    pub(super) fn settle_newborns_of(self: &Arc<Self>, leader: NodeId) {
        let mut left = self.berths.all();
        left.retain(|group| {
            let newborn = group.berth.newborn();
            newborn.is_some_and(|newborn| {
                let vote = newborn.disk().held().vote;
                vote.is_some_and(|vote| vote.node == leader) && newborn.is_unsettled()
            })
        });
        if left.is_empty() {
            return;
        }
        let this = self.clone();
        self.peers().spawn(Box::pin(async move {
            futures::stream::iter(left)
                .for_each_concurrent(GROUPS_AT_ONCE, |group| async {
                    let this = &this;
                    if this.wake_to_settle(&group).await.is_ok()
                        && let Some(replica) = group.awake()
                    {
                        this.clone().settle_tail(&replica).await;
                    }
                    this.forget_idle(group);
                })
                .await;
        }));
    }

    /// Nobody says what became of an entry that is here: an instance finds out.
    pub(super) async fn wake_to_settle(self: &Arc<Self>, group: &Arc<Group>) -> Result<(), String> {
        let cause = Cause::Ask {
            first: None,
            settles: true,
            from: None,
        };
        self.wake_for(group, cause).await.map(|_| ())
    }
}
