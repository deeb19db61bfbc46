//! One seed from its beginning to its verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{on, open};
use super::plan::Plan;
use super::probes;
use super::world::{World, until};
use crate::probe::Bug;
use crate::testing::{Call, Checked, Outcome};

/// How long the nodes may take to find each other once all is well.
const MEET_MS: u64 = 30_000;

/// How long a cell may take to be writable again then, whatever the timeout of a single write: its
/// last leader may be gone without anyone knowing, and must first be missed for a lease.
const RECOVER_MS: u64 = 10_000;

/// How long calls may take to end then; each has a deadline of its own.
const END_MS: u64 = 30_000;

/// What a run has played and found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) seed: u64,
    /// What was found to be wrong: `None` in all but planted cases.
    pub(super) wrong: Option<String>,
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(
            &plan.seed.to_le_bytes(),
        ))
        .build()
        .expect("a runtime of one thread needs nothing");
    runtime.block_on(play(plan, bug))
}

async fn play(plan: &Plan, bug: Option<Bug>) -> Report {
    probes::begin(bug);
    let mut world = World::new(plan);
    let played = act(&mut world).await;
    world.end();
    let history = std::mem::take(&mut on(&world.board).history);
    let judged = history.check();
    let watch = probes::end();
    let wrong = (watch.violations.first().cloned())
        .or(judged.as_ref().err().map(ToString::to_string))
        .or(played.err());
    let net = world.net.counts();
    let mut report = Report {
        seed: plan.seed,
        messages: watch.messages,
        digest: history.digest(),
        steps: world.steps() + history.len() as u64,
        counts: std::mem::take(&mut world.counts),
        history: match &wrong {
            Some(_) => history.to_lines(),
            None => String::new(),
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
        ("groups put to sleep", watch.slept),
        ("calls given up", shared.given_up),
        ("handles opened", u64::from(shared.opened)),
    ];
    report.counts.extend(more);
    report.counts.extend(counted(&checked));
    report
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

/// All is well: the nodes find each other, every call ends, and everyone reads the same.
async fn settle(world: &mut World) -> Result<(), String> {
    on(&world.board).stopped = true;
    let meet = Duration::from_millis(MEET_MS);
    if !until(meet, || world.has_met()).await {
        return Err(format!(
            "not all nodes found each other within {MEET_MS} ms"
        ));
    }
    let networks = world.networks();
    let cells = on(&world.board).cells;
    // A write to each cell, from one node after another: a majority is up, so it is acknowledged.
    for cell in 0..cells {
        let network = &networks[cell as usize % networks.len()];
        let handle = open(network, cell);
        let value;
        let op = {
            let mut shared = on(&world.board);
            value = shared.next_value();
            let client = shared.next_client();
            shared.history.invoke(client, cell, Call::Write(value))
        };
        let written = tokio::time::timeout(Duration::from_millis(RECOVER_MS), async {
            loop {
                // It offers the same value; whichever of its proposals wins, that is the value.
                if let Ok(version) = handle.write(value).await {
                    return version.as_u64();
                }
            }
        });
        let Ok(version) = written.await else {
            return Err(format!(
                "cell {cell} cannot be written within {RECOVER_MS} ms although all is well"
            ));
        };
        on(&world.board)
            .history
            .finish(op, Outcome::Acknowledged { version });
    }
    let end = Duration::from_millis(END_MS);
    let idle = || on(&world.board).busy.values().all(|busy| *busy == 0);
    if !until(end, idle).await {
        return Err("a call does not end although all is well".into());
    }
    if let Some(admitted) = world.admitted_outlaw() {
        return Err(admitted);
    }
    for network in &networks {
        for cell in 0..cells {
            let handle = open(network, cell);
            let op = {
                let mut shared = on(&world.board);
                let client = shared.next_client();
                shared.history.invoke(client, cell, Call::ReadLinearizable)
            };
            let Ok(value) = handle.read_linearizable().await else {
                return Err(format!("cell {cell} cannot be read although all is well"));
            };
            let version = handle.version().as_u64();
            on(&world.board)
                .history
                .finish(op, Outcome::Saw { value, version });
        }
    }
    Ok(())
}
