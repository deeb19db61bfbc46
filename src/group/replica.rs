//! A voter's running part of one group: an openraft instance that elects only when asked to.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::raft::TransferLeaderRequest;
use openraft::{Raft, ReadPolicy};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::id::{GroupId, NodeId, Version};
use crate::machine::Command;
use crate::machine::job;
use crate::machine::task::Board;

use super::Peers;
use super::config::{LEASE_MS, config};
use super::disk::Disk;
use super::lease::{Lease, LeaseEnd};
use super::log::Log;
use super::notices::Notices;
use super::peer::{Ballot, PeerFactory};
use super::pulse::Pulse;
use super::raft::{LogPosition, Types};
use super::runtime::quietly;
use super::slots::Ledger;
use super::state::State as StateMachine;
use super::view::View;
use super::wire::{Response, State};

/// How long an election may take before it is tried again, in milliseconds, plus jitter.
const ELECTION_RETRY_MS: u64 = 150;
/// The least pause between two snapshots: a storm of writes is cut by time, not by entries.
const SNAPSHOT_PAUSE_MS: u64 = 50;
/// The pauses before a commit notice is repeated, doubling: voters that are late are not to be later.
const NOTICE_RETRY_MS: (u64, u64) = (100, 3_200);
/// How long an orderly handover of leadership may take.
const HANDOVER_MS: u64 = 300;

/// Who leads, after an attempt to find out or to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead {
    Me,
    Other(NodeId),
    Nobody,
}

pub(crate) struct Replica {
    pub(crate) group: GroupId,
    pub(super) raft: Raft<Types, StateMachine>,
    /// Who leads, as openraft says; its own newest word on it.
    server: WatchReceiverOf<Types, RaftServerMetrics<Types>>,
    disk: Arc<Disk>,
    /// When somebody last had a use for it.
    used: Mutex<Instant>,
    ballot: Arc<Ballot>,
    notices: Arc<Notices>,
    pulse: Arc<Pulse>,
    pub(super) peers: Arc<dyn Peers>,
    /// What openraft reports to, also where it runs in our tasks.
    pub(super) quiet: tracing::Dispatch,
    /// One election at a time; whoever waits finds its result.
    electing: tokio::sync::Mutex<()>,
}

impl Replica {
    /// Starts an instance over what `disk` holds. It holds `lease`, which has the end `end`, until
    /// nothing of it runs any more. `leads` says that it goes on leading the term on the disk.
    pub(crate) async fn start(
        peers: Arc<dyn Peers>,
        disk: Disk,
        view: Arc<View>,
        quiet: &tracing::Dispatch,
        leads: bool,
        (lease, end): (Lease, LeaseEnd),
    ) -> Result<Arc<Self>, String> {
        let group = disk.group;
        let disk = Arc::new(disk);
        let ballot = Arc::new(Ballot::default());
        let notices = Arc::new(Notices::default());
        let pulse = Arc::new(Pulse::default());
        let long = Arc::new(Notify::new());
        view.catch_up(&disk.held().state());
        let config = Arc::new(
            config(group, leads)
                .validate()
                .map_err(|error| error.to_string())?,
        );
        let factory = PeerFactory {
            peers: peers.clone(),
            group,
            ballot: ballot.clone(),
            notices: notices.clone(),
            pulse: pulse.clone(),
            ledger: disk.ledger().clone(),
        };
        let me = peers.me();
        let state = StateMachine::new(me, disk.clone(), view, long.clone(), lease.clone());
        let log = Log::new(disk.clone(), lease);
        let raft = Raft::new(peers.me().as_u64(), config, factory, log, state);
        let raft = quietly(quiet, raft)
            .await
            .map_err(|error| format!("group {group} does not start: {error}"))?;
        let replica = Arc::new(Self {
            group,
            server: raft.server_metrics(),
            raft,
            disk,
            used: Mutex::new(Instant::now()),
            ballot,
            notices: notices.clone(),
            pulse,
            peers: peers.clone(),
            quiet: quiet.clone(),
            electing: tokio::sync::Mutex::default(),
        });
        let attended = attend(Arc::downgrade(&replica), long, notices);
        peers.spawn(Box::pin(async move {
            tokio::select! {
                () = end.reached() => {}
                () = attended => {}
            }
        }));
        tracing::debug!(?group, "replica awake");
        Ok(replica)
    }

