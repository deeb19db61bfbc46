//! The child's side: clients that use cells and write down what they did and saw.
//!
//! Two lines a call, one before it is made and one when it is answered, each a single write to a
//! file: what a process knew when it was killed is there. Times are those of the machine's one
//! monotonic clock.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use raft_once::testing::{Call, History, Outcome};
use raft_once::{Claim, ClaimError, Error, Network, Once, OnceConfig, Pending, ReadError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

/// New cells come up at this pace, the same ones on every node at the same time.
const WINDOW_MS: u64 = 250;
const CELLS_PER_WINDOW: u64 = 3;

/// A client rests up to so long between two calls; but as long as the call took, where that was
/// longer: on a slow machine it leaves the processors to the nodes, whose links would go for
/// want of them.
const REST_MS_MAX: u64 = 12;

/// How long a client waits for a cell to be decided.
const WAIT_MS: u64 = 700;

/// How often a claim goes on with the proposal that was handed back to it.
const RETRIES_MAX: usize = 2;

/// Handles that a process keeps. A cell whose handle was dropped is opened anew.
const HANDLES_MAX: usize = 64;

/// Looks at cells at the end of a life that are under way at once.
const LOOKS: usize = 32;

/// Nanoseconds of the clock that all processes of this machine share.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The commands of the parent.
pub fn answer(network: Network, words: Vec<String>) -> BoxFuture<'static, Vec<String>> {
    Box::pin(async move {
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        match words[0].as_str() {
            "clients" => {
                let clients = Clients::new(network, &words[1], number(2) as u32, number(3));
                let clients = CLIENTS_OF_PROCESS.get_or_init(|| clients);
                for n in 0..number(5) {
                    let seed = number(4) ^ (n << 32);
                    tokio::spawn(clients.run(StdRng::seed_from_u64(seed)));
                }
                vec!["ok".into()]
            }
            "probe" => {
                let cell = number(1) as u32;
                match clients().write(cell).await {
                    Outcome::Acknowledged { .. } => vec!["ok".into()],
                    other => {
                        let group = clients().handle(cell).once.group_id();
                        vec![format!("{other:?}"), group.to_string()]
                    }
                }
            }
            "look" => {
                RESTING.store(true, Ordering::Relaxed);
                let cells = words[1..].iter().map(|cell| cell.parse().expect("a cell"));
                let cells: Vec<u32> = cells.collect();
                let parts = cells
                    .chunks(cells.len().div_ceil(LOOKS))
                    .map(<[u32]>::to_vec);
                let mut looks = JoinSet::new();
                for part in parts {
                    looks.spawn(clients().look(part));
                }
                let offline: usize = looks.join_all().await.into_iter().sum();
                vec![offline.to_string()]
            }
            "fill" => {
                let bytes = vec![7_u8; number(2) as usize];
                let config = OnceConfig::default();
                let cell = Once::<Vec<u8>>::writer_with_config(&network, &*words[1], config);
                let writes = (0..number(3)).map(|_| cell.write(bytes.clone()));
                match futures::future::try_join_all(writes).await {
                    Ok(_) => vec!["ok".into()],
                    Err(error) => vec!["error".into(), error.to_string()],
                }
            }
            "refuse" => {
                assert!(network.refuse_voter(&words[1], words[2] == "true"));
                vec!["ok".into()]
            }
            _ => vec!["error".into(), format!("unknown command {words:?}")],
        }
    })
}

/// Clients call no more: it is the end, and only looks are to be answered.
static RESTING: AtomicBool = AtomicBool::new(false);

static CLIENTS_OF_PROCESS: OnceLock<Clients> = OnceLock::new();

fn clients() -> &'static Clients {
    CLIENTS_OF_PROCESS.get().expect("clients come first")
}

/// A handle, and its number as a client of the history.
#[derive(Clone)]
struct Handle {
    client: u32,
    once: Once<u64>,
}

struct Clients {
    network: Network,
    file: File,
    /// Which start of a process of this run it is.
    start: u32,
    /// When the run began.
    began_ns: u64,
    handles: Mutex<HashMap<u32, Handle>>,
    handles_made: AtomicU32,
    values_made: AtomicU32,
}

