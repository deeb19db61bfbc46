//! Births without an instance of openraft.
//!
//! Most cells are decided once and never written to again, and to start an instance costs many
//! times what that one write costs. So the first entry of a cell is written, sent and committed by
//! what Raft does in this one case, and by nothing more: the leader that the cell has by birth
//! writes its entry, and sends it when that is durable; the others take it if their disks hold
//! nothing of the cell; and once a majority has it, it is committed, since it is of the leader's
//! own term. Then each writes a seal in its place (`seal.rs`), and the cell is as one that was
//! decided and put to sleep. Whatever else comes, or does not come, an instance is started over
//! what is on the disk by then, which is what an instance would have written.
//!
//! All of it is done under the berth's lock, but for waiting: for what others say of a seal, and
//! for the sync that makes one visible.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::id::NodeId;
use crate::machine::{Command, Reply};
use crate::probe::{self, Bug, planted};
use crate::store::{Batch, Durability, StoreFailed};

use super::ATTEMPT;
use super::directory::{Directory, Group};
use super::disk::Disk;
use super::first::{FIRST, FIRST_TERM};
use super::raft::{LogPosition, StoredEntry, StoredVote};
use super::route::{Ask, LINK_BYTES_PER_MS};
use super::sleep::IDLE_SOON_AFTER_MS;
use super::visit::wait_in;
use super::wake::{Cause, Change, settle};
use super::wire::{Body, RaftRequest, RaftResponse, Request, Response};

/// For how long after its first entry came a newborn cell is taken to be about to be decided, in
/// milliseconds: whoever asks what it holds waits. Else each that opens a new cell would find an
/// entry that is not known to be committed, and wake all voters to have it settled.
const DECIDED_WITHIN_MS: u64 = 100;

/// A cell of which this voter holds the first entry, and no instance runs.
#[derive(Clone)]
pub(super) struct Newborn {
    disk: Arc<Disk>,
    since: Instant,
    /// Told when it is decided. The view may know that before, from others.
    decided: CancellationToken,
}

impl Newborn {
    pub(super) fn new(disk: Disk) -> Self {
        Self {
            disk: Arc::new(disk),
            since: Instant::now(),
            decided: CancellationToken::new(),
        }
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Its leader has yet to say that the entry is committed.
    pub(super) fn is_unsettled(&self) -> bool {
        self.disk.held().is_unsettled()
    }

    /// Whoever is at work on it may be about to end that.
    pub(super) fn is_fresh(&self) -> bool {
        self.since.elapsed() < Duration::from_millis(IDLE_SOON_AFTER_MS)
    }
}

/// What a voter says of the first entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Has,
    HasNot,
    /// It votes in a newer term.
    Newer,
}

/// Told when a batch is durable.
pub(super) type Sealed = oneshot::Receiver<Result<u64, StoreFailed>>;

impl Directory {
    /// Has a cell born with `ask` as its first entry, if this voter leads it by birth. `None`: it
    /// is to be asked of an instance, and may have been committed.
    pub(super) async fn bear(
        self: &Arc<Self>,
        group: &Arc<Group>,
        ask: &Ask,
        from: Option<NodeId>,
        deadline: Instant,
    ) -> Option<Response> {
        let Ask::Commit(command @ Command::Set { .. }) = ask else {
            return None;
        };
        let is_first = || self.peers().order(&group.id()).first() == Some(&self.peers().me());
        let may_be_new = group.id().is_cell()
            && command.slot().is_empty()
            && !group.berth.is_awake()
            && group.view.record().is_none();
        #[cfg(test)]
        if super::by_instance::by_instance(self.peers().me()) {
            return None;
        }
        if !may_be_new || !self.peers().in_touch() || !is_first() {
            return None;
        }
        if group.berth.is_changing() {
            // It is being born, or woken.
            return None;
        }
        // The value is kept for longer than whoever asks may wait.
        let waiting = wait_in(&self.proposed, command)?;
        let (tell, told) = oneshot::channel();
        let (this, group, command) = (self.clone(), group.clone(), command.clone());
        // It goes on if nobody waits for it any more.
        self.peers().spawn(Box::pin(async move {
            if let Err(reason) = this.lead_birth(&group, command, from, tell).await {
                tracing::debug!(group = ?group.id(), reason, "a birth was given up");
            }
            drop(waiting);
            this.forget_idle(group);
        }));
        timeout_at(deadline, told).await.ok()?.ok()
    }

