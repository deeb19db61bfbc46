//! The tasks of one namespace in one file: the board as it once was, and each command since.
//!
//! ```text
//! file     magic 8 | known end 8 | crc 4, over it | record of the board | records of commands
//! record   payload bytes 4 | version 8 | crc 4, over both and the payload | payload
//! ```
//!
//! Whoever reads holds a lock on a file beside it, shared; whoever writes, alone. A command is
//! appended in one piece and synced before anybody is told; then the file's length is noted as its known
//! end, which is not synced by itself. A crash may leave the last record torn: nobody was told of it
//! then, and the next writer cuts it off. Anything else that is not whole, or lies before the known end,
//! is damage, and refused. Now and then the board is written anew to another file, which then takes the
//! place of this one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::place::sync_above;
use crate::cli::problem::{IN_DOUBT, Problem, UNAVAILABLE};
use crate::codec;
use crate::id::Version;
use crate::machine::task::{Answer, Board, Changes, Command};

const MAGIC: [u8; 8] = *b"onceTSK1";
/// The known end, and its crc.
const END_BYTES: usize = 12;
const HEADER_BYTES: usize = 16;
const BODY_VERSION: u8 = 1;

/// The most bytes of a command; the largest takes less than half of it.
const COMMAND_BYTES_MAX: usize = 4 * 1024;

/// The most bytes of a journal. It is written anew long before.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A journal whose commands take more than this, and more than its board, is written anew.
const COMMANDS_BYTES: u64 = 256 * 1024;

/// For how long others who use the journal are waited for. Each does so for milliseconds.
const LOCK_WITHIN: Duration = Duration::from_secs(10);

/// The pauses in between: doubling from the first to the second.
const LOCK_AGAIN: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));

const JOURNAL: &str = "journal";
const LOCK: &str = "lock";

/// What may be done with a journal that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A journal that is open, and locked until it is dropped.
pub(super) struct Journal {
    folder: PathBuf,
    /// The file, if there is one: a namespace without tasks needs none.
    file: Option<File>,
    pub(super) board: Board,
    /// Of the last command.
    pub(super) version: Version,
    /// Up to where the file is whole.
    end: u64,
    board_bytes: u64,
    _lock: File,
}

impl Journal {
    /// Opens the journal of a folder, once nobody stands in the way.
    pub(super) fn open(folder: &Path, access: Access) -> Result<Self, Problem> {
        Self::open_unless(folder, access, &CancellationToken::new())
    }

