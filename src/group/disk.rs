//! One group's part of the store: what is kept, under which keys, and the copy in memory that an
//! awake replica works on.
//!
//! Keys, behind `g` and the group id: `v` vote, `e` + index log entry, `p` purge position,
//! `m` electorate, `a` applied position, `r` + slot record; or `s` alone, all of that of a cell that
//! sleeps (`seal.rs`). The keys of maps and tasks are named where they are. Every value carries a
//! version byte and an epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::codec::{self, Decode, Encode};
use crate::failpoint;
use crate::id::{GroupId, NodeId, Version};
use crate::machine::job;
use crate::machine::task::Board;
use crate::machine::{Machine, Record, Slot};
use crate::metrics::Counts;
use crate::probe::{Bug, planted};
use crate::store::{Batch, Durability, Store, StoreFailed};

use super::census::Census;
use super::first::{FIRST, FIRST_TERM};
use super::jobs;
use super::raft::{LogPosition, StoredElectorate, StoredEntry, StoredPayload, StoredVote};
use super::seal::{SEALED, Sealed, put_frame, unseal};
use super::slots::{COUNT, Decided, Ledger, find_without_slots};
use super::sound;
use super::state::Contents;
use super::tasks;
use super::wire::{EPOCH, State};

const DISK_VERSION: u8 = 1;

pub(super) const VOTE: u8 = b'v';
pub(super) const ENTRY: u8 = b'e';
pub(super) const PURGED: u8 = b'p';
pub(super) const ELECTORATE: u8 = b'm';
pub(super) const APPLIED: u8 = b'a';
pub(super) const RECORD: u8 = b'r';

/// Applied entries that the log of a map or of tasks keeps, for voters that are a little behind.
const MAP_LOG_ENTRIES_KEPT: usize = if cfg!(test) { 8 } else { 2_048 };
const MAP_LOG_BYTES_KEPT: usize = 8 * 1024 * 1024;

/// How far the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Applied {
    pub(crate) at: Option<LogPosition>,
    /// The position of the last command among the applied entries.
    pub(crate) version: Version,
}

/// A group's whole state, as read from the store or as kept by an awake replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) vote: Option<StoredVote>,
    pub(crate) entries: BTreeMap<u64, StoredEntry>,
    pub(crate) purged: Option<LogPosition>,
    pub(crate) applied: Applied,
    pub(crate) electorate: StoredElectorate,
    /// Of a cell. The slots of a map are in its [`Ledger`].
    pub(crate) machine: Machine,
    /// How many slots of a map are decided by what is applied on the disk.
    pub(crate) count: u64,
    /// Of a group of tasks.
    pub(crate) board: Board,
    /// Of a group of jobs.
    pub(crate) jobs: job::Board,
    /// The genesis entry is on disk, or does not need to be.
    pub(crate) born: bool,
    /// On disk it is one value.
    pub(crate) sealed: bool,
}

impl Held {
    /// A group that nothing was ever written to. Its log begins with the electorate at the
    /// all-zero position: no one initialises it, and any voter may lead it. In the first term
    /// every voter has voted, by birth, for `first`: the one that all know to be preferred.
    pub(crate) fn newborn(voters: &BTreeSet<NodeId>, first: Option<NodeId>) -> Self {
        let at = LogPosition::GENESIS;
        let genesis = StoredEntry {
            at,
            payload: StoredPayload::Electorate(voters.clone()),
        };
        let vote = |node| StoredVote {
            term: FIRST_TERM,
            node,
            committed: false,
        };
        Self {
            vote: first.map(vote),
            entries: BTreeMap::from([(at.index, genesis)]),
            purged: None,
            applied: Applied {
                at: Some(at),
                version: Version::ZERO,
            },
            electorate: StoredElectorate {
                at: Some(at),
                voters: voters.clone(),
            },
            machine: Machine::default(),
            count: 0,
            board: Board::default(),
            jobs: job::Board::default(),
            born: false,
            sealed: false,
        }
    }

    /// The last position of the log.
    pub(crate) fn last(&self) -> Option<LogPosition> {
        let last = self.entries.values().next_back().map(|entry| entry.at);
        last.or(self.purged)
    }

    /// It may wait for something that nobody is going to tell it or others: it has a tail, or
    /// knows of no leader in its term. An election that was given up may have deposed one that
    /// had yet to send an entry or a commit notice to some voter. Nothing was decided in a
    /// group that has only been born, so nobody waits for that.
    pub(crate) fn is_unsettled(&self) -> bool {
        let (last, is_led) = (self.last(), self.vote.is_some_and(|vote| vote.committed));
        last > self.applied.at || (last > Some(LogPosition::GENESIS) && !is_led)
    }

