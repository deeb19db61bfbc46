//! mosaik: three nodes in memory and the relay server that they need, each a process.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::mosaik_node::{NODE, RELAY};
use crate::child::Driven;
use crate::load::Load;
use crate::samples::Samples;

/// It takes seconds where others take milliseconds; but now and then a cell never comes online.
const WITHIN: Duration = Duration::from_secs(30);

pub struct Mosaik {
    nodes: Vec<Driven>,
    _relay: Driven,
}

impl Mosaik {
    pub async fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (relay, url) = Driven::start("relay", &[RELAY.into()], folder).await?;
        let mut nodes: Vec<Driven> = Vec::new();
        let mut first = None;
        for n in 0..3 {
            let mut args = vec![NODE.to_string(), url.clone()];
            args.extend(first.clone());
            let (mut node, addr) = Driven::start(&format!("mosaik{n}"), &args, folder).await?;
            if let Some(first) = &first {
                node.ask(&format!("sync {first}")).await?;
            }
            nodes.push(node);
            first.get_or_insert(addr);
        }
        Ok(Self {
            nodes,
            _relay: relay,
        })
    }

    /// Of the nodes, without the relay.
    pub fn ids(&self) -> Vec<u32> {
        self.nodes.iter().map(Driven::id).collect()
    }

    /// The first node opens the cells, and is timed. It is alone with them then, so it leads them, as
    /// long as it is not voted out.
    pub async fn open(&mut self, load: Load) -> Result<Samples> {
        self.samples(0, "open", load).await
    }

    /// The other nodes open the same cells.
    pub async fn follow(&mut self, first: u64, count: u64) -> Result<()> {
        let load = Load {
            first,
            count,
            within: WITHIN,
            clients: count,
        };
        for node in 1..self.nodes.len() {
            let opened = self.samples(node, "open", load).await?;
            ensure!(opened.count() as u64 == count, "too slow to open");
        }
        Ok(())
    }

    /// Writes cells that all have open: from the node that leads them, or from another.
    pub async fn write(&mut self, at_leader: bool, load: Load) -> Result<Samples> {
        let node = if at_leader { 0 } else { 1 };
        self.samples(node, "write", load).await
    }

    /// All nodes know the values of these cells.
    pub async fn known(&mut self, first: u64, count: u64) -> Result<()> {
        for node in &mut self.nodes {
            let request = format!("known {first} {count}");
            node.ask_within(&request, WITHIN).await?;
        }
        Ok(())
    }

    async fn samples(&mut self, node: usize, what: &str, load: Load) -> Result<Samples> {
        let request = format!("{what} {}", load.to_words());
        Samples::from_line(&self.nodes[node].ask_within(&request, WITHIN).await?)
    }
}
