//! etcd: three servers with their data on disk, each write synced, on its default settings.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, Compare, CompareOp, ConnectOptions, KvClient, Txn, TxnOp};

use crate::child::Child;
use crate::load::{self, Load};
use crate::plan::value;
use crate::ports;
use crate::prober::Prober;
use crate::samples::Samples;

const NAMES: [&str; 3] = ["etcd0", "etcd1", "etcd2"];

pub struct Etcd {
    program: PathBuf,
    folder: PathBuf,
    members: Vec<Member>,
}

struct Member {
    name: &'static str,
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Member {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    async fn connect(&self) -> Result<Client> {
        let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(2));
        Ok(Client::connect([self.url()], Some(options)).await?)
    }
}

impl Etcd {
    pub async fn start(program: &Path, folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let ports = ports::free_tcp::<6>()?;
        let members = NAMES
            .iter()
            .zip(ports.chunks(2))
            .map(|(name, ports)| Member {
                name,
                client_port: ports[0],
                peer_port: ports[1],
                process: None,
            });
        let mut etcd = Self {
            program: program.into(),
            folder,
            members: members.collect(),
        };
        for n in 0..NAMES.len() {
            etcd.start_member(n)?;
        }
        for n in 0..NAMES.len() {
            etcd.until_healthy(n).await?;
        }
        Ok(etcd)
    }

    fn start_member(&mut self, n: usize) -> Result<()> {
        let peer = |member: &Member| format!("http://127.0.0.1:{}", member.peer_port);
        let cluster: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, peer(member)))
            .collect();
        let member = &self.members[n];
        let data = self.folder.join(member.name);
        let options = [
            ("name", member.name.to_string()),
            ("data-dir", data.display().to_string()),
            ("listen-client-urls", member.url()),
            ("advertise-client-urls", member.url()),
            ("listen-peer-urls", peer(member)),
            ("initial-advertise-peer-urls", peer(member)),
            ("initial-cluster", cluster.join(",")),
            ("initial-cluster-state", "new".into()),
            ("logger", "zap".into()),
            ("log-level", "error".into()),
        ];
        let args: Vec<String> = options.iter().map(|(k, v)| format!("--{k}={v}")).collect();
        let process = Child::start(member.name, &self.program, &args, &self.folder)?;
        self.members[n].process = Some(process);
        Ok(())
    }

    /// Waits until the member answers, and knows a leader.
    async fn until_healthy(&mut self, n: usize) -> Result<()> {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            let member = &mut self.members[n];
            if let Some(process) = &mut member.process {
                process.check()?;
            }
            let leader = async { anyhow::Ok(member.connect().await?.status().await?.leader()) };
            match leader.await {
                Ok(leader) if leader != 0 => return Ok(()),
                other if Instant::now() > give_up => {
                    bail!("{} did not become healthy: {other:?}", member.name)
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub fn ids(&self) -> Vec<u32> {
        let processes = self.members.iter().filter_map(|m| m.process.as_ref());
        processes.map(Child::id).collect()
    }

    /// Which member leads.
    pub async fn leader(&self) -> Result<usize> {
        for (n, member) in self.members.iter().enumerate() {
            let status = member.connect().await?.status().await?;
            let me = status.header().context("an answer has a header")?;
            if status.leader() == me.member_id() {
                return Ok(n);
            }
        }
        bail!("no member of etcd leads")
    }

    /// Each client has a connection of its own to the leader, or to another member.
    pub async fn claim(&self, at_leader: bool, load: Load) -> Result<Samples> {
        let leader = self.leader().await?;
        let other = (leader + 1) % self.members.len();
        let member = &self.members[if at_leader { leader } else { other }];
        let mut clients = Vec::new();
        for _ in 0..load.clients {
            let mut client = member.connect().await?.kv_client();
            // It connects at its first request.
            client.get("none", None).await?;
            clients.push(client);
        }
        load::run(load, move |client, slot| {
            let client = clients[client as usize].clone();
            claim(client, slot)
        })
        .await
    }

    /// As many decided slots as another system holds cells.
    pub async fn fill(&self, load: Load) -> Result<()> {
        let samples = self.claim(true, load).await?;
        ensure!(samples.count() as u64 == load.count, "too slow to fill");
        Ok(())
    }

    pub fn kill(&mut self, n: usize) -> Result<()> {
        let process = self.members[n].process.take();
        process.map(drop).context("it ran a moment ago")
    }

    pub async fn restart(&mut self, n: usize) -> Result<()> {
        self.start_member(n)?;
        self.until_healthy(n).await
    }

    /// Writes to all members but one, in turn.
    pub async fn probe_without(&self, dead: usize, first: u64) -> Result<Prober> {
        let mut clients = Vec::new();
        for (n, member) in self.members.iter().enumerate() {
            if n != dead {
                let mut client = member.connect().await?.kv_client();
                client.get("none", None).await?;
                clients.push(client);
            }
        }
        Ok(Prober::start(first, move |slot| {
            let client = &clients[slot as usize % clients.len()];
            claim(client.clone(), slot)
        }))
    }
}

async fn claim(mut client: KvClient, slot: u64) -> Result<()> {
    let key = format!("slot-{slot}");
    let unclaimed = Compare::version(key.as_str(), CompareOp::Equal, 0);
    let put = TxnOp::put(key, value(), None);
    let txn = Txn::new().when([unclaimed]).and_then([put]);
    let answer = client.txn(txn).await?;
    ensure!(
        answer.succeeded(),
        "somebody else has claimed a fresh slot of etcd"
    );
    Ok(())
}
