//! The electorate: the voters of a network.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV6};

use super::secret::length_prefixed;
use crate::id::{GroupId, NodeId};

/// The longest name of a voter or a network, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// The longest host name that the domain name system knows, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// The most voters of one network.
pub(crate) const VOTERS_MAX: usize = 5;

/// Why a list of voters, or the name of a network, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElectorateError {
    /// The list is empty.
    #[error("the electorate is empty; name 1, 3 or 5 voters")]
    Empty,
    /// The list has two or four voters.
    #[error(
        "an electorate of {voters} tolerates no more failures than one of {}, and every write waits \
         for one more disk; name 1, 3 or 5 voters",
        voters - 1
    )]
    Even {
        /// How many voters the list has.
        voters: usize,
    },
    /// The list has more than five voters.
    #[error(
        "an electorate of {voters} is too large: every write would wait for the disks of {} voters; \
         name 1, 3 or 5 voters and let the other nodes be observers",
        voters / 2 + 1
    )]
    TooLarge {
        /// How many voters the list has.
        voters: usize,
    },
    /// A voter has an empty name.
    #[error("a voter has an empty name; its identity is its name, give it one and never change it")]
    EmptyName,
    /// A voter's name is too long.
    #[error("the voter name {name:?} is longer than {bytes_max} bytes")]
    LongName {
        /// The name.
        name: String,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// Two voters have the same name.
    #[error(
        "two voters are called {name:?}; a voter's identity is its name, make the names differ"
    )]
    SameName {
        /// The name.
        name: String,
    },
    /// The names of two voters hash to the same node id.
    #[error("the voter names {first:?} and {second:?} have the same node id; rename one of them")]
    SameId {
        /// One of the names.
        first: String,
        /// The other one.
        second: String,
    },
    /// Two voters have the same address.
    #[error("the voters {first:?} and {second:?} have the same address {address:?}")]
    SameAddress {
        /// One of the voters.
        first: String,
        /// The other one.
        second: String,
        /// The address.
        address: String,
    },
    /// A voter's address is not a host and a port.
    #[error("the address {address:?} of voter {name:?} {reason}; write host:port or [ipv6]:port")]
    Address {
        /// The voter's name.
        name: String,
        /// Its address.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name of the network is empty or too long.
    #[error("the network name {name:?} must have 1 to {bytes_max} bytes")]
    NetworkName {
        /// The name.
        name: String,
        /// The limit, in bytes.
        bytes_max: usize,
    },
}

/// Checks the name of a network.
pub(crate) fn check_network_name(name: &str) -> Result<(), ElectorateError> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(ElectorateError::NetworkName {
        name: name.to_owned(),
        bytes_max: NAME_BYTES_MAX,
    })
}

/// A node that keeps logs. Its identity is its name; its address may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Voter {
    pub(crate) name: String,
    pub(crate) id: NodeId,
    /// `host:port`. A host name is resolved at each connect.
    pub(crate) addr: String,
}

/// The voters of a network.
///
/// Invariant: 1, 3 or 5 voters, sorted by id, with distinct names, ids and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Electorate {
    voters: Vec<Voter>,
}

impl Electorate {
    /// The electorate of these (name, address) pairs. Their order does not matter.
    pub(crate) fn new(voters: Vec<(String, String)>) -> Result<Self, ElectorateError> {
        let voters = voters.into_iter().map(|(name, addr)| Voter {
            id: NodeId::of_voter(&name),
            name,
            addr,
        });
        Self::of_voters(voters.collect())
    }

    fn of_voters(mut voters: Vec<Voter>) -> Result<Self, ElectorateError> {
        match voters.len() {
            0 => return Err(ElectorateError::Empty),
            1 | 3 | 5 => {}
            2 | 4 => {
                return Err(ElectorateError::Even {
                    voters: voters.len(),
                });
            }
            _ => {
                return Err(ElectorateError::TooLarge {
                    voters: voters.len(),
                });
            }
        }
        let mut places = Vec::new();
        for (at, voter) in voters.iter().enumerate() {
            check_name(&voter.name)?;
            let place = place_of(voter)?;
            for (other, other_place) in voters[..at].iter().zip(&places) {
                check_distinct(other, voter, *other_place == place)?;
            }
            places.push(place);
        }
        voters.sort_by_key(|voter| voter.id);
        Ok(Self { voters })
    }

