//! How long writes are not acknowledged when a leader dies.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

/// A new write begins so often, whatever became of those before. So neither a timeout of ours nor
/// a request that was lost with the leader adds to what is measured.
pub const EVERY: Duration = Duration::from_millis(10);

/// Nanoseconds of the one monotonic clock that all processes of a machine share.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// When a write began, and when it was acknowledged.
#[derive(Debug, Clone, Copy)]
struct Acked {
    began: u64,
    ended: u64,
}

/// Writes in the background until it is dropped.
pub struct Prober {
    acked: Arc<Mutex<Vec<Acked>>>,
    _writes: JoinSet<()>,
}

impl Prober {
    pub fn start<F, Fut>(first: u64, write: F) -> Self
    where
        F: Fn(u64) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let acked = Arc::new(Mutex::new(Vec::new()));
        let log = acked.clone();
        let mut writes = JoinSet::new();
        writes.spawn(async move {
            let mut in_flight = JoinSet::new();
            let mut ticks = tokio::time::interval(EVERY);
            for n in first.. {
                ticks.tick().await;
                let (write, log) = (write(n), log.clone());
                in_flight.spawn(async move {
                    let began = now();
                    // A refusal is no acknowledgement; the next write is on its way.
                    if write.await.is_ok() {
                        let ended = now();
                        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                        log.push(Acked { began, ended });
                    }
                });
                // Those that have ended are forgotten.
                while in_flight.try_join_next().is_some() {}
            }
        });
        Self {
            acked,
            _writes: writes,
        }
    }

    /// Whether writes are acknowledged at all.
    pub fn count(&self) -> usize {
        let acked = self.acked.lock();
        acked.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The moment of the first acknowledgement of a write that began at `since` or later, if there
    /// is one soon enough. One that began before may have been committed before.
    pub async fn first_since(&self, since: u64, within: Duration) -> Option<u64> {
        let look = async {
            loop {
                let first = {
                    let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
                    let late = acked.iter().filter(|acked| acked.began >= since);
                    late.map(|acked| acked.ended).min()
                };
                if let Some(first) = first {
                    return first;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(within, look).await.ok()
    }
}
