//! Answering other nodes, and this one: the voter's side.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::codec::{MalformedError, VALUE_BYTES_CAP};
use crate::id::{GroupId, Kind, NodeId, Version};
use crate::machine::{Command, Record, Reply, SLOT_BYTES_MAX, Slot};
use crate::probe::{Bug, planted};

use super::ATTEMPT;
use super::directory::{Directory, Group};
use super::jobs;
use super::raft::StoredPayload;
use super::replica::{Lead, Replica};
use super::route::{Ask, NoAnswer};
use super::slots::SlotsRequest;
use super::sound;
use super::state::read_map_snapshot;
use super::tasks::check_proposed;
use super::visit::wait_in;
use super::wake::Cause;
use super::wire::{Batch, Body, EPOCH, HOPS_MAX, Many, RaftRequest, Request, Response, Subject};

/// The longest that a request of another node may keep this one busy, in milliseconds.
const WITHIN_MS_MAX: u64 = 60_000;

/// A value of a map up to this size may be in the log in vain.
const VAIN_BYTES_MAX: usize = 1024;

/// What no honest node proposes: it would fit into a proposal, but not into a log that others
/// can be sent.
fn check(group: GroupId, command: &Command) -> Result<(), &'static str> {
    match (group.kind(), command.slot().len()) {
        (Kind::Cell | Kind::Tasks | Kind::Jobs, 0) | (Kind::Map, 1..=SLOT_BYTES_MAX) => {}
        (Kind::Cell | Kind::Tasks | Kind::Jobs, _) => return Err("a cell has one slot"),
        (Kind::Map, _) => return Err("a slot's name is empty or too long"),
    }
    match command {
        Command::Task(step) if group.is_tasks() => check_proposed(step),
        Command::Task(_) => Err("there are no tasks in this group"),
        _ if group.is_tasks() => Err("there are tasks alone in this group"),
        Command::Job(step) if group.is_jobs() => jobs::check_proposed(step),
        Command::Job(_) => Err("there are no jobs in this group"),
        _ if group.is_jobs() => Err("there are jobs alone in this group"),
        Command::Set { proposal, .. } if proposal.value.len() > VALUE_BYTES_CAP => {
            Err("the value is larger than any cell may hold")
        }
        Command::Set { proposal, .. } if !sound::is_offered(proposal) => {
            Err("the value is not the one that was proposed")
        }
        _ => Ok(()),
    }
}

/// What nobody but a voter has a reason to send.
fn is_of_voters(body: &Body) -> bool {
    match body {
        Body::Raft(_) | Body::Status | Body::Durable | Body::Decided { .. } => true,
        Body::Propose { .. }
        | Body::Settle { .. }
        | Body::Barrier { .. }
        | Body::Tasks { .. }
        | Body::TaskChanges { .. }
        | Body::Jobs { .. }
        | Body::JobChanges { .. } => false,
        Body::Slots { request, .. } => request.is_of_voters(),
    }
}

fn are_of_voters(many: &Many) -> bool {
    match many {
        Many::Status(_) | Many::Update(_) | Many::Orphaned => true,
        Many::Subscribe(_)
        | Many::Rescope(_)
        | Many::Unsubscribe(_)
        | Many::Ping
        | Many::Doubt { .. } => false,
    }
}

/// As a node would that took what it is sent for decided.
fn show(group: &Group, message: &RaftRequest) {
    let RaftRequest::Append { entries, .. } = message else {
        return;
    };
    for entry in entries {
        if let StoredPayload::Command(Command::Set { proposal, .. }) = &entry.payload {
            let version = Version::new(entry.at.index);
            let proposal = proposal.clone();
            let record = Arc::new(Record { proposal, version });
            group.view.observe(version, Some(&record));
        }
    }
}

impl Directory {
    /// Answers one request of an admitted peer, if it is one.
    pub(crate) fn answer(
        self: &Arc<Self>,
        peer: NodeId,
        request: Result<Request, MalformedError>,
    ) -> impl Future<Output = Vec<u8>> + Send + use<> {
        let this = self.clone();
        async move {
            let answer = match request {
                Ok(request) if request.epoch != EPOCH => {
                    Err(format!("epoch {} is not known here", request.epoch))
                }
                Ok(request) => this.handle(peer, request).await,
                Err(error) => {
                    tracing::warn!(%peer, %error, "refused a frame");
                    Err(error.to_string())
                }
            };
            let response = answer.unwrap_or_else(|reason| Response::Refused { reason });
            response.encode()
        }
    }

