//! Telling one peer of every commit in the groups it subscribed to. What waits to be sent is a
//! set of groups, not a queue of messages: a slow peer gets fewer, newer updates. One frame at a time
//! is on its way, about as many groups as fit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::codec::FRAME_BYTES_MAX;
use crate::id::{GroupId, NodeId};
use crate::metrics::Counts;

use super::directory::{Directory, Group};
use super::route::LINK_BYTES_PER_MS;
use super::view::View;
use super::wire::{Batch, GROUPS_A_FRAME, Many, RECORD_BYTES_A_FRAME, Request, Response, State};

/// The most bytes of records that may be on the way to all subscribers together; more waits. A
/// frame with few of them goes at once: there is one a peer.
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

    /// The next group to send.
    fn next(queue: &mut Queue) -> Option<GroupId> {
        let after = queue.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = queue.dirty.range((after, Bound::Unbounded)).next();
        let next = *next.or_else(|| queue.dirty.first())?;
        queue.dirty.remove(&next);
        queue.last = Some(next);
        Some(next)
    }

    /// The peer has the record, or is about to be answered with it.
    pub(crate) fn confirmed(&self, group: GroupId) {
        if let Some(has_record) = self.queue().subscribed.get_mut(&group) {
            *has_record = true;
        }
    }

    /// Sends until the pusher is closed or the node is gone.
    pub(crate) async fn run(self: Arc<Self>, directory: Weak<Directory>) {
        // One that did not fit into the last frame.
        let mut held_over = None;
        loop {
            if self.queue().closed {
                return;
            }
            let Some(directory) = directory.upgrade() else {
                return;
            };
            let updates = self.collect(&directory, &mut held_over);
            if updates.is_empty() {
                drop(directory);
                self.woken.notified().await;
                continue;
            }
            let bytes = updates.iter().map(Update::record_bytes).sum::<usize>();
            // Taken before the values are copied into a frame.
            let _room = match u32::try_from(bytes.div_ceil(1024)) {
                Ok(kib) if bytes > PUSHED_FREE_BYTES => {
                    // Never closed.
                    directory.pushed.clone().acquire_many_owned(kib).await.ok()
                }
                _ => None,
            };
            let states = updates.iter().map(|it| (it.group.id(), it.state.clone()));
            let frame = Request::of_many(Many::Update(Batch::new(states.collect()))).encode();
            let within_ms = UPDATE_MS + frame.len() as u64 / LINK_BYTES_PER_MS;
            let call = directory.peers().call(self.peer, frame);
            match timeout(Duration::from_millis(within_ms), call).await {
                Ok(Ok(frame)) => {
                    let wanted = match Response::decode(&frame) {
                        Ok(Response::Wanted(wanted)) => wanted.into_vec(),
                        // Whatever it says, it does not listen.
                        _ => Vec::new(),
                    };
                    let wanted = wanted.into_iter().chain(std::iter::repeat(false));
                    for (update, is_wanted) in updates.iter().zip(wanted) {
                        self.answered(update, is_wanted);
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    updates.iter().for_each(|it| self.mark(it.group.id()));
                    let pause = Duration::from_millis(20 + directory.peers().jitter_ms(30));
                    tokio::time::sleep(pause).await;
                }
            }
            for update in updates {
                directory.forget_idle(update.group);
            }
        }
    }

    /// What goes into the next frame: all that is new, as far as it fits. A large record goes alone.
    fn collect(&self, directory: &Directory, held_over: &mut Option<GroupId>) -> Vec<Update> {
        let mut updates: Vec<Update> = Vec::new();
        let mut bytes = 0;
        while updates.len() < GROUPS_A_FRAME {
            let next = {
                let mut queue = self.queue();
                let held_over = held_over.take();
                let next = held_over.or_else(|| Self::next(&mut queue));
                next.map(|group| (group, queue.subscribed.get(&group).copied()))
            };
            let Some((id, has_record)) = next else {
                break;
            };
            let (Some(has_record), Some(group)) = (has_record, directory.known(id)) else {
                continue;
            };
            let Some(number) = group.view.subscription(self.peer) else {
                self.remove_from(&group.view);
                directory.forget_idle(group);
                continue;
            };
            let mut state = group.view.state();
            let has_decided = state.record.is_some();
            if has_record {
                state.record = None;
            }
            let update = Update {
                group,
                number,
                state,
                has_decided,
            };
            bytes += update.record_bytes();
            if bytes > RECORD_BYTES_A_FRAME && !updates.is_empty() {
                *held_over = Some(id);
                break;
            }
            updates.push(update);
        }
        updates
    }

    fn answered(&self, update: &Update, is_wanted: bool) {
        let view = &update.group.view;
        if is_wanted {
            self.counts.updates_pushed.one();
            if update.has_decided {
                self.confirmed(view.group);
            }
        } else if view.unsubscribe(self.peer, update.number) {
            // The peer does not want it any more.
            self.remove_from(view);
        }
    }
}

/// What one group is to be told.
struct Update {
    group: Arc<Group>,
    /// Of the subscription.
    number: u64,
    state: State,
    /// There is a record, told before or now.
    has_decided: bool,
}

impl Update {
    fn record_bytes(&self) -> usize {
        let record = self.state.record.as_ref();
        record.map_or(0, |record| record.proposal.value.len())
    }
}
