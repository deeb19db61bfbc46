//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::jobs::Jobs;
use super::tick::Every;
use crate::job::duration::parse as duration;
use crate::machine::task::REASON_BYTES_MAX;
use crate::task::{ClaimId, Failure, Outcome, Policy};

/// Run a command at most once, on one machine or across a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "once",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "\
Examples:
  once run db-init -- run-migrations
  once run backup --every day -- /usr/local/bin/backup
  once --ticket-file /etc/once/ticket run db-init -- run-migrations
  once list

Exit codes:
  0    it ran here and succeeded, or had succeeded elsewhere
  N    it ran here, or elsewhere, and failed with N (128+N: by signal N)
  1    what was asked for cannot be done, or the answer is no
  64   the command line or a manifest is wrong
  69   no majority of voters, or no store, to ask; nothing was claimed
  75   somebody else runs it still
  79   a claim is in doubt, or its executor is gone: see `once get NAME`
  126  the command cannot be executed; nothing was claimed
  127  the command was not found; nothing was claimed")]
pub(super) struct Once {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// The namespace of the task.
    #[arg(
        short,
        long,
        global = true,
        default_value = "default",
        env = "ONCE_NAMESPACE"
    )]
    pub(super) namespace: String,
    /// Use the cluster that the ticket in this file is for. A ticket may also be in ONCE_TICKET. Without
    /// one, the tasks are those of this user on this machine.
    #[arg(long, global = true, value_name = "FILE", env = "ONCE_TICKET_FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(super) ticket_file: Option<PathBuf>,
    /// In whose name: shown as the executor, and as who deletes, resets and resolves. By default the
    /// name of this host.
    #[arg(long = "as", global = true, value_name = "WHO", env = "ONCE_EXECUTOR")]
    pub(super) who: Option<String>,
    /// Try for this long if no majority of the voters answers.
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = duration, env = "ONCE_ANSWER_WITHIN")]
    pub(super) answer_within: Duration,
    /// Speak JSON, for machines.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Run(Run),
    Claim(Claim),
    Finish(Finish),
    /// Say whether a task has been executed: exit code 0 if it has, 1 if not.
    ///
    /// A task that runs counts as executed. This only reads: whoever acts on the answer races with all
    /// others who do. `once run` does not.
    #[command(
        after_help = "Example:\n  once check db-init && echo \"somebody has run it, or does\""
    )]
    Check(Name),
    Create(Create),
    List(List),
    Get(Get),
    Wait(Wait),
    /// Delete a task. Whoever runs it then runs it again.
    #[command(after_help = "Example:\n  once delete db-init")]
    Delete(Name),
    /// Have a task run again: begin a new generation.
    #[command(after_help = "Example:\n  once reset db-init && once run db-init -- run-migrations")]
    Reset(Name),
    Resolve(Resolve),
    Watch(Watch),
    /// Show what operators did: the last 256 resets, deletions and resolutions.
    #[command(after_help = "Examples:\n  once deeds\n  once deeds --json")]
    Deeds,
    Apply(Apply),
    Jobs(Jobs),
    Serve(Serve),
    Ticket(Ticket),
    Secret(Secret),
    Status(StatusOf),
    Completions(Completions),
    Man(Man),
}

/// A task by its name.
#[derive(Debug, Args)]
pub(super) struct Name {
    /// The name of the task.
    pub(super) name: String,
}

/// What a task is to be, if this creates it.
#[derive(Debug, Clone, Args)]
pub(super) struct Spec {
    /// Forget the task this long after it has ended. It can run again then.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) ttl: Option<Duration>,
    /// Start it again when it fails, or when its executor dies. Attempts may overlap: ONCE_ATTEMPT and
    /// ONCE_VERSION tell them apart.
    #[arg(long)]
    pub(super) at_least_once: bool,
    /// How often it is started again.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        requires = "at_least_once"
    )]
    pub(super) retries: u32,
    /// The pause before it is started again; it doubles each time.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, requires = "at_least_once")]
    pub(super) backoff: Duration,
    /// The longest pause.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, requires = "at_least_once")]
    pub(super) backoff_max: Duration,
}

impl Spec {
    pub(super) fn policy(&self) -> Policy {
        match self.at_least_once {
            false => Policy::AtMostOnce,
            true => Policy::AtLeastOnce {
                retries_max: self.retries,
                // A duration is a hundred years at most.
                backoff_first_ms: self.backoff.as_millis() as u64,
                backoff_max_ms: self.backoff_max.as_millis() as u64,
            },
        }
    }
}

/// Run a command, unless it was run before or somebody else is at it.
///
/// The claim is durable, in a cluster on a majority of the voters, before the command starts. Of all who
/// run this name one starts the command; the others wait for its outcome and end as it did.
///
/// The command gets ONCE_KEY, ONCE_CLAIM_ID, ONCE_ATTEMPT and ONCE_VERSION, and a process group of its
/// own. Signals are passed on to it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  once run db-init -- run-migrations
  once run report --every week --timezone Europe/Berlin -- make-report
  once run import --at-least-once --retries 5 -- import-data
  once run db-init --wait 2m -- run-migrations      # 75 if it takes others longer
  once run seed --skip-exit-code 100 -- seed-data   # 100 if it was done before")]
