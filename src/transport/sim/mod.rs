//! A simulated network, for tests of many nodes in one process.
//!
//! Time is tokio's, so a paused clock works. Nothing here reads a clock, a socket or a random
//! source other than the seed: on a current-thread runtime one seed gives one history.
//!
//! - [`net`]: which links are up, what was sent, when it arrives
//! - [`link`]: the state of one connection, both ends
//! - [`node`]: the tenant of the transport seam
//! - [`pace`]: how long a message is under way

mod counts;
mod link;
mod net;
mod node;
mod pace;
#[cfg(test)]
mod tests;
mod weather;

pub(crate) use node::SimIncoming;
#[cfg(test)]
pub(crate) use node::SimTransport;
#[allow(unused_imports, reason = "re-exported by the crate root")]
pub use {counts::SimCounts, net::SimNet};
