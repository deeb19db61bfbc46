//! The nodes of a run: what is up, on which disk, in which process; and what can happen to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::client::{Board, Client, on, watch};
use super::plan::Plan;
use super::process::{Process, of_current};
use crate::store::SimDisk;
use crate::transport::sim::SimNet;
use crate::{Network, NetworkError};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The disk of a voter. Replaced at the moment its process dies.
type DiskSlot = Arc<Mutex<SimDisk>>;

/// One life of one node.
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) process: Arc<Process>,
    /// Its node once it has started, or why it does not.
    started: Arc<Mutex<Option<Result<Network, String>>>>,
}

impl Life {
    pub(super) fn network(&self) -> Option<Network> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.as_ref()?.as_ref().ok().cloned()
    }

    fn failure(&self) -> Option<String> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.as_ref()?.as_ref().err().cloned()
    }
}

pub(super) struct Voter {
    pub(super) disk: DiskSlot,
    pub(super) life: Option<Life>,
    pub(super) paused: bool,
    /// Its disk was wiped or restored: nobody may let it in any more.
    pub(super) outlawed: bool,
    wiped: bool,
    /// A copy of its disk, of which life it is, and whether all others have met a later life.
    pub(super) backup: Option<(SimDisk, u64, bool)>,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) net: SimNet,
    pub(super) chance: StdRng,
    pub(super) board: Board,
    pub(super) voters: Vec<Voter>,
    pub(super) observers: Vec<Life>,
    lives: u64,
    pub(super) began: Instant,
    /// What happened how often.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