    /// The same, unless it is told to stop while it waits.
    pub(super) fn open_unless(
        folder: &Path,
        access: Access,
        stop: &CancellationToken,
    ) -> Result<Self, Problem> {
        let path = folder.join(LOCK);
        let failed = |error| Problem::io("cannot lock", &path, &error);
        let lock = private().create(true).open(&path).map_err(failed)?;
        let (since, mut pause) = (Instant::now(), LOCK_AGAIN.0);
        loop {
            let locked = match access {
                Access::Read => lock.try_lock_shared(),
                Access::Write => lock.try_lock(),
            };
            match locked {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if stop.is_cancelled() => {
                    return Err(Problem::new(UNAVAILABLE, "told to stop; nothing was done"));
                }
                Err(TryLockError::WouldBlock) if since.elapsed() >= LOCK_WITHIN => {
                    let message = format!(
                        "another process holds {} for 10 s already; nothing was done. A `once` that is stopped or \
                         frozen does that: find it with fuser, and let it go on or kill it",
                        path.display()
                    );
                    return Err(Problem::new(UNAVAILABLE, message));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(pause),
            }
            pause = (2 * pause).min(LOCK_AGAIN.1);
        }
        let mut journal = Self {
            folder: folder.into(),
            file: None,
            board: Board::default(),
            version: Version::ZERO,
            end: 0,
            board_bytes: 0,
            _lock: lock,
        };
        let path = journal.path();
        let failed = |error| Problem::io("cannot read", &path, &error);
        match OpenOptions::new()
            .read(true)
            .write(access == Access::Write)
            .open(&path)
        {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                (&mut file)
                    .take(JOURNAL_BYTES_MAX + 1)
                    .read_to_end(&mut bytes)
                    .map_err(failed)?;
                journal
                    .replay(&bytes)
                    .map_err(|reason| journal.damaged(&reason))?;
                journal.file = Some(file);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(journal)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self) -> PathBuf {
        self.folder.join(JOURNAL)
    }

    fn damaged(&self, reason: &str) -> Problem {
        let message = format!(
            "{} cannot be used: {reason}. Nothing was claimed. Move the file away once you have made sure that \
             nothing in it must not run again",
            self.path().display()
        );
        Problem::new(UNAVAILABLE, message)
    }

    fn replay(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() as u64 > JOURNAL_BYTES_MAX {
            return Err("it is larger than a journal may be".into());
        }
        if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err("it is no journal of this version of once".into());
        }
        let mut at = MAGIC.len() + END_BYTES;
        let known_end = bytes.get(MAGIC.len()..at).map_or(0, known_end);
        // It took the place of another as a whole: whatever is wrong with it is damage.
        let board = bytes.get(at..).and_then(record);
        let (version, body) = board.ok_or("its board is damaged")?;
        self.board = codec::decode(BODY_VERSION, body)
            .map_err(|error| format!("its board is damaged: {error}"))?;
        self.board.check(version)?;
        self.version = version;
        at += HEADER_BYTES + body.len();
        self.board_bytes = at as u64;
        while at < bytes.len() {
            let Some((version, body)) = record(&bytes[at..]) else {
                if at as u64 >= known_end && is_torn(&bytes[at..], self.version) {
                    break;
                }
                return Err(format!("it is damaged at byte {at}"));
            };
            if version != next(self.version) {
                return Err(format!("a command is missing before byte {at}"));
            }
            let command: Command = codec::decode(BODY_VERSION, body)
                .map_err(|error| format!("it is damaged at byte {at}: {error}"))?;
            self.board.apply(version, &command, &mut Changes::default());
            self.version = version;
            at += HEADER_BYTES + body.len();
        }
        if (at as u64) < known_end {
            return Err("its end is missing".into());
        }
        self.end = at as u64;
        Ok(())
    }

    /// Applies a command. It is durable when this returns, unless it changes nothing.
    pub(super) fn take(&mut self, command: &Command) -> Result<Answer, Problem> {
        command.check().map_err(Problem::usage)?;
        let version = next(self.version);
        let mut changes = Changes::default();
        let answer = self.board.apply(version, command, &mut changes);
        if changes == Changes::default() {
            return Ok(answer);
        }
        self.version = version;
        let path = self.path();
        if self.end - self.board_bytes > COMMANDS_BYTES.max(self.board_bytes) || self.file.is_none()
        {
            let is_first = self.file.is_none();
            let bytes = self
                .write_anew()
                .map_err(|error| Problem::io("cannot write", &path, &error))?;
            let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| unsynced(&self.folder, &error))?;
            if is_first {
                // Whoever made the folders may have died before they were durable.
                sync_above(&self.folder);
            }
            (self.end, self.board_bytes) = (bytes, bytes);
            return Ok(answer);
        }
        let bytes = framed(version, &codec::encode(BODY_VERSION, command));
        let Some(file) = &mut self.file else {
            return Ok(answer);
        };
        let append = |file: &mut File| {
            // Behind the end there is at most what a crash has left.
            file.set_len(self.end)?;
            file.seek(SeekFrom::Start(self.end))?;
            file.write_all(&bytes)
        };
        append(file).map_err(|error| Problem::io("cannot write", &path, &error))?;
        // From here on others read it, whether it is durable or not.
        file.sync_data().map_err(|error| unsynced(&path, &error))?;
        self.end += bytes.len() as u64;
        // Not synced: if it is lost, the last record counts as before.
        let noted = file
            .seek(SeekFrom::Start(MAGIC.len() as u64))
            .and_then(|_| file.write_all(&end_known(self.end)));
        if let Err(error) = noted {
            tracing::debug!(%error, "the end of the journal is not noted");
        }
        Ok(answer)
    }

    /// Writes the board to a new file, which takes the place of the journal: of how many bytes.
    fn write_anew(&mut self) -> io::Result<u64> {
        let new = self.folder.join("journal.new");
        let board = framed(self.version, &codec::encode(BODY_VERSION, &self.board));
        let end = MAGIC.len() + END_BYTES + board.len();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(end_known(end as u64));
        bytes.extend(board);
        let mut file = private().create(true).truncate(true).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.path())?;
        self.file = Some(file);
        Ok(bytes.len() as u64)
    }
}

fn end_known(end: u64) -> [u8; END_BYTES] {
    let end = end.to_le_bytes();
    let mut bytes = [0; END_BYTES];
    bytes[..8].copy_from_slice(&end);
    bytes[8..].copy_from_slice(&crc32fast::hash(&end).to_le_bytes());
    bytes
}

/// Nothing, if it is not whole: it is written in place.
fn known_end(bytes: &[u8]) -> u64 {
    let end = bytes.get(..8).and_then(|end| end.try_into().ok());
    let end = end.map_or(0, u64::from_le_bytes);
    if bytes == end_known(end) { end } else { 0 }
}

/// What was written is read by others from now on, and may be gone after a crash.
fn unsynced(path: &Path, error: &io::Error) -> Problem {
    let message = format!(
        "{} cannot be synced: {error}. What was asked for may hold or not; nothing was started here. Look with \
         `once get NAME` when the disk is well again",
        path.display()
    );
    Problem::new(IN_DOUBT, message)
}