impl Clients {
    fn new(network: Network, path: &str, start: u32, began_ns: u64) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Self {
            network,
            file: file.expect("the parent's folder is there"),
            start,
            began_ns,
            handles: Mutex::default(),
            handles_made: AtomicU32::new(0),
            values_made: AtomicU32::new(0),
        }
    }

    fn handle(&self, cell: u32) -> Handle {
        let mut handles = self.handles.lock().unwrap();
        if let Some(handle) = handles.get(&cell) {
            return handle.clone();
        }
        if handles.len() >= HANDLES_MAX {
            let gone = *handles.keys().next().expect("it is full");
            handles.remove(&gone);
        }
        let number = self.handles_made.fetch_add(1, Ordering::Relaxed);
        assert!(
            number < 1 << 18,
            "handles have 18 bits of a client's number"
        );
        let handle = Handle {
            client: self.start << 18 | number,
            once: Once::writer(&self.network, format!("cell-{cell}")),
        };
        handles.insert(cell, handle.clone());
        handle
    }

    /// No other call of the run proposes it.
    fn value(&self) -> u64 {
        let made = self.values_made.fetch_add(1, Ordering::Relaxed);
        u64::from(self.start) << 32 | u64::from(made)
    }

    fn note(&self, line: String) {
        (&self.file)
            .write_all((line + "\n").as_bytes())
            .expect("the disk of the test is not full");
    }

    async fn recorded(
        &self,
        cell: u32,
        call: Call,
        handle: &Handle,
        // Lazy, as futures are: what was noted before it is polled was noted before the call.
        making: impl Future<Output = Outcome>,
    ) -> Outcome {
        let mut history = History::new();
        let op = history.invoke_at(now_ns(), handle.client, cell, call);
        self.note(history.line(op));
        let outcome = making.await;
        history.finish_at(now_ns(), op, outcome);
        self.note(history.line(op));
        outcome
    }

    async fn write(&self, cell: u32) -> Outcome {
        let value = self.value();
        let handle = self.handle(cell);
        let once = &handle.once;
        let making = async {
            match once.write(value).await {
                Ok(version) => Outcome::Acknowledged {
                    version: version.as_u64(),
                },
                Err(Error::Offline(_) | Error::NetworkDown) => Outcome::Unclear,
                Err(error) => unexpected(&error),
            }
        };
        self.recorded(cell, Call::Write(value), &handle, making)
            .await
    }

    async fn claim(&self, cell: u32) -> Outcome {
        let value = self.value();
        let handle = self.handle(cell);
        let once = &handle.once;
        let making = async {
            let mut pending = Pending::from(value);
            for _ in 0..=RETRIES_MAX {
                pending = match once.claim(pending).await {
                    Ok(Claim::Won(version)) => {
                        return Outcome::Won {
                            version: version.as_u64(),
                        };
                    }
                    Ok(Claim::Lost { winner, .. }) => return Outcome::Lost { winner },
                    Err(ClaimError::Offline(same)) => same,
                    Err(ClaimError::NetworkDown) => break,
                    Err(error) => unexpected(&error),
                };
            }
            Outcome::Unclear
        };
        self.recorded(cell, Call::Claim(value), &handle, making)
            .await
    }

    async fn get_or_init(&self, cell: u32) -> Outcome {
        let value = self.value();
        let handle = self.handle(cell);
        let once = &handle.once;
        let making = async {
            match once.get_or_init(async || value).await {
                Ok(found) if *found == value => Outcome::Won {
                    version: once
                        .decision()
                        .map_or(0, |decided| decided.version.as_u64()),
                },
                Ok(found) => Outcome::Saw {
                    value: Some(*found),
                    version: once.version().as_u64(),
                },
                Err(ClaimError::Offline(_) | ClaimError::Unreached | ClaimError::NetworkDown) => {
                    Outcome::Unclear
                }
                Err(error) => unexpected(&error),
            }
        };
        self.recorded(cell, Call::GetOrInit(value), &handle, making)
            .await
    }

    async fn read(&self, cell: u32) -> Outcome {
        let handle = self.handle(cell);
        let once = &handle.once;
        let making = async { saw(once, once.read()) };
        self.recorded(cell, Call::Read, &handle, making).await
    }

    async fn read_linearizable(&self, cell: u32) -> Outcome {
        let handle = self.handle(cell);
        let once = &handle.once;
        let making = async {
            match once.read_linearizable().await {
                Ok(value) => saw(once, value),
                Err(ReadError::Offline | ReadError::NetworkDown) => Outcome::Unclear,
                Err(error) => unexpected(&error),
            }
        };
        self.recorded(cell, Call::ReadLinearizable, &handle, making)
            .await
    }

    async fn wait(&self, cell: u32) -> Outcome {
        let handle = self.handle(cell);
        let once = &handle.once;
        let making = async {
            let waiting = tokio::time::timeout(Duration::from_millis(WAIT_MS), once.wait());
            match waiting.await {
                Ok(Ok(value)) => saw(once, Some(*value)),
                Ok(Err(ReadError::Offline | ReadError::NetworkDown)) | Err(_) => Outcome::Unclear,
                Ok(Err(error)) => unexpected(&error),
            }
        };
        self.recorded(cell, Call::Wait, &handle, making).await
    }

    /// A last look at these cells, each asked for again until there is an answer or the third is
    /// missing. Returns how many were not answered.
    async fn look(&'static self, cells: Vec<u32>) -> usize {
        let mut unanswered = 0;
        for cell in cells {
            let mut outcome = Outcome::Unclear;
            for _ in 0..3 {
                if outcome == Outcome::Unclear {
                    outcome = self.read_linearizable(cell).await;
                }
            }
            unanswered += usize::from(outcome == Outcome::Unclear);
        }
        unanswered
    }

    async fn run(&'static self, mut random: StdRng) {
        while !RESTING.load(Ordering::Relaxed) {
            let window = (now_ns() - self.began_ns) / (WINDOW_MS * 1_000_000);
            let window = match random.random_range(0..10) {
                0..=5 => window,
                6 | 7 => window.saturating_sub(random.random_range(0..20)),
                _ => random.random_range(0..=window),
            };
            let cell = window * CELLS_PER_WINDOW + random.random_range(0..CELLS_PER_WINDOW);
            let cell = cell as u32;
            let began = Instant::now();
            let outcome = match random.random_range(0..20) {
                0..4 => self.write(cell).await,
                4..8 => self.claim(cell).await,
                8..11 => self.get_or_init(cell).await,
                11..14 => self.read(cell).await,
                14..18 => self.read_linearizable(cell).await,
                _ => self.wait(cell).await,
            };
            // On a node that has stopped, everything is unclear at once.
            let rest = match outcome {
                Outcome::Unclear => 50,
                _ => random.random_range(0..=REST_MS_MAX),
            };
            let rest = Duration::from_millis(rest).max(began.elapsed());
            tokio::time::sleep(rest).await;
        }
    }
}

fn saw(once: &Once<u64>, value: Option<u64>) -> Outcome {
    Outcome::Saw {
        value,
        version: once.version().as_u64(),
    }
}

/// An answer that no fault explains. The parent notices that this process died.
fn unexpected(error: &dyn std::fmt::Display) -> ! {
    eprintln!("a client got an answer that no fault explains: {error}");
    std::process::exit(3);
}
