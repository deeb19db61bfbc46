//! Learning what stands now, without a leader: ask a majority of the voters.
//!
//! Every committed entry is in the log of at least one of any majority. So if each of them has
//! applied all of its log, nothing more can have been committed before it answered, and the
//! highest applied state is current. Only if someone holds an entry that is not applied must a
//! leader settle it. A record is final whoever has it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use crate::id::{GroupId, NodeId};
use crate::machine::Slot;
use crate::probe::{Bug, planted};

use super::ATTEMPT;
use super::directory::{Directory, Group};
use super::replica::Replica;
use super::route::{Ask, Unconfirmed};
use super::wire::{Body, Request, Response, State};

/// When a majority has been asked enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The value is known, if there is one.
    Final,
    /// The version is known too.
    Current,
}

/// How long one try to bring a handle online may take.
const JOIN_MS: u64 = 5_000;

/// The longest pause between two tries, in milliseconds.
const JOIN_PAUSE_MAX_MS: u64 = 500;

impl Directory {
    /// The current state of the group: everything committed before the call is in it.
    pub(crate) async fn barrier(
        self: &Arc<Self>,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Result<State, Unconfirmed> {
        if let Some(record) = group.view.record() {
            return Ok(State {
                version: group.view.version(),
                record: Some(record.clone()),
            });
        }
        let state = if self.peers().is_voter() {
            self.ask_majority(group, Until::Final, deadline).await?
        } else {
            self.ask_followed(group, deadline).await?
        };
        group.view.observe(state.version, state.record.as_ref());
        Ok(state)
    }

    /// As the barrier, and the version is current too: this voter has seen all that was committed
    /// before the call, ignored writes included.
    pub(super) async fn current(
        self: &Arc<Self>,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Result<(), Unconfirmed> {
        let state = self.ask_majority(group, Until::Current, deadline).await?;
        group.view.observe(state.version, state.record.as_ref());
        Ok(())
    }

    /// The barrier as a voter passes it.
    async fn ask_majority(
        self: &Arc<Self>,
        group: &Arc<Group>,
        until: Until,
        deadline: Instant,
    ) -> Result<State, Unconfirmed> {
        let request = Request::new(group.id(), Body::Status).encode();
        let patience = deadline.min(Instant::now() + ATTEMPT);
        let mut answers: FuturesUnordered<_> = self
            .peers()
            .linked_voters()
            .into_iter()
            .map(|voter| {
                let call = self.peers().call(voter, request.clone());
                async move {
                    let frame = timeout_at(patience, call).await.ok()?.ok()?;
                    Response::decode(&frame).ok()
                }
            })
            .collect();
        let mut current = State::default();
        let mut answered = 0;
        let mut all_applied = true;
        let mut next = Some(self.own_status(group).await);
        while let Some(answer) = next {
            if let Some(Response::Status {
                state,
                last,
                applied,
            }) = answer
            {
                if state.record.is_some() {
                    if until == Until::Final {
                        return Ok(state);
                    }
                    // Whoever waits for the value need not wait for the rest.
                    group.view.observe(state.version, state.record.as_ref());
                    current.record = state.record;
                }
                answered += 1;
                all_applied &= last <= applied;
                current.version = current.version.max(state.version);
            }
            if answered >= self.peers().majority() || planted(Bug::BarrierAlone) {
                return if all_applied || planted(Bug::BarrierWithoutTails) {
                    Ok(current)
                } else {
                    self.settle(group, deadline).await
                };
            }
            next = answers.next().await;
        }
        Err(Unconfirmed)
    }

    /// What this voter itself holds; reads the disk if the replica sleeps, and wakes nothing.
    pub(super) async fn own_status(&self, group: &Arc<Group>) -> Option<Response> {
        self.own_status_of(group, &[]).await
    }

    /// The same, with the record of this slot.
    pub(super) async fn own_status_of(&self, group: &Arc<Group>, slot: &[u8]) -> Option<Response> {
        let store = self.store().ok()?;
        let (mut state, last, applied) = match group.awake() {
            Some(replica) => replica.status(),
            None => {
                let held = self.load(store, group.id()).ok()?;
                (held.state(), held.last(), held.applied.at)
            }
        };
        if group.id().is_map() {
            // Read after: what is decided meanwhile is final.
            state.record = self.ledger(group).ok()?.get(slot).ok()?;
        }
        Some(Response::Status {
            state,
            last,
            applied,
        })
    }

    /// The same of the disk alone. A replica that is awake may have applied what its disk has not
    /// got yet.
    pub(super) fn durable_status(&self, group: GroupId) -> Result<Response, String> {
        let held = self.load(self.store()?, group)?;
        Ok(Response::Status {
            state: held.state(),
            last: held.last(),
            applied: held.applied.at,
        })
    }

    /// The barrier as an observer passes it: a voter passes it on its behalf.
    async fn ask_followed(
        self: &Arc<Self>,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Result<State, Unconfirmed> {
        for voter in self.reachable_in_follow_order(group) {
            let within = deadline.saturating_duration_since(Instant::now());
            let within_ms = within.as_millis().try_into().unwrap_or(u64::MAX);
            let request = Request::new(group.id(), Body::Barrier { within_ms });
            let call = self.peers().call(voter, request.encode());
            let Ok(Ok(frame)) = timeout_at(deadline, call).await else {
                continue;
            };
            if let Ok(Response::State(state)) = Response::decode(&frame) {
                return Ok(state);
            }
        }
        Err(Unconfirmed)
    }

    pub(super) fn reachable_in_follow_order(&self, group: &Group) -> Vec<NodeId> {
        let mut order = self.peers().follow_order(&group.id());
        order.retain(|voter| self.peers().is_linked(*voter));
        order
    }

    /// Brings a group that a handle wants online, and keeps trying while that makes sense.
    pub(super) fn join(self: &Arc<Self>, group: &Arc<Group>) {
        if group.view.is_idle() {
            return;
        }
        let (this, group) = (self.clone(), group.clone());
        // On a voter, links that come and go change whom to follow, for handles here and for
        // those who follow here.
        let view = &group.view;
        let follows = !view.following().is_empty();
        if this.peers().is_voter() && (this.has_gap() || follows || view.is_in_doubt()) {
            let (this, group) = (this.clone(), group.clone());
            self.peers().spawn(Box::pin(async move {
                while this.peers().in_touch() && !group.view.is_idle() {
                    let followed = this.follow_around_gaps(&group).await;
                    if this.end_doubt(&group).await && followed {
                        break;
                    }
                    let pause = Duration::from_millis(100 + this.peers().jitter_ms(100));
                    tokio::time::sleep(pause).await;
                }
                this.forget_idle(group);
            }));
        }
        if group.view.is_online() || !group.view.is_wanted() {
            return;
        }
        self.peers().clone().spawn(Box::pin(async move {
            let mut pause_ms = 10;
            while this.peers().in_touch() {
                let Some(losses) = group.view.start_joining() else {
                    break;
                };
                let deadline = Instant::now() + Duration::from_millis(JOIN_MS);
                match this.catch_up(&group, deadline).await {
                    Ok(()) if group.view.finish_joining(losses) => break,
                    Ok(()) => continue,
                    Err(Unconfirmed) => group.view.give_up_joining(),
                }
                let pause = pause_ms + this.peers().jitter_ms(pause_ms);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                pause_ms = (pause_ms * 2).min(JOIN_PAUSE_MAX_MS);
            }
            this.forget_idle(group);
        }));
    }

    async fn catch_up(
        self: &Arc<Self>,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Result<(), Unconfirmed> {
        if self.peers().is_voter() {
            return self.current(group, deadline).await;
        }
        for voter in self.reachable_in_follow_order(group) {
            if let Some(state) = self.follow_at(voter, group, deadline).await {
                group.view.observe(state.version, state.record.as_ref());
                return Ok(());
            }
        }
        Err(Unconfirmed)
    }

    /// This voter does not see all the others.
    fn has_gap(&self) -> bool {
        self.peers().linked_voters().len() + 1 < self.peers().voters().len()
    }

    /// A voter hears of commits from the leader. While it cannot see some voter, that may be the
    /// leader: it then also follows at the voters it does see. False if that has yet to succeed.
    pub(super) async fn follow_around_gaps(self: &Arc<Self>, group: &Arc<Group>) -> bool {
        if !self.has_gap() {
            for (voter, number) in group.view.following() {
                group.view.unfollow(voter);
                let request = Request::new(group.id(), Body::Unsubscribe { number });
                let call = self.peers().call(voter, request.encode());
                // If it is lost, we go on being told, which harms nobody.
                let _ = timeout_at(Instant::now() + ATTEMPT, call).await;
            }
            return true;
        }
        let mut followed = true;
        for voter in self.peers().linked_voters() {
            if group.view.following().contains_key(&voter) {
                continue;
            }
            let deadline = Instant::now() + ATTEMPT;
            match self.follow_at(voter, group, deadline).await {
                Some(state) => group.view.observe(state.version, state.record.as_ref()),
                None => followed = false,
            }
        }
        followed
    }

    /// Asks a majority, if a voter was lost since the last time: it may have been the leader, and
    /// have committed what it told others alone. Its link may be back already. False if that has
    /// yet to succeed.
    async fn end_doubt(self: &Arc<Self>, group: &Arc<Group>) -> bool {
        if !group.view.take_doubt() {
            return true;
        }
        let deadline = Instant::now() + Duration::from_millis(JOIN_MS);
        let asked = self.current(group, deadline).await.is_ok();
        if !asked {
            group.view.doubt();
        }
        asked
    }

    /// Subscribes at `voter`, which passes a barrier and answers with what stands.
    async fn follow_at(
        &self,
        voter: NodeId,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Option<State> {
        // Noted first: if the link drops from here on, the view is told.
        let number = self.subscription_number();
        if !group.view.follow(voter, number) {
            return None;
        }
        let request = Request::new(group.id(), Body::Subscribe { number });
        let call = self.peers().call(voter, request.encode());
        let answer = match timeout_at(deadline, call).await {
            Ok(Ok(frame)) => Response::decode(&frame).ok(),
            _ => None,
        };
        if let Some(Response::State(state)) = answer {
            if group.view.following().get(&voter) != Some(&number) {
                // Nobody here wants it any more, and the word of that may have overtaken us.
                let request = Request::new(group.id(), Body::Unsubscribe { number });
                let call = self.peers().call(voter, request.encode());
                let _ = timeout_at(Instant::now() + ATTEMPT, call).await;
            }
            return Some(state);
        }
        group.view.unfollow(voter);
        None
    }

    /// Settles what a lost leader left behind: finds a leader or becomes it, whose commit reaches
    /// every voter that is linked.
    pub(super) async fn settle_tail(self: Arc<Self>, replica: &Arc<Replica>) {
        let group = self.group(replica.group);
        let deadline = Instant::now() + Duration::from_millis(JOIN_MS);
        while replica.is_unsettled() && self.peers().in_touch() && Instant::now() < deadline {
            self.serve(&group, Ask::Settle(Slot::new()), 1, deadline, None)
                .await;
            let pause = Duration::from_millis(20 + self.peers().jitter_ms(80));
            tokio::time::sleep(pause).await;
        }
    }
}
