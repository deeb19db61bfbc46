//! What programs do with cells: open and drop handles, write, claim, read, wait, give up half way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::timeout;

use super::follower::{Followed, follow};
use super::handle::{Handle, is_slot, open};
use crate::probe::of_current;
use crate::testing::{Call, History, OpId, Outcome};
use crate::{Claim, ClaimError, Error, Network, Pending, ReadError};

/// How often a claim that is in doubt is repeated at most.
const CLAIMS_MAX: u32 = 4;

/// The pause between two looks for new cells, in milliseconds.
const WATCH_MS: u64 = 200;

/// The longest that a client waits for a value, in milliseconds.
const WAIT_MS: u64 = 8_000;

/// What all clients of a run share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) history: History,
    /// The value that was offered last: each is offered once.
    value: u64,
    /// Handles that were opened so far.
    pub(super) opened: u32,
    /// How many cells may be used by now.
    pub(super) cells: u32,
    /// Nothing new is begun.
    pub(super) stopped: bool,
    /// By life: how many of its clients are in the middle of a call.
    pub(super) busy: BTreeMap<u64, u32>,
    pub(super) given_up: u64,
    /// By life and cell: handles that stay open for as long as the process lives. A dead process
    /// drops nothing, and neither does this.
    pub(super) watched: BTreeMap<(u64, u32), Handle>,
    /// By life: what a stream of the map has seen, in those that have one.
    pub(super) followed: BTreeMap<u64, Followed>,
    /// What clients themselves have found to be wrong.
    pub(super) wrong: Vec<String>,
}

impl Shared {
    /// A history is that of handles: what one knew, another need not know yet.
    pub(super) fn next_client(&mut self) -> u32 {
        self.opened += 1;
        self.opened
    }

    pub(super) fn next_value(&mut self) -> u64 {
        self.value += 1;
        self.value
    }
}

pub(super) type Board = Arc<Mutex<Shared>>;

pub(super) fn on(board: &Board) -> MutexGuard<'_, Shared> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a handle on every other cell and keeps it, as programs do that wait for a value.
pub(super) async fn watch(board: Board, life: u64, network: Network, mut chance: StdRng) {
    if chance.random_bool(0.5) {
        let again_after = chance.random_range(1..30);
        let followed = follow(board.clone(), life, network.clone(), again_after);
        tokio::spawn(of_current(followed));
    }
    let mut next = 0;
    while !on(&board).stopped {
        let cells = on(&board).cells;
        for cell in next..cells {
            if chance.random_bool(0.5) && !is_slot(cell) {
                let handle = open(&network, cell);
                on(&board).watched.insert((life, cell), handle);
            }
        }
        next = cells;
        tokio::time::sleep(Duration::from_millis(WATCH_MS)).await;
    }
}

pub(super) struct Client {
    /// Its handle's name in the history.
    id: u32,
    /// Which life of which node it is a part of.
    life: u64,
    board: Board,
    network: Network,
    chance: StdRng,
    think_ms: u64,
}

impl Client {
    pub(super) fn new(
        board: &Board,
        life: u64,
        network: Network,
        chance: StdRng,
        think_ms: u64,
    ) -> Self {
        Self {
            id: 0,
            life,
            board: board.clone(),
            network,
            chance,
            think_ms,
        }
    }

    /// Works until the run is over or its process dies.
    pub(super) async fn run(mut self) {
        while !on(&self.board).stopped {
            let cell = self.pick();
            let handle = open(&self.network, cell);
            self.id = on(&self.board).next_client();
            for _ in 0..self.chance.random_range(1..6) {
                self.think().await;
                if on(&self.board).stopped {
                    break;
                }
                self.call(&handle, cell).await;
            }
            self.look(&handle, cell).await;
        }
    }

    /// Mostly a cell that is new; sometimes any.
    fn pick(&mut self) -> u32 {
        let cells = on(&self.board).cells.max(1);
        let newest = cells.saturating_sub(3);
        match self.chance.random_bool(0.7) {
            true => self.chance.random_range(newest..cells),
            false => self.chance.random_range(0..cells),
        }
    }

