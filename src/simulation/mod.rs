//! Whole nodes in one thread: their real code on a simulated network, simulated disks and a paused
//! clock, with one seed for everything that is random. The same seed gives the same history, byte
//! for byte.

mod bugs;
mod client;
mod faults;
mod follower;
mod handle;
#[cfg(feature = "jobs")]
mod jobs;
mod jobs_document;
mod plan;
pub(crate) mod probes;
mod process;
mod run;
mod tests;
mod world;
