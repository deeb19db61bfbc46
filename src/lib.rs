//! Raft-replicated write-once cells.
#![allow(dead_code)]

mod codec;
mod id;
mod machine;
mod store;

pub use codec::{DecodeError, EncodeError};
pub use id::{GroupId, NodeId, StoreId, UniqueId, Version};