    async fn lead_birth(
        self: &Arc<Self>,
        group: &Arc<Group>,
        command: Command,
        from: Option<NodeId>,
        tell: oneshot::Sender<Response>,
    ) -> Result<(), String> {
        let me = self.peers().me();
        let mut change = self.change_asleep(group).await?;
        if group.berth.is_awake() {
            return Ok(());
        }
        let store = self.store()?;
        let held = self.load(store, group.id())?;
        if held.born {
            return Ok(());
        }
        let cause = Cause::Ask {
            first: Some(&command),
            settles: false,
            from,
        };
        let room = self.may_bear_for(cause);
        if let Err(reason) = room.and_then(|()| self.take_berth(group, cause)) {
            let _ = tell.send(Response::Refused { reason });
            return Ok(());
        }
        let disk = Disk::new(store.clone(), group.id(), held).counted(self.census.clone());
        if !disk.is_firstborn(me) {
            return Ok(());
        }
        let newborn = Newborn::new(disk);
        self.write_first(group, &mut change, &newborn, command)
            .await?;
        self.counts.leaderships_by_birth.one();
        let vote = newborn.disk().held().vote.ok_or("no vote by birth")?;
        let mut answers = self.send_first(group, vote, &newborn);
        let mut holders = Vec::new();
        let has_majority = async {
            let majority = match planted(Bug::BornAlone) {
                true => 1,
                false => self.peers().majority(),
            };
            while holders.len() + 1 < majority {
                match answers.next().await {
                    Some((voter, Answer::Has)) => holders.push(voter),
                    Some((_, Answer::HasNot)) => {}
                    Some((_, Answer::Newer)) => return Err("there is a newer term".into()),
                    None => return Err("no majority took the first entry".into()),
                }
            }
            Ok(())
        };
        if let Err(reason) = self.unless_stopping(has_majority).await {
            // An instance goes on from here: this voter leads, and all it wrote is durable.
            change.past.slept(true);
            group.berth.set_newborn(None);
            return Err(reason);
        }
        let (reply, sealed) = self.decide_first(group, &mut change, &newborn);
        change.past.leads();
        group.remember(FIRST_TERM, Some(me));
        let _ = tell.send(Response::Committed { reply, leader: me });
        drop(change);
        let mut behind = self.tell_decided(group, vote, holders, answers).await;
        let sealed = self.unless_stopping(until_durable(sealed)).await;
        if !behind.is_empty() {
            self.mark(group.id(), &behind).await?;
        }
        sealed?;
        self.end_birth(group, true).await?;
        behind.retain(|voter| self.peers().is_linked(*voter));
        behind.into_iter().for_each(|voter| self.help(voter));
        Ok(())
    }

