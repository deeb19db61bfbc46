//! What a fuzzer does with the log: it writes the segments that a store then has to recover.

use std::sync::{Arc, OnceLock};

use super::batch::Batch;
use super::checkpoint::CHECKPOINT;
use super::disk::{Disk, DiskFile};
use super::log::segment_name;
use super::record::{FORMAT_VERSION, SegmentHeader, encode_group};
use super::sim::SimDisk;
use super::{Durability, Executor, Store, StoreConfig, StoreOpenError};

/// The most bytes that one run writes: zeros are cheap to ask for.
const LOG_BYTES_MAX: usize = 256 * 1024;

fn open(disk: &SimDisk) -> Result<Store, StoreOpenError> {
    let config = StoreConfig {
        counts: Arc::default(),
        segment_bytes_max: 2_000,
        table_bytes_max: 1_000_000,
        cache_bytes_max: 100_000,
    };
    Store::open_on(Arc::new(disk.clone()), config, Executor::Inline)
}

fn write(store: &Store, key: &[u8], value: &[u8]) -> u64 {
    let mut batch = Batch::default();
    batch.put(key.to_vec(), value.to_vec());
    let (answer, answered) = std::sync::mpsc::channel();
    store.write(batch, Durability::Now, move |result| {
        // Whoever asked waits below.
        let _ = answer.send(result);
    });
    let written = answered.recv().expect("every batch is answered");
    written.expect("nothing fails on this disk")
}

/// The bytes of two checkpoints: an empty one, and one of three batches.
fn checkpoints() -> &'static [Vec<u8>; 2] {
    static CHECKPOINTS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    CHECKPOINTS.get_or_init(|| {
        let disk = SimDisk::new(1);
        let store = open(&disk).expect("an empty disk is a new store");
        futures::executor::block_on(store.close());
        drop(store);
        let empty = disk.bytes(CHECKPOINT);
        let store = open(&disk).expect("closed in order");
        for key in [b"a", b"b", b"c"] {
            write(&store, key, b"old");
        }
        futures::executor::block_on(store.close());
        drop(store);
        [empty, disk.bytes(CHECKPOINT)]
    })
}

/// Reads numbers and pieces off the input; what is not there is zero.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// Small ones mostly, since those are met; never one that a count of batches would lead past
    /// the end of all numbers.
    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small),
            200..=229 => u64::from(u32::from_le_bytes(self.array())),
            _ => u64::from_le_bytes(self.array()) >> 1,
        }
    }

    /// The first batch has number 1.
    fn sequence(&mut self) -> u64 {
        self.number().max(1)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }
}

/// The log as it is written: its files, and what goes into the last one.
struct Scribe {
    disk: SimDisk,
    file: Option<Box<dyn DiskFile>>,
    id: u64,
    next: u64,
    bytes: usize,
}

impl Scribe {
    fn append(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        if let Some(file) = &self.file
            && self.bytes <= LOG_BYTES_MAX
        {
            let end = file.len().expect("nothing fails on this disk");
            file.write_at(end, bytes)
                .expect("nothing fails on this disk");
        }
    }

    fn segment(&mut self, index: u64, first_sequence: u64) {
        let file = self.disk.open(&segment_name(index));
        self.file = Some(file.expect("nothing fails on this disk"));
        self.next = first_sequence;
        let header = SegmentHeader {
            id: self.id,
            first_sequence,
        };
        self.append(&header.encode());
    }

    fn group(&mut self, batches: &[Batch]) {
        let mut bytes = Vec::new();
        encode_group(&mut bytes, self.id, self.next, batches.iter());
        self.append(&bytes);
        self.next = self.next.wrapping_add(batches.len() as u64);
    }

