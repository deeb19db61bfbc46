//! From whatever a crash left on disk to a store that holds every acknowledged batch, or an
//! error. Never a silent drop.
//!
//! The log gives: at most one group was un-synced, and it was the last; a segment is created
//! only when everything before it is durable; a group is written only when its segment is.
//! So the end of the log is cut where its last group is bad, and only there. A bad group with
//! anything written after it, be it a group behind it or another segment, had been synced.

use std::io;
use std::sync::Arc;

use super::StoreConfig;
use super::batch::BATCH_BYTES_MAX;
use super::checkpoint::{CHECKPOINT, CHECKPOINT_NEW, Checkpoint};
use super::disk::{Disk, DiskFile};
use super::error::StoreOpenError;
use super::log::{
    Log, LogEnd, create_segment, remove_segments_before, segment_indexes, segment_name,
};
use super::record::find_group_header;
use super::record::{FORMAT_VERSION, Fault, Group, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::table::Table;
use crate::failpoint;

/// A segment is `segment_bytes_max` and one group long at most: no more is read into memory.
const SEGMENT_FILE_BYTES_MAX: u64 = 2 * BATCH_BYTES_MAX as u64;

pub(super) struct Recovered {
    pub(super) checkpoint: Checkpoint,
    pub(super) log: Log,
    /// What the log holds beyond the checkpoint.
    pub(super) table: Table,
    /// The last durable batch.
    pub(super) sequence: u64,
    /// More than one segment is needed: a checkpoint was lost and should be made up for.
    pub(super) lags: bool,
}

pub(super) fn recover(
    disk: Arc<dyn Disk>,
    config: &StoreConfig,
) -> Result<Recovered, StoreOpenError> {
    let names = disk.list().map_err(failed)?;
    if !names.iter().any(|name| name == CHECKPOINT) {
        create(&disk)?;
    } else if names.iter().any(|name| name == CHECKPOINT_NEW) {
        disk.remove(CHECKPOINT_NEW).map_err(failed)?;
    }
    // What we see may be what a process wrote that died before it synced. From here on, names
    // are durable.
    failpoint::hit("recovery.before_names");
    disk.sync_names().map_err(failed)?;
    failpoint::hit("recovery.after_names");

    let (checkpoint, covered) = Checkpoint::open(&disk, config.cache_bytes_max)?;
    failpoint::hit("recovery.after_checkpoint");
    let mut segments = Vec::new();
    for index in segment_indexes(&*disk).map_err(failed)? {
        segments.push(Segment::read(&*disk, index)?);
    }
    let unused = unused_end(&mut segments);

    let mut table = Table::default();
    let start = start(&segments, covered)?;
    let mut next = segments[start].header()?.first_sequence;
    let mut tail = Tail::default();
    for (position, segment) in segments.iter().enumerate().skip(start) {
        if segment.index != segments[start].index + (position - start) as u64 {
            return Err(StoreOpenError::corrupt(format!(
                "the log segment before {} is missing",
                segment_name(segment.index)
            )));
        }
        if segment.header()?.first_sequence != next {
            return Err(segment.gap(next));
        }
        let is_last = position + 1 == segments.len();
        (next, tail) = segment.replay(covered, is_last, &mut table)?;
    }
    let sequence = next - 1;
    if sequence < covered {
        return Err(StoreOpenError::corrupt(format!(
            "the log ends at batch {sequence}, but the checkpoint was taken at {covered}"
        )));
    }

    let lags = segments.len() - start > 1;
    let first_kept = segments[start].index;
    // Invariant: `start` is the position of a segment, so there is a last one.
    let Some(last) = segments.pop() else {
        return Err(StoreOpenError::corrupt("the log is missing"));
    };
    // Only now: until the log is found to be good, it proves that the segment before it is whole.
    // And for good, before anything is written to that one.
    if let Some(index) = unused {
        failpoint::hit("recovery.before_unused");
        disk.remove(&segment_name(index)).map_err(failed)?;
        failpoint::hit("recovery.between_unused");
        disk.sync_names().map_err(failed)?;
        failpoint::hit("recovery.after_unused");
    }
    let end = last.settle(tail).map_err(failed)?;
    remove_segments_before(&*disk, first_kept).map_err(failed)?;
    Ok(Recovered {
        checkpoint,
        log: Log::new(disk, end, config.segment_bytes_max),
        table,
        sequence,
        lags,
    })
}

/// A first start, or one that was interrupted. The first segment is durable before the
/// checkpoint gets its name: so a checkpoint without a log, or a log with a group in it and
/// without a checkpoint, means that files were lost.
fn create(disk: &Arc<dyn Disk>) -> Result<(), StoreOpenError> {
    for index in segment_indexes(&**disk).map_err(failed)? {
        if !Segment::read(&**disk, index)?.is_unused() {
            return Err(StoreOpenError::corrupt("the checkpoint file is missing"));
        }
        disk.remove(&segment_name(index)).map_err(failed)?;
    }
    if disk
        .list()
        .map_err(failed)?
        .iter()
        .any(|name| name == CHECKPOINT_NEW)
    {
        disk.remove(CHECKPOINT_NEW).map_err(failed)?;
    }
    disk.sync_names().map_err(failed)?;
    failpoint::hit("create.before_checkpoint");
    Checkpoint::create(disk)?;
    failpoint::hit("create.before_segment");
    create_segment(&**disk, 1, 1).map_err(failed)?;
    failpoint::hit("create.before_rename");
    disk.rename(CHECKPOINT_NEW, CHECKPOINT).map_err(failed)?;
    failpoint::hit("create.after_rename");
    Ok(())
}

/// A last segment without a header was being created at the crash. It holds nothing and is to be
/// removed; that it is there says that all of the one before it was synced.
fn unused_end(segments: &mut Vec<Segment>) -> Option<u64> {
    let unused = segments.pop_if(|last| last.header.is_none() && last.is_unused())?;
    if let Some(last) = segments.last_mut() {
        last.sealed = true;
    }
    Some(unused.index)
}

/// The position of the segment in which the first batch that the checkpoint lacks is, or will
/// be. The segments before it are spent: a crash may have kept any of them.
fn start(segments: &[Segment], covered: u64) -> Result<usize, StoreOpenError> {
    let mut start = None;
    for (position, segment) in segments.iter().enumerate() {
        // A damaged spent segment is no loss, unless the damage hides where the log starts.
        match segment.header {
            Some(header) if header.first_sequence <= covered + 1 => start = Some(position),
            Some(_) => break,
            None => {}
        }
    }
    start.ok_or_else(|| {
        StoreOpenError::corrupt(format!(
            "the log does not reach back to batch {}, where the checkpoint ends",
            covered + 1
        ))
    })
}

/// The end of a segment's log.
#[derive(Clone, Copy, Default)]
struct Tail {
    /// Where the last group starts; 0, the header's place, if there is none.
    last_start: usize,
    /// Where it ends and the next one goes.
    end: usize,
}

struct Segment {
    index: u64,
    file: Box<dyn DiskFile>,
    bytes: Vec<u8>,
    /// `None`: torn or damaged.
    header: Option<SegmentHeader>,
    /// A later segment had been created: everything in this one was synced.
    sealed: bool,
}

impl Segment {
    fn read(disk: &dyn Disk, index: u64) -> Result<Self, StoreOpenError> {
        let file = disk.open(&segment_name(index)).map_err(failed)?;
        let length = file.len().map_err(failed)?;
        if length > SEGMENT_FILE_BYTES_MAX {
            return Err(StoreOpenError::corrupt(format!(
                "log segment {} has {length} bytes, which no segment has",
                segment_name(index)
            )));
        }
        let mut bytes = vec![0; length as usize];
        file.read_at(0, &mut bytes).map_err(failed)?;
        Ok(Self {
            index,
            file,
            header: match SegmentHeader::decode(&bytes) {
                Ok(header) => Some(header),
                Err(Fault::Bad) => None,
                Err(Fault::Version(found)) => return Err(version(found)),
            },
            bytes,
            sealed: false,
        })
    }

    fn header(&self) -> Result<SegmentHeader, StoreOpenError> {
        self.header
            .ok_or_else(|| self.corrupt("has a damaged header"))
    }

    /// No group was ever written, not even in part.
    fn is_unused(&self) -> bool {
        self.bytes
            .get(SEGMENT_HEADER_BYTES..)
            .is_none_or(|groups| without_zeros(groups) == 0)
    }

    /// Adds to `table` what is newer than `covered`. Returns the sequence number that comes
    /// next and where this segment ends.
    fn replay(
        &self,
        covered: u64,
        is_last: bool,
        table: &mut Table,
    ) -> Result<(u64, Tail), StoreOpenError> {
        let SegmentHeader { id, first_sequence } = self.header()?;
        let mut next = first_sequence;
        let mut last_start = 0;
        let mut at = SEGMENT_HEADER_BYTES;
        let end = loop {
            match Group::decode(id, &self.bytes[at..]) {
                Ok(group) => {
                    if group.header.first_sequence != next {
                        return Err(self.gap(next));
                    }
                    // A group is either older than a checkpoint or newer: tables are frozen
                    // between groups.
                    if next > covered {
                        let ops = group
                            .ops()
                            .map_err(|_| self.corrupt("holds a group that makes no sense"))?;
                        table.apply(ops);
                    }
                    next += u64::from(group.header.batches);
                    last_start = at;
                    at += group.bytes();
                }
                Err(Fault::Version(found)) => return Err(version(found)),
                Err(Fault::Bad) => break at,
            }
        };
        let bad = without_zeros(&self.bytes[end..]) > 0;
        if bad && (!is_last || self.sealed) {
            return Err(self.corrupt(&format!(
                "is damaged at byte {end}, in a batch that was synced"
            )));
        }
        if bad && let Some(later) = find_group_header(id, &self.bytes, end + 1) {
            return Err(self.corrupt(&format!(
                "is damaged at byte {end}, in a batch that was synced: byte {later} starts a \
                 later one"
            )));
        }
        Ok((next, Tail { last_start, end }))
    }

    /// Makes everything up to the end durable and the rest zeros, so that the log can go on.
    ///
    /// The last group is written again although it is there: what we read may come from the
    /// system's cache, left by a process that died before its sync or whose sync failed, and
    /// after a failed one another sync alone reports success for pages that were never written.
    fn settle(mut self, tail: Tail) -> io::Result<LogEnd> {
        let header = self.header.ok_or(io::ErrorKind::InvalidData)?;
        let Tail { last_start, end } = tail;
        let torn_bytes = without_zeros(&self.bytes[end..]);
        self.bytes[end..].fill(0);
        failpoint::hit("recovery.before_settle");
        self.file
            .write_at(last_start as u64, &self.bytes[last_start..end + torn_bytes])?;
        failpoint::hit("recovery.before_sync");
        self.file.sync()?;
        failpoint::hit("recovery.after_sync");
        Ok(LogEnd {
            file: self.file,
            index: self.index,
            id: header.id,
            used: end as u64,
            allocated: self.bytes.len() as u64,
        })
    }

    fn gap(&self, next: u64) -> StoreOpenError {
        self.corrupt(&format!("does not go on with batch {next}"))
    }

    fn corrupt(&self, what: &str) -> StoreOpenError {
        StoreOpenError::corrupt(format!("log segment {} {what}", segment_name(self.index)))
    }
}

/// How many bytes there are before the zeros at the end, found a page at a time.
fn without_zeros(mut bytes: &[u8]) -> usize {
    const PAGE: [u8; 4096] = [0; 4096];
    while bytes.ends_with(&PAGE) {
        bytes = &bytes[..bytes.len() - PAGE.len()];
    }
    let last = bytes.iter().rposition(|&byte| byte != 0);
    last.map_or(0, |at| at + 1)
}

fn version(found: u64) -> StoreOpenError {
    StoreOpenError::Version {
        found,
        known: u64::from(FORMAT_VERSION),
    }
}

fn failed(source: io::Error) -> StoreOpenError {
    StoreOpenError::Io {
        what: "the log cannot be recovered".into(),
        source,
    }
}
