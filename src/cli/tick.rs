//! The civil tick that a schedule's task is named by.
//!
//! It is the nominal civil time and no instant, so that hosts with different time-zone data meet in
//! one name. An hour that a change of clocks repeats is one tick.

use std::time::Duration;

use clap::ValueEnum;
use jiff::ZonedDateTime;
use jiff::tz::TimeZone;

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Every {
    /// Once an hour.
    Hour,
    /// Once a day.
    Day,
    /// Once a week, which begins on Monday (ISO 8601).
    Week,
    /// Once a month.
    Month,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Every {
    /// What stands behind the schedule's name.
    fn tick(self, now: &ZonedDateTime) -> String {
        match self {
            Self::Hour => now.strftime("%Y-%m-%dT%H").to_string(),
            Self::Day => now.strftime("%Y-%m-%d").to_string(),
            Self::Week => now.strftime("%G-W%V").to_string(),
            Self::Month => now.strftime("%Y-%m").to_string(),
        }
    }

    /// For how long a tick's record is kept, if nothing else is said: well beyond the tick, so that no
    /// host whose clock is behind runs it again, and so that records do not pile up.
    pub(super) fn ttl(self) -> Duration {
        match self {
            Self::Hour => 3 * DAY,
            Self::Day => 32 * DAY,
            Self::Week => 100 * DAY,
            Self::Month => 400 * DAY,
        }
    }
}

/// The name of the task of a schedule's present tick.
pub(super) fn name(schedule: &str, every: Every, zone: &str) -> Result<String, String> {
    let zone = zone_of(zone)?;
    Ok(format!(
        "{schedule}@{}",
        every.tick(&ZonedDateTime::now().with_time_zone(zone))
    ))
}

fn zone_of(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        format!(
            "{name:?} is no time zone: use a name of the IANA database, as UTC or Europe/Berlin"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(every: Every, at: &str, zone: &str) -> String {
        let at: jiff::Timestamp = at.parse().unwrap();
        every.tick(&ZonedDateTime::new(at, zone_of(zone).unwrap()))
    }

    #[test]
    fn ticks_are_civil() {
        let late = "2024-12-30T23:30:00Z";
        assert_eq!(tick(Every::Hour, late, "UTC"), "2024-12-30T23");
        assert_eq!(tick(Every::Day, late, "UTC"), "2024-12-30");
        assert_eq!(tick(Every::Day, late, "Europe/Berlin"), "2024-12-31");
        assert_eq!(tick(Every::Week, late, "UTC"), "2025-W01");
        assert_eq!(tick(Every::Month, late, "UTC"), "2024-12");
    }

    #[test]
    fn an_hour_that_is_repeated_is_one_tick() {
        let first = tick(Every::Hour, "2024-10-27T00:30:00Z", "Europe/Berlin");
        let second = tick(Every::Hour, "2024-10-27T01:30:00Z", "Europe/Berlin");
        assert_eq!((&*first, &*second), ("2024-10-27T02", "2024-10-27T02"));
    }

    #[test]
    fn a_zone_that_is_none_is_refused() {
        assert!(name("a", Every::Day, "Mars/Olympus").is_err());
        assert!(name("a", Every::Day, "Europe/Zurich").is_ok());
    }
}
