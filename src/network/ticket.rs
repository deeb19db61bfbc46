//! A ticket: all that an observer needs to join a network.

use std::fmt;
use std::str::FromStr;

use super::base32;
use super::electorate::{Electorate, ElectorateError, VOTERS_MAX, check_network_name};
use crate::codec::{self, Decode, Encode, MalformedError};

/// The longest ticket, in characters. Five voters with the longest names and addresses need
/// about 3,100.
pub(crate) const TICKET_CHARS_MAX: usize = 4096;

const TICKET_VERSION: u8 = 1;
const PREFIX: &str = "once1";
const CHECKSUM_BYTES: usize = 4;

/// Why a text is not a ticket that this build can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The text is something else.
    #[error("this is not a ticket: a ticket starts with \"once1\"")]
    NotATicket,
    /// The text is longer than any ticket.
    #[error("this is not a ticket: it is longer than {chars_max} characters")]
    TooLong {
        /// The limit, in characters.
        chars_max: usize,
    },
    /// Characters are missing or were changed.
    #[error("the ticket is damaged: characters are missing or changed; copy it again")]
    Damaged,
    /// Another version of this library made the ticket.
    #[error(
        "the ticket has format version {found} and this build knows {known}; \
         use the same version of raft-once on both sides"
    )]
    Version {
        /// The version of the ticket.
        found: u8,
        /// The version that this build knows.
        known: u8,
    },
    /// The ticket is whole, but what it says cannot be.
    #[error("the ticket is whole, but its content is malformed: {0}")]
    Malformed(String),
}

impl From<ElectorateError> for TicketError {
    fn from(error: ElectorateError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Lets an observer join a network: `Network::join(ticket)`.
///
/// It names the network and its voters and carries the key of observers, from which neither the
/// network's secret nor a voter's key can be had: its holder can read and propose, but never
/// vote. It is still a secret: `to_string()` shows the key, `Debug` does not. Keep it in a file
/// or the environment, never in an argument that a process list shows.
///
/// ```
/// use raft_once::{Ticket, TicketError};
///
/// let error = "not a ticket".parse::<Ticket>().unwrap_err();
/// assert_eq!(error, TicketError::NotATicket);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) network: String,
    pub(crate) epoch: u32,
    pub(crate) observer_key: [u8; 32],
    /// Invariant: an [`Electorate`] can be made of them.
    pub(crate) voters: Vec<TicketVoter>,
}

/// A voter as a ticket names it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct TicketVoter {
    pub(crate) name: String,
    pub(crate) addr: String,
    /// The ed25519 key by which a link to it is known to end there.
    pub(crate) public_key: [u8; 32],
}

