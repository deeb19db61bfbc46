//! Getting a command to whoever can commit it: the origin's side. It goes to the known leader,
//! else to the voters in the group's preference order, so that contenders on all nodes meet at
//! one candidate. It is retried, the same proposal each time, until it is committed or time is up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::id::NodeId;
use crate::machine::{Command, Reply, Slot};
use crate::metrics::Counts;

use super::ATTEMPT;
use super::directory::{Directory, Group};
use super::jobs::JobsQuery;
use super::slots::SlotsRequest;
use super::tasks::TasksQuery;
use super::wire::{Body, HOPS_MAX, Request, Response, State};

/// What may be asked of a group's leader.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Commit(Command),
    /// And say what stands in this slot then.
    Settle(Slot),
    /// About the tasks of a namespace.
    Tasks(TasksQuery),
    /// About the jobs of a namespace.
    Jobs(JobsQuery),
}

impl Ask {
    fn body(&self, hops_left: u8, deadline: Instant) -> Body {
        let within = deadline.saturating_duration_since(Instant::now());
        let within_ms = within.as_millis().try_into().unwrap_or(u64::MAX);
        match self {
            Self::Commit(command) => Body::Propose {
                command: command.clone(),
                hops_left,
                within_ms,
            },
            Self::Tasks(query) => Body::Tasks {
                query: query.clone(),
                hops_left,
                within_ms,
            },
            Self::Jobs(query) => Body::Jobs {
                query: query.clone(),
                hops_left,
                within_ms,
            },
            Self::Settle(slot) if slot.is_empty() => Body::Settle {
                hops_left,
                within_ms,
            },
            Self::Settle(slot) => Body::of_slots(SlotsRequest::Settle {
                slot: slot.clone(),
                hops_left,
                within_ms,
            }),
        }
    }
}

/// How fast a link is taken to be at least: large values get more time on it.
pub(super) const LINK_BYTES_PER_MS: u64 = 4 * 1024;

impl Ask {
    /// How long another node is given to see to it: the value may travel there, on with each hop
    /// that is left, and to the followers.
    pub(super) fn patience(&self, least: Duration, hops_left: u8) -> Duration {
        let bytes = match self {
            Self::Commit(Command::Set { proposal, .. }) => proposal.value.len() as u64,
            Self::Commit(Command::Touch { .. } | Command::Task(_) | Command::Job(_))
            | Self::Settle(_)
            | Self::Tasks(_)
            | Self::Jobs(_) => 0,
        };
        let transfers = u64::from(hops_left) + 2;
        least + Duration::from_millis(transfers * bytes / LINK_BYTES_PER_MS)
    }
}

/// Why another voter did not answer. It may have done what it was asked all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The link failed under the question; it says little about the voter.
    Link,
    /// Not in time, or nothing that can be understood.
    Late,
}

/// Not committed in time; it may be committed later all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unconfirmed;

/// A proposal of this node's own program, which counts as not confirmed also if it is given up.
pub(super) struct Counted<'a> {
    counts: &'a Counts,
    pub(super) is_committed: bool,
}

impl<'a> Counted<'a> {
    pub(super) fn new(counts: &'a Counts) -> Self {
        counts.proposals.one();
        Self {
            counts,
            is_committed: false,
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        match self.is_committed {
            true => self.counts.proposals_committed.one(),
            false => self.counts.proposals_unconfirmed.one(),
        }
    }
}

impl Directory {
    /// Commits `command` and takes in what it brought about.
    pub(crate) async fn propose(
        self: &Arc<Self>,
        group: &Arc<Group>,
        command: Command,
        deadline: Instant,
    ) -> Result<Reply, Unconfirmed> {
        tracing::debug!(group = ?group.id(), %command, "proposed");
        let proposal = command.id();
        let mut counted = Counted::new(&self.counts);
        match self.route(group, &Ask::Commit(command), deadline).await {
            Some(Response::Committed { reply, leader }) => {
                counted.is_committed = true;
                tracing::debug!(group = ?group.id(), version = %reply.version, ?proposal, %leader, "committed");
                // The view of a cell is that of its one slot.
                match group.id().is_map() {
                    true => group.view.observe_here(reply.version),
                    false => group.view.observe(reply.version, reply.record.as_ref()),
                }
                Ok(reply)
            }
            _ => Err(Unconfirmed),
        }
    }

