//! When a job is due: a schedule of six fields, and the civil times of a zone.
//!
//! A schedule is evaluated in civil time alone, as if there were no zones. Which of its ticks there
//! are in a zone, and at which instant each is due, is asked behind that. So a local hour that is
//! skipped has no ticks, and one that is repeated has them once, at the earlier instant: instants
//! are in the order of their ticks.

use std::cmp::Ordering;
use std::str::FromStr;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDateTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::machine::job::Tick;

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// What the six fields are, in order.
const FIELDS: &str = "seconds, minutes, hours, day of month, month, day of week";

/// Whoever sees ticks that come more often than this while looking behind skipped ones gives up: no
/// change of clocks skips more than a day.
const SKIPPED_MAX: u32 = 2 * 24 * 60 * 60;

/// A schedule in a zone.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// What croner is given for a time: civil, and nothing else.
#[derive(Clone)]
struct Civil(DateTime);

impl Schedule {
    /// Reads a schedule; the error says what is wrong with it.
    pub(crate) fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        if !text.is_ascii() || text.contains('@') {
            return Err(format!(
                "{text:?} is no schedule: write six fields, {FIELDS}"
            ));
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        if let [date] = fields[..]
            && date.contains('T')
        {
            // Somebody wants a single moment.
            let civil = date.get(..19).unwrap_or(date);
            let why = match Tick::from_str(civil) {
                Err(error) => format!("{error}; and "),
                Ok(_) => String::new(),
            };
            return Err(format!(
                "{why}a schedule is no date: write six fields, {FIELDS}"
            ));
        }
        match fields.len() {
            6 => {}
            5 => {
                return Err(format!(
                    "{text:?} has five fields: seconds come first here ({FIELDS}); for the same \
                     times write \"0 {}\"",
                    fields.join(" ")
                ));
            }
            count => {
                return Err(format!(
                    "{text:?} has {count} fields: a schedule has six, {FIELDS}"
                ));
            }
        }
        for (at, field) in fields.iter().enumerate() {
            check_names(at, field)?;
        }
        if fields[0].split([',', '-', '/']).any(|part| part == "60") {
            return Err(
                "the second 60 is a leap second, which schedules do not have: use 0 to 59".into(),
            );
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Required)
            .year(Year::Disallowed);
        let cron = parser.build().parse(text);
        let cron = cron.map_err(|error| format!("{text:?} is no schedule: {error}"))?;
        Ok(Self { cron, zone })
    }

    /// The first tick behind this one, if there is any.
    pub(crate) fn next(&self, after: Tick) -> Option<Tick> {
        let mut at = Civil(civil(after)?);
        for _ in 0..SKIPPED_MAX {
            at = self.cron.find_next_occurrence(&at, false).ok()?;
            if self.exists(at.0) {
                return tick(at.0);
            }
        }
        None
    }

    /// The last tick that is due by now.
    pub(crate) fn last_due(&self, now: Timestamp) -> Option<Tick> {
        let mut at = Civil(latest_civil(&self.zone, now));
        let mut is_inclusive = true;
        for _ in 0..SKIPPED_MAX {
            at = self.cron.find_previous_occurrence(&at, is_inclusive).ok()?;
            if self.exists(at.0) {
                return tick(at.0);
            }
            is_inclusive = false;
        }
        None
    }

    /// The tick before this one.
    pub(crate) fn previous(&self, before: Tick) -> Option<Tick> {
        let mut at = Civil(civil(before)?);
        for _ in 0..SKIPPED_MAX {
            at = self.cron.find_previous_occurrence(&at, false).ok()?;
            if self.exists(at.0) {
                return tick(at.0);
            }
        }
        None
    }

    /// When a tick is due: where the clocks show it twice, the first time.
    pub(crate) fn due(&self, tick: Tick) -> Option<Timestamp> {
        let at = self.zone.to_ambiguous_timestamp(civil(tick)?);
        at.earlier().ok()
    }

    fn exists(&self, civil: DateTime) -> bool {
        let at = self.zone.to_ambiguous_timestamp(civil);
        !matches!(at.offset(), AmbiguousOffset::Gap { .. })
    }
}

/// The last civil time of a zone that has come, as a tick, whether any schedule has it or not.
pub(crate) fn tick_at(zone: &TimeZone, now: Timestamp) -> Option<Tick> {
    tick(latest_civil(zone, now))
}

