//! A node of mosaik, and the relay server that it needs: processes of their own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use mosaik::collections::{Once, StoreId};
use mosaik::iroh::{EndpointAddr, RelayMode, RelayUrl};
use mosaik::{Network, discovery};

use crate::driven;
use crate::load::{self, Load};
use crate::plan::value;
use crate::samples::Samples;

/// The hidden words that make this program one of them.
pub const NODE: &str = "mosaik-node";
pub const RELAY: &str = "mosaik-relay";

/// A write that is not answered for so long was lost.
const RETRY: Duration = Duration::from_secs(2);

/// What `iroh-relay --dev` is: plain HTTP, no limits, everybody is let in.
pub async fn run_relay() -> Result<()> {
    let mut requests = driven::requests();
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new((Ipv4Addr::LOCALHOST, 0)));
    let server = Server::spawn(config).await;
    let addr = server.as_ref().ok().and_then(Server::http_addr);
    driven::say(&match (&server, addr) {
        (_, Some(addr)) => Ok(format!("http://{addr}")),
        (Err(error), None) => Err(anyhow::anyhow!("no relay: {error}")),
        (Ok(_), None) => Err(anyhow::anyhow!("the relay has no address")),
    });
    // It answers nothing more, and ends with its parent.
    while requests.recv().await.is_some() {}
    Ok(())
}

/// `args`: the relay's URL, and the address of a node that is there already, if there is one.
pub async fn run_node(args: &[String]) -> Result<()> {
    let [relay, bootstrap @ ..] = args else {
        bail!("a node of mosaik needs a relay");
    };
    let mut requests = driven::requests();
    let started = start(relay, bootstrap.first()).await;
    let mut node = match started {
        Ok(network) => {
            let addr = serde_json::to_string(&network.local().addr())?;
            driven::say(&Ok(addr));
            Node {
                network: Arc::new(network),
                cells: Arc::default(),
            }
        }
        Err(error) => {
            driven::say(&Err(error));
            return Ok(());
        }
    };
    while let Some(request) = requests.recv().await {
        driven::say(&node.answer(&request).await);
    }
    Ok(())
}

async fn start(relay: &str, bootstrap: Option<&String>) -> Result<Network> {
    let relay: RelayUrl = relay.parse()?;
    let mut discovery = discovery::Config::builder().no_dht_bootstrap();
    if let Some(addr) = bootstrap {
        let addr: EndpointAddr = serde_json::from_str(addr)?;
        discovery = discovery.with_bootstrap(addr);
    }
    let network = Network::builder("peers")
        .with_relay_mode(RelayMode::Custom(relay.into()))
        .with_discovery(discovery)
        .build();
    let network = tokio::time::timeout(Duration::from_secs(30), network).await;
    network
        .context("a node of mosaik did not come online")?
        .context("mosaik")
}

struct Node {
    // Neither a network nor a cell of mosaik is a handle that can be cloned.
    network: Arc<Network>,
    cells: Cells,
}

type Cells = Arc<Mutex<BTreeMap<u64, Arc<Once<String>>>>>;

fn lock(cells: &Cells) -> MutexGuard<'_, BTreeMap<u64, Arc<Once<String>>>> {
    cells.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    async fn answer(&mut self, request: &str) -> Result<String> {
        let words: Vec<&str> = request.split(' ').collect();
        match *words {
            ["open", ref load @ ..] => Ok(self.open(Load::from_words(load)?).await?.to_line()),
            ["write", ref load @ ..] => Ok(self.write(Load::from_words(load)?).await?.to_line()),
            ["known", first, count] => {
                let (first, count): (u64, u64) = (first.parse()?, count.parse()?);
                for cell in first..first + count {
                    get(&self.cells, cell)?.await_value().await;
                }
                Ok(String::new())
            }
            ["sync", addr] => {
                let addr: EndpointAddr = serde_json::from_str(addr)?;
                self.network.discovery().sync_with(addr).await?;
                Ok(String::new())
            }
            _ => bail!("no such request"),
        }
    }

    /// Opens cells, and keeps them.
    async fn open(&self, load: Load) -> Result<Samples> {
        let (network, cells) = (self.network.clone(), self.cells.clone());
        load::run(load, move |_, number| {
            let (network, cells) = (network.clone(), cells.clone());
            async move {
                let id = StoreId::from(&*format!("cell-{number}"));
                let cell = Arc::new(Once::<String>::writer(&network, id));
                cell.when().online().await;
                lock(&cells).insert(number, cell);
                Ok(())
            }
        })
        .await
    }

    /// Writes cells that are open here. A write of mosaik returns when it is committed. One that is
    /// refused, or not answered, because the group has lost its leader or found another, is made
    /// again, and what that takes counts.
    async fn write(&self, load: Load) -> Result<Samples> {
        let cells = self.cells.clone();
        load::run(load, move |_, number| {
            let cell = get(&cells, number);
            async move {
                let cell = cell?;
                loop {
                    let written = tokio::time::timeout(RETRY, cell.write(value())).await;
                    if written.is_ok_and(|written| written.is_ok()) {
                        return Ok(());
                    }
                    // Resolves at once if it is online already.
                    let _ = tokio::time::timeout(RETRY, cell.when().online()).await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        })
        .await
    }
}

fn get(cells: &Cells, number: u64) -> Result<Arc<Once<String>>> {
    let cell = lock(cells).get(&number).cloned();
    cell.with_context(|| format!("cell {number} is not open here"))
}
