//! One node: a process that uses the library, and does what it is told on its standard input.

use std::io::{BufRead, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use raft_once::{Claim, ClaimError, Error, Network, NetworkError, Once, Secret, Ticket};
use tokio::sync::mpsc;

use super::protocol::{Answer, Ask, Decision, EVENT, View};

pub const NETWORK: &str = "cluster-example";

/// The cell that the story is about.
const CELL: &str = "first-come";

/// Variables, not arguments: everybody on a machine sees everybody's arguments.
pub const SECRET_VARIABLE: &str = "RAFT_ONCE_SECRET";
pub const TICKET_VARIABLE: &str = "RAFT_ONCE_TICKET";

/// So that a voter without a majority says so soon. It must exceed the time in which a dead
/// leader is noticed and replaced.
pub const WRITE_TIMEOUT_MS: u64 = 4_000;

/// What the arguments say.
pub enum Plan {
    Voter {
        name: String,
        data_dir: String,
        electorate: Vec<(String, String)>,
    },
    Observer,
}

impl Plan {
    /// `None` without arguments: then this is the parent.
    pub fn from_args(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let args: Vec<String> = args.collect();
        match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(None),
            ["observer"] => Ok(Some(Self::Observer)),
            ["voter", name, data_dir, ref voters @ ..] => {
                let voters = voters.iter().map(|voter| voter.split_once('='));
                let electorate = voters
                    .map(|voter| voter.map(|(name, addr)| (name.into(), addr.into())))
                    .collect::<Option<_>>();
                Ok(Some(Self::Voter {
                    name: name.into(),
                    data_dir: data_dir.into(),
                    electorate: electorate.ok_or("a voter is name=host:port")?,
                }))
            }
            _ => Err(format!("no such arguments: {args:?}")),
        }
    }

    pub fn to_args(&self) -> Vec<String> {
        match self {
            Self::Voter {
                name,
                data_dir,
                electorate,
            } => {
                let mut args = vec!["voter".into(), name.clone(), data_dir.clone()];
                args.extend(electorate.iter().map(|(n, addr)| format!("{n}={addr}")));
                args
            }
            Self::Observer => vec!["observer".into()],
        }
    }
}

async fn start(plan: Plan) -> Result<Network, NetworkError> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    match plan {
        Plan::Voter {
            name,
            data_dir,
            electorate,
        } => {
            Network::builder(NETWORK)
                .electorate(electorate)
                .voter(name)
                .secret(Secret::try_from(variable(SECRET_VARIABLE))?)
                .data_dir(data_dir)
                .write_timeout_ms(WRITE_TIMEOUT_MS)
                .start()
                .await
        }
        Plan::Observer => {
            let ticket: Ticket = variable(TICKET_VARIABLE).parse()?;
            Network::join(ticket).await
        }
    }
}

/// The life of a node.
pub async fn run(plan: Plan) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("raft_once=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let mut asks = asks();
    let network = match start(plan).await {
        Ok(network) => network,
        Err(error) => {
            say(&match error {
                NetworkError::Bind { .. } => Answer::PortTaken(error.to_string()),
                _ => Answer::Failed(error.to_string()),
            });
            return ExitCode::FAILURE;
        }
    };
    let once = Once::<String>::writer(&network, CELL);
    say(&Answer::Ready(network.node_id().to_string()));
    tokio::spawn(report(network.clone(), once.clone()));

    while let Some(ask) = asks.recv().await {
        let last = ask == Ask::Stop;
        match answer(&network, &once, ask).await {
            Some(answer) => say(&answer),
            None => drop(say_view("", &network, &once)),
        }
        if last {
            return ExitCode::SUCCESS;
        }
    }
    ExitCode::SUCCESS
}

/// What to answer; `None` is this node's view.
async fn answer(network: &Network, once: &Once<String>, ask: Ask) -> Option<Answer> {
    let failed = |error: &dyn std::error::Error| Answer::Failed(error.to_string());
    Some(match ask {
        Ask::Claim(value) => match once.claim(value).await {
            Ok(Claim::Won(version)) => Answer::Won {
                version: version.as_u64(),
            },
            Ok(Claim::Lost { winner, .. }) => Answer::Lost { winner },
            Err(ClaimError::Offline(pending)) => Answer::Offline(pending.into_value()),
            Err(error) => failed(&error),
        },
        Ask::Write(value) => match once.write(value).await {
            Ok(version) => Answer::Written {
                version: version.as_u64(),
            },
            Err(Error::Offline(value)) => Answer::Offline(value),
            Err(error) => failed(&error),
        },
        Ask::View => return None,
        Ask::ReadLinearizable => match once.read_linearizable().await {
            Ok(_) => return None,
            Err(error) => failed(&error),
        },
        Ask::Ticket => Answer::Ticket(network.ticket().to_string()),
        Ask::Stop => {
            network.shutdown().await;
            Answer::Stopped
        }
    })
}

fn view(network: &Network, once: &Once<String>) -> View {
    let status = network.status();
    let cells = &status.cells;
    let cell = cells.iter().find(|cell| cell.group == once.group_id());
    let decision = once.decision().map(|decision| Decision {
        winner: decision.winner.to_string(),
        version: decision.version.as_u64(),
        proposed_at_ms: match decision.proposed_at.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis(),
            Err(_) => 0,
        },
    });
    View {
        value: once.read(),
        version: once.version().as_u64(),
        decision,
        online: cell.is_some_and(|cell| cell.online),
        voters: status.voters.iter().filter(|voter| voter.linked).count(),
        waiting_for: status.waiting_for.len(),
        leader: cell.and_then(|cell| cell.leader).map(|id| id.to_string()),
    }
}

/// Says what this node sees whenever it has changed.
async fn report(network: Network, once: Once<String>) {
    loop {
        // Made before looking, so that no change falls in between.
        let updated = once.when().updated();
        let was_online = say_view(EVENT, &network, &once);
        let seen = tokio::select! {
            seen = updated => seen,
            seen = once.when().offline(), if was_online => seen,
            seen = once.when().online(), if !was_online => seen,
        };
        if !seen.is_reached() {
            return;
        }
    }
}

/// What the parent asks. When it has died, this process ends too.
fn asks() -> mpsc::UnboundedReceiver<Ask> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match Ask::parse(&line) {
                // Nobody takes it after `Stop`.
                Some(ask) => drop(sender.send(ask)),
                None => say(&Answer::Failed(format!("no such request: {line:?}"))),
            }
        }
        std::process::exit(0);
    });
    receiver
}

fn say(answer: &Answer) {
    say_line(std::io::stdout().lock(), &answer.to_string());
}

/// Says what this node sees, and returns whether it is online.
fn say_view(prefix: &str, network: &Network, once: &Once<String>) -> bool {
    // Locked before looking, so that an older view is never said after a newer one.
    let out = std::io::stdout().lock();
    let view = view(network, once);
    let online = view.online;
    say_line(out, &format!("{prefix}{}", Answer::View(view)));
    online
}

/// One whole line. Without anybody to read it there is nothing left to live for.
fn say_line(mut out: StdoutLock<'_>, line: &str) {
    let line = line.replace('\n', " ");
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
