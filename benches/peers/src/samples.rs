//! How long each operation of a measurement took.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};

/// What one measurement, or several put together, found.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Of each operation, in nanoseconds; in no order.
    nanos: Vec<u64>,
    /// From the first start to the last end, summed over measurements.
    elapsed: Duration,
}

impl Samples {
    pub fn new(nanos: Vec<u64>, elapsed: Duration) -> Self {
        Self { nanos, elapsed }
    }

    pub fn one(duration: Duration) -> Self {
        Self::new(vec![nanos(duration)], duration)
    }

    pub fn add(&mut self, other: Self) {
        self.nanos.extend(other.nanos);
        self.elapsed += other.elapsed;
    }

    pub fn count(&self) -> usize {
        self.nanos.len()
    }

    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    pub fn is_empty(&self) -> bool {
        self.nanos.is_empty()
    }

    pub fn median(&self) -> Option<Duration> {
        self.quantile(0.5)
    }

    /// Of fewer than a hundred, the highest.
    pub fn p99(&self) -> Option<Duration> {
        self.quantile(0.99)
    }

    pub fn max(&self) -> Option<Duration> {
        self.quantile(1.0)
    }

    /// The nearest rank: always one that was seen.
    fn quantile(&self, q: f64) -> Option<Duration> {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable();
        let rank = (q * sorted.len() as f64).ceil() as usize;
        let nanos = sorted.get(rank.saturating_sub(1))?;
        Some(Duration::from_nanos(*nanos))
    }

    /// Operations a second.
    pub fn rate(&self) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (!self.is_empty() && seconds > 0.0).then(|| self.count() as f64 / seconds)
    }

    /// As one line, for the pipe between two processes.
    pub fn to_line(&self) -> String {
        let mut line = nanos(self.elapsed).to_string();
        for nanos in &self.nanos {
            // Writing to a string does not fail.
            let _ = write!(line, " {nanos}");
        }
        line
    }

    pub fn from_line(line: &str) -> Result<Self> {
        let mut numbers = line.split(' ').map(|word| {
            let number = word.parse::<u64>();
            number.with_context(|| format!("a number of nanoseconds, but {word:?}"))
        });
        let elapsed = numbers.next().context("an empty line of samples")??;
        let nanos = numbers.collect::<Result<_>>()?;
        Ok(Self::new(nanos, Duration::from_nanos(elapsed)))
    }
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let samples = Samples::new((1..=200).rev().collect(), Duration::from_secs(2));
        assert_eq!(samples.median(), Some(Duration::from_nanos(100)));
        assert_eq!(samples.p99(), Some(Duration::from_nanos(198)));
        assert_eq!(samples.max(), Some(Duration::from_nanos(200)));
        assert_eq!(samples.rate(), Some(100.0));
        assert_eq!(Samples::default().median(), None);
        let one = Samples::one(Duration::from_nanos(7));
        assert_eq!(one.median(), one.p99());
    }

    #[test]
    fn a_line_brings_them_across() {
        let samples = Samples::new(vec![3, 1, 2], Duration::from_nanos(9));
        let there = Samples::from_line(&samples.to_line()).expect("our own line");
        assert_eq!(there.nanos, samples.nanos);
        assert_eq!(there.elapsed, samples.elapsed);
        assert!(Samples::from_line("1 x").is_err());
    }
}
