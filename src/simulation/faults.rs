//! What goes wrong, and when.

use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::client::on;
use super::world::{Life, World, addr};

/// How many polls of its tasks a doomed process lives at most.
const DOOM_POLLS_MAX: u64 = 3_000;

/// What a run may do to its nodes. The weights make most of a run one in which something can be
/// decided.
const FAULTS: [(&str, u32); 30] = [
    ("kill", 4),
    ("power cut", 4),
    ("doom", 8),
    ("power up", 24),
    ("orderly restart", 2),
    ("pause", 4),
    ("resume", 10),
    ("isolate", 3),
    ("cut", 3),
    ("cut one way", 3),
    ("split", 3),
    ("swizzle", 2),
    ("lost replies", 2),
    ("heal", 14),
    ("loss", 4),
    ("duplicates", 4),
    ("delay", 4),
    ("slow disk", 4),
    ("held disk", 3),
    ("failing disk", 2),
    ("full disk", 2),
    ("power fails at a change", 4),
    ("clock", 4),
    ("observer joins", 4),
    ("observer leaves", 2),
    ("observer doomed", 2),
    ("observer cut off", 2),
    ("backup", 4),
    ("wipe", 2),
    ("restore", 6),
];

impl World {
    fn any_voter(&mut self) -> usize {
        self.chance.random_range(0..self.plan.voters)
    }

