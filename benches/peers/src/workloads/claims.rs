//! Claims of fresh slots: how long one takes, and how many are made at once.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use anyhow::Result;

use super::{bar, median, shown};
use crate::load::{self, Load};
use crate::ours::Slots;
use crate::plan::value;
use crate::report::chart::{Chart, Scale};
use crate::report::format;
use crate::report::section::{Better, ETCD, Figure, OURS, REDIS, Section, Table, losses, ratio_to};
use crate::run::Run;
use crate::samples::Samples;
use crate::systems::etcd::Etcd;
use crate::systems::raft_once::{Client, RaftOnce};
use crate::systems::redis::Redis;

/// Who is asked, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Ours(Client),
    Etcd {
        at_leader: bool,
    },
    Redis,
    /// No system at all: what the disk takes.
    Disk,
}

impl Target {
    fn system(self) -> &'static str {
        match self {
            Self::Ours(_) => OURS,
            Self::Etcd { .. } => ETCD,
            Self::Redis => REDIS,
            Self::Disk => "the disk alone",
        }
    }

    fn case(self) -> &'static str {
        match self {
            Self::Ours(Client::Leader) => "in the leader",
            Self::Ours(Client::OtherVoter) => "in another voter",
            Self::Ours(Client::Observer) => "in an observer",
            Self::Etcd { at_leader: true } => "asking the leader",
            Self::Etcd { at_leader: false } => "asking another member",
            Self::Redis => "asking the one server",
            Self::Disk => "append and sync",
        }
    }
}

struct Systems {
    ours: RaftOnce,
    etcd: Option<Etcd>,
    redis: Option<Redis>,
    disk: Arc<File>,
}

impl Systems {
    async fn start(run: &mut Run) -> Result<Self> {
        let ours = RaftOnce::start(run.folder("raft-once")).await?;
        let etcd = match run.available.etcd.clone() {
            Some(program) => Some(Etcd::start(&program, run.folder("etcd")).await?),
            None => None,
        };
        let redis = match run.available.redis.clone() {
            Some(program) => Some(Redis::start(&program, run.folder("redis")).await?),
            None => None,
        };
        let disk = Arc::new(File::create(run.folder("disk"))?);
        Ok(Self {
            ours,
            etcd,
            redis,
            disk,
        })
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = vec![
            Target::Ours(Client::Leader),
            Target::Ours(Client::OtherVoter),
            Target::Ours(Client::Observer),
        ];
        if self.etcd.is_some() {
            targets.extend([true, false].map(|at_leader| Target::Etcd { at_leader }));
        }
        targets.extend(self.redis.iter().map(|_| Target::Redis));
        targets
    }

    async fn claim(&mut self, target: Target, load: Load) -> Result<Samples> {
        match target {
            Target::Ours(client) => self.ours.claim(client, load).await,
            Target::Etcd { at_leader } => match &self.etcd {
                Some(etcd) => etcd.claim(at_leader, load).await,
                None => Ok(Samples::default()),
            },
            Target::Redis => match &self.redis {
                Some(redis) => redis.claim(load).await,
                None => Ok(Samples::default()),
            },
            Target::Disk => append(self.disk.clone(), load).await,
        }
    }
}

async fn append(disk: Arc<File>, load: Load) -> Result<Samples> {
    load::run(load, move |_, _| {
        let disk = disk.clone();
        async move {
            // It blocks its thread, as it should: nothing else is running here.
            (&*disk).write_all(value().as_bytes())?;
            Ok(disk.sync_data()?)
        }
    })
    .await
}

/// A target, and what was found of it in all rounds.
type Found = Vec<(Target, Samples)>;

