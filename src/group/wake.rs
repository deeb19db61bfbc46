//! Waking a group's replica on this voter.
//!
//! Waking and falling asleep both hold the berth's lock, and `closing` before it. Each may be cut
//! short wherever it waits; what it leaves behind is noted in the berth's past before it begins.

use std::sync::Arc;

use tokio::sync::{MutexGuard, RwLockReadGuard};
use tokio::time::timeout;

use crate::id::{GroupId, NodeId};
use crate::machine::Command;
use crate::probe::{Bug, planted};
use crate::store::Store;

use super::ATTEMPT;
use super::berth::Past;
use super::directory::{Directory, Group};
use super::disk::{Disk, Held};
use super::lease::Lease;
use super::replica::Replica;

/// Why a group is woken.
#[derive(Clone, Copy)]
pub(super) enum Cause<'a> {
    /// A message of Raft.
    Message,
    /// To propose or settle something, for another node or this one. The command is written first,
    /// if the group is newborn and this voter leads it by birth: then the replica leads, and its log
    /// begins with it.
    Ask {
        first: Option<&'a Command>,
        settles: bool,
        from: Option<NodeId>,
    },
    /// To help a voter that was away.
    Help,
}

/// The right to start or end a group's instance.
pub(super) struct Change<'a> {
    pub(super) past: MutexGuard<'a, Past>,
    _open: RwLockReadGuard<'a, bool>,
}

impl Directory {
    /// What the disk holds of a group.
    pub(super) fn load(&self, store: &Store, id: GroupId) -> Result<Held, String> {
        self.load_of(store, id, true)
    }

    /// The same without the tasks of a namespace, of which there may be many.
    pub(super) fn load_log(&self, store: &Store, id: GroupId) -> Result<Held, String> {
        self.load_of(store, id, false)
    }

    fn load_of(&self, store: &Store, id: GroupId, with_tasks: bool) -> Result<Held, String> {
        let first = self.peers().order(&id).first().copied();
        let first =
            first.filter(|first| !planted(Bug::NoVoteByBirth) || *first == self.peers().me());
        let held =
            Disk::load(store, id, self.peers().voters(), first, with_tasks).map_err(|error| {
                // The others decide without this voter, so nothing else would tell.
                tracing::error!(group = ?id, %error, "a cell is not served here");
                error.to_string()
            })?;
        if held.electorate.voters != *self.peers().voters() {
            return Err(format!("group {id} was written by another electorate"));
        }
        Ok(held)
    }

    /// This voter's replica of the group, woken for a message of Raft if need be. Why not, if it
    /// cannot be.
    pub(super) async fn wake(self: &Arc<Self>, group: &Arc<Group>) -> Result<Arc<Replica>, String> {
        let (replica, _) = self.wake_for(group, Cause::Message).await?;
        Ok(replica)
    }

    /// The same for any cause, and whether its command was written.
    pub(super) async fn wake_for(
        self: &Arc<Self>,
        group: &Arc<Group>,
        cause: Cause<'_>,
    ) -> Result<(Arc<Replica>, bool), String> {
        let store = self.store()?;
        match in_use(group) {
            Some(awake) => Ok((awake, false)),
            // Boxed: each message of Raft is a task, which is as large as what may come in it.
            None => Box::pin(self.wake_from_sleep(group, cause, store)).await,
        }
    }

    async fn wake_from_sleep(
        self: &Arc<Self>,
        group: &Arc<Group>,
        cause: Cause<'_>,
        store: &Store,
    ) -> Result<(Arc<Replica>, bool), String> {
        if planted(Bug::TwoInstances) {
            return Ok((self.start_beside(group, store).await?, false));
        }
        // A disk that hangs holds up whatever falls asleep. The other voters may do better.
        let change = async {
            let mut change = self.change(group).await?;
            if !group.berth.is_awake() {
                settle(&mut change.past, store).await?;
                // What it had in memory alone is on the disk now.
                group.berth.set_newborn(None);
            }
            Ok::<_, String>(change)
        };
        let change = timeout(ATTEMPT, self.unless_stopping(change)).await;
        let mut change = change.map_err(|_| "the group is waking or falling asleep")??;
        if let Some(awake) = in_use(group) {
            return Ok((awake, false));
        }
        let held = self.load(store, group.id())?;
        if !held.born {
            self.may_bear_for(cause)?;
        }
        let disk = Disk::new(store.clone(), group.id(), held).counted(self.census.clone());
        self.take_berth(group, cause)?;
        // Nothing of a leader that was put to sleep is lost, so it goes on leading, unless others
        // have elected meanwhile: then it learns that from their first answer.
        let leads_on = change.past.led() && disk.is_of_leader(self.peers().me());
        let lease = change.past.begin();
        let end = change.past.end().expect("it has just begun").clone();
        let mut leads_by_birth = false;
        if let Cause::Ask {
            first: Some(first), ..
        } = cause
            && disk.is_firstborn(self.peers().me())
            && self.peers().in_touch()
        {
            // On its way to a disk that hangs. What has begun is noted: whoever starts the next
            // instance flushes the store first, in another process recovery does.
            let born = async { disk.bear(first.clone()).await.map_err(|e| e.to_string()) };
            self.unless_stopping(born).await?;
            leads_by_birth = true;
        }
        let links_up = self.links_up();
        let (peers, view) = (self.peers().clone(), group.view.clone());
        let leads = leads_by_birth || leads_on;
        let start = Replica::start(peers, disk, view, &self.quiet, leads, (lease, end));
        let replica = start.await?;
        if leads_on {
            replica.until_leading().await;
        }
        self.count_wake(cause, leads_by_birth, leads_on);
        self.fill(group, &replica, links_up);
        Ok((replica, leads_by_birth))
    }

