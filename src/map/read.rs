//! Reading, on both kinds of handle.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::changes::Changes;
use super::entries::Entries;
use super::key::{MapKey, slot_of};
use super::{OnceMap, undecodable, value_of};
use crate::codec::EncodeError;
use crate::group::Range;
use crate::id::Version;
use crate::machine::Record;
use crate::once::ReadError;

/// The longest pause between two looks at a slot of which nothing new is heard although something
/// was decided, in milliseconds; doubled from the first.
pub(super) const LOOK_AGAIN_MS: u64 = 1;
pub(super) const LOOK_AGAIN_MAX_MS: u64 = 200;

/// No slot has such a key.
fn no_key(error: EncodeError) -> ReadError {
    ReadError::Key(error)
}

impl<K, V, const IS_WRITER: bool> OnceMap<K, V, IS_WRITER>
where
    K: MapKey + Send + 'static,
    V: DeserializeOwned + Send + 'static,
{
    /// The value of a slot, if it is decided as far as this node, or the voter it asks, knows.
    ///
    /// `Some` is final. `None` may be stale: ask with
    /// [`get_linearizable`](Self::get_linearizable).
    ///
    /// # Errors
    ///
    /// [`ReadError::Offline`] if no voter answered within the network's write timeout,
    /// [`ReadError::Decode`] if the value is not a `V`, [`ReadError::Key`] if the key is too long,
    /// [`ReadError::NetworkDown`] after shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn get(&self, key: &K) -> Result<Option<V>, ReadError> {
        let record = self.record(key).await?;
        record
            .as_deref()
            .map(value_of)
            .transpose()
            .map_err(undecodable)
    }

    /// Whether a slot is decided, even with a value that this node cannot decode. As [`get`](Self::get)
    /// without the value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), but for [`ReadError::Decode`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn contains_key(&self, key: &K) -> Result<bool, ReadError> {
        Ok(self.record(key).await?.is_some())
    }

    async fn record(&self, key: &K) -> Result<Option<Arc<Record>>, ReadError> {
        let slot = slot_of(key).map_err(no_key)?;
        let (group, directory) = (self.hold().group(), self.hold().network().directory());
        let slot = &slot;
        let read = |_| directory.slot(group, slot);
        Ok(self.hold().until_passed(read).await?)
    }

    /// The value of a slot as of now: `None` means that no claim of it had been acknowledged
    /// anywhere before this call. A majority of the voters is asked (an observer asks a voter to).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); [`ReadError::Offline`] if no majority could be asked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn get_linearizable(&self, key: &K) -> Result<Option<V>, ReadError> {
        let record = self.record_now(key).await?;
        record
            .as_deref()
            .map(value_of)
            .transpose()
            .map_err(undecodable)
    }

    pub(super) async fn record_now(&self, key: &K) -> Result<Option<Arc<Record>>, ReadError> {
        let slot = slot_of(key).map_err(no_key)?;
        let (group, directory) = (self.hold().group(), self.hold().network().directory());
        let slot = &slot;
        let read = |deadline| directory.barrier_of(group, slot, deadline);
        Ok(self.hold().until_passed(read).await?)
    }

    /// How many slots are decided, as far as this node, or the voter it asks, knows.
    ///
    /// # Errors
    ///
    /// [`ReadError::Offline`] if no voter answered within the network's write timeout,
    /// [`ReadError::NetworkDown`] after shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn len(&self) -> Result<u64, ReadError> {
        let (group, directory) = (self.hold().group(), self.hold().network().directory());
        let read = |_| directory.slots_decided(group);
        Ok(self.hold().until_passed(read).await?)
    }

    /// Whether no slot is decided, as far as this node, or the voter it asks, knows.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.len().await? == 0)
    }

    /// Waits until a slot is decided, however long that takes, and returns its value.
    ///
    /// While this node is offline it waits on.
    ///
    /// ```
    /// # use raft_once::{Network, OnceMap};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let stages = OnceMap::<String, u32>::writer(&network, "stages");
    /// let waiting = tokio::spawn({
    ///     let stages = stages.clone();
    ///     async move { stages.wait(&"migrated".to_string()).await }
    /// });
    /// stages.write("migrated".to_string(), 3).await?;
    /// assert_eq!(waiting.await??, 3);
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError::Decode`] if the value is not a `V`, [`ReadError::Key`] if the key is too long,
    /// [`ReadError::NetworkDown`] if the network is shut down before. Never
    /// [`ReadError::Offline`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn wait(&self, key: &K) -> Result<V, ReadError> {
        let slot = slot_of(key).map_err(no_key)?;
        let (group, directory) = (self.hold().group(), self.hold().network().directory());
        let decided = async {
            let mut pause_ms = LOOK_AGAIN_MS;
            let mut want = None;
            loop {
                // Looked at before the slot is: whatever comes later wakes us.
                let mut versions = self.hold().view().versions();
                versions.mark_unchanged();
                match directory.slot(group, &slot).await {
                    Ok(Some(record)) => return record,
                    Ok(None) => {
                        if want.is_none() {
                            want = Some(directory.want(group, Some(Range::of_slot(slot.clone()))));
                        }
                        // It fails when the view is gone, as if the node went down.
                        let _ = versions.changed().await;
                        pause_ms = LOOK_AGAIN_MS;
                    }
                    Err(_) => pause(&mut pause_ms).await,
                }
            }
        };
        let record = self.hold().unless_down(decided).await?;
        value_of(&record).map_err(undecodable)
    }

    /// All decided slots, ordered by key.
    ///
    /// It is read page by page while it is polled. Slots that are decided meanwhile are in it if
    /// their keys are still to come.
    ///
    /// # Errors
    ///
    /// It yields [`ReadError::Decode`] in the place of a slot that is not of the types of this map,
    /// and goes on. It ends with [`ReadError::Offline`] if no voter answered within the network's
    /// write timeout and with [`ReadError::NetworkDown`] after shutdown.
    pub fn iter(&self) -> Entries<K, V> {
        self.range(..)
    }

    /// The decided slots with keys in `range`, as [`iter`](Self::iter).
    ///
    /// ```
    /// use futures::TryStreamExt;
    /// # use raft_once::{Network, OnceMap};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let map = OnceMap::<i32, String>::writer(&network, "map");
    /// for key in [3, -1, 2] {
    ///     map.write(key, format!("{key}")).await?;
    /// }
    /// let found: Vec<_> = map.range(..3).try_collect().await?;
    /// assert_eq!(found, [(-1, "-1".to_string()), (2, "2".to_string())]);
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`iter`](Self::iter).
    pub fn range(&self, range: impl RangeBounds<K>) -> Entries<K, V> {
        Entries::new(self.shared.hold.clone(), slots_of(range))
    }

    /// A stream of the slots with keys in `range`, in the order in which they are decided: first
    /// those that are, then each as soon as this node hears of it. See [`Changes`].
    pub fn changes(&self, range: impl RangeBounds<K>) -> Changes<K, V> {
        self.changes_since(Version::ZERO, range)
    }

    /// The same without those that were decided at `version` or before: a program that has dealt
    /// with a [`Change`](crate::Change) goes on with the [`version`](crate::Change::version) of it.
    pub fn changes_since(&self, version: Version, range: impl RangeBounds<K>) -> Changes<K, V> {
        Changes::new(self.shared.hold.clone(), version, slots_of(range))
    }
}

/// Which slots the keys of a range name. A bound that is too long to be a key lies where it would.
fn slots_of<K: MapKey>(range: impl RangeBounds<K>) -> Range {
    let slot = |key: &K| {
        let mut slot = Vec::new();
        key.encode(&mut slot);
        slot
    };
    Range::of_bounds(range.start_bound().map(slot), range.end_bound().map(slot))
}

/// A pause before the next look, which grows.
pub(super) async fn pause(pause_ms: &mut u64) {
    tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
    *pause_ms = (*pause_ms * 2).min(LOOK_AGAIN_MAX_MS);
}
