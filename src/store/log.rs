//! The write-ahead log: segment files that are only ever appended to.
//!
//! One group is one write and one sync, and the next group starts behind it. So at most one
//! group is un-synced at any time, and it is the last one. `recovery` rests on that.

use std::io;
use std::sync::Arc;

use super::batch::Batch;
use super::disk::{Disk, DiskFile};
use super::record::{SEGMENT_HEADER_BYTES, SegmentHeader, encode_group};
use crate::failpoint;
use crate::probe::{self, Bug, planted};

/// Segments grow by this much at a time, filled with zeros: a sync of a write inside the file
/// need not wait for the file system to record a new length. Measured: a third faster.
const GROW_BYTES: u64 = 1024 * 1024;

/// Bigger encoding buffers are given back after use.
const BUFFER_KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Invariant: between a `sync` and the next `write`, everything in `..used` of the current segment
/// and in the segments before it is durable, and everything in `used..allocated` reads as zeros.
/// After a failed call the log must not be used again: what is on disk is unknown.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    index: u64,
    id: u64,
    used: u64,
    allocated: u64,
    bytes_max: u64,
    synced: bool,
    buffer: Vec<u8>,
}

/// Where the log goes on: the last segment as recovery left it.
pub(super) struct LogEnd {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) index: u64,
    pub(super) id: u64,
    pub(super) used: u64,
    pub(super) allocated: u64,
}

impl Log {
    pub(super) fn new(disk: Arc<dyn Disk>, end: LogEnd, segment_bytes_max: u64) -> Self {
        Self {
            disk,
            file: end.file,
            index: end.index,
            id: end.id,
            used: end.used,
            allocated: end.allocated,
            bytes_max: segment_bytes_max,
            synced: true,
            buffer: Vec::new(),
        }
    }

    /// Writes the batches as one group, which is durable after the next `sync`. No other group
    /// may be written before that. No batches: nothing to write.
    pub(super) fn write<'a>(
        &mut self,
        first_sequence: u64,
        batches: impl Iterator<Item = &'a Batch>,
    ) -> io::Result<()> {
        debug_assert!(self.synced, "one un-synced group at a time");
        let mut batches = batches.peekable();
        if batches.peek().is_none() {
            return Ok(());
        }
        failpoint::hit("store.before_write");
        self.synced = false;
        encode_group(&mut self.buffer, self.id, first_sequence, batches);
        let end = self.used + self.buffer.len() as u64;
        if end > self.allocated {
            // The zeros go out with the group's own sync: until then a crash may leave the file
            // shorter or longer, and recovery reads both as the end of the log.
            let allocated = (end + GROW_BYTES).min(self.bytes_max).max(end);
            self.file
                .write_at(end, &vec![0; (allocated - end) as usize])?;
            self.allocated = allocated;
        }
        self.file.write_at(self.used, &self.buffer)?;
        self.used = end;
        if self.buffer.capacity() > BUFFER_KEPT_BYTES_MAX {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if planted(Bug::StoreNotSynced) {
            self.synced = true;
        }
        if !self.synced {
            failpoint::hit("store.before_sync");
            self.file.sync()?;
            failpoint::hit("store.after_sync");
            self.synced = true;
        }
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.used >= self.bytes_max
    }

    /// Starts a new segment. It is durable, name and all, before this returns.
    pub(super) fn rotate(&mut self, first_sequence: u64) -> io::Result<()> {
        let end = create_segment(&*self.disk, self.index + 1, first_sequence)?;
        probe::count("segments begun");
        self.file = end.file;
        self.index = end.index;
        self.id = end.id;
        self.used = end.used;
        self.allocated = end.allocated;
        Ok(())
    }

    /// The number of the current segment.
    pub(super) fn index(&self) -> u64 {
        self.index
    }
}

/// Creates a segment with no group in it and makes it durable, name and all.
pub(super) fn create_segment(
    disk: &dyn Disk,
    index: u64,
    first_sequence: u64,
) -> io::Result<LogEnd> {
    let file = disk.open(&segment_name(index))?;
    failpoint::hit("segment.before_header");
    let id = disk.random_id();
    let header = SegmentHeader { id, first_sequence };
    file.write_at(0, &header.encode())?;
    file.sync()?;
    failpoint::hit("segment.before_names");
    disk.sync_names()?;
    failpoint::hit("segment.after_names");
    Ok(LogEnd {
        file,
        index,
        id,
        used: SEGMENT_HEADER_BYTES as u64,
        allocated: SEGMENT_HEADER_BYTES as u64,
    })
}

pub(super) fn segment_name(index: u64) -> String {
    format!("log/{index:016x}")
}

/// The numbers of all segments, ascending. Other files in the folder are none of ours.
pub(super) fn segment_indexes(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    let mut indexes: Vec<u64> = disk
        .list()?
        .iter()
        .filter_map(|name| {
            let digits = name.strip_prefix("log/")?;
            let index = u64::from_str_radix(digits, 16).ok()?;
            (segment_name(index) == *name).then_some(index)
        })
        .collect();
    indexes.sort_unstable();
    Ok(indexes)
}

/// Removes the segments before `index`, oldest first. Only for segments whose every batch is in
/// a durable checkpoint; which of them survive a crash then does not matter.
pub(super) fn remove_segments_before(disk: &dyn Disk, index: u64) -> io::Result<()> {
    for old in segment_indexes(disk)? {
        if old < index {
            failpoint::hit("segment.before_remove");
            disk.remove(&segment_name(old))?;
            failpoint::hit("segment.after_remove");
        }
    }
    Ok(())
}
