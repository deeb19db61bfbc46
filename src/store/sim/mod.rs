//! A disk that loses power. For tests: un-synced pages, lengths and names survive a crash or do
//! not, each on its own, as one seed decides.

mod pump;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

use super::disk::{Disk, DiskFile};

pub(super) use pump::pump;

const PAGE_BYTES: usize = 512;

/// A handle on one disk; clones share it.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Tell threads and tasks that `State::held` is over.
    released: Condvar,
    released_tasks: Notify,
}

struct State {
    /// By inode; names point into it.
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// How many changes still succeed; after that nothing does.
    changes_left: Option<u64>,
    /// How many syncs still succeed. What a failed one wrote is in the cache, not on the disk.
    syncs_left: Option<u64>,
    changes: u64,
    /// No sync ends while this is true.
    held: bool,
    chance: StdRng,
}

#[derive(Clone, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// Pages of a failed sync: in the cache, and clean as far as later syncs know.
    lost: BTreeSet<usize>,
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
            changes_left: None,
            syncs_left: None,
            changes: 0,
            held: false,
            chance: StdRng::seed_from_u64(seed),
        })
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            released: Condvar::new(),
            released_tasks: Notify::new(),
        }))
    }

    /// The power fails after this many more changes: in the middle of whatever that is.
    pub(crate) fn fail_after_changes(&self, changes: u64) {
        self.state().changes_left = Some(changes);
    }

    /// Syncs fail after this many more.
    pub(crate) fn fail_after_syncs(&self, syncs: u64) {
        self.state().syncs_left = Some(syncs);
    }

    /// From now on no sync ends. A store on a task or on threads waits and its batches pile up;
    /// do not hold while one opens or runs inline.
    pub(crate) fn hold_syncs(&self) {
        self.state().held = true;
    }

    pub(crate) fn release_syncs(&self) {
        self.state().held = false;
        self.0.released.notify_all();
        self.0.released_tasks.notify_waiters();
    }

    pub(super) async fn until_released(&self) {
        loop {
            let released = self.0.released_tasks.notified();
            if !self.state().held {
                return;
            }
            released.await;
        }
    }

    /// For a sync, once nobody holds it.
    fn released_state(&self) -> MutexGuard<'_, State> {
        let released = &self.0.released;
        released
            .wait_while(self.state(), |state| state.held)
            .unwrap()
    }

    pub(super) fn changes(&self) -> u64 {
        self.state().changes
    }

    /// What a process finds that starts after this one was killed: all of it, synced or not.
    /// Whoever still uses this disk finds that nothing can be changed any more.
    pub(crate) fn kill(&self) -> Self {
        Self::of(self.end())
    }

    /// A durable copy of what a process sees just now, synced or not: a backup, or a clone. This
    /// disk lives on.
    pub(crate) fn copy(&self) -> Self {
        let mut next = self.state().next();
        for file in &mut next.files {
            file.durable = file.now.clone();
            file.dirty.clear();
            file.lost.clear();
        }
        next.durable_names = next.names.clone();
        Self::of(next)
    }

    /// From this moment on nothing changes here any more.
    fn end(&self) -> State {
        let mut state = self.state();
        state.changes_left = Some(0);
        let next = state.next();
        drop(state);
        self.release_syncs();
        next
    }

    /// What is left after a power cut. Whoever still uses this disk finds that nothing can be
    /// changed any more.
    pub(crate) fn cut_power(&self) -> Self {
        let mut next = self.end();
        let chance = &mut next.chance;
        // Sometimes nearly all is lost, sometimes nearly nothing.
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][chance.random_range(0..5)];
        for file in &mut next.files {
            file.crash(chance, kept);
        }
        let all: BTreeSet<String> = next.names.keys().cloned().collect();
        for name in all
            .into_iter()
            .chain(next.durable_names.clone().into_keys())
        {
            let inode = if chance.random_bool(kept) {
                next.names.get(&name)
            } else {
                next.durable_names.get(&name)
            };
            match inode.copied() {
                Some(inode) => next.durable_names.insert(name, inode),
                None => next.durable_names.remove(&name),
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
        change(&mut file.now);
        file.durable = file.now.clone();
        file.dirty.clear();
        file.lost.clear();
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].now.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}

impl State {
    /// The same disk for the next process.
    fn next(&mut self) -> Self {
        Self {
            files: self.files.clone(),
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            changes_left: None,
            syncs_left: None,
            changes: 0,
            held: false,
            chance: StdRng::seed_from_u64(self.chance.random()),
        }
    }

    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match &mut self.changes_left {
            Some(0) => Err(io::Error::other("the power is cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.change()?;
        match &mut self.syncs_left {
            Some(0) => Err(io::Error::other("the sync failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Contents {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty
            .extend(from / PAGE_BYTES..to.div_ceil(PAGE_BYTES));
    }

    fn set_len(&mut self, len: usize) {
        let old = self.now.len();
        self.now.resize(len, 0);
        self.touch(old.min(len), old.max(len));
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            let to = self.now.len().min((page + 1) * PAGE_BYTES);
            let from = to.min(page * PAGE_BYTES);
            self.durable[from..to].copy_from_slice(&self.now[from..to]);
        }
    }

    fn crash(&mut self, chance: &mut StdRng, kept: f64) {
        let len = if chance.random_bool(kept) {
            self.now.len()
        } else {
            self.durable.len()
        };
        let mut survived = self.durable.clone();
        survived.resize(len, 0);
        self.dirty.append(&mut self.lost);
        for &page in &self.dirty {
            if chance.random_bool(kept) {
                let to = len.min(self.now.len()).min((page + 1) * PAGE_BYTES);
                let from = to.min(page * PAGE_BYTES);
                survived[from..to].copy_from_slice(&self.now[from..to]);
            }
        }
        self.dirty.clear();
        self.now = survived.clone();
        self.durable = survived;
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let inode = match state.names.get(name) {
            Some(&inode) => inode,
            None => {
                state.change()?;
                let inode = state.files.len();
                state.files.push(Contents::default());
                state.names.insert(name.to_owned(), inode);
                inode
            }
        };
        Ok(Box::new(SimFile {
            disk: self.clone(),
            inode,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let removed = state.names.remove(name);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.released_state();
        state.sync()?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn random_id(&self) -> u64 {
        self.state().chance.random()
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimFile({})", self.inode)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.inode].now.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let from = offset as usize;
        let bytes = state.files[self.inode].now.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change()?;
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        let file = &mut state.files[self.inode];
        if to > file.now.len() {
            file.set_len(to);
        }
        file.now[from..to].copy_from_slice(bytes);
        file.touch(from, to);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change()?;
        state.files[self.inode].set_len(len as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.released_state();
        let synced = state.sync();
        let file = &mut state.files[self.inode];
        match synced {
            Ok(()) => file.sync(),
            Err(_) => {
                let mut unwritten = std::mem::take(&mut file.dirty);
                file.lost.append(&mut unwritten);
            }
        }
        synced
    }
}
