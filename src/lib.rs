//! Raft-replicated write-once cells.
#![allow(dead_code)]

mod codec;
mod id;
mod machine;
mod network;
mod transport;

pub use codec::{DecodeError, EncodeError};
pub use id::{GroupId, NodeId, StoreId, UniqueId, Version};
pub use network::{ElectorateError, Secret, SecretError, Ticket, TicketError};
