//! Values and frames as bytes. The only file that names bincode.
//!
//! Values of users go through serde; structs of our own (wire and disk) through bincode's own
//! traits, with a version byte in front and no byte allowed behind.

use std::fmt;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
pub(crate) use bincode::{Decode, Encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest value that a cell can be allowed to hold, in bytes.
pub(crate) const VALUE_BYTES_CAP: usize = 16 * 1024 * 1024;

/// The largest frame between two nodes: the largest value and what travels around it, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = VALUE_BYTES_CAP + 1024 * 1024;

/// The most bytes that one decoded struct of our own may claim to hold. A claim is believed
/// before it is checked against what is there, so this bounds what hostile bytes can allocate.
pub(crate) const DECODE_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// The most memory that decoding one value of a user may claim, in bytes: a number of 16 bytes
/// takes one when it is small. A value of no more than [`SMALL_VALUE_BYTES_MAX`] may claim
/// [`SMALL_VALUE_DECODE_BYTES_MAX`].
pub(crate) const VALUE_DECODE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Values of this size, in bytes, are what cells are for.
pub(crate) const SMALL_VALUE_BYTES_MAX: usize = 512 * 1024;

/// Less than a frame: whoever has a few bytes committed in a cell must not make all its readers
/// allocate more than that.
pub(crate) const SMALL_VALUE_DECODE_BYTES_MAX: usize = 16 * 1024 * 1024;

const OWN: Configuration<LittleEndian, Varint, Limit<DECODE_BYTES_MAX>> =
    bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();
const VALUE: Configuration<LittleEndian, Varint, Limit<VALUE_DECODE_BYTES_MAX>> =
    bincode::config::standard().with_limit::<VALUE_DECODE_BYTES_MAX>();
const SMALL_VALUE: Configuration<LittleEndian, Varint, Limit<SMALL_VALUE_DECODE_BYTES_MAX>> =
    bincode::config::standard().with_limit::<SMALL_VALUE_DECODE_BYTES_MAX>();

/// Why a value could not be turned into bytes. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The encoded value is larger than the cell allows.
    #[error(
        "the encoded value is larger than {bytes_max} bytes; \
         raise OnceConfig::value_bytes_max on every writer, or store a reference to the data"
    )]
    TooLarge {
        /// The limit in force, in bytes.
        bytes_max: usize,
    },
    /// The encoded key of a map is empty or too long.
    #[error(
        "the encoded key has {bytes} bytes, and a key has 1 to {bytes_max}; \
         use a digest of it as the key"
    )]
    KeyLength {
        /// What this key takes, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The type's `Serialize` failed.
    #[error("the value could not be serialized: {0}")]
    Serialize(String),
}

/// Why committed bytes could not be turned into a value of the reader's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the committed value ({bytes} bytes) is not a {type_name}: {reason}; \
     open the cell with the type that wrote it"
)]
pub struct DecodeError {
    /// The name of the type that was asked for.
    pub type_name: &'static str,
    /// The size of the committed value, in bytes.
    pub bytes: usize,
    /// What did not fit.
    pub reason: String,
}

/// A writer that refuses to grow beyond its limit, so that an endless value cannot fill memory.
struct Limited {
    bytes: Vec<u8>,
    bytes_max: usize,
    overflown: bool,
}

