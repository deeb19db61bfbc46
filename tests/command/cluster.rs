//! A cluster of three `once serve` processes.

use std::net::UdpSocket;
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;

use super::lab::{Lab, ended, kill, signal, until};

const NAMES: [&str; 3] = ["a", "b", "c"];

pub(super) struct Cluster {
    pub(super) lab: Lab,
    voters: String,
    nodes: [Option<Child>; 3],
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl Cluster {
    /// All voters are up, and have answered.
    pub(super) fn start() -> Self {
        // All are bound before any is released, so that no two are the same.
        let sockets = NAMES.map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let addrs = sockets.map(|socket| socket.local_addr().unwrap());
        let voters = NAMES
            .iter()
            .zip(addrs)
            .map(|(name, addr)| format!("{name}={addr}"));
        let mut cluster = Self {
            lab: Lab::new(),
            voters: voters.collect::<Vec<_>>().join(","),
            nodes: Default::default(),
        };
        cluster.lab.once("secret --out secret").expect(0);
        (0..3).for_each(|at| cluster.serve(at));
        let ticket = cluster
            .lab
            .once(&format!(
                "ticket --voters {} --secret-file secret",
                cluster.voters
            ))
            .expect(0);
        let path = cluster.lab.path("ticket");
        std::fs::write(&path, ticket).unwrap();
        cluster.lab.ticket = Some(path);
        cluster.answers();
        cluster
    }

    pub(super) fn serve(&mut self, at: usize) {
        let (name, voters) = (NAMES[at], &self.voters);
        let mut command = self.lab.command(env!("CARGO_BIN_EXE_once"));
        let args = format!(
            "serve --voter {name} --voters {voters} --secret-file secret --data-dir data-{name} \
             --jobs default"
        );
        let log = std::fs::File::create(self.lab.path(&format!("{name}.log"))).unwrap();
        command
            .args(args.split(' '))
            .env_remove("ONCE_TICKET_FILE")
            .stdout(Stdio::null())
            .stderr(log);
        self.nodes[at] = Some(command.spawn().unwrap());
    }

    /// Whether a node has said this since it was started.
    pub(super) fn says(&self, at: usize, what: &str) -> bool {
        let log = self.lab.lines(&format!("{}.log", NAMES[at]));
        log.iter().any(|line| line.contains(what))
    }

    pub(super) fn kill(&mut self, at: usize) {
        let mut node = self.nodes[at].take().unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    /// Tells it to end, once; it may take its time.
    pub(super) fn tell(&self, at: usize) {
        signal(self.nodes[at].as_ref().unwrap(), Signal::SIGTERM);
    }

    /// Waits until it has ended, telling it again and again if `hurry`; its exit code.
    pub(super) fn ended(&mut self, at: usize, hurry: bool) -> Option<i32> {
        let mut node = self.nodes[at].take().unwrap();
        until("a voter ends", || {
            let ended = node.try_wait().unwrap();
            if ended.is_none() && hurry {
                signal(&node, Signal::SIGTERM);
            }
            ended.map(|status| status.code())
        })
    }

    pub(super) fn at(name: &str) -> usize {
        NAMES.iter().position(|known| *known == name).unwrap()
    }

    /// Waits until a majority answers.
    pub(super) fn answers(&self) {
        until("a majority answers", || {
            (self.lab.once("list").code == Some(0)).then_some(())
        });
    }
}

#[test]
fn of_fifty_that_race_one_runs() {
    let cluster = Cluster::start();
    let lab = &cluster.lab;
    let racers: Vec<_> = (0..50)
        .map(|_| lab.start_line("run k -- echo x >> out"))
        .collect();
    for racer in racers {
        ended(racer).expect(0);
    }
    assert_eq!(lab.lines("out"), ["x"]);
    assert_eq!(lab.state_of("k"), "succeeded");
    lab.once("run k -- echo x >> out").expect(0);
    lab.once("run bad -- exit 3").expect(3);
    lab.once("run bad -- exit 4").expect(3);
    let id = lab.once("claim s").expect(0);
    lab.once("run s --no-wait -- true").expect(75);
    lab.once(&format!("finish s --claim {id}")).expect(0);
    lab.once("wait s").expect(0);
    lab.once("reset k").expect(0);
    lab.once("run k -- echo x >> out").expect(0);
    assert_eq!(lab.lines("out").len(), 2);
    let status = lab.json("status --json");
    assert_eq!(
        (
            &status["majority"],
            status["voters"].as_array().unwrap().len()
        ),
        (&true.into(), 3)
    );
    assert!(
        lab.once("status").expect(0).contains("leader "),
        "the leader is named"
    );
    assert!(lab.once("list -o yaml").expect(0).contains("kind: Once"));
    assert_eq!(lab.json("deeds --json")[0]["deed"], "reset");
}

#[test]
fn many_keys_are_raced_for_without_a_double() {
    Cluster::start().lab.race_for_keys(6);
}

#[test]
fn without_a_majority_nothing_is_claimed_and_nothing_runs() {
    let mut cluster = Cluster::start();
    (0..3).for_each(|at| cluster.kill(at));
    let went = cluster
        .lab
        .once("--answer-within 1ms run k -- echo x >> out");
    assert!(went.err.contains("majority"), "{went:?}");
    went.expect(69);
    assert!(cluster.lab.lines("out").is_empty());
    (0..3).for_each(|at| cluster.serve(at));
    cluster.answers();
    cluster.lab.once("run k -- echo x >> out").expect(0);
    assert_eq!(cluster.lab.lines("out"), ["x"]);
}

#[test]
fn an_outcome_waits_for_a_majority_and_is_delivered_later() {
    let mut cluster = Cluster::start();
    let wait = "until_go";
    let short = cluster.lab.start_line(&format!(
        "run short --record-within 1ms -- echo x >> out; {wait}; exit 5"
    ));
    let long = cluster
        .lab
        .start_line(&format!("run long -- echo y >> out; {wait}"));
    until("both run", || {
        (cluster.lab.lines("out").len() == 2).then_some(())
    });
    cluster.kill(0);
    cluster.kill(1);
    std::fs::write(cluster.lab.path("go"), "").unwrap();
    let went = ended(short);
    assert!(went.err.contains("undelivered"), "{went:?}");
    went.expect(79);
    let kept = || {
        std::fs::read_dir(cluster.lab.path("state/undelivered"))
            .unwrap()
            .count()
    };
    assert!((1..=2).contains(&kept()));
    cluster.serve(0);
    ended(long).expect(0);
    cluster.answers();
    // Whoever comes next delivers it.
    cluster.lab.once("run short -- echo z >> out").expect(5);
    assert_eq!(
        std::fs::read_dir(cluster.lab.path("state/undelivered"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(cluster.lab.lines("out").len(), 2);
}

#[test]
fn a_killed_voter_stops_nobody_and_a_killed_wrapper_leaves_it_abandoned() {
    let mut cluster = Cluster::start();
    let wrapper = cluster
        .lab
        .start_line("run dead -- echo x >> out; until_go");
    let lives = cluster
        .lab
        .start_line("run lives -- echo y >> out; until_go");
    until("both run", || {
        (cluster.lab.lines("out").len() == 2).then_some(())
    });
    cluster.kill(2);
    kill(wrapper);
    // Who waits is told, once the leader has not heard of it for long enough.
    cluster.lab.once("wait dead").expect(79);
    cluster.lab.once("run dead -- echo z >> out").expect(79);
    std::fs::write(cluster.lab.path("go"), "").unwrap();
    ended(lives).expect(0);
    cluster.lab.once("resolve dead --succeeded").expect(0);
    cluster.lab.once("run dead -- echo z >> out").expect(0);
    assert_eq!(cluster.lab.lines("out").len(), 2);
}

#[test]
fn a_voter_stops_in_order_and_answers_probes() {
    use std::io::{BufRead, BufReader, Read, Write};
    let lab = Lab::new();
    lab.once("secret --out secret").expect(0);
    lab.once("secret --out secret").expect(1);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    drop(socket);
    let line = format!(
        "serve --voter a --voters a={addr} --secret-file secret --data-dir data --health 127.0.0.1:0"
    );
    let mut voter = lab.start_line(&line);
    let mut said = BufReader::new(voter.stderr.take().unwrap()).lines();
    let said = said.next().unwrap().unwrap();
    let probes = said.rsplit(' ').next().unwrap().to_owned();
    let get = |path: &str| {
        let mut stream = std::net::TcpStream::connect(&probes).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(get("/livez").starts_with("HTTP/1.1 200"));
    until("it is ready", || {
        get("/readyz").starts_with("HTTP/1.1 200").then_some(())
    });
    assert!(get("/status").contains("\"inTouch\":true"));
    assert!(get("/nothing").starts_with("HTTP/1.1 404"));
    signal(&voter, Signal::SIGTERM);
    ended(voter).expect(0);
}

#[test]
fn a_wrapper_killed_at_any_moment_starts_it_at_most_once() {
    const KEYS: usize = 24;
    let cluster = Cluster::start();
    let lab = &cluster.lab;
    for key in 0..KEYS {
        let wrapper = lab.start_line(&format!("run {key} -- echo {key} >> out"));
        std::thread::sleep(std::time::Duration::from_millis(5 * key as u64));
        kill(wrapper);
    }
    // They wait at the same time until it is known who is gone.
    let runs: Vec<_> = (0..KEYS)
        .map(|key| lab.start_line(&format!("run {key} -- echo {key} >> out")))
        .collect();
    let codes: Vec<_> = runs.into_iter().map(|run| ended(run).code).collect();
    assert!(
        codes.iter().all(|code| [Some(0), Some(79)].contains(code)),
        "{codes:?}"
    );
    let ran = codes.iter().filter(|code| **code == Some(0)).count();
    let mut lines = lab.lines("out");
    lines.sort();
    let count = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), count, "one was started twice");
    assert!((ran..=KEYS).contains(&count), "{ran} of {count}");
}
