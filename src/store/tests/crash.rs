//! Thousands of lives on disks that lose power, tear, fail and fill up, against a plain model of
//! what must be there.
//!
//! `RAFT_ONCE_CRASH_SEEDS=n cargo test --lib store::tests::crash` runs `n` seeds of 25 lives in
//! place of the usual 200. A failure tells its seed and life; a seed replays.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::sim::Fault;
use super::*;

const LIVES: u64 = 25;

/// One disk and what must be on it: many processes, one after the other.
struct World {
    told: String,
    executor: Executor,
    chance: StdRng,
    disk: SimDisk,
    /// The last batch that is known to be durable, and the contents after it.
    sequence: u64,
    model: Model,
    /// What was written behind it. Those up to `promised` must be there.
    written: Vec<Batch>,
    promised: u64,
    /// Where groups may end. `None`: threads decide.
    group_ends: Option<Vec<u64>>,
    tally: Tally,
}

/// What happened, so that a test can tell that it did.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    lives: u64,
    opened: u64,
    acknowledged: u64,
    /// Batches that were acknowledged to nobody: cut off, or found.
    cut: u64,
    found: u64,
    poisoned: u64,
    /// Opened from an older copy; two lived on from one disk; the folder was emptied.
    restored: u64,
    cloned: u64,
    wiped: u64,
}

