//! All groups that this node has to do with: those its program has handles on, those other nodes
//! follow here, and, on a voter, those whose replica is awake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::id::{GroupId, NodeId};
use crate::limits::Limits;
use crate::metrics::Counts;
use crate::store::Store;
use crate::transport::Pool;

use super::Peers;
use super::berth::Berth;
use super::berths::Berths;
use super::births::Births;
use super::census::Census;
use super::join::Joins;
use super::push::{PUSHED_KIB_MAX, Pusher};
use super::replica::Replica;
use super::subscribers::SCOPES_BYTES_MAX;
use super::trouble::Trouble;
use super::view::View;
use super::visit::PROPOSED_BYTES_MAX;

/// How many groups at a time are helped after a link came up or went down, or put to sleep.
pub(super) const GROUPS_AT_ONCE: usize = 16;

/// How many replicas hand their leadership over at once when the node stops, and how long all
/// together may take for it.
const HANDOVERS_AT_ONCE: usize = 64;
const HANDOVERS_MS: u64 = 1_000;

/// How long all replicas together may take to stop.
const STOP_MS: u64 = 3_000;

pub(crate) struct Group {
    pub(crate) view: Arc<View>,
    pub(super) berth: Berth,
    /// For while no replica is awake.
    last_known: Mutex<LastKnown>,
    /// It came to be known here by another node, and counts as such.
    pub(super) of_others: bool,
    pub(super) trouble: Trouble,
}

/// Who committed something last or led when the replica fell asleep, and the term if that is known.
#[derive(Clone, Copy, Default)]
struct LastKnown {
    leader: Option<NodeId>,
    term: u64,
}

impl Group {
    pub(super) fn id(&self) -> GroupId {
        self.view.group
    }

    /// The replica, if it is awake. It is not put to sleep before the caller drops it.
    pub(super) fn awake(&self) -> Option<Arc<Replica>> {
        self.berth.awake()
    }

    fn last_known(&self) -> MutexGuard<'_, LastKnown> {
        let known = self.last_known.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let known = self.last_known().leader;
        self.awake().and_then(|replica| replica.leader()).or(known)
    }

    pub(super) fn set_leader(&self, leader: NodeId) {
        let mut known = self.last_known();
        if known.leader != Some(leader) {
            *known = LastKnown {
                leader: Some(leader),
                term: 0,
            };
        }
    }

    /// What the replica knew when it fell asleep.
    pub(super) fn remember(&self, term: u64, leader: Option<NodeId>) {
        *self.last_known() = LastKnown { leader, term };
    }
}

/// What a person may want to know of one group on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupStatus {
    pub(crate) group: GroupId,
    pub(crate) version: crate::id::Version,
    pub(crate) decided: bool,
    pub(crate) online: bool,
    pub(crate) awake: bool,
    pub(crate) leader: Option<NodeId>,
    pub(crate) term: u64,
    pub(crate) trouble: Option<String>,
}

pub(crate) struct Directory {
    peers: Arc<dyn Peers>,
    /// A voter's; an observer keeps nothing.
    store: Option<Store>,
    down: CancellationToken,
    groups: Mutex<BTreeMap<GroupId, Arc<Group>>>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) limits: Limits,
    pub(super) census: Arc<Census>,
    pub(super) births: Births,
    pub(super) vigils: super::tasks::Vigils,
    /// Values that others have proposed here.
    pub(crate) proposed: Arc<Pool>,
    /// What is on the way to subscribers.
    pub(super) pushed: Arc<Semaphore>,
    /// What subscribers want to be told.
    pub(super) scopes: Arc<Pool>,
    pub(super) pushers: Mutex<BTreeMap<NodeId, Arc<Pusher>>>,
    /// Whether the node was in touch when links last changed.
    in_touch: Mutex<bool>,
    /// Held while a replica is woken or put to sleep; `true` once the node stops, and then none is
    /// any more.
    pub(super) closing: tokio::sync::RwLock<bool>,
    /// Told when the node begins to stop: whoever may hold `closing` for long lets go of it.
    pub(super) stopping: CancellationToken,
    pub(super) berths: Berths,
    /// Those that this voter led when they were put to sleep in order, and that were forgotten
    /// since: nothing of them has run in between. Changes under the lock of `groups`.
    pub(super) led: Mutex<BTreeSet<GroupId>>,
    /// Tails of idle replicas that are being settled.
    pub(super) settling: Arc<Semaphore>,
    /// Voters that are helped to catch up, and whether their links came up once more meanwhile.
    pub(super) helped: Mutex<BTreeMap<NodeId, bool>>,
    subscriptions: AtomicU64,
    pub(super) joins: Joins,
    /// How often a link to another voter came up.
    links_up: AtomicU64,
    /// How often a link to a voter came up, on any node.
    pub(super) reachable: watch::Sender<u64>,
    /// What openraft's tasks report to.
    pub(super) quiet: tracing::Dispatch,
}

