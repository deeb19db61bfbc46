//! Names of things: stores, groups, nodes, versions, proposals.

use std::fmt;
use std::str::FromStr;

use crate::codec::{Decode, Encode};
use crate::probe::{Bug, planted, position};

/// A 32-byte identifier made from a string, from raw bytes, or derived from another one.
///
/// A string of exactly 64 hexadecimal digits stands for those 32 bytes; any other string is
/// hashed with blake3.
///
/// ```
/// use raft_once::UniqueId;
///
/// let id = UniqueId::from("config-seed");
/// assert_eq!(UniqueId::from(id.to_string().as_str()), id);
/// assert_ne!(id.derive("a"), id.derive("b"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct UniqueId([u8; 32]);

/// The name of a cell: [`Once`](crate::Once) handles with one `StoreId` and one value type are
/// one cell, wherever on the network they are opened.
pub type StoreId = UniqueId;

impl UniqueId {
    /// The identifier with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of this identifier.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A new identifier that depends on this one and on `with`: `blake3(self || with)`.
    pub fn derive(&self, with: impl AsRef<[u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(with.as_ref());
        Self(*hasher.finalize().as_bytes())
    }
}

impl AsRef<[u8]> for UniqueId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for UniqueId {
    fn from(name: &str) -> Self {
        match unhex(name) {
            Some(bytes) => Self(bytes),
            None => Self(*blake3::hash(name.as_bytes()).as_bytes()),
        }
    }
}

impl From<String> for UniqueId {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<&String> for UniqueId {
    fn from(name: &String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<[u8; 32]> for UniqueId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for UniqueId {
    type Err = std::convert::Infallible;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(Self::from(name))
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// 64 hexadecimal digits as 32 bytes, or `None`.
fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

/// How the id of a map's group ends, that of a group of tasks, and that of a group of jobs.
const MAP_MARK: [u8; 8] = *b"once-map";
const TASKS_MARK: [u8; 8] = *b"oncetask";
const JOBS_MARK: [u8; 8] = *b"oncejobs";

/// What a group holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One slot.
    Cell,
    /// Any number of slots.
    Map,
    /// The tasks of a namespace.
    Tasks,
    /// The jobs of a namespace.
    Jobs,
}

/// The identity of one Raft group: one per [`Once`](crate::Once) cell,
/// [`OnceMap`](crate::OnceMap), or namespace of [tasks](crate::task).
///
/// For a cell it is derived from the store id and the name of the value type, byte for byte the
/// same on every node and in every version of this library.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct GroupId(UniqueId);

impl GroupId {
    /// The group of the cell `store_id` with values of the type called `type_name`.
    pub(crate) fn of_once(store_id: StoreId, type_name: &str) -> Self {
        Self(
            UniqueId::from("mosaik_collections_once")
                .derive(store_id)
                .derive(type_name),
        )
    }

    /// The group of the map `store_id` with slots of the type called `type_name`.
    ///
    /// It says of itself that it is a map's, so that a voter that meets it for the first time
    /// knows what may be proposed there: the chance that a cell's group says so is 1 in 2^64.
    pub(crate) fn of_map(store_id: StoreId, type_name: &str) -> Self {
        let derived = UniqueId::from("raft_once_map")
            .derive(store_id)
            .derive(type_name);
        Self::marked(derived, MAP_MARK)
    }

    /// The group of the tasks of a namespace. It says so of itself, as that of a map.
    pub(crate) fn of_tasks(namespace: &str) -> Self {
        let derived = UniqueId::from("raft_once_tasks").derive(namespace);
        Self::marked(derived, TASKS_MARK)
    }

    /// The group of the jobs of a namespace. It says so of itself, as that of a map.
    #[cfg(any(feature = "jobs", test))]
    pub(crate) fn of_jobs(namespace: &str) -> Self {
        let derived = UniqueId::from("raft_once_jobs").derive(namespace);
        Self::marked(derived, JOBS_MARK)
    }

    fn marked(derived: UniqueId, mark: [u8; 8]) -> Self {
        let mut bytes = *derived.as_bytes();
        bytes[32 - mark.len()..].copy_from_slice(&mark);
        Self::from_bytes(bytes)
    }

    pub(crate) fn kind(&self) -> Kind {
        let bytes = self.as_bytes();
        if bytes.ends_with(&MAP_MARK) {
            Kind::Map
        } else if bytes.ends_with(&TASKS_MARK) {
            Kind::Tasks
        } else if bytes.ends_with(&JOBS_MARK) {
            Kind::Jobs
        } else {
            Kind::Cell
        }
    }

    /// It is a map's: its slots have names, and there is no limit to their number.
    pub(crate) fn is_map(&self) -> bool {
        self.kind() == Kind::Map
    }

    pub(crate) fn is_tasks(&self) -> bool {
        self.kind() == Kind::Tasks
    }

    pub(crate) fn is_jobs(&self) -> bool {
        self.kind() == Kind::Jobs
    }

    /// It is that of one slot, whose log stays small for ever.
    pub(crate) fn is_cell(&self) -> bool {
        self.kind() == Kind::Cell
    }

    /// The group with exactly these bytes.
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(UniqueId::from_bytes(bytes))
    }

    /// The 32 bytes of this identifier.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The first 8 digits: enough for a person to tell groups apart in a log.
impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.as_bytes()[..4], f)
    }
}

/// The identity of a node on its network: a non-zero hash of a voter's name, or random for an
/// observer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId(u64);

impl NodeId {
    /// The id of the voter called `name`. Neither order nor address enters it.
    pub(crate) fn of_voter(name: &str) -> Self {
        if planted(Bug::IdsByPosition)
            && let Some(position) = position(name)
        {
            return Self::from_u64(position);
        }
        let hash = blake3::derive_key("raft-once voter id v1", name.as_bytes());
        Self::from_hash(&hash)
    }