    /// Whether a group of which this disk holds nothing may be woken.
    pub(super) fn may_bear_for(&self, cause: Cause<'_>) -> Result<(), String> {
        match cause {
            // What voters have to settle is in the log of one of them.
            Cause::Ask {
                settles: true,
                from,
                ..
            } if from.is_none_or(|from| self.peers().voters().contains(&from)) => Ok(()),
            Cause::Ask { from, .. } => self.may_bear(from),
            Cause::Message | Cause::Help => Ok(()),
        }
    }

    fn count_wake(&self, cause: Cause<'_>, leads_by_birth: bool, leads_on: bool) {
        let counts = &self.counts;
        match cause {
            Cause::Message => counts.wakes_by_message.one(),
            Cause::Ask { settles: true, .. } => counts.wakes_by_settling.one(),
            Cause::Ask { .. } if leads_by_birth => counts.wakes_by_birth.one(),
            Cause::Ask { .. } => counts.wakes_by_proposal.one(),
            Cause::Help => counts.wakes_by_help.one(),
        }
        counts.leaderships_by_birth.add(u64::from(leads_by_birth));
        counts.leaderships_resumed.add(u64::from(leads_on));
    }

    /// Puts an instance that was started at a time of `links_up` into its berth. Links that came
    /// up since then did not find it there: it may lead, and wait for them for an hour.
    pub(super) fn fill(&self, group: &Group, replica: &Arc<Replica>, links_up: u64) {
        group.berth.fill(replica.clone());
        if self.links_up() != links_up {
            let (replica, voters) = (replica.clone(), self.peers().linked_voters());
            self.peers().spawn(Box::pin(async move {
                for voter in voters {
                    replica.linked(voter).await;
                }
            }));
        }
    }

    /// As without the berth's lock: whoever comes meanwhile starts another one.
    async fn start_beside(
        self: &Arc<Self>,
        group: &Arc<Group>,
        store: &Store,
    ) -> Result<Arc<Replica>, String> {
        let disk = Disk::new(store.clone(), group.id(), self.load(store, group.id())?)
            .counted(self.census.clone());
        let (peers, view) = (self.peers().clone(), group.view.clone());
        let start = Replica::start(peers, disk, view, &self.quiet, false, Lease::new());
        let replica = start.await?;
        group.berth.replace(replica.clone());
        Ok(replica)
    }

    pub(super) fn take_berth(
        self: &Arc<Self>,
        group: &Arc<Group>,
        cause: Cause<'_>,
    ) -> Result<(), String> {
        let is_raft = matches!(cause, Cause::Message);
        let starts_sweep = self.berths.take(group, is_raft);
        let starts_sweep = starts_sweep.map_err(|max| {
            self.counts.refused_awake_groups.one();
            format!(
                "{max} groups are awake here already; try again when some have fallen \
                    asleep, or raise awake_groups_max"
            )
        })?;
        if starts_sweep {
            self.peers().spawn(Box::pin(self.clone().sweep()));
        }
        Ok(())
    }

    /// Waits for the right to start or end the group's instance; none is given once the node
    /// stops.
    pub(super) async fn change<'a>(&'a self, group: &'a Group) -> Result<Change<'a>, String> {
        let open = self.closing.read().await;
        let past = group.berth.changing.lock().await;
        match *open {
            true => Err("this node is shutting down".into()),
            false => Ok(Change { past, _open: open }),
        }
    }

    /// The same, unless somebody else has it.
    pub(super) fn try_change<'a>(&'a self, group: &'a Group) -> Option<Change<'a>> {
        let open = self.closing.try_read().ok().filter(|closing| !**closing)?;
        let past = group.berth.changing.try_lock().ok()?;
        Some(Change { past, _open: open })
    }

    /// What may wait for long is given up when the node begins to stop.
    pub(super) async fn unless_stopping<T>(
        &self,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let done = self.stopping.run_until_cancelled(work).await;
        done.unwrap_or_else(|| Err("this node is shutting down".into()))
    }
}

/// The replica that is awake, for someone who has a use for it.
fn in_use(group: &Group) -> Option<Arc<Replica>> {
    let awake = group.awake()?;
    awake.touch();
    Some(awake)
}

/// Waits until the instance before is gone and all that it has written is visible in the store.
pub(super) async fn ended(past: &Past, store: &Store) -> Result<(), String> {
    if let Some(end) = past.end() {
        end.reached().await;
        // Without this a load could miss what is queued, and it would come to be on the disk
        // behind the back of the next instance.
        let flushed = store.flush().await;
        flushed.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The same, and notes it: the next instance may start.
pub(super) async fn settle(past: &mut Past, store: &Store) -> Result<(), String> {
    if past.end().is_some() {
        ended(past, store).await?;
        past.settle();
    }
    Ok(())
}
