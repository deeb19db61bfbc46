//! What a workload has found.

use super::chart::Chart;
use super::format;

/// The systems, by the names that the page uses.
pub const OURS: &str = "raft-once";
pub const ETCD: &str = "etcd";
pub const REDIS: &str = "Redis";
pub const MOSAIK: &str = "mosaik";

#[derive(Debug, Clone)]
pub struct Section {
    pub title: String,
    /// What was asked, and how.
    pub text: String,
    pub tables: Vec<Table>,
    pub charts: Vec<Chart>,
    /// Where a peer was better.
    pub losses: Vec<String>,
    /// What could not be measured of a peer, and why.
    pub gaps: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|cell| (*cell).into()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> = self.header.iter().map(|_| "---".into()).collect();
        let rows = self.rows.iter().map(|row| line(row));
        line(&self.header) + &line(&rule) + &rows.collect::<String>()
    }
}

/// A figure that is compared.
#[derive(Debug, Clone)]
pub struct Figure {
    pub system: &'static str,
    /// From where, or in what state.
    pub case: String,
    pub value: f64,
    /// As it is written.
    pub shown: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

/// How many times the value is of the best of `system`.
pub fn ratio_to(system: &str, figures: &[Figure], value: f64, better: Better) -> String {
    best(system, figures, better).map_or("-".into(), |best| format::times(value / best.value))
}

fn best<'a>(system: &str, figures: &'a [Figure], better: Better) -> Option<&'a Figure> {
    let of_it = figures.iter().filter(|figure| figure.system == system);
    of_it.min_by(|a, b| match better {
        Better::Lower => a.value.total_cmp(&b.value),
        Better::Higher => b.value.total_cmp(&a.value),
    })
}

/// A line for every figure of ours that is worse than the best of a peer, by more than runs differ.
pub fn losses(what: &str, figures: &[Figure], better: Better) -> Vec<String> {
    const NOISE: f64 = 1.05;
    let against = |ours: &Figure, peer: &str| {
        let best = best(peer, figures, better)?;
        let factor = match better {
            Better::Lower => ours.value / best.value,
            Better::Higher => best.value / ours.value,
        };
        let (case, shown, factor) = (&best.case, &best.shown, (factor > NOISE).then_some(factor)?);
        let factor = format::times(factor);
        Some(format!("{shown} of {peer} ({case}), {factor} as good"))
    };
    let ours = figures.iter().filter(|figure| figure.system == OURS);
    ours.filter_map(|ours| {
        let peers = [ETCD, REDIS, MOSAIK];
        let better: Vec<String> = peers
            .iter()
            .filter_map(|peer| against(ours, peer))
            .collect();
        let line = format!("{what}, {}: {} against ", ours.case, ours.shown);
        (!better.is_empty()).then(|| line + &better.join("; "))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(system: &'static str, value: f64) -> Figure {
        Figure {
            system,
            case: "here".into(),
            value,
            shown: format!("{value} ms"),
        }
    }

    #[test]
    fn only_what_is_worse_is_a_loss() {
        let figures = [
            figure(OURS, 2.0),
            figure(ETCD, 1.0),
            figure(ETCD, 9.0),
            figure(REDIS, 3.0),
        ];
        assert_eq!(
            losses("A claim", &figures, Better::Lower),
            ["A claim, here: 2 ms against 1 ms of etcd (here), 2.00× as good"]
        );
        let lost = losses("Claims", &figures, Better::Higher);
        assert!(lost.len() == 1 && lost[0].contains("9 ms of etcd") && lost[0].contains("Redis"));
        assert_eq!(ratio_to(ETCD, &figures, 2.0, Better::Lower), "2.00×");
        assert_eq!(ratio_to(MOSAIK, &figures, 2.0, Better::Lower), "-");
    }
}
