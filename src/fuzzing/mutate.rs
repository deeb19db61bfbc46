//! Bytes that were good once.

use rand::RngExt;
use rand::rngs::StdRng;

/// Flips, cuts, inserts and repeats, writes a length that nothing has, or goes on as another
/// sample does; a few times.
pub(super) fn mutated(rng: &mut StdRng, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = samples[rng.random_range(0..samples.len())].clone();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..8) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 if at < bytes.len() => bytes[at] = rng.random(),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, rng.random()),
            5 => {
                let to = rng.random_range(at..=bytes.len());
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                let other = &samples[rng.random_range(0..samples.len())];
                let from = rng.random_range(0..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let length = claimed_length(rng);
                let to = bytes.len().min(at + rng.random_range(0..2) * length.len());
                bytes.splice(at..to, length);
            }
        }
    }
    bytes
}

/// A length as our structs and frames write it, of up to all there can be.
fn claimed_length(rng: &mut StdRng) -> Vec<u8> {
    let length = u64::MAX >> rng.random_range(0..64);
    match rng.random_range(0..4) {
        0 => [&[251][..], &(length as u16).to_le_bytes()].concat(),
        1 => [&[252][..], &(length as u32).to_le_bytes()].concat(),
        2 => [&[253][..], &length.to_le_bytes()].concat(),
        _ => (length as u32).to_le_bytes().to_vec(),
    }
}
