//! Three `once serve` processes for benches of whole processes.

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// What a cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Processes that are gone when this is.
pub struct Servers(pub Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

pub fn once(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_once"));
    command.env("ONCE_STATE_DIR", state);
    command
}

/// Runs it to its end. Nothing that fails is measured.
pub fn run(mut command: Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().expect("the command starts");
    let took = start.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}

pub fn until_it_answers(mut probe: impl FnMut() -> Command) {
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

pub fn spawn(mut command: Command, log: &Path) -> Child {
    let log = File::create(log).expect("a log");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(log).spawn().expect("a server starts")
}

/// Three voters that are told `more`, and the file of a ticket.
pub fn start_once(folder: &Path, more: &[&str]) -> (Servers, PathBuf) {
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
            .arg(folder.join(name))
            .args(more);
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
