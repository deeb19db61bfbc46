//! openraft's log storage, over one group's [`Disk`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::disk::Disk;
use super::lease::Lease;
use super::raft::{Entry, LogId, StoredEntry, Types, Vote};

/// The most bytes of values that one append message carries, unless a single entry is larger.
pub(crate) const APPEND_BYTES_MAX: usize = 1024 * 1024;

/// The log of one running instance.
#[derive(Clone)]
pub(crate) struct Log {
    disk: Arc<Disk>,
    _lease: Lease,
}

impl Log {
    pub(crate) fn new(disk: Arc<Disk>, lease: Lease) -> Self {
        Self {
            disk,
            _lease: lease,
        }
    }

    fn entries<R: RangeBounds<u64>>(&self, range: R, bytes_max: usize) -> Vec<Entry> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        if is_empty(bounds) {
            return Vec::new();
        }
        let held = self.disk.held();
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in held.entries.range(bounds).map(|(_, entry)| entry) {
            bytes += entry.value_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone().into());
        }
        entries
    }
}

/// `BTreeMap::range` panics on a range that ends before it starts.
fn is_empty((start, end): (Bound<u64>, Bound<u64>)) -> bool {
    let first = match start {
        Bound::Included(first) => first,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match end {
        Bound::Included(last) => last < first,
        Bound::Excluded(end) => end <= first,
        Bound::Unbounded => false,
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.entries(range, usize::MAX))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.disk.held().vote.map(Into::into))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.entries(start..end, APPEND_BYTES_MAX))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let held = self.disk.held();
        Ok(LogState {
            last_purged_log_id: held.purged.map(Into::into),
            last_log_id: held.last().map(Into::into),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.disk.save_vote(vote.into()).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| StoredEntry::from(&entry));
        self.disk
            .append(entries, move |result| callback.io_completed(result));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.disk.truncate_after(last.as_ref().map(Into::into));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.disk.purge((&upto).into());
        Ok(())
    }
}
