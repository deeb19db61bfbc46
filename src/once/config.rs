//! Settings of one cell.

use crate::codec::VALUE_BYTES_CAP;
use crate::id::{GroupId, StoreId};

/// The largest encoded value unless a cell says otherwise: 1 MiB.
const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Settings of one cell, for [`Once::writer_with_config`] and [`Once::reader_with_config`].
///
/// ```
/// use raft_once::{Network, Once, OnceConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new("demo").await?;
/// let config = OnceConfig::new()
///     .type_name("orders.Seed.v1")
///     .value_bytes_max(64 * 1024);
/// let seed = Once::<String>::writer_with_config(&network, "seed", config);
/// # let _ = seed;
/// # Ok(())
/// # }
/// ```
///
/// [`Once::writer_with_config`]: crate::Once::writer_with_config
/// [`Once::reader_with_config`]: crate::Once::reader_with_config
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceConfig {
    type_name: Option<String>,
    value_bytes_max: usize,
}

impl Default for OnceConfig {
    fn default() -> Self {
        Self {
            type_name: None,
            value_bytes_max: VALUE_BYTES_MAX,
        }
    }
}

impl OnceConfig {
    /// The default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the value type that enters the cell's identity, instead of
    /// [`core::any::type_name`].
    ///
    /// A cell is identified by its store id **and** the name of its value type. By default that
    /// name is what the compiler calls the type: it contains the module path, and its exact text
    /// may change between compiler versions.
    ///
    /// # The hazard of the default
    ///
    /// <div class="warning">
    ///
    /// Rename the type, move it to another module or crate, or build with another compiler, and
    /// the new binary opens **another cell**: it is empty. In a rolling upgrade old and new
    /// processes then decide two cells: **two values, two winners, and no error anywhere.**
    ///
    /// Set a name of your own, such as `"orders.Seed.v1"`, for every cell that outlives one build
    /// of your program, from the first release on: adding it later is a rename, too.
    ///
    /// </div>
    ///
    /// With a fixed name, types may change as long as they decode each other's values. If they
    /// do not, see [`DecodeError`](crate::DecodeError). Choose a new name when a new cell is what
    /// you want.
    #[must_use]
    pub fn type_name(mut self, name: impl Into<String>) -> Self {
        self.type_name = Some(name.into());
        self
    }

    /// The most bytes that a value offered through this handle may take when encoded: 1 MiB
    /// unless set, and never more than 16 MiB (a greater limit counts as 16 MiB).
    ///
    /// A larger one is refused with
    /// [`EncodeError::TooLarge`](crate::EncodeError::TooLarge) before anything is sent. It limits
    /// writers only: a reader takes whatever was committed. Every voter keeps the value for ever,
    /// and every node that opens the cell holds it in memory: for more than a few kilobytes, store
    /// a digest and an address instead.
    #[must_use]
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = bytes.min(VALUE_BYTES_CAP);
        self
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.value_bytes_max
    }

    /// The group of the cell `store_id` whose values are `T`.
    pub(super) fn group<T>(&self, store_id: StoreId) -> GroupId {
        let type_name = self.type_name.as_deref();
        GroupId::of_once(
            store_id,
            type_name.unwrap_or_else(|| std::any::type_name::<T>()),
        )
    }
}

impl OnceConfig {
    /// The group of the map `store_id` whose slots are `T`.
    pub(crate) fn map_group<T>(&self, store_id: StoreId) -> GroupId {
        let type_name = self.type_name.as_deref();
        GroupId::of_map(
            store_id,
            type_name.unwrap_or_else(|| std::any::type_name::<T>()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_identity_is_that_of_the_reference() {
        let group = OnceConfig::new().group::<u64>(StoreId::from("cell-0"));
        assert_eq!(
            group.to_string(),
            "acab3b27c7fd6bc2548bc4b45163c63059a1ac2981ea52cb8ccf3818555cefab"
        );
    }

    #[test]
    fn a_type_name_makes_two_types_one_cell_and_two_names_two() {
        let id = StoreId::from("seed");
        let named = |name: &str| OnceConfig::new().type_name(name);
        assert_eq!(named("v1").group::<u64>(id), named("v1").group::<u32>(id));
        assert_ne!(named("v1").group::<u64>(id), named("v2").group::<u64>(id));
        assert_ne!(
            OnceConfig::new().group::<u64>(id),
            OnceConfig::new().group::<u32>(id)
        );
    }

    #[test]
    fn a_limit_never_exceeds_the_cap() {
        assert_eq!(OnceConfig::new().bytes_max(), VALUE_BYTES_MAX);
        let config = OnceConfig::new().value_bytes_max(usize::MAX);
        assert_eq!(config.bytes_max(), VALUE_BYTES_CAP);
        assert_eq!(OnceConfig::new().value_bytes_max(3).bytes_max(), 3);
    }
}