impl bincode::enc::write::Writer for Limited {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        if bytes.len() > self.bytes_max - self.bytes.len() {
            self.overflown = true;
            return Err(bincode::error::EncodeError::UnexpectedEnd);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Encodes a user's value into at most `bytes_max` bytes.
pub(crate) fn encode_value<T: Serialize>(
    value: &T,
    bytes_max: usize,
) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Limited {
        bytes: Vec::new(),
        bytes_max,
        overflown: false,
    };
    match bincode::serde::encode_into_writer(value, &mut writer, VALUE) {
        Ok(()) => Ok(writer.bytes),
        Err(_) if writer.overflown => Err(EncodeError::TooLarge { bytes_max }),
        Err(error) => Err(EncodeError::Serialize(error.to_string())),
    }
}

/// Decodes a user's value; bytes left over are an error.
pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let failed = |reason: String| DecodeError {
        type_name: std::any::type_name::<T>(),
        bytes: bytes.len(),
        reason,
    };
    let decoded = if bytes.len() <= SMALL_VALUE_BYTES_MAX {
        bincode::serde::decode_from_slice(bytes, SMALL_VALUE)
    } else {
        bincode::serde::decode_from_slice(bytes, VALUE)
    };
    let (value, used) = decoded.map_err(|error| failed(error.to_string()))?;
    if used != bytes.len() {
        return Err(failed(format!(
            "{} bytes are left over",
            bytes.len() - used
        )));
    }
    Ok(value)
}

/// Why bytes from a peer or a disk are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MalformedError {
    Empty,
    Version { found: u8, known: u8 },
    Body(String),
    Trailing(usize),
}

impl fmt::Display for MalformedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "empty where a version byte belongs"),
            Self::Version { found, known } => {
                write!(f, "format version {found}, this build knows {known}")
            }
            Self::Body(reason) => write!(f, "malformed: {reason}"),
            Self::Trailing(bytes) => write!(f, "{bytes} trailing bytes"),
        }
    }
}

impl std::error::Error for MalformedError {}

/// Encodes a struct of our own behind a version byte.
pub(crate) fn encode<T: Encode>(version: u8, body: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    bincode::encode_into_std_write(body, &mut bytes, OWN)
        .expect("our own structs encode into memory without fail");
    bytes
}

/// Decodes a struct of our own; another version or trailing bytes are an error.
pub(crate) fn decode<T: Decode<()>>(version: u8, bytes: &[u8]) -> Result<T, MalformedError> {
    let (&found, body) = bytes.split_first().ok_or(MalformedError::Empty)?;
    if found != version {
        return Err(MalformedError::Version {
            found,
            known: version,
        });
    }
    let (value, used) = bincode::decode_from_slice(body, OWN)
        .map_err(|error| MalformedError::Body(error.to_string()))?;
    if used != body.len() {
        return Err(MalformedError::Trailing(body.len() - used));
    }
    Ok(value)
}

/// A list of no more than `MAX` items: one that says it is longer is refused before there is any
/// memory for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AtMost<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> AtMost<T, MAX> {
    /// # Panics
    ///
    /// If there are more: nobody could read what is sent then.
    pub(crate) fn new(items: Vec<T>) -> Self {
        assert!(items.len() <= MAX, "{} of {MAX} items", items.len());
        Self(items)
    }

    pub(crate) fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> std::ops::Deref for AtMost<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Encode + 'static, const MAX: usize> Encode for AtMost<T, MAX> {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.0.encode(encoder)
    }
}

/// As a `Vec` is decoded.
impl<C, T: Decode<C>, const MAX: usize> Decode<C> for AtMost<T, MAX> {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let length = u64::decode(decoder)?;
        let length = usize::try_from(length).ok().filter(|len| *len <= MAX);
        let too_long = bincode::error::DecodeError::Other("a list is longer than it may be");
        let length = length.ok_or(too_long)?;
        decoder.claim_container_read::<T>(length)?;
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            // What an item takes is claimed once more where it is read.
            decoder.unclaim_bytes_read(size_of::<T>());
            items.push(T::decode(decoder)?);
        }
        Ok(Self(items))
    }
}

