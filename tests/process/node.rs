//! The parent's side: a handle on a node in a child process.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{DEADLINE, FIELD, MARK, RECORD, Spec, until};

/// The fields of a reply.
pub type Reply = Vec<String>;

/// A node in a process of its own. Dropped, the process is killed; if that is because the test
/// failed, what the process had logged is printed.
pub struct Node {
    pub name: String,
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
    waiting: Arc<Mutex<Waiting>>,
    log: Arc<Mutex<String>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    first: Mutex<Option<Receiver<Reply>>>,
    next: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, Sender<Reply>>,
    ended: bool,
}

/// What a node says of itself.
#[derive(Debug, Clone)]
pub struct Status {
    pub in_touch: bool,
    pub waiting_for: String,
    pub failure: String,
    /// By name: linked, and why not.
    pub voters: BTreeMap<String, (bool, String)>,
    /// By group: awake, and the term.
    pub cells: BTreeMap<String, (bool, u64)>,
    /// By group: what else a person may want to know of it.
    pub cells_told: BTreeMap<String, String>,
}

impl Node {
    /// Starts the process; [`ready`](Self::ready) waits for the node in it.
    pub fn spawn(spec: &Spec) -> Self {
        let exe = std::env::current_exe().expect("a test binary has a path");
        let mut command = match &spec.netns {
            Some(netns) => {
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", netns]);
                if let Some(hosts) = &spec.hosts {
                    // `ip` has given it mounts of its own, so nobody else sees this one.
                    let mount = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
                    ip.args(["sh", "-c", mount]).arg(hosts);
                }
                ip.arg(exe);
                ip
            }
            None => Command::new(exe),
        };
        let (key, value) = spec.to_env();
        let mut child = command
            .args(["child_entry", "--exact", "--nocapture", "--test-threads=1"])
            .env(key, value)
            .envs(spec.env.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a test binary can be executed");
        let (first, first_reply) = channel();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        waiting.lock().unwrap().calls.insert(0, first);
        let log = Arc::<Mutex<String>>::default();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = child.stderr.take().expect("piped");
        let (answered, logged) = (waiting.clone(), log.clone());
        let readers = vec![
            std::thread::spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    let Some((_, line)) = line.split_once(MARK) else {
                        continue;
                    };
                    let mut fields = line.split(FIELD).map(str::to_string);
                    let id = fields.next().and_then(|id| id.parse().ok()).expect("an id");
                    let call = answered.lock().unwrap().calls.remove(&id);
                    if let Some(call) = call {
                        let _ = call.send(fields.collect());
                    }
                }
                let mut answered = answered.lock().unwrap();
                answered.ended = true;
                answered.calls.clear();
            }),
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = stderr.read(&mut bytes) {
                    let text = String::from_utf8_lossy(&bytes[..read]);
                    logged.lock().unwrap().push_str(&text);
                }
            }),
        ];
        Self {
            name: spec.voter.clone().unwrap_or_else(|| "observer".into()),
            stdin: Mutex::new(child.stdin.take()),
            child: Mutex::new(child),
            waiting,
            log,
            readers: Mutex::new(readers),
            first: Mutex::new(Some(first_reply)),
            next: AtomicU64::new(1),
        }
    }

    /// Waits until the node has started, and returns why not if it has not.
    pub fn try_ready(&self) -> Result<(), String> {
        let first = self.first.lock().unwrap().take().expect("asked once");
        let reply = self.receive("start", &first).ok_or("the process died")?;
        match reply[0].as_str() {
            "ready" => Ok(()),
            _ => Err(reply[1..].join(" ")),
        }
    }

    pub fn ready(&self) {
        if let Err(error) = self.try_ready() {
            panic!("{} does not start: {error}", self.name);
        }
    }

    /// Sends a command; the reply comes later, or never if the process is killed.
    pub fn begin(&self, words: &[&str]) -> Receiver<Reply> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        {
            let mut waiting = self.waiting.lock().unwrap();
            if !waiting.ended {
                waiting.calls.insert(id, sender);
            }
        }
        let field = FIELD.to_string();
        let line = format!("{id}{FIELD}{}\n", words.join(&field));
        if let Some(stdin) = &mut *self.stdin.lock().unwrap() {
            // A process that is gone does not answer either, which the receiver tells.
            let _ = stdin.write_all(line.as_bytes());
        }
        receiver
    }

    /// The reply, or `None` if the process is gone.
    pub fn receive(&self, what: &str, reply: &Receiver<Reply>) -> Option<Reply> {
        match reply.recv_timeout(DEADLINE) {
            Ok(reply) => Some(reply),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("in vain awaited: the reply of {} to {what}", self.name)
            }
        }
    }

    /// The reply to a command, or `None` if the process is gone.
    pub fn try_call(&self, words: &[&str]) -> Option<Reply> {
        self.receive(&words.join(" "), &self.begin(words))
    }

    /// The reply to a command.
    pub fn call(&self, words: &[&str]) -> Reply {
        self.try_call(words)
            .unwrap_or_else(|| panic!("{} died before it answered {words:?}", self.name))
    }

    /// The same for many commands at once.
    pub fn call_all(&self, calls: &[Vec<&str>]) -> Vec<Reply> {
        let begun: Vec<_> = calls.iter().map(|words| self.begin(words)).collect();
        let replies = begun.iter().zip(calls).map(|(reply, words)| {
            self.receive(&words.join(" "), reply)
                .unwrap_or_else(|| panic!("{} died before it answered {words:?}", self.name))
        });
        replies.collect()
    }

    /// What a linearizable read says, asked again while too few voters are in touch.
    pub fn linear(&self, cell: &str) -> Reply {
        let mut reply = Reply::new();
        until(format!("{} reads {cell}", self.name), || {
            reply = self.call(&["linear", cell]);
            reply[0] != "offline"
        });
        reply
    }

    /// A claim, asked about until there is an answer: a slow machine proves nothing.
    pub fn claim(&self, cell: &str, value: &str) -> Reply {
        self.answered(&["claim", cell, value])
    }

    /// The reply to a claim or a write, asked again while it is not confirmed in time.
    pub fn answered(&self, words: &[&str]) -> Reply {
        let mut reply = Reply::new();
        until(format!("{} has {words:?} answered", self.name), || {
            reply = self.call(words);
            reply[0] != "offline"
        });
        reply
    }

    pub fn status(&self) -> Status {
        let reply = self.call(&["status"]).join(&FIELD.to_string());
        let mut records = reply
            .split(RECORD)
            .map(|r| r.split(FIELD).collect::<Vec<_>>());
        let node = records.next().expect("a first record");
        let mut status = Status {
            in_touch: node[0] == "true",
            waiting_for: node[1].into(),
            failure: node[2].into(),
            voters: BTreeMap::new(),
            cells: BTreeMap::new(),
            cells_told: BTreeMap::new(),
        };
        for record in records {
            let (name, yes) = (record[1].to_string(), record[2] == "true");
            match record[0] {
                "voter" => {
                    status.voters.insert(name, (yes, record[3].into()));
                }
                _ => {
                    let term = record[3].parse().expect("a term");
                    status.cells_told.insert(name.clone(), record[4].into());
                    status.cells.insert(name, (yes, term));
                }
            }
        }
        status
    }

    /// Waits until the node is linked to these voters.
    pub fn linked_to(&self, voters: &[&str]) {
        until(format!("{} is linked to {voters:?}", self.name), || {
            let status = self.status();
            status.in_touch && voters.iter().all(|voter| status.voters[*voter].0)
        });
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// An orderly shutdown, and the end of the process. Returns all that it had logged.
    pub fn end(self) -> String {
        assert_eq!(self.call(&["shutdown"]), ["done"]);
        drop(self.stdin.lock().unwrap().take());
        until(format!("the process of {} ends", self.name), || {
            let ended = self.child.lock().unwrap().try_wait();
            ended.expect("it is our child").is_some()
        });
        for reader in self.readers.lock().unwrap().drain(..) {
            reader.join().expect("no reader panics");
        }
        self.log()
    }

    /// The process's id: whatever was executed before the node has become it.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// How the process ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        let ended = self.child.lock().unwrap().try_wait();
        ended.expect("it is our child")
    }

    /// What the process has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            println!("--- log of {}:\n{}---", self.name, self.log());
        }
    }
}
