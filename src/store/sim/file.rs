//! The simulated disk behind the seam.

use std::io;

use rand::RngExt;

use super::SimDisk;
use super::contents::Contents;
use super::faults::no_space;
use crate::store::disk::{Disk, DiskFile};

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let inode = match state.names.get(name) {
            Some(&inode) => inode,
            None => {
                state.faults.change()?;
                state.faults.room_for_name()?;
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
        state.faults.change()?;
        state.faults.room_for_name()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.faults.change()?;
        let removed = state.names.remove(name);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.synced_state();
        state.faults.sync()?;
        if !state.lies {
            state.durable_names = state.names.clone();
        }
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
        let mut state = self.disk.state();
        state.faults.read()?;
        let read = state.files[self.inode].now.read(offset as usize, out);
        read.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.faults.change()?;
        let fits = state.faults.room(bytes.len());
        state.files[self.inode].write(offset as usize, &bytes[..fits]);
        if fits < bytes.len() {
            return Err(no_space());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.faults.change()?;
        let len = len as usize;
        let growth = len.saturating_sub(state.files[self.inode].now.len());
        if state.faults.room(growth) < growth {
            return Err(no_space());
        }
        state.files[self.inode].set_len(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.synced_state();
        let synced = state.faults.sync();
        if state.lies {
            return synced;
        }
        let file = &mut state.files[self.inode];
        match synced {
            Ok(()) => file.sync(),
            Err(_) => file.fail_sync(),
        }
        synced
    }
}
