//! What clients hold: a handle on a cell, or on a map with the one slot that is meant. To a history
//! a slot is a cell like any other.

use crate::testing::Outcome;
use crate::{
    Claim, ClaimError, Error, GroupId, Network, Once, OnceConfig, OnceMap, Pending, ReadError,
};

/// Of so many cells in a row the last one is a slot of a map.
const SLOT_EVERY: u32 = 3;

#[derive(Clone)]
pub(super) enum Handle {
    Cell(Once<u64>),
    Slot(OnceMap<u32, u64>, u32),
}

pub(super) fn is_slot(cell: u32) -> bool {
    cell % SLOT_EVERY == SLOT_EVERY - 1
}

pub(super) fn open_map(network: &Network) -> OnceMap<u32, u64> {
    OnceMap::writer_with_config(network, "map", OnceConfig::new().type_name("u64"))
}

pub(super) fn open(network: &Network, cell: u32) -> Handle {
    if is_slot(cell) {
        return Handle::Slot(open_map(network), cell);
    }
    let config = OnceConfig::new().type_name("u64");
    Handle::Cell(Once::writer_with_config(
        network,
        format!("cell-{cell}"),
        config,
    ))
}

impl Handle {
    pub(super) fn group_id(&self) -> GroupId {
        match self {
            Self::Cell(cell) => cell.group_id(),
            Self::Slot(map, _) => map.group_id(),
        }
    }

    fn version(&self) -> u64 {
        match self {
            Self::Cell(cell) => cell.version().as_u64(),
            Self::Slot(map, _) => map.version().as_u64(),
        }
    }

    /// What was read, and the handle's version after it. A map's says nothing of a slot that was
    /// found empty.
    pub(super) fn saw(&self, value: Option<u64>) -> Outcome {
        let version = match (self, value) {
            (Self::Slot(..), None) => 0,
            _ => self.version(),
        };
        Outcome::Saw { value, version }
    }

    /// A look at what is known.
    pub(super) async fn read(&self) -> Result<Option<u64>, ReadError> {
        match self {
            Self::Cell(cell) => Ok(cell.read()),
            Self::Slot(map, slot) => map.get(slot).await,
        }
    }

    pub(super) async fn read_linearizable(&self) -> Result<Option<u64>, ReadError> {
        match self {
            Self::Cell(cell) => cell.read_linearizable().await,
            Self::Slot(map, slot) => map.get_linearizable(slot).await,
        }
    }

    pub(super) async fn wait(&self) -> Result<u64, ReadError> {
        match self {
            Self::Cell(cell) => cell.await_value().await,
            Self::Slot(map, slot) => map.wait(slot).await,
        }
    }

    pub(super) async fn write(&self, value: u64) -> Result<u64, Error<u64>> {
        let version = match self {
            Self::Cell(cell) => cell.write(value).await,
            Self::Slot(map, slot) => map.write(*slot, value).await,
        };
        version.map(|version| version.as_u64())
    }

    pub(super) async fn claim(&self, offer: Pending<u64>) -> Result<Claim<u64>, ClaimError<u64>> {
        match self {
            Self::Cell(cell) => cell.claim(offer).await,
            Self::Slot(map, slot) => map.claim(*slot, offer).await,
        }
    }

    pub(super) async fn get_or_init(&self, value: u64) -> Result<u64, ClaimError<u64>> {
        match self {
            Self::Cell(cell) => cell.get_or_init(|| async move { value }).await.copied(),
            Self::Slot(map, slot) => map.get_or_init(*slot, || async move { value }).await,
        }
    }
}