pub(super) struct Run {
    /// The name of the task.
    pub(super) name: String,
    #[command(flatten)]
    pub(super) spec: Spec,
    /// Run it once in each of these: the date or hour becomes a part of the name.
    #[arg(long, value_name = "PERIOD")]
    pub(super) every: Option<Every>,
    /// Whose hours and days these are.
    #[arg(long, value_name = "ZONE", default_value = "UTC", requires = "every")]
    pub(super) timezone: String,
    /// Wait at most this long for somebody else who runs it; without this, as long as it takes.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "no_wait")]
    pub(super) wait: Option<Duration>,
    /// Do not wait for others: exit with 75 at once.
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Exit with this code if it has succeeded before, or elsewhere.
    #[arg(long, value_name = "CODE", default_value_t = 0)]
    pub(super) skip_exit_code: u8,
    /// Try at most this long to record the outcome, if no majority of the voters is there then.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub(super) record_within: Duration,
    /// Write what came of it to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// Claim a task for a script, which then acts and calls `once finish`.
///
/// Prints the claim's id and exits with 0 if the task is the script's to run, with 1 if it is not.
/// `once run` does the same with fewer ways to go wrong. Nobody notices when a script dies: in a cluster
/// its task shows as abandoned 15 seconds after the claim, which harms nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  if id=$(once claim db-init); then
    if run-migrations; then once finish db-init --claim \"$id\"
    else once finish db-init --claim \"$id\" --failed \"migrations failed\"; fi
  fi")]
pub(super) struct Claim {
    /// The name of the task.
    pub(super) name: String,
    /// Forget the task this long after it has ended.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) ttl: Option<Duration>,
}

/// Record how a claimed task has ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  once finish db-init --claim \"$id\"
  once finish db-init --claim \"$id\" --failed \"no disk space\"")]
pub(super) struct Finish {
    /// The name of the task.
    pub(super) name: String,
    /// The id that `once claim` has printed.
    #[arg(long, value_name = "ID", env = "ONCE_CLAIM_ID")]
    pub(super) claim: ClaimId,
    #[command(flatten)]
    pub(super) ending: Ending,
}

#[derive(Debug, Args)]
pub(super) struct Ending {
    /// It failed, for this reason.
    #[arg(long, value_name = "REASON", conflicts_with = "exit_code")]
    pub(super) failed: Option<String>,
    /// It ended with this exit code; 0 is success.
    #[arg(long, value_name = "CODE")]
    pub(super) exit_code: Option<u8>,
}

impl Ending {
    pub(super) fn outcome(&self) -> Outcome {
        match (&self.failed, self.exit_code) {
            (Some(reason), _) => {
                // What is longer is cut in a cluster, too.
                let end = reason.floor_char_boundary(REASON_BYTES_MAX);
                Outcome::Failed(Failure::Error(reason[..end].into()))
            }
            (None, Some(code)) if code > 0 => Outcome::Failed(Failure::Exit(code.into())),
            _ => Outcome::SUCCESS,
        }
    }
}

/// Create a task, to be run later.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  once create db-init --ttl 24h")]
pub(super) struct Create {
    /// The name of the task.
    pub(super) name: String,
    #[command(flatten)]
    pub(super) spec: Spec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
    Yaml,
}

/// List the tasks of the namespace.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  once list\n  once list -o json")]
pub(super) struct List {
    /// As what.
    #[arg(short, long, default_value = "table")]
    pub(super) output: Output,
}

/// Show how a task stands.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  once get db-init\n  once get db-init -o yaml")]
pub(super) struct Get {
    /// The name of the task.
    pub(super) name: String,
    /// As what.
    #[arg(short, long, default_value = "table")]
    pub(super) output: Output,
}

/// Wait until a task has ended, and exit as it did.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  once wait stage-1 --timeout 10m && start-stage-2")]
pub(super) struct Wait {
    /// The name of the task.
    pub(super) name: String,
    /// Exit with 75 if it takes longer.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
}

/// Say how an abandoned task has ended, in place of its executor.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  once resolve db-init --succeeded
  once resolve db-init --failed \"the host burned down\"
  once reset db-init        # to have it run again instead")]
pub(super) struct Resolve {
    /// The name of the task.
    pub(super) name: String,
    /// It did what it was to do.
    #[arg(long, conflicts_with_all = ["failed", "exit_code"], required_unless_present_any = ["failed", "exit_code"])]
    pub(super) succeeded: bool,
    #[command(flatten)]
    pub(super) ending: Ending,
}

/// Show what changes in the namespace, as it does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  once watch\n  once watch db-init --json")]
pub(super) struct Watch {
    /// Only this task.
    pub(super) name: Option<String>,
}

/// Create the tasks of a manifest that are not there yet.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  once apply -f once.yaml")]
pub(super) struct Apply {
    /// The manifest: YAML documents of kind Once; - is the standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: PathBuf,
}

