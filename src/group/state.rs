//! openraft's state machine: applies committed commands to the [`Machine`], hands what was
//! decided to the node's [`View`], and keeps the log short.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, StoredMembership as OpenraftMembership};
use tokio::sync::Notify;

use crate::codec::{self, MalformedError};
use crate::failpoint;
use crate::id::{NodeId, Version};
use crate::machine::{Machine, Reply};
use crate::probe;

use super::disk::{Applied, Disk, Held};
use super::lease::Lease;
use super::raft::{
    LogId, LogPosition, Snapshot, SnapshotMeta, StoredElectorate, StoredEntry, StoredMembership,
    StoredSnapshotMeta, Types,
};
use super::view::View;

const SNAPSHOT_VERSION: u8 = 1;

/// The most log entries that a group keeps behind its last snapshot.
pub(crate) const LOG_ENTRIES_MAX: u64 = 64;

/// Applies one group's log.
pub(crate) struct State {
    me: NodeId,
    disk: Arc<Disk>,
    view: Arc<View>,
    /// Told when the log has grown beyond [`LOG_ENTRIES_MAX`].
    long: Arc<Notify>,
    built: Option<Snapshot>,
    _lease: Lease,
}

impl State {
    pub(crate) fn new(
        me: NodeId,
        disk: Arc<Disk>,
        view: Arc<View>,
        long: Arc<Notify>,
        lease: Lease,
    ) -> Self {
        Self {
            me,
            disk,
            view,
            long,
            built: None,
            _lease: lease,
        }
    }
}

fn snapshot_of(held: &Held) -> Snapshot {
    Snapshot {
        meta: SnapshotMeta::from(&StoredSnapshotMeta {
            at: held.applied.at,
            electorate: held.electorate.clone(),
        }),
        snapshot: write_snapshot(held.applied.version, &held.machine).into(),
    }
}

pub(super) fn write_snapshot(version: Version, machine: &Machine) -> Vec<u8> {
    codec::encode(SNAPSHOT_VERSION, &(version, machine))
}

/// What [`write_snapshot`] has written.
pub(super) fn read_snapshot(bytes: &[u8]) -> Result<(Version, Machine), MalformedError> {
    codec::decode(SNAPSHOT_VERSION, bytes)
}

/// A view of the state at the moment it was asked for.
pub(crate) struct Builder(Snapshot);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Arc<[u8]>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(self.0.clone())
    }
}

impl RaftStateMachine<Types> for State {
    type SnapshotData = Arc<[u8]>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let held = self.disk.held();
        let membership: StoredMembership = match &held.electorate {
            StoredElectorate { at: None, voters } if voters.is_empty() => {
                OpenraftMembership::default()
            }
            electorate => electorate.into(),
        };
        Ok((held.applied.at.map(Into::into), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut replies = Vec::new();
        let mut new = Vec::new();
        let mut observed = None;
        let mut commands = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let at = LogPosition::from(&entry.log_id);
            probe::applied(self.me, self.disk.group, at.index, at.term, || {
                let payload = StoredEntry::from(&entry).payload;
                *blake3::hash(&codec::encode(SNAPSHOT_VERSION, &payload)).as_bytes()
            });
            let mut held = self.disk.held();
            // Entries are applied in order, each once: the log may not skip or repeat.
            assert!(
                held.applied
                    .at
                    .is_none_or(|applied| applied.index < at.index),
                "group {}: applying {at:?} behind {:?}",
                self.disk.group,
                held.applied
            );
            held.applied.at = Some(at);
            let version = Version::new(at.index);
            let reply = match &entry.payload {
                EntryPayload::Blank => Reply {
                    version,
                    record: None,
                },
                EntryPayload::Normal(command) => {
                    tracing::debug!(group = ?self.disk.group, %command, %version, "applied");
                    held.applied.version = version;
                    commands += 1;
                    let reply = held.machine.apply(version, command);
                    if let Some(record) = reply.record.as_ref().filter(|r| r.version == version) {
                        new.push((command.slot().to_vec(), record.clone()));
                    }
                    // The view is that of the one slot of a cell.
                    observed = Some((version, held.machine.get(&[]).cloned()));
                    reply
                }
                EntryPayload::Membership(membership) => {
                    let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                    self.disk.save_electorate(&mut held, (&stored).into());
                    Reply {
                        version,
                        record: None,
                    }
                }
            };
            if let Some(responder) = responder {
                replies.push((responder, reply));
            }
        }
        failpoint::hit("group.before_apply");
        let log_length = {
            let mut held = self.disk.held();
            self.disk.save_applied(&mut held, &new);
            held.entries.len() as u64
        };
        failpoint::hit("group.after_apply");
        self.disk.counts().commands_applied.add(commands);
        self.disk.counts().decisions.add(new.len() as u64);
        if let Some((version, record)) = observed {
            self.view.observe(version, record.as_ref());
        }
        for (responder, reply) in replies {
            responder.send(reply);
        }
        if log_length > LOG_ENTRIES_MAX {
            self.long.notify_one();
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        let snapshot = snapshot_of(&self.disk.held());
        self.built = Some(snapshot.clone());
        Builder(snapshot)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Arc<[u8]>,
    ) -> Result<(), io::Error> {
        let (version, machine) = read_snapshot(&snapshot).map_err(io::Error::other)?;
        let stored = StoredSnapshotMeta::from(meta);
        let applied = Applied {
            at: stored.at,
            version,
        };
        let record = machine.get(&[]).cloned();
        self.disk
            .install(applied, stored.electorate, machine)
            .await?;
        self.built = Some(Snapshot {
            meta: meta.clone(),
            snapshot,
        });
        self.view.observe(version, record.as_ref());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        if self.built.is_none() {
            let held = self.disk.held();
            // What was purged can only be had from a snapshot, and the state itself is one.
            if held.purged.is_some() {
                self.built = Some(snapshot_of(&held));
            }
        }
        Ok(self.built.clone())
    }
}