/// The last civil time whose instant is not behind `now`: later than what the clocks show, when they
/// were set back and show what they have shown already.
fn latest_civil(zone: &TimeZone, now: Timestamp) -> DateTime {
    let shown = zone.to_datetime(now);
    // The instant of a change belongs to what is behind it.
    let behind = now
        .checked_add(jiff::SignedDuration::from_nanos(1))
        .unwrap_or(now);
    let changed = zone.preceding(behind).next();
    let before = changed.and_then(|change| {
        let last = change
            .timestamp()
            .checked_sub(jiff::SignedDuration::from_secs(1))
            .ok()?;
        Some(zone.to_datetime(last))
    });
    before.map_or(shown, |before| before.max(shown))
}

/// Names stand alone, and where they belong: the library would read `JAN` anywhere, and `1JAN` as 11.
fn check_names(at: usize, field: &str) -> Result<(), String> {
    let names: &[&str] = match at {
        4 => &MONTHS,
        5 => &DAYS,
        _ => &[],
    };
    for part in field.split([',', '-', '/']) {
        let part = part.to_ascii_uppercase();
        let plain = match at {
            // The last day, the nearest weekday; the last one of the month, the nth.
            3 => part.trim_matches(['L', 'W']),
            5 => part
                .split('#')
                .next()
                .unwrap_or("")
                .trim_end_matches('L')
                .trim_start_matches('+'),
            _ => &part,
        };
        if plain.bytes().any(|byte| byte.is_ascii_alphabetic()) && !names.contains(&plain) {
            return Err(match at {
                4 | 5 => format!("{field:?} has a name that is none of {}", names.join(", ")),
                _ => format!("{field:?} has letters in a field of numbers"),
            });
        }
    }
    Ok(())
}

fn civil(tick: Tick) -> Option<DateTime> {
    let (year, month, day, hour, minute, second) = tick.fields();
    let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(|n| n as i8);
    DateTime::new(year as i16, month, day, hour, minute, second, 0).ok()
}

fn tick(at: DateTime) -> Option<Tick> {
    let [month, day, hour, minute, second] =
        [at.month(), at.day(), at.hour(), at.minute(), at.second()].map(|n| n as u8);
    Tick::new(at.year().try_into().ok()?, month, day, hour, minute, second)
}

impl CronDateTime for Civil {
    fn to_civil(&self) -> CivilDateTime {
        let [month, day, hour, minute, second] = [
            self.0.month(),
            self.0.day(),
            self.0.hour(),
            self.0.minute(),
            self.0.second(),
        ]
        .map(|n| n as u32);
        CivilDateTime::from_ymd_hms_opt(self.0.year().into(), month, day, hour, minute, second)
            .expect("both are of the Gregorian calendar, without leap seconds")
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(self.0.weekday().to_sunday_zero_offset() as u32)
    }

    fn resolve_civil(&self, at: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let year = i16::try_from(at.year()).map_err(|_| CronError::InvalidDate)?;
        let [month, day, hour, minute, second] =
            [at.month(), at.day(), at.hour(), at.minute(), at.second()].map(|n| n as i8);
        let at = DateTime::new(year, month, day, hour, minute, second, 0);
        Ok(Resolution::Single(Self(
            at.map_err(|_| CronError::InvalidDate)?,
        )))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        let duration = jiff::SignedDuration::from_secs(seconds);
        self.0.checked_add(duration).ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str, zone: &str) -> Schedule {
        Schedule::parse(text, TimeZone::get(zone).unwrap()).unwrap()
    }

    fn error(text: &str) -> String {
        Schedule::parse(text, TimeZone::UTC).unwrap_err()
    }

    fn ticks(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
        let mut at: Tick = after.parse().unwrap();
        let mut ticks = Vec::new();
        for _ in 0..count {
            at = schedule.next(at).unwrap();
            ticks.push(at.to_string());
        }
        ticks
    }

    fn last_due(schedule: &Schedule, now: &str) -> String {
        let due = schedule.last_due(now.parse().unwrap());
        due.unwrap().to_string()
    }