    /// A group whose checksums are right, and nothing else need be.
    fn sealed(&mut self, version: u8, epoch: u8, first: u64, batches: u32, payload: &[u8]) {
        let crc = |bytes: &[u8]| {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&self.id.to_le_bytes());
            hasher.update(bytes);
            hasher.finalize().to_le_bytes()
        };
        let mut bytes = b"oG\xb1".to_vec();
        bytes.push(version);
        bytes.extend_from_slice(&u32::from(epoch).to_le_bytes());
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&batches.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc(payload));
        let header_crc = crc(&bytes);
        bytes.extend_from_slice(&header_crc);
        bytes.extend_from_slice(payload);
        self.append(&bytes);
    }

    /// Writes what the script says.
    fn follow(&mut self, script: &mut Script) {
        while !script.0.is_empty() {
            match script.byte() % 8 {
                0 => {
                    self.id = self.id.wrapping_add(1);
                    let (index, first) = (script.number(), script.sequence());
                    self.segment(index, first);
                }
                1 => {
                    let count = usize::from(script.byte() % 4);
                    let batches = (0..count).map(|_| {
                        let mut batch = Batch::default();
                        let (key, value) = (script.piece(), script.piece());
                        match script.byte() % 4 {
                            0 => batch.delete(key.to_vec()),
                            _ => batch.put(key.to_vec(), value.to_vec()),
                        }
                        batch
                    });
                    let batches: Vec<_> = batches.collect();
                    self.group(&batches);
                }
                2 => self.append(script.piece()),
                3 => self.append(&vec![0; usize::from(script.byte()) * 16]),
                4 => {
                    let (at, with) = (script.number(), script.byte());
                    self.change(at, with);
                }
                5 => {
                    let length = script.number();
                    if let Some(file) = &self.file
                        && length <= LOG_BYTES_MAX as u64
                    {
                        file.set_len(length).expect("nothing fails on this disk");
                    }
                }
                6 => {
                    let header = SegmentHeader {
                        id: script.number(),
                        first_sequence: script.sequence(),
                    };
                    self.append(&header.encode());
                }
                _ => {
                    let (version, epoch) = (script.byte(), script.byte());
                    // Mostly those of today.
                    let version = if version < 0xf0 {
                        FORMAT_VERSION
                    } else {
                        version
                    };
                    let epoch = if epoch < 0xf0 { 0 } else { epoch };
                    let first = match script.byte() {
                        0..=0xc0 => self.next,
                        _ => script.sequence(),
                    };
                    let batches = script.number() as u32;
                    self.sealed(version, epoch, first, batches, script.piece());
                    self.next = first.wrapping_add(u64::from(batches));
                }
            }
        }
    }

    fn change(&mut self, at: u64, with: u8) {
        let Some(file) = &self.file else {
            return;
        };
        let mut byte = [0];
        if file
            .read_at(at.min(LOG_BYTES_MAX as u64), &mut byte)
            .is_ok()
        {
            byte[0] ^= with;
            file.write_at(at, &byte)
                .expect("nothing fails on this disk");
        }
    }
}

/// The first byte chooses the checkpoint; the rest is a script of what stands in the log.
pub(crate) fn log_recovery(bytes: &[u8]) {
    let Some((&which, script)) = bytes.split_first() else {
        return;
    };
    let disk = SimDisk::new(1);
    let checkpoint = &checkpoints()[usize::from(which % 2)];
    let file = disk.open(CHECKPOINT).expect("nothing fails on this disk");
    file.write_at(0, checkpoint)
        .expect("nothing fails on this disk");
    let mut scribe = Scribe {
        disk: disk.clone(),
        file: None,
        id: 0,
        next: 0,
        bytes: 0,
    };
    scribe.follow(&mut Script(script));
    recovered(disk);
}

/// A log is refused, today and tomorrow, or it can be read and goes on.
fn recovered(disk: SimDisk) {
    let store = match open(&disk) {
        Ok(store) => store,
        Err(error) => {
            let again = open(&disk.kill()).err().map(|error| error.to_string());
            assert_eq!(again, Some(error.to_string()));
            return;
        }
    };
    let (sequence, found) = (store.sequence(), store.scan(b"").expect("it is open"));
    drop(store);
    let disk = disk.kill();
    let store = open(&disk).expect("it was opened before");
    assert_eq!(store.sequence(), sequence);
    assert_eq!(store.scan(b"").as_ref(), Ok(&found));
    let Some(next) = sequence.checked_add(1) else {
        return;
    };
    assert_eq!(write(&store, b"new", b"value"), next);
    drop(store);
    let store = open(&disk.kill()).expect("it was opened before");
    assert_eq!(store.sequence(), next);
    assert_eq!(store.get(b"new"), Ok(Some(b"value".to_vec())));
    let kept = found.iter().filter(|(key, _)| key != b"new");
    for (key, value) in kept {
        assert_eq!(store.get(key).as_ref(), Ok(&Some(value.clone())));
    }
}
