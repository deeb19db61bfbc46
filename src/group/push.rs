//! Telling one peer of every commit in the groups it subscribed to. What waits to be sent is a
//! set of groups, not a queue of messages: a slow peer gets fewer, newer updates.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::id::{GroupId, NodeId};

use super::directory::Directory;
use super::wire::{Body, Request, Response};

/// The most groups that one peer may be subscribed to.
pub(crate) const SUBSCRIPTIONS_PER_PEER_MAX: usize = 65_536;

/// How long a peer may take to confirm an update before it is sent again.
const UPDATE_MS: u64 = 1_000;

#[derive(Default)]
struct Queue {
    subscribed: BTreeSet<GroupId>,
    dirty: BTreeSet<GroupId>,
    closed: bool,
}

pub(crate) struct Pusher {
    pub(crate) peer: NodeId,
    queue: Mutex<Queue>,
    woken: Notify,
}

impl Pusher {
    pub(crate) fn new(peer: NodeId) -> Self {
        Self {
            peer,
            queue: Mutex::default(),
            woken: Notify::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if the peer has too many already.
    pub(crate) fn add(&self, group: GroupId) -> bool {
        let mut queue = self.queue();
        if queue.subscribed.len() >= SUBSCRIPTIONS_PER_PEER_MAX {
            return queue.subscribed.contains(&group);
        }
        queue.subscribed.insert(group);
        true
    }

    pub(crate) fn remove(&self, group: GroupId) {
        let mut queue = self.queue();
        queue.subscribed.remove(&group);
        queue.dirty.remove(&group);
    }

    /// There is something new in `group`.
    pub(crate) fn mark(&self, group: GroupId) {
        let mut queue = self.queue();
        if queue.subscribed.contains(&group) {
            queue.dirty.insert(group);
            self.woken.notify_one();
        }
    }

    /// Ends the task and returns what the peer was subscribed to.
    pub(crate) fn close(&self) -> BTreeSet<GroupId> {
        let mut queue = self.queue();
        queue.closed = true;
        self.woken.notify_one();
        queue.dirty.clear();
        std::mem::take(&mut queue.subscribed)
    }

    /// Sends until the pusher is closed or the node is gone.
    pub(crate) async fn run(self: Arc<Self>, directory: Weak<Directory>) {
        loop {
            let next = {
                let mut queue = self.queue();
                if queue.closed {
                    return;
                }
                queue.dirty.pop_first()
            };
            let Some(group) = next else {
                self.woken.notified().await;
                continue;
            };
            let Some(directory) = directory.upgrade() else {
                return;
            };
            let Some(view) = directory.view(group) else {
                continue;
            };
            let request = Request::new(group, Body::Update(view.state()));
            let call = directory.peers().call(self.peer, request.encode());
            let within = Duration::from_millis(UPDATE_MS);
            match timeout(within, call).await {
                Ok(Ok(frame)) if Response::decode(&frame) == Ok(Response::Done) => {}
                Ok(Ok(_)) => {
                    // The peer does not want it any more.
                    view.unsubscribe(self.peer);
                    self.remove(group);
                }
                Ok(Err(_)) | Err(_) => {
                    self.mark(group);
                    let pause = Duration::from_millis(20 + directory.peers().jitter_ms(30));
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