    /// Up to where the log of a map, or of tasks, is of no use: what is applied, but for the last entries. A voter
    /// that is behind these is sent slots.
    pub(crate) fn needless(&self) -> u64 {
        let applied = self.applied.at.map_or(0, |at| at.index);
        let (mut entries, mut bytes) = (0, 0);
        for (index, entry) in self.entries.range(..=applied).rev() {
            entries += 1;
            bytes += entry.value_bytes();
            if entries > MAP_LOG_ENTRIES_KEPT || bytes > MAP_LOG_BYTES_KEPT {
                return *index;
            }
        }
        0
    }

    pub(crate) fn state(&self) -> State {
        State {
            version: self.applied.version,
            record: self.machine.get(&[]).cloned(),
        }
    }
}

/// One group's part of the store.
pub(crate) struct Disk {
    pub(crate) group: GroupId,
    pub(super) store: Store,
    held: Mutex<Held>,
    ledger: Ledger,
    census: Arc<Census>,
}

impl Disk {
    /// Reads a group. A group that the store does not know is newborn.
    pub(crate) fn load(
        store: &Store,
        group: GroupId,
        voters: &BTreeSet<NodeId>,
        first: Option<NodeId>,
        with_tasks: bool,
    ) -> Result<Held, StoreFailed> {
        let prefix = key(group, None, &[]);
        let found = match group.is_map() || !group.is_cell() && !with_tasks {
            true => find_without_slots(store, group)?,
            false => store.scan(&prefix)?,
        };
        if found.is_empty() {
            return Ok(Held::newborn(voters, first));
        }
        if let [(only, value)] = found.as_slice()
            && only[prefix.len()..] == [SEALED]
        {
            let held = unpack::<Sealed>(group, value)?.open();
            sound::check_stored(&held).map_err(|what| broken(group, what))?;
            return Ok(held);
        }
        let mut held = Held {
            entries: BTreeMap::new(),
            applied: Applied {
                at: None,
                version: Version::ZERO,
            },
            electorate: StoredElectorate {
                at: None,
                voters: BTreeSet::new(),
            },
            born: true,
            ..Held::newborn(voters, first)
        };
        let mut records: Vec<(Slot, Arc<Record>)> = Vec::new();
        let mut of_tasks = tasks::Found::default();
        let mut of_jobs = jobs::Found::default();
        for (key, value) in found {
            // The scan's prefix ends before the tag, so a key without one is not ours.
            let Some((&tag, rest)) = key[prefix.len()..].split_first() else {
                return Err(broken(group, "a key without a tag"));
            };
            match tag {
                VOTE => held.vote = Some(unpack(group, &value)?),
                ENTRY => {
                    let index = rest.try_into().map(u64::from_be_bytes);
                    let index = index.map_err(|_| broken(group, "a log entry without an index"))?;
                    held.entries.insert(index, unpack(group, &value)?);
                }
                PURGED => held.purged = Some(unpack(group, &value)?),
                ELECTORATE => held.electorate = unpack(group, &value)?,
                APPLIED => held.applied = unpack(group, &value)?,
                COUNT => held.count = unpack(group, &value)?,
                RECORD => records.push((rest.to_vec(), Arc::new(unpack(group, &value)?))),
                _ if group.is_jobs() && of_jobs.take(group, (tag, rest), &value)? => {}
                _ if group.is_tasks() && of_tasks.take(group, (tag, rest), &value)? => {}
                _ => return Err(broken(group, "a key of a kind this build does not know")),
            }
        }
        held.board = of_tasks.board();
        held.jobs = of_jobs.board();
        held.machine = Machine::from_records(records);
        sound::check_stored(&held).map_err(|what| broken(group, what))?;
        Ok(held)
    }

    pub(crate) fn new(store: Store, group: GroupId, held: Held) -> Self {
        let ledger = Ledger::new(store.clone(), group, held.applied.version, held.count);
        Self {
            group,
            store,
            held: Mutex::new(held),
            ledger,
            census: Arc::default(),
        }
    }

    /// The slots, if it is a map.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The same; if it is born, that is counted.
    pub(crate) fn counted(self, census: Arc<Census>) -> Self {
        Self { census, ..self }
    }

