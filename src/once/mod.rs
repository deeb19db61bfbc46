//! The typed cell: what users of the library hold.

mod cell;
mod claim;
mod config;
mod decision;
mod error;
mod hold;
mod when;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::{GroupId, StoreId, Version};
use crate::network::Network;

pub use claim::{Claim, Pending};
pub use config::OnceConfig;
pub use decision::Decision;
pub use error::{ClaimError, Error, InitError, ReadError};
pub use when::{Observed, When};

pub(crate) use hold::{Hold, NoAnswer};

use cell::Cell;

/// The parameter of a [`Once`] that reads and writes.
pub const WRITER: bool = true;

/// The parameter of a [`Once`] that only reads.
pub const READER: bool = false;

/// A handle that reads and writes.
pub type OnceWriter<T> = Once<T, WRITER>;

/// A handle that only reads. It has no method that writes:
///
/// ```compile_fail,E0599
/// # use raft_once::{Network, OnceReader};
/// # async fn demo(network: &Network) {
/// let once = OnceReader::<u64>::reader(network, "cell");
/// let _ = once.write(1).await;
/// # }
/// ```
pub type OnceReader<T> = Once<T, READER>;

/// A cell that can be written only once, shared by all nodes of a network.
///
/// It is to a cluster what `tokio::sync::OnceCell` is to a process: the first value that is
/// committed stays, for good, through crashes, restarts and partitions. All handles with the same
/// id and the same value type, wherever on the network they are opened, are one cell.
///
/// A `Once` is a handle: clones are cheap and share one decoded value. It keeps its node running,
/// even if the [`Network`] it was opened on was dropped, and makes the node follow the cell.
/// Reads never touch the network.
///
/// ```
/// use raft_once::{Network, Once};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new("demo").await?;
/// let writer = Once::<String>::writer(&network, "config-seed");
/// let reader = Once::<String>::reader(&network, "config-seed");
///
/// assert!(reader.is_none());
/// writer.write("genesis".into()).await?;
/// assert_eq!(reader.wait().await?, "genesis");
/// # network.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # Values this node cannot decode
///
/// If a cell was written with another type than it is read with (same
/// [`type_name`](OnceConfig::type_name), or a type that has changed), it is decided all the same.
/// Then [`is_some`](Self::is_some) is true; [`wait`](Self::wait),
/// [`read_linearizable`](Self::read_linearizable), [`claim`](Self::claim) and
/// [`get_or_init`](Self::get_or_init) return a [`DecodeError`](crate::DecodeError);
/// [`read`](Self::read), [`get`](Self::get) and [`get_ref`](Self::get_ref) are `None`, with one
/// warning in the log.
pub struct Once<T, const IS_WRITER: bool = WRITER> {
    cell: Arc<Cell<T>>,
}

/// Opening a cell to write. All of these return at once: the node gets in touch in the background,
/// see [`When::online`].
impl<T> Once<T, WRITER>
where
    T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Opens a cell to read and write.
    ///
    /// The cell's identity is `store_id` and the name that the compiler gives to `T`. For a cell
    /// that outlives one build of your program set a
    /// [`type_name`](OnceConfig::type_name): two builds may name a type differently, and then
    /// **open two cells**.
    pub fn writer(network: &Network, store_id: impl Into<StoreId>) -> Self {
        Self::writer_with_config(network, store_id, OnceConfig::new())
    }

    /// Opens a cell to read and write, with settings.
    pub fn writer_with_config(
        network: &Network,
        store_id: impl Into<StoreId>,
        config: OnceConfig,
    ) -> Self {
        Self::open(network, store_id.into(), config)
    }

    /// The same as [`writer`](Self::writer).
    pub fn new(network: &Network, store_id: impl Into<StoreId>) -> Self {
        Self::writer(network, store_id)
    }

    /// The same as [`writer_with_config`](Self::writer_with_config).
    pub fn new_with_config(
        network: &Network,
        store_id: impl Into<StoreId>,
        config: OnceConfig,
    ) -> Self {
        Self::writer_with_config(network, store_id, config)
    }
}

/// Opening a cell to read. It writes nothing and elects nobody. These are here for both kinds of
/// handle so that `Once::<T>::reader(..)` can be written.
impl<T, const IS_WRITER: bool> Once<T, IS_WRITER>
where
    T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Opens a cell to read.
    pub fn reader(network: &Network, store_id: impl Into<StoreId>) -> OnceReader<T> {
        OnceReader::<T>::reader_with_config(network, store_id, OnceConfig::new())
    }

    /// Opens a cell to read, with settings.
    pub fn reader_with_config(
        network: &Network,
        store_id: impl Into<StoreId>,
        config: OnceConfig,
    ) -> OnceReader<T> {
        OnceReader::open(network, store_id.into(), config)
    }

    fn open(network: &Network, store_id: StoreId, config: OnceConfig) -> Self {
        let group = config.group::<T>(store_id);
        Self {
            cell: Cell::open(network, group, config),
        }
    }
}

