//! What can go wrong with a store, in words that say what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the store did not do what it was asked. Cheap to clone: every queued write gets one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreFailed {
    #[error("the store is closed")]
    Closed,
    /// A write, a sync or a read failed. What is on disk is known only after a restart, which
    /// verifies it, so nothing is read, written or retried in this process any more.
    #[error(
        "the store stopped for good: {0}; mend the disk, or make room on it, and restart this \
         process, which verifies what the disk holds"
    )]
    Poisoned(Arc<str>),
    /// What was read is what was written, but means nothing to this build.
    #[error("the store could not be read: {0}")]
    Read(Arc<str>),
    /// Refused before anything was queued.
    #[error("a batch of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
}

/// Why a store could not be opened. Nothing that was durable has been changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreOpenError {
    #[error("{} is in use by another store; stop the process that holds it", dir.display())]
    InUse { dir: PathBuf },
    #[error("{} cannot be written: {source}; check that it is on a local disk and who owns it", dir.display())]
    Unwritable { dir: PathBuf, source: io::Error },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{what}; {remedy}")]
    Corrupt { what: String, remedy: String },
    #[error(
        "the store has format version {found}, this build knows {known}; run the build that wrote it"
    )]
    Version { found: u64, known: u64 },
}

impl StoreOpenError {
    /// For damage to data that was synced: some of what this store acknowledged is gone.
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            remedy: "data that was once durable is damaged or missing, so this folder must not be \
                     used again: keep it for inspection, check the disk, and treat this node as \
                     one that has lost its disk"
                .into(),
        }
    }

    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
