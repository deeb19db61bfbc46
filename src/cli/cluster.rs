//! The tasks of a cluster, as an observer that lives as long as one command.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::board::AGAIN;
use super::embedded::{Claim, Held, new_id};
use super::problem::Problem;
use crate::machine::task::Spec;
use crate::network::Network;
use crate::task::{self, ClaimId, Claimed, Status, TaskError, Tasks};

/// For how long a claim in doubt is asked about.
const DOUBT: Duration = Duration::from_secs(30);

pub(super) struct Cluster {
    pub(super) network: Network,
    pub(super) tasks: Tasks,
    pub(super) namespace: String,
    /// Which one it is: two may have one name.
    pub(super) id: String,
    /// How long it is tried to be asked.
    pub(super) answer_within: Duration,
}

impl Cluster {
    pub(super) fn task(&self, name: &str, spec: Spec) -> task::Task {
        let task = self.tasks.task(name).policy(spec.policy);
        match spec.ttl_ms {
            Some(ms) => task.ttl(Duration::from_millis(ms)),
            None => task,
        }
    }

    /// Asks again for as long as nobody can be asked. Only what may be asked twice.
    pub(super) async fn ask<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, TaskError>>,
    {
        let until = Instant::now() + self.answer_within;
        loop {
            match ask().await {
                Err(TaskError::Offline) if Instant::now() < until => sleep(AGAIN).await,
                answer => return Ok(answer?),
            }
        }
    }

    /// When this returns, somebody has answered: the next question is not in vain.
    pub(super) async fn status(&self, name: &str) -> Result<Option<Status>, Problem> {
        let task = self.tasks.task(name);
        self.ask(|| task.status()).await
    }

    /// One claim, asked for by one id until it is known what became of it.
    pub(super) async fn claim(
        &self,
        name: &str,
        spec: Spec,
        mut id: ClaimId,
        stop: &CancellationToken,
    ) -> Result<Claim, Problem> {
        let task = self.task(name, spec);
        let until = Instant::now() + self.answer_within;
        let mut doubtful_since = None;
        loop {
            match task.claim_as(id).await {
                Ok(Claimed::Here(attempt)) => {
                    return Ok(Claim::Here(Held {
                        claim: id,
                        attempt: attempt.number(),
                        version: attempt.version(),
                        _lock: None,
                    }));
                }
                Ok(Claimed::Elsewhere(status)) => return Ok(Claim::Elsewhere(status)),
                Ok(Claimed::NotYet(pause)) => return Ok(Claim::NotYet(pause)),
                Err(TaskError::InDoubt(_)) => {
                    doubtful_since.get_or_insert_with(Instant::now);
                }
                // It held, nobody was told, and it has expired.
                Err(TaskError::Superseded) => {
                    id = new_id();
                    continue;
                }
                Err(TaskError::Offline) if doubtful_since.is_some() => {}
                Err(TaskError::Offline) if Instant::now() < until && !stop.is_cancelled() => {}
                Err(error) => return Err(error.into()),
            }
            if doubtful_since.is_some_and(|since| since.elapsed() >= DOUBT) {
                return Err(TaskError::InDoubt(id).into());
            }
            sleep(AGAIN).await;
        }
    }
}
