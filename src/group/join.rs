//! Bringing groups online, and following them for as long as somebody here wants that: one task a
//! node, whatever their number. It exists while there is something to do.
//!
//! What is there is asked for at once, and what comes meanwhile goes into the next frame.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::id::{GroupId, NodeId};

use super::ATTEMPT;
use super::barrier::Passed;
use super::directory::{Directory, GROUPS_AT_ONCE, Group};
use super::follow::{Followed, mend};
use super::wire::{Batch, GROUPS_A_FRAME, Many, Request};

/// How many frames about many groups, and how many about one that takes more, may be on their way
/// to one voter at once.
const FRAMES_AT_ONCE: usize = 4;
const ALONE_AT_ONCE: usize = GROUPS_AT_ONCE;

/// How long one try to bring groups online may take.
const JOIN_MS: u64 = 5_000;

/// The pauses between two tries of a group, in milliseconds: doubled from the first up to the
/// second.
const JOIN_PAUSE_MS: u64 = 10;
const JOIN_PAUSE_MAX_MS: u64 = 500;

/// The pause before a voter tries again to follow around a gap, or to end a doubt.
const MEND_PAUSE_MS: u64 = 100;

/// What the task is to do.
#[derive(Default)]
pub(super) struct Joins {
    queue: Mutex<Queue>,
    woken: Notify,
}

#[derive(Default)]
struct Queue {
    is_worked: bool,
    /// To be brought online.
    opened: BTreeMap<GroupId, Arc<Group>>,
    /// On a voter: to be followed around gaps, or in doubt.
    shaken: BTreeMap<GroupId, Arc<Group>>,
    /// The same, after a pause.
    failed: BTreeMap<GroupId, Arc<Group>>,
    /// To be told of something else, by each of these voters.
    rescoped: BTreeMap<(NodeId, GroupId), Arc<Group>>,
    /// Subscriptions to end.
    left: BTreeMap<NodeId, BTreeMap<GroupId, u64>>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.opened.is_empty()
            && self.shaken.is_empty()
            && self.failed.is_empty()
            && self.rescoped.is_empty()
            && self.left.is_empty()
    }
}

impl Joins {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    /// Brings a group that a handle wants online, and keeps trying while that makes sense.
    pub(super) fn join(self: &Arc<Self>, group: &Arc<Group>) {
        if group.view.is_idle() {
            return;
        }
        // On a voter, links that come and go change whom to follow, for handles here and for
        // those who follow here.
        let view = &group.view;
        let follows = !view.following().is_empty();
        let is_shaken =
            self.peers().is_voter() && (self.has_gap() || follows || view.is_in_doubt());
        let is_opened = !view.is_online() && view.is_wanted();
        if is_shaken || is_opened {
            self.to_do(|queue| {
                if is_shaken {
                    queue.shaken.insert(group.id(), group.clone());
                }
                if is_opened {
                    queue.opened.insert(group.id(), group.clone());
                }
            });
        }
    }

    /// It could not be followed around gaps: not at once again, or two voters that follow at each
    /// other and get no majority would ask each other without end.
    pub(super) fn follow_later(self: &Arc<Self>, group: Arc<Group>) {
        self.to_do(|queue| {
            queue.failed.insert(group.id(), group);
        });
    }

    /// Ends a subscription of this node.
    pub(super) fn leave_at(self: &Arc<Self>, voter: NodeId, group: GroupId, number: u64) {
        self.to_do(|queue| {
            let left = queue.left.entry(voter).or_default();
            let newest = left.entry(group).or_default();
            *newest = number.max(*newest);
        });
    }

    /// Has voters tell what is wanted of a map, if they tell less, or with `or_more` more.
    pub(super) fn rescope(self: &Arc<Self>, group: &Arc<Group>, or_more: bool) {
        if self.peers().is_voter() || !group.id().is_map() {
            return;
        }
        let voters = group.view.told_otherwise(or_more);
        if !voters.is_empty() {
            self.to_do(|queue| {
                let all = voters.into_iter().map(|voter| (voter, group.id()));
                queue.rescoped.extend(all.map(|key| (key, group.clone())));
            });
        }
    }

