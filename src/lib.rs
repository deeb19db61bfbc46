//! Raft-replicated write-once cells.
#![allow(dead_code)]

mod codec;
mod group;
mod id;
mod machine;
mod network;
mod once;
mod store;
mod transport;

pub use codec::{DecodeError, EncodeError};
pub use id::{GroupId, NodeId, StoreId, UniqueId, Version};
pub use network::{
    CellStatus, ElectorateError, Network, NetworkBuilder, NetworkError, NetworkStatus, Role,
    Secret, SecretError, Ticket, TicketError, VoterStatus,
};
pub use once::{
    Claim, ClaimError, Decision, Error, InitError, Observed, Once, OnceConfig, OnceReader,
    OnceWriter, Pending, READER, ReadError, WRITER, When,
};