impl<'de, C, T: Decode<C>, const MAX: usize> bincode::BorrowDecode<'de, C> for AtMost<T, MAX> {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Self::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_any_other_unless_it_says_that_it_is_too_long() {
        let list = AtMost::<u64, 3>::new(vec![1, 300, 2]);
        let bytes = encode(1, &list);
        assert_eq!(bytes, encode(1, &vec![1_u64, 300, 2]));
        assert_eq!(decode(1, &bytes), Ok(list));
        for length in [4, 1 << 20, u64::MAX] {
            let refused = decode::<AtMost<u64, 3>>(1, &encode(1, &length)).unwrap_err();
            let MalformedError::Body(reason) = refused else {
                panic!("{refused}");
            };
            assert!(reason.contains("longer than it may be"), "{reason}");
        }
        // Believed, and not there.
        assert!(decode::<AtMost<u64, 3>>(1, &encode(1, &3_u64)).is_err());
    }

    #[test]
    fn a_value_over_the_limit_is_refused_with_the_limit() {
        let value = vec![7_u8; 100];
        assert!(encode_value(&value, 101).is_ok());
        assert_eq!(
            encode_value(&value, 100),
            Err(EncodeError::TooLarge { bytes_max: 100 })
        );
    }

    #[test]
    fn a_failing_serialize_is_reported_in_its_own_words() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("the pen is dry"))
            }
        }
        let error = encode_value(&Broken, 100).unwrap_err();
        assert!(error.to_string().contains("the pen is dry"), "{error}");
    }

    #[test]
    fn left_over_bytes_are_an_error() {
        let mut bytes = encode_value(&5_u32, 100).unwrap();
        assert_eq!(decode_value::<u32>(&bytes).unwrap(), 5);
        bytes.push(0);
        assert!(decode_value::<u32>(&bytes).is_err());
        assert!(decode_value::<String>(&[200]).is_err());
    }

    #[test]
    fn own_structs_round_trip_and_refuse_other_versions_and_trailing_bytes() {
        let bytes = encode(3, &(7_u64, vec![1_u8, 2]));
        assert_eq!(
            decode::<(u64, Vec<u8>)>(3, &bytes).unwrap(),
            (7, vec![1, 2])
        );
        assert_eq!(
            decode::<(u64, Vec<u8>)>(4, &bytes),
            Err(MalformedError::Version { found: 3, known: 4 })
        );
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(
            decode::<(u64, Vec<u8>)>(3, &long),
            Err(MalformedError::Trailing(1))
        );
        assert!(decode::<(u64, Vec<u8>)>(3, &bytes[..bytes.len() - 1]).is_err());
        assert_eq!(decode::<u64>(3, &[]), Err(MalformedError::Empty));
    }

    /// 16 bytes of memory for one in the encoding, which is as much as any number takes.
    #[test]
    fn values_that_take_the_most_memory_for_their_size_are_decoded() {
        for count in [SMALL_VALUE_BYTES_MAX - 5, SMALL_VALUE_BYTES_MAX] {
            let value = vec![1_u128; count];
            let bytes = encode_value(&value, VALUE_BYTES_CAP).unwrap();
            assert_eq!(
                bytes.len() <= SMALL_VALUE_BYTES_MAX,
                count < SMALL_VALUE_BYTES_MAX
            );
            assert_eq!(decode_value::<Vec<u128>>(&bytes), Ok(value));
        }
    }

    #[test]
    fn a_small_value_that_claims_much_is_refused() {
        let claim = |bytes: u32| [&[252][..], &bytes.to_le_bytes()].concat();
        let most = SMALL_VALUE_DECODE_BYTES_MAX as u32;
        let error = decode_value::<String>(&claim(most)).unwrap_err().reason;
        assert!(error.contains("LimitExceeded"), "{error}");
        let error = decode_value::<String>(&claim(most / 2)).unwrap_err().reason;
        assert!(error.contains("UnexpectedEnd"), "{error}");
    }

    #[test]
    fn a_claimed_length_beyond_the_limit_is_refused_before_it_is_allocated() {
        let mut bytes = vec![0];
        bincode::encode_into_std_write(u64::MAX / 2, &mut bytes, OWN).unwrap();
        assert!(decode::<Vec<u8>>(0, &bytes).is_err());
    }
}
