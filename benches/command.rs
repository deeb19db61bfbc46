//! What whole processes take: `once` on one machine and on a cluster of three `once serve`, beside
//! `etcdctl` on three nodes of etcd, if they are installed (`etcd-server` and `etcd-client` of Debian).
//!
//! `cargo bench --features cli --bench command`. Systems take turns in each round; compare figures of
//! one run only. `etcdctl` is given one endpoint, which spares it two connections.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{NAMES, Servers, once, run, spawn, start_once, until_it_answers};
use tempfile::TempDir;

mod common;

const WARM_UP: usize = 5;
const ROUNDS: usize = 100;

/// Something that is measured: the command of a round.
struct Subject {
    name: &'static str,
    command: Box<dyn Fn(usize) -> Command>,
}

/// Three nodes of etcd, and the endpoint of one, if etcd is installed.
fn start_etcd(folder: &Path) -> Option<(Servers, String)> {
    let is_there = |program: &str| {
        let mut command = Command::new(program);
        let status = command
            .arg("version")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok()
    };
    if !is_there("etcd") || !is_there("etcdctl") {
        println!("etcd and etcdctl are not installed, and left out");
        return None;
    }
    let sockets = [(); 6].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let urls = sockets.map(|socket| {
        let addr = socket.local_addr().expect("bound");
        format!("http://{addr}")
    });
    let (clients, peers) = urls.split_at(3);
    let all: Vec<String> = NAMES
        .iter()
        .zip(peers)
        .map(|(name, peer)| format!("{name}={peer}"))
        .collect();
    let servers = (0..3).map(|n| {
        let mut command = Command::new("etcd");
        let data = folder.join(format!("etcd-{}", NAMES[n]));
        command.arg("--data-dir").arg(&data).args([
            "--name",
            NAMES[n],
            "--log-level",
            "error",
            "--listen-client-urls",
            &clients[n],
            "--advertise-client-urls",
            &clients[n],
            "--listen-peer-urls",
            &peers[n],
            "--initial-advertise-peer-urls",
            &peers[n],
            "--initial-cluster",
            &all.join(","),
        ]);
        spawn(command, &folder.join(format!("etcd-{}.log", NAMES[n])))
    });
    let servers = Servers(servers.collect());
    let endpoint = clients[0].clone();
    until_it_answers(|| etcdctl(&endpoint, &["endpoint", "health"]));
    Some((servers, endpoint))
}

fn etcdctl(endpoint: &str, args: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoint}"))
        .args(args);
    command
}

fn main() {
    // On the disk that the project is built on: a memory file system would flatter.
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let path = folder.path();
    let mut subjects = vec![Subject {
        name: "true, alone",
        command: Box::new(|_| Command::new("true")),
    }];
    let task = |state: PathBuf, ticket: Option<PathBuf>, skips: bool| {
        move |round: usize| {
            let mut command = once(&state);
            if let Some(ticket) = &ticket {
                command.arg("--ticket-file").arg(ticket);
            }
            let name = match skips {
                false => format!("k{round}"),
                true => "k0".into(),
            };
            command.args(["run", &name, "--", "true"]);
            command
        }
    };
    let embedded = path.join("embedded");
    for (name, skips) in [
        ("once run k -- true, one machine, runs", false),
        ("once run k -- true, one machine, skips", true),
    ] {
        let command = Box::new(task(embedded.clone(), None, skips));
        subjects.push(Subject { name, command });
    }
    let (_voters, ticket) = start_once(path, &[]);
    for (name, skips) in [
        ("once run k -- true, cluster, runs", false),
        ("once run k -- true, cluster, skips", true),
    ] {
        let command = Box::new(task(path.into(), Some(ticket.clone()), skips));
        subjects.push(Subject { name, command });
    }
    let etcd = start_etcd(path);
    if let Some((_, endpoint)) = &etcd {
        let at = endpoint.clone();
        subjects.push(Subject {
            name: "etcdctl lock k true",
            command: Box::new(move |round| etcdctl(&at, &["lock", &format!("l{round}"), "true"])),
        });
        let at = endpoint.clone();
        subjects.push(Subject {
            name: "etcdctl get k",
            command: Box::new(move |_| etcdctl(&at, &["get", "k"])),
        });
        run(etcdctl(endpoint, &["put", "k", "v"]));
    }
    let mut took: Vec<Vec<Duration>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..WARM_UP + ROUNDS {
        // Each begins a round now and then.
        for n in 0..subjects.len() {
            let n = (n + round) % subjects.len();
            let passed = run((subjects[n].command)(round));
            if round >= WARM_UP {
                took[n].push(passed);
            }
        }
    }
    println!("{:<42} {:>9} {:>9} {:>9}", "", "median", "90 %", "worst");
    for (subject, mut took) in subjects.iter().zip(took) {
        took.sort_unstable();
        let ms = |at: usize| format!("{:.2} ms", took[at].as_secs_f64() * 1e3);
        println!(
            "{:<42} {:>9} {:>9} {:>9}",
            subject.name,
            ms(ROUNDS / 2),
            ms(ROUNDS * 9 / 10),
            ms(ROUNDS - 1)
        );
    }
}
