//! What groups see of the links: the [`Peers`] that they talk to.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use futures::future::BoxFuture;
use rand::RngExt;

use super::book::Book;
use super::limits::OBSERVER_REPLY_BYTES_MAX;
use super::links::{Links, SEQUENCE_BYTES};
use crate::codec::FRAME_BYTES_MAX;
use crate::group::{Asked, CallError, Hearing, Peers};
use crate::id::{GroupId, NodeId};
use crate::probe::{Bug, planted};

impl Links {
    /// A voter is asked something.
    fn ask(&self, voter: NodeId, hearing: &Arc<Hearing>) -> Asked {
        let (asked, starts) = hearing.ask();
        if starts && let Some(directory) = self.directory() {
            self.spawn_task(directory.watch(voter, hearing.clone()));
        }
        asked
    }
}

pub(super) fn add_sequence(book: Option<&Book>, frame: &mut Vec<u8>) {
    let sequence = book.map_or(0, Book::sequence);
    frame.extend_from_slice(&sequence.to_le_bytes());
}

/// What a peer told behind a frame.
pub(super) fn take_sequence(frame: &mut Vec<u8>) -> Option<u64> {
    let (_, sequence) = frame.split_last_chunk::<SEQUENCE_BYTES>()?;
    let sequence = u64::from_le_bytes(*sequence);
    frame.truncate(frame.len() - SEQUENCE_BYTES);
    Some(sequence)
}

pub(super) fn hear(book: Option<&Book>, peer: NodeId, sequence: u64) {
    if let Some(book) = book {
        book.heard(peer, sequence);
    }
}

impl Peers for Links {
    fn me(&self) -> NodeId {
        self.me
    }

    fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    fn order(&self, group: &GroupId) -> Vec<NodeId> {
        match planted(Bug::OrderDiffers) {
            true => self.electorate.preference_for(group, self.me),
            false => self.electorate.preference(group),
        }
    }

    fn follow_order(&self, group: &GroupId) -> Vec<NodeId> {
        self.electorate.preference_for(group, self.me)
    }

    fn is_linked(&self, node: NodeId) -> bool {
        self.table().contains_key(&node)
    }

    fn hearing(&self, node: NodeId) -> Option<Arc<Hearing>> {
        self.table().get(&node).map(|link| link.hearing.clone())
    }

    fn call(
        &self,
        node: NodeId,
        mut frame: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, CallError>> {
        let link = self.link(node);
        let book = self.book.clone();
        let is_voter = self.voters.contains(&node);
        let reply_bytes_max = match is_voter {
            true => FRAME_BYTES_MAX,
            false => OBSERVER_REPLY_BYTES_MAX,
        };
        let asked = link.as_ref().filter(|_| is_voter);
        let asked = asked.map(|link| self.ask(node, &link.hearing));
        Box::pin(async move {
            let _asked = asked;
            let link = link.ok_or(CallError::NoLink(node))?;
            add_sequence(book.as_deref(), &mut frame);
            let mut reply = link
                .connection
                .request(frame, reply_bytes_max + SEQUENCE_BYTES)
                .await
                .map_err(|error| CallError::Link(error.to_string()))?;
            link.hearing.hear();
            let Some(sequence) = take_sequence(&mut reply) else {
                return Err(CallError::Link("a reply without its end".into()));
            };
            hear(book.as_deref(), node, sequence);
            Ok(reply)
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.spawn_task(task);
    }

    fn jitter_ms(&self, max_ms: u64) -> u64 {
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        entropy.random_range(0..max_ms.max(1))
    }

    fn may_vote(&self) -> bool {
        self.book.as_ref().is_some_and(|book| book.may_vote())
    }
}