    /// Voter `name` bound this address: it replaces port 0, which nobody could dial.
    pub(crate) fn bound(&mut self, name: &str, addr: std::net::SocketAddr) {
        if let Some(voter) = self.voters.iter_mut().find(|voter| voter.name == name)
            && voter.addr.ends_with(":0")
        {
            voter.addr = addr.to_string();
        }
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Voter> {
        self.voters.iter().find(|voter| voter.id == id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Voter> {
        self.voters.iter().find(|voter| voter.name == name)
    }

    /// The voters, sorted by id.
    pub(crate) fn voters(&self) -> &[Voter] {
        &self.voters
    }

    /// The names of the voters in alphabetical order.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.voters.iter().map(|voter| &*voter.name).collect()
    }

    /// What two nodes compare to know that they have the same electorate on the same network.
    ///
    /// Only names enter it: a list in another order, or one that reaches a voter by another
    /// address, is the same electorate.
    pub(crate) fn digest(&self, network: &str) -> [u8; 32] {
        let mut parts = vec![network.as_bytes()];
        parts.extend(self.names().into_iter().map(str::as_bytes));
        blake3::derive_key("raft-once electorate v1", &length_prefixed(&parts))
    }

    /// The order in which the voters are asked to lead `group`: the same on every node, so that
    /// contenders meet at one candidate, and another for each group, so that leaders spread. The
    /// first of them leads a newborn group by birth: to change this is to change the format.
    pub(crate) fn preference(&self, group: &GroupId) -> Vec<NodeId> {
        self.ordered_by(|voter| {
            let parts = [group.as_bytes().as_slice(), voter.name.as_bytes()];
            blake3::derive_key("raft-once leader preference v1", &length_prefixed(&parts))
        })
    }

    /// The order in which `observer` asks the voters to let it follow `group`. The observer
    /// enters the hash, so that the followers of one group spread over the voters.
    pub(crate) fn preference_for(&self, group: &GroupId, observer: NodeId) -> Vec<NodeId> {
        let observer = observer.as_u64().to_le_bytes();
        self.ordered_by(|voter| {
            let parts = [
                group.as_bytes().as_slice(),
                &observer,
                voter.name.as_bytes(),
            ];
            blake3::derive_key("raft-once follow preference v1", &length_prefixed(&parts))
        })
    }

    /// Rendezvous hashing: when a voter leaves, the order of the others stays.
    fn ordered_by(&self, hash: impl Fn(&Voter) -> [u8; 32]) -> Vec<NodeId> {
        let mut order: Vec<_> = self.voters.iter().map(|v| (hash(v), v.id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }
}

fn check_name(name: &str) -> Result<(), ElectorateError> {
    if name.is_empty() {
        return Err(ElectorateError::EmptyName);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(ElectorateError::LongName {
            name: name.to_owned(),
            bytes_max: NAME_BYTES_MAX,
        });
    }
    Ok(())
}

fn check_distinct(first: &Voter, second: &Voter, same_place: bool) -> Result<(), ElectorateError> {
    if first.name == second.name {
        return Err(ElectorateError::SameName {
            name: first.name.clone(),
        });
    }
    let (one, two) = (first.name.clone(), second.name.clone());
    if first.id == second.id {
        return Err(ElectorateError::SameId {
            first: one,
            second: two,
        });
    }
    if same_place {
        return Err(ElectorateError::SameAddress {
            first: one,
            second: two,
            address: second.addr.clone(),
        });
    }
    Ok(())
}

/// The voter's address in one spelling: lower case, the shortest form of an IPv6 address, no
/// leading zeros in the port.
fn place_of(voter: &Voter) -> Result<(String, u16), ElectorateError> {
    place(&voter.addr).map_err(|reason| ElectorateError::Address {
        name: voter.name.clone(),
        address: voter.addr.clone(),
        reason,
    })
}

fn place(addr: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = addr.rsplit_once(':').ok_or("has no port")?;
    if port.is_empty() {
        return Err("has no port");
    }
    if host.is_empty() {
        return Err("has no host");
    }
    // `parse` alone would take "+80".
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err("has a port that is not a number from 0 to 65535");
    }
    let port: u16 = port
        .parse()
        .map_err(|_| "has a port that is not a number from 0 to 65535")?;
    if host.starts_with('[') {
        let v6: SocketAddrV6 = format!("{host}:0")
            .parse()
            .map_err(|_| "is not an IPv6 address in its brackets")?;
        return Ok((v6.to_string(), port));
    }
    if host.contains(':') {
        return Err("has an IPv6 address without brackets or two ports");
    }
    check_host(host)?;
    Ok((host.to_ascii_lowercase(), port))
}

/// Syntax only: a host name is resolved at each connect, not here.
fn check_host(host: &str) -> Result<(), &'static str> {
    if host.len() > HOST_BYTES_MAX {
        return Err("has a host name longer than 253 bytes");
    }
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !host.bytes().all(known) {
        return Err("has a character that no host name has");
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    if labels.split('.').any(str::is_empty) {
        return Err("has a host name with an empty part");
    }
    // No top-level domain is a number: a host that ends in one is meant to be an IPv4 address.
    let last = labels.rsplit('.').next().unwrap_or(labels);
    if last.bytes().all(|b| b.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return Err("is not an IPv4 address");
    }
    Ok(())
}

#[cfg(test)]
#[path = "electorate_tests.rs"]
mod tests;
