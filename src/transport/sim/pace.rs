//! How long a message is under way.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    pub(super) min: Duration,
    pub(super) max: Duration,
    /// `None`: size does not matter.
    pub(super) bytes_per_ms: Option<u64>,
    pub(super) lost_per_mille: u32,
    pub(super) doubled_per_mille: u32,
}

impl Pace {
    pub(super) fn loses(&self, chance: &mut StdRng) -> bool {
        self.lost_per_mille > 0 && chance.random_ratio(self.lost_per_mille.min(1_000), 1_000)
    }

    pub(super) fn doubles(&self, chance: &mut StdRng) -> bool {
        self.doubled_per_mille > 0 && chance.random_ratio(self.doubled_per_mille.min(1_000), 1_000)
    }

    pub(super) fn draw(&self, chance: &mut StdRng, bytes: usize) -> Duration {
        let delay = if self.min == self.max {
            self.min
        } else {
            chance.random_range(self.min..=self.max)
        };
        let bytes_per_ms = self.bytes_per_ms.unwrap_or(u64::MAX).max(1);
        delay + Duration::from_millis(bytes as u64 / bytes_per_ms)
    }
}
