//! Where the tasks are: on this machine, or in a cluster. One set of words for both.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::args::Common;
use super::cluster::Cluster;
use super::embedded::{Claim, Embedded, Keeper, state_dir};
use super::problem::{IN_DOUBT, Problem, RUNNING, UNAVAILABLE};
use super::undelivered::{Record, deliver};
use crate::group::RENEW_MS;
use crate::id::Version;
use crate::machine::task::Spec;
use crate::network::{Network, Ticket};
use crate::task::{ClaimId, DeedKind, Outcome, State, Status, TaskError, Tasks};

/// Holds a ticket, in place of a file.
const TICKET: &str = "ONCE_TICKET";

/// An outcome that is not recorded by then is kept on this machine meanwhile.
const KEEP_AFTER: Duration = Duration::from_secs(1);

/// How often whoever waits for an executor looks whether it is still the one to wait for.
const LOOK_ASIDE: Duration = Duration::from_secs(1);

/// The pause before something that failed is tried again.
pub(super) const AGAIN: Duration = Duration::from_millis(200);

/// How often the embedded store is looked at where nothing tells of changes.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long leaving a cluster may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The longest file of a ticket, in bytes; one with five voters has less than a tenth.
const TICKET_BYTES_MAX: u64 = 64 * 1024;

/// The tasks of one namespace.
pub(super) enum Board {
    Embedded(Arc<Embedded>),
    Cluster(Box<Cluster>),
}

/// What an operator did.
pub(super) struct Deed {
    pub(super) task: String,
    pub(super) kind: DeedKind,
    pub(super) by: String,
    pub(super) at: SystemTime,
    pub(super) version: Version,
}

/// In whose name things are done.
pub(super) fn who(common: &Common) -> String {
    common.who.clone().unwrap_or_else(|| {
        let name = nix::unistd::gethostname().ok();
        name.and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| "unknown".into())
    })
}

/// The ticket that is to be used, if one is.
pub(super) fn ticket(common: &Common) -> Result<Option<Ticket>, Problem> {
    // Empty is as unset: composed files can hardly say it otherwise.
    let file = common.ticket_file.as_ref();
    let text = match file.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Some(read_secret(path, TICKET_BYTES_MAX)?),
        None => std::env::var(TICKET).ok().filter(|text| !text.is_empty()),
    };
    Ok(text.map(|text| text.parse()).transpose()?)
}

