//! The four processes, and what each of them sees.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use raft_once::Secret;
use tempfile::TempDir;

use super::node::Plan;
use super::process::{NotStarted, Pass, Process};
use super::protocol::{Answer, Ask, View};
use super::screen::Screen;

pub const VOTERS: [&str; 3] = ["a", "b", "c"];
pub const OBSERVER: &str = "observer";

/// How long the nodes may take to come to see what is expected.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

pub type Views = BTreeMap<&'static str, View>;

pub struct Cluster {
    // In this order: the processes end before their files are removed.
    nodes: BTreeMap<&'static str, Process>,
    folder: TempDir,
    electorate: Vec<(String, String)>,
    secret: String,
    ticket: String,
    eyes: Arc<Eyes>,
}

impl Cluster {
    /// Starts all four.
    pub async fn start(screen: &Screen) -> Result<Self, String> {
        let mut taken = String::new();
        for _ in 0..5 {
            let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
            let mut cluster = Self {
                nodes: BTreeMap::new(),
                folder,
                electorate: free_addresses().map_err(|error| format!("no port: {error}"))?,
                secret: Secret::generate().to_hex(),
                ticket: String::new(),
                eyes: Arc::new(Eyes {
                    screen: screen.clone(),
                    seen: Mutex::default(),
                    names: Mutex::default(),
                }),
            };
            match cluster.start_all().await {
                Ok(()) => return Ok(cluster),
                Err(NotStarted::PortTaken(reason)) => taken = reason,
                Err(NotStarted::Failed(reason)) => return Err(reason),
            }
        }
        Err(format!("expected free ports; saw: {taken}"))
    }

    async fn start_all(&mut self) -> Result<(), NotStarted> {
        for voter in VOTERS {
            self.try_voter(voter).await?;
        }
        let ticket = self.ask(VOTERS[0], Ask::Ticket).await;
        match ticket.map_err(NotStarted::Failed)? {
            Answer::Ticket(ticket) => self.ticket = ticket,
            other => return Err(NotStarted::Failed(format!("no ticket, but {other:?}"))),
        }
        self.observer().await.map_err(NotStarted::Failed)
    }

    async fn try_voter(&mut self, name: &'static str) -> Result<(), NotStarted> {
        let plan = Plan::Voter {
            name: name.into(),
            data_dir: self.folder.path().join(name).display().to_string(),
            electorate: self.electorate.clone(),
        };
        let pass = Pass::Secret(self.secret.clone());
        self.run(name, &plan, &pass).await
    }

    /// Starts a voter that ran before, on the same data and at the same address.
    pub async fn restart(&mut self, name: &'static str) -> Result<(), String> {
        let give_up = Instant::now() + Duration::from_secs(5);
        loop {
            match self.try_voter(name).await {
                Ok(()) => return Ok(()),
                Err(NotStarted::PortTaken(_)) if Instant::now() < give_up => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(NotStarted::PortTaken(reason) | NotStarted::Failed(reason)) => {
                    return Err(format!("expected {name} to start again; saw: {reason}"));
                }
            }
        }
    }

    /// Starts the observer, with nothing but the ticket.
    pub async fn observer(&mut self) -> Result<(), String> {
        let pass = Pass::Ticket(self.ticket.clone());
        let started = self.run(OBSERVER, &Plan::Observer, &pass).await;
        started.map_err(NotStarted::reason)
    }

    async fn run(
        &mut self,
        name: &'static str,
        plan: &Plan,
        pass: &Pass,
    ) -> Result<(), NotStarted> {
        let eyes = self.eyes.clone();
        let heard = move |answer: &Answer| eyes.heard(name, answer);
        let process = Process::start(name, plan, pass, heard).await?;
        let what = match plan {
            Plan::Voter { .. } => "voter",
            Plan::Observer => "joins with a ticket",
        };
        let text = format!("process {}, {what}", process.id());
        self.eyes.screen.node(name, &text);
        self.nodes.insert(name, process);
        Ok(())
    }

    pub fn kill(&mut self, name: &'static str) -> Result<(), String> {
        let Some(process) = self.nodes.remove(name) else {
            return Err(format!("expected {name} to run; saw that it does not"));
        };
        let text = format!("process {} killed with SIGKILL", process.id());
        drop(process);
        self.eyes.forget(name);
        self.eyes.screen.node(name, &text);
        Ok(())
    }

