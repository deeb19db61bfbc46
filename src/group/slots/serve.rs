//! Answering what other nodes, and this one, ask about slots: the voter's side.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::directory::{Directory, Group};
use super::super::route::Ask;
use super::super::sound;
use super::super::wire::Response;
use super::ledger::Ledger;
use super::{Decided, SlotsRequest, SlotsResponse};
use crate::id::{NodeId, Version};
use crate::machine::SLOT_BYTES_MAX;

/// The longest that a request of another node may keep this one busy, in milliseconds.
const WITHIN_MS_MAX: u64 = 60_000;

/// How long a voter that has not applied what the asker knows of waits for it, in milliseconds,
/// before it sends the asker elsewhere.
const BEHIND_MS: u64 = 100;

impl SlotsRequest {
    /// Nobody but a voter has a reason to send it.
    pub(in super::super) fn is_of_voters(&self) -> bool {
        match self {
            Self::Status { .. } | Self::Filled | Self::Fill { .. } => true,
            Self::Get { .. }
            | Self::Barrier { .. }
            | Self::Settle { .. }
            | Self::Page { .. }
            | Self::Changes { .. }
            | Self::Count => false,
        }
    }
}

/// Why this is not a piece of a map's history.
fn check_fill(after: Version, upto: Version, slots: &[Decided]) -> Result<(), &'static str> {
    let mut before = after;
    for (slot, record) in slots {
        if slot.is_empty() || slot.len() > SLOT_BYTES_MAX {
            return Err("a slot of no map");
        }
        if record.version <= before || record.version > upto {
            return Err("the slots are not a piece of a history");
        }
        if !sound::is_offered(&record.proposal) {
            return Err("a decided value is not the one that was proposed");
        }
        before = record.version;
    }
    Ok(())
}

impl Directory {
    /// The map's slots on this voter's disk, and above it.
    pub(in super::super) fn ledger(&self, group: &Group) -> Result<Ledger, String> {
        if !group.id().is_map() {
            return Err("a cell has one slot".into());
        }
        let store = self.store()?;
        match group.awake() {
            Some(replica) => Ok(replica.ledger().clone()),
            None => Ledger::at_rest(store, group.id()).map_err(|error| error.to_string()),
        }
    }

    /// The answer to a node that asks about slots; `None` if it could not be had in time.
    pub(in super::super) async fn answer_slots(
        self: &Arc<Self>,
        group: &Arc<Group>,
        at_least: Version,
        request: SlotsRequest,
        from: Option<NodeId>,
    ) -> Result<Option<Response>, String> {
        let ledger = self.ledger(group)?;
        let reached = ledger.reaches(at_least);
        let patience = Duration::from_millis(BEHIND_MS);
        if tokio::time::timeout(patience, reached).await.is_err() {
            let hint = group.leader();
            return Ok(Some(Response::Elsewhere { hint }));
        }
        let failed = |error: crate::store::StoreFailed| error.to_string();
        let answer = match request {
            SlotsRequest::Status { slot } => {
                return Ok(self.own_status_of(group, &slot).await);
            }
            SlotsRequest::Get { slot } => SlotsResponse::Record(ledger.get(&slot).map_err(failed)?),
            SlotsRequest::Barrier { slot, within_ms } => {
                let within = Duration::from_millis(within_ms.min(WITHIN_MS_MAX));
                match self.barrier_of(group, &slot, Instant::now() + within).await {
                    Ok(record) => SlotsResponse::Record(record),
                    Err(_) => return Ok(None),
                }
            }
            SlotsRequest::Settle {
                slot,
                hops_left,
                within_ms,
            } => {
                let deadline = Instant::now() + Duration::from_millis(within_ms.min(WITHIN_MS_MAX));
                let ask = Ask::Settle(slot);
                return Ok(self.serve(group, ask, hops_left, deadline, from).await);
            }
            SlotsRequest::Page { range } => {
                let (slots, next) = ledger.page(&range).map_err(failed)?;
                SlotsResponse::Page { slots, next }
            }
            SlotsRequest::Changes { after, range } => {
                let (slots, upto) = ledger.changes(after, &range).map_err(failed)?;
                let version = ledger.version();
                SlotsResponse::Changes {
                    slots,
                    upto,
                    version,
                }
            }
            SlotsRequest::Count => SlotsResponse::Count(ledger.count()),
            SlotsRequest::Filled => SlotsResponse::Filled(ledger.filled().map_err(failed)?),
            SlotsRequest::Fill { after, upto, slots } => {
                check_fill(after, upto, &slots)?;
                let filled = ledger.fill(after, upto, &slots).await.map_err(failed)?;
                SlotsResponse::Filled(filled)
            }
        };
        Ok(Some(Response::Slots(answer)))
    }
}
