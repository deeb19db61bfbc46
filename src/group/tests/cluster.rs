//! Voters on simulated disks that lose power and come back.

use super::*;
use crate::store::SimDisk;

pub(super) struct Cluster {
    pub(super) net: SimNet,
    pub(super) disks: Vec<SimDisk>,
    nodes: Vec<Option<Network>>,
    /// How often a replica fell asleep on a node that is gone.
    slept_before: u64,
}

impl Cluster {
    /// All voters, started on empty disks, once they know each other.
    pub(super) async fn start(seed: u64, count: usize) -> Self {
        let cluster = Self::begin(seed, count).await;
        cluster.met().await;
        cluster
    }

    /// All voters, started on empty disks.
    pub(super) async fn begin(seed: u64, count: usize) -> Self {
        let disks = (0..count as u64).map(|n| SimDisk::new(seed * 16 + n));
        let mut cluster = Self {
            net: SimNet::new(seed),
            disks: disks.collect(),
            nodes: vec![None; count],
            slept_before: 0,
        };
        for n in 0..count {
            cluster.power_up(n).await;
        }
        cluster
    }

    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn is_up(&self, n: usize) -> bool {
        self.nodes[n].is_some()
    }

    pub(super) fn node(&self, n: usize) -> &Network {
        self.nodes[n].as_ref().expect("the node is up")
    }

    pub(super) fn up(&self) -> impl Iterator<Item = &Network> {
        self.nodes.iter().flatten()
    }

    /// Which node is `id`.
    pub(super) fn at(&self, id: NodeId) -> usize {
        let ids = NAMES.iter().map(|name| NodeId::of_voter(name));
        ids.take(self.count())
            .position(|known| known == id)
            .unwrap()
    }

    /// The nodes in the order in which they should lead `group`.
    pub(super) fn order(&self, group: GroupId) -> Vec<usize> {
        let node = self.up().next().expect("some node is up");
        let order = node.directory().peers().order(&group);
        order.into_iter().map(|id| self.at(id)).collect()
    }

    /// Everyone who is up is linked to everyone else.
    pub(super) async fn met(&self) {
        let up: Vec<_> = self.up().map(Network::node_id).collect();
        for node in self.up() {
            until("the voters know each other", || {
                let peers = node.directory().peers();
                let others = up.iter().filter(|id| **id != node.node_id());
                peers.may_vote() && others.copied().all(|id| peers.is_linked(id))
            })
            .await;
        }
    }

    /// The process dies and the power fails with it: un-synced pages are lost or not.
    pub(super) fn cut_power(&mut self, n: usize) {
        let disk = self.disks[n].cut_power();
        self.end(n, disk);
    }

    /// The process dies, and all that it wrote is there.
    pub(super) fn kill(&mut self, n: usize) {
        let disk = self.disks[n].kill();
        self.end(n, disk);
    }

    fn end(&mut self, n: usize, disk: SimDisk) {
        self.disks[n] = disk;
        self.net.kill(addr(n));
        let node = self.nodes[n].take();
        self.slept_before += node.map_or(0, |node| slept(&node));
    }

    /// How often replicas fell asleep.
    pub(super) fn slept(&self) -> u64 {
        self.slept_before + self.up().map(slept).sum::<u64>()
    }

    /// Nobody is awake, or looks after those who are.
    pub(super) async fn all_asleep(&self) {
        until("all replicas sleep", || {
            self.up().all(|node| {
                let berths = &node.directory().berths;
                berths.count().0 == 0 && !berths.is_swept()
            })
        })
        .await;
    }

    pub(super) async fn power_up(&mut self, n: usize) {
        let electorate: Vec<_> = (0..self.count())
            .map(|n| (NAMES[n], addr(n).to_string()))
            .collect();
        let node = Network::builder("test")
            .electorate(electorate)
            .voter(NAMES[n])
            .secret("a secret of the tests")
            .on_disk(&self.disks[n])
            .simulated(&self.net)
            .start()
            .await;
        self.nodes[n] = Some(node.unwrap());
    }
}

fn slept(node: &Network) -> u64 {
    let (now, ever) = node.directory().berths.count();
    ever - now as u64
}

/// How often a replica was woken on a node since it started.
pub(super) fn woken(node: &Network) -> u64 {
    node.directory().berths.count().1
}

pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(waited.is_ok(), "not within a simulated minute: {what}");
}

/// A proposal that nobody waits for.
pub(super) fn propose_aside(
    node: &Network,
    group: GroupId,
    value: u8,
) -> tokio::task::JoinHandle<Option<Reply>> {
    let node = node.clone();
    tokio::spawn(async move { propose_to(&node, group, value).await })
}
