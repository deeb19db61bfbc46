//! The secret of a network and the keys that come from it.

use std::fmt;
use std::str::FromStr;

/// The least strength of a secret, in bits.
pub(crate) const SECRET_BITS_MIN: usize = 128;

/// The least length of a secret, in bytes.
const SECRET_BYTES_MIN: usize = SECRET_BITS_MIN / 8;

/// Why a text or some bytes cannot be the secret of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The secret is too short to withstand guessing.
    #[error(
        "the secret has at most {bits} bits and needs {bits_min}; \
         Secret::generate() makes one, to_hex() shows it"
    )]
    TooShort {
        /// The most bits that a secret of this length can have.
        bits: usize,
        /// How many it needs.
        bits_min: usize,
    },
    /// The secret is one short piece over and over.
    #[error(
        "the secret repeats its first {bytes} bytes over and over, which makes it no harder to guess; \
         Secret::generate() makes a good one, to_hex() shows it"
    )]
    Repeated {
        /// The length of the repeated piece, in bytes.
        bytes: usize,
    },
}

/// What the nodes of a network share and nobody else knows; at least 128 bits.
///
/// Whoever has it can read, write and vote. Keep it in a file or the environment, never in an
/// argument that a process list shows. Every voter's key is derived from it, so that one list of
/// voters and one secret configure all nodes.
///
/// A text of 32 or more hexadecimal digits (an even number of them) stands for the bytes that it
/// spells; any other text for its own bytes. White space around a text does not count, so a line
/// end in a file does no harm.
///
/// ```
/// use raft_once::Secret;
///
/// let secret = Secret::generate();
/// assert_eq!(secret.to_hex().parse::<Secret>()?, secret);
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
///
/// let error = Secret::try_from("too short").unwrap_err();
/// assert!(error.to_string().contains("Secret::generate()"));
/// # Ok::<(), raft_once::SecretError>(())
/// ```
#[derive(Clone)]
pub struct Secret {
    /// Invariant: at least `SECRET_BYTES_MIN` bytes, not a shorter piece repeated.
    bytes: Vec<u8>,
}

impl Secret {
    /// A new secret of 32 random bytes.
    pub fn generate() -> Self {
        Self {
            bytes: rand::random::<[u8; 32]>().to_vec(),
        }
    }

    /// The secret as hexadecimal digits, for the file or the variable that it is kept in.
    ///
    /// This shows the secret. Parsing the text gives the same secret again.
    pub fn to_hex(&self) -> String {
        self.bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The seed of the ed25519 key of the voter called `voter`.
    pub(crate) fn voter_key_seed(&self, network: &str, voter: &str) -> [u8; 32] {
        let parts = [&*self.bytes, network.as_bytes(), voter.as_bytes()];
        blake3::derive_key("raft-once voter key v1", &length_prefixed(&parts))
    }

    /// The key with which voters prove to each other that they hold the secret.
    pub(crate) fn voter_admission_key(&self, network: &str) -> [u8; 32] {
        let parts = [&*self.bytes, network.as_bytes()];
        blake3::derive_key("raft-once voter admission key v1", &length_prefixed(&parts))
    }

    /// The key of observers, which tickets carry: neither the secret nor a voter's key can be
    /// had from it.
    pub(crate) fn observer_key(&self, network: &str) -> [u8; 32] {
        let parts = [&*self.bytes, network.as_bytes()];
        blake3::derive_key("raft-once observer key v1", &length_prefixed(&parts))
    }
}

/// The parts one after another, each behind its length, so that no two lists give the same bytes.
pub(crate) fn length_prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

impl TryFrom<&[u8]> for Secret {
    type Error = SecretError;

    /// The secret of exactly these bytes.
    ///
    /// # Errors
    ///
    /// [`SecretError`] when there are fewer than 16 of them, or a shorter piece repeats.
    fn try_from(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(too_short(bytes.len() * 8));
        }
        let repeats = |piece: &usize| bytes[*piece..] == bytes[..bytes.len() - piece];
        // A piece must fit in twice: random bytes agree over half their length never, but over
        // one byte once in 256 times.
        let pieces = 1..=(bytes.len() / 2).min(SECRET_BYTES_MIN - 1);
        match pieces.into_iter().find(repeats) {
            Some(bytes) => Err(SecretError::Repeated { bytes }),
            None => Ok(Self {
                bytes: bytes.to_vec(),
            }),
        }
    }
}

impl TryFrom<&str> for Secret {
    type Error = SecretError;

    /// The secret that this text stands for.
    ///
    /// # Errors
    ///
    /// [`SecretError`] when it has less than 128 bits, or a shorter piece repeats.
    fn try_from(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Self::try_from(text.as_bytes());
        }
        // A digit has four bits and no more, also where an odd number of them is no byte string.
        if text.len() * 4 < SECRET_BITS_MIN {
            return Err(too_short(text.len() * 4));
        }
        if text.len() % 2 == 1 {
            return Self::try_from(text.as_bytes());
        }
        let digit = |b: u8| match b {
            b'0'..=b'9' => b - b'0',
            _ => b.to_ascii_lowercase() - b'a' + 10,
        };
        let pairs = text.as_bytes().chunks(2);
        let bytes: Vec<u8> = pairs.map(|p| digit(p[0]) << 4 | digit(p[1])).collect();
        Self::try_from(&*bytes)
    }
}