/// For this user alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn next(version: Version) -> Version {
    Version::new(version.as_u64() + 1)
}

fn framed(version: Version, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    // A board is one frame of the network, at most.
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(version.as_u64().to_le_bytes());
    let crc = crc(&bytes, body);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(body);
    bytes
}

fn crc(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// The record at the beginning of these bytes, if it is whole.
fn record(bytes: &[u8]) -> Option<(Version, &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
    let version = u64::from_le_bytes(header[4..12].try_into().ok()?);
    let sum = u32::from_le_bytes(header[12..].try_into().ok()?);
    let body = rest.get(..length)?;
    (crc(&header[..12], body) == sum).then_some((Version::new(version), body))
}

/// Whether this can be the one record that was being written in a crash: no longer than one, and with
/// no later one behind it.
fn is_torn(bytes: &[u8], last: Version) -> bool {
    bytes.len() <= HEADER_BYTES + COMMAND_BYTES_MAX
        && (1..bytes.len())
            .all(|at| record(&bytes[at..]).is_none_or(|(version, _)| version <= last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::task::{ClaimId, Spec, Step};

    fn create(name: &str) -> Command {
        Command {
            task: name.into(),
            id: ClaimId(rand::random()),
            by: "tests".into(),
            seen: Version::new(u64::MAX),
            at_ms: 1,
            step: Step::Create(Spec::default()),
        }
    }

    fn written(names: &[&str]) -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let mut journal = Journal::open(folder.path(), Access::Write).unwrap();
            assert_eq!(journal.take(&create(name)).unwrap().refused, None);
        }
        let bytes = fs::read(folder.path().join(JOURNAL)).unwrap();
        (folder, bytes)
    }

    fn names(folder: &Path) -> Result<Vec<String>, Problem> {
        let journal = Journal::open(folder, Access::Read)?;
        Ok(journal.board.tasks().keys().cloned().collect())
    }

    #[test]
    fn what_was_taken_is_read_again() {
        let (folder, _) = written(&["a", "b", "c"]);
        assert_eq!(names(folder.path()).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn a_record_torn_anywhere_was_never_written() {
        let (folder, whole) = written(&["a", "b", "c"]);
        let path = folder.path().join(JOURNAL);
        let (shorter, _) = written(&["a", "b"]);
        let end = fs::metadata(shorter.path().join(JOURNAL)).unwrap().len() as usize;
        for cut in end..whole.len() {
            // The file grew, and its bytes did or did not reach the disk.
            for zeros in [false, true] {
                let mut torn = whole[..cut].to_vec();
                torn.resize(if zeros { whole.len() } else { cut }, 0);
                // Nobody has come so far as to note it.
                torn[MAGIC.len()..][..END_BYTES].copy_from_slice(&end_known(end as u64));
                if torn[end..] == whole[end..] {
                    // Its last bytes are zeros.
                    continue;
                }
                fs::write(&path, &torn).unwrap();
                assert_eq!(names(folder.path()).unwrap(), ["a", "b"], "cut at {cut}");
            }
        }
        Journal::open(folder.path(), Access::Write)
            .unwrap()
            .take(&create("d"))
            .unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["a", "b", "d"]);
    }

    #[test]
    fn a_record_that_somebody_was_told_of_is_not_taken_for_a_torn_one() {
        let (folder, whole) = written(&["a", "b", "c"]);
        for cut in 0..whole.len() {
            fs::write(folder.path().join(JOURNAL), &whole[..cut]).unwrap();
            assert!(names(folder.path()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn damage_is_refused() {
        let (folder, whole) = written(&["a", "b", "c"]);
        let end_known = MAGIC.len()..MAGIC.len() + END_BYTES;
        for at in (0..whole.len()).filter(|at| !end_known.contains(at)) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            fs::write(folder.path().join(JOURNAL), &damaged).unwrap();
            assert!(names(folder.path()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_long_journal_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), Access::Write).unwrap();
        let long = "x".repeat(180);
        // More commands than are kept: the same few tasks come and go.
        for round in 0..1_500 {
            let mut command = create(&format!("{long}{}", round % 3));
            if round % 6 >= 3 {
                command.step = Step::Delete;
            }
            assert_eq!(journal.take(&command).unwrap().refused, None);
        }
        let bytes = fs::metadata(folder.path().join(JOURNAL)).unwrap().len();
        assert!(bytes < 2 * COMMANDS_BYTES, "{bytes}");
        let (board, version) = (journal.board.clone(), journal.version);
        drop(journal);
        let again = Journal::open(folder.path(), Access::Read).unwrap();
        assert_eq!((again.board, again.version), (board, version));
    }
}
