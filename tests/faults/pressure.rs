//! Whether the machine let the processes run at all.

use std::time::Instant;

/// From this share of the time on, in percent, in which somebody waited for a processor, a timeout
/// proves nothing. Beside busy neighbours it is nearly all of it.
const STARVED_PERCENT: u128 = 90;

/// Counts from a moment on.
pub struct Pressure {
    since: Instant,
    waited_us: Option<u64>,
}

impl Pressure {
    pub fn begin() -> Self {
        Self {
            since: Instant::now(),
            waited_us: waited_us(),
        }
    }

    /// Whether processes have waited for processors nearly all the time since. A system that does
    /// not say is not starved.
    pub fn was_starving(&self) -> bool {
        let (Some(before), Some(now)) = (self.waited_us, waited_us()) else {
            return false;
        };
        let waited = u128::from(now.saturating_sub(before));
        waited * 100 > self.since.elapsed().as_micros() * STARVED_PERCENT
    }
}

fn waited_us() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = text.lines().find(|line| line.starts_with("some"))?;
    some.rsplit_once("total=")?.1.parse().ok()
}