    /// The id of a node known only by its key.
    pub(crate) fn of_key(key: &[u8; 32]) -> Self {
        let hash = blake3::derive_key("raft-once observer id v1", key);
        Self::from_hash(&hash)
    }

    fn from_hash(hash: &[u8; 32]) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Self(u64::from_le_bytes(first).max(1))
    }

    pub(crate) const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The id as a number, never zero.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A position in the history of one cell: the log index of a committed command.
///
/// Every acknowledged write has one, whether it won or was ignored; a later write has a greater
/// one. [`Version::ZERO`] stands for a cell to which nothing was written yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Version(u64);

impl Version {
    /// The version of a cell to which nothing was ever written.
    pub const ZERO: Self = Self(0);

    /// The version with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The version as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The identity of one proposal. All retries of a proposal carry the same one, so that the
/// proposer of a decided value is known to have won, however often it asked.
///
/// It never outlives its process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub(crate) struct ProposalId {
    random: [u8; 16],
    node: NodeId,
    boot: [u8; 16],
    value_hash: [u8; 32],
}

impl ProposalId {
    pub(crate) fn new(random: [u8; 16], node: NodeId, boot: [u8; 16], value: &[u8]) -> Self {
        Self {
            random,
            node,
            boot,
            value_hash: *blake3::hash(value).as_bytes(),
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// It was made for exactly this value.
    pub(crate) fn is_of(&self, value: &[u8]) -> bool {
        self.value_hash == *blake3::hash(value).as_bytes()
    }
}

impl fmt::Debug for ProposalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.random[..8], f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_id_is_byte_for_byte_that_of_the_reference() {
        let id = GroupId::of_once(StoreId::from("cell-0"), "u64");
        assert_eq!(
            id.to_string(),
            "acab3b27c7fd6bc2548bc4b45163c63059a1ac2981ea52cb8ccf3818555cefab"
        );
    }

    #[test]
    fn a_map_is_another_group_than_a_cell_and_known_as_one() {
        let (id, name) = (StoreId::from("slots"), "u64");
        assert!(GroupId::of_map(id, name).is_map());
        assert!(!GroupId::of_once(id, name).is_map());
        assert_ne!(GroupId::of_map(id, name), GroupId::of_map(id, "u32"));
        let vector = "a8879bca";
        assert_eq!(&GroupId::of_map(id, name).to_string()[..8], vector);
    }

    #[test]
    fn a_namespace_of_tasks_is_a_group_of_its_own_and_known_as_one() {
        let id = GroupId::of_tasks("default");
        assert!(id.is_tasks() && !id.is_map() && !id.is_cell());
        let jobs = GroupId::of_jobs("default");
        assert!(jobs.is_jobs() && !jobs.is_tasks() && !jobs.is_cell() && !id.is_jobs());
        assert_ne!(id, GroupId::of_tasks("other"));
        assert_eq!(&id.to_string()[..8], "2fa89d5f");
    }

    #[test]
    fn sixty_four_hex_digits_are_the_bytes_themselves() {
        let text = "00ff".repeat(16);
        assert_eq!(UniqueId::from(text.as_str()).to_string(), text);
        assert_eq!(UniqueId::from(text.to_uppercase()).to_string(), text);
        let not_hex = "zz".repeat(32);
        assert_ne!(UniqueId::from(not_hex.as_str()).to_string(), not_hex);
        // 64 bytes, but not 64 digits: hashed, and no panic on the character boundary.
        let wide = "é".repeat(32);
        assert_eq!(
            UniqueId::from(wide.as_str()).as_bytes(),
            blake3::hash(wide.as_bytes()).as_bytes()
        );
    }

    #[test]
    fn a_voter_id_depends_on_the_name_alone_and_is_never_zero() {
        assert_eq!(NodeId::of_voter("a"), NodeId::of_voter("a"));
        assert_ne!(NodeId::of_voter("a"), NodeId::of_voter("b"));
        assert_eq!(NodeId::from_hash(&[0; 32]).as_u64(), 1);
    }
}
