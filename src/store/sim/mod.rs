//! A disk that lies, for tests: it loses power, tears pages, fails, fills up, rots, is copied and
//! goes back in time. Un-synced pages, lengths and names survive a power cut or do not, each on
//! its own, as one seed decides.

mod bytes;
mod contents;
mod faults;
mod file;
#[cfg(test)]
mod pump;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

use contents::Contents;
use faults::Faults;

pub(super) use faults::Fault;
#[cfg(test)]
pub(super) use pump::pump;

/// A handle on one disk; clones share it.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Tell threads and tasks that `State::held` or `State::syncing` has changed.
    changed: Condvar,
    changed_tasks: Notify,
}

struct State {
    /// By inode; names point into it.
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    faults: Faults,
    /// No sync ends while this is true.
    held: bool,
    /// How many syncs wait for that.
    syncing: usize,
    lies: bool,
    /// How long a sync of a store on a task takes, at least and at most.
    sync_ms: (u64, u64),
    chance: StdRng,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            faults: Faults::default(),
            held: false,
            syncing: 0,
            lies: false,
            sync_ms: (0, 0),
            chance: StdRng::seed_from_u64(seed),
        })
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            changed_tasks: Notify::new(),
        }))
    }

    /// The power fails after this many more changes: in the middle of whatever that is.
    pub(crate) fn fail_after_changes(&self, changes: u64) {
        self.state().faults.changes_left = Some(changes);
    }

    /// Syncs fail after this many more. What a failed one wrote is in the cache, not on the disk.
    pub(crate) fn fail_after_syncs(&self, syncs: u64) {
        self.state().faults.fail_after_syncs(syncs);
    }

    /// After this many more reads, the next `failures` fail.
    pub(crate) fn fail_reads(&self, after: u64, failures: u64) {
        self.state().faults.fail_reads(after, failures);
    }

    /// After this many more bytes written there is no space, until that was said often enough.
    /// Writing over old bytes takes space too, as where nothing is written in place.
    pub(crate) fn run_out_of_space(&self, after_bytes: u64, refusals: u64) {
        self.state().faults.run_out_of_space(after_bytes, refusals);
    }

    /// It fails a sync or a write from some moment on, or does already.
    #[cfg(test)]
    pub(crate) fn is_to_fail(&self) -> bool {
        self.state().faults.is_to_fail()
    }

    /// Nothing can be changed on it any more.
    #[cfg(test)]
    pub(crate) fn is_off(&self) -> bool {
        self.state().faults.changes_left == Some(0)
    }

    /// From now on syncs report success and do nothing.
    pub(super) fn lie_about_syncs(&self) {
        self.state().lies = true;
    }

    /// From now on no sync ends. A store on a task or on threads waits and its batches pile up;
    /// do not hold while one opens or runs inline.
    pub(crate) fn hold_syncs(&self) {
        self.state().held = true;
    }

    pub(crate) fn release_syncs(&self) {
        self.state().held = false;
        self.tell();
    }

    fn tell(&self) {
        self.0.changed.notify_all();
        self.0.changed_tasks.notify_waiters();
    }

    /// From now on a sync of a store on a task takes so long.
    #[cfg(test)]
    pub(crate) fn set_sync_ms(&self, least: u64, most: u64) {
        self.state().sync_ms = (least, most.max(least));
    }

    /// How long the next one takes.
    #[cfg(test)]
    fn draw_sync_ms(&self) -> u64 {
        let mut state = self.state();
        let (least, most) = state.sync_ms;
        match least < most {
            true => state.chance.random_range(least..=most),
            false => least,
        }
    }

    pub(super) async fn until_released(&self) {
        loop {
            let changed = self.0.changed_tasks.notified();
            if !self.state().held {
                return;
            }
            changed.await;
        }
    }

    /// Returns when a thread is in a sync that is held.
    pub(super) fn wait_until_syncing(&self) {
        let waits = |state: &mut State| state.syncing == 0;
        drop(self.0.changed.wait_while(self.state(), waits).unwrap());
    }

    /// For a sync, once nobody holds it.
    fn synced_state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if state.held {
            state.syncing += 1;
            self.tell();
            let held = |state: &mut State| state.held;
            state = self.0.changed.wait_while(state, held).unwrap();
            state.syncing -= 1;
        }
        state
    }

    /// How often the disk was changed or synced.
    pub(crate) fn changes(&self) -> u64 {
        self.state().faults.changes
    }

    /// What went wrong so far, on this disk and on those that it was copied from.
    pub(super) fn faults(&self) -> BTreeMap<Fault, u64> {
        self.state().faults.counted()
    }

    /// What it did to what was not synced, in words.
    #[cfg(test)]
    pub(crate) fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = |fault: Fault| match fault {
            Fault::PageLost => Some("pages lost"),
            Fault::PageTorn => Some("pages torn"),
            Fault::LengthLost => Some("lengths lost"),
            Fault::NameLost => Some("names lost"),
            _ => None,
        };
        let faults = self.faults().into_iter();
        faults.filter_map(move |(fault, times)| Some((words(fault)?, times)))
    }

    /// Counts the faults of another disk here too.
    pub(super) fn add_faults(&self, other: &Self) {
        for (fault, times) in other.faults() {
            self.state().faults.count(fault, times);
        }
    }

    /// What a process finds that starts after this one was killed: all of it, synced or not.
    /// Whoever still uses this disk finds that nothing can be changed any more.
    pub(crate) fn kill(&self) -> Self {
        let mut next = self.end();
        next.faults.count(Fault::Kill, 1);
        Self::of(next)
    }

    /// A durable copy of what a process sees just now, synced or not: a backup, or a clone. This
    /// disk lives on.
    pub(crate) fn copy(&self) -> Self {
        let mut next = self.state().next();
        next.files.iter_mut().for_each(Contents::settle);
        next.durable_names = next.names.clone();
        Self::of(next)
    }

    /// From this moment on nothing changes here any more.
    fn end(&self) -> State {
        let mut state = self.state();
        state.faults.changes_left = Some(0);
        let next = state.next();
        drop(state);
        self.release_syncs();
        next
    }

    /// What is left after a power cut. Whoever still uses this disk finds that nothing can be
    /// changed any more.
    pub(crate) fn cut_power(&self) -> Self {
        let mut next = self.end();
        let State {
            chance,
            faults,
            files,
            names,
            durable_names,
            ..
        } = &mut next;
        faults.count(Fault::PowerCut, 1);
        // Sometimes nearly all is lost, sometimes nearly nothing.
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][chance.random_range(0..5)];
        for file in files {
            file.crash(chance, kept, faults);
        }
        let all: BTreeSet<String> = names.keys().chain(durable_names.keys()).cloned().collect();
        for name in all {
            let inode = names.get(&name).copied();
            if inode == durable_names.get(&name).copied() {
                continue;
            }
            if !chance.random_bool(kept) {
                faults.count(Fault::NameLost, 1);
                continue;
            }
            match inode {
                Some(inode) => durable_names.insert(name, inode),
                None => durable_names.remove(&name),
            };
        }
        next.names = next.durable_names.clone();
        Self::of(next)
    }

    /// Damages a file where it lies, durably.
    pub(super) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[name];
        let file = &mut state.files[inode];
        let mut bytes = file.now.to_vec();
        change(&mut bytes);
        file.now = bytes.as_slice().into();
        file.settle();
    }

    pub(super) fn flip_bit(&self, name: &str, bit: usize) {
        let mut state = self.state();
        let inode = state.names[name];
        state.files[inode].flip_bit(bit);
    }

    pub(super) fn truncate(&self, name: &str, bytes: usize) {
        self.damage(name, |contents| contents.truncate(bytes));
    }

    /// The directory is empty.
    pub(crate) fn wipe(&self) {
        let mut state = self.state();
        state.names.clear();
        state.durable_names.clear();
    }

    pub(super) fn files(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].now.to_vec()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}

impl State {
    /// The same disk for the next process.
    fn next(&mut self) -> Self {
        let mut next = Self {
            files: Vec::new(),
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            faults: self.faults.next(),
            held: false,
            syncing: 0,
            lies: false,
            sync_ms: self.sync_ms,
            chance: StdRng::seed_from_u64(self.chance.random()),
        };
        // Files without a name are gone.
        let mut moved = BTreeMap::new();
        let names = next
            .names
            .values_mut()
            .chain(next.durable_names.values_mut());
        for inode in names {
            *inode = *moved.entry(*inode).or_insert_with(|| {
                next.files.push(self.files[*inode].clone());
                next.files.len() - 1
            });
        }
        next
    }
}