impl World {
    fn new(seed: u64, executor: Executor) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        Self {
            told: String::new(),
            executor,
            disk: SimDisk::new(chance.random()),
            chance,
            sequence: 0,
            model: Model::new(),
            written: Vec::new(),
            promised: 0,
            group_ends: (executor == Executor::Inline).then(Vec::new),
            tally: Tally::default(),
        }
    }

    /// The same world on a copy of its disk.
    fn copy(&mut self) -> Self {
        Self {
            told: self.told.clone(),
            executor: self.executor,
            chance: StdRng::seed_from_u64(self.chance.random()),
            disk: self.disk.copy(),
            sequence: self.sequence,
            model: self.model.clone(),
            written: self.written.clone(),
            promised: self.promised,
            group_ends: self.group_ends.clone(),
            tally: self.tally,
        }
    }

    fn live(&mut self, seed: u64, lives: u64) {
        let mut older: Option<Self> = None;
        for life in 0..lives {
            self.told = format!("seed {seed}, life {life}");
            self.life();
            match self.chance.random_range(0..100) {
                0..4 => older = Some(self.copy()),
                4..7 => {
                    if let Some(older) = older.take() {
                        let Self { disk, tally, .. } = &*self;
                        let (disk, mut tally) = (disk.clone(), *tally);
                        tally.restored += 1;
                        *self = Self { tally, ..older };
                        self.disk.add_faults(&disk);
                    }
                }
                7..9 => {
                    let mut clone = self.copy();
                    clone.told += ", clone";
                    clone.life();
                    clone.life();
                    self.tally.cloned += 1;
                }
                9 => {
                    self.disk.wipe();
                    self.tally.wiped += 1;
                    (self.sequence, self.promised) = (0, 0);
                    self.model.clear();
                    self.written.clear();
                }
                _ => {}
            }
        }
    }

    fn life(&mut self) {
        self.tally.lives += 1;
        let is_armed = self.arm();
        let config = StoreConfig {
            segment_bytes_max: self.chance.random_range(500..4_000),
            cache_bytes_max: [0, 100_000][self.chance.random_range(0..2)],
            ..tiny()
        };
        // What fails may fail while the store recovers from the failure before.
        match Store::open_on(Arc::new(self.disk.clone()), config, self.executor) {
            Ok(store) => {
                self.tally.opened += 1;
                self.compare(&store);
                let acknowledged = self.work(&store);
                self.promised = self.promised.max(acknowledged.load(Ordering::SeqCst));
                if self.chance.random_bool(0.1) {
                    futures::executor::block_on(store.close());
                }
                drop(store);
                // Threads go on writing what they have until the disk ends.
                let disk = self.end();
                self.promised = self.promised.max(acknowledged.load(Ordering::SeqCst));
                self.disk = disk;
            }
            Err(StoreOpenError::Io { .. }) if is_armed => self.disk = self.end(),
            Err(error) => panic!("{}: {error}", self.told),
        }
    }

    fn end(&mut self) -> SimDisk {
        match self.chance.random_bool(0.3) {
            true => self.disk.kill(),
            false => self.disk.cut_power(),
        }
    }

    fn arm(&mut self) -> bool {
        let Self { disk, chance, .. } = self;
        let mut is_armed = false;
        let mut sometimes = |chance: &mut StdRng, probability| {
            let now = chance.random_bool(probability);
            is_armed |= now;
            now
        };
        if sometimes(chance, 0.6) {
            disk.fail_after_changes(chance.random_range(0..150));
        }
        if sometimes(chance, 0.1) {
            disk.fail_after_syncs(chance.random_range(0..40));
        }
        if sometimes(chance, 0.1) {
            disk.fail_reads(chance.random_range(0..60), chance.random_range(1..4));
        }
        if sometimes(chance, 0.2) {
            disk.run_out_of_space(chance.random_range(0..100_000), chance.random_range(1..4));
        }
        is_armed
    }

    /// A store that has just opened holds all that was promised, nothing else, and whole groups.
    fn compare(&mut self, store: &Store) {
        let told = &self.told;
        let (found, written) = (store.sequence(), self.written.len() as u64);
        assert!(self.promised <= found, "{told}: acknowledged batches lost");
        assert!(found <= self.sequence + written, "{told}: out of nowhere");
        if let Some(ends) = &mut self.group_ends {
            assert!(
                found == self.sequence || ends.contains(&found),
                "{told}: a part of a group"
            );
            ends.clear();
        }
        self.tally.found += found - self.promised;
        self.tally.cut += self.sequence + written - found;
        for batch in self
            .written
            .drain(..)
            .take((found - self.sequence) as usize)
        {
            apply(&mut self.model, &batch);
        }
        // What a store has shown it must keep.
        (self.sequence, self.promised) = (found, found);
        match store.scan(b"") {
            Ok(pairs) => {
                let pairs: Model = pairs.into_iter().collect();
                assert!(pairs == self.model, "{told}: wrong contents at {found}");
            }
            Err(_) => assert!(store.failure().is_some(), "{told}: a failed read"),
        }
    }

    /// Returns what was acknowledged last.
    fn work(&mut self, store: &Store) -> Arc<AtomicU64> {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let failed = Arc::new(AtomicBool::new(false));
        for _ in 0..self.chance.random_range(0..40) {
            let batch = random_batch(&mut self.chance);
            self.written.push(batch.clone());
            let expected = self.sequence + self.written.len() as u64;
            let durability = match self.chance.random_bool(0.7) {
                true => Durability::Now,
                false => Durability::Lazy,
            };
            if let (Durability::Now, Some(ends)) = (durability, &mut self.group_ends) {
                ends.push(expected);
            }
            let (failed, acknowledged) = (failed.clone(), acknowledged.clone());
            store.write(batch, durability, move |result| match result {
                Ok(sequence) => {
                    assert_eq!(sequence, expected);
                    assert!(!failed.load(Ordering::SeqCst), "a success after a failure");
                    acknowledged.store(sequence, Ordering::SeqCst);
                }
                Err(_) => failed.store(true, Ordering::SeqCst),
            });
            if self.chance.random_bool(0.1) {
                let key = random_key(&mut self.chance);
                assert!(store.get(&key).is_ok() || store.failure().is_some());
            }
        }
        // A flush, a close and the end of the last handle each end a group.
        let last = self.sequence + self.written.len() as u64;
        self.group_ends.iter_mut().for_each(|ends| ends.push(last));
        if self.chance.random_bool(0.5) {
            let _ = futures::executor::block_on(store.flush());
        }
        if let Some(failure) = store.failure() {
            self.tally.poisoned += 1;
            let changes = self.disk.changes();
            for _ in 0..3 {
                assert_eq!(store.get(b"k1"), Err(failure.clone()));
                assert_eq!(store.scan(b""), Err(failure.clone()));
                assert_eq!(write_now(store, put("k1", "")), Err(failure.clone()));
            }
            if self.executor == Executor::Inline {
                let told = &self.told;
                assert_eq!(self.disk.changes(), changes, "{told}: tried again");
            }
        }
        let count = acknowledged.load(Ordering::SeqCst);
        self.tally.acknowledged += count.saturating_sub(self.sequence);
        acknowledged
    }
}

fn random_key(chance: &mut StdRng) -> Vec<u8> {
    format!("k{}", chance.random_range(0..40)).into_bytes()
}

fn random_batch(chance: &mut StdRng) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..chance.random_range(1..5) {
        let key = random_key(chance);
        if chance.random_bool(0.25) {
            batch.delete(key);
        } else {
            let value_bytes = match chance.random_range(0..10) {
                0 => 3_000,
                _ => 60,
            };
            let mut value = vec![0; chance.random_range(0..value_bytes)];
            chance.fill(&mut value[..]);
            batch.put(key, value);
        }
    }
    batch
}

