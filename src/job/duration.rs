//! Durations as people write them: `90s`, `1h30m`, `1.5h`, `7d`.

use std::time::Duration;

/// Of each unit, in milliseconds. The longer spelling of two that begin alike comes first.
const UNITS: [(&str, f64); 6] = [
    ("ms", 1.0),
    ("s", 1_000.0),
    ("m", 60_000.0),
    ("h", 3_600_000.0),
    ("d", 86_400_000.0),
    ("w", 604_800_000.0),
];

/// Longer ones are taken for mistakes.
const DAYS_MAX: f64 = 36_500.0;

/// Reads one or several numbers, each with its unit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let bad = || {
        format!(
            "{text:?} is no duration: write numbers with units, as in 90s, 1h30m or 7d (ms, s, m, h, d, w)"
        )
    };
    let mut rest = text;
    let mut ms = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, behind) = rest.split_at(digits.ok_or_else(bad)?);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let unit = UNITS.iter().find(|(unit, _)| behind.starts_with(unit));
        let (unit, unit_ms) = unit.ok_or_else(bad)?;
        ms += number * unit_ms;
        rest = &behind[unit.len()..];
    }
    if ms > DAYS_MAX * 86_400_000.0 {
        return Err(format!("{text:?} is longer than a hundred years"));
    }
    if ms < 1.0 {
        return Err(format!(
            "{text:?} is no time at all: a duration has at least 1ms"
        ));
    }
    Ok(Duration::from_millis(ms.round() as u64))
}

/// Writes it as [`parse`] reads it.
pub(crate) fn format(duration: Duration) -> String {
    let mut ms = duration.as_millis() as u64;
    let mut text = String::new();
    for (unit, unit_ms) in UNITS[..4].iter().rev() {
        let count = ms / *unit_ms as u64;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            ms %= *unit_ms as u64;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (text, ms) in [
            ("1h", 3_600_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("1m", 60_000),
            ("1w1d", 691_200_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["24h", "1h30m", "2s500ms"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "1",
            "h",
            "1 h",
            "-1h",
            "1y",
            "1.2.3s",
            "0s",
            "1e9h",
            "99999999w",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
