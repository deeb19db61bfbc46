//! What a seed stands for: who takes part, how the network and the disks behave, how much of which
//! fault.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How many steps a run takes before it heals: messages, syncs, calls of clients, faults.
pub(super) const STEPS: u64 = 10_000;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) voters: usize,
    /// Observers that there may be at once.
    pub(super) observers: usize,
    pub(super) clients_per_node: u32,
    /// Cells are opened for the first time one after another, and never all at once.
    pub(super) cells: u32,
    pub(super) write_timeout_ms: u64,
    /// The longest pause of a client between two calls.
    pub(super) think_ms: u64,
    pub(super) delay: (Duration, Duration),
    pub(super) sync_ms: (u64, u64),
    /// The longest pause between two faults; short ones are likelier.
    pub(super) calm_ms: u64,
    /// Some runs spend long stretches with nothing to do, so that groups fall asleep.
    pub(super) sleepy: bool,
    /// Small ones bring checkpoints and removed segments into every minute of a run.
    pub(super) segment_bytes: u64,
    pub(super) steps: u64,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        // The plan has a generator of its own: a change here does not change what follows.
        let mut chance = StdRng::seed_from_u64(seed ^ 0x7A5);
        let voters = [3, 3, 3, 3, 3, 3, 5, 5, 1][chance.random_range(0..9)];
        let least = chance.random_range(0..3);
        Self {
            seed,
            voters,
            observers: chance.random_range(0..3),
            clients_per_node: chance.random_range(1..4),
            cells: chance.random_range(4..60),
            write_timeout_ms: chance.random_range(1_000..5_001),
            think_ms: [5, 40, 200][chance.random_range(0..3)],
            delay: (
                Duration::from_millis(least),
                Duration::from_millis(least + [0, 2, 10, 40][chance.random_range(0..4)]),
            ),
            sync_ms: [(0, 0), (0, 2), (1, 10), (0, 40)][chance.random_range(0..4)],
            calm_ms: [50, 400, 1_500][chance.random_range(0..3)],
            sleepy: chance.random_bool(0.3),
            segment_bytes: [2_000, 16_000, 128_000, 16 << 20][chance.random_range(0..4)],
            steps: STEPS,
        }
    }
}