    /// The answer, or why there is none.
    async fn handle(self: &Arc<Self>, peer: NodeId, request: Request) -> Result<Response, String> {
        let is_of_voters = match &request.subject {
            Subject::One(_, body) => is_of_voters(body),
            Subject::Many(many) => are_of_voters(many),
        };
        if is_of_voters && !self.peers().voters().contains(&peer) {
            return Err("only voters may send this".into());
        }
        match request.subject {
            Subject::One(group, body) => self.handle_one(peer, group, body).await,
            Subject::Many(many) => Box::pin(self.handle_many(peer, many)).await,
        }
    }

    async fn handle_many(self: &Arc<Self>, peer: NodeId, many: Many) -> Result<Response, String> {
        match many {
            Many::Update(updates) => return Ok(self.answer_update(updates)),
            Many::Orphaned => {
                self.orphaned_by(peer);
                return Ok(Response::Done);
            }
            Many::Ping => return Ok(Response::Done),
            Many::Doubt { voter } => {
                Box::pin(self.doubted(voter)).await;
                return Ok(Response::Done);
            }
            _ => {}
        }
        // What follows is for voters that may vote.
        self.store()?;
        Ok(match many {
            Many::Status(groups) => {
                let mut standings = Vec::with_capacity(groups.len());
                for id in groups.into_vec() {
                    let standing = match self.visit(peer, id) {
                        Ok(group) => self.standing(&group).await,
                        Err(_) => None,
                    };
                    standings.push(standing.map(|(standing, _)| standing));
                }
                Response::Standings(Batch::new(standings))
            }
            Many::Subscribe(wishes) => Box::pin(self.answer_subscribe(peer, wishes)).await,
            Many::Rescope(wishes) => self.answer_rescope(peer, wishes),
            Many::Unsubscribe(ends) => self.answer_unsubscribe(peer, ends),
            Many::Update(_) | Many::Orphaned | Many::Ping | Many::Doubt { .. } => Response::Unclear,
        })
    }

    async fn handle_one(
        self: &Arc<Self>,
        peer: NodeId,
        id: GroupId,
        body: Body,
    ) -> Result<Response, String> {
        let deadline =
            |within_ms: u64| Instant::now() + Duration::from_millis(within_ms.min(WITHIN_MS_MAX));
        if let Body::Propose { hops_left, .. }
        | Body::Settle { hops_left, .. }
        | Body::Tasks { hops_left, .. }
        | Body::Jobs { hops_left, .. }
        | Body::Slots {
            request: SlotsRequest::Settle { hops_left, .. },
            ..
        } = body
            && hops_left > HOPS_MAX
        {
            // Each hop may ask several voters: they multiply.
            return Err(format!(
                "no request is handed on more than {HOPS_MAX} times"
            ));
        }
        // All of this is for voters that may vote.
        self.store()?;
        let group = self.visit(peer, id)?;
        let served = match body {
            Body::Raft(message) => {
                if let Err(reason) = self.check_message(&group, &message) {
                    tracing::warn!(%peer, group = ?id, reason, "refused a message of Raft");
                    return Err(reason);
                }
                if planted(Bug::UncommittedShown) {
                    show(&group, &message);
                }
                if let Some(taken) = Box::pin(self.take_first(&group, peer, &message)).await? {
                    return Ok(Response::Raft(taken));
                }
                let replica = self.wake(&group).await?;
                if matches!(message, RaftRequest::Vote { pre: true, .. }) {
                    Box::pin(self.free_of_lost_leader(&replica, peer)).await;
                }
                return replica.answer(message).await.map(Response::Raft);
            }
            Body::Status => {
                let status = self.own_status(&group).await;
                return status.ok_or_else(|| "the stored state is not readable".into());
            }
            Body::Durable => return self.durable_status(id),
            Body::Decided { vote } => {
                return Box::pin(self.take_decided(&group, peer, vote)).await;
            }
            Body::Propose {
                command,
                hops_left,
                within_ms,
            } => {
                check(id, &command)?;
                self.counts.proposals_of_others.one();
                let Some(_waiting) = wait_in(&self.proposed, &command) else {
                    self.counts.refused_proposed_bytes.one();
                    return Ok(Response::Elsewhere { hint: None });
                };
                tracing::debug!(group = ?id, %command, %peer, hops_left, "asked to commit");
                let asked = Ask::Commit(command);
                let from = Some(peer);
                let within = deadline(within_ms);
                Box::pin(self.serve(&group, asked, hops_left, within, from)).await
            }
            Body::Settle {
                hops_left,
                within_ms,
            } => {
                let from = Some(peer);
                let (asked, within) = (Ask::Settle(Slot::new()), deadline(within_ms));
                Box::pin(self.serve(&group, asked, hops_left, within, from)).await
            }
            Body::Barrier { within_ms } => {
                let passed = Box::pin(self.barrier(&group, deadline(within_ms))).await;
                passed.ok().map(Response::State)
            }
            Body::Slots { at_least, request } => {
                Box::pin(self.answer_slots(&group, at_least, request, Some(peer))).await?
            }
            Body::Tasks {
                query,
                hops_left,
                within_ms,
            } => {
                query.check(id)?;
                let (asked, within) = (Ask::Tasks(query), deadline(within_ms));
                Box::pin(self.serve(&group, asked, hops_left, within, Some(peer))).await
            }
            Body::Jobs {
                query,
                hops_left,
                within_ms,
            } => {
                query.check(id)?;
                let (asked, within) = (Ask::Jobs(query), deadline(within_ms));
                Box::pin(self.serve(&group, asked, hops_left, within, Some(peer))).await
            }
            Body::JobChanges { after } => {
                let answer = self.answer_job_changes(&group, after)?;
                Some(Response::Jobs(answer))
            }
            Body::TaskChanges { after } => {
                let answer = Box::pin(self.answer_task_changes(&group, after)).await?;
                Some(Response::Tasks(answer))
            }
        };
        Ok(served.unwrap_or(Response::Unclear))
    }

