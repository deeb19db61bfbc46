//! openraft's own checks of a storage, on ours, with the genesis of a newborn group turned off.

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio_util::sync::CancellationToken;

use super::super::disk::{Applied, Disk, Held};
use super::super::lease::Lease;
use super::super::log::Log;
use super::super::raft::{StoredElectorate, Types};
use super::super::state::State;
use super::super::view::View;
use super::GROUP;
use crate::id::Version;
use crate::store::{Store, StoreConfig};

/// A group that has neither a log nor an electorate.
fn empty() -> Held {
    Held {
        entries: Default::default(),
        applied: Applied {
            at: None,
            version: Version::ZERO,
        },
        electorate: StoredElectorate {
            at: None,
            voters: BTreeSet::new(),
        },
        born: true,
        ..Held::newborn(&BTreeSet::new(), None)
    }
}

struct Builder {
    on_disk: bool,
}

impl StoreBuilder<Types, Log, State, Option<tempfile::TempDir>> for Builder {
    async fn build(&self) -> Result<(Option<tempfile::TempDir>, Log, State), StorageError<Types>> {
        let dir = self.on_disk.then(|| tempfile::tempdir().unwrap());
        let store = match &dir {
            Some(dir) => Store::open(dir.path(), StoreConfig::default()).unwrap(),
            None => Store::in_memory(),
        };
        let disk = Arc::new(Disk::new(store, GROUP, empty()));
        let view = Arc::new(View::new(GROUP, CancellationToken::new()));
        let (lease, me) = (Lease::new().0, crate::id::NodeId::of_voter("a"));
        let state = State::new(me, disk.clone(), view, Arc::default(), lease.clone());
        Ok((dir, Log::new(disk, lease), state))
    }
}

#[tokio::test]
async fn the_storage_in_memory_passes_the_suite() {
    Suite::test_all(Builder { on_disk: false }).await.unwrap();
}

#[tokio::test]
async fn the_storage_on_disk_passes_the_suite() {
    Suite::test_all(Builder { on_disk: true }).await.unwrap();
}