impl Ticket {
    /// Tells clusters apart, of one name too: their voters' keys come from their secret.
    #[cfg(feature = "jobs")]
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.network.as_bytes());
        let mut keys: Vec<_> = self.voters.iter().map(|voter| voter.public_key).collect();
        keys.sort_unstable();
        for key in keys {
            hasher.update(&key);
        }
        hasher.finalize().to_hex()[..32].into()
    }

    /// A ticket for `network`, whose voters have the public keys that `public_key` gives for
    /// their names.
    ///
    /// # Errors
    ///
    /// [`TicketError::Malformed`] when the network's name is empty or too long.
    pub(crate) fn new(
        network: &str,
        epoch: u32,
        observer_key: [u8; 32],
        electorate: &Electorate,
        public_key: impl Fn(&str) -> [u8; 32],
    ) -> Result<Self, TicketError> {
        check_network_name(network)?;
        let voters = electorate.voters().iter().map(|voter| TicketVoter {
            name: voter.name.clone(),
            addr: voter.addr.clone(),
            public_key: public_key(&voter.name),
        });
        Ok(Self {
            network: network.to_owned(),
            epoch,
            observer_key,
            voters: voters.collect(),
        })
    }

    /// The name of the network that the ticket is for.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The voters that the ticket names.
    pub(crate) fn electorate(&self) -> Result<Electorate, ElectorateError> {
        let voters = self.voters.iter();
        Electorate::new(voters.map(|v| (v.name.clone(), v.addr.clone())).collect())
    }

    /// The content as bytes. Field by field, so that the codec's traits are no part of the
    /// public type.
    pub(super) fn encode(&self, version: u8) -> Vec<u8> {
        let body = (&self.network, self.epoch, self.observer_key, &self.voters);
        codec::encode(version, &body)
    }

    fn decode(bytes: &[u8]) -> Result<Self, MalformedError> {
        let (network, epoch, observer_key, voters) = codec::decode(TICKET_VERSION, bytes)?;
        Ok(Self {
            network,
            epoch,
            observer_key,
            voters,
        })
    }

    fn check(&self) -> Result<(), TicketError> {
        check_network_name(&self.network)?;
        if self.voters.len() > VOTERS_MAX {
            return Err(TicketError::Malformed("too many voters".into()));
        }
        self.electorate()?;
        let keys = self.voters.iter().map(|voter| voter.public_key);
        if keys.collect::<std::collections::BTreeSet<_>>().len() < self.voters.len() {
            return Err(TicketError::Malformed("two voters have one key".into()));
        }
        Ok(())
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sealed(self.encode(TICKET_VERSION)))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Reads a ticket; white space around it does not count.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let digits = text.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        // Before anything is allocated for it.
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong {
                chars_max: TICKET_CHARS_MAX,
            });
        }
        let bytes = base32::decode(digits).ok_or(TicketError::Damaged)?;
        let (body, found) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(TicketError::Damaged)?;
        if checksum(body) != *found {
            return Err(TicketError::Damaged);
        }
        let ticket = Self::decode(body).map_err(|error| match error {
            MalformedError::Version { found, known } => TicketError::Version { found, known },
            other => TicketError::Malformed(other.to_string()),
        })?;
        ticket.check()?;
        Ok(ticket)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let voters = self.voters.iter().map(|v| (&*v.name, &*v.addr));
        f.debug_struct("Ticket")
            .field("network", &self.network)
            .field("epoch", &self.epoch)
            .field("voters", &voters.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The text form of an encoded ticket.
pub(super) fn sealed(mut bytes: Vec<u8>) -> String {
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    format!("{PREFIX}{}", base32::encode(&bytes))
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("raft-once ticket checksum v1", body);
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn electorate(count: usize) -> Electorate {
        let voters = (0..count).map(|n| (format!("v{n}"), format!("10.0.0.{n}:7400")));
        Electorate::new(voters.collect()).unwrap()
    }

    fn ticket() -> Ticket {
        let key = |name: &str| *blake3::hash(name.as_bytes()).as_bytes();
        Ticket::new("orders", 0, [0xab; 32], &electorate(3), key).unwrap()
    }

    fn malformed(change: impl Fn(&mut Ticket)) -> String {
        let mut ticket = ticket();
        change(&mut ticket);
        match ticket.to_string().parse::<Ticket>() {
            Err(TicketError::Malformed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_ticket_round_trips_also_with_white_space_around_it() {
        let ticket = ticket();
        let text = ticket.to_string();
        assert!(
            text.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
        assert_eq!(text.parse(), Ok(ticket.clone()));
        assert_eq!(format!("\n  {text}\r\n").parse(), Ok(ticket.clone()));
        assert_eq!(ticket.network(), "orders");
        assert_eq!(ticket.electorate().unwrap(), electorate(3));
    }

    /// A fixture kept for ever: tickets that people hold must stay good.
    #[test]
    fn the_text_of_a_ticket_never_changes() {
        let hash = blake3::hash(ticket().to_string().as_bytes()).to_hex();
        assert_eq!(&hash[..32], "147e4a13cc210b5bc52321c0f67ddcb0");
    }

    #[test]
    fn the_largest_ticket_is_within_the_limit() {
        let voters = (0..5).map(|n| {
            let host = format!("{n}.{}", "h".repeat(251));
            (format!("{n}{}", "n".repeat(63)), format!("{host}:65535"))
        });
        let electorate = Electorate::new(voters.collect()).unwrap();
        let key = |name: &str| *blake3::hash(name.as_bytes()).as_bytes();
        let network = "n".repeat(64);
        let ticket = Ticket::new(&network, u32::MAX, [255; 32], &electorate, key).unwrap();
        assert!(ticket.to_string().len() <= TICKET_CHARS_MAX);
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }

    #[test]
    fn every_single_changed_character_is_detected() {
        let text = ticket().to_string();
        for at in 0..text.len() {
            for with in b"abcdefghijklmnopqrstuvwxyz0123456789AZ -\n" {
                let mut changed = text.clone().into_bytes();
                if changed[at] == *with {
                    continue;
                }
                changed[at] = *with;
                let changed = String::from_utf8(changed).unwrap();
                let expected = match at < PREFIX.len() {
                    true => TicketError::NotATicket,
                    false => TicketError::Damaged,
                };
                assert_eq!(changed.parse::<Ticket>(), Err(expected), "{changed}");
            }
        }
    }

    #[test]
    fn missing_doubled_and_swapped_characters_are_detected() {
        let text = ticket().to_string();
        for at in 0..text.len() {
            assert!(text[..at].parse::<Ticket>().is_err(), "cut at {at}");
            let mut missing = text.clone();
            let character = missing.remove(at);
            assert!(missing.parse::<Ticket>().is_err(), "missing {at}");
            let mut doubled = text.clone();
            doubled.insert(at, character);
            assert!(doubled.parse::<Ticket>().is_err(), "doubled {at}");
        }
        for at in 1..text.len() {
            let mut swapped = text.clone().into_bytes();
            swapped.swap(at - 1, at);
            let swapped = String::from_utf8(swapped).unwrap();
            assert!(swapped == text || swapped.parse::<Ticket>().is_err());
        }
    }

    #[test]
    fn another_version_is_named_and_not_called_damage() {
        let bytes = ticket().encode(TICKET_VERSION + 1);
        let error = sealed(bytes).parse::<Ticket>().unwrap_err();
        assert_eq!(error, TicketError::Version { found: 2, known: 1 });
        assert!(error.to_string().contains("same version of raft-once"));
    }

    #[test]
    fn a_whole_ticket_with_impossible_content_says_what_is_wrong() {
        assert!(malformed(|t| t.network.clear()).contains("network name"));
        assert!(malformed(|t| t.voters.clear()).contains("is empty"));
        assert!(malformed(|t| t.voters.truncate(2)).contains("electorate of 2"));
        assert!(malformed(|t| t.voters[0].addr = "host".into()).contains("has no port"));
        assert!(malformed(|t| t.voters[0].public_key = t.voters[1].public_key).contains("one key"));
        assert!(malformed(|t| t.voters = vec![t.voters[0].clone(); 6]).contains("too many"));
        let mut trailing = ticket().encode(TICKET_VERSION);
        trailing.push(0);
        let error = sealed(trailing).parse::<Ticket>().unwrap_err();
        assert!(error.to_string().contains("1 trailing bytes"), "{error}");
        assert!(matches!(
            sealed(vec![]).parse::<Ticket>(),
            Err(TicketError::Malformed(_))
        ));
    }

    #[test]
    fn a_long_text_is_refused_before_it_is_decoded() {
        let text = PREFIX.to_owned() + &"a".repeat(TICKET_CHARS_MAX);
        let error = text.parse::<Ticket>().unwrap_err();
        assert_eq!(
            error,
            TicketError::TooLong {
                chars_max: TICKET_CHARS_MAX
            }
        );
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let text = format!("{:?}", ticket());
        assert!(
            text.contains("orders") && text.contains("10.0.0.1:7400"),
            "{text}"
        );
        assert!(!text.contains("171") && !text.contains("ab, ab"), "{text}");
        assert!(!text.contains("key"), "{text}");
    }
}
