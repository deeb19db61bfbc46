//! What a network takes that nobody uses: memory and processor, empty and with decided cells.

use std::time::Duration;

use anyhow::Result;

use super::bar;
use crate::proc;
use crate::report::chart::{Chart, Scale};
use crate::report::format;
use crate::report::section::{Better, ETCD, Figure, MOSAIK, OURS, REDIS, Section, Table, losses};
use crate::run::Run;
use crate::systems::etcd::Etcd;
#[cfg(feature = "mosaik")]
use crate::systems::mosaik::Mosaik;
use crate::systems::raft_once::RaftOnce;
use crate::systems::redis::Redis;

struct Systems {
    /// One for cells, each of which is a group, and one for slots of a map.
    cells: RaftOnce,
    slots: RaftOnce,
    etcd: Option<Etcd>,
    redis: Option<Redis>,
    #[cfg(feature = "mosaik")]
    mosaik: Option<Mosaik>,
    /// What could not be started or filled, and why.
    gaps: Vec<String>,
}

/// A system at rest.
#[derive(Debug, Clone)]
struct Rest {
    system: &'static str,
    processes: usize,
    /// What it holds in the end, and how many.
    kind: &'static str,
    held: u64,
    /// Of one process, on average.
    memory: f64,
    /// Of all processes together, in cores.
    processor: f64,
}

impl Systems {
    async fn start(run: &mut Run) -> Result<Self> {
        let cells = RaftOnce::start(run.folder("raft-once")).await?;
        let slots = RaftOnce::start(run.folder("raft-once")).await?;
        let etcd = match run.available.etcd.clone() {
            Some(program) => Some(Etcd::start(&program, run.folder("etcd")).await?),
            None => None,
        };
        let redis = match run.available.redis.clone() {
            Some(program) => Some(Redis::start(&program, run.folder("redis")).await?),
            None => None,
        };
        let mut gaps = Vec::new();
        // Its failures are its own: they must not take the figures of others with them.
        #[cfg(feature = "mosaik")]
        let mosaik = match run.available.mosaik {
            true => {
                let mosaik = Mosaik::start(&run.folder("mosaik")).await;
                let note = |error: &_| gaps.push(format!("mosaik at rest: {error:#}"));
                mosaik.inspect_err(note).ok()
            }
            false => None,
        };
        Ok(Self {
            cells,
            slots,
            etcd,
            redis,
            #[cfg(feature = "mosaik")]
            mosaik,
            gaps,
        })
    }

    /// Each system, the kind of what it holds, and its processes.
    fn processes(&self) -> Vec<(&'static str, &'static str, Vec<u32>)> {
        let mut all = vec![
            (OURS, CELLS, self.cells.ids()),
            (OURS, SLOTS, self.slots.ids()),
        ];
        all.extend(self.etcd.iter().map(|etcd| (ETCD, KEYS, etcd.ids())));
        all.extend(self.redis.iter().map(|redis| (REDIS, KEYS, redis.ids())));
        #[cfg(feature = "mosaik")]
        all.extend(
            self.mosaik
                .iter()
                .map(|mosaik| (MOSAIK, CELLS, mosaik.ids())),
        );
        all
    }

    /// All of them at the same time: each is idle, and is charged for its own processor only.
    async fn at_rest(&self, run: &Run, full: bool) -> Result<Vec<Rest>> {
        tokio::time::sleep(run.plan.settle).await;
        let used =
            |ids: &[u32]| -> Result<Duration> { ids.iter().map(|id| proc::processor(*id)).sum() };
        let processes = self.processes();
        let before: Vec<Duration> = processes
            .iter()
            .map(|(_, _, ids)| used(ids))
            .collect::<Result<_>>()?;
        tokio::time::sleep(run.plan.watch).await;
        let mut all = Vec::new();
        for ((system, kind, ids), before) in processes.into_iter().zip(before) {
            let processor = used(&ids)?.saturating_sub(before);
            let memory: u64 = ids
                .iter()
                .map(|id| proc::resident(*id))
                .sum::<Result<_>>()?;
            all.push(Rest {
                system,
                processes: ids.len(),
                kind,
                held: if full { held(run, system, kind) } else { 0 },
                memory: memory as f64 / ids.len() as f64,
                processor: processor.as_secs_f64() / run.plan.watch.as_secs_f64(),
            });
        }
        Ok(all)
    }

