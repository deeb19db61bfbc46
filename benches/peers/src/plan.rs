//! How much is measured. Everything is bounded in count and in time.

use std::time::Duration;

/// Bytes of every value that is written, in every system.
pub const VALUE_BYTES: usize = 100;

/// The value that every system is given.
pub fn value() -> String {
    "v".repeat(VALUE_BYTES)
}

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Systems take turns so often; what is reported is over all rounds together.
    pub rounds: usize,
    /// One measurement of a round: no more than so many operations, and none begun after so long.
    pub operations: u64,
    pub within: Duration,
    /// Clients with one claim in flight each, where throughput is measured.
    pub clients: u64,
    /// Operations before each measurement that are not counted.
    pub warm_up: u64,
    /// Fresh cells of a round, each of which is decided.
    pub births: u64,
    /// Cells opened one after another, in a round.
    pub opened_singly: u64,
    /// Cells opened at once, in a round.
    pub opened_at_once: u64,
    /// mosaik takes seconds to open, and more than a MiB for each: fewer of both.
    pub mosaik_rounds: usize,
    pub mosaik_cells: u64,
    /// Cells that are held while memory and processor are looked at.
    pub held_cells: u64,
    /// Slots of a map, and keys of etcd and Redis, likewise.
    pub held_slots: u64,
    /// Cells that nobody holds, and slots of a map, where it is about great numbers.
    pub many_cells: u64,
    pub many_slots: u64,
    /// Before the look: long enough for cells to fall asleep, which takes 10 s.
    pub settle: Duration,
    /// How long the processor is watched.
    pub watch: Duration,
    /// Leaders killed.
    pub kills: usize,
    /// Reads in a measurement.
    pub reads: u64,
}

impl Plan {
    pub fn full() -> Self {
        Self {
            rounds: 5,
            operations: 5_000,
            within: Duration::from_millis(1_500),
            clients: 64,
            warm_up: 50,
            births: 200,
            opened_singly: 50,
            opened_at_once: 1_000,
            mosaik_rounds: 3,
            mosaik_cells: 100,
            held_cells: 1_000,
            held_slots: 20_000,
            many_cells: 100_000,
            many_slots: 200_000,
            settle: Duration::from_secs(15),
            watch: Duration::from_secs(10),
            kills: 5,
            reads: 20_000_000,
        }
    }

    /// With as many cells and slots as the project promises to hold: it takes an hour.
    pub fn large() -> Self {
        Self {
            many_cells: 1_000_000,
            many_slots: 10_000_000,
            ..Self::full()
        }
    }

    /// To see whether it works. Its figures mean little.
    pub fn quick() -> Self {
        Self {
            rounds: 2,
            operations: 200,
            within: Duration::from_millis(300),
            warm_up: 5,
            births: 20,
            opened_singly: 5,
            opened_at_once: 50,
            mosaik_rounds: 1,
            mosaik_cells: 5,
            held_cells: 50,
            held_slots: 500,
            many_cells: 500,
            many_slots: 2_000,
            settle: Duration::from_secs(1),
            watch: Duration::from_secs(1),
            kills: 1,
            reads: 1_000_000,
            ..Self::full()
        }
    }
}
