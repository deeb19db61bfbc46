//! raft-once: three voters with disks, each a process, and an observer in this one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use raft_once::{Network, Ticket};

use super::voter;
use crate::child::Driven;
use crate::load::Load;
use crate::ours::{Slots, VOTERS};
use crate::ports;
use crate::samples::Samples;

/// No voter takes so long to make its part of very many things.
const FILLED_WITHIN: Duration = Duration::from_secs(2 * 3_600);

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Leader,
    OtherVoter,
    Observer,
}

pub struct RaftOnce {
    // In this order: the observer leaves before the voters are killed.
    observer: Network,
    slots: Option<Slots>,
    voters: BTreeMap<&'static str, Driven>,
    folder: PathBuf,
    addresses: Vec<String>,
}

impl RaftOnce {
    pub async fn start(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let ports = ports::free_udp::<3>()?;
        let addresses: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
        let mut voters = BTreeMap::new();
        let mut ticket = String::new();
        for name in VOTERS {
            let (voter, said) = start_voter(name, &folder, &addresses).await?;
            voters.insert(name, voter);
            ticket = said;
        }
        let ticket: Ticket = ticket.parse()?;
        let observer = Network::join(ticket).await?;
        let mut system = Self {
            observer,
            slots: None,
            voters,
            folder,
            addresses,
        };
        for name in VOTERS {
            system.voter(name)?.ask("slots").await?;
        }
        system.slots = Some(Slots::open(&system.observer).await?);
        Ok(system)
    }

    pub fn ids(&self) -> Vec<u32> {
        self.voters.values().map(Driven::id).collect()
    }

    pub fn slots(&self) -> Result<Slots> {
        self.slots.clone().context("opened at the start")
    }

    pub fn voter(&mut self, name: &str) -> Result<&mut Driven> {
        let voter = self.voters.get_mut(name);
        voter.with_context(|| format!("voter {name} does not run"))
    }

    /// The voter that leads the slots; any one if nobody has led yet.
    pub async fn leader(&mut self) -> Result<&'static str> {
        let mut leader = (0, VOTERS[0]);
        for (name, voter) in &mut self.voters {
            let term: u64 = voter.ask("leads").await?.parse()?;
            leader = leader.max((term, name));
        }
        Ok(leader.1)
    }

    async fn voter_of(&mut self, client: Client) -> Result<Option<&'static str>> {
        let leader = self.leader().await?;
        Ok(match client {
            Client::Leader => Some(leader),
            Client::OtherVoter => VOTERS.into_iter().find(|name| *name != leader),
            Client::Observer => None,
        })
    }

    pub async fn claim(&mut self, client: Client, load: Load) -> Result<Samples> {
        match self.voter_of(client).await? {
            None => voter::claim(self.slots()?, load).await,
            Some(name) => self.samples(name, "claim", load).await,
        }
    }

    pub async fn birth(&mut self, client: Client, load: Load) -> Result<Samples> {
        match self.voter_of(client).await? {
            None => voter::birth(&self.observer, load).await,
            Some(name) => self.samples(name, "birth", load).await,
        }
    }

    pub async fn open(&mut self, client: Client, load: Load) -> Result<Samples> {
        match self.voter_of(client).await? {
            None => voter::open(&self.observer, load).await,
            Some(name) => self.samples(name, "open", load).await,
        }
    }

    async fn samples(&mut self, name: &str, what: &str, load: Load) -> Result<Samples> {
        let request = format!("{what} {}", load.to_words());
        Samples::from_line(&self.voter(name)?.ask(&request).await?)
    }

    /// Every voter holds so many decided cells.
    pub async fn hold(&mut self, first: u64, count: u64) -> Result<()> {
        for name in VOTERS {
            let request = format!("hold {first} {count}");
            self.voter(name)?.ask(&request).await?;
        }
        self.voter(VOTERS[0])?.ask("decide").await?;
        for name in VOTERS {
            self.voter(name)?.ask("known").await?;
        }
        Ok(())
    }

    /// So many decided slots.
    pub async fn fill(&mut self, load: Load) -> Result<()> {
        let samples = self.claim(Client::Leader, load).await?;
        ensure!(samples.count() as u64 == load.count, "too slow to fill");
        Ok(())
    }

    /// So many decided cells that nobody holds, made in all voters at once.
    pub async fn bear(&mut self, first: u64, count: u64, clients: u64) -> Result<()> {
        self.share("bear", first, count, clients).await
    }

    /// So many decided slots, claimed in all voters at once.
    pub async fn claim_all(&mut self, first: u64, count: u64, clients: u64) -> Result<()> {
        self.share("fill", first, count, clients).await
    }

    async fn share(&mut self, what: &str, first: u64, count: u64, clients: u64) -> Result<()> {
        let end = first + count;
        let part = count.div_ceil(VOTERS.len() as u64);
        let starts = (first..end).step_by(part as usize);
        let mut asked = Vec::new();
        for (name, start) in VOTERS.into_iter().zip(starts) {
            let request = format!("{what} {start} {} {clients}", part.min(end - start));
            self.voter(name)?.tell(&request).await?;
            asked.push((name, request));
        }
        for (name, request) in asked {
            self.voter(name)?.answer(&request, FILLED_WITHIN).await?;
        }
        Ok(())
    }

    pub fn kill(&mut self, name: &str) -> Result<()> {
        // Dropped, which waits until it is gone.
        let voter = self.voters.remove(name);
        voter.map(drop).context("it ran a moment ago")
    }

    /// Starts a voter that was killed, on its data and at its address.
    pub async fn start_again(&mut self, name: &'static str) -> Result<()> {
        let (voter, _) = start_voter(name, &self.folder, &self.addresses).await?;
        self.voters.insert(name, voter);
        Ok(())
    }

    /// The same, and waits until all three are linked.
    pub async fn restart(&mut self, name: &'static str) -> Result<()> {
        self.start_again(name).await?;
        self.voter(name)?.ask("slots").await?;
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.observer.status();
            if status.voters.iter().all(|voter| voter.linked) {
                return Ok(());
            }
            if Instant::now() > give_up {
                bail!("{name} was not linked again: {:?}", status.voters);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn stop(self) {
        self.observer.shutdown().await;
    }
}

async fn start_voter(
    name: &str,
    folder: &std::path::Path,
    addresses: &[String],
) -> Result<(Driven, String)> {
    let data = folder.join(name);
    let data = data.to_str().context("a folder with an odd name")?;
    let mut args = vec![voter::WORD.into(), name.into(), data.into()];
    args.extend_from_slice(addresses);
    Driven::start(name, &args, folder).await
}