    fn due(schedule: &Schedule, tick: &str) -> String {
        schedule.due(tick.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn seconds_come_first_and_names_are_known() {
        let noon = schedule("0 0 12 * * MON-FRI", "UTC");
        assert_eq!(
            ticks(&noon, "2024-01-05T11:59:59", 3),
            [
                "2024-01-05T12:00:00",
                "2024-01-08T12:00:00",
                "2024-01-09T12:00:00"
            ]
        );
        let often = schedule("*/20 * * * jan sun,1", "UTC");
        assert_eq!(
            ticks(&often, "2023-12-31T23:59:50", 2),
            ["2024-01-01T00:00:00", "2024-01-01T00:00:20"]
        );
    }

    #[test]
    fn month_ends_and_leap_days_are_those_of_the_calendar() {
        assert_eq!(
            ticks(&schedule("0 0 1 31 * *", "UTC"), "2024-01-31T01:00:00", 2),
            ["2024-03-31T01:00:00", "2024-05-31T01:00:00"]
        );
        assert_eq!(
            ticks(&schedule("0 0 1 L * *", "UTC"), "2024-01-31T01:00:00", 2),
            ["2024-02-29T01:00:00", "2024-03-31T01:00:00"]
        );
        assert_eq!(
            ticks(&schedule("0 0 0 29 2 *", "UTC"), "2096-02-29T00:00:00", 1),
            ["2104-02-29T00:00:00"],
            "2100 is no leap year"
        );
    }

    #[test]
    fn a_skipped_hour_has_no_ticks() {
        let daily = schedule("0 30 2 * * *", "Europe/Berlin");
        assert_eq!(
            ticks(&daily, "2024-03-30T02:00:00", 2),
            ["2024-03-30T02:30:00", "2024-04-01T02:30:00"]
        );
        assert_eq!(
            last_due(&daily, "2024-03-31T10:00:00Z"),
            "2024-03-30T02:30:00"
        );
        let every = schedule("0 */30 * * * *", "Europe/Berlin");
        assert_eq!(
            ticks(&every, "2024-03-31T01:00:00", 2),
            ["2024-03-31T01:30:00", "2024-03-31T03:00:00"]
        );
        assert_eq!(
            last_due(&every, "2024-03-31T01:00:00Z"),
            "2024-03-31T03:00:00"
        );
        assert_eq!(
            last_due(&every, "2024-03-31T00:59:59Z"),
            "2024-03-31T01:30:00"
        );
    }

    #[test]
    fn a_repeated_hour_has_its_ticks_once_the_first_time() {
        let every = schedule("0 */30 * * * *", "Europe/Berlin");
        assert_eq!(
            ticks(&every, "2024-10-27T02:00:00", 2),
            ["2024-10-27T02:30:00", "2024-10-27T03:00:00"]
        );
        assert_eq!(due(&every, "2024-10-27T02:30:00"), "2024-10-27T00:30:00Z");
        // The clocks show 02:10 again: 02:30 was due before.
        assert_eq!(
            last_due(&every, "2024-10-27T01:10:00Z"),
            "2024-10-27T02:30:00"
        );
        assert_eq!(
            last_due(&every, "2024-10-27T00:10:00Z"),
            "2024-10-27T02:00:00"
        );
        // What is created or resumed then has nothing behind it that was due already.
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let after = tick_at(&zone, "2024-10-27T01:10:00Z".parse().unwrap());
        let next = every.next(after.unwrap()).unwrap();
        assert_eq!(next.to_string(), "2024-10-27T03:00:00");
        assert_eq!(due(&every, "2024-10-27T03:00:00"), "2024-10-27T02:00:00Z");
        assert_eq!(
            last_due(&every, "2024-10-27T02:00:00Z"),
            "2024-10-27T03:00:00"
        );
    }

    #[test]
    fn ticks_and_their_instants_are_in_one_order() {
        for (zone, from) in [
            ("Europe/Berlin", "2024-10-26T22:00:00"),
            ("America/New_York", "2024-03-09T22:00:00"),
            ("Australia/Lord_Howe", "2024-04-06T22:00:00"),
        ] {
            let every = schedule("0 */7 * * * *", zone);
            let mut at: Tick = from.parse().unwrap();
            let mut before = every.due(at).unwrap();
            for _ in 0..100 {
                let next = every.next(at).unwrap();
                let due = every.due(next).unwrap();
                assert!(next > at && due > before, "{zone}: {next}");
                assert_eq!(every.last_due(due), Some(next), "{zone}");
                (at, before) = (next, due);
            }
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_words() {
        assert!(error("0 12 * * *").contains("seconds come first"));
        assert!(error("0 12 * * *").contains("\"0 0 12 * * *\""));
        assert!(error("0 0 12 * * * 2024").contains("7 fields"));
        assert!(error("60 0 12 * * *").contains("leap second"));
        assert!(error("2016-12-31T23:59:60Z").contains("leap second"));
        assert!(error("2016-12-31T23:59:59Z").contains("no date"));
        assert!(error("0 0 12 * 1JAN *").contains("none of JAN"));
        assert!(error("0 0 12 * MON *").contains("none of JAN"));
        assert!(error("0 0 JAN * * *").contains("letters"));
        for text in [
            "",
            "@daily",
            "0 0 25 * * *",
            "0 0 12 32 * *",
            "0 0 12 * * 8",
            "é 0 12 * * *",
        ] {
            error(text);
        }
    }

    #[test]
    fn what_is_never_due_has_no_tick() {
        let never = schedule("0 0 0 31 2 *", "UTC");
        assert_eq!(never.next("2024-01-01T00:00:00".parse().unwrap()), None);
    }
}
