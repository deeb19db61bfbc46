//! What all fuzz targets share: each calls the function of its name in `raft_once::fuzzing` and
//! watches how much memory it takes.

#[path = "../../src/fuzzing/memory.rs"]
mod memory;

pub use libfuzzer_sys::fuzz_target;
use raft_once::fuzzing::{PER_INPUT_BYTE, TARGETS};

/// A fuzz target: what `raft_once::fuzzing` has under this name.
#[macro_export]
macro_rules! fuzz {
    ($name:ident) => {
        $crate::fuzz_target!(|bytes: &[u8]| $crate::run(stringify!($name), bytes));
    };
}

/// Runs a target on one input.
///
/// # Panics
///
/// If it panics, or holds more memory than it may.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("targets have the names of functions");
    let peak = memory::peak_bytes(|| (target.run)(bytes));
    let allowed = target.memory_bytes_max + bytes.len() * PER_INPUT_BYTE;
    assert!(
        peak <= allowed,
        "{name} held {peak} bytes, {allowed} are allowed"
    );
}
