//! Learning what stands now, without a leader: ask a majority of the voters.
//!
//! Every committed entry is in the log of at least one of any majority. So if each of them has
//! applied all of its log, nothing more can have been committed before it answered, and the
//! highest applied state is current. Only if someone holds an entry that is not applied must a
//! leader settle it. A record is final whoever has it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use crate::id::{GroupId, NodeId, Version};
use crate::machine::{Record, Slot};
use crate::probe::{Bug, planted};

use super::ATTEMPT;
use super::directory::{Directory, GROUPS_AT_ONCE, Group};
use super::newborn::until_decided;
use super::raft::LogPosition;
use super::replica::Replica;
use super::route::{Ask, Unconfirmed};
use super::wire::{Batch, Body, Many, Request, Response, Standing, State};

/// When a majority has been asked enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The value is known, if there is one.
    Final,
    /// The version is known too.
    Current,
}

/// How long a lost leader's tail is tried to be settled, in milliseconds.
const SETTLE_MS: u64 = 5_000;

/// How the barrier of one group of many ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    Current,
    /// Somebody holds what this voter has not got, or what may not be committed.
    Open,
    Unconfirmed,
}

/// What those who were asked know of one group of many.
struct Asked {
    answered: usize,
    all_applied: bool,
    version: Version,
    is_decided: bool,
    is_decided_here: bool,
}

impl Asked {
    /// What this voter knows itself.
    fn first(own: Option<Standing>) -> Self {
        let is_decided_here = own.as_ref().is_some_and(|own| own.is_decided);
        let mut asked = Self {
            answered: 0,
            all_applied: true,
            version: Version::ZERO,
            is_decided: false,
            is_decided_here,
        };
        asked.add(own);
        asked
    }

    fn add(&mut self, standing: Option<Standing>) {
        if let Some(standing) = standing {
            self.answered += 1;
            self.all_applied &= standing.last <= standing.applied;
            self.version = self.version.max(standing.version);
            self.is_decided |= standing.is_decided;
        }
    }

    fn passed(&self, majority: usize) -> Passed {
        let all_applied = self.all_applied || planted(Bug::BarrierWithoutTails);
        if self.answered < majority {
            Passed::Unconfirmed
        } else if all_applied && self.is_decided == self.is_decided_here {
            Passed::Current
        } else {
            Passed::Open
        }
    }
}

