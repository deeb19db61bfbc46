//! Falling asleep: the instance of a group that nobody uses is shut down, and the group is only
//! bytes on the disk. To Raft this is a crash and a restart, so it needs no protocol of its own.
//!
//! A leader takes care first that nobody is left behind: what it has committed is applied by all
//! voters in reach, and the others are noted on the disk (`marks.rs`).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::timeout;

use crate::id::{GroupId, NodeId};
use crate::probe::{self, Bug, planted};
use crate::store::Store;

use super::ATTEMPT;
use super::berth::Past;
use super::directory::{Directory, Group};
use super::raft::LogPosition;
use super::replica::Replica;
use super::wake::{Change, ended};
use super::wire::{Body, Request, Response};

/// A replica that nobody has used for so long may fall asleep.
pub(crate) const IDLE_AFTER_MS: u64 = 10_000;
/// The same when more than half of all that may be awake are. Also how long one may be unsettled
/// that nobody uses: someone may wait for what it has not been told.
pub(super) const IDLE_SOON_AFTER_MS: u64 = 1_000;

/// The pause between two looks at the replicas that are awake.
pub(crate) const SWEEP_MS: u64 = 1_000;

/// How many fall asleep at a time: they share questions' round trips and syncs.
const SLEEPS_AT_ONCE: usize = 64;

/// How long each step of falling asleep may take: a disk or an instance that hangs holds up one
/// group for so long, and no other one. A later look goes on where it was given up.
const STEP_MS: u64 = 2_000;

/// What was found when everyone was asked: it has to be so still when the replica is taken away.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) last: Option<LogPosition>,
    pub(super) leads: bool,
    /// Those in reach: each has applied `last`, durably, or is noted as one that has not.
    pub(super) voters: Vec<NodeId>,
    /// Those of them that refuse the group: they are owed notices for ever.
    pub(super) refused: Vec<NodeId>,
    /// It makes room, whatever it still waits for: the marks say that it does.
    pub(super) yields: bool,
}

