//! Keys as names of slots: bytes that are ordered as the keys are.

use std::any::type_name;

use crate::codec::{DecodeError, EncodeError};
use crate::id::{UniqueId, Version};
use crate::machine::{SLOT_BYTES_MAX, Slot};

/// What can be a key of an [`OnceMap`](crate::OnceMap).
///
/// It is there for integers, `bool`, `char`, `String`, `Vec<u8>`, arrays of bytes, [`UniqueId`],
/// [`Version`] and tuples of up to four of them. For a type of your own, hand on to one of those.
/// Encoded keys take 1,024 bytes at most.
///
/// ```
/// use raft_once::MapKey;
///
/// #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
/// struct Shard {
///     table: String,
///     number: u32,
/// }
///
/// impl MapKey for Shard {
///     fn encode(&self, bytes: &mut Vec<u8>) {
///         self.table.encode(bytes);
///         self.number.encode(bytes);
///     }
///     fn decode(bytes: &mut &[u8]) -> Option<Self> {
///         Some(Self {
///             table: MapKey::decode(bytes)?,
///             number: MapKey::decode(bytes)?,
///         })
///     }
/// }
/// ```
///
/// # What must hold
///
/// * `decode` returns what was encoded, and leaves what is behind it.
/// * Of two keys the smaller one has the smaller encoding, byte by byte, or a map is iterated in
///   another order than that of its keys. No encoding is the beginning of another one's.
/// * Both stay as they are for as long as there are maps with such keys: a key that is encoded
///   in another way is another slot.
pub trait MapKey: Sized {
    /// Appends the key to `bytes`.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Takes a key from the front of `bytes`; `None` if there is none.
    fn decode(bytes: &mut &[u8]) -> Option<Self>;
}

/// The name of a key's slot.
pub(super) fn slot_of<K: MapKey>(key: &K) -> Result<Slot, EncodeError> {
    let mut slot = Slot::new();
    key.encode(&mut slot);
    match slot.len() {
        1..=SLOT_BYTES_MAX => Ok(slot),
        bytes => Err(EncodeError::KeyLength {
            bytes,
            bytes_max: SLOT_BYTES_MAX,
        }),
    }
}

/// The key that a slot is named by.
pub(super) fn key_of<K: MapKey>(slot: &[u8]) -> Result<K, DecodeError> {
    let mut rest = slot;
    match K::decode(&mut rest) {
        Some(key) if rest.is_empty() => Ok(key),
        _ => Err(DecodeError {
            type_name: type_name::<K>(),
            bytes: slot.len(),
            reason: "its slot has another kind of name".into(),
        }),
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

macro_rules! unsigned {
    ($($number:ty),*) => {$(
        impl MapKey for $number {
            fn encode(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_be_bytes());
            }

            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                take(bytes).map(Self::from_be_bytes)
            }
        }
    )*};
}

unsigned!(u8, u16, u32, u64, u128);

macro_rules! signed {
    ($($number:ty as $unsigned:ty),*) => {$(
        impl MapKey for $number {
            /// Negative numbers come first.
            fn encode(&self, bytes: &mut Vec<u8>) {
                (self.cast_unsigned() ^ (1 << (<$unsigned>::BITS - 1))).encode(bytes);
            }

            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                let flipped = <$unsigned>::decode(bytes)?;
                Some((flipped ^ (1 << (<$unsigned>::BITS - 1))).cast_signed())
            }
        }
    )*};
}

signed!(i8 as u8, i16 as u16, i32 as u32, i64 as u64, i128 as u128);

impl MapKey for bool {
    fn encode(&self, bytes: &mut Vec<u8>) {
        u8::from(*self).encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        match u8::decode(bytes)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl MapKey for char {
    fn encode(&self, bytes: &mut Vec<u8>) {
        u32::from(*self).encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Self::from_u32(u32::decode(bytes)?)
    }
}

impl<const N: usize> MapKey for [u8; N] {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes)
    }
}

