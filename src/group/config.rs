//! The settings of every instance of openraft.

use openraft::{Config, SnapshotPolicy, StepDownPolicy};

use crate::id::GroupId;
use crate::probe::{Bug, planted};

/// The floor of failover: a follower that heard from its leader refuses other candidates so long.
pub(crate) const LEASE_MS: u64 = 1_000;
const ELECTION_TIMEOUT_MIN_MS: u64 = 750;
/// With ticks off only a hint: appends must be answered within 3/4 of it.
const HEARTBEAT_MS: u64 = 500;
/// How long a snapshot may be on its way and be written, beside what its bytes take.
const SNAPSHOT_MS: u64 = 2_000;
/// Log entries kept behind a snapshot, so that a voter that is a little behind needs none.
const LOG_ENTRIES_KEPT: u64 = 16;

/// The settings of every group. Ticks, heartbeats and elections by themselves are off: the
/// directory drives them. A leader is not restored from the disk of an earlier instance: it may
/// have lost its un-synced tail, and would go on as if it had not. `leads` says that nothing can
/// be lost: this process has just made this voter the leader of a newborn group, or has put the
/// leader to sleep itself and seen all that it wrote synced.
pub(super) fn config(group: GroupId, leads: bool) -> Config {
    Config {
        cluster_name: "raft-once".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_TIMEOUT_MIN_MS,
        election_timeout_max: LEASE_MS,
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(leads || planted(Bug::LeaderRestored)),
        allow_log_reversion: Some(false),
        removed_leader_step_down: StepDownPolicy::Never,
        quorum_loss_probe_interval: None,
        snapshot_policy: SnapshotPolicy::Never,
        install_snapshot_timeout: SNAPSHOT_MS,
        // What is kept of a long log is a matter of bytes, too.
        max_in_snapshot_log_to_keep: match group.is_cell() {
            true => LOG_ENTRIES_KEPT,
            false => u64::MAX,
        },
        purge_batch_size: 1,
        api_batch_linger_ms: 0,
        api_channel_size: Some(1_024),
        notification_channel_size: Some(1_024),
        state_machine_channel_size: Some(256),
        ..Config::default()
    }
}
