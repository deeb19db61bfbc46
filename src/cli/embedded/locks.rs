//! Who is alive: an executor holds a lock on a file that its claim is named after, and the system
//! frees it when the process ends, however it ends.
//!
//! Such a file is made only by whoever has the journal for writing, and before the claim is in it. A
//! script that claims ends before its action does, and has nothing to hold a lock with: its file says
//! so, and counts as held for as long as it is there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::journal::Journal;
use crate::task::ClaimId;

const SCRIPT: &str = "script";

/// Who is to keep the task, once it is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Keeper {
    /// This process, until it ends.
    Process,
    /// Nobody, until the claim is finished.
    Script,
}

fn folder(namespace: &Path) -> PathBuf {
    namespace.join("claims")
}

fn path(namespace: &Path, claim: ClaimId) -> PathBuf {
    folder(namespace).join(claim.to_string())
}

/// Makes the file of a claim that is about to be made, and locks it.
pub(super) fn hold(journal: &Journal, claim: ClaimId, keeper: Keeper) -> io::Result<File> {
    fs::create_dir_all(folder(journal.folder()))?;
    let path = path(journal.folder(), claim);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    match keeper {
        Keeper::Process => file.lock()?,
        Keeper::Script => file.write_all(SCRIPT.as_bytes())?,
    }
    Ok(file)
}

pub(super) fn release(namespace: &Path, claim: ClaimId) {
    // What is left is swept away later.
    let _ = fs::remove_file(path(namespace, claim));
}

/// Whether the executor of a claim is known to have died. The journal is open, so that one that has
/// just recorded its outcome is not taken for dead.
pub(super) fn has_died(journal: &Journal, claim: ClaimId) -> bool {
    match File::open(path(journal.folder(), claim)) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => !is_script(&file),
            Err(TryLockError::WouldBlock) => false,
            // Not known.
            Err(TryLockError::Error(_)) => false,
        },
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether a process holds the lock of a claim.
pub(super) fn is_held(journal: &Journal, claim: ClaimId) -> bool {
    let file = File::open(path(journal.folder(), claim));
    file.is_ok_and(|file| file.try_lock_shared().is_err())
}

fn is_script(mut file: &File) -> bool {
    let mut text = String::new();
    file.read_to_string(&mut text).is_ok() && text == SCRIPT
}

/// Returns when the executor of a claim has ended or died. `false` if that cannot be waited for.
pub(super) fn wait(namespace: &Path, claim: ClaimId) -> bool {
    let Ok(file) = File::open(path(namespace, claim)) else {
        return true;
    };
    !is_script(&file) && file.lock_shared().is_ok()
}

/// Removes the files of claims under which nothing runs.
pub(super) fn sweep(journal: &Journal) {
    let running = |name: &str| {
        let mut tasks = journal.board.tasks().values();
        tasks.any(|task| {
            task.running()
                .is_some_and(|claim| claim.to_string() == name)
        })
    };
    for entry in fs::read_dir(folder(journal.folder()))
        .into_iter()
        .flatten()
        .flatten()
    {
        if !entry.file_name().to_str().is_some_and(running) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