/// A zero byte within is `0 255`, and the end is `0 0`: so a string that another one begins with
/// comes first, whatever follows it in a tuple.
impl MapKey for Vec<u8> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_bytes(self, bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut decoded = Self::new();
        loop {
            match take(bytes)? {
                [0] => match take(bytes)? {
                    [0] => return Some(decoded),
                    [255] => decoded.push(0),
                    _ => return None,
                },
                [byte] => decoded.push(byte),
            }
        }
    }
}

fn encode_bytes(content: &[u8], bytes: &mut Vec<u8>) {
    for byte in content {
        bytes.push(*byte);
        if *byte == 0 {
            bytes.push(255);
        }
    }
    bytes.extend_from_slice(&[0, 0]);
}

impl MapKey for String {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Vec::decode(bytes)?).ok()
    }
}

impl MapKey for UniqueId {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.as_bytes().encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_bytes)
    }
}

impl MapKey for Version {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.as_u64().encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        u64::decode(bytes).map(Self::new)
    }
}

macro_rules! tuple {
    ($($part:ident $n:tt),*) => {
        impl<$($part: MapKey),*> MapKey for ($($part,)*) {
            fn encode(&self, bytes: &mut Vec<u8>) {
                $(self.$n.encode(bytes);)*
            }

            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                Some(($($part::decode(bytes)?,)*))
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    fn encoded<K: MapKey>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    }

    fn check<K: MapKey + Ord + Debug>(mut keys: Vec<K>) {
        for key in &keys {
            let bytes = encoded(key);
            assert_eq!(&key_of::<K>(&bytes).unwrap(), key);
            assert!(key_of::<K>(&[&bytes[..], &[7]].concat()).is_err());
            assert!(key_of::<K>(&bytes[..bytes.len() - 1]).is_err());
        }
        keys.sort();
        for pair in keys.windows(2) {
            let (one, other) = (encoded(&pair[0]), encoded(&pair[1]));
            assert_eq!(pair[0].cmp(&pair[1]), one.cmp(&other), "{pair:?}");
            assert!(one == other || !other.starts_with(&one), "{pair:?}");
        }
    }

    fn words(rng: &mut StdRng) -> Vec<u8> {
        let mut word = vec![0; rng.random_range(0..5)];
        rng.fill_bytes(&mut word);
        // Bytes at the edges, mostly.
        for byte in &mut word {
            *byte = [0, 1, 254, 255, *byte][rng.random_range(0..5)];
        }
        word
    }

    #[test]
    fn encodings_are_ordered_as_keys_are_and_decode_to_them() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut many = |count: usize| -> Vec<u64> { (0..count).map(|_| rng.random()).collect() };
        check(many(100));
        check(many(100).into_iter().map(|n| n.cast_signed()).collect());
        check(vec![i8::MIN, -1, 0, 1, i8::MAX]);
        check(vec![false, true]);
        check(vec!['\0', 'a', '\u{10ffff}']);
        check(many(50).into_iter().map(Version::new).collect());
        let mut rng = StdRng::seed_from_u64(8);
        check((0..500).map(|_| words(&mut rng)).collect());
        check(
            (0..500)
                .map(|_| (words(&mut rng), rng.random::<u8>(), words(&mut rng)))
                .collect(),
        );
        check(vec![
            "".to_string(),
            "a".into(),
            "a\0".into(),
            "ab".into(),
            "é".into(),
        ]);
    }

    #[test]
    fn a_key_that_takes_too_much_or_nothing_is_refused() {
        let longest = vec![1; SLOT_BYTES_MAX - 2];
        assert!(slot_of(&longest).is_ok());
        let error = slot_of(&vec![1; SLOT_BYTES_MAX - 1]).unwrap_err();
        assert!(error.to_string().contains("1025"), "{error}");
        assert!(slot_of(&[0_u8; 0]).is_err());
    }
}
