//! Whether the machine let the processes run at all.

use std::fmt;
use std::time::Instant;

/// From this share of the time on, in percent, in which somebody waited for a processor, a timeout
/// proves nothing. Beside busy neighbours it is nearly all of it.
const STARVED_PERCENT: u128 = 90;

/// The same where up to so many percent of the processors' time are idle: what a neighbour on the
/// same hardware takes is seen here, and the system may not tell who waits.
const IDLE_PERCENT: u64 = 10;

/// Counts from a moment on.
pub struct Pressure {
    since: Instant,
    waited_us: Option<u64>,
    /// Ticks of all processors: idle, and all.
    ticks: Option<(u64, u64)>,
}

impl Pressure {
    pub fn begin() -> Self {
        Self {
            since: Instant::now(),
            waited_us: waited_us(),
            ticks: ticks(),
        }
    }

    /// Whether processes have waited for processors nearly all the time since.
    pub fn was_starving(&self) -> bool {
        let waited = self.waited_us.zip(waited_us());
        let waited = waited.is_some_and(|(before, now)| {
            let waited = u128::from(now.saturating_sub(before));
            waited * 100 > self.since.elapsed().as_micros() * STARVED_PERCENT
        });
        let ticks = self.ticks.zip(ticks());
        let busy = ticks.is_some_and(|(before, now)| {
            let (idle, all) = (now.0.saturating_sub(before.0), now.1 - before.1);
            all > 0 && idle * 100 <= all * IDLE_PERCENT
        });
        waited || busy
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.was_starving() {
            true => "on a busy machine",
            false => "though the machine was not busy",
        })
    }
}

fn waited_us() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = text.lines().find(|line| line.starts_with("some"))?;
    some.rsplit_once("total=")?.1.parse().ok()
}

fn ticks() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let all = text.lines().next()?.strip_prefix("cpu ")?;
    // The last two, for guests, are part of the first two.
    let ticks = all.split_whitespace().take(8);
    let ticks: Vec<u64> = ticks
        .map(|ticks| ticks.parse().ok())
        .collect::<Option<_>>()?;
    Some((*ticks.get(3)?, ticks.iter().sum()))
}
