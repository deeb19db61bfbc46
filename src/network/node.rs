//! One node: what is started and stopped together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::NetworkError;
use super::book::Book;
use super::electorate::Electorate;
use super::hello::Terms;
use super::links::{Links, Parts, code};
use super::proof::Kind;
use super::ticket::Ticket;
use crate::group::{Census, Directory};
use crate::id::NodeId;
use crate::limits::Limits;
use crate::metrics::Counts;
use crate::store::{Store, StoreConfig};
use crate::transport::{PeerKey, Transport};

/// How long tasks may take to end at shutdown.
const TASKS_END_MS: u64 = 2_000;

/// Where a voter keeps its data.
#[derive(Debug, Clone)]
pub(super) enum Storage {
    Memory,
    Folder(PathBuf),
    #[cfg(test)]
    Simulated(crate::store::SimDisk),
}

/// A node that is about to start.
pub(super) struct Plan {
    pub(super) network: String,
    pub(super) electorate: Electorate,
    /// The name of the voter that this node is, and where it keeps its data.
    pub(super) voter: Option<(String, Storage)>,
    pub(super) terms: Terms,
    pub(super) voter_keys: Vec<(PeerKey, NodeId)>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) ticket: Ticket,
    pub(super) write_timeout: Duration,
    pub(super) entropy: [u8; 32],
    pub(super) store_config: StoreConfig,
    pub(super) limits: Limits,
}

pub(crate) struct Node {
    pub(super) network: String,
    pub(super) links: Arc<Links>,
    pub(super) directory: Arc<Directory>,
    pub(super) ticket: Ticket,
    pub(super) write_timeout: Duration,
    /// The id of this start, in every proposal.
    pub(super) boot: [u8; 16],
    pub(super) counts: Arc<Counts>,
    store: Option<Store>,
    failure: Arc<Mutex<Option<String>>>,
    stopping: tokio::sync::Mutex<bool>,
}

impl Node {
    pub(super) async fn start(plan: Plan) -> Result<Arc<Self>, NetworkError> {
        let mut entropy = StdRng::from_seed(plan.entropy);
        let down = CancellationToken::new();
        let tasks = TaskTracker::new();
        let local_key = plan.transport.local_key();
        let (me, kind) = match &plan.voter {
            Some((name, _)) => (NodeId::of_voter(name), Kind::Voter),
            None => (NodeId::of_key(&local_key.0), Kind::Observer),
        };
        let counts = match &plan.voter {
            Some((name, _)) => Counts::new(&plan.network, name),
            None => Counts::new(&plan.network, &me.to_string()),
        };
        let counts = Arc::new(counts);
        let mut census = Census::of_nothing(counts.clone());
        let (store, book) = match &plan.voter {
            Some((name, storage)) => {
                let mut config = plan.store_config.clone();
                config.counts = counts.clone();
                let (store, dir) = open(storage, config).await?;
                match Census::open(&store, counts.clone()) {
                    Ok(counted) => census = counted,
                    Err(error) => {
                        store.close().await;
                        let reason = error.to_string();
                        return Err(NetworkError::Data { dir, reason });
                    }
                }
                let mut random = || {
                    use rand::Rng;
                    let mut bytes = [0; 16];
                    entropy.fill_bytes(&mut bytes);
                    bytes
                };
                let fresh = [random(), random()];
                let book = Book::open(
                    store.clone(),
                    &dir,
                    &plan.network,
                    name,
                    &plan.electorate,
                    fresh,
                );
                match book.await {
                    Ok(book) => (Some(store), Some(Arc::new(book))),
                    Err(error) => {
                        store.close().await;
                        return Err(error);
                    }
                }
            }
            None => (None, None),
        };
        let boot = match &book {
            Some(book) => book.boot(),
            None => {
                use rand::Rng;
                let mut bytes = [0; 16];
                entropy.fill_bytes(&mut bytes);
                bytes
            }
        };
        let links = Arc::new(Links::new(Parts {
            me,
            kind,
            electorate: plan.electorate,
            terms: plan.terms,
            voter_keys: plan.voter_keys.into_iter().collect(),
            transport: plan.transport,
            book,
            entropy,
            down: down.clone(),
            tasks,
            counts: counts.clone(),
            limits: plan.limits,
        }));
        let directory = Directory::new(links.clone(), store.clone(), down, census, plan.limits);
        links.serve(&directory);
        let node = Arc::new(Self {
            network: plan.network,
            links,
            directory,
            ticket: plan.ticket,
            write_timeout: plan.write_timeout,
            boot,
            counts,
            store,
            failure: Arc::default(),
            stopping: tokio::sync::Mutex::new(false),
        });
        node.run();
        Ok(node)
    }

    fn run(&self) {
        let links = &self.links;
        links.spawn_task(links.clone().accept_all());
        for voter in links.electorate.voters() {
            if voter.id != links.me {
                links.spawn_task(links.clone().keep_linked(voter.id));
            }
        }
        if let Some(store) = self.store.clone() {
            let (links, failure) = (links.clone(), self.failure.clone());
            self.links.spawn_task(async move {
                let failed = store.failed().await;
                tracing::error!(%failed, "the store failed: this voter stops");
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed.to_string());
                links.close(code::FAILED, "the disk of this voter failed");
                links.transport.close().await;
                links.down.cancel();
            });
        }
    }

    /// Why the node stopped by itself, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }

    /// Stops in order: nothing new, leadership handed over, replicas, links, socket, disk.
    pub(super) async fn shut_down(&self) {
        let mut stopped = self.stopping.lock().await;
        if *stopped {
            return;
        }
        self.directory.stop().await;
        self.links.down.cancel();
        self.links.close(code::SHUTDOWN, "the node shuts down");
        self.links.tasks.close();
        let ended =
            tokio::time::timeout(Duration::from_millis(TASKS_END_MS), self.links.tasks.wait());
        if ended.await.is_err() {
            tracing::warn!("some tasks did not end within {TASKS_END_MS} ms");
        }
        self.directory.end_subscriptions();
        self.links.transport.close().await;
        if let Some(store) = &self.store {
            store.close().await;
        }
        *stopped = true;
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.links.transport.local_addr()
    }
}

/// The last handle is gone without a shutdown: nothing is handed over, and all that runs ends.
impl Drop for Node {
    fn drop(&mut self) {
        self.links.down.cancel();
        self.links.close(code::SHUTDOWN, "the node is gone");
    }
}

async fn open(storage: &Storage, config: StoreConfig) -> Result<(Store, PathBuf), NetworkError> {
    match storage {
        Storage::Memory => Ok((
            Store::in_memory_counted(config.counts),
            PathBuf::from("memory"),
        )),
        #[cfg(test)]
        Storage::Simulated(disk) => {
            let dir = PathBuf::from("simulated");
            match Store::open_simulated(disk, config) {
                Ok(store) => Ok((store, dir)),
                Err(error) => Err(NetworkError::of_store(&dir, error)),
            }
        }
        Storage::Folder(dir) => {
            let (opened, at) = (dir.clone(), dir.clone());
            // Recovery reads files and may take a while.
            let opening = tokio::task::spawn_blocking(move || Store::open(&opened, config));
            let store = opening.await.map_err(|error| NetworkError::Data {
                dir: at.clone(),
                reason: error.to_string(),
            })?;
            let store = store.map_err(|error| NetworkError::of_store(&at, error))?;
            Ok((store, at))
        }
    }
}