    async fn think(&mut self) {
        let ms = self.chance.random_range(0..=self.think_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn look(&self, handle: &Handle, cell: u32) {
        let op = self.begin(cell, Call::Read);
        let outcome = saw(handle, handle.read().await);
        self.end(op, outcome);
    }

    fn next_value(&self) -> u64 {
        on(&self.board).next_value()
    }

    fn begin(&self, cell: u32, call: Call) -> OpId {
        let mut shared = on(&self.board);
        *shared.busy.entry(self.life).or_default() += 1;
        shared.history.invoke(self.id, cell, call)
    }

    fn end(&self, op: OpId, outcome: Outcome) {
        let mut shared = on(&self.board);
        if let Some(busy) = shared.busy.get_mut(&self.life) {
            *busy -= 1;
        }
        shared.history.finish(op, outcome);
    }

    async fn call(&mut self, handle: &Handle, cell: u32) {
        let call = match self.chance.random_range(0..12) {
            0..3 => Call::Write(self.next_value()),
            3..6 => Call::Claim(self.next_value()),
            6 => Call::GetOrInit(self.next_value()),
            7..9 => Call::ReadLinearizable,
            9 => Call::Wait,
            _ => return self.look(handle, cell).await,
        };
        let op = self.begin(cell, call);
        let patience = match self.chance.random_bool(0.15) {
            true => Some(Duration::from_millis(self.chance.random_range(0..200))),
            false => None,
        };
        let asked = ask(handle, call, self.chance.random_range(1..=CLAIMS_MAX));
        let outcome = match patience {
            Some(patience) => timeout(patience, asked).await.unwrap_or_else(|_| {
                on(&self.board).given_up += 1;
                Outcome::Unclear
            }),
            None => asked.await,
        };
        self.end(op, outcome);
    }
}

async fn ask(handle: &Handle, call: Call, claims: u32) -> Outcome {
    match call {
        Call::Write(value) => match handle.write(value).await {
            Ok(version) => Outcome::Acknowledged { version },
            Err(Error::Offline(_) | Error::NetworkDown) => Outcome::Unclear,
            Err(error) => panic!("a write: {error}"),
        },
        Call::Claim(value) => {
            let mut pending = Pending::from(value);
            for _ in 0..claims {
                match handle.claim(pending).await {
                    Ok(Claim::Won(version)) => {
                        return Outcome::Won {
                            version: version.as_u64(),
                        };
                    }
                    Ok(Claim::Lost { winner, .. }) => return Outcome::Lost { winner },
                    Err(ClaimError::Offline(same)) => pending = same,
                    Err(ClaimError::NetworkDown) => return Outcome::Unclear,
                    Err(error) => panic!("a claim: {error}"),
                }
            }
            Outcome::Unclear
        }
        Call::GetOrInit(value) => match handle.get_or_init(value).await {
            Ok(value) => handle.saw(Some(value)),
            Err(ClaimError::Offline(_) | ClaimError::Unreached | ClaimError::NetworkDown) => {
                Outcome::Unclear
            }
            Err(error) => panic!("get_or_init: {error}"),
        },
        Call::Read => saw(handle, handle.read().await),
        Call::ReadLinearizable => saw(handle, handle.read_linearizable().await),
        Call::Wait => match timeout(Duration::from_millis(WAIT_MS), handle.wait()).await {
            Ok(Ok(value)) => handle.saw(Some(value)),
            Ok(Err(ReadError::NetworkDown)) | Err(_) => Outcome::Unclear,
            Ok(Err(error)) => panic!("a wait: {error}"),
        },
    }
}

fn saw(handle: &Handle, read: Result<Option<u64>, ReadError>) -> Outcome {
    match read {
        Ok(value) => handle.saw(value),
        Err(ReadError::Offline | ReadError::NetworkDown) => Outcome::Unclear,
        Err(error) => panic!("a read: {error}"),
    }
}
