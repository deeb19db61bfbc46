//! Bytes that are cheap to copy: copies share what neither has changed since. A disk is copied at
//! each simulated crash.

use std::sync::Arc;

const CHUNK_BYTES: usize = 4096;

type Chunk = [u8; CHUNK_BYTES];

/// What lies behind `len` in the last chunk is zero.
#[derive(Clone, Default)]
pub(super) struct Bytes {
    chunks: Vec<Arc<Chunk>>,
    len: usize,
}

impl Bytes {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Cuts the end off, or puts zeros there.
    pub(super) fn set_len(&mut self, len: usize) {
        let chunks = len.div_ceil(CHUNK_BYTES);
        self.chunks.truncate(chunks);
        let within = len % CHUNK_BYTES;
        if len < self.len && within > 0 {
            Arc::make_mut(&mut self.chunks[chunks - 1])[within..].fill(0);
        }
        if self.chunks.len() < chunks {
            self.chunks.resize(chunks, Arc::new([0; CHUNK_BYTES]));
        }
        self.len = len;
    }

    /// Fills `out`, or there is too little.
    pub(super) fn read(&self, from: usize, out: &mut [u8]) -> Option<()> {
        if from + out.len() > self.len {
            return None;
        }
        let mut at = from;
        let mut rest = out;
        while !rest.is_empty() {
            let within = at % CHUNK_BYTES;
            let (part, after) = rest.split_at_mut(rest.len().min(CHUNK_BYTES - within));
            part.copy_from_slice(&self.chunks[at / CHUNK_BYTES][within..within + part.len()]);
            at += part.len();
            rest = after;
        }
        Some(())
    }

    /// Replaces bytes that are there.
    pub(super) fn write(&mut self, from: usize, bytes: &[u8]) {
        assert!(from + bytes.len() <= self.len, "a write behind the end");
        let mut at = from;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = at % CHUNK_BYTES;
            let (part, after) = rest.split_at(rest.len().min(CHUNK_BYTES - within));
            let chunk = Arc::make_mut(&mut self.chunks[at / CHUNK_BYTES]);
            chunk[within..within + part.len()].copy_from_slice(part);
            at += part.len();
            rest = after;
        }
    }

    /// Replaces `from..to` by what `other` has there.
    pub(super) fn copy_from(&mut self, other: &Self, from: usize, to: usize) {
        let mut part = vec![0; to - from];
        other.read(from, &mut part).expect("both are as long");
        self.write(from, &part);
    }

    pub(super) fn flip(&mut self, byte: usize, mask: u8) {
        if byte < self.len {
            Arc::make_mut(&mut self.chunks[byte / CHUNK_BYTES])[byte % CHUNK_BYTES] ^= mask;
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut all = vec![0; self.len];
        self.read(0, &mut all).expect("it is as long");
        all
    }
}

impl From<&[u8]> for Bytes {
    fn from(all: &[u8]) -> Self {
        let mut bytes = Self::default();
        bytes.set_len(all.len());
        bytes.write(0, all);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn they_are_what_a_vector_would_be_and_copies_are_their_own() {
        let mut chance = StdRng::seed_from_u64(1);
        let (mut bytes, mut model) = (Bytes::default(), Vec::new());
        let mut copies: Vec<(Bytes, Vec<u8>)> = Vec::new();
        for _ in 0..500 {
            match chance.random_range(0..4) {
                0 => {
                    let len = chance.random_range(0..3 * CHUNK_BYTES);
                    bytes.set_len(len);
                    model.resize(len, 0);
                }
                1 | 2 if !model.is_empty() => {
                    let from = chance.random_range(0..model.len());
                    let to = chance.random_range(from..=model.len());
                    let with = vec![chance.random(); to - from];
                    bytes.write(from, &with);
                    model[from..to].copy_from_slice(&with);
                }
                _ => copies.push((bytes.clone(), model.clone())),
            }
            assert_eq!(bytes.to_vec(), model);
        }
        assert!(!copies.is_empty());
        for (copy, model) in copies {
            assert_eq!(copy.to_vec(), model);
            assert!(copy.read(model.len(), &mut [0]).is_none());
        }
    }
}