/// A handle's claim on a group: while one is held, the node follows the group.
pub(crate) struct Interest {
    directory: Weak<Directory>,
    /// Always there; taken by `drop`.
    group: Option<Arc<Group>>,
}

impl Interest {
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.group().view
    }

    pub(crate) fn group(&self) -> &Arc<Group> {
        self.group.as_ref().expect("taken by drop alone")
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        if let Some(group) = self.group.take()
            && group.view.drop_interest()
            && let Some(directory) = self.directory.upgrade()
        {
            directory.leave(group);
        }
    }
}

impl Directory {
    pub(crate) fn new(
        peers: Arc<dyn Peers>,
        store: Option<Store>,
        down: CancellationToken,
        census: Census,
        limits: Limits,
    ) -> Arc<Self> {
        let counts = census.counts().clone();
        let in_touch = Mutex::new(peers.in_touch());
        Arc::new(Self {
            peers,
            store,
            down,
            groups: Mutex::default(),
            proposed: Pool::new(PROPOSED_BYTES_MAX),
            pushed: Arc::new(Semaphore::new(PUSHED_KIB_MAX)),
            scopes: Pool::new(SCOPES_BYTES_MAX),
            pushers: Mutex::default(),
            in_touch,
            closing: tokio::sync::RwLock::default(),
            stopping: CancellationToken::new(),
            berths: Berths::new(limits.awake_groups_max, counts.clone()),
            counts,
            limits,
            census: Arc::new(census),
            births: Births::default(),
            vigils: Default::default(),
            led: Mutex::default(),
            settling: Arc::new(Semaphore::new(GROUPS_AT_ONCE)),
            helped: Mutex::default(),
            subscriptions: AtomicU64::new(0),
            joins: Joins::default(),
            links_up: AtomicU64::new(0),
            reachable: watch::Sender::new(0),
            quiet: super::runtime::quiet(),
        })
    }

    pub(crate) fn peers(&self) -> &Arc<dyn Peers> {
        &self.peers
    }

    pub(super) fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes through all groups. They are held meanwhile, so whoever lets go of one then is not the
    /// last to do so, and does not forget it.
    pub(super) fn for_all(&self, look: impl FnMut(&Arc<Group>)) {
        let all: Vec<_> = self.groups().values().cloned().collect();
        all.iter().for_each(look);
        drop(all);
        self.forget_all_idle();
    }

    pub(super) fn group(&self, id: GroupId) -> Arc<Group> {
        let mut groups = self.groups();
        let group = groups.entry(id);
        group.or_insert_with(|| self.new_group(id, false)).clone()
    }

    /// The same on behalf of another node; `None` if it is not known and there are `max` of those.
    /// Their number changes under the lock of `groups`.
    pub(super) fn group_of_others(&self, id: GroupId, max: usize) -> Option<Arc<Group>> {
        let mut groups = self.groups();
        if let Some(known) = groups.get(&id) {
            return Some(known.clone());
        }
        if self.counts.groups_of_others.get() >= max as u64 {
            return None;
        }
        self.counts.groups_of_others.add(1);
        let group = self.new_group(id, true);
        groups.insert(id, group.clone());
        Some(group)
    }

    fn new_group(&self, id: GroupId, of_others: bool) -> Arc<Group> {
        let led = self.led().remove(&id);
        Arc::new(Group {
            view: Arc::new(View::new(id, self.down.clone())),
            berth: Berth::new(led),
            last_known: Mutex::default(),
            of_others,
            trouble: Trouble::default(),
        })
    }

    /// A group that this node has to do with already.
    pub(super) fn known(&self, id: GroupId) -> Option<Arc<Group>> {
        self.groups().get(&id).cloned()
    }

    /// Follows a group from now on, until the interest is dropped.
    pub(crate) fn open(self: &Arc<Self>, id: GroupId) -> Interest {
        let group = self.group(id);
        group.view.add_interest();
        self.join(&group);
        Interest {
            directory: Arc::downgrade(self),
            group: Some(group),
        }
    }

    /// The last handle on the group is gone.
    fn leave(self: &Arc<Self>, group: Arc<Group>) {
        for (voter, number) in group.view.go_offline() {
            self.leave_at(voter, group.id(), number);
        }
        if group.view.is_wanted() {
            // Another handle was opened meanwhile.
            self.join(&group);
        } else {
            self.forget_idle(group);
        }
    }

    /// More is waiting for this voter's disk than it should be asked to take.
    pub(super) fn is_overloaded(&self) -> bool {
        let queued = self.store.as_ref().map_or(0, Store::queued_bytes);
        queued > self.limits.disk_queue_bytes_max
    }

