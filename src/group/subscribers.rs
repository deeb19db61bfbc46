//! Other nodes that follow groups at this one.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::id::{GroupId, NodeId};
use crate::transport::Taken;

use super::barrier::Passed;
use super::directory::{Directory, Group};
use super::push::Pusher;
use super::scope::Scope;
use super::visit::Visit;
use super::wire::{Batch, Many, RECORD_BYTES_A_FRAME, Request, Response, State, Subscribed, Wish};

/// How long a peer may take to confirm that it is no longer served before it is told again, and the
/// pause before that, in milliseconds.
const ORPHAN_MS: u64 = 1_000;
const ORPHAN_PAUSE_MS: u64 = 200;

/// The most bytes that what all subscribers want may take here; beyond it they are told of all.
pub(super) const SCOPES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long subscribers wait for the barrier that this voter passes on their behalf.
const SUBSCRIBE_MS: u64 = 3_000;

impl Directory {
    /// Subscribes `peer` to all of these, and says what stands.
    pub(super) async fn answer_subscribe(
        self: &Arc<Self>,
        peer: NodeId,
        wishes: Batch<Wish>,
    ) -> Response {
        let is_alone = wishes.len() == 1;
        // Registered first, read after: nothing falls in between.
        let registered: Vec<Result<(Visit, u64), String>> = wishes
            .into_vec()
            .into_iter()
            .map(|wish| {
                let group = self.visit(peer, wish.group)?;
                self.subscribe(peer, wish.number, &group, wish.scope)?;
                Ok((group, wish.number))
            })
            .collect();
        let groups: Vec<Arc<Group>> = registered
            .iter()
            .filter_map(|registered| Some(Arc::clone(&registered.as_ref().ok()?.0)))
            .collect();
        for group in self.follow_around_gaps(&groups).await {
            self.follow_later(group);
        }
        let deadline = Instant::now() + Duration::from_millis(SUBSCRIBE_MS);
        let passed = self.current_of_all(&groups, deadline).await;
        drop(groups);
        let mut passed = passed.into_iter();
        let mut bytes_left = match is_alone {
            true => usize::MAX,
            false => RECORD_BYTES_A_FRAME,
        };
        let answers = registered.into_iter().map(|registered| {
            let (group, number) = match registered {
                Ok(registered) => registered,
                Err(reason) => return Subscribed::No { reason },
            };
            let view = &group.view;
            let record = view.record();
            let bytes = record.map_or(0, |record| record.proposal.value.len());
            match passed.next() {
                Some(Passed::Current) if bytes <= bytes_left => bytes_left -= bytes,
                Some(Passed::Current | Passed::Open) => {
                    self.give_up_subscription(peer, number, &group);
                    return Subscribed::Alone;
                }
                _ => {
                    self.give_up_subscription(peer, number, &group);
                    let reason = "no majority has answered".into();
                    return Subscribed::No { reason };
                }
            }
            if !view.answer_subscription(peer, number, record.is_some()) {
                let reason = "it was ended meanwhile".into();
                return Subscribed::No { reason };
            }
            let mut state = view.state();
            if record.is_none() && state.record.take().is_some() {
                // It was decided this moment, and nobody asked whether it has room here.
                view.push_to(peer);
            }
            Subscribed::State(state)
        });
        Response::Subscribed(Batch::new(answers.collect()))
    }

    /// Registers other wishes in the place of those that stand.
    pub(super) fn answer_rescope(&self, peer: NodeId, wishes: Batch<Wish>) -> Response {
        let answers = wishes.into_vec().into_iter().map(|wish| {
            let mut version = None;
            if let Some(group) = self.known(wish.group) {
                let scope = self.room_for(wish.group, wish.scope);
                let stands = group.view.rescope_of(peer, wish.number, scope);
                // Registered first, read after: nothing falls in between.
                version = stands.then(|| group.view.version());
                self.forget_idle(group);
            }
            match version {
                Some(version) => Subscribed::State(State {
                    version,
                    record: None,
                }),
                None => Subscribed::No {
                    reason: "there is no such subscription".into(),
                },
            }
        });
        Response::Subscribed(Batch::new(answers.collect()))
    }

    /// A scope that a peer has sent, if it can be kept here; else all.
    fn room_for(&self, group: GroupId, scope: Scope) -> (Scope, Option<Taken>) {
        let scope = match group.is_map() {
            true => scope.normal(),
            false => Scope::All,
        };
        match self.scopes.take(scope.bytes()) {
            Some(room) => (scope, Some(room)),
            None => (Scope::All, None),
        }
    }

    pub(super) fn answer_unsubscribe(&self, peer: NodeId, ends: Batch<(GroupId, u64)>) -> Response {
        for (id, number) in ends.into_vec() {
            if let Some(group) = self.known(id) {
                self.unsubscribe(peer, number, &group);
                self.forget_idle(group);
            }
        }
        Response::Done
    }