    fn to_do(self: &Arc<Self>, note: impl FnOnce(&mut Queue)) {
        let is_worked = {
            let mut queue = self.joins.queue();
            note(&mut queue);
            std::mem::replace(&mut queue.is_worked, true)
        };
        if is_worked {
            self.joins.woken.notify_one();
        } else {
            self.peers().spawn(Box::pin(Work::new(self.clone()).run()));
        }
    }
}

/// A group that is being brought online.
struct Join {
    group: Arc<Group>,
    /// Of [`View::start_joining`](super::View::start_joining).
    losses: u64,
    /// Voters that are still to be asked in this round.
    voters: VecDeque<NodeId>,
    pause_ms: u64,
}

/// What is to be asked of one voter, and how much is being asked.
#[derive(Default)]
struct Lane {
    joins: BTreeMap<GroupId, Join>,
    alone: BTreeMap<GroupId, Join>,
    rescoped: BTreeMap<GroupId, Arc<Group>>,
    left: BTreeMap<GroupId, u64>,
    frames_out: usize,
    alone_out: usize,
    rescopes_out: usize,
    is_leaving: bool,
}

/// Something that was asked for has come to an end.
enum Done {
    Joined {
        voter: NodeId,
        alone: bool,
        joins: Vec<(Join, Followed)>,
    },
    Rescoped {
        voter: NodeId,
        /// And whether they are still followed there.
        failed: Vec<(Arc<Group>, bool)>,
    },
    Left(NodeId),
    Mended {
        failed: Vec<Arc<Group>>,
    },
}