    pub(crate) fn counts(&self) -> &Counts {
        self.census.counts()
    }

    /// Every change under this lock is whole, and no code that can panic runs under it.
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The state, the end of the log and how far it is applied.
    pub(crate) fn status(&self) -> (State, Option<LogPosition>, Option<LogPosition>) {
        let held = self.held();
        (held.state(), held.last(), held.applied.at)
    }

    fn key(&self, tag: u8, rest: &[u8]) -> Vec<u8> {
        key(self.group, Some(tag), rest)
    }

    /// A batch that first of all bears the group, if it is not on disk yet: whatever is written
    /// first, a lone vote included, the electorate it was born with is written with it.
    pub(super) fn batch(&self, held: &mut Held) -> Batch {
        let mut batch = Batch::default();
        if !held.born {
            held.born = true;
            self.census.born(&self.store);
            // A birth may have been given up while its batch was under way. This instance knows
            // nothing of that entry, and would never delete it.
            batch.delete(self.entry_key(FIRST.index));
            if let Some(genesis) = held.entries.get(&LogPosition::GENESIS.index) {
                batch.put(self.entry_key(0), pack(genesis));
            }
            put_frame(self.group, held, &mut batch);
        }
        if std::mem::take(&mut held.sealed) {
            unseal(self.group, held, &mut batch);
        }
        batch
    }

    /// Whether `me` was elected in the newest term, and has written the end of the log in it.
    pub(crate) fn is_of_leader(&self, me: NodeId) -> bool {
        let held = self.held();
        let vote = held.vote.filter(|vote| vote.committed && vote.node == me);
        vote.is_some_and(|vote| held.last().is_some_and(|last| last.term == vote.term))
    }

    pub(super) fn entry_key(&self, index: u64) -> Vec<u8> {
        self.key(ENTRY, &index.to_be_bytes())
    }

    /// Saves a vote. A vote for a candidate is a promise: this returns when it is durable.
    ///
    /// That a candidate won needs no sync of its own. A majority that voted for it has that on
    /// disk, so no lower term, and nobody else in this one, can ever win, whatever this voter
    /// forgets of it. It is queued before the entries of that leader: acknowledging one says
    /// that both are durable.
    pub(crate) async fn save_vote(&self, vote: StoredVote) -> io::Result<()> {
        let written = {
            let mut held = self.held();
            held.vote = Some(vote);
            let mut batch = self.batch(&mut held);
            if planted(Bug::VoteNotWritten) {
                return Ok(());
            }
            batch.put(self.key(VOTE, &[]), pack(&vote));
            if vote.committed || planted(Bug::VoteNotSynced) {
                self.store.write(batch, Durability::Lazy, |_| {});
                return Ok(());
            }
            failpoint::hit("group.before_vote");
            self.store.write_durably(batch)
        };
        let written = written.await.map(|_| ()).map_err(io::Error::other);
        failpoint::hit("group.after_vote");
        written
    }

    /// Appends entries: readable on return, `done` follows the sync.
    pub(crate) fn append(
        &self,
        entries: impl IntoIterator<Item = StoredEntry>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let mut held = self.held();
        let mut batch = self.batch(&mut held);
        for entry in entries {
            batch.put(self.entry_key(entry.at.index), pack(&entry));
            held.entries.insert(entry.at.index, entry);
        }
        if planted(Bug::AppendNotSynced) {
            self.store.write(batch, Durability::Lazy, |_| {});
            return done(Ok(()));
        }
        // Queued under the lock: the order in memory is the order on disk.
        self.store.write(batch, Durability::Now, move |result| {
            failpoint::hit("group.before_acknowledge");
            done(result.map(|_| ()).map_err(io::Error::other));
        });
    }

    /// Drops all entries behind `last`. What follows it is queued behind it, so that a crash
    /// leaves the log before or after, never in between.
    pub(crate) fn truncate_after(&self, last: Option<LogPosition>) {
        let mut held = self.held();
        let from = last.map_or(0, |last| last.index + 1);
        let mut batch = self.batch(&mut held);
        for index in held.entries.split_off(&from).into_keys() {
            batch.delete(self.entry_key(index));
        }
        self.store.write(batch, Durability::Lazy, |_| {});
    }

