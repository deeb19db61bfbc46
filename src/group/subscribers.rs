//! Other nodes that follow groups at this one.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::id::NodeId;

use super::directory::{Directory, Group};
use super::push::Pusher;
use super::wire::{Body, Request, Response};

/// How long a peer may take to confirm that it is no longer served before it is told again, and the
/// pause before that, in milliseconds.
const ORPHAN_MS: u64 = 1_000;
const ORPHAN_PAUSE_MS: u64 = 200;

impl Directory {
    /// Registers `peer` for every commit of the group.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        peer: NodeId,
        number: u64,
        group: &Arc<Group>,
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
        group.view.subscribe(peer, number, pusher.clone());
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
        let request = Request::to_node(Body::Orphaned).encode();
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
