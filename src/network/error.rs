//! Why a node did not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ElectorateError, SecretError, TicketError};
use crate::limits::LimitError;
use crate::store::StoreOpenError;
use crate::transport::TransportError;

/// Why a node could not be started. Nothing of it is left running, and no data was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The electorate makes no sense.
    #[error(transparent)]
    Electorate(#[from] ElectorateError),
    /// The secret is too weak.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The ticket is not usable.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// [`voter`](crate::NetworkBuilder::voter) names nobody in the electorate.
    #[error("there is no voter called {name:?} in the electorate ({}); \
             start this node under one of these names, or without one as an observer",
            names.join(", "))]
    UnknownVoter {
        /// The name that was given.
        name: String,
        /// The names in the electorate.
        names: Vec<String>,
    },
    /// A voter was told neither where to keep its data nor that it may forget it.
    #[error(
        "voter {name:?} needs a place for its log: give it a data_dir, \
         or say in_memory() if it may forget everything when it stops"
    )]
    NoStorage {
        /// The voter's name.
        name: String,
    },
    /// An observer was given a data directory.
    #[error("an observer keeps nothing: remove data_dir, or name the voter that this node is")]
    StorageOfObserver,
    /// Others than this machine could connect, and nothing would keep them out.
    #[error(
        "binding {addr} opens this node to other machines, so it needs a secret: \
         give all nodes the same one (Secret::generate() makes one), or bind a loopback address"
    )]
    SecretMissing {
        /// The address to be bound.
        addr: SocketAddr,
    },
    /// A limit was set to what it cannot be.
    #[error("the limit {name} is {value}: it may be from {min} to {max}")]
    Limit {
        /// Which of [`Limits`](crate::Limits).
        name: &'static str,
        /// What it was set to.
        value: u64,
        /// The least that it may be.
        min: u64,
        /// The most that it may be.
        max: u64,
    },
    /// An address names no host that is known now.
    #[error("{addr} does not resolve: {reason}; check the address of this node in the electorate")]
    Resolve {
        /// The address as given.
        addr: String,
        /// What the resolver said.
        reason: String,
    },
    /// The address cannot be bound.
    #[error(
        "{addr} cannot be bound: {reason}; is another process there, or is it not an address \
             of this machine?"
    )]
    Bind {
        /// The address to be bound.
        addr: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Another process, or another node of this one, uses the data directory.
    #[error("{} is in use by another node; a data directory belongs to one voter at a time",
            dir.display())]
    DataDirInUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory cannot be created or written.
    #[error("{} cannot be written: {source}; check who owns it and that it is a local disk",
            dir.display())]
    DataDirUnwritable {
        /// The data directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory was written by another voter, network or electorate.
    #[error(
        "{} holds the data of voter {found_voter:?} of network {found_network:?} with the \
         electorate {}, not of {voter:?} of {network:?} with {}; \
         give each voter its own data directory and the electorate it was made with",
        dir.display(), found_electorate.join(", "), electorate.join(", ")
    )]
    DataDirOfAnother {
        /// The data directory.
        dir: PathBuf,
        /// Whose data it holds.
        found_voter: String,
        /// The network of that voter.
        found_network: String,
        /// The names of the electorate it was written with.
        found_electorate: Vec<String>,
        /// The voter that was to be started.
        voter: String,
        /// The network that was to be joined.
        network: String,
        /// The names of the electorate that was given.
        electorate: Vec<String>,
    },
    /// The stored data cannot be read, or was written by another version.
    #[error("the data in {} cannot be used: {reason}", dir.display())]
    Data {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl From<LimitError> for NetworkError {
    fn from(error: LimitError) -> Self {
        let LimitError {
            name,
            value,
            min,
            max,
        } = error;
        Self::Limit {
            name,
            value,
            min,
            max,
        }
    }
}

impl NetworkError {
    pub(super) fn of_store(dir: &std::path::Path, error: StoreOpenError) -> Self {
        let dir = dir.to_path_buf();
        match error {
            StoreOpenError::InUse { .. } => Self::DataDirInUse { dir },
            StoreOpenError::Unwritable { source, .. } => Self::DataDirUnwritable { dir, source },
            other => Self::Data {
                dir,
                reason: other.to_string(),
            },
        }
    }

    pub(super) fn of_bind(addr: SocketAddr, error: TransportError) -> Self {
        let reason = match error {
            TransportError::Bind { reason, .. } => reason,
            other => other.to_string(),
        };
        Self::Bind { addr, reason }
    }
}