    /// Takes in what stands, where somebody here wants to know it.
    pub(super) fn answer_update(self: &Arc<Self>, updates: Batch<(GroupId, State)>) -> Response {
        let updates = updates.into_vec().into_iter();
        let wanted = updates.map(|(id, state)| {
            let group = self.known(id);
            let group = group.filter(|group| !group.view.is_idle());
            if let Some(group) = &group {
                group.view.observe(state.version, state.record.as_ref());
                self.rescope(group, true);
            }
            group.is_some()
        });
        Response::Wanted(Batch::new(wanted.collect()))
    }

    /// Registers `peer` for commits of the group.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        peer: NodeId,
        number: u64,
        group: &Arc<Group>,
        scope: Scope,
    ) -> Result<(), String> {
        let max = match self.peers().voters().contains(&peer) {
            // It follows on behalf of others too.
            true => self.groups_of_others_max(),
            false => self.limits.subscriptions_per_observer_max,
        };
        let pusher = {
            let mut pushers = self.pushers.lock().unwrap_or_else(PoisonError::into_inner);
            let pusher = pushers.entry(peer).or_insert_with(|| {
                let pusher = Arc::new(Pusher::new(peer, self.counts.clone()));
                let running = pusher.clone().run(Arc::downgrade(self));
                self.peers().spawn(Box::pin(running));
                pusher
            });
            pusher.clone()
        };
        // In this order: whoever finds no subscription then takes the group from the pusher.
        let scope = self.room_for(group.id(), scope);
        group.view.subscribe(peer, number, pusher.clone(), scope);
        if !pusher.add(group.id(), max) {
            group.view.unsubscribe(peer, number);
            self.counts.refused_subscriptions.one();
            return Err(format!(
                "this node follows {max} groups at this voter already; \
                 close handles, or spread them over more nodes"
            ));
        }
        // A link that dropped meanwhile was cleaned up before this subscription existed.
        if !self.peers().is_linked(peer) {
            self.drop_subscriptions(peer);
            group.view.unsubscribe(peer, number);
            return Err("the link is gone".into());
        }
        Ok(())
    }

    pub(super) fn unsubscribe(&self, peer: NodeId, number: u64, group: &Arc<Group>) {
        if group.view.unsubscribe(peer, number) {
            self.push_no_more(peer, group);
        }
    }

    /// The subscription is registered, and no barrier was passed.
    pub(super) fn give_up_subscription(&self, peer: NodeId, number: u64, group: &Arc<Group>) {
        if group.view.give_up_subscription(peer, number) {
            self.push_no_more(peer, group);
        }
    }

    fn push_no_more(&self, peer: NodeId, group: &Arc<Group>) {
        let pusher = {
            let pushers = self.pushers.lock().unwrap_or_else(PoisonError::into_inner);
            pushers.get(&peer).cloned()
        };
        if let Some(pusher) = pusher {
            pusher.remove_from(&group.view);
        }
    }

    pub(super) fn drop_subscriptions(&self, peer: NodeId) {
        let removed = {
            let mut pushers = self.pushers.lock().unwrap_or_else(PoisonError::into_inner);
            pushers.remove(&peer)
        };
        for id in removed.map(|pusher| pusher.close()).unwrap_or_default() {
            if let Some(group) = self.known(id) {
                group.view.unsubscribe(peer, u64::MAX);
                self.forget_idle(group);
            }
        }
    }

    /// The node has stopped: nobody follows here any more.
    pub(crate) fn end_subscriptions(&self) {
        let peers: Vec<NodeId> = {
            let pushers = self.pushers.lock().unwrap_or_else(PoisonError::into_inner);
            pushers.keys().copied().collect()
        };
        peers
            .into_iter()
            .for_each(|peer| self.drop_subscriptions(peer));
    }

    /// This voter lost its majority: whoever follows here must follow elsewhere.
    pub(super) fn orphan_subscribers(self: &Arc<Self>) {
        let peers: Vec<NodeId> = {
            let pushers = self.pushers.lock().unwrap_or_else(PoisonError::into_inner);
            pushers.keys().copied().collect()
        };
        for peer in peers {
            self.drop_subscriptions(peer);
            let this = self.clone();
            self.peers()
                .spawn(Box::pin(async move { this.tell_orphan(peer).await }));
        }
    }

    /// Until the peer knows, it waits for what nobody sends. One whose link drops notices by itself.
    async fn tell_orphan(self: &Arc<Self>, peer: NodeId) {
        let request = Request::of_many(Many::Orphaned).encode();
        while self.peers().is_linked(peer) {
            let call = self.peers().call(peer, request.clone());
            let told = timeout(Duration::from_millis(ORPHAN_MS), call).await;
            if let Ok(Ok(frame)) = told
                && Response::decode(&frame) == Ok(Response::Done)
            {
                return;
            }
            let pause = ORPHAN_PAUSE_MS + self.peers().jitter_ms(ORPHAN_PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// `voter` does not serve our subscriptions any more.
    pub(super) fn orphaned_by(self: &Arc<Self>, voter: NodeId) {
        self.for_all(|group| {
            if group.view.unfollow(voter) {
                if !self.peers().is_voter() {
                    group.view.go_offline();
                }
                self.join(group);
            }
        });
    }
}