impl TryFrom<String> for Secret {
    type Error = SecretError;

    /// The same as from `&str`.
    ///
    /// # Errors
    ///
    /// [`SecretError`] when it has less than 128 bits, or a shorter piece repeats.
    fn try_from(text: String) -> Result<Self, SecretError> {
        Self::try_from(text.as_str())
    }
}

/// A [`Secret`] is a secret without fail.
impl From<std::convert::Infallible> for SecretError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        Self::try_from(text)
    }
}

fn too_short(bits: usize) -> SecretError {
    SecretError::TooShort {
        bits,
        bits_min: SECRET_BITS_MIN,
    }
}

/// Takes the same time whatever the secrets are: comparison of `blake3::Hash` does.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        blake3::hash(&self.bytes) == blake3::hash(&other.bytes)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: [u8; 32]) -> String {
        crate::UniqueId::from_bytes(bytes).to_string()
    }

    /// Fixtures kept for ever: other keys would shut every node out.
    #[test]
    fn derived_keys_never_change() {
        let secret = Secret::try_from("correct horse battery").unwrap();
        assert_eq!(
            hex(secret.voter_key_seed("orders", "a")),
            "44f9f59482f441a22ded7e720e400e101a97d642823ed2b27700f06a3b104cb5"
        );
        assert_eq!(
            hex(secret.voter_key_seed("orders", "b")),
            "42d7c065318ecaa81921f6335f78bff58f3cffd0ea4a65081ed68786b19bed4c"
        );
        assert_eq!(
            hex(secret.voter_admission_key("orders")),
            "a1ace2163bfb9628d52eec9da7fed33236ca83b39a3fb8a4e67cdff7519bcf04"
        );
        assert_eq!(
            hex(secret.observer_key("orders")),
            "933d24cbd923d4d7a200891cb4851242277eec857b930f0f745d3b6c96cbb7b0"
        );
    }

    #[test]
    fn the_lengths_of_the_parts_are_in_the_keys() {
        let secret = Secret::try_from("correct horse battery").unwrap();
        assert_ne!(
            secret.voter_key_seed("ab", "c"),
            secret.voter_key_seed("a", "bc")
        );
        let longer = Secret::try_from("correct horse batteryab").unwrap();
        assert_ne!(secret.observer_key("abab"), longer.observer_key("ab"));
    }

    #[test]
    fn hex_digits_stand_for_their_bytes() {
        let bytes: Vec<u8> = (0..32).collect();
        let secret = Secret::try_from(&*bytes).unwrap();
        assert_eq!(Secret::try_from(secret.to_hex()).unwrap(), secret);
        assert_eq!(
            Secret::try_from(secret.to_hex().to_uppercase()).unwrap(),
            secret
        );
        assert_eq!(
            Secret::try_from(format!("  {}\r\n", secret.to_hex())).unwrap(),
            secret
        );
        let text = Secret::try_from("0123456789abcdef0123456789abcde!").unwrap();
        assert_eq!(
            text,
            Secret::try_from(b"0123456789abcdef0123456789abcde!".as_slice()).unwrap()
        );
        let odd = "0123456789abcdef0123456789abcdef0";
        assert_eq!(
            Secret::try_from(odd).unwrap(),
            Secret::try_from(odd.as_bytes()).unwrap()
        );
    }

    #[test]
    fn less_than_128_bits_are_refused_with_an_offer_to_generate() {
        let too_short = |bits| {
            Err(SecretError::TooShort {
                bits,
                bits_min: 128,
            })
        };
        assert_eq!(Secret::try_from(""), too_short(0));
        assert_eq!(Secret::try_from("fifteen letters"), too_short(120));
        assert_eq!(Secret::try_from("   fifteen letters\n"), too_short(120));
        assert_eq!(Secret::try_from([7_u8; 15].as_slice()), too_short(120));
        // 31 digits are 31 bytes, but only 124 bits.
        assert_eq!(
            Secret::try_from("0123456789abcdef0123456789abcde"),
            too_short(124)
        );
        let text = Secret::try_from("").unwrap_err().to_string();
        assert!(text.contains("at most 0 bits and needs 128"), "{text}");
        assert!(text.contains("Secret::generate()"), "{text}");
        assert!(Secret::try_from("sixteen letters!").is_ok());
    }

    #[test]
    fn a_repeated_piece_is_refused() {
        let repeated = |bytes| Err(SecretError::Repeated { bytes });
        assert_eq!(Secret::try_from("zzzzzzzzzzzzzzzzz"), repeated(1));
        assert_eq!(Secret::try_from("passwordpassword"), repeated(8));
        assert_eq!(Secret::try_from("00".repeat(32)), repeated(1));
        assert_eq!(Secret::try_from("xyz".repeat(6) + "x"), repeated(3));
        assert_eq!(Secret::try_from([1; 16].as_slice()), repeated(1));
        // The last byte equals the first, which random bytes often do.
        assert!(Secret::try_from("zbcdefghijklmnoz").is_ok());
    }

    #[test]
    fn generated_secrets_differ_and_are_not_shown() {
        let (one, two) = (Secret::generate(), Secret::generate());
        assert_ne!(one, two);
        assert_eq!(one.to_hex().len(), 64);
        assert_eq!(format!("{one:?}"), "Secret(..)");
    }
}
