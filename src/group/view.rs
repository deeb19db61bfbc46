//! What this node knows of a group, shared by all its handles. It only ever grows: a record is
//! final, a version never runs backwards.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::id::{GroupId, NodeId, Version};
use crate::machine::{Record, Slot};
use crate::probe::{Bug, planted};
use crate::transport::Taken;

use super::following::Following;
use super::push::Pusher;
use super::scope::{Scope, Wants};
use super::wire::State;

/// Someone who wants the decided record the moment this node knows it.
pub(crate) trait Sink: Send + Sync {
    /// Called once, before anybody waiting for the version is woken.
    fn decided(&self, record: &Arc<Record>);
}

pub(crate) struct View {
    pub(crate) group: GroupId,
    record: OnceLock<Arc<Record>>,
    inner: Mutex<Inner>,
    version: watch::Sender<Version>,
    online: watch::Sender<bool>,
    down: CancellationToken,
}

#[derive(Default)]
pub(super) struct Inner {
    sinks: Vec<Weak<dyn Sink>>,
    /// Handles of this node's program that are open.
    interest: usize,
    /// Counts up whenever the node loses touch, so that a barrier passed before does not count.
    losses: u64,
    /// A voter was lost that may have committed something and told others alone.
    in_doubt: bool,
    /// A task is under way that brings the view online.
    joining: bool,
    /// Peers to tell of every commit.
    subscribers: BTreeMap<NodeId, Subscription>,
    /// Voters this node is subscribed at.
    pub(super) following: BTreeMap<NodeId, Following>,
    /// What this node's program waits for.
    pub(super) wants: Wants,
    /// Those who are told of some slots only were told of all that was decided up to here.
    told: Version,
}

/// What is known of the decisions up to a version that a view takes in.
enum News<'a> {
    /// Any slot may have been decided.
    Unknown,
    /// All before are known, and behind them these were decided.
    Applied(&'a [Slot]),
    /// Whoever decided anything will tell.
    OfOthers,
}

struct Subscription {
    number: u64,
    scope: Scope,
    /// What the scope takes.
    _room: Option<Taken>,
    pusher: Arc<Pusher>,
    /// The peer was told that it is served.
    answered: bool,
}

impl Inner {
    pub(super) fn is_idle(&self) -> bool {
        self.interest == 0 && self.subscribers.is_empty()
    }
}

impl View {
    pub(crate) fn new(group: GroupId, down: CancellationToken) -> Self {
        Self {
            group,
            record: OnceLock::new(),
            inner: Mutex::default(),
            version: watch::Sender::new(Version::ZERO),
            online: watch::Sender::new(false),
            down,
        }
    }