impl Directory {
    /// Puts replicas to sleep, for as long as any is awake.
    pub(super) async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(SWEEP_MS)).await;
            let mut resting = self.berths.all();
            resting.retain(|group| group.awake().is_none_or(|replica| self.is_idle(&replica)));
            futures::stream::iter(resting)
                .for_each_concurrent(SLEEPS_AT_ONCE, |group| async {
                    let id = group.id();
                    // The others are to fall asleep whatever becomes of this one.
                    let rested = AssertUnwindSafe(self.rest(group)).catch_unwind().await;
                    if rested.is_err() {
                        tracing::error!(group = ?id, "a panic while a replica fell asleep");
                    }
                })
                .await;
            self.forget_all_idle();
            if self.berths.end_sweep() {
                return;
            }
        }
    }

    fn is_idle(&self, replica: &Replica) -> bool {
        let after_ms = match self.berths.are_scarce() || replica.is_unsettled() {
            true => IDLE_SOON_AFTER_MS,
            false => IDLE_AFTER_MS,
        };
        replica.idle_for() >= Duration::from_millis(after_ms)
    }

    /// Puts a replica that was found idle to sleep, or sees to what keeps it awake.
    async fn rest(self: &Arc<Self>, group: Arc<Group>) {
        #[cfg(test)]
        self.berths.trip(group.id());
        if group
            .berth
            .newborn()
            .is_some_and(|newborn| newborn.is_fresh())
        {
            return;
        }
        let is_unsettled = group.awake().is_some_and(|replica| replica.is_unsettled());
        if is_unsettled && !self.berths.are_crowded() {
            self.settle_aside(&group);
        } else if let Some(change) = self.try_change(&group) {
            let rested = self.unless_stopping(self.put_to_sleep(&group, change));
            if let Err(reason) = rested.await {
                tracing::debug!(group = ?group.id(), reason, "not put to sleep");
            }
        }
        self.forget_idle(group);
    }

    /// Settles what a replica may wait for, a bounded number at a time; else a later look finds it.
    fn settle_aside(self: &Arc<Self>, group: &Group) {
        let Some(replica) = group.awake().filter(|_| self.peers().in_touch()) else {
            return;
        };
        // Whoever else has it is at work on it, perhaps at this.
        if Arc::strong_count(&replica) == 2
            && let Ok(permit) = self.settling.clone().try_acquire_owned()
        {
            let this = self.clone();
            self.peers().spawn(Box::pin(async move {
                this.settle_tail(&replica).await;
                drop(permit);
                if replica.is_unsettled() {
                    // In vain, and not to be tried all the time. Whoever has it counts as at work.
                    tokio::time::sleep(Duration::from_millis(IDLE_AFTER_MS)).await;
                }
            }));
        }
    }

    /// Shuts the instance down and clears its berth, or that of one which was given up. It may be
    /// cut short at any point: the berth stays taken, and says what was there.
    async fn put_to_sleep(
        self: &Arc<Self>,
        group: &Arc<Group>,
        mut change: Change<'_>,
    ) -> Result<(), String> {
        let store = self.store()?;
        let was_awake = group.berth.is_awake();
        let mut led = change.past.led();
        if was_awake {
            let Some(checked) = in_time(self.check(group)).await?? else {
                return Ok(());
            };
            let taken = group
                .berth
                .clear_if(|replica| self.is_as_checked(replica, &checked));
            let Some(replica) = taken else {
                // Not at every look: each writes marks.
                if let Some(replica) = group.awake() {
                    replica.touch();
                }
                return Ok(());
            };
            if checked.yields {
                // Later, when there is room: not before this one is gone.
                checked
                    .voters
                    .into_iter()
                    .for_each(|voter| self.help(voter));
            }
            let (term, leader) = replica.term();
            group.remember(term, leader.or_else(|| replica.leader()));
            led = replica.leads();
            self.counts.sleeps.one();
            in_time(replica.stop()).await?;
            drop(replica);
        } else if change.past.end().is_some_and(|end| !end.is_reached()) {
            return Err("an instance that was given up has not ended yet".into());
        }
        let sealed = self.settle_and_seal(&mut change.past, store, group.id());
        let is_unsettled = in_time(sealed).await??;
        group.berth.set_newborn(None);
        change.past.slept(led);
        if is_unsettled && !was_awake {
            // A birth or a start was given up, or a leader by birth has said no more.
            if !self.berths.are_crowded() {
                drop(change);
                return in_time(self.wake_to_settle(group)).await?;
            }
            // It makes room, and what it waits for is remembered.
            let others = self.peers().voters().iter().copied();
            let others: Vec<_> = others.filter(|voter| *voter != self.peers().me()).collect();
            in_time(self.mark(group.id(), &others)).await??;
            let linked = self.peers().linked_voters().into_iter();
            linked.for_each(|voter| self.help(voter));
        }
        self.berths.free(group.id());
        probe::count("groups put to sleep");
        tracing::debug!(group = ?group.id(), "replica asleep");
        Ok(())
    }

    /// Whether it waits for something. The seal is written before the instance counts as settled:
    /// whoever starts the next one, should this be cut short, flushes the store first.
    async fn settle_and_seal(
        &self,
        past: &mut Past,
        store: &Store,
        group: GroupId,
    ) -> Result<bool, String> {
        ended(past, store).await?;
        let is_unsettled = self.seal(store, group).await?;
        if past.end().is_some() {
            past.settle();
        }
        Ok(is_unsettled)
    }

    /// Whether the replica may sleep, but for what may change until it does.
    pub(super) async fn check(
        self: &Arc<Self>,
        group: &Arc<Group>,
    ) -> Result<Option<Checked>, String> {
        let Some(replica) = group.awake() else {
            return Ok(None);
        };
        let (_, last, _) = replica.status();
        let leads = replica.leads();
        let is_unsettled = replica.is_unsettled();
        // While others are asked, the replica is not in use.
        drop(replica);
        let mut checked = Checked {
            last,
            leads,
            voters: Vec::new(),
            refused: Vec::new(),
            yields: false,
        };
        let mut behind: Vec<NodeId> = self.peers().voters().iter().copied().collect();
        behind.retain(|voter| *voter != self.peers().me());
        // What this one waits for may want a berth elsewhere, which is taken by what waits for one
        // here: none is kept for that.
        let is_crowded = self.berths.are_crowded();
        if is_unsettled && is_crowded {
            checked.voters = self.peers().linked_voters();
            checked.yields = true;
            self.mark(group.id(), &behind).await?;
            return Ok(Some(checked));
        }
        if !leads {
            // A disk that hangs would keep the group from waking.
            let flushed = self.store()?.flush().await;
            return flushed.map(|_| Some(checked)).map_err(|e| e.to_string());
        }
        let request = Request::new(group.id(), Body::Durable).encode();
        let mut answers: FuturesUnordered<_> = self
            .peers()
            .linked_voters()
            .into_iter()
            .map(|voter| {
                let call = self.peers().call(voter, request.clone());
                async move {
                    let frame = timeout(ATTEMPT, call).await.ok()?.ok()?;
                    Some((voter, Response::decode(&frame).ok()?))
                }
            })
            .collect();
        while let Some(answer) = answers.next().await {
            match answer {
                Some((voter, Response::Status { applied, .. }))
                    if applied >= last || planted(Bug::SleepsTooEarly) =>
                {
                    behind.retain(|other| *other != voter);
                    checked.voters.push(voter);
                }
                Some((voter, Response::Status { .. })) if is_crowded => {
                    checked.voters.push(voter);
                    checked.yields = true;
                }
                Some((voter, Response::Status { .. })) => {
                    // It hears how far the log is committed, and all others with it: not at
                    // every look.
                    if let Some(replica) = group.awake() {
                        replica.touch();
                        replica.linked(voter).await;
                    }
                    return Ok(None);
                }
                // It cannot serve the group, however often it is asked.
                Some((voter, Response::Refused { .. })) => {
                    checked.voters.push(voter);
                    checked.refused.push(voter);
                }
                _ => return Ok(None),
            }
        }
        self.mark(group.id(), &behind).await?;
        Ok(Some(checked))
    }

    pub(super) fn is_as_checked(&self, replica: &Replica, checked: &Checked) -> bool {
        let (_, last, applied) = replica.status();
        let mut linked = self.peers().linked_voters().into_iter();
        self.is_idle(replica)
            && last == checked.last
            && replica.leads() == checked.leads
            // One that is linked since then was told of no mark.
            && (!(checked.leads || checked.yields)
                || linked.all(|voter| checked.voters.contains(&voter)))
            && (checked.yields
                || planted(Bug::SleepsTooEarly)
                || (last <= applied
                    && !replica.is_unsettled()
                    && !replica.owes_notice_but_to(&checked.refused)))
    }
}

async fn in_time<T>(step: impl Future<Output = T>) -> Result<T, String> {
    let done = timeout(Duration::from_millis(STEP_MS), step).await;
    done.map_err(|_| format!("it took longer than {STEP_MS} ms"))
}
