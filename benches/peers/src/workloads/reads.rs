//! A read of a decided cell, beside tokio's cell of one process.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use raft_once::{Network, Once};
use tokio::sync::OnceCell;

use crate::report::format;
use crate::report::section::{Section, Table};
use crate::run::Run;

pub async fn measure(run: &mut Run) -> Result<Vec<Section>> {
    let network = Network::new("reads").await?;
    let ours = Once::<u64>::writer(&network, "cell");
    ours.write(42).await?;
    let tokios = Arc::new(OnceCell::new_with(Some(42_u64)));
    let reads = run.plan.reads;
    let mut found = [
        ("`Arc<tokio::sync::OnceCell>::get`", Vec::new()),
        ("`Once::get_ref`", Vec::new()),
        ("`Once::read`, a clone", Vec::new()),
    ];
    for _ in 0..run.plan.rounds.max(3) {
        found[0]
            .1
            .push(nanos(reads, || black_box(&tokios).get().copied()));
        found[1]
            .1
            .push(nanos(reads, || black_box(&ours).get_ref().copied()));
        found[2].1.push(nanos(reads, || black_box(&ours).read()));
    }
    network.shutdown().await;
    let mut table = Table::new(&["Read", "Median of rounds", "Least", "To tokio's"]);
    let mut medians = Vec::new();
    for (what, rounds) in &mut found {
        rounds.sort_by(f64::total_cmp);
        let median = rounds[rounds.len() / 2];
        medians.push(median);
        table.rows.push(vec![
            (*what).into(),
            format!("{median:.2} ns"),
            format!("{:.2} ns", rounds[0]),
            format::times(median / medians[0]),
        ]);
    }
    let mut losses = Vec::new();
    // Reads of less than a nanosecond differ from run to run by more than a claim does.
    if medians[1] > medians[0] * 1.2 {
        losses.push(format!(
            "A read by reference: {:.2} ns against {:.2} ns of tokio's cell, which is of one \
             process.",
            medians[1], medians[0]
        ));
    }
    Ok(vec![Section {
        title: "A read of a decided cell".into(),
        text: "In the process that holds the handle, with no network: a loop on one core.".into(),
        tables: vec![table],
        charts: Vec::new(),
        losses,
        gaps: Vec::new(),
    }])
}

fn nanos<T>(reads: u64, read: impl Fn() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..reads {
        black_box(read());
    }
    start.elapsed().as_nanos() as f64 / reads as f64
}
