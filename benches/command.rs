//! What whole processes take: `once` on one machine and on a cluster of three `once serve`, beside
//! `etcdctl` on three nodes of etcd, if they are installed (`etcd-server` and `etcd-client` of Debian).
//!
//! `cargo bench --features cli --bench command`. Systems take turns in each round; compare figures of
//! one run only. `etcdctl` is given one endpoint, which spares it two connections.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const NAMES: [&str; 3] = ["a", "b", "c"];
const WARM_UP: usize = 5;
const ROUNDS: usize = 100;
/// What a cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Processes that are gone when this is.
struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Something that is measured: the command of a round.
struct Subject {
    name: &'static str,
    command: Box<dyn Fn(usize) -> Command>,
}

fn once(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_once"));
    command.env("ONCE_STATE_DIR", state);
    command
}

/// Runs it to its end. Nothing that fails is measured.
fn run(mut command: Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().expect("the command starts");
    let took = start.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}

fn until_it_answers(mut probe: impl FnMut() -> Command) {
    let give_up = Instant::now() + PATIENCE;
    while !probe()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the command starts")
        .success()
    {
        assert!(Instant::now() < give_up, "no answer from {:?}", probe());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let log = File::create(log).expect("a log");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(log).spawn().expect("a server starts")
}

/// Three voters, and the file of a ticket.
fn start_once(folder: &Path) -> (Servers, PathBuf) {
    let sockets = NAMES.map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    let voters: Vec<String> = NAMES
        .iter()
        .zip(&sockets)
        .map(|(name, socket)| format!("{name}={}", socket.local_addr().expect("bound")))
        .collect();
    drop(sockets);
    let (secret, ticket) = (folder.join("secret"), folder.join("ticket"));
    let voters = ["--voters", &voters.join(","), "--secret-file"].map(String::from);
    let mut make = once(folder);
    make.args(["secret", "--out"]).arg(&secret);
    run(make);
    let servers = NAMES.map(|name| {
        let mut command = once(folder);
        command.args(["serve", "--voter", name]).args(&voters);
        command
            .arg(&secret)
            .arg("--data-dir")
            .arg(folder.join(name));
        spawn(command, &folder.join(format!("{name}.log")))
    });
    let mut make = once(folder);
    make.arg("ticket").args(&voters).arg(&secret);
    let made = make.output().expect("a ticket");
    std::fs::write(&ticket, made.stdout).expect("the ticket is written");
    until_it_answers(|| {
        let mut command = once(folder);
        command.arg("--ticket-file").arg(&ticket).arg("list");
        command
    });
    (Servers(servers.into()), ticket)
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
    let (_voters, ticket) = start_once(path);
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