    /// Why openraft is not to see this message.
    fn check_message(&self, group: &Group, message: &RaftRequest) -> Result<(), String> {
        let kind = group.id().kind();
        sound::check_message(message, self.peers().voters(), kind)?;
        if let RaftRequest::Snapshot { data, .. } = message
            && kind == Kind::Map
            && !planted(Bug::SnapshotUnfilled)
        {
            // It says which state to go on from, and does not bring it.
            let (version, _) = read_map_snapshot(data).map_err(|error| error.to_string())?;
            let filled = self.ledger(group)?.filled();
            if filled.map_err(|error| error.to_string())? < version {
                return Err("not all slots of the snapshot are here".into());
            }
        }
        Ok(())
    }

    /// Commits on this voter, or hands on to one that can. `None` if it is unclear what became
    /// of it.
    pub(super) async fn serve(
        self: &Arc<Self>,
        group: &Arc<Group>,
        ask: Ask,
        hops_left: u8,
        deadline: Instant,
        from: Option<NodeId>,
    ) -> Option<Response> {
        if self.is_overloaded() {
            self.counts.refused_disk_queue.one();
            return Some(Response::Elsewhere { hint: None });
        }
        if let Some(born) = Box::pin(self.bear(group, &ask, from, deadline)).await {
            return Some(born);
        }
        let first = match &ask {
            Ask::Commit(command @ Command::Set { .. }) => Some(command),
            _ => None,
        };
        let cause = Cause::Ask {
            first,
            settles: matches!(ask, Ask::Settle(_)),
            from,
        };
        let (replica, leads_by_birth) = match self.wake_for(group, cause).await {
            Ok(woken) => woken,
            Err(reason) => return Some(Response::Refused { reason }),
        };
        if leads_by_birth && let Some(committed) = self.first_committed(group, &ask, deadline).await
        {
            return Some(committed);
        }
        let ask = self.without_vain_value(group, ask);
        let me = self.peers().me();
        // Voters that could not be reached or did not answer as leaders: they do not count as such.
        // Nor does whoever hands on for the last time: a leader would not. One that has lost its last
        // entry hands over to the voter that still holds it, which may know no other leader than it.
        let mut failed: Vec<NodeId> = from.into_iter().filter(|_| hops_left == 0).collect();
        // Whoever asks is handed back to once, for its longer log: it may know better whom to ask.
        let mut asker = from;
        let mut broke = false;
        loop {
            let known = replica.leader().filter(|leader| *leader != me);
            if let Some(leader) = known.filter(|_| !replica.leads())
                && !failed.contains(&leader)
                && !self.peers().is_live(leader)
                && hops_left > 0
            {
                // It may live and be seen by others; electing ourselves would depose it.
                failed.push(leader);
                let relays = self.peers().linked_voters().into_iter();
                for relay in relays.filter(|relay| self.peers().is_live(*relay)) {
                    let patience =
                        deadline.min(Instant::now() + ask.patience(ATTEMPT, hops_left - 1));
                    let answer = self.ask(relay, group, &ask, hops_left - 1, patience).await;
                    if answer.as_ref().is_ok_and(Response::is_of_leader) {
                        return answer.ok();
                    }
                }
            }
            let election = deadline.min(Instant::now() + ATTEMPT);
            let may_lead = |voter: NodeId| !failed.contains(&voter) && self.peers().is_live(voter);
            match replica.find_leader(election, asker, may_lead).await {
                Lead::Me => {
                    return Some(match ask {
                        Ask::Commit(Command::Task(step)) => {
                            Box::pin(self.lead_step(&replica, step, deadline)).await
                        }
                        Ask::Commit(Command::Job(step)) => {
                            Box::pin(self.lead_job(&replica, step, deadline)).await
                        }
                        Ask::Jobs(query) => {
                            Box::pin(self.lead_jobs_query(&replica, query, deadline)).await
                        }
                        Ask::Commit(command) => replica.write(command, deadline).await,
                        Ask::Settle(slot) => replica.settle(&slot, deadline).await,
                        Ask::Tasks(query) => {
                            Box::pin(self.lead_query(&replica, query, deadline)).await
                        }
                    });
                }
                Lead::Other(leader) if hops_left > 0 => {
                    let patience =
                        deadline.min(Instant::now() + ask.patience(ATTEMPT, hops_left - 1));
                    match self.ask(leader, group, &ask, hops_left - 1, patience).await {
                        Ok(answer) if answer.is_of_leader() => return Some(answer),
                        // A link that is replaced by another loses what is under way.
                        Err(NoAnswer::Link) if !broke && self.peers().is_live(leader) => {
                            broke = true;
                        }
                        _ => {
                            asker = asker.filter(|asker| *asker != leader);
                            failed.push(leader);
                        }
                    }
                }
                Lead::Other(leader) => {
                    return Some(Response::Elsewhere { hint: Some(leader) });
                }
                Lead::Nobody => return Some(Response::Elsewhere { hint: None }),
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    /// A candidate asks whether it may be elected. While this voter's lease lasts it would say no,
    /// also if the leader is gone: so look.
    async fn free_of_lost_leader(self: &Arc<Self>, replica: &Replica, candidate: NodeId) {
        let leader = replica.leader();
        let other = leader.filter(|leader| *leader != candidate && *leader != self.peers().me());
        if let Some(leader) = other
            && !self.is_heard(leader).await
        {
            replica.free_of(leader).await;
        }
    }

    /// A slot that is known to be decided needs no other value in the log. To look a map's slot up
    /// costs more than to write a small value.
    fn without_vain_value(&self, group: &Group, ask: Ask) -> Ask {
        let Ask::Commit(Command::Set { slot, proposal }) = &ask else {
            return ask;
        };
        let is_decided = match group.id().is_map() {
            false => group.view.record().is_some(),
            true if proposal.value.len() <= VAIN_BYTES_MAX => false,
            true => {
                let ledger = self.ledger(group).ok();
                ledger.is_some_and(|ledger| matches!(ledger.get(slot), Ok(Some(_))))
            }
        };
        if !is_decided {
            return ask;
        }
        Ask::Commit(Command::Touch {
            slot: slot.clone(),
            id: proposal.id,
        })
    }

    /// What became of the command that a newborn group's log begins with: `None` if something
    /// else was decided, or nothing for a while. Then it is proposed like any other: once more,
    /// perhaps, under the same id.
    async fn first_committed(
        &self,
        group: &Group,
        first: &Ask,
        deadline: Instant,
    ) -> Option<Response> {
        let Ask::Commit(command) = first else {
            return None;
        };
        let mut versions = group.view.versions();
        let decided = versions.wait_for(|version| *version > Version::ZERO);
        let patience = deadline.min(Instant::now() + first.patience(ATTEMPT, 0));
        timeout_at(patience, decided).await.ok()?.ok()?;
        let record = match group.id().is_map() {
            true => self.ledger(group).ok()?.get(command.slot()).ok()??,
            false => group.view.record()?.clone(),
        };
        let reply = Reply {
            record: Some(record.clone()),
            ..Reply::at(record.version)
        };
        (Some(record.proposal.id) == command.id()).then(|| Response::Committed {
            reply,
            leader: self.peers().me(),
        })
    }
}
