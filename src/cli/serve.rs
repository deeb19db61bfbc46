//! A cluster: its voters, its secret and its tickets.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use futures::future::FusedFuture;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::{Cluster, Common, Secret as SecretArgs, Serve, Ticket as TicketArgs};
use super::board::{Board, read_secret};
use super::http::{self, Api, Port, Token};
use super::problem::{Done, FAILED, Problem, UNAVAILABLE};
use super::say;
use crate::id::Kind;
use crate::job::Jobs;
use crate::network::{Network, NetworkBuilder, NetworkStatus, Secret};
use crate::task::Tasks;

/// Holds the secret, in place of a file.
const SECRET: &str = "ONCE_SECRET";

/// The longest file of a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 4 * 1024;

/// How long `status` waits until it is in touch.
const IN_TOUCH_WITHIN: Duration = Duration::from_secs(5);

/// Of how many groups a status tells.
const GROUPS_SHOWN_MAX: usize = 1_000;

/// How often it looks whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

fn secret(file: Option<&Path>) -> Result<Secret, Problem> {
    let text = match file {
        Some(path) => read_secret(path, SECRET_BYTES_MAX)?,
        None => std::env::var(SECRET).map_err(|_| {
            Problem::usage(format!(
                "a cluster has a secret: name its file with --secret-file, or put it into {SECRET}; `once secret` makes one"
            ))
        })?,
    };
    text.parse()
        .map_err(|error| Problem::usage(format!("the secret cannot be used: {error}")))
}

fn builder(cluster: &Cluster) -> Result<NetworkBuilder, Problem> {
    let secret = secret(cluster.secret_file.as_deref())?;
    Ok(Network::builder(&cluster.cluster)
        .electorate(cluster.voters.clone())
        .secret(secret))
}

