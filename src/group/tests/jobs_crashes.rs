//! Random crashes, power cuts, slow disks, lost answers and cut links under voters and workers: of a
//! job that is run at most once no tick is started twice, attempts of the others are told apart, and
//! each of their ticks ends.
//!
//! `RAFT_ONCE_CRASH_SEEDS=500` runs more seeds than the few of an ordinary run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::cluster::Cluster;
use super::jobs::{create, ticks};
use super::*;
use crate::job::{Claimed, JobId, Jobs, Slot, State};
use crate::machine::task::{ClaimId, Failure, Outcome};

const SEEDS: u64 = 8;
const STEPS: usize = 80;

#[derive(Default)]
struct Seen {
    /// By job and slot: the attempts that were started, and their versions.
    started: BTreeMap<(JobId, Slot), Vec<(u32, u64)>>,
    in_doubt: usize,
    elsewhere: usize,
}

type Board = Arc<Mutex<Seen>>;

/// Claims a slot and runs it, as a worker does that gives up when it is in doubt.
async fn work(
    jobs: Jobs,
    (id, slot, attempt): (JobId, Slot, u32),
    claim: ClaimId,
    (takes, fails): (Duration, bool),
    board: Board,
) {
    let job = jobs.job(id);
    match job.claim(claim, slot, attempt).await {
        Ok(Claimed::Here(execution, _)) => {
            let mut seen = board.lock().unwrap();
            let started = seen.started.entry((id, slot)).or_default();
            started.push((execution.attempt, execution.version.as_u64()));
        }
        Ok(_) => return board.lock().unwrap().elsewhere += 1,
        Err(_) => return board.lock().unwrap().in_doubt += 1,
    }
    tokio::time::sleep(takes).await;
    let outcome = match fails {
        true => Outcome::Failed(Failure::Error("HTTP 503".into())),
        false => Outcome::SUCCESS,
    };
    // Whether it was recorded, is known by what becomes of it.
    let _ = job.finish(claim, slot, outcome).await;
}

async fn fault(cluster: &mut Cluster, chance: &mut StdRng) {
    let n = chance.random_range(0..3);
    match chance.random_range(0..7) {
        0 if cluster.is_up(n) => cluster.cut_power(n),
        1 if cluster.is_up(n) => cluster.kill(n),
        0..3 if !cluster.is_up(n) => cluster.power_up(n).await,
        2 if cluster.is_up(n) => cluster.disks[n].hold_syncs(),
        3 => {
            let other = chance.random_range(0..3);
            match chance.random_range(0..4) {
                0 => cluster.net.isolate(addr(n)),
                1 => cluster.net.cut_one_way(addr(n), addr(other)),
                2 => cluster.net.drop_replies(addr(n), addr(other)),
                _ => cluster.net.cut(addr(n), addr(other)),
            }
        }
        4 | 5 => {
            cluster.net.heal_all();
            cluster.disks[n].release_syncs();
        }
        _ => {}
    }
}

/// Has whatever is open of a job that is run at least once end.
async fn settle(node: &Network, id: JobId, board: &Board) {
    let jobs = Jobs::new(node, "crashes");
    for _ in 0..200 {
        let status = jobs
            .get(id)
            .await
            .expect("all is well")
            .expect("it is there");
        let open = status
            .history()
            .into_iter()
            .find(|execution| matches!(execution.state, State::Running | State::Retrying));
        let Some(open) = open else { return };
        let claim = ClaimId(jobs.group_id().as_bytes()[..16].try_into().unwrap());
        let claim = ClaimId(
            (u128::from_be_bytes(claim.0) ^ u128::from(open.version.as_u64())).to_be_bytes(),
        );
        let next = (id, open.slot, open.retries + 2);
        work(
            jobs.clone(),
            next,
            claim,
            (Duration::ZERO, false),
            board.clone(),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("job {id} does not end");
}

async fn play(seed: u64) -> (usize, usize) {
    let mut cluster = Cluster::start(seed, 3).await;
    let mut chance = StdRng::seed_from_u64(seed);
    let most = chance.random_range(3..30);
    cluster
        .net
        .set_delay(Duration::from_millis(1), Duration::from_millis(most));
    let (board, tick) = (Board::default(), ticks());
    let once = create(cluster.node(0), "crashes", "AT_MOST_ONCE").await;
    let often = create(cluster.node(0), "crashes", "AT_LEAST_ONCE").await;
    let mut running = Vec::new();
    for step in 0..STEPS {
        for _ in 0..chance.random_range(0..6) {
            let n = chance.random_range(0..3);
            if !cluster.is_up(n) {
                continue;
            }
            let at = (step as u64 / 4).saturating_sub(chance.random_range(0..3));
            let of = match chance.random_range(0..3) {
                0 => (often, tick(at), chance.random_range(1..4)),
                _ => (once, tick(at), 1),
            };
            let takes_ms = [0, 10, 500, 8_000][chance.random_range(0..4)];
            let how = (Duration::from_millis(takes_ms), chance.random_bool(0.5));
            let claim = ClaimId(chance.random());
            let jobs = Jobs::new(cluster.node(n), "crashes");
            running.push(tokio::spawn(work(jobs, of, claim, how, board.clone())));
        }
        fault(&mut cluster, &mut chance).await;
        let pause = [0, 1, 5, 40, 400, 2_000, 12_000][chance.random_range(0..7)];
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    cluster.net.heal_all();
    for n in 0..3 {
        cluster.disks[n].release_syncs();
        if !cluster.is_up(n) {
            cluster.power_up(n).await;
        }
    }
    cluster.met().await;
    settle(cluster.node(seed as usize % 3), often, &board).await;
    for running in running {
        running.abort();
    }
    let seen = board.lock().unwrap();
    for ((id, slot), started) in &seen.started {
        let numbers: BTreeSet<_> = started.iter().map(|(number, _)| *number).collect();
        assert_eq!(
            numbers.len(),
            started.len(),
            "seed {seed}: {id} {slot}: {started:?}"
        );
        assert!(
            *id == often || started.len() == 1,
            "seed {seed}: {slot}: {started:?}"
        );
    }
    // Whatever was started at all was started in the order of its ticks.
    for id in [once, often] {
        let first = |((of, _), started): (&(JobId, Slot), &Vec<(u32, u64)>)| {
            let first = started.iter().find(|(number, _)| *number == 1)?;
            (*of == id).then_some(first.1)
        };
        let versions: Vec<_> = seen.started.iter().filter_map(first).collect();
        assert!(versions.is_sorted(), "seed {seed}: {id}: {versions:?}");
    }
    (seen.started.len(), seen.in_doubt)
}

#[tokio::test(start_paused = true)]
async fn no_crash_starts_a_tick_twice_and_what_is_run_at_least_once_ends() {
    let seeds = std::env::var("RAFT_ONCE_CRASH_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"));
    let (mut started, mut in_doubt) = (0, 0);
    for seed in 0..seeds {
        let of_seed = play(seed).await;
        started += of_seed.0;
        in_doubt += of_seed.1;
    }
    eprintln!("{seeds} seeds: {started} slots were started, {in_doubt} claims in doubt");
    assert!(started as u64 >= 5 * seeds && in_doubt > 0);
}