    /// No code that can panic runs under this lock, and every change under it is whole.
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self) -> Option<&Arc<Record>> {
        self.record.get()
    }

    /// Never older than the record that is known: who has just been handed it, before anybody who
    /// waits for a version is woken, is not told an older one.
    pub(crate) fn version(&self) -> Version {
        let told = *self.version.borrow();
        let decided = self.record.get().map(|record| record.version);
        told.max(decided.unwrap_or(Version::ZERO))
    }

    pub(crate) fn versions(&self) -> watch::Receiver<Version> {
        self.version.subscribe()
    }

    pub(crate) fn online(&self) -> watch::Receiver<bool> {
        self.online.subscribe()
    }

    pub(crate) fn is_online(&self) -> bool {
        *self.online.borrow()
    }

    /// Fires when the node is shut down.
    pub(crate) fn down(&self) -> &CancellationToken {
        &self.down
    }

    pub(crate) fn state(&self) -> State {
        // The version first: a record that arrives in between is newer than it, never older.
        let version = self.version();
        State {
            version,
            record: self.record.get().cloned(),
        }
    }

    /// Takes in something committed.
    ///
    /// # Panics
    ///
    /// If it contradicts the record already known: agreement (P1) is broken, and going on would
    /// hide it.
    pub(crate) fn observe(&self, version: Version, record: Option<&Arc<Record>>) {
        self.take_in(version, record, News::Unknown);
    }

    /// The same on a voter that has applied it, after all that was before: it has decided these
    /// slots.
    pub(crate) fn observe_applied(
        &self,
        version: Version,
        record: Option<&Arc<Record>>,
        slots: &[Slot],
    ) {
        self.take_in(version, record, News::Applied(slots));
    }

    /// This node's program has seen a map at this version. On a voter what was decided until then
    /// may have yet to be applied, or to be heard of otherwise: only then those who follow some
    /// slots are told.
    pub(crate) fn observe_here(&self, version: Version) {
        self.take_in(version, None, News::OfOthers);
    }

    fn take_in(&self, version: Version, record: Option<&Arc<Record>>, news: News<'_>) {
        let version = version.max(record.map_or(Version::ZERO, |record| record.version));
        if let Some(record) = record {
            let known = self.record.get_or_init(|| record.clone());
            assert!(
                known.proposal.id == record.proposal.id && known.version == record.version,
                "agreement broken in group {}: {known:?} and {record:?}",
                self.group
            );
            // Sinks drain under the lock, so that one added meanwhile sees the record itself.
            let sinks = std::mem::take(&mut self.inner().sinks);
            for sink in sinks.iter().filter_map(Weak::upgrade) {
                sink.decided(record);
            }
        }
        let grown = self.version.send_if_modified(|known| {
            let grows = *known < version;
            *known = match planted(Bug::VersionRunsBack) {
                true => version,
                false => version.max(*known),
            };
            grows
        });
        if planted(Bug::FollowersNotTold) {
            return;
        }
        let mut inner = self.inner();
        let is_news = match news {
            News::Unknown => inner.told < version,
            News::Applied(_) => true,
            News::OfOthers => false,
        };
        if is_news {
            inner.told = version.max(inner.told);
        }
        // Who is not answered yet will be, with what stands then.
        for subscription in inner.subscribers.values().filter(|known| known.answered) {
            let is_told = match (&subscription.scope, &news) {
                (Scope::All, _) => grown,
                (scope, News::Applied(slots)) => scope.touches(slots),
                (Scope::Slots(_), _) => is_news,
            };
            if is_told {
                subscription.pusher.mark(self.group);
            }
        }
    }

    /// Hands the record to `sink` now or when it is known.
    pub(crate) fn attach(&self, sink: &Arc<dyn Sink>) {
        {
            let mut inner = self.inner();
            if self.record.get().is_none() {
                inner.sinks.retain(|sink| sink.strong_count() > 0);
                inner.sinks.push(Arc::downgrade(sink));
                return;
            }
        }
        if let Some(record) = self.record.get() {
            sink.decided(record);
        }
    }

    pub(crate) fn add_interest(&self) {
        self.inner().interest += 1;
    }

    /// Returns true when nobody is interested any more.
    pub(crate) fn drop_interest(&self) -> bool {
        let mut inner = self.inner();
        inner.interest = inner.interest.saturating_sub(1);
        inner.interest == 0
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.inner().interest > 0
    }

    /// Nobody on or off this node needs the view: it may be forgotten.
    pub(crate) fn is_idle(&self) -> bool {
        self.inner().is_idle()
    }

    /// True if the caller is to bring the view online: it is wanted, offline, and no one else is
    /// at it. The number goes to [`View::finish_joining`].
    pub(crate) fn start_joining(&self) -> Option<u64> {
        let mut inner = self.inner();
        if inner.joining || inner.interest == 0 || *self.online.borrow() {
            return None;
        }
        inner.joining = true;
        Some(inner.losses)
    }

    /// The barrier was passed; the view is online unless touch was lost meanwhile (`false`).
    pub(crate) fn finish_joining(&self, losses: u64) -> bool {
        let mut inner = self.inner();
        inner.joining = false;
        if inner.losses != losses {
            return false;
        }
        self.online.send_replace(true);
        true
    }

    pub(crate) fn give_up_joining(&self) {
        self.inner().joining = false;
    }

    /// The node lost touch with a majority (an observer: with the voter it follows), or nobody
    /// here wants the view any more. Returns the voters that were followed.
    pub(crate) fn go_offline(&self) -> BTreeMap<NodeId, u64> {
        let mut inner = self.inner();
        inner.losses += 1;
        self.online
            .send_if_modified(|online| std::mem::replace(online, false));
        let following = std::mem::take(&mut inner.following);
        let numbers = following.into_iter();
        numbers
            .map(|(voter, known)| (voter, known.number))
            .collect()
    }

    /// A voter was lost that may have committed something and told others alone. What is decided
    /// cannot change, and nobody waits for it.
    pub(crate) fn doubt(&self) {
        if self.record.get().is_none() {
            self.inner().in_doubt = true;
        }
    }

    pub(crate) fn is_in_doubt(&self) -> bool {
        self.inner().in_doubt
    }

    /// True if there is doubt, which the caller is to end.
    pub(crate) fn take_doubt(&self) -> bool {
        std::mem::take(&mut self.inner().in_doubt)
    }

    /// What a replica read from the disk when it woke.
    pub(crate) fn catch_up(&self, state: &State) {
        self.observe(state.version, state.record.as_ref());
    }

    /// Tells `peer` of commits from now on, unless a newer subscription of it does.
    pub(crate) fn subscribe(
        &self,
        peer: NodeId,
        number: u64,
        pusher: Arc<Pusher>,
        (scope, room): (Scope, Option<Taken>),
    ) {
        let mut inner = self.inner();
        let known = inner.subscribers.get(&peer);
        if known.is_some_and(|known| known.number > number) {
            return;
        }
        // A request that arrives twice.
        let answered = known.is_some_and(|known| known.number == number && known.answered);
        let subscription = Subscription {
            number,
            scope,
            _room: room,
            pusher,
            answered,
        };
        inner.subscribers.insert(peer, subscription);
    }

    /// Puts another scope in the place of a subscription's that stands, unless a newer one did.
    /// False if there is none: `peer` is told nothing.
    pub(crate) fn rescope_of(
        &self,
        peer: NodeId,
        number: u64,
        (scope, room): (Scope, Option<Taken>),
    ) -> bool {
        let mut inner = self.inner();
        let known = inner.subscribers.get_mut(&peer);
        let Some(known) = known.filter(|known| known.answered) else {
            return false;
        };
        if number > known.number {
            known.number = number;
            known.scope = scope;
            known._room = room;
        }
        true
    }

    /// `peer` is about to be told that subscription `number` stands; whether it, or a newer one,
    /// still does. What is read after this is to be told, what comes later is pushed.
    pub(crate) fn answer_subscription(&self, peer: NodeId, number: u64, with_record: bool) -> bool {
        let mut inner = self.inner();
        let known = inner.subscribers.get_mut(&peer);
        known.is_some_and(|known| {
            if known.number == number {
                known.answered = true;
                if with_record {
                    known.pusher.confirmed(self.group);
                }
            }
            known.number >= number
        })
    }

    /// There is something that `peer` was not told.
    pub(crate) fn push_to(&self, peer: NodeId) {
        if let Some(subscription) = self.inner().subscribers.get(&peer) {
            subscription.pusher.mark(self.group);
        }
    }

    /// Ends the subscription of `peer`, unless it is newer than `number`. Whether it is ended.
    pub(crate) fn unsubscribe(&self, peer: NodeId, number: u64) -> bool {
        self.unsubscribe_if(peer, |known| known.number <= number)
    }

    /// The same, unless the peer was told that it is served: the same request may have arrived
    /// twice, and been answered well once.
    pub(crate) fn give_up_subscription(&self, peer: NodeId, number: u64) -> bool {
        self.unsubscribe_if(peer, |known| known.number <= number && !known.answered)
    }

    fn unsubscribe_if(&self, peer: NodeId, may: impl FnOnce(&Subscription) -> bool) -> bool {
        let mut inner = self.inner();
        let ends = inner.subscribers.get(&peer).is_none_or(may);
        if ends {
            inner.subscribers.remove(&peer);
        }
        ends
    }

    /// Does something if `peer` has no subscription, and before it gets one.
    pub(crate) fn unless_subscribed(&self, peer: NodeId, act: impl FnOnce()) {
        let inner = self.inner();
        if !inner.subscribers.contains_key(&peer) {
            act();
        }
    }

    /// Which subscription of `peer` is in force.
    pub(crate) fn subscription(&self, peer: NodeId) -> Option<u64> {
        let inner = self.inner();
        inner.subscribers.get(&peer).map(|known| known.number)
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("group", &self.group)
            .field("version", &self.version())
            .field("decided", &self.record.get().is_some())
            .field("online", &self.is_online())
            .finish()
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
