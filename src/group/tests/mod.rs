//! Groups on whole nodes, over the simulated network in paused time.

mod askers;
mod births;
mod births_limits;
mod census;
mod cluster;
mod crashes;
mod failing;
mod failover;
mod followers;
mod hops;
#[cfg(feature = "jobs")]
mod jobs;
#[cfg(feature = "jobs")]
mod jobs_crashes;
mod limits;
mod newborn;
mod restarts;
mod schedules;
mod seal;
mod sleep;
mod sleep_links;
mod sleep_races;
mod sleep_room;
mod sleep_stalls;
mod suite;
mod tasks;
mod tasks_crashes;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::by_instance::{ByInstance, bear_by_instance};
use super::directory::Directory;
use super::view::View;
use crate::id::{GroupId, NodeId, Version};
use crate::machine::{Command, Proposal, Reply};
use crate::network::Network;
use crate::transport::sim::SimNet;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const GROUP: GroupId = GroupId::from_bytes([3; 32]);

fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 100 + n as u16))
}

impl Directory {
    /// How many groups are known here, and how many of them are of others.
    pub(crate) fn known_groups(&self) -> (usize, usize) {
        let groups = self.groups();
        (groups.len(), self.counts.groups_of_others.get() as usize)
    }

    pub(crate) fn log_length(&self, id: GroupId) -> u64 {
        self.group(id)
            .awake()
            .map_or(0, |replica| replica.log_length())
    }
}

async fn voters(net: &SimNet, count: usize) -> Vec<Network> {
    let electorate: Vec<_> = (0..count)
        .map(|n| (NAMES[n], addr(n).to_string()))
        .collect();
    let mut nodes = Vec::new();
    for name in &NAMES[..count] {
        let node = Network::builder("test")
            .electorate(electorate.clone())
            .voter(*name)
            .secret("a secret of the tests")
            .in_memory()
            .simulated(net)
            .start()
            .await
            .unwrap();
        nodes.push(node);
    }
    nodes
}

async fn online(view: &View) {
    let mut online = view.online();
    let reached = online.wait_for(|online| *online);
    tokio::time::timeout(Duration::from_secs(30), reached)
        .await
        .expect("online within 30 simulated seconds")
        .unwrap();
}

async fn propose(network: &Network, value: u8) -> Option<Reply> {
    propose_to(network, GROUP, value).await
}

async fn propose_to(network: &Network, group: GroupId, value: u8) -> Option<Reply> {
    let interest = network.open(group);
    let value = vec![value];
    let command = Command::Set {
        slot: vec![],
        proposal: Proposal {
            id: network.proposal_id(&value),
            value: value.into(),
            proposed_at_ms: 0,
        },
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    let directory = network.directory();
    directory
        .propose(interest.group(), command, deadline)
        .await
        .ok()
}

fn value(reply: &Reply) -> u8 {
    reply.record.as_ref().unwrap().proposal.value[0]
}

#[tokio::test(start_paused = true)]
async fn three_voters_decide_and_agree() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 3).await;
    let first = propose(&nodes[0], 1).await.unwrap();
    assert_eq!(value(&first), 1);
    for node in &nodes {
        let interest = node.open(GROUP);
        online(interest.view()).await;
        assert_eq!(interest.view().record().unwrap().proposal.value[0], 1_u8);
        let later = propose(node, 9).await.unwrap();
        assert_eq!(value(&later), 1);
        assert!(later.version > first.version);
    }
    for node in &nodes {
        node.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn opening_a_cell_that_nobody_wrote_elects_nobody() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 3).await;
    for node in &nodes {
        let interest = node.open(GROUP);
        online(interest.view()).await;
        assert_eq!(interest.view().version(), Version::ZERO);
        assert!(node.status().cells.iter().all(|cell| !cell.awake));
    }
}

#[tokio::test(start_paused = true)]
async fn a_minority_decides_nothing_and_learns_the_value_when_healed() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 3).await;
    let interest = nodes[0].open(GROUP);
    online(interest.view()).await;
    net.isolate(addr(0));
    let (minority, majority) = tokio::join!(propose(&nodes[0], 1), propose(&nodes[1], 2));
    assert_eq!(minority, None);
    assert_eq!(value(&majority.unwrap()), 2);
    assert!(!interest.view().is_online());
    net.heal_all();
    online(interest.view()).await;
    assert_eq!(value(&propose(&nodes[0], 3).await.unwrap()), 2);
}

#[tokio::test(start_paused = true)]
async fn observers_write_and_follow() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 3).await;
    let one = Network::join_simulated(nodes[0].ticket(), &net)
        .await
        .unwrap();
    let two = Network::join_simulated(nodes[1].ticket(), &net)
        .await
        .unwrap();
    let followed = two.open(GROUP);
    online(followed.view()).await;
    let mut versions = followed.view().versions();
    let written = propose(&one, 7).await.unwrap();
    assert_eq!(value(&written), 7);
    versions.wait_for(|v| *v >= written.version).await.unwrap();
    assert_eq!(followed.view().record().unwrap().proposal.value[0], 7_u8);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_be_seen_is_reached_through_another_voter() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 3).await;
    let leader = propose(&nodes[0], 1).await.unwrap();
    assert_eq!(value(&leader), 1);
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        net.cut(addr(a), addr(b));
        tokio::time::sleep(Duration::from_secs(3)).await;
        for node in &nodes {
            let reply = propose(node, 9).await.expect("every node has a majority");
            assert_eq!(value(&reply), 1);
        }
        net.heal_all();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_leader_is_replaced() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 3).await;
    propose(&nodes[0], 1).await.unwrap();
    for gone in 0..3 {
        net.isolate(addr(gone));
        let rest = &nodes[(gone + 1) % 3];
        assert_eq!(value(&propose(rest, 2).await.unwrap()), 1);
        net.heal_all();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_of_ignored_writes_stays_short() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 3).await;
    for n in 0..300 {
        propose(&nodes[n % 3], 1).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for node in &nodes {
        let entries = node.directory().log_length(GROUP);
        assert!(
            entries <= 2 * super::state::LOG_ENTRIES_MAX,
            "{entries} entries"
        );
    }
}
