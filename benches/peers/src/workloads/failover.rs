//! The leader is killed during writes: how long until the next one is acknowledged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{bar, median, shown};
use crate::ours::VOTERS;
use crate::plan::value;
use crate::prober::{EVERY, Prober, now};
use crate::report::chart::{Chart, Scale};
use crate::report::format;
use crate::report::section::{Better, ETCD, Figure, OURS, Section, Table, losses, ratio_to};
use crate::run::Run;
use crate::samples::Samples;
use crate::systems::etcd::Etcd;
use crate::systems::raft_once::RaftOnce;
use crate::systems::voter;

/// Writes go on for so long before the leader is killed.
const BEFORE: Duration = Duration::from_millis(500);
/// No system takes so long.
const GIVE_UP: Duration = Duration::from_secs(20);
/// A prober never comes to the numbers of the next.
const NUMBERS: u64 = 1_000_000;

#[derive(Default)]
struct Found {
    voter: Samples,
    observer: Samples,
    etcd: Samples,
}

pub async fn measure(run: &mut Run) -> Result<Vec<Section>> {
    let mut ours = RaftOnce::start(run.folder("raft-once")).await?;
    let mut etcd = match run.available.etcd.clone() {
        Some(program) => Some(Etcd::start(&program, run.folder("etcd")).await?),
        None => None,
    };
    let mut found = Found::default();
    for _ in 0..run.plan.kills {
        kill_ours(run, &mut ours, &mut found).await?;
        if let Some(etcd) = &mut etcd {
            kill_etcd(run, etcd, &mut found).await?;
        }
    }
    ours.stop().await;
    Ok(vec![section(&found)])
}

async fn kill_ours(run: &mut Run, ours: &mut RaftOnce, found: &mut Found) -> Result<()> {
    // Whoever leads: a write makes sure that somebody does.
    ours.slots()?.claim(run.numbers(1), value()).await?;
    let leader = ours.leader().await?;
    let survivor = VOTERS.into_iter().find(|name| *name != leader);
    let survivor = survivor.context("an electorate of three")?;
    let request = format!("probe {}", run.numbers(NUMBERS));
    ours.voter(survivor)?.ask(&request).await?;
    let prober = voter::probe(ours.slots()?, run.numbers(NUMBERS));
    tokio::time::sleep(BEFORE).await;
    let killed = now();
    ours.kill(leader)?;
    let request = format!("acknowledged {killed} {}", GIVE_UP.as_millis());
    ours.voter(survivor)?.tell(&request).await?;
    found.observer.add(acknowledged(&prober, killed).await?);
    let voter = ours.voter(survivor)?;
    let answer = voter.answer(&request, GIVE_UP * 2).await?;
    let first: u64 = answer
        .parse()
        .with_context(|| format!("no write of {survivor} was acknowledged: {answer}"))?;
    found.voter.add(since(killed, first));
    drop(prober);
    ours.restart(leader).await
}

async fn kill_etcd(run: &mut Run, etcd: &mut Etcd, found: &mut Found) -> Result<()> {
    let leader = etcd.leader().await?;
    let prober = etcd.probe_without(leader, run.numbers(NUMBERS)).await?;
    tokio::time::sleep(BEFORE).await;
    let killed = now();
    etcd.kill(leader)?;
    found.etcd.add(acknowledged(&prober, killed).await?);
    drop(prober);
    etcd.restart(leader).await
}

async fn acknowledged(prober: &Prober, killed: u64) -> Result<Samples> {
    ensure!(prober.count() > 0, "nothing was ever acknowledged");
    let first = prober.first_since(killed, GIVE_UP).await;
    let first = first.with_context(|| format!("no write was acknowledged in {GIVE_UP:?}"))?;
    Ok(since(killed, first))
}

fn since(killed: u64, first: u64) -> Samples {
    Samples::one(Duration::from_nanos(first.saturating_sub(killed)))
}

fn section(found: &Found) -> Section {
    let rows = [
        (OURS, "writes from another voter", &found.voter),
        (OURS, "writes from an observer", &found.observer),
        (ETCD, "writes to the other members", &found.etcd),
    ];
    let rows = rows
        .into_iter()
        .filter(|(_, _, samples)| !samples.is_empty());
    let (mut figures, mut all) = (Vec::<Figure>::new(), Vec::new());
    for (system, case, samples) in rows {
        figures.extend(median(system, case, samples));
        all.push(samples);
    }
    let mut table = Table::new(&[
        "System",
        "From where",
        "Median",
        "Longest",
        "To etcd's",
        "Kills",
    ]);
    let mut bars = Vec::new();
    for (figure, samples) in figures.iter().zip(all) {
        table.rows.push(vec![
            figure.system.into(),
            figure.case.clone(),
            figure.shown.clone(),
            shown(samples.max()),
            ratio_to(ETCD, &figures, figure.value, Better::Lower),
            samples.count().to_string(),
        ]);
        bars.push(bar(figure, samples.max()));
    }
    Section {
        title: "The leader is killed".into(),
        text: format!(
            "SIGKILL to the leading process while a write begins every {}, whatever became of \
             those before it; the time from the kill to the first acknowledgement of a write that \
             began after it. Elections are as each system has them by default. The client of etcd \
             knows already which members are left.",
            format::duration(EVERY)
        ),
        tables: vec![table],
        charts: vec![Chart {
            name: "failover",
            title: "From the leader's death to the next acknowledged write".into(),
            caption: "Median; the thin line ends at the longest. Shorter is better.".into(),
            scale: Scale::Linear,
            bars,
        }],
        losses: losses("Time without a leader", &figures, Better::Lower),
        gaps: Vec::new(),
    }
}
