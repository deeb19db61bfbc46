//! Reading slots, on behalf of this node's program: a voter reads its own, an observer asks the
//! voter it follows.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::super::ATTEMPT;
use super::super::directory::{Directory, Group};
use super::super::route::{Ask, Unconfirmed};
use super::super::wire::{Body, Request, Response};
use super::{Decided, Range, SlotsRequest, SlotsResponse};
use crate::id::Version;
use crate::machine::Record;
use crate::probe::{Bug, planted};

/// Why nothing was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// No voter answered.
    Unreached,
}

impl Directory {
    /// What this node, or the voter it follows, knows of a slot.
    pub(crate) async fn slot(
        self: &Arc<Self>,
        group: &Arc<Group>,
        slot: &[u8],
    ) -> Result<Option<Arc<Record>>, NotRead> {
        let slot = slot.to_vec();
        match self
            .ask_slots(group, group.view.version(), SlotsRequest::Get { slot })
            .await?
        {
            SlotsResponse::Record(record) => Ok(seen(group, record)),
            _ => Err(NotRead::Unreached),
        }
    }

    /// The first slots of the range by name, and where to go on.
    pub(crate) async fn slots(
        self: &Arc<Self>,
        group: &Arc<Group>,
        range: Range,
    ) -> Result<(Vec<Decided>, Option<Range>), NotRead> {
        match self
            .ask_slots(group, group.view.version(), SlotsRequest::Page { range })
            .await?
        {
            SlotsResponse::Page { slots, next } => Ok((slots, next)),
            _ => Err(NotRead::Unreached),
        }
    }

    /// The first slots of the range that were decided behind `after`, and up to which version
    /// these are all.
    pub(crate) async fn changes(
        self: &Arc<Self>,
        group: &Arc<Group>,
        after: Version,
        range: Range,
    ) -> Result<(Vec<Decided>, Version), NotRead> {
        let request = SlotsRequest::Changes { after, range };
        // Whoever has any of it will do. If that is nobody's first choice, someone is behind what
        // this node has heard of, perhaps this voter itself: nothing need be committed any more
        // that would bring it up, so others are asked.
        let mut at_least = Version::ZERO;
        loop {
            let answer = self.ask_slots(group, at_least, request.clone()).await?;
            let SlotsResponse::Changes {
                slots,
                upto,
                version,
            } = answer
            else {
                return Err(NotRead::Unreached);
            };
            group.view.observe_here(version);
            let known = group.view.version();
            if upto > after || known <= after || at_least > Version::ZERO {
                return Ok((slots, upto));
            }
            at_least = known;
        }
    }

    pub(crate) async fn slots_decided(
        self: &Arc<Self>,
        group: &Arc<Group>,
    ) -> Result<u64, NotRead> {
        match self
            .ask_slots(group, group.view.version(), SlotsRequest::Count)
            .await?
        {
            SlotsResponse::Count(count) => Ok(count),
            _ => Err(NotRead::Unreached),
        }
    }

    /// A voter asks itself. What it does not know of, another one does: nobody is told less than
    /// this node has seen.
    async fn ask_slots(
        self: &Arc<Self>,
        group: &Arc<Group>,
        at_least: Version,
        request: SlotsRequest,
    ) -> Result<SlotsResponse, NotRead> {
        let mut voters = self.reachable_in_follow_order(group);
        if self.peers().is_voter() {
            let answer = self
                .answer_slots(group, at_least, request.clone(), None)
                .await;
            match answer {
                Ok(Some(Response::Slots(answer))) => return Ok(answer),
                Ok(_) => {}
                Err(reason) => tracing::debug!(group = ?group.id(), reason, "not read here"),
            }
            let leader = group.leader();
            voters.sort_by_key(|voter| Some(*voter) != leader);
        }
        let request = Request::new(group.id(), Body::Slots { at_least, request }).encode();
        for voter in voters {
            let call = self.peers().call(voter, request.clone());
            let Ok(Ok(frame)) = timeout_at(Instant::now() + ATTEMPT, call).await else {
                continue;
            };
            if let Ok(Response::Slots(answer)) = Response::decode(&frame) {
                return Ok(answer);
            }
        }
        Err(NotRead::Unreached)
    }

    /// The record of a slot as of now: `None` means that nothing was acknowledged for it anywhere
    /// before this call.
    pub(crate) async fn barrier_of(
        self: &Arc<Self>,
        group: &Arc<Group>,
        slot: &[u8],
        deadline: Instant,
    ) -> Result<Option<Arc<Record>>, Unconfirmed> {
        if self.peers().is_voter() {
            let record = self.ask_majority_of(group, slot, deadline).await?;
            return Ok(seen(group, record));
        }
        for voter in self.reachable_in_follow_order(group) {
            let within = deadline.saturating_duration_since(Instant::now());
            let within_ms = within.as_millis().try_into().unwrap_or(u64::MAX);
            let slot = slot.to_vec();
            let request = SlotsRequest::Barrier { slot, within_ms };
            let request = Request::new(group.id(), Body::of_slots(request));
            let call = self.peers().call(voter, request.encode());
            let Ok(Ok(frame)) = timeout_at(deadline, call).await else {
                continue;
            };
            if let Ok(Response::Slots(SlotsResponse::Record(record))) = Response::decode(&frame) {
                return Ok(seen(group, record));
            }
        }
        Err(Unconfirmed)
    }

    /// As the barrier of a cell.
    async fn ask_majority_of(
        self: &Arc<Self>,
        group: &Arc<Group>,
        slot: &[u8],
        deadline: Instant,
    ) -> Result<Option<Arc<Record>>, Unconfirmed> {
        let request = SlotsRequest::Status {
            slot: slot.to_vec(),
        };
        let request = Request::new(group.id(), Body::of_slots(request)).encode();
        let patience = deadline.min(Instant::now() + ATTEMPT);
        let calls = self.peers().linked_voters().into_iter().map(|voter| {
            let call = self.peers().call(voter, request.clone());
            async move {
                let frame = timeout_at(patience, call).await.ok()?.ok()?;
                Response::decode(&frame).ok()
            }
        });
        let mut answers: FuturesUnordered<_> = calls.collect();
        let (mut answered, mut all_applied) = (0, true);
        let mut next = Some(self.own_status_of(group, slot).await);
        while let Some(answer) = next {
            if let Some(Response::Status {
                state,
                last,
                applied,
            }) = answer
            {
                if state.record.is_some() {
                    return Ok(state.record);
                }
                answered += 1;
                all_applied &= last <= applied;
            }
            if answered >= self.peers().majority() || planted(Bug::BarrierAlone) {
                break;
            }
            next = answers.next().await;
        }
        if answered < self.peers().majority() && !planted(Bug::BarrierAlone) {
            return Err(Unconfirmed);
        }
        if all_applied || planted(Bug::BarrierWithoutTails) {
            return Ok(None);
        }
        // A leader that has committed what was open knows what became of the slot.
        let settle = Ask::Settle(slot.to_vec());
        match self.route(group, &settle, deadline).await {
            Some(Response::State(state)) => Ok(state.record),
            _ => Err(Unconfirmed),
        }
    }
}

/// This node has seen what it hands on.
fn seen(group: &Group, record: Option<Arc<Record>>) -> Option<Arc<Record>> {
    if let Some(record) = &record {
        group.view.observe_here(record.version);
    }
    record
}
