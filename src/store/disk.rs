//! The seam to the disk. Everything the store keeps passes through these calls, the log and
//! redb's file alike, so that a disk that lies, tears and fails can stand in for a real one.

use std::fmt;
use std::io;

/// The folder of one store: a flat set of names, those of log segments start with `log/`.
pub(super) trait Disk: Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing; creates it, empty, if it is missing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Replaces whatever is at `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all creations, renames and removals so far durable.
    fn sync_names(&self) -> io::Result<()>;
    /// A number that no segment of this disk had before. It comes from the disk because all
    /// chance comes from outside.
    fn random_id(&self) -> u64;
}

/// One open file. Nothing written is durable before the next `sync`, and until then any subset
/// of the written pages may be.
pub(super) trait DiskFile: fmt::Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Fills `out`, or fails.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`; a gap before `offset` reads as zeros.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}
