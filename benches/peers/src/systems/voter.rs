//! A voter of raft-once: a process of its own, as each server of etcd is one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use raft_once::{Network, Once};

use crate::driven;
use crate::load::{self, Load};
use crate::ours::{self, Slots, VOTERS};
use crate::plan::value;
use crate::prober::Prober;
use crate::samples::Samples;

/// The hidden word that makes this program a voter.
pub const WORD: &str = "raft-once-voter";

/// `args`: the voter's name, its folder, and the addresses of all voters.
pub async fn run(args: &[String]) -> Result<()> {
    let [name, folder, addresses @ ..] = args else {
        bail!("a voter needs its name, its folder and the addresses");
    };
    ensure!(addresses.len() == VOTERS.len(), "an address for each voter");
    let mut requests = driven::requests();
    let electorate = VOTERS.iter().zip(addresses);
    let network = Network::builder("peers")
        .electorate(electorate.map(|(name, addr)| (*name, addr.clone())))
        .voter(name)
        .data_dir(folder)
        .start()
        .await;
    let mut voter = match network {
        Ok(network) => {
            driven::say(&Ok(network.ticket().to_string()));
            Voter {
                network,
                slots: None,
                held: Vec::new(),
                prober: None,
            }
        }
        Err(error) => {
            driven::say(&Err(error.into()));
            return Ok(());
        }
    };
    while let Some(request) = requests.recv().await {
        driven::say(&voter.answer(&request).await);
    }
    Ok(())
}

struct Voter {
    network: Network,
    slots: Option<Slots>,
    held: Vec<Once<String>>,
    prober: Option<Prober>,
}

impl Voter {
    async fn answer(&mut self, request: &str) -> Result<String> {
        let words: Vec<&str> = request.split(' ').collect();
        match *words {
            ["slots"] => {
                self.slots = Some(Slots::open(&self.network).await?);
                Ok(String::new())
            }
            ["leads"] => Ok(self.slots()?.leads_in_term().to_string()),
            ["claim", ref load @ ..] => {
                let samples = claim(self.slots()?, Load::from_words(load)?).await?;
                Ok(samples.to_line())
            }
            ["birth", ref load @ ..] => {
                let samples = birth(&self.network, Load::from_words(load)?).await?;
                Ok(samples.to_line())
            }
            ["open", ref load @ ..] => {
                let samples = open(&self.network, Load::from_words(load)?).await?;
                Ok(samples.to_line())
            }
            ["hold", first, count] => self.hold(first.parse()?, count.parse()?).await,
            ["decide"] => {
                for cell in &self.held {
                    ours::decide(cell, value()).await?;
                }
                Ok(String::new())
            }
            // Without a sample of each: there may be millions.
            ["bear", first, count, clients] => {
                let network = self.network.clone();
                load::all(
                    first.parse()?,
                    count.parse()?,
                    clients.parse()?,
                    move |cell| {
                        let network = network.clone();
                        async move { ours::birth(&network, cell, value()).await }
                    },
                )
                .await?;
                Ok(String::new())
            }
            ["fill", first, count, clients] => {
                let slots = self.slots()?;
                load::all(
                    first.parse()?,
                    count.parse()?,
                    clients.parse()?,
                    move |slot| {
                        let slots = slots.clone();
                        async move { slots.claim(slot, value()).await.map(drop) }
                    },
                )
                .await?;
                Ok(String::new())
            }
            ["knows", cell] => {
                ours::born(&self.network, cell.parse()?).wait().await?;
                Ok(String::new())
            }
            ["known"] => {
                for cell in &self.held {
                    cell.wait().await?;
                }
                Ok(String::new())
            }
            ["probe", first] => {
                self.prober = Some(probe(self.slots()?, first.parse()?));
                Ok(String::new())
            }
            ["acknowledged", since, within_ms] => {
                let prober = self.prober.take().context("no prober")?;
                ensure!(prober.count() > 0, "nothing was ever acknowledged");
                let within = Duration::from_millis(within_ms.parse()?);
                let first = prober.first_since(since.parse()?, within).await;
                Ok(first.map_or("never".into(), |first| first.to_string()))
            }
            _ => bail!("no such request"),
        }
    }

    fn slots(&self) -> Result<Slots> {
        self.slots.clone().context("the slots are not open")
    }

    async fn hold(&mut self, first: u64, count: u64) -> Result<String> {
        let cells = (first..first + count).map(|cell| ours::held(&self.network, cell));
        self.held.extend(cells);
        for cell in &self.held {
            cell.when().online().await;
        }
        Ok(String::new())
    }
}

// These are what an observer does too.

pub async fn claim(slots: Slots, load: Load) -> Result<Samples> {
    load::run(load, move |_, slot| {
        let slots = slots.clone();
        async move {
            let won = slots.claim(slot, value()).await?;
            ensure!(won, "somebody else has claimed a fresh slot");
            Ok(())
        }
    })
    .await
}

pub async fn birth(network: &Network, load: Load) -> Result<Samples> {
    let network = network.clone();
    load::run(load, move |_, cell| {
        let network = network.clone();
        async move { ours::birth(&network, cell, value()).await }
    })
    .await
}

/// The handles are kept to the end: closing is not measured.
pub async fn open(network: &Network, load: Load) -> Result<Samples> {
    let network = network.clone();
    let opened = Arc::new(std::sync::Mutex::new(Vec::new()));
    load::run(load, move |_, cell| {
        let (network, opened) = (network.clone(), opened.clone());
        async move {
            let cell = ours::open(&network, cell).await;
            let mut opened = opened.lock().unwrap_or_else(|e| e.into_inner());
            opened.push(cell);
            Ok(())
        }
    })
    .await
}

pub fn probe(slots: Slots, first: u64) -> Prober {
    Prober::start(first, move |slot| {
        let slots = slots.clone();
        async move { slots.claim(slot, value()).await.map(drop) }
    })
}