    /// A number for a new subscription at another voter, greater than all before.
    pub(super) fn subscription_number(&self) -> u64 {
        self.subscriptions.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn links_up(&self) -> u64 {
        self.links_up.load(Ordering::SeqCst)
    }

    /// The store, if this node may vote.
    pub(super) fn store(&self) -> Result<&Store, String> {
        let Some(store) = &self.store else {
            return Err("this node is no voter".into());
        };
        if self.down.is_cancelled() {
            return Err("this node is shutting down".into());
        }
        if !self.peers.may_vote() {
            return Err(
                "this voter starts with an empty disk and waits until every other voter \
                 has confirmed that it never knew another one of this name"
                    .into(),
            );
        }
        Ok(store)
    }

    // -- links -------------------------------------------------------------------------------

    /// A link to `node` is up: call after [`Peers::is_linked`] says so.
    pub(crate) fn link_up(self: &Arc<Self>, node: NodeId) {
        let is_voter = self.peers.voters().contains(&node);
        if is_voter {
            self.reachable.send_modify(|times| *times += 1);
        }
        if self.peers.is_voter() && is_voter {
            // Counted first: an instance that is not in its berth yet sees that it missed one.
            self.links_up.fetch_add(1, Ordering::SeqCst);
            self.for_awake(move |_, replica| async move { replica.linked(node).await });
            self.help(node);
        }
        self.touch_changed();
    }

    /// The link to `node` is gone: call after [`Peers::is_linked`] says so.
    pub(crate) fn link_down(self: &Arc<Self>, node: NodeId) {
        self.drop_subscriptions(node);
        if !self.peers.voters().contains(&node) {
            return self.births.forget(node);
        }
        if self.peers.is_voter() {
            self.settle_left_by(node);
        }
        self.for_all(|group| {
            let followed = group.view.unfollow(node);
            if self.peers.is_voter() {
                group.view.doubt();
            } else if followed {
                group.view.go_offline();
            }
        });
        self.touch_changed();
    }

    /// Whether this node may vote has changed.
    pub(crate) fn qualification_changed(self: &Arc<Self>) {
        self.touch_changed();
    }

    fn touch_changed(self: &Arc<Self>) {
        let (was, is) = {
            let mut in_touch = self.in_touch.lock().unwrap_or_else(PoisonError::into_inner);
            let is = self.peers.in_touch();
            (std::mem::replace(&mut *in_touch, is), is)
        };
        if was && !is {
            self.orphan_subscribers();
            self.for_all(|group| {
                group.view.go_offline();
            });
        }
        if is {
            self.for_all(|group| self.join(group));
        }
    }

    /// Does something for every awake replica, a bounded number at a time.
    pub(super) fn for_awake<F, Fut>(self: &Arc<Self>, help: F)
    where
        F: Fn(Arc<Self>, Arc<Replica>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let awake = self.berths.awake();
        if awake.is_empty() {
            return;
        }
        let this = self.clone();
        self.peers.spawn(Box::pin(async move {
            use futures::StreamExt;
            futures::stream::iter(awake)
                .for_each_concurrent(GROUPS_AT_ONCE, |replica| help(this.clone(), replica))
                .await;
        }));
    }

    // -- the end -------------------------------------------------------------------------------

    /// Hands leadership over and stops all replicas. The store is flushed and closed by its owner.
    pub(crate) async fn stop(self: &Arc<Self>) {
        use futures::StreamExt;
        // Whoever is waking a replica or putting one to sleep finishes first or gives it up, and
        // nobody begins after.
        self.stopping.cancel();
        *self.closing.write().await = true;
        let awake = self.berths.awake();
        let handed_over = futures::stream::iter(&awake).for_each_concurrent(
            HANDOVERS_AT_ONCE,
            |replica| async move {
                if let Some(successor) = self.peers.linked_voters().first() {
                    replica.hand_over(*successor).await;
                }
            },
        );
        // A leadership that is not handed over in time is taken when it is needed.
        let _ = tokio::time::timeout(Duration::from_millis(HANDOVERS_MS), handed_over).await;
        futures::stream::iter(awake)
            .for_each_concurrent(GROUPS_AT_ONCE, |replica| async move {
                replica.stop().await;
            })
            .await;
        // Those that were given up half way, too.
        let gone = async {
            for group in self.berths.all() {
                let past = group.berth.changing.lock().await;
                if let Some(end) = past.end() {
                    end.reached().await;
                }
                self.berths.free(group.id());
            }
        };
        if tokio::time::timeout(Duration::from_millis(STOP_MS), gone)
            .await
            .is_err()
        {
            tracing::warn!("some replicas did not stop within {STOP_MS} ms");
        }
    }

    /// What is known of every group in use here, in order of group id.
    pub(crate) fn status(&self) -> Vec<GroupStatus> {
        let mut status = Vec::new();
        self.for_all(|group| {
            let awake = group.awake();
            let (term, leader) = match &awake {
                Some(replica) => replica.term(),
                None => {
                    let known = *group.last_known();
                    (known.term, known.leader)
                }
            };
            status.push(GroupStatus {
                group: group.id(),
                version: group.view.version(),
                decided: group.view.record().is_some(),
                online: group.view.is_online(),
                awake: awake.is_some(),
                leader,
                term,
                trouble: group.trouble.said(),
            });
        });
        status
    }
}