pub(super) fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 100 + n as u16))
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let net = SimNet::new(plan.seed);
        net.set_delay(plan.delay.0, plan.delay.1);
        let voters = (0..plan.voters).map(|n| {
            let disk = SimDisk::new(plan.seed.wrapping_mul(31) + n as u64);
            disk.set_sync_ms(plan.sync_ms.0, plan.sync_ms.1);
            Voter {
                disk: Arc::new(Mutex::new(disk)),
                life: None,
                paused: false,
                outlawed: false,
                wiped: false,
                backup: None,
            }
        });
        Self {
            net,
            chance: StdRng::seed_from_u64(plan.seed),
            board: Board::default(),
            voters: voters.collect(),
            observers: Vec::new(),
            lives: 0,
            began: Instant::now(),
            counts: BTreeMap::new(),
            plan: plan.clone(),
        }
    }

    pub(super) fn chance_of(&mut self, chance: f64) -> bool {
        self.chance.random_bool(chance)
    }

    pub(super) fn draw(&mut self, range: std::ops::Range<u32>) -> u32 {
        self.chance.random_range(range)
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Everything that was decided by the simulator so far.
    pub(super) fn steps(&self) -> u64 {
        let net = self.net.counts();
        let disks = self.voters.iter().map(|voter| voter.disk().changes());
        let faults: u64 = self.counts.values().sum();
        let history = on(&self.board).history.len() as u64;
        net.delivered + net.dropped + disks.sum::<u64>() + faults + history
    }

    /// Starts a process whose first task starts a node and then its clients.
    fn live(
        &mut self,
        voters: Vec<&'static str>,
        start: BoxFuture<'static, Result<Network, NetworkError>>,
    ) -> Life {
        self.lives += 1;
        let life = Life {
            number: self.lives,
            process: Process::new(voters),
            started: Arc::default(),
        };
        let clients: Vec<StdRng> = (0..self.plan.clients_per_node)
            .map(|_| StdRng::from_seed(self.chance.random()))
            .collect();
        let watcher = StdRng::from_seed(self.chance.random());
        let (board, think_ms) = (self.board.clone(), self.plan.think_ms);
        let (number, started) = (life.number, life.started.clone());
        tokio::spawn(life.process.hold(async move {
            let node = start.await;
            let network = node.as_ref().ok().cloned();
            *started.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(node.map_err(|error| error.to_string()));
            let Some(network) = network else {
                return;
            };
            tokio::spawn(of_current(watch(
                board.clone(),
                number,
                network.clone(),
                watcher,
            )));
            for chance in clients {
                let client = Client::new(&board, number, network.clone(), chance, think_ms);
                tokio::spawn(of_current(client.run()));
            }
        }));
        life
    }

    pub(super) fn power_up(&mut self, n: usize) {
        // Each life is configured anew, and in what order voters are listed means nothing.
        let mut list: Vec<usize> = (0..self.plan.voters).collect();
        list.shuffle(&mut self.chance);
        let electorate: Vec<_> = list
            .iter()
            .map(|n| (NAMES[*n], addr(*n).to_string()))
            .collect();
        let names = list.iter().map(|n| NAMES[*n]).collect();
        let start = Network::builder("simulated")
            .electorate(electorate)
            .voter(NAMES[n])
            .secret("a secret of the simulator")
            .write_timeout_ms(self.plan.write_timeout_ms)
            .segment_bytes_max(self.plan.segment_bytes)
            .on_disk(&self.voters[n].disk())
            .simulated(&self.net)
            .start();
        let life = self.live(names, Box::pin(start));
        self.voters[n].life = Some(life);
    }

    /// An observer joins with the ticket of some voter that is up.
    pub(super) fn join(&mut self) -> bool {
        let Some(ticket) = (self.voters.iter())
            .filter_map(|voter| voter.life.as_ref()?.network())
            .map(|network| network.ticket())
            .next()
        else {
            return false;
        };
        let net = self.net.clone();
        let start = async move { Network::join_simulated(ticket, &net).await };
        let life = self.live(NAMES[..self.plan.voters].to_vec(), Box::pin(start));
        self.observers.push(life);
        true
    }

    /// What happens at the moment the process of a voter dies.
    fn last_moment(&self, n: usize, power: bool) -> impl FnOnce() + Send + 'static {
        let (net, slot) = (self.net.clone(), self.voters[n].disk.clone());
        move || {
            net.kill(addr(n));
            let mut disk = slot.lock().unwrap_or_else(PoisonError::into_inner);
            *disk = match power {
                true => disk.cut_power(),
                false => disk.kill(),
            };
        }
    }

    /// The process of a voter dies now; with `power`, un-synced pages are lost or not.
    pub(super) fn crash(&mut self, n: usize, power: bool) {
        let last = self.last_moment(n, power);
        if let Some(life) = self.voters[n].life.take() {
            // One that was doomed may be dead already, and its disk is that of the next life.
            if !life.process.is_dead() {
                life.process.kill();
                last();
            }
            on(&self.board).busy.remove(&life.number);
        }
        self.voters[n].paused = false;
    }

    /// It dies so many polls of its tasks later, wherever it is then.
    pub(super) fn doom(&mut self, n: usize, polls: u64, power: bool) {
        let last = self.last_moment(n, power);
        if let Some(life) = &self.voters[n].life {
            life.process.doom(polls, last);
        }
    }

    /// Those of the doomed that are dead by now.
    pub(super) fn bury(&mut self) {
        while let Some(at) = (self.observers.iter()).position(|life| life.process.is_dead()) {
            self.count("observer died at an await point");
            self.leave(at);
        }
        for n in 0..self.voters.len() {
            let life = self.voters[n].life.as_ref();
            if life.is_some_and(|life| life.process.is_dead()) {
                self.count("died at an await point");
                self.crash(n, false);
            }
        }
    }

    /// An observer's process dies so many polls of its tasks later.
    pub(super) fn doom_observer(&mut self, at: usize, polls: u64) {
        let life = &self.observers[at];
        let (net, network) = (self.net.clone(), life.network());
        life.process.doom(polls, move || {
            if let Some(network) = network {
                net.kill(network.local_addr());
            }
        });
    }

    /// An observer's process dies.
    pub(super) fn leave(&mut self, at: usize) {
        let life = self.observers.remove(at);
        life.process.kill();
        if let Some(network) = life.network() {
            self.net.kill(network.local_addr());
        }
        on(&self.board).busy.remove(&life.number);
    }

    pub(super) fn pause(&mut self, n: usize) {
        if let Some(life) = &self.voters[n].life {
            life.process.pause();
            self.net.isolate(addr(n));
            self.voters[n].paused = true;
        }
    }

    /// Goes on where it was; what was sent to it meanwhile is there.
    pub(super) fn resume(&mut self, n: usize) {
        if let Some(life) = &self.voters[n].life {
            life.process.resume();
        }
        if std::mem::take(&mut self.voters[n].paused) {
            for other in 0..self.voters.len() {
                self.net.heal(addr(n), addr(other));
            }
            for observer in self.observers.iter().filter_map(Life::network) {
                self.net.heal(addr(n), observer.local_addr());
            }
        }
    }

    /// The lives of all that are up, but for the outlawed.
    pub(super) fn lives(&self) -> impl Iterator<Item = &Life> {
        let voters = self.voters.iter().filter(|voter| !voter.outlawed);
        let lives = voters.filter_map(|voter| voter.life.as_ref());
        lives.chain(&self.observers)
    }

    /// All nodes that are up and have started.
    pub(super) fn networks(&self) -> Vec<Network> {
        self.lives().filter_map(Life::network).collect()
    }

    /// The run is over, maybe in the midst of a fault. A disk that hangs would hold up whoever
    /// drops a store.
    pub(super) fn end(&self) {
        self.voters
            .iter()
            .for_each(|voter| voter.disk().release_syncs());
        let watched = std::mem::take(&mut on(&self.board).watched);
        drop(watched);
    }

    /// Notes who has met the lives that came after a backup.
    pub(super) fn note_meetings(&mut self) {
        let all_up = self
            .voters
            .iter()
            .all(|voter| voter.is_up() && !voter.outlawed);
        if !all_up || !self.has_met() {
            return;
        }
        for voter in &mut self.voters {
            if let (Some((_, life, met)), Some(now)) = (&mut voter.backup, &voter.life) {
                *met |= now.number > *life;
            }
        }
    }

    /// A voter goes on with an empty disk, or with an old one: from now on it is an outlaw. Not if
    /// too few others would be left, or if not all of them know better.
    pub(super) fn outlaw(&mut self, n: usize, wipe: bool) -> bool {
        let outlaws = self.voters.iter().filter(|voter| voter.outlawed).count();
        let all_up = self.voters.iter().all(|voter| voter.is_up());
        if outlaws > 0 || self.plan.voters < 3 || !all_up || !self.has_met() {
            return false;
        }
        let disk = match &self.voters[n].backup {
            _ if wipe => SimDisk::new(self.chance.random()),
            Some((disk, _, true)) => disk.copy(),
            _ => return false,
        };
        self.crash(n, false);
        *self.voters[n]
            .disk
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = disk;
        self.voters[n].outlawed = true;
        self.voters[n].wiped = wipe;
        self.power_up(n);
        true
    }

    /// An outlaw that someone has let in.
    pub(super) fn admitted_outlaw(&self) -> Option<String> {
        let mut outlaws = self.voters.iter().filter(|voter| voter.outlawed);
        outlaws.find_map(|voter| {
            let network = voter.life.as_ref()?.network()?;
            let is_linked = !network.directory().peers().linked_voters().is_empty();
            let what = if voter.wiped { "wiped" } else { "restored" };
            is_linked.then(|| format!("a {what} voter is let in: {}", network.node_id()))
        })
    }

    /// Why some node could not start: no fault of this simulator is a reason.
    pub(super) fn failed_start(&self) -> Option<String> {
        let lives = self.voters.iter().filter_map(|voter| voter.life.as_ref());
        lives.chain(&self.observers).find_map(Life::failure)
    }

    /// Everyone who is up is linked with all voters that are up; the outlawed are not, with anyone.
    pub(super) fn has_met(&self) -> bool {
        let up: Vec<&Life> = (self.voters.iter())
            .filter(|voter| !voter.outlawed)
            .filter_map(|voter| voter.life.as_ref())
            .collect();
        let networks: Option<Vec<_>> = up.iter().map(|life| life.network()).collect();
        let observers: Option<Vec<_>> = self.observers.iter().map(Life::network).collect();
        let (Some(voters), Some(observers)) = (networks, observers) else {
            return false;
        };
        let ids: Vec<_> = voters.iter().map(Network::node_id).collect();
        voters.iter().chain(&observers).all(|network| {
            let peers = network.directory().peers();
            let others = ids.iter().filter(|id| **id != network.node_id());
            let mut linked = others.map(|id| peers.is_linked(*id));
            linked.all(|is| is) && (!peers.is_voter() || peers.may_vote())
        })
    }
}

impl Voter {
    pub(super) fn disk(&self) -> SimDisk {
        self.disk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn is_up(&self) -> bool {
        self.life.is_some()
    }
}

/// Waits, in simulated time, until something is so.
pub(super) async fn until(within: Duration, is_so: impl Fn() -> bool) -> bool {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(within, wait).await.is_ok()
}