/// Runs the seeds; what is injected never is a fault of the test.
fn run(seeds: impl Iterator<Item = u64>, lives: u64, executor: Executor) {
    let mut sum = Tally::default();
    let mut faults = BTreeMap::new();
    for seed in seeds {
        let mut world = World::new(seed, executor);
        world.live(seed, lives);
        for (fault, times) in world.disk.faults() {
            *faults.entry(fault).or_insert(0) += times;
        }
        let Tally {
            lives,
            opened,
            acknowledged,
            cut,
            found,
            poisoned,
            restored,
            cloned,
            wiped,
        } = world.tally;
        sum.lives += lives;
        sum.opened += opened;
        sum.acknowledged += acknowledged;
        sum.cut += cut;
        sum.found += found;
        sum.poisoned += poisoned;
        sum.restored += restored;
        sum.cloned += cloned;
        sum.wiped += wiped;
    }
    println!("{sum:?}\n{faults:?}");
    if executor == Executor::Threads {
        // Who is where at the cut is up to the machine.
        assert!(sum.opened > 0 && sum.acknowledged > 0 && faults[&Fault::PowerCut] > 0);
        return;
    }
    // Per thousand lives.
    for (what, times, expected) in [
        ("opened", sum.opened, 500),
        ("acknowledged", sum.acknowledged, 5_000),
        ("cut", sum.cut, 500),
        ("found", sum.found, 20),
        ("poisoned", sum.poisoned, 100),
        ("restored", sum.restored, 5),
        ("cloned", sum.cloned, 5),
        ("wiped", sum.wiped, 2),
    ] {
        assert!(times * 1_000 >= expected * sum.lives, "{what}: {times}");
    }
    for (fault, expected) in [
        (Fault::PowerCut, 500),
        (Fault::Kill, 200),
        (Fault::PageLost, 200),
        (Fault::PageKept, 200),
        (Fault::PageTorn, 50),
        (Fault::LengthLost, 10),
        (Fault::NameLost, 10),
        (Fault::SyncFailed, 20),
        (Fault::ReadFailed, 20),
        (Fault::NoSpace, 20),
        (Fault::WriteCut, 10),
        (Fault::SpaceBack, 1),
    ] {
        let times = faults.get(&fault).copied().unwrap_or(0);
        assert!(times * 1_000 >= expected * sum.lives, "{fault:?}: {times}");
    }
}

/// Inline, so that a failing seed replays.
#[test]
fn no_fault_loses_an_acknowledged_batch_or_tears_one() {
    let seeds = std::env::var("RAFT_ONCE_CRASH_SEEDS").map_or(200, |n| n.parse().unwrap());
    run(0..seeds, LIVES, Executor::Inline);
}

#[test]
fn no_fault_under_threads_loses_an_acknowledged_batch_or_tears_one() {
    run(1_000_000..1_000_010, LIVES, Executor::Threads);
}

#[test]
fn a_process_that_is_killed_leaves_what_it_has_not_synced_and_the_next_one_makes_it_durable() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let store = open_sim(&disk, Executor::Inline).unwrap();
        write_now(&store, put("a", "1")).unwrap();
        // The group reaches the cache, its sync fails.
        disk.fail_after_syncs(0);
        assert!(write_now(&store, put("a", "2")).is_err());
        drop(store);
        let killed = disk.kill();
        let store = open_sim(&killed, Executor::Inline).unwrap();
        assert_eq!(get(&store, "a").as_deref(), Some("2"));
        drop(store);
        let store = open_sim(&killed.cut_power(), Executor::Inline).unwrap();
        assert_eq!(get(&store, "a").as_deref(), Some("2"), "seed {seed}");
    }
}

#[tokio::test]
async fn a_failed_sync_poisons_the_store() {
    for executor in [Executor::Inline, Executor::Threads] {
        let disk = SimDisk::new(1);
        let store = open_sim(&disk, executor).unwrap();
        write_now(&store, put("a", "1")).unwrap();
        disk.fail_after_syncs(0);
        let failure = write_now(&store, put("b", "2")).unwrap_err();
        assert!(matches!(failure, StoreFailed::Poisoned(_)), "{failure}");
        let changes = disk.changes();
        assert_eq!(write_now(&store, put("c", "3")), Err(failure.clone()));
        assert_eq!(store.flush().await, Err(failure.clone()));
        assert_eq!(store.get(b"a"), Err(failure.clone()));
        assert_eq!(store.failure(), Some(failure.clone()));
        assert_eq!(store.failed().await, failure);
        assert_eq!(store.sequence(), 1);
        assert_eq!(disk.changes(), changes, "nothing is tried again");
        store.close().await;
    }
}

#[tokio::test]
async fn a_failed_checkpoint_poisons_the_store() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let store = open_sim(&disk, Executor::Threads).unwrap();
        disk.fail_after_syncs(40 + seed);
        let waiting = store.clone();
        let failed = tokio::spawn(async move { waiting.failed().await });
        while write_now(&store, put("a", &"1".repeat(300))).is_ok() {}
        assert_eq!(Some(failed.await.unwrap()), store.failure());
        store.close().await;
    }
}
