//! The typed map of write-once slots.

mod changes;
mod entries;
mod key;
mod read;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, Weak};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{DecodeError, decode_value};
use crate::id::{GroupId, StoreId, Version};
use crate::machine::{Record, Slot};
use crate::network::Network;
use crate::once::{Hold, OnceConfig, READER, ReadError, WRITER, When};

pub use changes::{Change, Changes};
pub use entries::Entries;
pub use key::MapKey;

/// A handle that reads and writes.
pub type OnceMapWriter<K, V> = OnceMap<K, V, WRITER>;

/// A handle that only reads. It has no method that writes.
pub type OnceMapReader<K, V> = OnceMap<K, V, READER>;

/// A map of slots, each of which can be written only once, shared by all nodes of a network.
///
/// Every slot is what a [`Once`](crate::Once) is: the first value that is committed stays, for
/// good. All of them are in one Raft group, so that a decision takes its share of a log and of a
/// sync that many others share, in place of a group of its own. Use it for many small decisions of
/// one kind: who owns a slot, which entry of a ledger comes next. It holds millions of slots: on
/// voters they are on disk, and other nodes keep none.
///
/// So reading is `async` here: a voter reads its disk, any other node asks the voter that it
/// follows. What is read is final. What is *not* found may have been decided elsewhere, as with
/// [`Once::read`](crate::Once::read), unless [`get_linearizable`](Self::get_linearizable) says so;
/// but nobody is told less than their node has seen before: a key that was claimed through a handle
/// of this node is found.
///
/// ```
/// use raft_once::{Claim, Network, OnceMap};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new("demo").await?;
/// let owners = OnceMap::<u64, String>::writer(&network, "owners");
///
/// assert!(owners.claim(7, "alice".to_string()).await?.is_won());
/// match owners.claim(7, "bob".to_string()).await? {
///     Claim::Won(version) => println!("bob owns 7, fencing token {version}"),
///     Claim::Lost { winner, .. } => assert_eq!(winner, "alice"),
/// }
/// assert!(owners.claim(8, "bob".to_string()).await?.is_won());
///
/// assert_eq!(owners.get(&7).await?.as_deref(), Some("alice"));
/// assert_eq!(owners.len().await?, 2);
/// # network.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # Follow what is decided
///
/// [`changes`](Self::changes) is a stream of all decisions in the order in which they were made. It
/// misses none and repeats none, whatever happens to the voter that it is read from; a program that
/// remembers the version of the last one it has dealt with goes on behind it when it starts again.
///
/// ```
/// use futures::StreamExt;
/// use raft_once::{Network, OnceMap, Version};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new("demo").await?;
/// let ledger = OnceMap::<u64, String>::writer(&network, "ledger");
/// ledger.claim(0, "genesis".to_string()).await?;
/// ledger.claim(1, "second".to_string()).await?;
///
/// let mut changes = ledger.changes(..);
/// let first = changes.next().await.expect("it ends with the network")?;
/// assert_eq!((first.key, &*first.value), (0, "genesis"));
///
/// let mut rest = ledger.changes_since(first.version, ..);
/// assert_eq!(rest.next().await.expect("it ends with the network")?.key, 1);
/// # network.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # Slots this node cannot decode
///
/// A slot that was written with other types than it is read with is decided all the same.
/// [`get`](Self::get), [`wait`](Self::wait) and [`claim`](OnceMap::claim) return a
/// [`DecodeError`](crate::DecodeError) then; streams yield it in the slot's place and go on.
pub struct OnceMap<K, V, const IS_WRITER: bool = WRITER> {
    shared: Arc<Shared>,
    types: PhantomData<fn(K) -> (K, V)>,
}

/// What all clones of a handle share.
struct Shared {
    hold: Arc<Hold>,
    when: When,
    config: OnceConfig,
    /// Held, by key, by the one caller that runs an initialiser. Those that nobody holds or waits
    /// for are gone.
    initialising: Mutex<BTreeMap<Slot, Weak<tokio::sync::Mutex<()>>>>,
}

/// Opening a map to write. All of these return at once: the node gets in touch in the background,
/// see [`When::online`].
impl<K, V> OnceMap<K, V, WRITER>
where
    K: MapKey,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Opens a map to read and write.
    ///
    /// The map's identity is `store_id` and the name that the compiler gives to `(K, V)`. For a map
    /// that outlives one build of your program set a [`type_name`](OnceConfig::type_name): two
    /// builds may name a type differently, and then **open two maps**.
    pub fn writer(network: &Network, store_id: impl Into<StoreId>) -> Self {
        Self::writer_with_config(network, store_id, OnceConfig::new())
    }

    /// Opens a map to read and write, with settings.
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

/// Opening a map to read. It writes nothing and elects nobody.
impl<K, V, const IS_WRITER: bool> OnceMap<K, V, IS_WRITER>
where
    K: MapKey,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Opens a map to read.
    pub fn reader(network: &Network, store_id: impl Into<StoreId>) -> OnceMapReader<K, V> {
        OnceMapReader::<K, V>::reader_with_config(network, store_id, OnceConfig::new())
    }

    /// Opens a map to read, with settings.
    pub fn reader_with_config(
        network: &Network,
        store_id: impl Into<StoreId>,
        config: OnceConfig,
    ) -> OnceMapReader<K, V> {
        OnceMapReader::open(network, store_id.into(), config)
    }

    fn open(network: &Network, store_id: StoreId, config: OnceConfig) -> Self {
        let group = config.map_group::<(K, V)>(store_id);
        let hold = Arc::new(Hold::new(network, group));
        Self {
            shared: Arc::new(Shared {
                when: When::new(hold.view().clone(), hold.clone()),
                hold,
                config,
                initialising: Mutex::default(),
            }),
            types: PhantomData,
        }
    }
}

impl<K, V, const IS_WRITER: bool> OnceMap<K, V, IS_WRITER> {
    /// The highest version of the map that this node has seen: the log index of the last command
    /// that it knows to be committed. It never runs backwards.
    ///
    /// A node that is no voter hears of what its program waits for, by [`wait`](Self::wait), with a
    /// stream of [`changes`](Self::changes) or with a future of [`when`](Self::when), and of nothing
    /// else: without any of them this grows by what the program itself reads and writes.
    pub fn version(&self) -> Version {
        self.hold().view().version()
    }

    /// Futures for what happens to the map.
    pub fn when(&self) -> &When {
        &self.shared.when
    }

    /// The Raft group of this map: equal on all nodes for handles that are one map.
    pub fn group_id(&self) -> GroupId {
        self.hold().view().group
    }

    fn hold(&self) -> &Hold {
        &self.shared.hold
    }
}

fn value_of<V: DeserializeOwned>(record: &Record) -> Result<V, DecodeError> {
    decode_value(&record.proposal.value)
}

fn undecodable(error: DecodeError) -> ReadError {
    ReadError::Decode(error)
}

/// Another handle on the same map.
impl<K, V, const IS_WRITER: bool> Clone for OnceMap<K, V, IS_WRITER> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            types: PhantomData,
        }
    }
}

impl<K, V, const IS_WRITER: bool> fmt::Debug for OnceMap<K, V, IS_WRITER> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceMap")
            .field("group", &self.group_id())
            .field("version", &self.version())
            .field("writer", &IS_WRITER)
            .finish()
    }
}
