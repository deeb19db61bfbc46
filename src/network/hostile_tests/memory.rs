//! The memory of a whole process under attack, against the sum of the limits.

#![cfg(target_os = "linux")]

use super::*;
use crate::network::limits::{OBSERVER_SHARE_BYTES, OBSERVER_STREAMS_MAX, OBSERVERS_BYTES_MAX};
use crate::transport::raw::Raw;

/// Set in the process that is measured.
const ALONE: &str = "RAFT_ONCE_TEST_ALONE";

const TEST: &str = "network::hostile_tests::memory::a_flood_of_bytes_costs_no_more_than_the_limits";

/// What each of their streams tries to send, in bytes.
const TRIED_BYTES: usize = 12 << 20;

/// Both ends are in this process: what waits in their buffers, and what the allocator keeps.
const SLACK_BYTES: usize = 40 << 20;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages = statm.split(' ').nth(1).unwrap();
    pages.parse::<usize>().unwrap() * 4_096
}

#[test]
fn a_flood_of_bytes_costs_no_more_than_the_limits() {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        return runtime.unwrap().block_on(flood());
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("1 passed"), "it did not run alone:\n{out}");
}

/// Sends frames that never end, on every stream that it has, until each is refused.
async fn pour(raw: &Raw) {
    let chunk = vec![1; 64 * 1024];
    let pouring = (0..OBSERVER_STREAMS_MAX).map(|_| async {
        let length = u32::try_from(TRIED_BYTES + 1).unwrap().to_le_bytes();
        let mut stream = raw.send(&length).await.ok()?;
        for _ in 0..TRIED_BYTES / chunk.len() {
            stream.more(&chunk).await.ok()?;
        }
        Some(stream)
    });
    let taken = within("all is sent or refused", futures::future::join_all(pouring)).await;
    assert_eq!(taken.into_iter().flatten().count(), 0);
}

async fn flood() {
    let victim = Victim::alone().await;
    victim.works().await;
    let before = resident_bytes();
    let limit = before + OBSERVER_SHARE_BYTES + SLACK_BYTES;
    // Others have taken what there is to share, or a slow machine could not pour enough.
    let shared = victim.network.node.links.budgets.observers.clone();
    let held = shared.take(OBSERVERS_BYTES_MAX).unwrap();
    let attacker = victim.observer([1; 32]).await;
    let mut peak = 0;
    let watch = async {
        loop {
            peak = peak.max(resident_bytes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = pour(&attacker) => {}
        () = watch => {}
    }
    assert!(
        peak <= limit,
        "{peak} bytes, {before} before, {limit} allowed"
    );
    println!("resident: {before} before, {peak} at most, {limit} allowed");
    drop((attacker, held));
    victim.survived().await;
}
