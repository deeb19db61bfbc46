//! Jobs: actions with a schedule, of which each tick is claimed before it is run.

mod spec;
mod tick;

pub(crate) use spec::{
    ARGUMENTS_MAX, Action, Call, SPEC_BYTES_MAX, Spec, TIMEOUT_MS_MAX, TIMEOUT_MS_MIN,
};
pub use tick::{Tick, TickError};
