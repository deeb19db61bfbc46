//! A nominal civil date and time: what a schedule's ticks are named by. It is no instant.

use std::fmt;
use std::str::FromStr;

use crate::codec::{Decode, Encode};

/// Years beyond these are taken for mistakes.
const YEAR_MIN: u16 = 1970;
const YEAR_MAX: u16 = 4999;

/// How many bits stand for month, day, hour, minute and second.
const BITS: [u32; 5] = [4, 5, 5, 6, 6];

/// A civil date and time to the second, without a zone: `2024-01-01T12:00:00`.
///
/// Ordered as the time is. In one zone it is one tick of one schedule, even if the clocks show it
/// twice, when they are set back.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Tick(u64);

impl Tick {
    /// `None` if there is no such date or time. A leap second is none.
    pub fn new(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Option<Self> {
        let is_time = hour < 24 && minute < 60 && second < 60;
        let is_day = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
        if !is_time || !is_day || !(YEAR_MIN..=YEAR_MAX).contains(&year) {
            return None;
        }
        let fields = [month, day, hour, minute, second].into_iter().zip(BITS);
        Some(Self(
            fields.fold(u64::from(year), |packed, (field, bits)| {
                packed << bits | u64::from(field)
            }),
        ))
    }

    /// Year, month, day, hour, minute, second.
    pub fn fields(self) -> (u16, u8, u8, u8, u8, u8) {
        let mut packed = self.0;
        let mut take = |bits: u32| {
            let field = packed & ((1 << bits) - 1);
            packed >>= bits;
            field as u8
        };
        let [second, minute, hour, day, month] = [6, 6, 5, 5, 4].map(&mut take);
        (packed as u16, month, day, hour, minute, second)
    }

    /// The civil time in UTC, this many milliseconds behind the Unix epoch.
    pub(crate) fn of_utc(ms: u64) -> Option<Self> {
        let seconds = ms / 1_000;
        let [hour, minute, second] =
            [seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60].map(|field| field as u8);
        let mut days = seconds / (24 * 60 * 60);
        let mut year = YEAR_MIN;
        while year <= YEAR_MAX {
            for month in 1..=12 {
                let of_month = u64::from(days_of(year, month));
                if days < of_month {
                    return Self::new(year, month, days as u8 + 1, hour, minute, second);
                }
                days -= of_month;
            }
            year += 1;
        }
        None
    }

    /// It is one that [`new`](Self::new) makes.
    pub(crate) fn is_sound(self) -> bool {
        let (year, month, day, hour, minute, second) = self.fields();
        Self::new(year, month, day, hour, minute, second) == Some(self)
    }
}

fn days_of(year: u16, month: u8) -> u8 {
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, hour, minute, second) = self.fields();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )
    }
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TickError {
    /// It is written otherwise.
    #[error("a tick is a civil date and time, written as 2024-01-01T12:00:00")]
    Malformed,
    /// Its second is the 61st of a minute.
    #[error("the second 60 is a leap second, which civil schedules do not have: use 0 to 59")]
    LeapSecond,
    /// There is no such date, or time of day.
    #[error("there is no such date or time of day in the years 1970 to 4999")]
    NoSuchTime,
}

impl FromStr for Tick {
    type Err = TickError;

    fn from_str(text: &str) -> Result<Self, TickError> {
        let marks = [4, 7, 10, 13, 16].map(|at| text.as_bytes().get(at).copied());
        if text.len() != 19 || marks != [b'-', b'-', b'T', b':', b':'].map(Some) {
            return Err(TickError::Malformed);
        }
        let field = |from: usize, to: usize| {
            let digits = text.get(from..to).ok_or(TickError::Malformed)?;
            match digits.bytes().all(|byte| byte.is_ascii_digit()) {
                true => digits.parse::<u16>().map_err(|_| TickError::Malformed),
                false => Err(TickError::Malformed),
            }
        };
        let year = field(0, 4)?;
        // Two digits fit.
        let [month, day, hour, minute, second] = [
            field(5, 7)?,
            field(8, 10)?,
            field(11, 13)?,
            field(14, 16)?,
            field(17, 19)?,
        ]
        .map(|number| number as u8);
        if second == 60 {
            return Err(TickError::LeapSecond);
        }
        Self::new(year, month, day, hour, minute, second).ok_or(TickError::NoSuchTime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_read_as_it_is_written_and_ordered_as_the_time_is() {
        let texts = [
            "1970-01-01T00:00:00",
            "2024-01-31T23:59:59",
            "2024-02-29T00:00:00",
            "2024-02-29T00:00:01",
            "2024-02-29T00:01:00",
            "2024-10-27T02:30:00",
            "4999-12-31T23:59:59",
        ];
        let ticks = texts.map(|text| text.parse::<Tick>().unwrap());
        assert_eq!(ticks.map(|tick| tick.to_string()), texts);
        assert!(ticks.is_sorted() && ticks[0] > Tick::default());
        assert!(ticks.iter().all(|tick| tick.is_sound()) && !Tick::default().is_sound());
    }

    #[test]
    fn an_instant_has_a_civil_time_in_utc() {
        for (ms, text) in [
            (999, "1970-01-01T00:00:00"),
            (951_782_400_000, "2000-02-29T00:00:00"),
            (1_735_689_599_000, "2024-12-31T23:59:59"),
            (95_617_583_999_000, "4999-12-31T23:59:59"),
        ] {
            assert_eq!(Tick::of_utc(ms).unwrap().to_string(), text);
        }
        assert_eq!(Tick::of_utc(95_617_584_000_000), None);
        assert_eq!(Tick::of_utc(u64::MAX), None);
    }

    #[test]
    fn what_is_no_time_is_refused_and_a_leap_second_by_its_name() {
        let leap = "2016-12-31T23:59:60".parse::<Tick>();
        assert_eq!(leap, Err(TickError::LeapSecond));
        assert!(leap.unwrap_err().to_string().contains("leap second"));
        for text in [
            "2023-02-29T00:00:00",
            "2024-04-31T00:00:00",
            "2024-01-01T24:00:00",
        ] {
            assert_eq!(text.parse::<Tick>(), Err(TickError::NoSuchTime), "{text}");
        }
        for text in [
            "",
            "2024-01-01",
            "2024-01-01T12:00:00Z",
            "2024-01-01T12:00:+1",
            "2024/01/01T12:00:00",
        ] {
            assert_eq!(text.parse::<Tick>(), Err(TickError::Malformed), "{text}");
        }
    }
}
