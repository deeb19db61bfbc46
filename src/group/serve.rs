//! Answering other nodes, and this one: the voter's side.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::codec::VALUE_BYTES_CAP;
use crate::id::NodeId;
use crate::machine::Command;

use super::ATTEMPT;
use super::directory::{Directory, Group};
use super::replica::Lead;
use super::route::{Ask, NoAnswer};
use super::sound;
use super::wire::{Body, EPOCH, HOPS_MAX, Request, Response};

/// The longest that a request of another node may keep this one busy, in milliseconds.
const WITHIN_MS_MAX: u64 = 60_000;

/// How long a subscriber waits for the barrier that this voter passes on its behalf.
const SUBSCRIBE_MS: u64 = 3_000;

/// What no honest node proposes: it would fit into a proposal, but not into a log that others
/// can be sent.
fn check(command: &Command) -> Result<(), &'static str> {
    if !command.slot().is_empty() {
        return Err("a cell has one slot");
    }
    match command {
        Command::Set { proposal, .. } if proposal.value.len() > VALUE_BYTES_CAP => {
            Err("the value is larger than any cell may hold")
        }
        Command::Set { proposal, .. } if !sound::is_offered(proposal) => {
            Err("the value is not the one that was proposed")
        }
        _ => Ok(()),
    }
}

impl Directory {
    /// Answers one frame of an admitted peer.
    pub(crate) async fn answer(self: &Arc<Self>, peer: NodeId, frame: &[u8]) -> Vec<u8> {
        let response = match Request::decode(frame) {
            Ok(request) if request.epoch != EPOCH => Response::Refused {
                reason: format!("epoch {} is not known here", request.epoch),
            },
            Ok(request) => self.handle(peer, request).await,
            Err(error) => {
                tracing::warn!(%peer, %error, "refused a frame");
                Response::Refused {
                    reason: error.to_string(),
                }
            }
        };
        response.encode()
    }

    async fn handle(self: &Arc<Self>, peer: NodeId, request: Request) -> Response {
        let from_voter = self.peers().voters().contains(&peer);
        let deadline =
            |within_ms: u64| Instant::now() + Duration::from_millis(within_ms.min(WITHIN_MS_MAX));
        // Each voter asks all others: with many hops one frame would become countless ones.
        let hops = |hops_left: u8| hops_left.min(HOPS_MAX);
        let refused = |reason: &str| Response::Refused {
            reason: reason.into(),
        };
        let id = request.group;
        match request.body {
            Body::Raft(_) | Body::Status if !from_voter => refused("only voters may send this"),
            Body::Update(_) | Body::Orphaned if !from_voter => refused("only voters may send this"),
            Body::Update(state) => match self.known(id) {
                Some(group) if !group.view.is_idle() => {
                    group.view.observe(state.version, state.record.as_ref());
                    Response::Done
                }
                _ => refused("not wanted any more"),
            },
            Body::Orphaned => {
                self.orphaned_by(peer);
                Response::Done
            }
            // What follows is for voters that may vote.
            _ if let Err(reason) = self.store() => Response::Refused { reason },
            Body::Raft(message) => {
                if let Err(reason) = sound::check_message(&message, self.peers().voters()) {
                    tracing::warn!(%peer, group = ?id, reason, "refused a message of Raft");
                    return refused(reason);
                }
                let group = self.group(id);
                let replica = match self.wake(&group).await {
                    Ok(replica) => replica,
                    Err(reason) => {
                        self.forget_idle(group);
                        return Response::Refused { reason };
                    }
                };
                match replica.answer(message).await {
                    Ok(response) => Response::Raft(response),
                    Err(reason) => Response::Refused { reason },
                }
            }
            Body::Status => {
                let group = self.group(id);
                let status = self.own_status(&group).await;
                self.forget_idle(group);
                status.unwrap_or_else(|| refused("the stored state is not readable"))
            }
            Body::Propose {
                command,
                hops_left,
                within_ms,
            } => {
                if let Err(reason) = check(&command) {
                    return refused(reason);
                }
                let group = self.group(id);
                tracing::debug!(group = ?id, %command, %peer, hops_left, "asked to commit");
                let asked = Ask::Commit(command);
                let served = self.serve(&group, asked, hops(hops_left), deadline(within_ms));
                let served = served.await;
                self.forget_idle(group);
                served.unwrap_or(Response::Unclear)
            }
            Body::Settle {
                hops_left,
                within_ms,
            } => {
                let group = self.group(id);
                let hops_left = hops(hops_left);
                let served = self.serve(&group, Ask::Settle, hops_left, deadline(within_ms));
                let served = served.await;
                self.forget_idle(group);
                served.unwrap_or(Response::Unclear)
            }
            Body::Barrier { within_ms } => {
                let group = self.group(id);
                let passed = self.barrier(&group, deadline(within_ms)).await;
                self.forget_idle(group);
                passed.map_or(Response::Unclear, Response::State)
            }
            Body::Subscribe { number } => {
                let group = self.group(id);
                // Registered first, read after: nothing falls in between.
                if let Err(reason) = self.subscribe(peer, number, &group) {
                    self.forget_idle(group);
                    return refused(reason);
                }
                self.follow_around_gaps(&group).await;
                match self.current(&group, deadline(SUBSCRIBE_MS)).await {
                    Ok(()) => Response::State(group.view.state()),
                    Err(_) => {
                        self.unsubscribe(peer, number, &group);
                        self.forget_idle(group);
                        Response::Unclear
                    }
                }
            }
            Body::Unsubscribe { number } => {
                let group = self.group(id);
                self.unsubscribe(peer, number, &group);
                self.forget_idle(group);
                Response::Done
            }
        }
    }