    /// Waits for the right to change a group that sleeps; all that was written is visible then.
    pub(super) async fn change_asleep<'a>(
        &'a self,
        group: &'a Group,
    ) -> Result<Change<'a>, String> {
        let change = async {
            let mut change = self.change(group).await?;
            if !group.berth.is_awake() {
                settle(&mut change.past, self.store()?).await?;
            }
            Ok(change)
        };
        let change = timeout(ATTEMPT, self.unless_stopping(change)).await;
        change.map_err(|_| "the group is waking or falling asleep")?
    }

    /// Writes the first entry; returns when it is durable. The caller has taken a berth.
    pub(super) async fn write_first(
        &self,
        group: &Group,
        change: &mut Change<'_>,
        newborn: &Newborn,
        command: Command,
    ) -> Result<(), String> {
        // Should this be given up, whoever comes next flushes the store first.
        let lease = change.past.begin();
        // Not after: the entry is visible before this task is told so.
        group.berth.set_newborn(Some(newborn.clone()));
        let written = async {
            let written = newborn.disk().bear(command).await;
            written.map_err(|error| error.to_string())
        };
        let written = self.unless_stopping(written).await;
        drop(lease);
        match written {
            Ok(()) => change.past.settle(),
            Err(_) => group.berth.set_newborn(None),
        }
        written
    }

    /// Sends the first entry to all others in reach: what they say, one after the other.
    fn send_first(
        &self,
        group: &Group,
        vote: StoredVote,
        newborn: &Newborn,
    ) -> FuturesUnordered<impl Future<Output = (NodeId, Answer)> + Send + use<>> {
        probe::led(self.peers().me(), group.id(), FIRST_TERM);
        let entries: Vec<StoredEntry> = {
            let held = newborn.disk().held();
            held.entries
                .get(&FIRST.index)
                .cloned()
                .into_iter()
                .collect()
        };
        let body = RaftRequest::Append {
            vote,
            prev: Some(LogPosition::GENESIS),
            entries,
            committed: Some(LogPosition::GENESIS),
        };
        let frame = Request::new(group.id(), Body::Raft(body)).encode();
        let within = ATTEMPT + Duration::from_millis(frame.len() as u64 / LINK_BYTES_PER_MS);
        let others = self.peers().linked_voters().into_iter();
        others
            .map(|voter| {
                let call = self.peers().call(voter, frame.clone());
                async move {
                    let answer = timeout(within, call).await.ok().and_then(Result::ok);
                    let answer = answer.and_then(|frame| Response::decode(&frame).ok());
                    let answer = match answer {
                        Some(Response::Raft(RaftResponse::Appended)) => Answer::Has,
                        Some(Response::Raft(RaftResponse::HigherVote(_))) => Answer::Newer,
                        _ => Answer::HasNot,
                    };
                    (voter, answer)
                }
            })
            .collect()
    }

    /// The first entry is committed: applies it, and queues the seal.
    pub(super) fn decide_first(
        &self,
        group: &Group,
        change: &mut Change<'_>,
        newborn: &Newborn,
    ) -> (Reply, Sealed) {
        let lease = change.past.begin();
        let (durable, sealed) = oneshot::channel();
        let (command, reply) = newborn.disk().apply_first(self.peers().me(), |batch| {
            let written = move |result| drop(durable.send(result));
            self.write_seal(batch, written);
        });
        // It stays the past of the group until the seal is visible.
        drop(lease);
        self.counts.commands_applied.one();
        self.counts.decisions.one();
        tracing::debug!(group = ?group.id(), %command, version = %reply.version, "applied");
        group.view.observe(reply.version, reply.record.as_ref());
        newborn.decided.cancel();
        (reply, sealed)
    }

    fn write_seal(
        &self,
        batch: Batch,
        written: impl FnOnce(Result<u64, StoreFailed>) + Send + 'static,
    ) {
        match self.store() {
            Ok(store) => store.write(batch, Durability::Lazy, written),
            // The node is stopping, and the disk says what it said before.
            Err(_) => drop(written),
        }
    }

    /// Tells all who have the entry that it is committed, and returns those who are not known to
    /// have that on disk.
    async fn tell_decided(
        &self,
        group: &Group,
        vote: StoredVote,
        holders: Vec<NodeId>,
        mut answers: FuturesUnordered<impl Future<Output = (NodeId, Answer)>>,
    ) -> Vec<NodeId> {
        let frame = Request::new(group.id(), Body::Decided { vote }).encode();
        let tell = |voter| {
            let call = self.peers().call(voter, frame.clone());
            async move {
                let answer = timeout(ATTEMPT, call).await.ok().and_then(Result::ok);
                let answer = answer.and_then(|frame| Response::decode(&frame).ok());
                (voter, matches!(answer, Some(Response::Done)))
            }
        };
        let mut behind: Vec<NodeId> = self.peers().voters().iter().copied().collect();
        behind.retain(|voter| *voter != self.peers().me());
        let mut told: FuturesUnordered<_> = holders.into_iter().map(tell).collect();
        loop {
            tokio::select! {
                Some((voter, answer)) = answers.next() => {
                    if answer == Answer::Has {
                        told.push(tell(voter));
                    }
                }
                Some((voter, is_there)) = told.next() => {
                    behind.retain(|other| *other != voter || !is_there);
                }
                else => return behind,
            }
        }
    }

    /// The seal is durable: the cell sleeps.
    pub(super) async fn end_birth(
        self: &Arc<Self>,
        group: &Arc<Group>,
        led: bool,
    ) -> Result<(), String> {
        let mut change = self.change(group).await?;
        let Some(newborn) = group.berth.newborn() else {
            // An instance was started, or a sweep has seen to it.
            return Ok(());
        };
        if group.berth.is_awake() || newborn.is_unsettled() {
            return Ok(());
        }
        // The seal was the last that was written.
        change.past.settle();
        change.past.slept(led);
        group.berth.set_newborn(None);
        self.berths.free(group.id());
        probe::count("cells born without an instance");
        Ok(())
    }
}

/// Waits, for a bounded time, until a newborn cell is decided.
pub(super) async fn until_decided(group: &Group) {
    let newborn = group.berth.newborn();
    let Some(newborn) = newborn.filter(Newborn::is_unsettled) else {
        return;
    };
    let deadline = newborn.since + Duration::from_millis(DECIDED_WITHIN_MS);
    let _ = timeout_at(deadline, newborn.decided.cancelled()).await;
}

pub(super) async fn until_durable(sealed: Sealed) -> Result<(), String> {
    match sealed.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("this node is shutting down".into()),
    }
}
