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
use crate::id::{Kind, NodeId, Version};
use crate::machine::job::{self, Job};
use crate::machine::task::{Board, Changes};
use crate::machine::{Command, Machine, Reply, Slot};
use crate::probe;

use super::disk::{Applied, Disk, Held};
use super::lease::Lease;
use super::raft::{
    LogId, LogPosition, Snapshot, SnapshotMeta, StoredElectorate, StoredEntry, StoredMembership,
    StoredSnapshotMeta, Types,
};
use super::slots::{Decided, Fetched};
use super::view::View;

const SNAPSHOT_VERSION: u8 = 1;

/// The most log entries that a group keeps behind its last snapshot.
pub(crate) const LOG_ENTRIES_MAX: u64 = 64;

/// The same of maps and tasks. Of a map a snapshot is taken also after so many bytes of values.
const MAP_LOG_ENTRIES_MAX: u64 = if cfg!(test) { 24 } else { 4_096 };
const MAP_LOG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Applies one group's log.
pub(crate) struct State {
    me: NodeId,
    disk: Arc<Disk>,
    view: Arc<View>,
    /// Told when the log has grown beyond [`LOG_ENTRIES_MAX`].
    long: Arc<Notify>,
    built: Option<Snapshot>,
    /// Of values that were applied since the last snapshot of a map.
    unsaved_bytes: usize,
    _lease: Lease,
}

/// What a number of entries is applied to, and for tasks and jobs what has changed by it.
enum Slots {
    Cell,
    Map(Fetched),
    Tasks(Changes),
    Jobs(job::Changes),
}

impl State {
    fn snapshot_of(&self, held: &Held) -> Snapshot {
        let version = held.applied.version;
        let contents = match self.disk.group.kind() {
            Kind::Map => write_map_snapshot(version, self.disk.ledger().count()),
            Kind::Cell => write_snapshot(version, &held.machine),
            Kind::Tasks => write_tasks_snapshot(version, &held.board),
            Kind::Jobs => write_jobs_snapshot(version, &held.jobs),
        };
        Snapshot {
            meta: SnapshotMeta::from(&StoredSnapshotMeta {
                at: held.applied.at,
                electorate: held.electorate.clone(),
            }),
            snapshot: contents.into(),
        }
    }

    /// What is known of the slots that `entries` are about.
    fn fetch(&self, entries: &[EntryResponder<Types>]) -> Result<Slots, io::Error> {
        match self.disk.group.kind() {
            Kind::Cell => return Ok(Slots::Cell),
            Kind::Tasks => return Ok(Slots::Tasks(Changes::default())),
            Kind::Jobs => return Ok(Slots::Jobs(job::Changes::default())),
            Kind::Map => {}
        }
        let slots = entries
            .iter()
            .filter_map(|(entry, _)| match &entry.payload {
                EntryPayload::Normal(Command::Set { slot, .. } | Command::Touch { slot, .. }) => {
                    Some(slot)
                }
                _ => None,
            });
        let fetched = self.disk.ledger().fetch(slots);
        fetched.map(Slots::Map).map_err(io::Error::other)
    }

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
            unsaved_bytes: 0,
            _lease: lease,
        }
    }
}

/// What a snapshot holds beside its position.
pub(crate) enum Contents {
    Cell(Machine),
    /// Which slots they are, is known from the position.
    Map {
        count: u64,
    },
    Tasks(Board),
    Jobs(job::Board),
}

pub(super) fn write_snapshot(version: Version, machine: &Machine) -> Vec<u8> {
    codec::encode(SNAPSHOT_VERSION, &(version, machine))
}

/// What [`write_snapshot`] has written.
pub(super) fn read_snapshot(bytes: &[u8]) -> Result<(Version, Machine), MalformedError> {
    codec::decode(SNAPSHOT_VERSION, bytes)
}

/// Of a map: how many slots are decided at which version.
pub(super) fn write_map_snapshot(version: Version, count: u64) -> Vec<u8> {
    codec::encode(SNAPSHOT_VERSION, &(version, count))
}

/// What [`write_map_snapshot`] has written.
pub(super) fn read_map_snapshot(bytes: &[u8]) -> Result<(Version, u64), MalformedError> {
    codec::decode(SNAPSHOT_VERSION, bytes)
}

/// Of tasks: all of them. There are no more than a frame can hold.
pub(super) fn write_tasks_snapshot(version: Version, board: &Board) -> Vec<u8> {
    codec::encode(SNAPSHOT_VERSION, &(version, board))
}

/// What [`write_tasks_snapshot`] has written.
pub(super) fn read_tasks_snapshot(bytes: &[u8]) -> Result<(Version, Board), MalformedError> {
    codec::decode(SNAPSHOT_VERSION, bytes)
}

/// Of jobs: all of them, as of tasks.
pub(super) fn write_jobs_snapshot(version: Version, board: &job::Board) -> Vec<u8> {
    let jobs: Vec<&Arc<Job>> = board.jobs().values().collect();
    codec::encode(SNAPSHOT_VERSION, &(version, board.removed(), jobs))
}

