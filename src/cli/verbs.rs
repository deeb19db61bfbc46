//! Everything but `run`, and but running a cluster.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{
    Apply, Claim, Common, Create, Finish, Get, List, Output, Resolve, Spec as SpecArgs, Wait, Watch,
};
use super::board::{Board, LOOK_AGAIN};
use super::embedded::{self, Keeper};
use super::problem::{Done, FAILED, Problem, RUNNING, code_elsewhere};
use super::resource::{MANIFEST_BYTES_MAX, Resource, read, yaml};
use super::{run, say};
use crate::machine::task::Spec;
use crate::task::{DeedKind, State, Status, TaskChange, TaskError};

fn spec_of(args: &SpecArgs) -> Spec {
    Spec {
        policy: args.policy(),
        ttl_ms: args.ttl.map(|ttl| ttl.as_millis() as u64),
    }
}

fn missing(name: &str) -> Problem {
    Problem::new(
        FAILED,
        format!("there is no task {name}: it was never created, or was deleted or forgotten since"),
    )
}

pub(super) async fn claim(board: &Board, common: &Common, args: &Claim) -> Done {
    let spec = Spec {
        ttl_ms: args.ttl.map(|ttl| ttl.as_millis() as u64),
        ..Spec::default()
    };
    match board
        .claim(
            &args.name,
            spec,
            Keeper::Script,
            embedded::new_id(),
            &CancellationToken::new(),
        )
        .await?
    {
        embedded::Claim::Here(held) => {
            let printed = match common.json {
                true => say::print_json(&json!({
                    "name": args.name,
                    "claim": held.claim.to_string(),
                    "attempt": held.attempt,
                    "version": held.version.as_u64(),
                })),
                false => say::print(&format!("{}\n", held.claim)),
            };
            printed.map_err(|_| {
                let message = format!(
                    "{} is claimed, and nobody could be told its id: `once finish {} --claim {}` ends it",
                    args.name, args.name, held.claim
                );
                Problem::new(FAILED, message)
            })
        }
        embedded::Claim::Elsewhere(status) if status.state == State::Abandoned => {
            Err(run::abandoned(&status))
        }
        embedded::Claim::Elsewhere(status) => {
            let who = status.executor.as_deref().unwrap_or("somebody");
            let how = status.outcome.as_ref().map_or("runs it".into(), |outcome| {
                format!("ran it: it {}", super::board::words(outcome))
            });
            Err(Problem::new(
                FAILED,
                format!("{} is not to be run here: {who} {how}", args.name),
            ))
        }
        embedded::Claim::NotYet(pause) => {
            let message = format!(
                "{} has failed, and may be claimed again in {} s",
                args.name,
                pause.as_secs_f32()
            );
            Err(Problem::new(RUNNING, message))
        }
    }
}

pub(super) async fn finish(board: &Board, common: &Common, args: &Finish) -> Done {
    let status = board
        .finish(&args.name, args.claim, args.ending.outcome())
        .await?;
    show(common, &status, "recorded")
}

/// What was done to a task: in words, or as JSON.
fn show(common: &Common, status: &Status, done: &str) -> Done {
    match common.json {
        true => say::print_json(&Resource::of(&common.namespace, status)),
        false => say::print(&format!("once {} {done}\n", status.name)),
    }
}

/// The answer is in words that scripts look for, and, but for `koncli`, in the exit code.
pub(super) async fn check(board: &Board, common: &Common, name: &str, no: u8) -> Done {
    let status = board.status(name).await?;
    let executed = status.as_ref().is_some_and(Status::executed);
    if common.json {
        say::print_json(&json!({ "name": name, "executed": executed }))?;
    } else {
        let word = if executed {
            "has been executed"
        } else {
            "has not been executed"
        };
        say::print(&format!("once {name} {word}\n"))?;
    }
    Ok(if executed { 0 } else { no })
}

pub(super) async fn create(board: &Board, common: &Common, args: &Create) -> Done {
    let spec = spec_of(&args.spec);
    spec.check().map_err(Problem::usage)?;
    let status = board.create(&args.name, spec).await?;
    show(common, &status, "created")
}

pub(super) async fn list(board: &Board, common: &Common, args: &List) -> Done {
    let all = board.list().await?;
    print_all(common, &all, args.output)
}

pub(super) async fn get(board: &Board, common: &Common, args: &Get) -> Done {
    let status = board
        .status(&args.name)
        .await?
        .ok_or_else(|| missing(&args.name))?;
    match args.output {
        // One is no list.
        Output::Json => say::print_json(&Resource::of(&common.namespace, &status)),
        Output::Table if common.json => say::print_json(&Resource::of(&common.namespace, &status)),
        other => print_all(common, &[status], other),
    }
}

