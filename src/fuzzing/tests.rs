//! Bytes from strangers, broken peers and rotten disks: every parser refuses them or reads them,
//! none panics, and none is made to take memory beyond its limit. Seeded, so that a failure comes
//! again.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::corpus::samples;
use super::mutate::mutated;
use super::watch::run;
use super::{TARGETS, Target};
use crate::group::generate as group;

/// Runs with each target; those that start a voter or a store take a millisecond or so.
fn rounds(target: &Target) -> usize {
    match target.name {
        "answer" => 200,
        "group_on_disk" | "log_recovery" => 60,
        _ => 1_200,
    }
}

fn run_each(seed: u64, make: impl Fn(&mut StdRng, &[Vec<u8>]) -> Vec<u8>) {
    for target in TARGETS {
        let mut rng = StdRng::seed_from_u64(seed);
        let samples = samples(target.name);
        for _ in 0..rounds(target) {
            let bytes = make(&mut rng, &samples);
            let shown = bytes.clone();
            let ran = std::panic::catch_unwind(|| run(target, &bytes));
            assert!(ran.is_ok(), "{} fails on {shown:?}", target.name);
        }
    }
}

#[test]
fn good_bytes_are_read() {
    for target in TARGETS {
        let samples = samples(target.name);
        for sample in samples.iter().take(rounds(target)) {
            run(target, sample);
        }
    }
}

#[test]
fn random_bytes_do_no_harm() {
    run_each(1, |rng, _| group::bytes(rng, 200));
}

#[test]
fn damaged_bytes_do_no_harm() {
    run_each(2, mutated);
}