pub async fn measure(run: &mut Run) -> Result<Vec<Section>> {
    let mut systems = Systems::start(run).await?;
    let targets = systems.targets();
    let singly: Vec<Target> = [&targets[..], &[Target::Disk]].concat();
    let mut alone: Found = singly.iter().map(|t| (*t, Samples::default())).collect();
    let mut together: Found = targets.iter().map(|t| (*t, Samples::default())).collect();
    for round in 0..run.plan.rounds {
        for (found, clients) in [(&mut alone, 1), (&mut together, run.plan.clients)] {
            // Nobody is always the first, or after the same one.
            let count = found.len();
            found.rotate_left(round % count);
            for (target, samples) in &mut *found {
                systems.claim(*target, run.warm_up(clients)).await?;
                samples.add(systems.claim(*target, run.measure(clients)).await?);
            }
            found.rotate_right(round % count);
        }
    }
    systems.ours.stop().await;
    Ok(vec![
        latency(&alone),
        throughput(&together, run.plan.clients),
    ])
}

fn latency(found: &Found) -> Section {
    let figures: Vec<Figure> = found
        .iter()
        .filter_map(|(target, samples)| median(target.system(), target.case(), samples))
        .collect();
    let mut table = Table::new(&[
        "System",
        "Client",
        "Median",
        "p99",
        "Median to etcd's",
        "Claims",
    ]);
    let mut bars = Vec::new();
    for (figure, (_, samples)) in figures.iter().zip(found) {
        table.rows.push(vec![
            figure.system.into(),
            figure.case.clone(),
            figure.shown.clone(),
            shown(samples.p99()),
            ratio_to(ETCD, &figures, figure.value, Better::Lower),
            format::count(samples.count()),
        ]);
        bars.push(bar(figure, samples.p99()));
    }
    Section {
        title: "A claim of a fresh slot, one client".into(),
        text: format!(
            "One claim after another, each of a slot that nobody has claimed before. A slot of \
             raft-once is {}; of etcd a key, put by a transaction if its version is 0; of Redis a \
             key, by `SET NX`. Everything is on disk when it is acknowledged, in Redis on one. \
             mosaik has no slots: the writes of its cells are below.",
            Slots::KEPT_IN
        ),
        tables: vec![table],
        charts: vec![Chart {
            name: "claim-latency",
            title: "A claim of a fresh slot, one client".into(),
            caption: "Median; the thin line ends at the 99th percentile. Shorter is better.".into(),
            scale: Scale::Linear,
            bars,
        }],
        losses: losses("A claim from one client", &figures, Better::Lower),
        gaps: Vec::new(),
    }
}

fn throughput(found: &Found, clients: u64) -> Section {
    let figures: Vec<Figure> = found
        .iter()
        .filter_map(|(target, samples)| {
            let rate = samples.rate()?;
            Some(Figure {
                system: target.system(),
                case: target.case().into(),
                value: rate,
                shown: format::rate(rate),
            })
        })
        .collect();
    let mut table = Table::new(&[
        "System",
        "Clients",
        "Claims",
        "To etcd's",
        "Median",
        "p99",
        "Counted",
    ]);
    for (figure, (_, samples)) in figures.iter().zip(found) {
        table.rows.push(vec![
            figure.system.into(),
            figure.case.clone(),
            figure.shown.clone(),
            ratio_to(ETCD, &figures, figure.value, Better::Higher),
            shown(samples.median()),
            shown(samples.p99()),
            format::count(samples.count()),
        ]);
    }
    let title = format!("Claims of fresh slots, {clients} clients");
    Section {
        title: title.clone(),
        text: format!(
            "The same with {clients} clients, each with one claim in flight. Those of etcd and \
             Redis are in one process and have a connection each; those of raft-once are tasks of \
             the node that is named."
        ),
        tables: vec![table],
        charts: vec![Chart {
            name: "claim-throughput",
            title,
            caption: "Claims a second. Longer is better.".into(),
            scale: Scale::Linear,
            bars: figures.iter().map(|figure| bar(figure, None)).collect(),
        }],
        losses: losses(
            &format!("Claims a second from {clients} clients"),
            &figures,
            Better::Higher,
        ),
        gaps: Vec::new(),
    }
}