impl Directory {
    /// The current state of the group: everything committed before the call is in it.
    pub(crate) async fn barrier(
        self: &Arc<Self>,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Result<State, Unconfirmed> {
        if let Some(record) = group.view.record() {
            return Ok(State {
                version: group.view.version(),
                record: Some(record.clone()),
            });
        }
        let state = if self.peers().is_voter() {
            self.ask_majority(group, Until::Final, deadline).await?
        } else {
            self.ask_followed(group, deadline).await?
        };
        group.view.observe(state.version, state.record.as_ref());
        Ok(state)
    }

    /// As the barrier, and the version is current too: this voter has seen all that was committed
    /// before the call, ignored writes included.
    pub(super) async fn current(
        self: &Arc<Self>,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Result<(), Unconfirmed> {
        let state = self.ask_majority(group, Until::Current, deadline).await?;
        group.view.observe(state.version, state.record.as_ref());
        Ok(())
    }

    /// The barrier as a voter passes it.
    async fn ask_majority(
        self: &Arc<Self>,
        group: &Arc<Group>,
        until: Until,
        deadline: Instant,
    ) -> Result<State, Unconfirmed> {
        let request = Request::new(group.id(), Body::Status);
        let mut answers = self.ask_voters(&request, deadline);
        let mut current = State::default();
        let mut answered = 0;
        let mut all_applied = true;
        let mut next = Some(self.own_status(group).await);
        while let Some(answer) = next {
            if let Some(Response::Status {
                state,
                last,
                applied,
            }) = answer
            {
                if state.record.is_some() {
                    if until == Until::Final {
                        return Ok(state);
                    }
                    // Whoever waits for the value need not wait for the rest.
                    group.view.observe(state.version, state.record.as_ref());
                    current.record = state.record;
                }
                answered += 1;
                all_applied &= last <= applied;
                current.version = current.version.max(state.version);
            }
            if answered >= self.peers().majority() || planted(Bug::BarrierAlone) {
                return if all_applied || planted(Bug::BarrierWithoutTails) {
                    Ok(current)
                } else {
                    self.settle(group, deadline).await
                };
            }
            next = answers.next().await;
        }
        Err(Unconfirmed)
    }

    /// As [`current`](Self::current) for many groups, with one question to each other voter.
    /// What takes more than that is left to the caller.
    pub(super) async fn current_of_all(
        self: &Arc<Self>,
        groups: &[Arc<Group>],
        deadline: Instant,
    ) -> Vec<Passed> {
        if groups.is_empty() {
            return Vec::new();
        }
        if let [group] = groups {
            let passed = self.current(group, deadline).await;
            return vec![passed.map_or(Passed::Unconfirmed, |()| Passed::Current)];
        }
        let ids = groups.iter().map(|group| group.id()).collect();
        let request = Request::of_many(Many::Status(Batch::new(ids)));
        let mut answers = self.ask_voters(&request, deadline);
        let own = async {
            let mut own = Vec::with_capacity(groups.len());
            for group in groups {
                own.push(self.own_standing(group).await);
            }
            own
        };
        // Others look while this voter does.
        let (first, own) = futures::join!(answers.next(), own);
        let majority = match planted(Bug::BarrierAlone) {
            true => 1,
            false => self.peers().majority(),
        };
        let mut asked: Vec<_> = own.into_iter().map(Asked::first).collect();
        let mut next = first;
        while asked.iter().any(|asked| asked.answered < majority) {
            let Some(answer) = next else {
                break;
            };
            if let Some(Response::Standings(all)) = answer
                && all.len() == asked.len()
            {
                for (asked, standing) in asked.iter_mut().zip(all.into_vec()) {
                    if asked.answered < majority {
                        asked.add(standing);
                    }
                }
            }
            next = answers.next().await;
        }
        let passed = groups.iter().zip(asked).map(|(group, asked)| {
            let passed = asked.passed(majority);
            if passed == Passed::Current {
                group.view.observe(asked.version, None);
            }
            passed
        });
        passed.collect()
    }

    /// The answers of the other voters that are linked, as they come.
    fn ask_voters(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> FuturesUnordered<impl Future<Output = Option<Response>> + Send + use<>> {
        let request = request.encode();
        let patience = deadline.min(Instant::now() + ATTEMPT);
        let voters = self.peers().linked_voters().into_iter();
        voters
            .map(|voter| {
                let call = self.peers().call(voter, request.clone());
                async move {
                    let frame = timeout_at(patience, call).await.ok()?.ok()?;
                    Response::decode(&frame).ok()
                }
            })
            .collect()
    }

    async fn own_standing(&self, group: &Arc<Group>) -> Option<Standing> {
        let (standing, record) = self.standing(group).await?;
        // Whoever waits for the value need not wait for the rest.
        if let Some(record) = record {
            group.view.observe(standing.version, Some(&record));
        }
        Some(standing)
    }

    /// What this voter itself holds, as [`own_status`](Self::own_status).
    pub(super) async fn standing(&self, group: &Group) -> Option<(Standing, Option<Arc<Record>>)> {
        // There may be many more to look at.
        tokio::task::consume_budget().await;
        until_decided(group).await;
        let (state, last, applied) = self.held(group)?;
        let standing = Standing {
            version: state.version,
            is_decided: state.record.is_some(),
            last,
            applied,
        };
        Some((standing, state.record))
    }

    /// The state, the end of the log and how far it is applied.
    fn held(&self, group: &Group) -> Option<(State, Option<LogPosition>, Option<LogPosition>)> {
        let store = self.store().ok()?;
        match (group.awake(), group.berth.newborn()) {
            (Some(replica), _) => Some(replica.status()),
            (None, Some(newborn)) => Some(newborn.disk().status()),
            (None, None) => {
                let held = self.load_log(store, group.id()).ok()?;
                Some((held.state(), held.last(), held.applied.at))
            }
        }
    }

    /// What this voter itself holds; reads the disk if the replica sleeps, and wakes nothing.
    pub(super) async fn own_status(&self, group: &Arc<Group>) -> Option<Response> {
        self.own_status_of(group, &[]).await
    }

    /// The same, with the record of this slot.
    pub(super) async fn own_status_of(&self, group: &Arc<Group>, slot: &[u8]) -> Option<Response> {
        until_decided(group).await;
        let (mut state, last, applied) = self.held(group)?;
        if group.id().is_map() {
            // Read after: what is decided meanwhile is final.
            state.record = self.ledger(group).ok()?.get(slot).ok()?;
        }
        Some(Response::Status {
            state,
            last,
            applied,
        })
    }

    /// The same of the disk alone. A replica that is awake may have applied what its disk has not
    /// got yet.
    pub(super) fn durable_status(&self, group: GroupId) -> Result<Response, String> {
        let held = self.load_log(self.store()?, group)?;
        Ok(Response::Status {
            state: held.state(),
            last: held.last(),
            applied: held.applied.at,
        })
    }

    /// The barrier as an observer passes it: a voter passes it on its behalf.
    async fn ask_followed(
        self: &Arc<Self>,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Result<State, Unconfirmed> {
        for voter in self.reachable_in_follow_order(group) {
            let within = deadline.saturating_duration_since(Instant::now());
            let within_ms = within.as_millis().try_into().unwrap_or(u64::MAX);
            let request = Request::new(group.id(), Body::Barrier { within_ms });
            let call = self.peers().call(voter, request.encode());
            let Ok(Ok(frame)) = timeout_at(deadline, call).await else {
                continue;
            };
            if let Ok(Response::State(state)) = Response::decode(&frame) {
                return Ok(state);
            }
        }
        Err(Unconfirmed)
    }

    /// Asks a majority about each of these, and returns those of which that has yet to succeed.
    pub(super) async fn still_in_doubt(
        self: &Arc<Self>,
        groups: Vec<Arc<Group>>,
        deadline: Instant,
    ) -> Vec<Arc<Group>> {
        let passed = self.current_of_all(&groups, deadline).await;
        let all = futures::stream::iter(groups.into_iter().zip(passed));
        let asked = all.map(|(group, passed)| async move {
            let is_current = match passed {
                Passed::Current => true,
                Passed::Open => self.current(&group, deadline).await.is_ok(),
                Passed::Unconfirmed => false,
            };
            if is_current {
                return None;
            }
            group.view.doubt();
            Some(group)
        });
        let asked = asked.buffer_unordered(GROUPS_AT_ONCE);
        asked.filter_map(std::future::ready).collect().await
    }

    pub(super) fn reachable_in_follow_order(&self, group: &Group) -> Vec<NodeId> {
        let mut order = self.peers().follow_order(&group.id());
        order.retain(|voter| self.peers().is_linked(*voter));
        order
    }

    /// Settles what a lost leader left behind: finds a leader or becomes it, whose commit reaches
    /// every voter that is linked.
    pub(super) async fn settle_tail(self: Arc<Self>, replica: &Arc<Replica>) {
        let group = self.group(replica.group);
        let deadline = Instant::now() + Duration::from_millis(SETTLE_MS);
        while replica.is_unsettled() && self.peers().in_touch() && Instant::now() < deadline {
            self.serve(&group, Ask::Settle(Slot::new()), 1, deadline, None)
                .await;
            let pause = Duration::from_millis(20 + self.peers().jitter_ms(80));
            tokio::time::sleep(pause).await;
        }
    }
}
