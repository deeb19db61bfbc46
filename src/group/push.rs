//! Telling one peer of every commit in the groups it subscribed to. What waits to be sent is a
//! set of groups, not a queue of messages: a slow peer gets fewer, newer updates.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::codec::FRAME_BYTES_MAX;
use crate::id::{GroupId, NodeId};
use crate::metrics::Counts;

use super::directory::Directory;
use super::route::LINK_BYTES_PER_MS;
use super::view::View;
use super::wire::{Body, Request, Response};

/// The most bytes that may be on the way to all subscribers together; more waits. Small updates go
/// at once: there is one a peer.
const PUSHED_BYTES_MAX: usize = 256 * 1024 * 1024;
const PUSHED_FREE_BYTES: usize = 4 * 1024;

/// The same, as it is counted: the largest frame is a part of it.
pub(super) const PUSHED_KIB_MAX: usize = PUSHED_BYTES_MAX / 1024;
const _: () = assert!(PUSHED_BYTES_MAX >= FRAME_BYTES_MAX);

/// How long a peer may take to confirm an update before it is sent again.
const UPDATE_MS: u64 = 1_000;

#[derive(Default)]
struct Queue {
    /// With whether the peer has confirmed the record, which never changes.
    subscribed: BTreeMap<GroupId, bool>,
    dirty: BTreeSet<GroupId>,
    /// The group that was last sent: after it comes the next, so that one that cannot be
    /// confirmed does not hold up the others.
    last: Option<GroupId>,
    closed: bool,
}

pub(crate) struct Pusher {
    pub(crate) peer: NodeId,
    queue: Mutex<Queue>,
    woken: Notify,
    counts: Arc<Counts>,
}

impl Pusher {
    pub(crate) fn new(peer: NodeId, counts: Arc<Counts>) -> Self {
        Self {
            peer,
            queue: Mutex::default(),
            woken: Notify::new(),
            counts,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if the peer has `max` already.
    pub(crate) fn add(&self, group: GroupId, max: usize) -> bool {
        let mut queue = self.queue();
        if queue.closed {
            // Nobody would take it out any more.
            return true;
        }
        if queue.subscribed.len() >= max {
            return queue.subscribed.contains_key(&group);
        }
        if queue.subscribed.insert(group, false).is_none() {
            self.counts.subscriptions.add(1);
        }
        true
    }

    /// The peer does not follow the group any more, unless it has subscribed anew meanwhile.
    pub(crate) fn remove_from(&self, view: &View) {
        view.unless_subscribed(self.peer, || {
            let mut queue = self.queue();
            if queue.subscribed.remove(&view.group).is_some() {
                self.counts.subscriptions.sub(1);
            }
            queue.dirty.remove(&view.group);
        });
    }

    /// There is something new in `group`.
    pub(crate) fn mark(&self, group: GroupId) {
        let mut queue = self.queue();
        if queue.subscribed.contains_key(&group) {
            queue.dirty.insert(group);
            self.woken.notify_one();
        }
    }

    /// Ends the task and returns what the peer was subscribed to.
    pub(crate) fn close(&self) -> Vec<GroupId> {
        let mut queue = self.queue();
        queue.closed = true;
        self.woken.notify_one();
        queue.dirty.clear();
        self.counts.subscriptions.sub(queue.subscribed.len());
        std::mem::take(&mut queue.subscribed).into_keys().collect()
    }

    /// The next group to send, and whether the peer has its record already.
    fn next(queue: &mut Queue) -> Option<(GroupId, bool)> {
        let after = queue.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = queue.dirty.range((after, Bound::Unbounded)).next();
        let next = *next.or_else(|| queue.dirty.first())?;
        queue.dirty.remove(&next);
        queue.last = Some(next);
        Some((next, queue.subscribed.get(&next).copied()?))
    }

    fn confirmed(&self, group: GroupId) {
        if let Some(has_record) = self.queue().subscribed.get_mut(&group) {
            *has_record = true;
        }
    }

    /// Sends until the pusher is closed or the node is gone.
    pub(crate) async fn run(self: Arc<Self>, directory: Weak<Directory>) {
        loop {
            let next = {
                let mut queue = self.queue();
                if queue.closed {
                    return;
                }
                Self::next(&mut queue)
            };
            let Some((group, has_record)) = next else {
                self.woken.notified().await;
                continue;
            };
            let Some(directory) = directory.upgrade() else {
                return;
            };
            let Some(known) = directory.known(group) else {
                continue;
            };
            let view = known.view.clone();
            let Some(number) = view.subscription(self.peer) else {
                self.remove_from(&view);
                directory.forget_idle(known);
                continue;
            };
            let mut state = view.state();
            let has_decided = state.record.is_some();
            if has_record {
                state.record = None;
            }
            // Taken before the value is copied into a frame.
            let bytes = (state.record.as_ref()).map_or(0, |record| record.proposal.value.len());
            let _room = match u32::try_from(bytes.div_ceil(1024)) {
                Ok(kib) if bytes > PUSHED_FREE_BYTES => {
                    // Never closed.
                    directory.pushed.clone().acquire_many_owned(kib).await.ok()
                }
                _ => None,
            };
            let frame = Request::new(group, Body::Update(state)).encode();
            let within_ms = UPDATE_MS + frame.len() as u64 / LINK_BYTES_PER_MS;
            let call = directory.peers().call(self.peer, frame);
            let within = Duration::from_millis(within_ms);
            match timeout(within, call).await {
                Ok(Ok(frame)) if Response::decode(&frame) == Ok(Response::Done) => {
                    self.counts.updates_pushed.one();
                    if has_decided {
                        self.confirmed(group);
                    }
                }
                Ok(Ok(_)) => {
                    // The peer does not want it any more.
                    if view.unsubscribe(self.peer, number) {
                        self.remove_from(&view);
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    self.mark(group);
                    let pause = Duration::from_millis(20 + directory.peers().jitter_ms(30));
                    tokio::time::sleep(pause).await;
                }
            }
            directory.forget_idle(known);
        }
    }
}
