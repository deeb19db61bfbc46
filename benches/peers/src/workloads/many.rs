//! Very many cells, and very many slots of one map: what they cost where nobody uses them, what a
//! restart among them takes, and whether the next one is still as fast.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{median, shown};
use crate::ours::VOTERS;
use crate::proc;
use crate::report::format;
use crate::report::section::{Figure, OURS, Section, Table};
use crate::run::Run;
use crate::samples::Samples;
use crate::systems::raft_once::{Client, RaftOnce};

/// Slots there are before anything is measured.
const FEW: u64 = 1_000;

/// What one node takes, on average of the voters.
struct Rest {
    memory: f64,
    /// Of one core.
    processor: f64,
    /// Packets of all nodes together, in a second.
    packets: f64,
}

async fn at_rest(run: &Run, ours: &RaftOnce) -> Result<Rest> {
    tokio::time::sleep(run.plan.settle).await;
    let ids = ours.ids();
    let used = || -> Result<Duration> { ids.iter().map(|id| proc::processor(*id)).sum() };
    let (before, packets) = (used()?, proc::packets()?);
    tokio::time::sleep(run.plan.watch).await;
    let (seconds, nodes) = (run.plan.watch.as_secs_f64(), ids.len() as f64);
    let memory: u64 = ids
        .iter()
        .map(|id| proc::resident(*id))
        .sum::<Result<_>>()?;
    Ok(Rest {
        memory: memory as f64 / nodes,
        processor: (used()? - before).as_secs_f64() / nodes / seconds,
        packets: (proc::packets()? - packets) as f64 / seconds,
    })
}

pub async fn cells(run: &mut Run) -> Result<Vec<Section>> {
    let count = run.plan.many_cells;
    let mut ours = RaftOnce::start(run.folder("raft-once")).await?;
    let empty = at_rest(run, &ours).await?;
    let first = run.numbers(count);
    let began = Instant::now();
    ours.bear(first, count, run.plan.clients).await?;
    let born = began.elapsed();
    let full = at_rest(run, &ours).await?;
    let name = VOTERS[0];
    ours.kill(name)?;
    let began = Instant::now();
    ours.start_again(name).await?;
    let started = began.elapsed();
    let last = first + count - 1;
    ours.voter(name)?.ask(&format!("knows {last}")).await?;
    let serving = began.elapsed();
    ours.stop().await;
    let mut table = Table::new(&[
        "",
        "Empty",
        &format!("{count} decided cells"),
        "Of each cell",
    ]);
    let mut row = |what: &str, empty: String, full: String, each: String| {
        table.rows.push(vec![what.into(), empty, full, each]);
    };
    row(
        "Memory of a voter",
        format::bytes(empty.memory),
        format::bytes(full.memory),
        format::bytes((full.memory - empty.memory).max(0.0) / count as f64),
    );
    row(
        "Processor of a voter",
        format::percent(empty.processor),
        format::percent(full.processor),
        String::new(),
    );
    row(
        "Packets of all nodes, in a second",
        format!("{:.1}", empty.packets),
        format!("{:.1}", full.packets),
        String::new(),
    );
    row(
        "Killed and started: until it is open",
        String::new(),
        format::duration(started),
        String::new(),
    );
    row(
        "Killed and started: until it has answered for a cell",
        String::new(),
        format::duration(serving),
        String::new(),
    );
    Ok(vec![Section {
        title: "Many cells".into(),
        text: format!(
            "{count} cells are decided, each a group of its own, from all three voters with {} \
             claims in flight in each: {:.0} a second. {} s later nobody uses any of them, and all \
             nodes are looked at for {} s. Then a voter is killed and started again, on a log that \
             ends where it was killed.",
            run.plan.clients,
            count as f64 / born.as_secs_f64(),
            run.plan.settle.as_secs(),
            run.plan.watch.as_secs(),
        ),
        tables: vec![table],
        charts: Vec::new(),
        losses: Vec::new(),
        gaps: Vec::new(),
    }])
}

pub async fn slots(run: &mut Run) -> Result<Vec<Section>> {
    let mut ours = RaftOnce::start(run.folder("raft-once")).await?;
    let clients = run.plan.clients;
    let mut few = [Samples::default(), Samples::default()];
    let mut many = [Samples::default(), Samples::default()];
    ours.fill(run.all(FEW, clients)).await?;
    claims(run, &mut ours, &mut few).await?;
    let began = Instant::now();
    let (first, count) = (run.numbers(run.plan.many_slots), run.plan.many_slots);
    ours.claim_all(first, count, clients).await?;
    let filled = began.elapsed();
    claims(run, &mut ours, &mut many).await?;
    let memory: u64 = ours
        .ids()
        .iter()
        .map(|id| proc::resident(*id))
        .sum::<Result<_>>()?;
    ours.stop().await;
    let mut table = Table::new(&[
        "Claims of fresh slots, in the leader",
        &format!("{FEW} slots"),
        &format!("{count} slots"),
        "Ratio",
    ]);
    let cases = [
        ("by one client, median", 1),
        ("by all clients, a second", clients),
    ];
    for (n, (case, clients)) in cases.into_iter().enumerate() {
        let (few, many) = (&few[n], &many[n]);
        let (shown_few, shown_many, ratio) = match clients {
            1 => {
                let of = |samples: &Samples| median(OURS, case, samples).context("no claims");
                let (few, many): (Figure, Figure) = (of(few)?, of(many)?);
                (few.shown, many.shown, many.value / few.value)
            }
            _ => {
                let of = |samples: &Samples| samples.rate().context("no claims");
                let (few, many) = (of(few)?, of(many)?);
                (format::rate(few), format::rate(many), few / many)
            }
        };
        table.rows.push(vec![
            case.into(),
            shown_few,
            shown_many,
            format!("{ratio:.2}×"),
        ]);
    }
    table.rows.push(vec![
        "longest, by one client".into(),
        shown(few[0].max()),
        shown(many[0].max()),
        String::new(),
    ]);
    table.rows.push(vec![
        "memory of a voter".into(),
        String::new(),
        format::bytes(memory as f64 / VOTERS.len() as f64),
        String::new(),
    ]);
    Ok(vec![Section {
        title: "Many slots".into(),
        text: format!(
            "What a claim costs in a map of {FEW} slots and in one of {count}. The map was filled \
             by {clients} claims in flight in each voter: {:.0} a second.",
            count as f64 / filled.as_secs_f64(),
        ),
        tables: vec![table],
        charts: Vec::new(),
        losses: Vec::new(),
        gaps: Vec::new(),
    }])
}

async fn claims(run: &mut Run, ours: &mut RaftOnce, into: &mut [Samples; 2]) -> Result<()> {
    let all = run.plan.clients;
    for _ in 0..run.plan.rounds {
        for (n, clients) in [(0, 1), (1, all)] {
            ours.claim(Client::Leader, run.warm_up(clients)).await?;
            into[n].add(ours.claim(Client::Leader, run.measure(clients)).await?);
        }
    }
    Ok(())
}