    /// Drops all entries up to `upto`.
    pub(crate) fn purge(&self, upto: LogPosition) {
        let mut held = self.held();
        let mut batch = self.batch(&mut held);
        let kept = held.entries.split_off(&(upto.index + 1));
        for index in std::mem::replace(&mut held.entries, kept).into_keys() {
            batch.delete(self.entry_key(index));
        }
        held.purged = held.purged.max(Some(upto));
        batch.put(self.key(PURGED, &[]), pack(&upto));
        failpoint::hit("group.before_purge");
        self.store.write(batch, Durability::Lazy, |_| {});
        failpoint::hit("group.after_purge");
    }

    /// Writes what was applied: queued behind the entries it came from, never waited for, since
    /// the entries themselves are durable on a majority.
    pub(crate) fn save_applied(&self, held: &mut Held, new: Vec<Decided>) {
        let mut batch = self.applied_batch(held);
        if self.group.is_map() {
            return self.ledger.write(batch, held.applied.version, new);
        }
        for (slot, record) in new {
            batch.put(self.key(RECORD, &slot), pack(record.as_ref()));
        }
        self.store.write(batch, Durability::Lazy, |_| {});
    }

    /// A batch that says how far it is applied.
    pub(super) fn applied_batch(&self, held: &mut Held) -> Batch {
        let mut batch = self.batch(held);
        batch.put(self.key(APPLIED, &[]), pack(&held.applied));
        batch
    }

    pub(crate) fn save_electorate(&self, held: &mut Held, electorate: StoredElectorate) {
        let mut batch = self.batch(held);
        batch.put(self.key(ELECTORATE, &[]), pack(&electorate));
        held.electorate = electorate;
        self.store.write(batch, Durability::Lazy, |_| {});
    }

    /// Goes on from a snapshot; returns when it is durable. The slots of a map are here already.
    pub(crate) async fn install(
        &self,
        applied: Applied,
        electorate: StoredElectorate,
        contents: Contents,
    ) -> io::Result<()> {
        let mut slots_decided = None;
        let written = {
            let mut held = self.held();
            let mut batch = self.batch(&mut held);
            match contents {
                Contents::Cell(machine) => {
                    for (slot, _) in held.machine.records() {
                        batch.delete(self.key(RECORD, slot));
                    }
                    for (slot, record) in machine.records() {
                        batch.put(self.key(RECORD, slot), pack(record.as_ref()));
                    }
                    held.machine = machine;
                }
                Contents::Tasks(board) => {
                    tasks::put(self.group, &mut batch, &held.board.changes_to(&board));
                    held.board = board;
                }
                Contents::Jobs(board) => {
                    jobs::put(self.group, &mut batch, &held.jobs.changes_to(&board));
                    held.jobs = board;
                }
                Contents::Map { count } => {
                    self.ledger.put_count(&mut batch, count);
                    slots_decided = Some(count);
                }
            }
            batch.put(self.key(APPLIED, &[]), pack(&applied));
            batch.put(self.key(ELECTORATE, &[]), pack(&electorate));
            held.applied = applied;
            held.electorate = electorate;
            failpoint::hit("group.before_install");
            self.store.write_durably(batch)
        };
        let written = written.await.map(|_| ()).map_err(io::Error::other);
        if let (Ok(()), Some(count)) = (&written, slots_decided) {
            self.ledger.go_on(applied.version, count);
        }
        failpoint::hit("group.after_install");
        written
    }
}

pub(super) fn key(group: GroupId, tag: Option<u8>, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(34 + rest.len());
    key.push(b'g');
    key.extend_from_slice(group.as_bytes());
    key.extend(tag);
    key.extend_from_slice(rest);
    key
}

pub(super) fn pack<T: Encode>(value: &T) -> Vec<u8> {
    codec::encode(DISK_VERSION, &(EPOCH, value))
}

pub(super) fn unpack<T: Decode<()>>(group: GroupId, bytes: &[u8]) -> Result<T, StoreFailed> {
    unpack_page(bytes).map_err(|what| broken(group, &what))
}

/// What [`pack`] has written, or what is wrong with it.
pub(super) fn unpack_page<T: Decode<()>>(bytes: &[u8]) -> Result<T, String> {
    let (epoch, value): (u32, T) =
        codec::decode(DISK_VERSION, bytes).map_err(|error| error.to_string())?;
    if epoch != EPOCH {
        return Err("a record of another epoch".into());
    }
    Ok(value)
}

pub(super) fn broken(group: GroupId, what: &str) -> StoreFailed {
    StoreFailed::Read(
        format!("the stored state of group {group} cannot be used by this build: {what}").into(),
    )
}