    /// Decided cells, held by every node; in etcd and Redis, which hold all they know, keys.
    async fn fill(&mut self, run: &mut Run) -> Result<()> {
        let count = run.plan.held_cells;
        let first = run.numbers(count);
        self.cells.hold(first, count).await?;
        let (count, clients) = (run.plan.held_slots, run.plan.clients);
        self.slots.fill(run.all(count, clients)).await?;
        if let Some(etcd) = &self.etcd {
            etcd.fill(run.all(count, clients)).await?;
        }
        if let Some(redis) = &self.redis {
            redis.fill(run.all(count, clients)).await?;
        }
        #[cfg(feature = "mosaik")]
        if let Some(mosaik) = &mut self.mosaik
            && let Err(error) = fill_mosaik(run, mosaik).await
        {
            self.mosaik = None;
            self.gaps.push(format!("mosaik at rest: {error:#}"));
        }
        Ok(())
    }
}

#[cfg(feature = "mosaik")]
async fn fill_mosaik(run: &mut Run, mosaik: &mut Mosaik) -> Result<()> {
    let count = run.plan.mosaik_cells;
    let load = run.all(count, count);
    mosaik.open(load).await?;
    mosaik.follow(load.first, count).await?;
    mosaik.write(true, load).await?;
    mosaik.known(load.first, count).await
}

pub async fn measure(run: &mut Run) -> Result<Vec<Section>> {
    let mut systems = Systems::start(run).await?;
    let empty = systems.at_rest(run, false).await?;
    systems.fill(run).await?;
    let full = systems.at_rest(run, true).await?;
    systems.cells.stop().await;
    systems.slots.stop().await;
    Ok(vec![section(run, &empty, &full, systems.gaps)])
}

const CELLS: &str = "cells";
const SLOTS: &str = "slots of a map";
const KEYS: &str = "keys";

fn held(run: &Run, system: &str, kind: &str) -> u64 {
    match (system, kind) {
        (MOSAIK, _) => run.plan.mosaik_cells,
        (_, CELLS) => run.plan.held_cells,
        _ => run.plan.held_slots,
    }
}

fn section(run: &Run, empty: &[Rest], full: &[Rest], gaps: Vec<String>) -> Section {
    let mut table = Table::new(&[
        "System",
        "Processes",
        "Memory of one, empty",
        "Decided",
        "Memory of one, with them",
        "Of each",
        "Processor of all, empty",
        "Processor of all, with them",
    ]);
    for (empty, full) in empty.iter().zip(full) {
        table.rows.push(vec![
            empty.system.into(),
            empty.processes.to_string(),
            format::bytes(empty.memory),
            format!("{} {}", full.held, full.kind),
            format::bytes(full.memory),
            format::bytes((full.memory - empty.memory).max(0.0) / full.held as f64),
            format::percent(empty.processor),
            format::percent(full.processor),
        ]);
    }
    let memory = |rest: &Rest, case: &str| Figure {
        system: rest.system,
        case: case.into(),
        value: rest.memory,
        shown: format::bytes(rest.memory),
    };
    // A node that will hold slots is no other one before it does.
    let nodes = empty.iter().filter(|rest| rest.kind != SLOTS);
    let nodes: Vec<Figure> = nodes.map(|rest| memory(rest, "empty")).collect();
    let each: Vec<Figure> = empty
        .iter()
        .zip(full)
        .map(|(empty, full)| {
            let bytes = (full.memory - empty.memory).max(0.0) / full.held as f64;
            Figure {
                system: full.system,
                case: format!("of {} {}", full.held, full.kind),
                value: bytes,
                shown: format::bytes(bytes),
            }
        })
        .collect();
    let processor: Vec<Figure> = full
        .iter()
        .map(|rest| Figure {
            system: rest.system,
            case: format!("{} {}", rest.held, rest.kind),
            value: rest.processor,
            shown: format::percent(rest.processor),
        })
        .collect();
    let mut losses_of_all = losses("Memory of a node", &nodes, Better::Lower);
    losses_of_all.extend(losses("Memory of something decided", &each, Better::Lower));
    losses_of_all.extend(losses("Processor at rest", &processor, Better::Lower));
    let with = full
        .iter()
        .map(|rest| memory(rest, &format!("{} {}", rest.held, rest.kind)));
    let (settle, watch) = (run.plan.settle.as_secs(), run.plan.watch.as_secs());
    Section {
        title: "At rest".into(),
        text: format!(
            "Resident memory of a server process, on average, and the share of one core that all \
             of its processes together take over {watch} s, {settle} s after they were last used. \
             Cells are decided, and every node of raft-once and mosaik holds a handle on each of \
             them; slots of a map and keys are decided, and nobody holds anything. Only nodes of \
             one kind of content are comparable. The relay server that mosaik needs is not \
             counted. Below 0.1 % the clock of the kernel sees nothing."
        ),
        tables: vec![table],
        charts: vec![Chart {
            name: "memory",
            title: "Resident memory of one node".into(),
            caption: "Shorter is better.".into(),
            scale: Scale::Linear,
            bars: nodes
                .into_iter()
                .chain(with)
                .map(|figure| bar(&figure, None))
                .collect(),
        }],
        losses: losses_of_all,
        gaps,
    }
}
