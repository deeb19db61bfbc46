//! The checkpoint: everything up to one sequence number, in redb. The only file that names redb.

use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{
    Builder, Database, DatabaseError, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    StorageBackend, StorageError, TableDefinition, TableError,
};

use super::disk::{Disk, DiskFile};
use super::error::StoreOpenError;
use super::table::{Table, start_of};
use super::witness::Witness;
use super::{PageMax, Pair};

pub(super) const CHECKPOINT: &str = "checkpoint.redb";
/// A checkpoint that is being created; it counts only once it has its real name.
pub(super) const CHECKPOINT_NEW: &str = "checkpoint.new";

const VERSION: u64 = 1;

const CELLS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("cells");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const META_VERSION: &str = "version";
const META_SEQUENCE: &str = "sequence";

/// Invariant: holds exactly the effect of the batches `..=sequence` for the sequence number in
/// its meta table, and every commit is two-phase and synced, so that a crash leaves the last or
/// the one before, never a mixture.
pub(super) struct Checkpoint {
    database: Database,
    /// Behind `database`, to be dropped after it: redb writes when it closes, and until then the
    /// folder has to stay locked.
    _disk: Arc<dyn Disk>,
}

/// One moment of the checkpoint.
pub(super) struct CheckpointReader(ReadTransaction);

impl Checkpoint {
    /// Writes an empty checkpoint under its temporary name and makes its content durable.
    pub(super) fn create(disk: &Arc<dyn Disk>) -> Result<(), StoreOpenError> {
        let file = disk
            .open(CHECKPOINT_NEW)
            .map_err(StoreOpenError::io("the checkpoint cannot be created"))?;
        let checkpoint = Self {
            database: open_database(file, 0)?,
            _disk: disk.clone(),
        };
        checkpoint
            .commit(&Table::default(), 0)
            .map_err(StoreOpenError::io("the checkpoint cannot be created"))?;
        checkpoint
            .database
            .close()
            .map_err(|error| open_error(error, "the checkpoint cannot be created"))?;
        disk.open(CHECKPOINT_NEW)
            .and_then(|file| file.sync())
            .map_err(StoreOpenError::io("the checkpoint cannot be created"))
    }

    /// Opens the checkpoint and tells which sequence number it covers. That much is durable, also
    /// if the process before this one died between a write and its sync, or because a sync
    /// failed: redb commits what it found at such a start, and the rest is older than that.
    ///
    /// Every page of it passes its checksum. An older commit than the last one can come up only
    /// by damage to redb's header, and `recovery` notices: the log begins behind it.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        cache_bytes_max: usize,
    ) -> Result<(Self, u64), StoreOpenError> {
        // redb may panic on a damaged file; to us that is a damaged file like any other.
        catch_unwind(AssertUnwindSafe(|| Self::verify(disk, cache_bytes_max)))
            .unwrap_or_else(|_| Err(StoreOpenError::corrupt("the checkpoint is damaged")))
    }

    fn verify(disk: &Arc<dyn Disk>, cache_bytes_max: usize) -> Result<(Self, u64), StoreOpenError> {
        let file = disk
            .open(CHECKPOINT)
            .and_then(|file| file.sync().map(|()| file))
            .map_err(StoreOpenError::io("the checkpoint cannot be opened"))?;
        let checkpoint = Self {
            database: open_database(file, cache_bytes_max)?,
            _disk: disk.clone(),
        };
        disk.open(CHECKPOINT)
            .and_then(|file| file.sync())
            .map_err(StoreOpenError::io("the checkpoint cannot be synced"))?;
        match checkpoint.meta().map_err(unreadable)? {
            (Some(VERSION), Some(sequence)) => Ok((checkpoint, sequence)),
            (Some(found), _) if found != VERSION => Err(StoreOpenError::Version {
                found,
                known: VERSION,
            }),
            _ => Err(StoreOpenError::corrupt(
                "the checkpoint says neither its version nor what it covers",
            )),
        }
    }

    fn meta(&self) -> io::Result<(Option<u64>, Option<u64>)> {
        let table = match self.database.begin_read().map_err(other)?.open_table(META) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok((None, None)),
            Err(error) => return Err(other(error)),
        };
        let entry = |name| {
            let found = table.get(name).map_err(other)?;
            Ok::<_, io::Error>(found.map(|value| value.value()))
        };
        Ok((entry(META_VERSION)?, entry(META_SEQUENCE)?))
    }

    /// Adds `table`, which holds everything since the checkpoint before up to `sequence`.
    pub(super) fn commit(&self, table: &Table, sequence: u64) -> io::Result<()> {
        guarded(|| self.commit_unguarded(table, sequence))
    }

    fn commit_unguarded(&self, table: &Table, sequence: u64) -> io::Result<()> {
        let mut transaction = self.database.begin_write().map_err(other)?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(other)?;
        transaction.set_two_phase_commit(true);
        {
            let mut cells = transaction.open_table(CELLS).map_err(other)?;
            for (key, value) in table.iter() {
                match value {
                    Some(value) => cells.insert(key, value).map(drop),
                    None => cells.remove(key).map(drop),
                }
                .map_err(other)?;
            }
            let mut meta = transaction.open_table(META).map_err(other)?;
            meta.insert(META_VERSION, VERSION).map_err(other)?;
            meta.insert(META_SEQUENCE, sequence).map_err(other)?;
        }
        transaction.commit().map_err(other)
    }

    pub(super) fn reader(&self) -> io::Result<CheckpointReader> {
        guarded(|| {
            let transaction = self.database.begin_read();
            transaction.map(CheckpointReader).map_err(other)
        })
    }
}

