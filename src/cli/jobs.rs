//! Jobs: what `once jobs` does.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::args::Common;
use super::board::{ticket, who};
use super::problem::{Done, FAILED, Problem};
use super::say;
use crate::job::{self, Execution, JobId, JobsError, Status};
use crate::network::Network;

/// The longest document of a job, in bytes.
pub(super) const JOB_BYTES_MAX: u64 = 64 * 1024;

/// How long leaving the cluster may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Create jobs, which have a schedule, and see what became of them. They are run by `once serve --jobs`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  once --ticket-file ticket jobs create -f report.json
  once --ticket-file ticket jobs history 17")]
pub(super) struct Jobs {
    #[command(subcommand)]
    pub(super) verb: JobsVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobsVerb {
    /// Create a job, and print its id.
    Create(CreateJob),
    /// List the jobs of the namespace.
    List,
    /// Show a job.
    Get(JobOf),
    /// Show the last executions of a job.
    History(JobOf),
    /// Start none of its ticks until it is resumed.
    Pause(JobOf),
    /// Go on with the ticks after now.
    Resume(JobOf),
    /// Run it once, whatever its schedule says.
    RunNow(JobOf),
    /// Delete a job with its history.
    Delete(JobOf),
}

/// A job by its number.
#[derive(Debug, Args)]
pub(super) struct JobOf {
    /// The id of the job.
    pub(super) id: JobId,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example, seconds first:
  echo '{\"schedule\": \"0 0 12 * * MON-FRI\", \"api\": \"https://example.com/report\",
         \"type\": \"AT_MOST_ONCE\", \"isRecurring\": true}' | once jobs create -f -")]
pub(super) struct CreateJob {
    /// The job as JSON; - is the standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: PathBuf,
}

pub(super) async fn jobs(common: &Common, verb: &JobsVerb) -> Done {
    let Some(ticket) = ticket(common)? else {
        return Err(Problem::usage(
            "jobs are those of a cluster: name the file of a ticket with --ticket-file",
        ));
    };
    // Before anybody is asked.
    let text = match verb {
        JobsVerb::Create(args) => read(&args.file)?,
        _ => String::new(),
    };
    let network = Network::join(ticket).await?;
    let jobs = job::Jobs::new(&network, &common.namespace).named(who(common));
    let done = act(&jobs, common, verb, &text).await;
    // Who cannot say goodbye is missed soon enough.
    let _ = timeout(LEAVE_WITHIN, network.shutdown()).await;
    done
}

async fn act(jobs: &job::Jobs, common: &Common, verb: &JobsVerb, text: &str) -> Done {
    match verb {
        JobsVerb::Create(_) => {
            let made = jobs.create(text).await?;
            match common.json {
                true => say::print_json(&made.to_json()),
                false => say::print(&format!("{}\n", made.id())),
            }
        }
        JobsVerb::List => list(common, &jobs.list().await?),
        JobsVerb::Get(args) => show(&get(jobs, args.id).await?.to_json()),
        JobsVerb::History(args) => history(common, &get(jobs, args.id).await?.history()),
        JobsVerb::Pause(args) => changed(common, &jobs.pause(args.id).await?),
        JobsVerb::Resume(args) => changed(common, &jobs.resume(args.id).await?),
        JobsVerb::RunNow(args) => changed(common, &jobs.run_now(args.id).await?),
        JobsVerb::Delete(args) => {
            jobs.delete(args.id).await?;
            Ok(0)
        }
    }
}

async fn get(jobs: &job::Jobs, id: JobId) -> Result<Status, Problem> {
    let found = jobs.get(id).await?;
    found.ok_or_else(|| Problem::new(FAILED, JobsError::Missing.to_string()))
}

fn changed(common: &Common, status: &Status) -> Done {
    match common.json {
        true => say::print_json(&status.to_json()),
        false => Ok(0),
    }
}

fn show(job: &Value) -> Done {
    let text = serde_json::to_string_pretty(job);
    let text = text.map_err(|error| Problem::usage(error.to_string()))?;
    // JSON spells out some of what a terminal acts on, not all.
    let text: Vec<String> = text.lines().map(say::plain).collect();
    say::print(&format!("{}\n", text.join("\n")))
}

fn list(common: &Common, all: &[Status]) -> Done {
    let all: Vec<Value> = all.iter().map(Status::to_json).collect();
    if common.json {
        return say::print_json(&all);
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    let rows: Vec<_> = all
        .iter()
        .map(|job| {
            let what = if job["api"].is_null() {
                &job["command"]
            } else {
                &job["api"]
            };
            let shown =
                ["id", "state", "type", "schedule", "timezone"].map(|name| text(&job[name]));
            let mut row = shown.to_vec();
            row.extend([text(&job["last"]["status"]), text(what)]);
            row
        })
        .collect();
    let head = [
        "ID", "STATE", "TYPE", "SCHEDULE", "TIMEZONE", "LAST", "ACTION",
    ];
    table(&head, rows)
}

/// Schedules, commands, names of workers and errors are anybody's text.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> Done {
    let plain = |row: Vec<String>| row.iter().map(|cell| say::plain(cell)).collect();
    let rows: Vec<Vec<String>> = rows.into_iter().map(plain).collect();
    say::print(&say::table(head, &rows))
}

fn history(common: &Common, executions: &[Execution]) -> Done {
    if common.json {
        let all: Vec<Value> = executions.iter().map(Execution::to_json).collect();
        return say::print_json(&json!(all));
    }
    let rows: Vec<_> = executions
        .iter()
        .map(|execution| {
            let took = execution.duration.map(job::duration::format);
            vec![
                execution.slot.to_string(),
                execution.state.as_str().into(),
                execution.retries.to_string(),
                say::time(execution.at),
                took.unwrap_or_else(|| "-".into()),
                execution.worker.clone(),
                execution.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let head = ["TICK", "STATUS", "RETRIES", "AT", "TOOK", "WORKER", "ERROR"];
    table(&head, rows)
}

fn read(path: &Path) -> Result<String, Problem> {
    let failed = |error| Problem::usage(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin()
            .take(JOB_BYTES_MAX + 1)
            .read_to_string(&mut text),
        false => std::fs::File::open(path)
            .and_then(|file| file.take(JOB_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    match read.map_err(failed)? as u64 > JOB_BYTES_MAX {
        true => Err(Problem::usage("a job is no longer than 64 KiB")),
        false => Ok(text),
    }
}
