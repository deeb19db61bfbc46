//! One seed from its beginning to its verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client::{Board, on};
use super::handle::{Handle, is_slot, open};
use super::plan::Plan;
use super::probes;
use super::world::{World, until};
use crate::group::{ByInstance, bear_by_instance};
use crate::probe::Bug;
use crate::store::SimDisk;
use crate::testing::{Call, Checked, Outcome};

/// How long the nodes may take to find each other once all is well.
const MEET_MS: u64 = 30_000;

/// How long a cell may take to be writable again then, whatever the timeout of a single write: its
/// last leader may be gone without anyone knowing, and must first be missed for a lease.
const RECOVER_MS: u64 = 10_000;

/// How long whoever keeps a handle open may have to wait then until it knows what is decided.
const TELL_MS: u64 = 10_000;

/// How long calls may take to end then; each has a deadline of its own.
const END_MS: u64 = 30_000;

/// What a run has played and found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) seed: u64,
    /// What was found to be wrong: nothing in all but planted cases.
    pub(super) wrong: Vec<String>,
    /// Every message that was delivered.
    pub(super) messages: Vec<String>,
    /// Of all that clients did and saw.
    pub(super) digest: [u8; 32],
    pub(super) steps: u64,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) history: String,
}

/// Does the same on each core. More runs at once would only take memory.
pub(super) fn on_all_cores(work: impl Fn() + Sync) {
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(&work);
        }
    });
}

/// Runs a plan to its end in a runtime of its own.
pub(super) fn run(plan: &Plan, bug: Option<Bug>) -> Report {
    runtime(plan.seed).block_on(play(plan, bug))
}

/// One whose time goes on when nothing else does, and whose chance is that of the seed.
pub(super) fn runtime(seed: u64) -> tokio::runtime::Runtime {
    let seed = tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes());
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(seed)
        .build()
        .expect("a runtime of one thread needs nothing")
}

async fn play(plan: &Plan, bug: Option<Bug>) -> Report {
    probes::begin(bug);
    // Whatever else may bear a cell, an instance may.
    bear_by_instance(match plan.seed % 4 {
        0 => ByInstance::All,
        1 => ByInstance::Some,
        _ => ByInstance::None,
    });
    let mut world = World::new(plan);
    let played = act(&mut world).await;
    world.end();
    let history = std::mem::take(&mut on(&world.board).history);
    let judged = history.check();
    let watch = probes::end();
    let mut wrong = watch.violations;
    wrong.extend(judged.as_ref().err().map(ToString::to_string));
    wrong.append(&mut on(&world.board).wrong);
    wrong.extend(played.err());
    let net = world.net.counts();
    let mut report = Report {
        seed: plan.seed,
        messages: watch.messages,
        digest: history.digest(),
        steps: world.steps() + history.len() as u64,
        counts: std::mem::take(&mut world.counts),
        history: match wrong.is_empty() {
            true => String::new(),
            false => history.to_lines(),
        },
        wrong,
    };
    let checked = judged.unwrap_or_default();
    let shared = on(&world.board);
    let more = [
        ("messages", net.delivered),
        ("messages dropped", net.dropped),
        ("messages lost", net.lost),
        ("requests doubled", net.doubled),
        ("votes", watch.votes),
        ("applied", watch.applied),
        ("messages reordered", net.reordered),
        ("calls given up", shared.given_up),
        ("handles opened", u64::from(shared.opened)),
    ];
    report.counts.extend(more);
    report.counts.extend(watch.counted);
    for voter in &world.voters {
        report.counts_of_disk(&voter.disk());
    }
    let kind = match plan.voters {
        1 => "runs with 1 voter",
        3 => "runs with 3 voters",
        _ => "runs with 5 voters",
    };
    report.counts.insert(kind, 1);
    report.counts.extend(counted(&checked));
    report
}

impl Report {
    /// What a disk did to what was not synced.
    fn counts_of_disk(&mut self, disk: &SimDisk) {
        for (what, times) in disk.losses() {
            *self.counts.entry(what).or_default() += times;
        }
    }
}

