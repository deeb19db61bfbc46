//! What a job is to do, and when.

use super::Tick;
use crate::codec::{self, Decode, Encode};
use crate::machine::task::Policy;

/// The longest schedule and name of a zone, in bytes.
const SCHEDULE_BYTES_MAX: usize = 128;

/// The most bytes of a job's spec, its action included.
pub(crate) const SPEC_BYTES_MAX: usize = 8 * 1024;

/// The most arguments of a command, and headers of a call.
pub(crate) const ARGUMENTS_MAX: usize = 64;

/// How long a call or a command may take, in milliseconds.
pub(crate) const TIMEOUT_MS_MIN: u64 = 100;
pub(crate) const TIMEOUT_MS_MAX: u64 = 60 * 60 * 1_000;

/// What a job is. It does not change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Spec {
    /// Six fields, seconds first. Whoever makes the job has checked it, the machine does not read it.
    pub(crate) schedule: String,
    /// Of the IANA database.
    pub(crate) zone: String,
    /// The civil time there when it was made: its ticks are later.
    pub(crate) after: Tick,
    pub(crate) policy: Policy,
    pub(crate) is_recurring: bool,
    pub(crate) timeout_ms: u64,
    pub(crate) description: String,
    pub(crate) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Action {
    Call(Call),
    /// A program and its arguments.
    Command(Vec<String>),
}

/// An HTTP call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Spec {
    pub(crate) fn bytes(&self) -> usize {
        codec::encode(0, self).len()
    }

    /// Why no honest node proposes it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.schedule.is_empty() || self.schedule.len() > SCHEDULE_BYTES_MAX {
            return Err("a schedule has 1 to 128 bytes");
        }
        if self.zone.is_empty() || self.zone.len() > SCHEDULE_BYTES_MAX {
            return Err("the name of a time zone has 1 to 128 bytes");
        }
        if !self.after.is_sound() {
            return Err("a job is made at a civil time");
        }
        if !(TIMEOUT_MS_MIN..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return Err("a job's timeout is from 100 ms to an hour");
        }
        match &self.action {
            Action::Command(argv) if argv.is_empty() || argv.len() > ARGUMENTS_MAX => {
                return Err("a command is a program and up to 63 arguments");
            }
            Action::Call(call) if call.headers.len() > ARGUMENTS_MAX => {
                return Err("a call has up to 64 headers");
            }
            Action::Call(_) | Action::Command(_) => {}
        }
        if self.bytes() > SPEC_BYTES_MAX {
            return Err("a job has 8 KiB at most, its description, headers and body included");
        }
        match self.policy {
            Policy::AtMostOnce => Ok(()),
            Policy::AtLeastOnce { .. } => crate::machine::task::Spec {
                policy: self.policy,
                ttl_ms: None,
            }
            .check(),
        }
    }
}
