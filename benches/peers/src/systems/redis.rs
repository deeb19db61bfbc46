//! Redis: one server, nothing replicated, every write synced: the floor.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;

use crate::child::Child;
use crate::load::{self, Load};
use crate::plan::value;
use crate::ports;
use crate::samples::Samples;

pub struct Redis {
    process: Child,
    url: String,
}

impl Redis {
    pub async fn start(program: &Path, folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let [port] = ports::free_tcp::<1>()?;
        let options = [
            ("--port", port.to_string()),
            ("--bind", "127.0.0.1".into()),
            ("--dir", folder.display().to_string()),
            ("--appendonly", "yes".into()),
            ("--appendfsync", "always".into()),
            ("--save", String::new()),
        ];
        let args: Vec<String> = options
            .into_iter()
            .flat_map(|(k, v)| [k.into(), v])
            .collect();
        let mut redis = Self {
            process: Child::start("redis", program, &args, &folder)?,
            url: format!("redis://127.0.0.1:{port}"),
        };
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            redis.process.check()?;
            match redis.connect().await {
                Ok(_) => return Ok(redis),
                Err(error) if Instant::now() > give_up => {
                    return Err(error).context("Redis did not answer");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.url.as_str())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    pub fn ids(&self) -> Vec<u32> {
        vec![self.process.id()]
    }

    /// Each client has a connection of its own.
    pub async fn claim(&self, load: Load) -> Result<Samples> {
        let mut connections = Vec::new();
        for _ in 0..load.clients {
            connections.push(self.connect().await?);
        }
        load::run(load, move |client, slot| {
            claim(connections[client as usize].clone(), slot)
        })
        .await
    }

    /// As many decided slots as another system holds cells.
    pub async fn fill(&self, load: Load) -> Result<()> {
        let samples = self.claim(load).await?;
        ensure!(samples.count() as u64 == load.count, "too slow to fill");
        Ok(())
    }
}

async fn claim(mut connection: MultiplexedConnection, slot: u64) -> Result<()> {
    let mut set = redis::cmd("SET");
    set.arg(format!("slot-{slot}")).arg(value()).arg("NX");
    let answer: Option<String> = set.query_async(&mut connection).await?;
    ensure!(
        answer.is_some(),
        "somebody else has claimed a fresh slot of Redis"
    );
    Ok(())
}