impl CheckpointReader {
    /// The table exists from the first commit on, which `create` makes.
    fn cells(&self) -> io::Result<ReadOnlyTable<&'static [u8], &'static [u8]>> {
        self.0.open_table(CELLS).map_err(other)
    }

    /// Looks the keys up one after another.
    pub(super) fn get_each<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        mut found: impl FnMut(Option<Vec<u8>>),
    ) -> io::Result<()> {
        guarded(|| {
            let cells = self.cells()?;
            for key in keys {
                let value = cells.get(key).map_err(other)?;
                found(value.map(|value| value.value().to_vec()));
            }
            Ok(())
        })
    }

    /// All pairs whose key starts with `prefix`, ordered by key.
    pub(super) fn scan(&self, prefix: &[u8]) -> io::Result<Vec<Pair>> {
        let all = PageMax {
            pairs: usize::MAX,
            bytes: usize::MAX,
        };
        let (pairs, _) = self.scan_page(prefix, Bound::Unbounded, all)?;
        Ok(pairs)
    }

    /// The first of them that are not before `from`, and whether there are more.
    pub(super) fn scan_page(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
        page: PageMax,
    ) -> io::Result<(Vec<Pair>, bool)> {
        guarded(|| {
            let mut pairs = Vec::new();
            let range = (start_of(prefix, from), Bound::Unbounded);
            let found = self.cells()?.range::<&[u8]>(range).map_err(other)?;
            let mut failed = None;
            // Ends at the first pair that is another's, or cannot be read.
            let mut found = found.map_while(|pair| match pair {
                Ok((key, value)) if key.value().starts_with(prefix) => {
                    Some((key.value().to_vec(), value.value().to_vec()))
                }
                Ok(_) => None,
                Err(error) => {
                    failed = Some(other(error));
                    None
                }
            });
            let more = page.cut(&mut found, bytes_of, |pair| pairs.push(pair));
            drop(found);
            failed.map_or(Ok((pairs, more)), Err)
        })
    }
}

fn bytes_of((key, value): &Pair) -> usize {
    key.len() + value.len()
}

/// redb may panic where a page cannot be read or makes no sense. After that, as after an error,
/// the store is poisoned and uses redb no more.
fn guarded<T>(run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::InvalidData, "redb panicked")))
}

fn open_database(
    file: Box<dyn DiskFile>,
    cache_bytes_max: usize,
) -> Result<Database, StoreOpenError> {
    Builder::new()
        .set_cache_size(cache_bytes_max)
        // Verifies every page, also after a clean end.
        .set_check_integrity_on_open(true)
        .create_with_backend(Backend(Witness::new(file)))
        .map_err(|error| open_error(error, "the checkpoint cannot be opened"))
}

fn open_error(error: DatabaseError, what: &str) -> StoreOpenError {
    match error {
        DatabaseError::Storage(StorageError::Io(source)) if !is_damage(&source) => {
            StoreOpenError::io(what)(source)
        }
        other => StoreOpenError::corrupt(format!("{what}: {other}")),
    }
}

fn unreadable(error: io::Error) -> StoreOpenError {
    let what = "the checkpoint cannot be read";
    match is_damage(&error) {
        true => StoreOpenError::corrupt(format!("{what}: {error}")),
        false => StoreOpenError::io(what)(error),
    }
}

/// Rather than a disk that may do better next time.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof)
}

fn other(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        redb::Error::Corrupted(what) => io::Error::new(io::ErrorKind::InvalidData, what),
        error => io::Error::other(error),
    }
}

/// redb's own seam to its file, laid onto ours. It has no locks: the folder's lock covers it.
#[derive(Debug)]
struct Backend(Witness);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_redb_is_damage() {
        let error = guarded::<()>(|| panic!("on purpose")).unwrap_err();
        assert!(is_damage(&error), "{error}");
    }
}
