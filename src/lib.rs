//! Raft-replicated write-once cells.
#![allow(dead_code)]

mod codec;
mod group;
mod id;
mod machine;
mod network;
mod store;
mod transport;

pub use codec::{DecodeError, EncodeError};
pub use id::{GroupId, NodeId, StoreId, UniqueId, Version};
pub use network::{
    CellStatus, ElectorateError, Network, NetworkBuilder, NetworkError, NetworkStatus, Role,
    Secret, SecretError, Ticket, TicketError, VoterStatus,
};
