//! Random crashes, power cuts, slow disks and cut links under voters that decide cells, fall asleep
//! and wake: no two values, no acknowledged value lost, and everyone agrees when all is healed.
//!
//! `RAFT_ONCE_CRASH_SEEDS=500` runs more seeds than the few of an ordinary run.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::cluster::{Cluster, propose_aside};
use super::*;

const SEEDS: u64 = 16;
const STEPS: usize = 120;
const GROUPS: u8 = 5;

/// What a run has to have played to count.
#[derive(Debug, Default)]
struct Played {
    power_cuts: usize,
    kills: usize,
    held: usize,
    cuts: usize,
    acknowledged: usize,
    unclear: usize,
    slept: u64,
}

struct Run {
    seed: u64,
    cluster: Cluster,
    chance: StdRng,
    /// By group: the one value that anybody was told.
    told: BTreeMap<GroupId, u8>,
    offered: u8,
    waiting: Vec<(GroupId, tokio::task::JoinHandle<Option<Reply>>)>,
    played: Played,
}

impl Run {
    fn told(&mut self, group: GroupId, value: u8) {
        let known = *self.told.entry(group).or_insert(value);
        assert_eq!(known, value, "seed {}: two values of {group:?}", self.seed);
    }

    /// What all voters that are up hold, and what was answered.
    async fn look(&mut self) {
        let mut seen = Vec::new();
        for node in self.cluster.up() {
            node.directory().for_all(|group| {
                if let Some(record) = group.view.record() {
                    seen.push((group.id(), record.proposal.value[0]));
                }
            });
        }
        for (group, handle) in std::mem::take(&mut self.waiting) {
            if !handle.is_finished() {
                self.waiting.push((group, handle));
                continue;
            }
            match handle.await.unwrap() {
                Some(reply) => {
                    self.played.acknowledged += 1;
                    seen.push((group, value(&reply)));
                }
                None => self.played.unclear += 1,
            }
        }
        for (group, value) in seen {
            self.told(group, value);
        }
    }

    fn any(&mut self) -> usize {
        self.chance.random_range(0..self.cluster.count())
    }

    async fn step(&mut self) {
        let n = self.any();
        match self.chance.random_range(0..12) {
            0..5 if self.cluster.is_up(n) => {
                let group = GroupId::from_bytes([self.chance.random_range(0..GROUPS); 32]);
                self.offered = self.offered.wrapping_add(1);
                let proposed = propose_aside(self.cluster.node(n), group, self.offered);
                self.waiting.push((group, proposed));
            }
            5 if self.cluster.is_up(n) => {
                self.played.power_cuts += 1;
                self.cluster.cut_power(n);
            }
            6 if self.cluster.is_up(n) => {
                self.played.kills += 1;
                self.cluster.kill(n);
            }
            5..8 if !self.cluster.is_up(n) => self.cluster.power_up(n).await,
            8 if self.cluster.is_up(n) => {
                self.played.held += 1;
                self.cluster.disks[n].hold_syncs();
            }
            9 => {
                let other = self.any();
                self.played.cuts += 1;
                match self.chance.random_range(0..3) {
                    0 => self.cluster.net.isolate(addr(n)),
                    1 => self.cluster.net.cut_one_way(addr(n), addr(other)),
                    _ => self.cluster.net.cut(addr(n), addr(other)),
                }
            }
            10 => {
                self.cluster.net.heal_all();
                self.cluster.disks[n].release_syncs();
            }
            _ => {}
        }
        let pause = [0, 1, 5, 40, 400, 2_000, 12_000][self.chance.random_range(0..7)];
        tokio::time::sleep(Duration::from_millis(pause)).await;
        self.look().await;
    }

    async fn heal(&mut self) {
        self.cluster.net.heal_all();
        for n in 0..self.cluster.count() {
            self.cluster.disks[n].release_syncs();
            if !self.cluster.is_up(n) {
                self.cluster.power_up(n).await;
            }
        }
        self.cluster.met().await;
    }
}

async fn run(seed: u64, count: usize, total: &mut Played) {
    let mut run = Run {
        seed,
        cluster: Cluster::start(seed, count).await,
        chance: StdRng::seed_from_u64(seed),
        told: BTreeMap::new(),
        offered: 0,
        waiting: Vec::new(),
        played: Played::default(),
    };
    let (min, max) = (
        run.chance.random_range(0..3),
        run.chance.random_range(3..30),
    );
    run.cluster
        .net
        .set_delay(Duration::from_millis(min), Duration::from_millis(max));
    for _ in 0..STEPS {
        run.step().await;
    }
    run.heal().await;
    for n in 0..GROUPS {
        let group = GroupId::from_bytes([n; 32]);
        for at in 0..count {
            let reply = propose_to(run.cluster.node(at), group, 255).await;
            let reply = reply.unwrap_or_else(|| panic!("seed {seed}: not live again"));
            run.told(group, value(&reply));
        }
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    run.look().await;
    assert!(
        run.waiting.is_empty(),
        "seed {seed}: a proposal never ended"
    );
    total.power_cuts += run.played.power_cuts;
    total.kills += run.played.kills;
    total.held += run.played.held;
    total.cuts += run.played.cuts;
    total.acknowledged += run.played.acknowledged;
    total.unclear += run.played.unclear;
    total.slept += run.cluster.slept();
}

#[tokio::test(start_paused = true)]
async fn no_crash_makes_two_values_or_loses_an_acknowledged_one() {
    let seeds = std::env::var("RAFT_ONCE_CRASH_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"));
    let mut played = Played::default();
    for seed in 0..seeds {
        let count = [3, 3, 3, 5][seed as usize % 4];
        run(seed, count, &mut played).await;
    }
    let per_seed = |count: usize| count as u64 / seeds;
    assert!(per_seed(played.power_cuts) >= 3, "{played:?}");
    assert!(per_seed(played.kills) >= 3, "{played:?}");
    assert!(per_seed(played.held) >= 3, "{played:?}");
    assert!(per_seed(played.cuts) >= 3, "{played:?}");
    assert!(per_seed(played.acknowledged) >= 5, "{played:?}");
    assert!(per_seed(played.unclear) >= 1, "{played:?}");
    // More often than there are replicas: they woke again in between.
    assert!(played.slept / seeds >= 25, "{played:?}");
    eprintln!("{seeds} seeds: {played:?}");
}
