//! Who is on a network and how they prove it: the pure pieces. No IO and no async in them.

mod base32;
pub(crate) mod electorate;
pub(crate) mod hello;
pub(crate) mod past;
pub(crate) mod proof;
pub(crate) mod refusal;
pub(crate) mod secret;
pub(crate) mod ticket;

#[cfg(test)]
mod hostile_bytes;

pub use electorate::ElectorateError;
pub use secret::{Secret, SecretError};
pub use ticket::{Ticket, TicketError};