/// Reads a small file with something secret in it.
pub(super) fn read_secret(path: &Path, bytes_max: u64) -> Result<String, Problem> {
    let failed = |error| Problem::usage(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    let length = file
        .take(bytes_max + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if length as u64 > bytes_max {
        return Err(Problem::usage(format!(
            "{} is too long for what it should be",
            path.display()
        )));
    }
    Ok(text)
}

impl Board {
    /// Opens what the command line names. In a cluster, outcomes that are kept here are delivered first.
    pub(super) async fn open(common: &Common) -> Result<Self, Problem> {
        let who = who(common);
        let Some(ticket) = ticket(common)? else {
            let store = Embedded::open(&state_dir()?, &common.namespace, &who)?;
            return Ok(Self::Embedded(Arc::new(store)));
        };
        let cluster_id = ticket.fingerprint();
        let network = Network::join(ticket).await?;
        let tasks = Tasks::new(&network, &common.namespace).named(who);
        deliver(&network, &cluster_id).await;
        let namespace = common.namespace.clone();
        Ok(Self::Cluster(Box::new(Cluster {
            network,
            tasks,
            namespace,
            id: cluster_id,
            answer_within: common.answer_within,
        })))
    }

    /// Leaves the cluster in order.
    pub(super) async fn close(self) {
        if let Self::Cluster(cluster) = self {
            // Who cannot say goodbye is missed soon enough.
            let _ = timeout(LEAVE_WITHIN, cluster.network.shutdown()).await;
        }
    }

    /// Claims a task by an id that nothing was started under. Told to stop, it is not tried again.
    pub(super) async fn claim(
        &self,
        name: &str,
        spec: Spec,
        keeper: Keeper,
        id: ClaimId,
        stop: &CancellationToken,
    ) -> Result<Claim, Problem> {
        match self {
            Self::Embedded(store) => {
                // Its lock may be waited for.
                let (store, name, stop) = (store.clone(), name.to_owned(), stop.clone());
                let claim = move || store.claim(&name, spec, id, keeper, &stop);
                let claimed = tokio::task::spawn_blocking(claim).await;
                claimed.map_err(|error| Problem::new(IN_DOUBT, error.to_string()))?
            }
            Self::Cluster(cluster) => cluster.claim(name, spec, id, stop).await,
        }
    }

    /// Records an outcome; `Offline` is an error of the cluster alone.
    pub(super) async fn finish(
        &self,
        name: &str,
        claim: ClaimId,
        outcome: Outcome,
    ) -> Result<Status, Problem> {
        match self {
            Self::Embedded(store) => store.finish(name, claim, outcome),
            Self::Cluster(cluster) => {
                let task = cluster.tasks.task(name);
                cluster.ask(|| task.finish(claim, outcome.clone())).await
            }
        }
    }

    /// Records an outcome, and tries to for a while if nobody is there to record it. A record of it is kept
    /// on this machine meanwhile, and left if that was in vain, or if it is told to stop.
    pub(super) async fn record(
        &self,
        name: &str,
        claim: ClaimId,
        outcome: Outcome,
        within: Duration,
        stop: &CancellationToken,
    ) -> Result<Status, Problem> {
        let until = Instant::now() + within;
        let is_over = || Instant::now() >= until || stop.is_cancelled();
        let Self::Cluster(cluster) = self else {
            loop {
                match self.finish(name, claim, outcome.clone()).await {
                    // The disk may be full for a moment.
                    Err(problem) if problem.code == UNAVAILABLE && !is_over() => sleep(AGAIN).await,
                    finished => return finished,
                }
            }
        };
        let record = Record::new(&cluster.id, &cluster.namespace, name, claim, &outcome);
        let mut kept = None;
        loop {
            let task = cluster.tasks.task(name);
            let finish = task.finish(claim, outcome.clone());
            let mut finish = std::pin::pin!(finish);
            let finished = match timeout(KEEP_AFTER, &mut finish).await {
                Ok(finished) => finished,
                Err(_) => {
                    kept.get_or_insert_with(|| record.keep());
                    let finished = stop.run_until_cancelled(finish).await;
                    finished.unwrap_or(Err(TaskError::Offline))
                }
            };
            let is_offline = matches!(finished, Err(TaskError::Offline));
            if !is_offline {
                if let Some(Ok(path)) = kept {
                    // Or it is delivered once more, which changes nothing.
                    let _ = std::fs::remove_file(path);
                }
                return Ok(finished?);
            }
            let kept = kept.get_or_insert_with(|| record.keep());
            if is_over() {
                let said = match kept {
                    Ok(path) => format!(
                        "{} keeps it, and the next `once` here delivers it",
                        path.display()
                    ),
                    Err(problem) => format!(
                        "and it could not be kept here ({}): say it with `once finish`",
                        problem.message
                    ),
                };
                let message = format!(
                    "{name} has ended ({}), but no majority of the voters could be told so; {said}",
                    words(&outcome)
                );
                return Err(Problem::new(IN_DOUBT, message));
            }
            sleep(AGAIN).await;
        }
    }

    /// Says again and again that the task is run, for as long as it is. Returns when it is said that it is
    /// not run under this claim any more.
    pub(super) async fn keep(&self, name: &str, claim: ClaimId) {
        let Self::Cluster(cluster) = self else {
            // The lock says it.
            return std::future::pending().await;
        };
        let task = cluster.tasks.task(name);
        loop {
            sleep(Duration::from_millis(RENEW_MS)).await;
            if let Ok(false) = task.renew(claim).await {
                return;
            }
        }
    }

    pub(super) async fn status(&self, name: &str) -> Result<Option<Status>, Problem> {
        match self {
            Self::Embedded(store) => store.status(name),
            Self::Cluster(cluster) => cluster.status(name).await,
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<Status>, Problem> {
        match self {
            Self::Embedded(store) => store.list(),
            Self::Cluster(cluster) => cluster.ask(|| cluster.tasks.list()).await,
        }
    }

    pub(super) async fn create(&self, name: &str, spec: Spec) -> Result<Status, Problem> {
        match self {
            Self::Embedded(store) => store.create(name, spec),
            Self::Cluster(cluster) => {
                cluster.status(name).await?;
                Ok(cluster.task(name, spec).create().await?)
            }
        }
    }

    pub(super) async fn reset(&self, name: &str) -> Result<Status, Problem> {
        match self {
            Self::Embedded(store) => store.reset(name),
            Self::Cluster(cluster) => {
                cluster.status(name).await?;
                Ok(cluster.tasks.task(name).reset().await?)
            }
        }
    }

    pub(super) async fn delete(&self, name: &str) -> Result<bool, Problem> {
        match self {
            Self::Embedded(store) => store.delete(name),
            Self::Cluster(cluster) => {
                cluster.status(name).await?;
                Ok(cluster.tasks.task(name).delete().await?)
            }
        }
    }

    pub(super) async fn resolve(&self, name: &str, outcome: Outcome) -> Result<Status, Problem> {
        match self {
            Self::Embedded(store) => store.resolve(name, outcome),
            Self::Cluster(cluster) => {
                cluster.status(name).await?;
                Ok(cluster.tasks.task(name).resolve(outcome).await?)
            }
        }
    }

    pub(super) async fn deeds(&self) -> Result<Vec<Deed>, Problem> {
        let deeds: Vec<Deed> = match self {
            Self::Embedded(store) => {
                let deeds = store.deeds()?.into_iter().map(|deed| Deed {
                    task: deed.task,
                    kind: deed.kind,
                    by: deed.by,
                    at: UNIX_EPOCH + Duration::from_millis(deed.at_ms),
                    version: deed.version,
                });
                deeds.collect()
            }
            Self::Cluster(cluster) => {
                let deeds = cluster
                    .ask(|| cluster.tasks.deeds())
                    .await?
                    .into_iter()
                    .map(|deed| Deed {
                        task: deed.task,
                        kind: deed.kind,
                        by: deed.by,
                        at: deed.at,
                        version: deed.version,
                    });
                deeds.collect()
            }
        };
        Ok(deeds)
    }

    /// Returns when a task may stand otherwise than `state`; sometimes when it does not.
    pub(super) async fn changed(&self, name: &str, state: Option<State>) -> Result<(), Problem> {
        match (self, state) {
            (Self::Embedded(store), Some(State::Running)) => {
                let (send, mut ended) = oneshot::channel();
                let before = store.status(name)?.map(|status| status.version);
                let (waiting, task) = (store.clone(), name.to_owned());
                // A thread, since nothing ends a wait for a lock; it ends with the process.
                std::thread::Builder::new()
                    .spawn(move || send.send(waiting.wait_for_executor(&task)))?;
                loop {
                    match timeout(LOOK_ASIDE, &mut ended).await {
                        Ok(is_over) => {
                            if !is_over.unwrap_or(Ok(false))? {
                                sleep(LOOK_AGAIN).await;
                            }
                            return Ok(());
                        }
                        // It may have been reset, and that executor runs on for nobody.
                        Err(_) if store.status(name)?.map(|status| status.version) != before => {
                            return Ok(());
                        }
                        Err(_) => {}
                    }
                }
            }
            (Self::Embedded(_), _) => {
                sleep(LOOK_AGAIN).await;
                Ok(())
            }
            (Self::Cluster(cluster), _) => {
                let task = cluster.tasks.task(name);
                match timeout(Duration::from_millis(RENEW_MS), task.wait()).await {
                    Ok(Err(error)) => Err(error.into()),
                    // Whoever waits for one that may be started again is to claim it now and then.
                    _ => Ok(()),
                }
            }
        }
    }

    /// Waits until the task has ended or is abandoned.
    pub(super) async fn wait(
        &self,
        name: &str,
        within: Option<Duration>,
    ) -> Result<Status, Problem> {
        let waiting = async {
            loop {
                let status = match self.status(name).await {
                    Ok(status) => status,
                    // A majority may come back.
                    Err(problem) if problem.code == UNAVAILABLE && self.is_cluster() => {
                        sleep(AGAIN).await;
                        continue;
                    }
                    Err(problem) => return Err(problem),
                };
                let state = status.as_ref().map(|status| status.state);
                match status {
                    Some(status) if status.has_ended() || status.state == State::Abandoned => {
                        return Ok(status);
                    }
                    _ => self.changed(name, state).await?,
                }
            }
        };
        match within {
            None => waiting.await,
            Some(within) => timeout(within, waiting).await.unwrap_or_else(|_| {
                Err(Problem::new(
                    RUNNING,
                    format!(
                        "{name} has not ended yet: wait longer, or look with `once get {name}`"
                    ),
                ))
            }),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// An outcome in words.
pub(super) fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded { .. } => "succeeded".into(),
        Outcome::Failed(failure) => format!("failed: {failure}"),
    }
}