/// The voters of a cluster, and its secret.
#[derive(Debug, Args)]
pub(super) struct Cluster {
    /// The name of the cluster.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "once",
        env = "ONCE_CLUSTER"
    )]
    pub(super) cluster: String,
    /// All voters, 1, 3 or 5 of them, with their addresses.
    #[arg(long, value_name = "NAME=HOST:PORT", value_delimiter = ',', required = true, env = "ONCE_VOTERS", value_parser = voter)]
    pub(super) voters: Vec<(String, String)>,
    /// The file with the secret of the cluster, which may also be in ONCE_SECRET.
    #[arg(long, value_name = "FILE", env = "ONCE_SECRET_FILE")]
    pub(super) secret_file: Option<PathBuf>,
}

fn voter(text: &str) -> Result<(String, String), String> {
    let parts = text
        .split_once('=')
        .filter(|(name, addr)| !name.is_empty() && addr.contains(':'));
    let (name, addr) = parts.ok_or("a voter is NAME=HOST:PORT")?;
    Ok((name.into(), addr.into()))
}

/// Run a voter of a cluster, until it is told to stop by TERM or INT.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, on each of three hosts with its own name:
  once serve --voter a --voters a=10.0.0.1:7400,b=10.0.0.2:7400,c=10.0.0.3:7400 \\
    --secret-file /etc/once/secret --data-dir /var/lib/once --health 127.0.0.1:7401")]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) cluster: Cluster,
    /// Which of the voters this one is.
    #[arg(long, value_name = "NAME", env = "ONCE_VOTER")]
    pub(super) voter: String,
    /// Where it keeps what it has promised. It must outlive the process and belong to this voter alone.
    #[arg(long, value_name = "FOLDER", env = "ONCE_DATA_DIR")]
    pub(super) data_dir: PathBuf,
    /// The address to bind, if it is not that of the list.
    #[arg(long, value_name = "IP:PORT", env = "ONCE_BIND")]
    pub(super) bind: Option<SocketAddr>,
    /// Run the jobs of this namespace: their calls, and **their commands, as this user**. Whoever holds a
    /// ticket can create jobs.
    #[arg(long, value_name = "NAMESPACE", env = "ONCE_JOBS")]
    pub(super) jobs: Option<String>,
    /// When it is told to end, by TERM or INT, it begins no more jobs and waits for so long for those that
    /// run. A second signal ends it at once.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, env = "ONCE_DRAIN")]
    pub(super) drain: Duration,
    /// Answer the API of jobs here, by HTTP, and show a page of nodes, cells, tasks and jobs. Whoever can ask can
    /// create jobs: without a token, only this machine.
    #[arg(long, value_name = "IP:PORT", env = "ONCE_HTTP")]
    pub(super) http: Option<SocketAddr>,
    /// Answer only those that have the token in this file.
    #[arg(
        long,
        value_name = "FILE",
        env = "ONCE_HTTP_TOKEN_FILE",
        requires = "http"
    )]
    pub(super) http_token_file: Option<PathBuf>,
    /// Answer probes by HTTP here: /livez, /readyz, and /status as JSON.
    #[arg(long, value_name = "IP:PORT", env = "ONCE_HEALTH")]
    pub(super) health: Option<SocketAddr>,
}

/// Print a ticket, by which commands use the cluster. It is a secret.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  (umask 077; once ticket --voters a=10.0.0.1:7400,b=10.0.0.2:7400,c=10.0.0.3:7400 \\
    --secret-file /etc/once/secret > ticket)")]
pub(super) struct Ticket {
    #[command(flatten)]
    pub(super) cluster: Cluster,
}

/// Make a secret for a new cluster.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  once secret --out /etc/once/secret")]
pub(super) struct Secret {
    /// Write it to this file, which must not be there yet, for this user alone.
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

/// Show how the cluster stands: voters, links, and the namespace's leader and version.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  once --ticket-file ticket status\n  once --ticket-file ticket status --json"
)]
pub(super) struct StatusOf {}

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  once completions bash > /etc/bash_completion.d/once")]
pub(super) struct Completions {
    /// Which one.
    pub(super) shell: clap_complete::Shell,
}

/// Write the manual pages, one for each verb, into a folder.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  once man /usr/local/share/man/man1")]
pub(super) struct Man {
    /// The folder, which must be there.
    pub(super) folder: PathBuf,
}

/// The same tasks, by the command that scripts of konductor use.
#[derive(Debug, Parser)]
#[command(name = "koncli", version, subcommand_required = true)]
pub(super) struct Koncli {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) resource: Resource,
}

#[derive(Debug, Subcommand)]
pub(super) enum Resource {
    /// Tasks that are executed once.
    #[command(subcommand)]
    Once(KoncliVerb),
}

#[derive(Debug, Subcommand)]
pub(super) enum KoncliVerb {
    /// Say whether a task has been executed.
    #[command(after_help = "Example:\n  koncli once check db-init")]
    Check(Name),
    /// Create a task.
    Create(Create),
    /// List the tasks.
    List(List),
    /// Delete a task.
    #[command(after_help = "Example:\n  koncli once delete db-init")]
    Delete(Name),
}