    /// Has a leader commit whatever may be committed.
    pub(super) async fn settle(
        self: &Arc<Self>,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Result<State, Unconfirmed> {
        match self.route(group, &Ask::Settle(Slot::new()), deadline).await {
            Some(Response::State(state)) => Ok(state),
            _ => Err(Unconfirmed),
        }
    }

    pub(super) async fn route(
        self: &Arc<Self>,
        group: &Arc<Group>,
        ask: &Ask,
        deadline: Instant,
    ) -> Option<Response> {
        let mut hint = None;
        let mut failed: Vec<NodeId> = Vec::new();
        let mut reachable = *self.reachable.borrow();
        loop {
            let next = match self.first_choice(group, hint.take()) {
                Some(choice) if !failed.contains(&choice) => Some(choice),
                _ => self
                    .candidates(group)
                    .into_iter()
                    .find(|candidate| !failed.contains(candidate)),
            };
            let Some(next) = next else {
                // All were tried: pause, unless another can be reached by now, and begin again.
                failed.clear();
                let pause = Duration::from_millis(10 + self.peers().jitter_ms(40));
                let resume = Instant::now() + pause;
                if resume >= deadline {
                    return None;
                }
                let mut changes = self.reachable.subscribe();
                let changed = changes.wait_for(|times| *times != reachable);
                if let Ok(Ok(times)) = timeout_at(resume, changed).await {
                    reachable = *times;
                }
                continue;
            };
            let response = if next == self.peers().me() {
                self.serve(group, ask.clone(), HOPS_MAX, deadline, None)
                    .await
            } else {
                let patience =
                    deadline.min(Instant::now() + ask.patience(2 * ATTEMPT, HOPS_MAX - 1));
                let asked = self.ask(next, group, ask, HOPS_MAX - 1, patience).await;
                asked.ok()
            };
            match response {
                Some(Response::Committed { reply, leader }) => {
                    group.set_leader(leader);
                    group.trouble.note(None);
                    return Some(Response::Committed { reply, leader });
                }
                Some(answer @ (Response::State(_) | Response::Tasks(_) | Response::Jobs(_))) => {
                    return Some(answer);
                }
                Some(Response::Refused { reason }) => {
                    tracing::debug!(group = ?group.id(), voter = %next, reason, "refused");
                    failed.push(next);
                    group.trouble.note(Some(reason));
                }
                Some(Response::Elsewhere { hint: elsewhere }) => {
                    failed.push(next);
                    hint = elsewhere;
                }
                other => {
                    tracing::debug!(group = ?group.id(), voter = %next, ?other, "no answer");
                    failed.push(next);
                }
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    fn is_reachable(&self, voter: NodeId) -> bool {
        voter == self.peers().me() || self.peers().is_linked(voter)
    }

    /// Whom to ask first: who is said to lead.
    fn first_choice(&self, group: &Group, hint: Option<NodeId>) -> Option<NodeId> {
        let said = hint.or_else(|| group.leader());
        said.filter(|voter| self.peers().is_live(*voter))
    }

    /// Whom to ask else, by preference. A leader that is known but not live is looked for
    /// through the others, this node last: electing oneself would depose it.
    fn candidates(&self, group: &Group) -> Vec<NodeId> {
        let me = self.peers().me();
        let mut order = self.peers().order(&group.id());
        order.retain(|voter| self.is_reachable(*voter));
        let is_live = |voter: NodeId| self.peers().is_live(voter);
        if group.leader().is_some_and(|leader| !is_live(leader)) {
            order.sort_by_key(|voter| *voter == me);
        }
        // Whoever is suspected may be there all the same.
        order.sort_by_key(|voter| !is_live(*voter));
        order
    }

    /// Asks one voter.
    pub(super) async fn ask(
        &self,
        voter: NodeId,
        group: &Group,
        ask: &Ask,
        hops_left: u8,
        deadline: Instant,
    ) -> Result<Response, NoAnswer> {
        let request = Request::new(group.id(), ask.body(hops_left, deadline));
        let call = self.peers().call(voter, request.encode());
        let hearing = self.peers().hearing(voter);
        let suspected = async {
            match &hearing {
                Some(hearing) => hearing.suspected().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = timeout_at(deadline, call) => match answer {
                Ok(Ok(frame)) => Response::decode(&frame).map_err(|_| NoAnswer::Late),
                Ok(Err(_)) => Err(NoAnswer::Link),
                Err(_) => Err(NoAnswer::Late),
            },
            () = suspected => Err(NoAnswer::Late),
        }
    }
}
