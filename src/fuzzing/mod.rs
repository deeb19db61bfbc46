//! What a fuzzer calls: a function for each parser of bytes that come from elsewhere. Each takes
//! any bytes and panics if something is wrong: with the parser, or with what it made of them.
//!
//! No part of the library: it exists in tests and, for the targets in `fuzz/`, under
//! `--cfg fuzzing` with the feature `testing`. CONTRIBUTING.md says how to run them.

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod findings;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod mutate;
#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod tests;
mod value;
#[cfg(test)]
mod watch;

use crate::codec::{DECODE_BYTES_MAX, SMALL_VALUE_DECODE_BYTES_MAX};
use crate::{group, network, store, transport};

/// A parser, or a few that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which its fuzz target and its folder of samples have too.
    pub name: &'static str,
    /// Reads the bytes, and uses what it has read.
    pub run: fn(&[u8]),
    /// The most memory that a run may hold at once, in bytes, beside [`PER_INPUT_BYTE`].
    pub memory_bytes_max: usize,
}

/// What a run may hold for each byte of its input: some copies, and for the smallest things on the
/// wire the structs that they become.
pub const PER_INPUT_BYTE: usize = 512;

/// What everything else of a run takes: a store, a runtime, an instance of Raft.
const ROOM_BYTES: usize = 8 * 1024 * 1024;

/// A claimed length is believed up to the limit, and a shared slice is made of a vector.
const CLAIMED_BYTES_MAX: usize = 2 * DECODE_BYTES_MAX + ROOM_BYTES;

macro_rules! targets {
    ($($name:ident: $run:path, $memory_bytes_max:expr, $what:literal;)*) => {
        $(
            #[doc = $what]
            pub fn $name(bytes: &[u8]) {
                $run(bytes);
            }
        )*

        /// All of them.
        pub const TARGETS: &[Target] = &[
            $(Target {
                name: stringify!($name),
                run: $name,
                memory_bytes_max: $memory_bytes_max,
            },)*
        ];
    };
}

targets! {
    frame: transport::fuzzing::frame, ROOM_BYTES,
        "A stream that should be one frame, in pieces.";
    admission: network::fuzzing::admission, CLAIMED_BYTES_MAX,
        "The four frames of admission, also behind a good proof.";
    past: network::fuzzing::past, CLAIMED_BYTES_MAX,
        "What a voter keeps about itself and its peers.";
    ticket: network::fuzzing::ticket, CLAIMED_BYTES_MAX,
        "Texts that people hand on: tickets, secrets, names and addresses.";
    request: group::fuzzing::request, CLAIMED_BYTES_MAX,
        "A request about a group.";
    response: group::fuzzing::response, CLAIMED_BYTES_MAX,
        "The answer to one.";
    answer: group::fuzzing::answer, CLAIMED_BYTES_MAX,
        "A voter that is sent these requests.";
    group_on_disk: group::fuzzing::group_on_disk, CLAIMED_BYTES_MAX,
        "A voter whose disk holds these pairs of a group.";
    log_recovery: store::fuzzing::log_recovery, 2 * ROOM_BYTES,
        "A store whose log holds these bytes.";
    value: value::value, SMALL_VALUE_DECODE_BYTES_MAX + ROOM_BYTES,
        "A committed value, read as one of many types.";
}