/// Reading, on both kinds of handle. What is not `async` never touches the network and works in
/// any state, also after shutdown.
impl<T, const IS_WRITER: bool> Once<T, IS_WRITER> {
    /// The cell's value, if it is known here.
    ///
    /// `Some` is final: it is what every node reads, now and for ever. `None` may be stale: the
    /// cell may be decided elsewhere; ask with [`read_linearizable`](Self::read_linearizable).
    pub fn read(&self) -> Option<T>
    where
        T: Clone,
    {
        self.get_ref().cloned()
    }

    /// The same as [`read`](Self::read).
    pub fn get(&self) -> Option<T>
    where
        T: Clone,
    {
        self.read()
    }

    /// [`read`](Self::read) without the clone: one atomic load, no lock.
    #[inline]
    pub fn get_ref(&self) -> Option<&T> {
        self.cell.get()
    }

    /// Whether no value is known here.
    pub fn is_empty(&self) -> bool {
        !self.is_some()
    }

    /// The same as [`is_empty`](Self::is_empty).
    pub fn is_none(&self) -> bool {
        self.is_empty()
    }

    /// Whether the cell is known here to hold a value, even one that this node cannot decode.
    pub fn is_some(&self) -> bool {
        self.cell.view().record().is_some()
    }

    /// The highest version of the cell that this node has seen. It never runs backwards.
    pub fn version(&self) -> Version {
        self.cell.view().version()
    }

    /// Futures for what happens to the cell.
    pub fn when(&self) -> &When {
        &self.cell.when
    }

    /// The Raft group of this cell: equal on all nodes for handles that are one cell.
    pub fn group_id(&self) -> GroupId {
        self.cell.group()
    }

    /// Who decided the cell and when, if that is known here.
    ///
    /// ```
    /// # use raft_once::{Network, Once};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let once = Once::<u64>::writer(&network, "seed");
    /// assert!(once.decision().is_none());
    ///
    /// let version = once.write(42).await?;
    /// let decision = once.decision().unwrap();
    /// assert_eq!(decision.winner, network.node_id());
    /// assert_eq!(decision.version, version);
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn decision(&self) -> Option<Decision> {
        let record = self.cell.view().record()?;
        let name = self.cell.network().name_of(record.proposer());
        Some(Decision::new(record, name))
    }

    /// Waits until the cell has a value, however long that takes; at once if it has.
    ///
    /// Waiting costs no message: the value is brought here when it is decided. While this node is
    /// offline it waits on.
    ///
    /// # Errors
    ///
    /// [`ReadError::Decode`] if the value is not a `T`, [`ReadError::NetworkDown`] if the network
    /// is shut down before a value is known here. Never [`ReadError::Offline`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn wait(&self) -> Result<&T, ReadError> {
        match self.cell.unless_down(self.cell.decided()).await {
            Ok(outcome) => outcome.map_err(|error| ReadError::Decode(error.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// [`wait`](Self::wait) with a clone of the value.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn await_value(&self) -> Result<T, ReadError>
    where
        T: Clone,
    {
        self.wait().await.cloned()
    }

    /// The cell's value as of now: `None` means that no write had been acknowledged anywhere
    /// before this call.
    ///
    /// A value that is known here is returned at once. Else a majority of the voters is asked
    /// (an observer asks a voter to): one round trip, no leader needed, unless a write was under
    /// way.
    ///
    /// ```
    /// # use raft_once::{Network, Once};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let once = Once::<u64>::writer(&network, "seed");
    /// assert_eq!(once.read_linearizable().await?, None);
    /// once.write(42).await?;
    /// assert_eq!(once.read_linearizable().await?, Some(42));
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError::Offline`] if no majority could be asked within the network's write timeout,
    /// [`ReadError::Decode`] if the value is not a `T`, [`ReadError::NetworkDown`] after shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn read_linearizable(&self) -> Result<Option<T>, ReadError>
    where
        T: Clone,
    {
        if self.cell.outcome().is_none() {
            self.cell.barrier().await?;
        }
        match self.cell.outcome() {
            Some(Ok(value)) => Ok(Some(value.clone())),
            Some(Err(error)) => Err(ReadError::Decode(error.clone())),
            None => Ok(None),
        }
    }
}

impl From<NoAnswer> for ReadError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Offline => Self::Offline,
            NoAnswer::NetworkDown => Self::NetworkDown,
        }
    }
}

/// Another handle on the same cell that shares the decoded value.
impl<T, const IS_WRITER: bool> Clone for Once<T, IS_WRITER> {
    fn clone(&self) -> Self {
        Self {
            cell: self.cell.clone(),
        }
    }
}

/// Shows the cell's state, never its value.
impl<T, const IS_WRITER: bool> fmt::Debug for Once<T, IS_WRITER> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.cell.outcome() {
            None => "empty",
            Some(Ok(_)) => "set",
            Some(Err(_)) => "undecodable",
        };
        f.debug_struct("Once")
            .field("group", &self.group_id())
            .field("version", &self.version())
            .field("state", &state)
            .field("writer", &IS_WRITER)
            .finish()
    }
}
