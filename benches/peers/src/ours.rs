//! What raft-once is asked to do: the one place that says how a slot is claimed with it.

use anyhow::{Context, Result};
use raft_once::{GroupId, Network, Once, OnceMap};

/// The electorate's names.
pub const VOTERS: [&str; 3] = ["a", "b", "c"];

/// Write-once slots, by number, on one node.
#[derive(Clone)]
pub struct Slots {
    network: Network,
    map: OnceMap<u64, String>,
}

impl Slots {
    /// What the slots are kept in, for the page.
    pub const KEPT_IN: &str = "one of an `OnceMap`";

    pub async fn open(network: &Network) -> Result<Self> {
        let slots = Self {
            network: network.clone(),
            map: OnceMap::writer(network, "slots"),
        };
        slots.map.when().online().await;
        Ok(slots)
    }

    /// Claims the slot, and says whether this claim decided it.
    pub async fn claim(&self, slot: u64, value: String) -> Result<bool> {
        Ok(self.map.claim(slot, value).await?.is_won())
    }

    /// The group that a leader is looked for in.
    fn group(&self) -> GroupId {
        self.map.group_id()
    }

    /// The term in which this node leads the slots' group; 0 if it does not.
    pub fn leads_in_term(&self) -> u64 {
        let status = self.network.status();
        let mut cells = status.cells.iter();
        let cell = cells.find(|cell| cell.group == self.group());
        let leads = cell.filter(|cell| cell.leader == Some(status.node_id));
        leads.map_or(0, |cell| cell.term)
    }
}

/// A fresh cell, a group of its own, is opened, and decided.
pub async fn birth(network: &Network, cell: u64, value: String) -> Result<()> {
    let cell = born(network, cell);
    let claim = cell.claim(value).await?;
    anyhow::ensure!(claim.is_won(), "somebody else has decided a fresh cell");
    Ok(())
}

/// The cell that [`birth`] has decided.
pub fn born(network: &Network, cell: u64) -> Once<String> {
    Once::writer(network, format!("birth-{cell}"))
}

/// A fresh cell is opened, and online.
pub async fn open(network: &Network, cell: u64) -> Once<String> {
    let cell = held(network, cell);
    cell.when().online().await;
    cell
}

pub fn held(network: &Network, cell: u64) -> Once<String> {
    Once::writer(network, format!("held-{cell}"))
}

/// Writes cells that are held everywhere.
pub async fn decide(cell: &Once<String>, value: String) -> Result<()> {
    let written = cell.write(value).await;
    written.map(drop).context("a cell that is held")
}