    /// Commits on this voter, or hands on to one that can. `None` if it is unclear what became
    /// of it.
    pub(super) async fn serve(
        self: &Arc<Self>,
        group: &Arc<Group>,
        ask: Ask,
        hops_left: u8,
        deadline: Instant,
    ) -> Option<Response> {
        let replica = match self.wake(group).await {
            Ok(replica) => replica,
            Err(reason) => return Some(Response::Refused { reason }),
        };
        if self.is_overloaded() {
            return Some(Response::Elsewhere { hint: None });
        }
        // A slot that is known to be decided needs no other value in the log.
        let ask = match ask {
            Ask::Commit(Command::Set { slot, proposal })
                if slot.is_empty() && group.view.record().is_some() =>
            {
                Ask::Commit(Command::Touch {
                    slot,
                    id: proposal.id,
                })
            }
            ask => ask,
        };
        let me = self.peers().me();
        // Voters that could not be reached or did not answer as leaders: they do not count as such.
        let mut failed: Vec<NodeId> = Vec::new();
        let mut broke = false;
        loop {
            let known = replica.leader().filter(|leader| *leader != me);
            if let Some(leader) = known.filter(|_| !replica.leads())
                && !failed.contains(&leader)
                && !self.peers().is_linked(leader)
                && hops_left > 0
            {
                // It may live and be seen by others; electing ourselves would depose it.
                failed.push(leader);
                for relay in self.peers().linked_voters() {
                    let patience = deadline.min(Instant::now() + ask.patience(ATTEMPT));
                    let answer = self.ask(relay, group, &ask, hops_left - 1, patience).await;
                    if let Ok(Response::Committed { .. } | Response::State(_)) = answer {
                        return answer.ok();
                    }
                }
            }
            let election = deadline.min(Instant::now() + ATTEMPT);
            let may_lead =
                |voter: NodeId| !failed.contains(&voter) && self.peers().is_linked(voter);
            match replica.find_leader(election, may_lead).await {
                Lead::Me => {
                    return Some(match &ask {
                        Ask::Commit(command) => replica.write(command.clone(), deadline).await,
                        Ask::Settle => replica.settle(deadline).await,
                    });
                }
                Lead::Other(leader) if hops_left > 0 => {
                    let patience = deadline.min(Instant::now() + ask.patience(ATTEMPT));
                    match self.ask(leader, group, &ask, hops_left - 1, patience).await {
                        Ok(answer @ (Response::Committed { .. } | Response::State(_))) => {
                            return Some(answer);
                        }
                        // A link that is replaced by another loses what is under way.
                        Err(NoAnswer::Link) if !broke && self.peers().is_linked(leader) => {
                            broke = true;
                        }
                        _ => failed.push(leader),
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
}