    fn pick_fault(&mut self) -> &'static str {
        let all: u32 = FAULTS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.chance.random_range(0..all);
        for (fault, weight) in FAULTS {
            if at < weight {
                return fault;
            }
            at -= weight;
        }
        unreachable!("the weights were summed up");
    }

    /// Lets one thing happen. Counted only if it did.
    pub(super) async fn fault(&mut self) {
        let fault = self.pick_fault();
        let n = self.any_voter();
        let happened = match fault {
            "kill" | "power cut" if self.voters[n].is_up() => {
                self.crash(n, fault == "power cut");
                true
            }
            "doom" if self.voters[n].is_up() => {
                let polls = self.chance.random_range(0..DOOM_POLLS_MAX);
                let power = self.chance.random_bool(0.5);
                self.doom(n, polls, power);
                true
            }
            "power up" => self.power_up_some(),
            "orderly restart" => self.restart(n).await,
            "pause" if self.voters[n].is_up() && !self.voters[n].paused => {
                self.pause(n);
                true
            }
            "resume" => self.resume_some(),
            "isolate" | "cut" | "cut one way" | "lost replies" => {
                let other = (n + 1 + self.chance.random_range(0..4)) % self.plan.voters;
                match fault {
                    "isolate" => self.net.isolate(addr(n)),
                    "cut" => self.net.cut(addr(n), addr(other)),
                    "cut one way" => self.net.cut_one_way(addr(n), addr(other)),
                    _ => self.net.drop_replies(addr(n), addr(other)),
                }
                n != other
            }
            "split" => self.split(),
            "swizzle" => self.swizzle().await,
            "heal" => {
                self.heal_links();
                true
            }
            "loss" => {
                let per_mille = [0, 0, 10, 50, 200][self.chance.random_range(0..5)];
                self.net.set_loss(per_mille);
                per_mille > 0
            }
            "duplicates" => {
                let per_mille = [0, 20, 100, 300][self.chance.random_range(0..4)];
                self.net.set_duplication(per_mille);
                per_mille > 0
            }
            "delay" => {
                let least = [0, 0, 1, 20][self.chance.random_range(0..4)];
                let most = least + [0, 5, 60, 400][self.chance.random_range(0..4)];
                let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
                self.net.set_delay(least, most);
                !most.is_zero()
            }
            "slow disk" => {
                let most = [0, 3, 30, 300][self.chance.random_range(0..4)];
                self.voters[n].disk().set_sync_ms(most / 3, most);
                most > 0
            }
            // Not while a store opens, which would wait for a sync that this thread has to end.
            "held disk"
                if self.voters[n]
                    .life
                    .as_ref()
                    .and_then(Life::network)
                    .is_some() =>
            {
                self.voters[n].disk().hold_syncs();
                true
            }
            "failing disk" | "full disk" | "power fails at a change"
                if self.voters[n]
                    .life
                    .as_ref()
                    .and_then(Life::network)
                    .is_some() =>
            {
                let disk = self.voters[n].disk();
                match fault {
                    "failing disk" => disk.fail_after_syncs(self.chance.random_range(0..20)),
                    "full disk" => {
                        disk.run_out_of_space(self.chance.random_range(0..10_000), 4);
                    }
                    _ => disk.fail_after_changes(self.chance.random_range(0..400)),
                }
                true
            }
            "backup"
                if self.voters[n]
                    .life
                    .as_ref()
                    .and_then(Life::network)
                    .is_some() =>
            {
                let life = self.voters[n].life.as_ref().map_or(0, |life| life.number);
                let disk = self.voters[n].disk().copy();
                self.voters[n].backup = Some((disk, life, false));
                true
            }
            "wipe" | "restore" => self.outlaw(n, fault == "wipe"),
            "clock" => {
                let hours = self.chance.random_range(-48..48);
                if let Some(life) = &self.voters[n].life {
                    life.process.set_clock_ahead_ms(hours * 3_600_000);
                }
                self.voters[n].is_up() && hours != 0
            }
            "observer joins" if self.observers.len() < self.plan.observers => self.join(),
            "observer leaves" if !self.observers.is_empty() => {
                let at = self.chance.random_range(0..self.observers.len());
                self.leave(at);
                true
            }
            "observer doomed" | "observer cut off" if !self.observers.is_empty() => {
                let at = self.chance.random_range(0..self.observers.len());
                match (fault, self.observers[at].network()) {
                    ("observer doomed", _) => {
                        let polls = self.chance.random_range(0..DOOM_POLLS_MAX);
                        self.doom_observer(at, polls);
                        true
                    }
                    (_, Some(network)) => {
                        self.net.isolate(network.local_addr());
                        true
                    }
                    (_, None) => false,
                }
            }
            _ => false,
        };
        if happened {
            tracing::info!(target: "simulation", at = ?self.began.elapsed(), n, fault);
            self.count(fault);
        }
    }

    fn power_up_some(&mut self) -> bool {
        let down: Vec<usize> = (0..self.plan.voters)
            .filter(|n| !self.voters[*n].is_up())
            .collect();
        for n in &down {
            if self.chance.random_bool(0.7) {
                self.power_up(*n);
            }
        }
        !down.is_empty()
    }

    fn resume_some(&mut self) -> bool {
        let paused: Vec<usize> = (0..self.plan.voters)
            .filter(|n| self.voters[*n].paused)
            .collect();
        for n in &paused {
            self.resume(*n);
        }
        !paused.is_empty()
    }

    /// Stops in order and starts again, while others go on.
    async fn restart(&mut self, n: usize) -> bool {
        let network = self.voters[n].life.as_ref().and_then(Life::network);
        let Some(network) = network.filter(|_| !self.voters[n].paused) else {
            return false;
        };
        let life = self.voters[n].life.as_ref().expect("its network is up");
        let (done, stopped) = tokio::sync::oneshot::channel();
        tokio::spawn(life.process.hold(async move {
            network.shutdown().await;
            // Nobody waits any more if it took too long.
            let _ = done.send(());
        }));
        // A held or failing disk may keep it from ending: then it is killed.
        let stopped = tokio::time::timeout(Duration::from_secs(10), stopped).await;
        self.crash(n, false);
        self.power_up(n);
        matches!(stopped, Ok(Ok(())))
    }

    /// Voters on two sides that do not see each other.
    fn split(&mut self) -> bool {
        let mut order: Vec<usize> = (0..self.plan.voters).collect();
        order.shuffle(&mut self.chance);
        let (here, there) = order.split_at(self.chance.random_range(0..order.len()));
        for (a, b) in here.iter().flat_map(|a| there.iter().map(move |b| (a, b))) {
            self.net.cut(addr(*a), addr(*b));
        }
        !here.is_empty()
    }

    /// Cuts the nodes off one after another, and reconnects them in another order.
    async fn swizzle(&mut self) -> bool {
        let mut order: Vec<usize> = (0..self.plan.voters).collect();
        for cut in [true, false] {
            order.shuffle(&mut self.chance);
            for n in &order {
                match cut {
                    true => self.net.isolate(addr(*n)),
                    false => self.net.rejoin(addr(*n)),
                }
                self.pass(150).await;
            }
        }
        // Those who are paused stay unreachable.
        for n in 0..self.plan.voters {
            if self.voters[n].paused {
                self.net.isolate(addr(n));
            }
        }
        self.plan.voters > 1
    }

    fn heal_links(&mut self) {
        self.net.heal_all();
        self.net.set_loss(0);
        self.net.set_duplication(0);
        for n in 0..self.plan.voters {
            self.voters[n].disk().release_syncs();
            if self.voters[n].paused {
                self.net.isolate(addr(n));
            }
        }
    }

    /// Some time passes, up to `ms_max`.
    pub(super) async fn pass(&mut self, ms_max: u64) {
        let ms = self.chance.random_range(0..=ms_max);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Ends all that is wrong, but for disks that were wiped: those voters stay down.
    pub(super) async fn heal(&mut self) {
        let (least, most) = self.plan.delay;
        self.net.set_delay(least, most);
        (self.observers.iter()).for_each(|life| life.process.spare());
        for n in 0..self.plan.voters {
            if let Some(life) = &self.voters[n].life {
                life.process.spare();
            }
            self.resume(n);
            if self.has_failed(n) {
                let power = self.voters[n].disk().is_off();
                self.crash(n, power);
            }
        }
        self.heal_links();
        for n in 0..self.plan.voters {
            let disk = self.voters[n].disk();
            disk.set_sync_ms(self.plan.sync_ms.0, self.plan.sync_ms.1);
            if !self.voters[n].is_up() && !self.voters[n].outlawed {
                self.power_up(n);
            }
        }
    }

    /// Its disk has failed, or is told to: only a new process goes on.
    fn has_failed(&self, n: usize) -> bool {
        let voter = &self.voters[n];
        voter.disk().is_to_fail()
            || (voter.life.as_ref().and_then(Life::network))
                .is_some_and(|network| network.status().failure.is_some())
    }

    /// A voter whose disk has failed has stopped by itself; its process ends.
    pub(super) fn end_failed(&mut self) {
        for n in 0..self.plan.voters {
            let life = self.voters[n].life.as_ref().and_then(Life::network);
            if life.is_some_and(|network| network.status().failure.is_some()) {
                // In the midst of whatever the disk was asked for last.
                let power = self.voters[n].disk().is_off();
                self.count(match power {
                    true => "power failed at a change",
                    false => "stopped by its disk",
                });
                self.crash(n, power);
            }
        }
    }

    /// More cells come into use.
    pub(super) fn grow(&mut self) {
        let cells = self.plan.cells;
        let mut shared = on(&self.board);
        shared.cells = (shared.cells + 1).min(cells);
    }
}