    /// Ends all nodes in order.
    pub async fn stop(mut self) -> Result<(), String> {
        let nodes = std::mem::take(&mut self.nodes);
        let stops = join_all(nodes.into_values().map(Process::stop)).await;
        stops.into_iter().collect()
    }

    pub async fn ask(&mut self, name: &'static str, ask: Ask) -> Result<Answer, String> {
        match self.nodes.get_mut(name) {
            Some(process) => process.ask(ask).await,
            None => Err(format!("expected {name} to run; saw that it does not")),
        }
    }

    /// Asks all nodes that run, at the same time.
    pub async fn ask_all(
        &mut self,
        ask: impl Fn(&'static str) -> Ask,
    ) -> Result<BTreeMap<&'static str, Answer>, String> {
        let asks = self.nodes.iter_mut().map(|(name, process)| {
            let ask = ask(name);
            async move { Ok((*name, process.ask(ask).await?)) }
        });
        join_all(asks).await.into_iter().collect()
    }

    /// Waits until what all running nodes see is as expected.
    pub async fn until(
        &mut self,
        expected: &str,
        is_so: impl Fn(&Views) -> bool,
    ) -> Result<Views, String> {
        let give_up = Instant::now() + SETTLED_WITHIN;
        loop {
            let answers = self.ask_all(|_| Ask::View).await?;
            let views = answers.into_iter().map(|(name, answer)| match answer {
                Answer::View(view) => Ok((name, view)),
                other => Err(format!("expected the view of {name}; saw {other:?}")),
            });
            let views = views.collect::<Result<Views, _>>()?;
            if is_so(&views) {
                return Ok(views);
            }
            if Instant::now() >= give_up {
                let seen: Vec<String> = views
                    .iter()
                    .map(|(name, view)| format!("\n      {name}: {view:?}"))
                    .collect();
                let within = SETTLED_WITHIN.as_secs();
                return Err(format!(
                    "expected {expected} within {within} s; saw{}",
                    seen.concat()
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The node of that id, now or before.
    pub fn name_of(&self, node_id: &str) -> &'static str {
        self.eyes.name_of(node_id)
    }

    pub fn node_id(&self, name: &str) -> Option<&str> {
        self.nodes.get(name).map(|process| &*process.node_id)
    }
}

/// Three different addresses whose ports nobody uses now.
fn free_addresses() -> std::io::Result<Vec<(String, String)>> {
    let bind = || UdpSocket::bind("127.0.0.1:0");
    // All are bound before any is released, so that no two are the same.
    let sockets = [bind()?, bind()?, bind()?];
    let addresses = VOTERS.iter().zip(&sockets).map(|(name, socket)| {
        let addr = socket.local_addr()?;
        Ok((name.to_string(), addr.to_string()))
    });
    addresses.collect()
}

/// Watches what the nodes say, and tells the screen what is new about it.
struct Eyes {
    screen: Screen,
    seen: Mutex<Views>,
    names: Mutex<BTreeMap<String, &'static str>>,
}

impl Eyes {
    fn heard(&self, name: &'static str, answer: &Answer) {
        match answer {
            Answer::Ready(node_id) => {
                let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                names.insert(node_id.clone(), name);
            }
            Answer::View(view) => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let old = seen.insert(name, view.clone()).unwrap_or_default();
                if let Some(text) = self.news(&old, view) {
                    self.screen.node(name, &text);
                }
            }
            _ => {}
        }
    }

    fn forget(&self, name: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(name);
    }

    fn news(&self, old: &View, new: &View) -> Option<String> {
        let mut news = Vec::new();
        match (old.online, new.online) {
            (false, true) => news.push("is online".to_string()),
            (true, false) => news.push("is offline".to_string()),
            _ => {}
        }
        match (&new.value, &new.decision) {
            (Some(value), Some(decision)) if old.value.as_ref() != Some(value) => {
                let (winner, at) = (self.name_of(&decision.winner), decision.version);
                news.push(format!("reads {value:?}, {winner} won at version {at}"));
                if new.version > at {
                    news.push(format!("now at version {}", new.version));
                }
            }
            (Some(value), _) if new.version > old.version => {
                news.push(format!(
                    "still reads {value:?}, now at version {}",
                    new.version
                ));
            }
            (None, _) if new.online && !old.online => news.push("the cell is empty".to_string()),
            _ => {}
        }
        (!news.is_empty()).then(|| news.join(", "))
    }

    fn name_of(&self, node_id: &str) -> &'static str {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(node_id).copied().unwrap_or("somebody unknown")
    }
}