fn counted(checked: &Checked) -> [(&'static str, u64); 7] {
    [
        ("operations", checked.operations),
        ("acknowledged", checked.acknowledged),
        ("unclear", checked.unclear),
        ("won", checked.won),
        ("lost", checked.lost),
        ("observations", checked.observations),
        ("cells decided", checked.cells_decided),
    ]
}

/// Faults until there were enough steps, then none until all is well again. What is not.
async fn act(world: &mut World) -> Result<(), String> {
    for n in 0..world.plan.voters {
        world.power_up(n);
    }
    world.grow();
    while world.steps() < world.plan.steps && probes::violations() == 0 {
        let calm_ms = match world.chance_of(0.02) && world.plan.sleepy {
            true => 40_000,
            false => world.plan.calm_ms >> world.draw(0..6),
        };
        world.pass(calm_ms).await;
        world.bury();
        world.end_failed();
        world.note_meetings();
        if let Some(admitted) = world.admitted_outlaw() {
            return Err(admitted);
        }
        if let Some(failure) = world.failed_start() {
            return Err(format!("a node does not start: {failure}"));
        }
        if world.chance_of(0.5) {
            world.grow();
        }
        world.fault().await;
    }
    if probes::violations() > 0 {
        return Ok(());
    }
    world.bury();
    tracing::info!(target: "simulation", at = ?world.began.elapsed(), "healed");
    world.heal().await;
    settle(world).await
}

/// All is well: the nodes find each other, everyone is told, every call ends, and everyone reads
/// the same.
async fn settle(world: &mut World) -> Result<(), String> {
    on(&world.board).stopped = true;
    let meet = Duration::from_millis(MEET_MS);
    if !until(meet, || world.has_met()).await {
        return Err(format!(
            "not all nodes found each other within {MEET_MS} ms"
        ));
    }
    // Before any call that would bring it about.
    let decided = on(&world.board).history.decided();
    all_told(world, &decided).await?;
    let networks = world.networks();
    let cells = on(&world.board).cells;
    // A write to each cell, from one node after another: a majority is up, so it is acknowledged.
    let writes = (0..cells).map(|cell| {
        let network = &networks[cell as usize % networks.len()];
        write(&world.board, open(network, cell), cell)
    });
    let written = futures::future::join_all(writes).await;
    written.into_iter().collect::<Result<(), String>>()?;
    all_told(world, &(0..cells).collect()).await?;
    let end = Duration::from_millis(END_MS);
    let idle = || on(&world.board).busy.values().all(|busy| *busy == 0);
    if !until(end, idle).await {
        return Err("a call does not end although all is well".into());
    }
    if let Some(admitted) = world.admitted_outlaw() {
        return Err(admitted);
    }
    for network in &networks {
        let reads = (0..cells).map(|cell| read(&world.board, open(network, cell), cell));
        let read = futures::future::join_all(reads).await;
        read.into_iter().collect::<Result<(), String>>()?;
    }
    Ok(())
}

/// Whoever has kept a handle open on one of these cells, which are decided, learns the value.
async fn all_told(world: &World, decided: &BTreeSet<u32>) -> Result<(), String> {
    let lives: BTreeSet<u64> = world.lives().map(|life| life.number).collect();
    let watched: Vec<_> = (on(&world.board).watched.iter())
        .filter(|((life, cell), _)| lives.contains(life) && decided.contains(cell))
        .map(|(key, handle)| (*key, handle.clone()))
        .collect();
    let is_deaf = |handle: &Handle| matches!(handle, Handle::Cell(cell) if cell.is_none());
    // Streams that have not seen all slots that are decided.
    let slots: BTreeSet<u32> = decided
        .iter()
        .copied()
        .filter(|cell| is_slot(*cell))
        .collect();
    let behind = || {
        let shared = on(&world.board);
        let followed = shared.followed.iter();
        let mut behind = followed
            .filter(|(life, followed)| lives.contains(life) && !followed.slots.is_superset(&slots));
        let first = behind.next();
        first.map(|(life, followed)| {
            let missed = slots.difference(&followed.slots).next().copied();
            (*life, missed.unwrap_or_default())
        })
    };
    let told = || !watched.iter().any(|(_, handle)| is_deaf(handle)) && behind().is_none();
    if until(Duration::from_millis(TELL_MS), told).await {
        return Ok(());
    }
    let deaf = watched.iter().find(|(_, handle)| is_deaf(handle));
    let Some(((life, cell), handle)) = deaf else {
        let (life, missed) = behind().expect("not all were told");
        return Err(format!(
            "stream: slot {missed} is decided, and a stream of life {life} does not have it \
             within {TELL_MS} ms although all is well"
        ));
    };
    let mut told = format!(
        "not told: cell {cell} ({}) is decided, and a handle of life {life} does not learn that \
         within {TELL_MS} ms although all is well",
        handle.group_id()
    );
    for other in world.lives() {
        let Some(network) = other.network() else {
            continue;
        };
        let (id, number) = (network.node_id(), other.number);
        let cells = network.status().cells.into_iter();
        let known: Vec<_> = cells.filter(|c| c.group == handle.group_id()).collect();
        told += &format!("\n    life {number}, node {id}: {known:?}");
    }
    Err(told)
}

/// Writes until it is acknowledged.
async fn write(board: &Board, handle: Handle, cell: u32) -> Result<(), String> {
    let value;
    let op = {
        let mut shared = on(board);
        value = shared.next_value();
        let client = shared.next_client();
        shared.history.invoke(client, cell, Call::Write(value))
    };
    let written = tokio::time::timeout(Duration::from_millis(RECOVER_MS), async {
        loop {
            // It offers the same value; whichever of its proposals wins, that is the value.
            if let Ok(version) = handle.write(value).await {
                return version;
            }
        }
    });
    let Ok(version) = written.await else {
        return Err(format!(
            "not live: cell {cell} cannot be written within {RECOVER_MS} ms although all is well"
        ));
    };
    let acknowledged = Outcome::Acknowledged { version };
    on(board).history.finish(op, acknowledged);
    Ok(())
}

async fn read(board: &Board, handle: Handle, cell: u32) -> Result<(), String> {
    let op = {
        let mut shared = on(board);
        let client = shared.next_client();
        shared.history.invoke(client, cell, Call::ReadLinearizable)
    };
    let Ok(value) = handle.read_linearizable().await else {
        return Err(format!(
            "not live: cell {cell} cannot be read although all is well"
        ));
    };
    let saw = handle.saw(value);
    on(board).history.finish(op, saw);
    Ok(())
}