fn print_all(common: &Common, all: &[Status], output: Output) -> Done {
    let resources = all
        .iter()
        .map(|status| Resource::of(&common.namespace, status));
    match output {
        Output::Table if !common.json => {
            let rows: Vec<Vec<String>> = all.iter().map(row).collect();
            say::print(&say::table(
                &[
                    "NAME", "STATE", "EXECUTED", "EXECUTOR", "AT", "ATTEMPT", "OUTCOME",
                ],
                &rows,
            ))
        }
        Output::Table | Output::Json => say::print_json(&resources.collect::<Vec<_>>()),
        Output::Yaml => {
            let documents = resources
                .map(|resource| yaml(&resource))
                .collect::<Result<Vec<_>, _>>()?;
            say::print(&documents.join("---\n"))
        }
    }
}

fn row(status: &Status) -> Vec<String> {
    vec![
        status.name.clone(),
        say::state(status.state),
        status.executed().to_string(),
        status.executor.clone().unwrap_or_else(|| "-".into()),
        status.executed_at.map_or("-".into(), say::time),
        status.attempt.to_string(),
        status
            .outcome
            .as_ref()
            .map_or("-".into(), super::board::words),
    ]
}

pub(super) async fn wait(board: &Board, common: &Common, args: &Wait) -> Done {
    // For the spinner alone, which is to say who runs it.
    let first = board.status(&args.name);
    let first = match args.timeout {
        None => first.await,
        Some(within) => tokio::time::timeout(within, first)
            .await
            .unwrap_or(Ok(None)),
    };
    let first = first.unwrap_or_default();
    let waiting = board.wait(&args.name, args.timeout);
    let status = say::spin(common.json, first.as_ref(), waiting).await?;
    if status.state == State::Abandoned {
        return Err(run::abandoned(&status));
    }
    let how = status
        .outcome
        .as_ref()
        .map(super::board::words)
        .unwrap_or_default();
    show(common, &status, &how)?;
    Ok(code_elsewhere(&status))
}

/// Nobody stops what runs.
async fn warn_of_executor(board: &Board, common: &Common, name: &str) -> Result<(), Problem> {
    let status = board.status(name).await?;
    if let Some(status) = status.filter(|status| status.state == State::Running) {
        let who = status.executor.as_deref().unwrap_or("somebody");
        let text = format!("{who} runs {name}, and runs on: stop it there, or two may run at once");
        say::note(common.json, &text);
    }
    Ok(())
}

pub(super) async fn delete(board: &Board, common: &Common, name: &str) -> Done {
    warn_of_executor(board, common, name).await?;
    let was_there = board.delete(name).await?;
    match (common.json, was_there) {
        (true, _) => say::print_json(&json!({ "name": name, "deleted": was_there })),
        (false, true) => say::print(&format!("once {name} deleted\n")),
        (false, false) => say::print(&format!("once {name} was not there\n")),
    }
}

pub(super) async fn reset(board: &Board, common: &Common, name: &str) -> Done {
    warn_of_executor(board, common, name).await?;
    let status = board.reset(name).await?;
    show(common, &status, "reset: it can run again")
}

pub(super) async fn resolve(board: &Board, common: &Common, args: &Resolve) -> Done {
    let outcome = args.ending.outcome();
    let status = board.resolve(&args.name, outcome).await?;
    show(common, &status, "resolved")
}

pub(super) async fn deeds(board: &Board, common: &Common) -> Done {
    let deeds = board.deeds().await?;
    let word = |kind: DeedKind| match kind {
        DeedKind::Reset => "reset",
        DeedKind::Deleted => "deleted",
        DeedKind::Resolved => "resolved",
    };
    if common.json {
        let all = deeds.iter().map(|deed| {
            json!({
                "task": deed.task,
                "deed": word(deed.kind),
                "by": deed.by,
                "at": say::time(deed.at),
                "version": deed.version.as_u64(),
            })
        });
        return say::print_json(&all.collect::<Vec<_>>());
    }
    let rows = deeds.into_iter().map(|deed| {
        vec![
            say::time(deed.at),
            deed.task,
            word(deed.kind).into(),
            deed.by,
        ]
    });
    say::print(&say::table(
        &["AT", "NAME", "DEED", "BY"],
        &rows.collect::<Vec<_>>(),
    ))
}

pub(super) async fn watch(board: &Board, common: &Common, args: &Watch) -> Done {
    tokio::select! {
        watched = tell_changes(board, common, args) => watched,
        () = say::until_unread() => Ok(0),
    }
}

