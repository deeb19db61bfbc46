//! Cells with a group of their own: opened, decided, and opened by the thousand.

use anyhow::{Result, ensure};

use super::{bar, median, shown};
use crate::report::chart::{Chart, Scale};
use crate::report::format;
use crate::report::section::{Better, Figure, MOSAIK, OURS, Section, Table, losses};
use crate::run::Run;
use crate::samples::Samples;
#[cfg(feature = "mosaik")]
use crate::systems::mosaik::Mosaik;
use crate::systems::raft_once::{Client, RaftOnce};

/// What is measured of a node.
#[derive(Default)]
struct Found {
    /// A fresh cell: opened, and decided.
    born: Samples,
    /// One cell: opened, and online.
    opened: Samples,
    /// Many cells at once: until all of them are online.
    all_opened: Samples,
    /// A first write of a cell that is open everywhere.
    written: Samples,
}

pub async fn measure(run: &mut Run) -> Result<Vec<Section>> {
    let mut ours = RaftOnce::start(run.folder("raft-once")).await?;
    let (mut voter, mut observer) = (Found::default(), Found::default());
    let mut gaps = Vec::new();
    #[cfg(feature = "mosaik")]
    let (mut leader, mut other) = (Found::default(), Found::default());
    for round in 0..run.plan.rounds {
        of_ours(run, &mut ours, Client::OtherVoter, &mut voter).await?;
        of_ours(run, &mut ours, Client::Observer, &mut observer).await?;
        #[cfg(not(feature = "mosaik"))]
        let _ = round;
        #[cfg(feature = "mosaik")]
        if run.available.mosaik && round < run.plan.mosaik_rounds {
            // Its failures are its own: they must not take the figures of others with them.
            if let Err(error) = of_mosaik(run, &mut leader, &mut other).await {
                let count = run.plan.mosaik_rounds;
                let round = round + 1;
                gaps.push(format!("mosaik, round {round} of {count}: {error:#}"));
            }
        }
    }
    ours.stop().await;
    let mut found = vec![
        (OURS, "in a voter", &voter, run.plan.opened_at_once),
        (OURS, "in an observer", &observer, run.plan.opened_at_once),
    ];
    #[cfg(feature = "mosaik")]
    if run.available.mosaik {
        found.push((
            MOSAIK,
            "in the node that opened it first",
            &leader,
            run.plan.mosaik_cells,
        ));
        found.push((MOSAIK, "in another node", &other, run.plan.mosaik_cells));
    }
    Ok(vec![section(&found, gaps)])
}

async fn of_ours(
    run: &mut Run,
    ours: &mut RaftOnce,
    client: Client,
    found: &mut Found,
) -> Result<()> {
    let load = run.all(run.plan.births, 1);
    found.born.add(ours.birth(client, load).await?);
    let load = run.all(run.plan.opened_singly, 1);
    found.opened.add(ours.open(client, load).await?);
    let count = run.plan.opened_at_once;
    let load = run.all(count, count);
    found
        .all_opened
        .add(whole(ours.open(client, load).await?, count)?);
    Ok(())
}

/// Nodes of its own in each round: its cells, once open, take memory and processor all the time.
#[cfg(feature = "mosaik")]
async fn of_mosaik(run: &mut Run, leader: &mut Found, other: &mut Found) -> Result<()> {
    let mut mosaik = Mosaik::start(&run.folder("mosaik")).await?;
    leader.opened.add(mosaik.open(run.all(1, 1)).await?);
    let count = run.plan.mosaik_cells;
    let load = run.all(count, count);
    let opened = mosaik.open(load).await?;
    leader.all_opened.add(whole(opened, count)?);
    mosaik.follow(load.first, count).await?;
    let half = count.div_ceil(2);
    for (at_leader, found, first, count) in [
        (true, leader, load.first, half),
        (false, other, load.first + half, count - half),
    ] {
        let written = mosaik.write(
            at_leader,
            crate::load::Load {
                first,
                count,
                clients: 1,
                ..load
            },
        );
        found.written.add(written.await?);
    }
    Ok(())
}

/// The time of all together, as one sample.
fn whole(samples: Samples, count: u64) -> Result<Samples> {
    ensure!(
        samples.count() as u64 == count,
        "only {} of {count} cells were opened in time",
        samples.count()
    );
    Ok(Samples::one(samples.elapsed()))
}

fn section(found: &[(&'static str, &str, &Found, u64)], gaps: Vec<String>) -> Section {
    let mut table = Table::new(&[
        "System",
        "Where",
        "What",
        "Median",
        "p99, or the longest",
        "Counted",
    ]);
    let (mut charts, mut lost) = (Vec::new(), Vec::new());
    type Pick = fn(&Found) -> &Samples;
    let picks: [(&str, &str, Pick); 4] = [
        ("a fresh cell opened and decided", "", |f| &f.born),
        ("one cell opened, until it is online", "cell-open", |f| {
            &f.opened
        }),
        ("cells opened at once, until all are online", "", |f| {
            &f.all_opened
        }),
        ("the first write of a cell that is open", "", |f| &f.written),
    ];
    for (what, chart, pick) in picks {
        let mut figures: Vec<Figure> = Vec::new();
        let mut bars = Vec::new();
        for (system, place, found, at_once) in found {
            let samples = pick(found);
            let Some(figure) = median(system, place, samples) else {
                continue;
            };
            let many = what.starts_with("cells");
            let what = if many {
                format!("{at_once} {what}")
            } else {
                what.into()
            };
            let tail = if samples.count() < 100 {
                samples.max()
            } else {
                samples.p99()
            };
            table.rows.push(vec![
                figure.system.into(),
                figure.case.clone(),
                what,
                figure.shown.clone(),
                shown(tail),
                format::count(samples.count()),
            ]);
            bars.push(bar(&figure, tail));
            figures.push(figure);
        }
        if !chart.is_empty() {
            charts.push(Chart {
                name: "cell-open",
                title: capitalised(what),
                caption: "Median; the thin line ends at the longest. Shorter is better; each line \
                          is ten times the one before."
                    .into(),
                scale: Scale::Logarithmic,
                bars,
            });
        }
        lost.extend(losses(&capitalised(what), &figures, Better::Lower));
    }
    Section {
        title: "Cells with a group of their own".into(),
        text: "A `Once` of raft-once and one of mosaik is a Raft group of its own. Those of \
               raft-once are on disk of a majority when they are decided; mosaik has nothing on \
               disk. Where cells are opened, nobody has opened them before. A cell of mosaik is \
               opened by the first node, which then leads it, and then by the two others; only \
               then is it written."
            .into(),
        tables: vec![table],
        charts,
        losses: lost,
        gaps,
    }
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(rest).collect()
}
