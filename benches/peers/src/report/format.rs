//! Figures as people read them.

use std::time::Duration;

/// Three digits that count.
pub fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    let (value, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", digits(value))
}

pub fn bytes(bytes: f64) -> String {
    let (value, unit) = match bytes.abs() {
        b if b < 1024.0 => (bytes, "B"),
        b if b < 1024.0 * 1024.0 => (bytes / 1024.0, "KiB"),
        _ => (bytes / 1024.0 / 1024.0, "MiB"),
    };
    format!("{} {unit}", digits(value))
}

pub fn rate(rate: f64) -> String {
    format!("{}/s", digits(rate))
}

pub fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

pub fn times(ratio: f64) -> String {
    format!("{}×", digits(ratio))
}

pub fn count(count: usize) -> String {
    grouped(&count.to_string())
}

/// Three digits that count, with thousands apart.
pub fn digits(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let decimals = match value.abs() {
        v if v < 0.995 => 3,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if decimals > 0 {
        return text;
    }
    let (sign, number) = match text.strip_prefix('-') {
        Some(number) => ("-", number),
        None => ("", &*text),
    };
    format!("{sign}{}", grouped(number))
}

fn grouped(number: &str) -> String {
    let mut grouped = String::new();
    for (n, digit) in number.chars().enumerate() {
        if n > 0 && (number.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(duration(Duration::from_nanos(270_400)), "270 µs");
        assert_eq!(duration(Duration::from_nanos(999_960)), "1,000 µs");
        assert_eq!(duration(Duration::from_micros(5_812_345)), "5.81 s");
        assert_eq!(rate(115_234.0), "115,234/s");
        assert_eq!(bytes(1.3 * 1024.0 * 1024.0), "1.30 MiB");
        assert_eq!(digits(-1234.0), "-1,234");
        assert_eq!(count(98), "98");
        assert_eq!(digits(0.35), "0.350");
        assert_eq!(digits(f64::NAN), "-");
    }
}
