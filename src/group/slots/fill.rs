//! Bringing a voter that is far behind to an older state of a map: it is sent what it has not got
//! of that state, piece by piece, and then the snapshot itself, which says only which state it is.
//!
//! A piece that arrived stays, whatever becomes of the leader, the link or the voter: each is
//! committed. So the next attempt, by whomever, goes on from there.

use std::time::Duration;

use tokio::time::timeout;

use super::super::peer::Peer;
use super::super::route::LINK_BYTES_PER_MS;
use super::super::wire::{Body, Request, Response};
use super::ledger::Ledger;
use super::{Range, SlotsRequest, SlotsResponse};
use crate::id::Version;
use crate::probe::{self, Bug, planted};

impl Peer {
    /// Sends what the voter lacks of the state at `version`. Each piece has `within`.
    pub(in super::super) async fn fill(
        &self,
        ledger: &Ledger,
        version: Version,
        within: Duration,
    ) -> Result<(), String> {
        if planted(Bug::SnapshotUnfilled) {
            return Ok(());
        }
        let mut filled = self.asked(SlotsRequest::Filled, within).await?;
        while filled < version {
            let (mut slots, upto) = ledger
                .changes(filled, &Range::default())
                .map_err(|error| error.to_string())?;
            // No more than what was asked for: the rest is in the log.
            slots.retain(|(_, record)| record.version <= version);
            let upto = upto.min(version);
            let piece = SlotsRequest::Fill {
                after: filled,
                upto,
                slots,
            };
            let now = self.asked(piece, within).await?;
            if now <= filled {
                return Err("the voter does not take what it lacks".into());
            }
            probe::count("pieces of a map sent");
            filled = now;
        }
        Ok(())
    }

    async fn asked(&self, request: SlotsRequest, within: Duration) -> Result<Version, String> {
        let frame = Request::new(self.group(), Body::of_slots(request)).encode();
        let extra = Duration::from_millis(frame.len() as u64 / LINK_BYTES_PER_MS);
        let call = self.call_raw(frame);
        let reply = timeout(within + extra, call).await;
        let reply = reply.map_err(|_| "no answer in time".to_string())?;
        let reply = reply.map_err(|error| error.to_string())?;
        match Response::decode(&reply) {
            Ok(Response::Slots(SlotsResponse::Filled(version))) => Ok(version),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}