/// What [`write_jobs_snapshot`] has written.
pub(super) fn read_jobs_snapshot(bytes: &[u8]) -> Result<(Version, job::Board), MalformedError> {
    let (version, removed, jobs): (Version, Version, Vec<Arc<Job>>) =
        codec::decode(SNAPSHOT_VERSION, bytes)?;
    Ok((version, job::Board::of(jobs, removed)))
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
        let mut new: Vec<Decided> = Vec::new();
        let mut observed = None;
        let mut batch = Vec::new();
        let mut commands = 0;
        while let Some(next) = entries.next().await {
            batch.push(next?);
        }
        let mut known = self.fetch(&batch)?;
        // Nobody is told that an entry is applied before what it decided can be read.
        let mut applied = self.disk.held().applied;
        for (entry, responder) in batch {
            let at = LogPosition::from(&entry.log_id);
            probe::applied(self.me, self.disk.group, at.index, at.term, || {
                StoredEntry::from(&entry).payload.digest()
            });
            let mut held = self.disk.held();
            // Entries are applied in order, each once: the log may not skip or repeat.
            assert!(
                applied.at.is_none_or(|applied| applied.index < at.index),
                "group {}: applying {at:?} behind {applied:?}",
                self.disk.group,
            );
            applied.at = Some(at);
            let version = Version::new(at.index);
            let reply = match &entry.payload {
                EntryPayload::Blank => Reply::at(version),
                EntryPayload::Normal(command) => {
                    tracing::debug!(group = ?self.disk.group, %command, %version, "applied");
                    applied.version = version;
                    commands += 1;
                    let reply = match &mut known {
                        Slots::Cell => held.machine.apply(version, command),
                        Slots::Map(fetched) => fetched.apply(version, command),
                        Slots::Tasks(changes) => held.apply_step(version, command, changes),
                        Slots::Jobs(changes) => held.apply_job(version, command, changes),
                    };
                    self.unsaved_bytes += command.value_bytes();
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
                    Reply::at(version)
                }
            };
            if let Some(responder) = responder {
                replies.push((responder, reply));
            }
        }
        failpoint::hit("group.before_apply");
        let decisions = new.len() as u64;
        let slots: Vec<Slot> = match self.disk.group.is_map() {
            true => new.iter().map(|(slot, _)| slot.clone()).collect(),
            false => Vec::new(),
        };
        let log_length = {
            let mut held = self.disk.held();
            held.applied = applied;
            match &known {
                Slots::Tasks(changes) => self.disk.save_tasks(&mut held, changes),
                Slots::Jobs(changes) => self.disk.save_jobs(&mut held, changes),
                Slots::Cell | Slots::Map(_) => self.disk.save_applied(&mut held, new),
            }
            held.entries.len() as u64
        };
        failpoint::hit("group.after_apply");
        self.disk.counts().commands_applied.add(commands);
        self.disk.counts().decisions.add(decisions);
        if let Some((version, record)) = observed {
            self.view.observe_applied(version, record.as_ref(), &slots);
        }
        for (responder, reply) in replies {
            responder.send(reply);
        }
        let is_long = match self.disk.group.is_cell() {
            true => log_length > LOG_ENTRIES_MAX,
            false => log_length > MAP_LOG_ENTRIES_MAX || self.unsaved_bytes > MAP_LOG_BYTES_MAX,
        };
        if is_long {
            self.unsaved_bytes = 0;
            self.long.notify_one();
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        let snapshot = self.snapshot_of(&self.disk.held());
        self.built = Some(snapshot.clone());
        Builder(snapshot)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Arc<[u8]>,
    ) -> Result<(), io::Error> {
        let (version, contents, record) = match self.disk.group.kind() {
            Kind::Tasks => {
                let (version, board) = read_tasks_snapshot(&snapshot).map_err(io::Error::other)?;
                (version, Contents::Tasks(board), None)
            }
            Kind::Jobs => {
                let (version, board) = read_jobs_snapshot(&snapshot).map_err(io::Error::other)?;
                (version, Contents::Jobs(board), None)
            }
            Kind::Map => {
                let (version, count) = read_map_snapshot(&snapshot).map_err(io::Error::other)?;
                (version, Contents::Map { count }, None)
            }
            Kind::Cell => {
                let (version, machine) = read_snapshot(&snapshot).map_err(io::Error::other)?;
                let record = machine.get(&[]).cloned();
                (version, Contents::Cell(machine), record)
            }
        };
        let stored = StoredSnapshotMeta::from(meta);
        let applied = Applied {
            at: stored.at,
            version,
        };
        self.disk
            .install(applied, stored.electorate, contents)
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
                let built = self.snapshot_of(&held);
                drop(held);
                self.built = Some(built);
            }
        }
        Ok(self.built.clone())
    }
}
