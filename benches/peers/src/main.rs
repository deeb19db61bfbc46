//! raft-once beside etcd, mosaik and Redis: one machine, one run.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/peers/Cargo.toml
//! ```
//!
//! It writes `docs/benchmarks.md` and its charts. Every server is a process of its own, also
//! raft-once's voters and mosaik's nodes, which are this program once more. Systems take turns in
//! rounds, so that whatever else the machine does hits all alike. All of it is on loopback, in a
//! network namespace of its own where one can be made.
//!
//! Where to look: `workloads/` is what is asked, `systems/` is who is asked, `ours.rs` is how a slot
//! is claimed with raft-once, `report/` is what comes of it.

#![cfg_attr(
    not(feature = "mosaik"),
    allow(
        dead_code,
        unused_imports,
        unused_mut,
        reason = "what is asked of mosaik"
    )
)]

mod child;
mod driven;
mod isolation;
mod load;
mod options;
mod ours;
mod plan;
mod ports;
mod prober;
mod proc;
mod report;
mod run;
mod samples;
mod systems;
mod workloads;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use options::Options;
use plan::Plan;
use report::machine;
use report::page::Page;
use report::section::Section;
use run::Run;
use systems::{Available, voter};

/// Of one workload, and of all together: twice what they take.
const TIME_LIMIT: Duration = Duration::from_secs(240);
const TIME_LIMIT_OF_ALL: Duration = Duration::from_secs(900);
const TIME_LIMIT_LARGE: Duration = Duration::from_secs(2 * 3_600);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match begin(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(mut args: Vec<String>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    match args.first().map(String::as_str) {
        Some(voter::WORD) => runtime.block_on(voter::run(&args[1..]))?,
        #[cfg(feature = "mosaik")]
        Some(systems::mosaik_node::NODE) => {
            runtime.block_on(systems::mosaik_node::run_node(&args[1..]))?;
        }
        #[cfg(feature = "mosaik")]
        Some(systems::mosaik_node::RELAY) => runtime.block_on(systems::mosaik_node::run_relay())?,
        first => {
            let isolated = first == Some(isolation::WORD);
            if isolated {
                args.remove(0);
            }
            let options = Options::parse(&args)?;
            if options.help {
                print!("{}", options::HELP);
                return Ok(ExitCode::SUCCESS);
            }
            if !isolated {
                isolation::enter(&args)?;
            }
            let code = runtime.block_on(until_interrupted(&options, isolated));
            // Whatever still waits for a server that is gone.
            runtime.shutdown_background();
            return code;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whatever way it ends, its processes and its data are gone when this returns.
async fn until_interrupted(options: &Options, isolated: bool) -> Result<ExitCode> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        done = measure(options, isolated) => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    }
}

async fn measure(options: &Options, isolated: bool) -> Result<ExitCode> {
    ensure!(
        options.quick || !cfg!(debug_assertions),
        "figures of a debug build mean nothing: use --release"
    );
    let start = Instant::now();
    let plan = match (options.quick, options.large) {
        (true, _) => Plan::quick(),
        (_, true) => Plan::large(),
        _ => Plan::full(),
    };
    let mut run = Run::new(plan, Available::look(isolated))?;
    for missing in &run.available.missing {
        eprintln!("{missing}");
    }
    let mut page = Page {
        machine: machine::describe(run.data(), &run.available, isolated),
        settings: machine::settings(),
        sections: Vec::new(),
        missing: run.available.missing.clone(),
        command: options.command(),
        seconds: 0,
    };
    let mut failed = false;
    for workload in workloads::NAMES {
        if !options.runs(workload) {
            continue;
        }
        let since = Instant::now();
        eprint!("{workload} .. ");
        let limit = match options.large {
            true => TIME_LIMIT_LARGE,
            false => TIME_LIMIT.min(TIME_LIMIT_OF_ALL.saturating_sub(start.elapsed())),
        };
        let found = tokio::time::timeout(limit, perform(workload, &mut run)).await;
        let found = found.unwrap_or_else(|_| Err(anyhow::anyhow!("not done in {limit:?}")));
        match found {
            Ok(sections) => {
                eprintln!("{} s", since.elapsed().as_secs());
                for gap in sections.iter().flat_map(|section| &section.gaps) {
                    eprintln!("  {gap}");
                    page.missing.push(gap.clone());
                }
                page.sections.extend(sections);
            }
            Err(error) => {
                eprintln!("failed: {error:#}");
                page.missing.push(format!("`{workload}` failed: {error:#}"));
                failed = true;
            }
        }
    }
    page.seconds = start.elapsed().as_secs();
    print!("{}", page.to_markdown());
    let folder = options.folder()?;
    page.write(&folder)?;
    eprintln!("written to {}", folder.join("benchmarks.md").display());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn perform(workload: &str, run: &mut Run) -> Result<Vec<Section>> {
    match workload {
        "claims" => workloads::claims::measure(run).await,
        "births" => workloads::births::measure(run).await,
        "idle" => workloads::idle::measure(run).await,
        "failover" => workloads::failover::measure(run).await,
        "reads" => workloads::reads::measure(run).await,
        "many-cells" => workloads::many::cells(run).await,
        "many-slots" => workloads::many::slots(run).await,
        _ => bail!("{workload}: no such workload"),
    }
}