pub(super) async fn serve(args: &Serve, common: &Common) -> Done {
    tell_of_trouble();
    let token = args
        .http_token_file
        .as_deref()
        .map(Token::read)
        .transpose()?;
    if let Some(addr) = args.http {
        http::check_addr(addr, token)?;
    }
    // From here on: a signal that comes while it starts ends it in order, too.
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut builder = builder(&args.cluster)?
        .voter(&args.voter)
        .data_dir(&args.data_dir);
    if let Some(addr) = args.bind {
        builder = builder.bind(addr);
    }
    let health = bind("probes", args.health).await?;
    let door = bind("the API", args.http).await?;
    let network = tokio::select! {
        started = builder.start() => started?,
        _ = term.recv() => return Ok(0),
        _ = int.recv() => return Ok(0),
    };
    let mut text = format!(
        "voter {} of {} serves at {}",
        args.voter,
        args.cluster.cluster,
        network.local_addr()
    );
    if let Some(addr) = health.as_ref().and_then(Port::addr) {
        text.push_str(&format!(", probes at {addr}"));
    }
    if let Some(addr) = door.as_ref().and_then(Port::addr) {
        text.push_str(&format!(", API and page at http://{addr}/"));
    }
    say::note(common.json, &text);
    let probed = async {
        match &health {
            Some(port) => http::probe(port, &network).await,
            None => std::future::pending().await,
        }
    };
    let who = common.who.as_ref().unwrap_or(&args.voter);
    let asked = async {
        let api = Api {
            network: network.clone(),
            namespace: args.jobs.as_ref().unwrap_or(&common.namespace).clone(),
            token,
            who: who.clone(),
        };
        match &door {
            Some(port) => api.answer(port).await,
            None => std::future::pending().await,
        }
    };
    let failed = async {
        loop {
            if let Some(reason) = network.status().failure {
                return reason;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    let stop = CancellationToken::new();
    let worked = async {
        match &args.jobs {
            Some(namespace) => {
                let jobs = Jobs::new(&network, namespace).named(who);
                jobs.work_until(stop.cancelled()).await
            }
            None => {
                stop.cancelled().await;
                Ok(())
            }
        }
    };
    let mut worked = pin!(worked.fuse());
    let told = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
        if args.jobs.is_some() {
            say::note(
                common.json,
                "it begins no more jobs, and ends with those that run",
            );
        }
        tokio::select! {
            () = sleep(args.drain) => say::note(common.json, "jobs that run still are given up"),
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    let ended = tokio::select! {
        worked = &mut worked => worked.map(|()| 0).map_err(Problem::from),
        () = probed => Ok(0),
        () = asked => Ok(0),
        reason = failed => Err(Problem::new(UNAVAILABLE, format!("the voter has stopped: {reason}"))),
        () = told => Ok(0),
    };
    let given_up = async {
        // Its commands are killed before this process ends.
        if !worked.is_terminated() {
            let _ = worked.await;
        }
    };
    tokio::join!(network.shutdown(), given_up);
    ended
}

async fn bind(what: &str, addr: Option<SocketAddr>) -> Result<Option<Port>, Problem> {
    let Some(addr) = addr else {
        return Ok(None);
    };
    let bound = Port::bind(addr).await;
    bound.map(Some).map_err(|error| {
        Problem::new(
            UNAVAILABLE,
            format!("cannot answer {what} at {addr}: {error}"),
        )
    })
}

/// What the voter has to complain of goes to the standard error.
fn tell_of_trouble() {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let ours = Targets::new().with_target("raft_once", tracing::Level::WARN);
    // There is none yet: nobody else would set one.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(ours)
        .try_init();
}

pub(super) fn ticket(args: &TicketArgs) -> Done {
    let ticket = builder(&args.cluster)?.ticket()?;
    say::print(&format!("{ticket}\n"))
}

pub(super) fn new_secret(args: &SecretArgs) -> Done {
    let text = format!("{}\n", Secret::generate().to_hex());
    let Some(path) = &args.out else {
        return say::print(&text);
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| {
        Problem::new(FAILED, format!("cannot write {}: {error}", path.display()))
    })?;
    Ok(0)
}

/// What a node says of itself, for machines.
pub(super) fn as_json(status: &NetworkStatus) -> Value {
    let voters = status.voters.iter().map(|voter| {
        json!({
            "name": voter.name,
            "nodeId": voter.node_id.to_string(),
            "address": voter.addr,
            "linked": voter.linked,
            "trouble": voter.trouble,
        })
    });
    let leader = |id| {
        let voter = status.voters.iter().find(|voter| Some(voter.node_id) == id);
        voter.map(|voter| voter.name.clone())
    };
    let groups = status.cells.iter().take(GROUPS_SHOWN_MAX).map(|cell| {
        json!({
            "group": cell.group.to_string(),
            "kind": match cell.group.kind() {
                Kind::Cell => "cell",
                Kind::Map => "map",
                Kind::Tasks => "tasks",
                Kind::Jobs => "jobs",
            },
            "decided": cell.decided,
            "version": cell.version.as_u64(),
            "leader": leader(cell.leader),
            "term": cell.term,
            "awake": cell.awake,
            "online": cell.online,
            "trouble": cell.trouble,
        })
    });
    json!({
        "cluster": status.network,
        "nodeId": status.node_id.to_string(),
        "inTouch": status.in_touch,
        "waitingFor": status.waiting_for,
        "failure": status.failure,
        "voters": voters.collect::<Vec<_>>(),
        "observers": status.observers,
        "groups": groups.collect::<Vec<_>>(),
        "groupsTotal": status.cells.len(),
    })
}

/// As seen from here, which is an observer.
pub(super) async fn status(board: &Board, common: &Common) -> Done {
    let Board::Cluster(cluster) = board else {
        return Err(Problem::usage(
            "this is about a cluster: name the file of a ticket with --ticket-file",
        ));
    };
    // Whether a majority is up, nobody knows but by asking one; and then the leader is known, too.
    let asked = Tasks::deeds(&cluster.tasks);
    let answered = timeout(IN_TOUCH_WITHIN, asked)
        .await
        .is_ok_and(|answer| answer.is_ok());
    let until = Instant::now() + Duration::from_secs(1);
    let mut status = cluster.network.status();
    while status
        .voters
        .iter()
        .any(|voter| !voter.linked && voter.trouble.is_none())
        && Instant::now() < until
    {
        sleep(LOOK_AGAIN).await;
        status = cluster.network.status();
    }
    let code = if answered { 0 } else { UNAVAILABLE };
    if common.json {
        let mut all = as_json(&status);
        all["majority"] = answered.into();
        say::print_json(&all)?;
        return Ok(code);
    }
    let rows = status.voters.iter().map(|voter| {
        let how = if voter.linked {
            "linked".into()
        } else {
            voter.trouble.clone().unwrap_or_else(|| "not linked".into())
        };
        vec![voter.name.clone(), voter.addr.clone(), how]
    });
    let mut text = say::table(&["VOTER", "ADDRESS", "LINK"], &rows.collect::<Vec<_>>());
    let group = cluster.tasks.group_id();
    if let Some(cell) = status.cells.iter().find(|cell| cell.group == group) {
        let leader = status
            .voters
            .iter()
            .find(|voter| Some(voter.node_id) == cell.leader);
        let leader = leader.map_or("none known", |voter| &voter.name);
        text.push_str(&format!(
            "namespace {}: leader {leader}, version {}\n",
            common.namespace, cell.version
        ));
    }
    let majority = if answered {
        "a majority of the voters answers"
    } else {
        "no majority of the voters answers"
    };
    say::print(&format!("{text}{majority}\n"))?;
    Ok(code)
}
