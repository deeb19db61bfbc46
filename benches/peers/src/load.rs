//! The loop that every system is measured with.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::samples::{Samples, nanos};

/// How much to ask of a system, bounded in count and in time.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Operations of this measurement have numbers from here on. No two measurements share any.
    pub first: u64,
    pub count: u64,
    /// None begins after this.
    pub within: Duration,
    /// So many clients, each with one operation in flight.
    pub clients: u64,
}

impl Load {
    /// For a request to another process.
    pub fn to_words(self) -> String {
        let within = self.within.as_millis();
        format!("{} {} {within} {}", self.first, self.count, self.clients)
    }

    pub fn from_words(words: &[&str]) -> Result<Self> {
        let number = |n: usize| -> Result<u64> {
            let word = words.get(n).context("a load of four numbers")?;
            Ok(word.parse()?)
        };
        Ok(Self {
            first: number(0)?,
            count: number(1)?,
            within: Duration::from_millis(number(2)?),
            clients: number(3)?,
        })
    }
}

/// Runs `operation` on so many numbers, and says nothing of how long each took.
pub async fn all<F, Fut>(first: u64, count: u64, clients: u64, operation: F) -> Result<()>
where
    F: Fn(u64) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let operation = Arc::new(operation);
    let next = Arc::new(AtomicU64::new(first));
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (operation, next) = (operation.clone(), next.clone());
        set.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= first + count {
                    return anyhow::Ok(());
                }
                operation(n).await?;
            }
        });
    }
    while let Some(done) = set.join_next().await {
        done??;
    }
    Ok(())
}

/// Runs `operation` on numbers from `load.first` on. It is told which client asks.
///
/// # Errors
///
/// The first failure of an operation: a failure that is answered fast must not pass for speed.
pub async fn run<F, Fut>(load: Load, operation: F) -> Result<Samples>
where
    F: Fn(u64, u64) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let operation = Arc::new(operation);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let client = |client: u64| {
        let (operation, next) = (operation.clone(), next.clone());
        async move {
            let mut taken = Vec::new();
            while start.elapsed() < load.within {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= load.count {
                    break;
                }
                let begin = Instant::now();
                operation(client, load.first + n).await?;
                taken.push(nanos(begin.elapsed()));
            }
            anyhow::Ok(taken)
        }
    };
    // A set, so that all stop when this is dropped.
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..load.clients {
        clients.spawn(client(n));
    }
    let mut all = Vec::new();
    while let Some(taken) = clients.join_next().await {
        all.extend(taken??);
    }
    Ok(Samples::new(all, start.elapsed()))
}