    /// Somebody has a use for it.
    pub(crate) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// For how long nobody had a use for it.
    pub(crate) fn idle_for(&self) -> Duration {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        Instant::now().saturating_duration_since(used)
    }

    /// The leader this replica believes in, which may be gone.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leader = self.server.borrow_watched().current_leader;
        leader.map(NodeId::from_u64)
    }

    pub(crate) fn leads(&self) -> bool {
        self.server.borrow_watched().state.is_leader()
    }

    /// Waits, for a bounded time, until an instance that was started to lead on says that it does.
    pub(crate) async fn until_leading(&self) {
        let mut metrics = self.raft.server_metrics();
        let leading = async { while !self.leads() && metrics.changed().await.is_ok() {} };
        let _ = timeout(Duration::from_millis(LEASE_MS), leading).await;
    }

    /// A voter in reach may not know how far this leader's log is committed.
    pub(crate) fn owes_notice(&self) -> bool {
        self.owes_notice_but_to(&[])
    }

    pub(crate) fn owes_notice_but_to(&self, others: &[NodeId]) -> bool {
        let is_owed = |voter| !others.contains(&voter) && self.peers.is_linked(voter);
        self.leads() && self.notices.any(is_owed)
    }

    /// The term, and who leads in it if that is known here.
    pub(crate) fn term(&self) -> (u64, Option<NodeId>) {
        let term = self.disk.held().vote.map_or(0, |vote| vote.term);
        let metrics = self.server.borrow_watched();
        // Metrics lag behind the disk, and a leader belongs to its term.
        let leader = metrics.current_leader.map(NodeId::from_u64);
        let is_of_term = metrics.vote.leader_id.term == term;
        (term, leader.filter(|_| is_of_term))
    }

    pub(crate) fn state(&self) -> State {
        self.disk.held().state()
    }

    #[cfg(test)]
    pub(crate) fn log_length(&self) -> u64 {
        self.disk.held().entries.len() as u64
    }

    /// What this replica holds: the state, the end of its log and how far it is applied.
    pub(crate) fn status(&self) -> (State, Option<LogPosition>, Option<LogPosition>) {
        self.disk.status()
    }

    /// Something is in the log that is not applied: it may or may not be committed.
    pub(crate) fn has_tail(&self) -> bool {
        let held = self.disk.held();
        held.last() > held.applied.at
    }

    pub(crate) fn is_unsettled(&self) -> bool {
        self.disk.held().is_unsettled()
    }

    /// Finds the leader, or becomes it. A known leader counts only while `may_lead` says so.
    ///
    /// Elections are always preceded by a pre-vote: without one a healthy leader would be deposed.
    /// Whoever asks for it does not lead, but may hold the longer log that stands in the way.
    pub(crate) async fn find_leader(
        &self,
        deadline: Instant,
        asker: Option<NodeId>,
        may_lead: impl Fn(NodeId) -> bool,
    ) -> Lead {
        match self.known_lead(&may_lead) {
            Some(lead) => lead,
            None => Box::pin(self.elect(deadline, asker, may_lead)).await,
        }
    }

    async fn elect(
        &self,
        deadline: Instant,
        asker: Option<NodeId>,
        may_lead: impl Fn(NodeId) -> bool,
    ) -> Lead {
        let _one_at_a_time = match timeout_at(deadline, self.electing.lock()).await {
            Ok(guard) => guard,
            Err(_) => return Lead::Nobody,
        };
        let mut metrics = self.raft.server_metrics();
        self.ballot.clear();
        let mut started = false;
        loop {
            if let Some(lead) = self.known_lead(&may_lead) {
                let is_won = u64::from(started && lead == Lead::Me);
                self.disk.counts().elections_won.add(is_won);
                return lead;
            }
            let lost = self.leader().filter(|leader| !self.peers.is_live(*leader));
            if let Some(leader) = lost {
                self.free_of(leader).await;
            }
            if Instant::now() >= deadline || self.raft.trigger().elect(true).await.is_err() {
                return Lead::Nobody;
            }
            self.disk.counts().elections_started.one();
            started = true;
            let retry = Duration::from_millis(ELECTION_RETRY_MS + self.peers.jitter_ms(100));
            let retry = (Instant::now() + retry).min(deadline);
            loop {
                if self.known_lead(&may_lead).is_some() {
                    break;
                }
                let may_hold = |voter: &NodeId| may_lead(*voter) || Some(*voter) == asker;
                if let Some(longer) = self.ballot.longer().filter(may_hold) {
                    return Lead::Other(longer);
                }
                tokio::select! {
                    changed = metrics.changed() => if changed.is_err() { return Lead::Nobody },
                    () = self.ballot.refused() => {}
                    () = tokio::time::sleep_until(retry) => break,
                }
            }
        }
    }

    /// `leader` is gone, as far as this node can tell: do not wait for its lease to run out. Its
    /// lease is about healthy leaders being left in peace, and no promise rests on it.
    pub(crate) async fn free_of(&self, leader: NodeId) {
        let vote = self.server.borrow_watched().vote;
        if vote.committed && vote.leader_id.voted_for == leader.as_u64() {
            // A transfer to another voter than this one does just that, and nothing else.
            let request = TransferLeaderRequest::new(vote, leader.as_u64(), None);
            // It fails only if the instance is stopped.
            let _ = quietly(&self.quiet, self.raft.handle_transfer_leader(request)).await;
        }
    }

    fn known_lead(&self, may_lead: &impl Fn(NodeId) -> bool) -> Option<Lead> {
        if self.leads() {
            return Some(Lead::Me);
        }
        let leader = self.leader().filter(|leader| *leader != self.peers.me())?;
        may_lead(leader).then_some(Lead::Other(leader))
    }

    /// Commits `command`, if this replica leads.
    pub(crate) async fn write(&self, command: Command, deadline: Instant) -> Response {
        let me = self.peers.me();
        loop {
            let write = quietly(&self.quiet, self.raft.client_write(command.clone()));
            let error = match timeout_at(deadline, write).await {
                Ok(Ok(done)) => {
                    return Response::Committed {
                        reply: done.data,
                        leader: me,
                    };
                }
                Ok(Err(RaftError::APIError(error))) => error,
                // Stopped, or no quorum in time: it may be committed all the same.
                Ok(Err(RaftError::Fatal(_))) | Err(_) => return Response::Unclear,
            };
            match error {
                // Nothing was appended: a new leader waits for its first acknowledgement, an old
                // one for a fresh one.
                ClientWriteError::ForwardToLeader(_) if self.leads() => {
                    if !self.confirm(deadline).await {
                        return Response::Elsewhere { hint: None };
                    }
                }
                ClientWriteError::ForwardToLeader(forward) => {
                    let hint = forward.leader_id.map(NodeId::from_u64);
                    return Response::Elsewhere {
                        hint: hint.filter(|hint| *hint != me),
                    };
                }
                ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_) => return Response::Unclear,
            }
        }
    }

    /// Commits whatever may be committed and returns the state then, if this replica leads.
    pub(crate) async fn settle(&self, slot: &[u8], deadline: Instant) -> Response {
        if !self.confirm(deadline).await {
            return Response::Elsewhere { hint: None };
        }
        let mut state = self.state();
        if self.group.is_map() {
            match self.ledger().get(slot) {
                Ok(record) => state.record = record,
                Err(_) => return Response::Unclear,
            }
        }
        Response::State(state)
    }

    /// The slots, if it is a map.
    pub(crate) fn ledger(&self) -> &Ledger {
        self.disk.ledger()
    }

    /// Looks at the tasks, as of a version.
    pub(crate) fn with_board<T>(&self, look: impl FnOnce(&Board, Version) -> T) -> T {
        let held = self.disk.held();
        look(&held.board, held.applied.version)
    }

    /// Looks at the jobs, as of a version.
    pub(crate) fn with_jobs<T>(&self, look: impl FnOnce(&job::Board, Version) -> T) -> T {
        let held = self.disk.held();
        look(&held.jobs, held.applied.version)
    }

    /// A majority confirms that this replica leads, and everything committed before is applied.
    pub(crate) async fn confirm(&self, deadline: Instant) -> bool {
        let confirmed = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let confirmed = quietly(&self.quiet, confirmed);
        matches!(timeout_at(deadline, confirmed).await, Ok(Ok(_)))
    }

    /// A link came back: go on where replication to that voter was given up.
    pub(crate) async fn linked(&self, voter: NodeId) {
        self.pulse.heard(voter);
        // Both only fail if the instance is stopped, and then there is nothing to go on with.
        let _ = self.raft.trigger().reset_backoff([voter.as_u64()]).await;
        if self.leads() {
            let _ = self.raft.trigger().heartbeat().await;
            self.notices.nudge();
        }
    }

    /// Takes a snapshot, which costs next to nothing, and lets go of the log before it.
    async fn shorten(&self) -> Result<(), Fatal<Types>> {
        self.raft.trigger().snapshot().await?;
        if !self.group.is_cell() {
            let upto = self.disk.held().needless();
            // No further than the snapshot, which may not be there before the next time.
            self.raft.trigger().purge_log(upto).await?;
        }
        Ok(())
    }

    /// Hands leadership to `successor` and waits, for a bounded time, until it is taken.
    pub(crate) async fn hand_over(&self, successor: NodeId) {
        if !self.leads() {
            return;
        }
        let mut metrics = self.raft.server_metrics();
        let handed = async {
            let trigger = self.raft.trigger();
            if trigger.transfer_leader(successor.as_u64()).await.is_ok() {
                while self.leads() && metrics.changed().await.is_ok() {}
            }
        };
        // A successor that does not take over in time is elected when it is needed.
        let handed = quietly(&self.quiet, handed);
        let _ = timeout(Duration::from_millis(HANDOVER_MS), handed).await;
    }

    /// Stops the instance. Parts of it may run on for a while: the lease says when they are gone.
    pub(crate) async fn stop(&self) {
        // It fails only if the core has panicked, and then it has stopped.
        let _ = quietly(&self.quiet, self.raft.shutdown()).await;
    }
}

/// Looks after a running replica: snapshots when the log has grown long (openraft purges behind
/// a snapshot), and repeats commit notices until they are heard.
async fn attend(replica: Weak<Replica>, long: Arc<Notify>, notices: Arc<Notices>) {
    let mut pause_ms = NOTICE_RETRY_MS.0;
    loop {
        let Some(owes) = replica.upgrade().map(|replica| replica.owes_notice()) else {
            return;
        };
        pause_ms = if owes { pause_ms } else { NOTICE_RETRY_MS.0 };
        let pause = Duration::from_millis(pause_ms);
        let is_long = tokio::select! {
            () = long.notified() => true,
            () = notices.changed(), if !owes => continue,
            () = tokio::time::sleep(pause), if owes => false,
        };
        let Some(replica) = replica.upgrade() else {
            return;
        };
        let done = if is_long {
            replica.shorten().await
        } else {
            pause_ms = (pause_ms * 2).min(NOTICE_RETRY_MS.1);
            replica.raft.trigger().heartbeat().await
        };
        if done.is_err() {
            return;
        }
        drop(replica);
        if is_long {
            tokio::time::sleep(Duration::from_millis(SNAPSHOT_PAUSE_MS)).await;
        }
    }
}
