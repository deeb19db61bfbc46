//! Jobs: actions with a schedule, of which each tick is run at most once, or until it succeeds.

mod document;
pub(crate) mod duration;
mod schedule;

pub use document::JobError;