struct Work {
    directory: Arc<Directory>,
    /// By voter: on a voter its own, too, which passes barriers itself.
    lanes: BTreeMap<NodeId, Lane>,
    shaken: BTreeMap<GroupId, Arc<Group>>,
    mending: usize,
    /// What is tried again later: joins with their next pause, and on voters what is to be mended.
    paused: BTreeMap<(Instant, GroupId), (Arc<Group>, u64)>,
    shaken_later: BTreeMap<(Instant, GroupId), Arc<Group>>,
    /// Those of `shaken_later`: each is there once.
    are_later: BTreeSet<GroupId>,
    rescoped_later: BTreeMap<(Instant, GroupId), Arc<Group>>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Takes the first `max` out of a map.
fn first<K: Ord, V>(map: &mut BTreeMap<K, V>, max: usize) -> Vec<(K, V)> {
    std::iter::from_fn(|| map.pop_first()).take(max).collect()
}

impl Work {
    fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            lanes: BTreeMap::new(),
            shaken: BTreeMap::new(),
            mending: 0,
            paused: BTreeMap::new(),
            shaken_later: BTreeMap::new(),
            are_later: BTreeSet::new(),
            rescoped_later: BTreeMap::new(),
            running: FuturesUnordered::new(),
        }
    }

    async fn run(mut self) {
        let directory = self.directory.clone();
        loop {
            self.take_in();
            self.ask();
            let paused = self.paused.keys().next();
            let shaken = self.shaken_later.keys().next();
            let rescoped = self.rescoped_later.keys().next();
            let all = paused.into_iter().chain(shaken).chain(rescoped);
            let due = all.map(|(at, _)| *at).min();
            if self.running.is_empty() && due.is_none() {
                let mut queue = directory.joins.queue();
                if queue.is_empty() {
                    queue.is_worked = false;
                    return;
                }
                continue;
            }
            tokio::select! {
                biased;
                Some(done) = self.running.next() => self.done(done),
                () = directory.joins.woken.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn take_in(&mut self) {
        let new = {
            let mut queue = self.directory.joins.queue();
            let none = Queue {
                is_worked: true,
                ..Queue::default()
            };
            std::mem::replace(&mut *queue, none)
        };
        for group in new.opened.into_values() {
            self.begin(group, JOIN_PAUSE_MS);
        }
        self.shaken.extend(new.shaken);
        for group in new.failed.into_values() {
            self.mend_later(group);
        }
        for ((voter, id), group) in new.rescoped {
            let lane = self.lanes.entry(voter).or_default();
            lane.rescoped.insert(id, group);
        }
        for (voter, groups) in new.left {
            let lane = self.lanes.entry(voter).or_default();
            for (group, number) in groups {
                let newest = lane.left.entry(group).or_default();
                *newest = number.max(*newest);
            }
        }
        let now = Instant::now();
        while let Some(entry) = self.paused.first_entry()
            && entry.key().0 <= now
        {
            let (group, pause_ms) = entry.remove();
            self.begin(group, pause_ms);
        }
        while let Some(entry) = self.shaken_later.first_entry()
            && entry.key().0 <= now
        {
            let ((_, id), group) = entry.remove_entry();
            self.are_later.remove(&id);
            self.shaken.insert(id, group);
        }
        while let Some(entry) = self.rescoped_later.first_entry()
            && entry.key().0 <= now
        {
            let group = entry.remove();
            self.directory.rescope(&group, false);
            self.directory.forget_idle(group);
        }
    }

    /// Begins to bring a group online, unless nobody wants that or it is being done.
    fn begin(&mut self, group: Arc<Group>, pause_ms: u64) {
        let peers = self.directory.peers();
        // Out of touch there is nothing to try: all groups are joined once that is over.
        if peers.in_touch()
            && let Some(losses) = group.view.start_joining()
        {
            let voters = match peers.is_voter() {
                true => [peers.me()].into(),
                false => self.directory.reachable_in_follow_order(&group).into(),
            };
            let join = Join {
                group,
                losses,
                voters,
                pause_ms,
            };
            self.go_on(join);
        } else {
            self.directory.forget_idle(group);
        }
    }

    /// Asks the next voter, or pauses when all were asked.
    fn go_on(&mut self, mut join: Join) {
        let id = join.group.id();
        if let Some(voter) = join.voters.pop_front() {
            self.lanes.entry(voter).or_default().joins.insert(id, join);
            return;
        }
        join.group.view.give_up_joining();
        let pause_ms = join.pause_ms + self.directory.peers().jitter_ms(join.pause_ms);
        let at = Instant::now() + Duration::from_millis(pause_ms);
        let next_ms = (join.pause_ms * 2).min(JOIN_PAUSE_MAX_MS);
        self.paused.insert((at, id), (join.group, next_ms));
    }

    fn ask(&mut self) {
        for (voter, lane) in &mut self.lanes {
            while lane.frames_out < FRAMES_AT_ONCE && !lane.joins.is_empty() {
                lane.frames_out += 1;
                let joins = first(&mut lane.joins, GROUPS_A_FRAME);
                let asked = join_at(self.directory.clone(), *voter, false, joins);
                self.running.push(Box::pin(asked));
            }
            while lane.alone_out < ALONE_AT_ONCE && !lane.alone.is_empty() {
                lane.alone_out += 1;
                let joins = first(&mut lane.alone, 1);
                let asked = join_at(self.directory.clone(), *voter, true, joins);
                self.running.push(Box::pin(asked));
            }
            while lane.rescopes_out < FRAMES_AT_ONCE && !lane.rescoped.is_empty() {
                lane.rescopes_out += 1;
                let groups = first(&mut lane.rescoped, GROUPS_A_FRAME);
                let groups = groups.into_iter().map(|(_, group)| group).collect();
                let asked = rescope(self.directory.clone(), *voter, groups);
                self.running.push(Box::pin(asked));
            }
            if !lane.is_leaving && !lane.left.is_empty() {
                lane.is_leaving = true;
                let left = first(&mut lane.left, GROUPS_A_FRAME);
                let asked = leave(self.directory.clone(), *voter, left);
                self.running.push(Box::pin(asked));
            }
        }
        while self.mending < FRAMES_AT_ONCE && !self.shaken.is_empty() {
            self.mending += 1;
            let groups = first(&mut self.shaken, GROUPS_A_FRAME);
            let groups = groups.into_iter().map(|(_, group)| group).collect();
            let deadline = Instant::now() + Duration::from_millis(JOIN_MS);
            let mended = mend(self.directory.clone(), groups, deadline);
            let mended = async move {
                let failed = mended.await;
                Done::Mended { failed }
            };
            self.running.push(Box::pin(mended));
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Joined {
                voter,
                alone,
                joins,
            } => {
                let lane = self.lanes.entry(voter).or_default();
                match alone {
                    true => lane.alone_out -= 1,
                    false => lane.frames_out -= 1,
                }
                for (join, followed) in joins {
                    self.joined(voter, alone, join, followed);
                }
            }
            Done::Rescoped { voter, failed } => {
                let lane = self.lanes.entry(voter).or_default();
                lane.rescopes_out -= 1;
                for (group, is_followed) in failed {
                    if is_followed {
                        let jitter_ms = self.directory.peers().jitter_ms(MEND_PAUSE_MS);
                        let pause = Duration::from_millis(MEND_PAUSE_MS + jitter_ms);
                        let at = (Instant::now() + pause, group.id());
                        self.rescoped_later.insert(at, group);
                    } else {
                        // It tells nothing: what was missed is heard of where it is joined anew.
                        group.view.go_offline();
                        self.begin(group, JOIN_PAUSE_MS);
                    }
                }
            }
            Done::Left(voter) => {
                let lane = self.lanes.entry(voter).or_default();
                lane.is_leaving = false;
            }
            Done::Mended { failed } => {
                self.mending -= 1;
                for group in failed {
                    self.mend_later(group);
                }
            }
        }
    }

    fn mend_later(&mut self, group: Arc<Group>) {
        if self.are_later.insert(group.id()) {
            let pause_ms = MEND_PAUSE_MS + self.directory.peers().jitter_ms(MEND_PAUSE_MS);
            let at = Instant::now() + Duration::from_millis(pause_ms);
            self.shaken_later.insert((at, group.id()), group);
        }
    }

    fn joined(&mut self, voter: NodeId, alone: bool, join: Join, followed: Followed) {
        match followed {
            Followed::Yes => {
                if join.group.view.finish_joining(join.losses) {
                    // More may be wanted by now than when it was asked for.
                    self.directory.rescope(&join.group, false);
                    self.directory.forget_idle(join.group);
                } else {
                    // Touch was lost meanwhile.
                    self.begin(join.group, join.pause_ms);
                }
            }
            Followed::Alone if !alone => {
                let lane = self.lanes.entry(voter).or_default();
                lane.alone.insert(join.group.id(), join);
            }
            Followed::Unwanted => {
                join.group.view.give_up_joining();
                // Somebody may want it again by now, and have seen that it was being joined.
                self.begin(join.group, join.pause_ms);
            }
            Followed::Alone | Followed::No => self.go_on(join),
        }
    }
}

/// Follows groups at a voter; a voter passes the barrier itself.
async fn join_at(
    directory: Arc<Directory>,
    voter: NodeId,
    alone: bool,
    joins: Vec<(GroupId, Join)>,
) -> Done {
    let joins: Vec<_> = joins.into_iter().map(|(_, join)| join).collect();
    let groups: Vec<_> = joins.iter().map(|join| join.group.clone()).collect();
    let deadline = Instant::now() + Duration::from_millis(JOIN_MS);
    let followed = if voter == directory.peers().me() {
        let passed = directory.current_of_all(&groups, deadline).await;
        let followed = passed.into_iter().map(|passed| match passed {
            Passed::Current => Followed::Yes,
            Passed::Open => Followed::Alone,
            Passed::Unconfirmed => Followed::No,
        });
        followed.collect()
    } else {
        directory.follow_at(voter, &groups, deadline).await
    };
    Done::Joined {
        voter,
        alone,
        joins: joins.into_iter().zip(followed).collect(),
    }
}

async fn rescope(directory: Arc<Directory>, voter: NodeId, groups: Vec<Arc<Group>>) -> Done {
    let failed = directory.rescope_at(voter, groups).await;
    Done::Rescoped { voter, failed }
}

async fn leave(directory: Arc<Directory>, voter: NodeId, left: Vec<(GroupId, u64)>) -> Done {
    let request = Request::of_many(Many::Unsubscribe(Batch::new(left)));
    let call = directory.peers().call(voter, request.encode());
    // If it is lost, the voter learns it from our refusal of its next update.
    let _ = timeout(ATTEMPT, call).await;
    Done::Left(voter)
}