async fn tell_changes(board: &Board, common: &Common, args: &Watch) -> Done {
    let is_meant = |name: &str| args.name.as_deref().is_none_or(|wanted| wanted == name);
    match board {
        Board::Cluster(cluster) => {
            let mut changes = cluster.tasks.watch();
            while let Some(change) = changes.next().await {
                match change? {
                    TaskChange::Changed(status) if is_meant(&status.name) => tell(common, &status)?,
                    TaskChange::Removed(name) if is_meant(&name) => tell_removed(common, &name)?,
                    _ => 0,
                };
            }
            Err(TaskError::NetworkDown.into())
        }
        Board::Embedded(store) => {
            let mut told: BTreeMap<String, (_, State)> = BTreeMap::new();
            loop {
                let all: BTreeMap<_, _> = store
                    .list()?
                    .into_iter()
                    .map(|status| (status.name.clone(), status))
                    .collect();
                let gone: Vec<String> = told
                    .keys()
                    .filter(|name| !all.contains_key(*name))
                    .cloned()
                    .collect();
                for name in gone.iter().filter(|name| is_meant(name)) {
                    tell_removed(common, name)?;
                }
                told.retain(|name, _| all.contains_key(name));
                for (name, status) in all.into_iter().filter(|(name, _)| is_meant(name)) {
                    let now = (status.version, status.state);
                    if told.insert(name, now) != Some(now) {
                        tell(common, &status)?;
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}

fn tell(common: &Common, status: &Status) -> Done {
    if common.json {
        return say::print_json(&Resource::of(&common.namespace, status));
    }
    let who = status.executor.as_deref().unwrap_or("-");
    let how = status
        .outcome
        .as_ref()
        .map(super::board::words)
        .unwrap_or_default();
    let line = format!("{} {} {who} {how}", status.name, say::state(status.state));
    say::print(&format!("{}\n", line.trim_end()))
}

fn tell_removed(common: &Common, name: &str) -> Done {
    match common.json {
        true => say::print_json(&json!({ "name": name, "removed": true })),
        false => say::print(&format!("{name} removed\n")),
    }
}

fn read_manifest(path: &Path) -> Result<Vec<Resource>, Problem> {
    let name = path.display().to_string();
    let failed = |error| Problem::usage(format!("cannot read {name}: {error}"));
    let mut text = String::new();
    let read_all = match path.as_os_str() == "-" {
        true => std::io::stdin()
            .take(MANIFEST_BYTES_MAX + 1)
            .read_to_string(&mut text),
        false => {
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(MANIFEST_BYTES_MAX + 1).read_to_string(&mut text)
        }
    };
    if read_all.map_err(failed)? as u64 > MANIFEST_BYTES_MAX {
        return Err(Problem::usage(format!(
            "{name}: a manifest has 4 MiB at most"
        )));
    }
    read(&name, &text)
}

/// Each document may name a namespace of its own.
pub(super) async fn apply(common: &Common, args: &Apply) -> Done {
    let resources = read_manifest(&args.file)?;
    let namespace_of = |resource: &Resource| {
        let namespace = resource.metadata.namespace.clone();
        namespace.unwrap_or_else(|| common.namespace.clone())
    };
    let mut boards: BTreeMap<String, Board> = BTreeMap::new();
    // All is looked at before anything is created.
    let mut is_there: Vec<bool> = Vec::new();
    for resource in &resources {
        let namespace = namespace_of(resource);
        if !boards.contains_key(&namespace) {
            let common = Common {
                namespace: namespace.clone(),
                ticket_file: common.ticket_file.clone(),
                who: common.who.clone(),
                json: common.json,
                answer_within: common.answer_within,
            };
            boards.insert(namespace.clone(), Board::open(&common).await?);
        }
        let Some(board) = boards.get(&namespace) else {
            continue;
        };
        let (name, spec) = (&resource.metadata.name, resource.spec()?);
        let status = board.status(name).await?;
        let is_other = status.as_ref().is_some_and(|status| {
            status.policy != spec.policy
                || status.ttl.map(|ttl| ttl.as_millis() as u64) != spec.ttl_ms
        });
        if is_other {
            let message = format!(
                "{name} is there with another spec, which stays in its generation: delete it first. Nothing was created"
            );
            return Err(Problem::new(FAILED, message));
        }
        is_there.push(status.is_some());
    }
    let mut said: Vec<Value> = Vec::new();
    for (resource, is_there) in resources.iter().zip(is_there) {
        let (namespace, name) = (namespace_of(resource), &resource.metadata.name);
        let Some(board) = boards.get(&namespace) else {
            continue;
        };
        let word = if is_there {
            "unchanged"
        } else {
            board.create(name, resource.spec()?).await?;
            "created"
        };
        match common.json {
            true => said.push(json!({ "name": name, "namespace": namespace, "result": word })),
            false => {
                say::print(&format!("once {name} {word}\n"))?;
            }
        }
    }
    for board in boards.into_values() {
        board.close().await;
    }
    if common.json {
        say::print_json(&said)?;
    }
    Ok(0)
}
