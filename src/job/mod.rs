//! Jobs: actions with a schedule, of which each tick is run at most once, or until it succeeds.
//!
//! A job is a JSON document. Its schedule has six fields, **seconds first**, and its ticks are civil
//! times in a zone: each is claimed by one worker of the whole cluster, in a majority of the voters,
//! before it is run.
//!
//! ```
//! use raft_once::Network;
//! use raft_once::job::Jobs;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = Network::new("demo").await?;
//! let jobs = Jobs::new(&network, "shop");
//! let report = jobs.create(r#"{
//!     "schedule": "0 0 12 * * MON-FRI",
//!     "api": "https://example.com/daily-report",
//!     "type": "AT_MOST_ONCE",
//!     "isRecurring": true
//! }"#).await?;
//! jobs.pause(report.id()).await?;
//! assert!(jobs.get(report.id()).await?.is_some_and(|job| job.is_paused()));
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod call;
mod command;
mod document;
pub(crate) mod duration;
mod errand;
mod error;
mod json;
mod plan;
mod schedule;
mod status;
#[cfg(test)]
mod tests;
mod tick;
mod worker;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::timeout_at;

use crate::group::{JobStepped, JobsAnswer, JobsQuery};
use crate::id::{GroupId, Version};
use crate::machine::job::{Answer, Command, Refusal, Step};
use crate::machine::task::{ClaimId, check_who};
use crate::metrics::Counts;
use crate::network::Network;
use crate::once::{Hold, NoAnswer, When};
use crate::probe;

pub use crate::machine::job::{JobId, Slot, Tick, TickError};
#[cfg(test)]
pub(crate) use call::Caller;
pub use document::JobError;
pub use error::JobsError;
pub use status::{Execution, State, Status};
#[cfg(test)]
pub(crate) use tick::Claimed;

/// How often something is tried on a job that changes all the time.
const TRIES_MAX: u32 = 64;

/// The jobs of one namespace.
///
/// A handle: clones share it, and it keeps the node alive. The namespace is one Raft group, and
/// handles with one name are one namespace, on whatever node they are opened.
#[derive(Clone)]
pub struct Jobs {
    shared: Arc<Shared>,
}

struct Shared {
    hold: Arc<Hold>,
    when: When,
    /// Who acts.
    who: String,
}

impl Jobs {
    /// Opens a namespace. It returns at once: the node gets in touch in the background, see
    /// [`when`](Self::when).
    pub fn new(network: &Network, namespace: impl AsRef<str>) -> Self {
        let node = network.node_id();
        let who = network.name_of(node).unwrap_or_else(|| node.to_string());
        let hold = Hold::new(network, GroupId::of_jobs(namespace.as_ref()));
        Self::of(Arc::new(hold), who)
    }

    fn of(hold: Arc<Hold>, who: String) -> Self {
        Self {
            shared: Arc::new(Shared {
                when: When::new(hold.view().clone(), hold.clone()),
                hold,
                who,
            }),
        }
    }

    /// The same namespace, acting in another name. Information only: nothing is decided by it.
    #[must_use]
    pub fn named(&self, who: impl Into<String>) -> Self {
        Self::of(self.shared.hold.clone(), who.into())
    }

    /// Creates a job of a JSON document. Its ticks are those after now.
    ///
    /// # Errors
    ///
    /// [`JobsError::Refused`] with the field that is wrong. [`JobsError::Full`],
    /// [`JobsError::Offline`], [`JobsError::NetworkDown`], [`JobsError::Busy`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still create the job.
    pub async fn create(&self, json: &str) -> Result<Status, JobsError> {
        let spec = document::read(json, now()).map_err(JobsError::Refused)?;
        let spec = Arc::new(spec);
        let answer = self
            .act(JobId::default(), |_| Some(Step::Create(spec.clone())))
            .await?;
        self.changed(answer)
    }

    /// How a job stands.
    ///
    /// # Errors
    ///
    /// [`JobsError::Offline`], [`JobsError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn get(&self, id: JobId) -> Result<Option<Status>, JobsError> {
        Ok(self.look(id).await?.1.map(|seen| Status::of(*seen)))
    }

    /// How all jobs stand, by id. Each is as of now, all together are not of one moment.
    ///
    /// # Errors
    ///
    /// [`JobsError::Offline`], [`JobsError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn list(&self) -> Result<Vec<Status>, JobsError> {
        let mut all = Vec::new();
        let mut from = Some(JobId::default());
        while let Some(id) = from {
            match self.query(JobsQuery::Page { from: id }).await? {
                JobsAnswer::Page { jobs, next, .. } => {
                    all.extend(jobs.into_iter().map(Status::of));
                    from = next;
                }
                _ => return Err(JobsError::Offline),
            }
        }
        Ok(all)
    }

    /// Starts none of its ticks until it is resumed. What runs goes on.
    ///
    /// # Errors
    ///
    /// [`JobsError::Missing`], [`JobsError::Offline`], [`JobsError::NetworkDown`],
    /// [`JobsError::Busy`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still pause it.
    pub async fn pause(&self, id: JobId) -> Result<Status, JobsError> {
        let answer = self.act(id, |_| Some(Step::Pause)).await?;
        self.changed(answer)
    }

    /// Goes on with the ticks after now: those that came meanwhile are nothing.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause), and [`JobsError::Clock`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still resume it.
    pub async fn resume(&self, id: JobId) -> Result<Status, JobsError> {
        let after = |job: Option<&Status>| {
            let zone = TimeZone::get(&job?.seen_zone()).ok()?;
            let after = schedule::tick_at(&zone, now())?;
            Some(Step::Resume { after })
        };
        let answer = self.act(id, after).await?;
        self.changed(answer)
    }

    /// Asks for one execution whatever the schedule says, also of a job that is paused or over.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause), and [`JobsError::Asked`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still ask for it.
    pub async fn run_now(&self, id: JobId) -> Result<Status, JobsError> {
        let answer = self.act(id, |_| Some(Step::RunNow)).await?;
        self.changed(answer)
    }

    /// Deletes it with its history. What runs goes on, and its outcome is not recorded.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause), but for [`JobsError::Missing`]: it is gone then.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still delete it.
    pub async fn delete(&self, id: JobId) -> Result<(), JobsError> {
        self.act(id, |_| Some(Step::Delete)).await.map(drop)
    }

    /// Futures for what happens to the namespace.
    pub fn when(&self) -> &When {
        &self.shared.when
    }

    /// The highest version of the namespace that this node has seen.
    pub fn version(&self) -> Version {
        self.hold().view().version()
    }

    /// The Raft group of this namespace.
    pub fn group_id(&self) -> GroupId {
        self.hold().view().group
    }

    fn counts(&self) -> &Counts {
        &self.hold().network().directory().counts
    }

    fn hold(&self) -> &Hold {
        &self.shared.hold
    }

    /// Has a step committed that is about the job as it stands; again, if somebody acts on it
    /// meanwhile. All tries have one id, so that at most one of them does anything.
    async fn act(
        &self,
        job: JobId,
        step: impl Fn(Option<&Status>) -> Option<Step>,
    ) -> Result<Answer, JobsError> {
        let id = self.new_claim_id();
        for _ in 0..TRIES_MAX {
            let (seen, status) = self.look(job).await?;
            let status = status.map(|seen| Status::of(*seen));
            let step = step(status.as_ref()).ok_or(JobsError::Missing)?;
            let answer = self.take(self.command(job, id, seen, step)).await?;
            match answer.refused {
                None => return Ok(answer),
                Some(Refusal::Changed) => {}
                Some(Refusal::Full) => return Err(JobsError::Full),
                Some(Refusal::Running) => return Err(JobsError::Asked),
                Some(Refusal::Early) => return Err(JobsError::Clock),
                Some(_) => return Err(JobsError::Missing),
            }
        }
        Err(JobsError::Busy)
    }

    fn changed(&self, answer: Answer) -> Result<Status, JobsError> {
        let job = answer.job.ok_or(JobsError::Missing)?;
        // What runs was heard of a moment ago, or nothing says otherwise.
        Ok(Status::of(crate::group::JobSeen {
            job,
            silent_ms: Vec::new(),
        }))
    }

    fn command(&self, job: JobId, id: ClaimId, seen: Version, step: Step) -> Command {
        Command {
            job,
            id,
            by: self.shared.who.clone(),
            seen,
            at_ms: 0,
            step,
        }
    }

    /// A new id, at random.
    fn new_claim_id(&self) -> ClaimId {
        ClaimId(self.hold().network().random_id())
    }

    async fn look(
        &self,
        job: JobId,
    ) -> Result<(Version, Option<Box<crate::group::JobSeen>>), NoAnswer> {
        match self.query(JobsQuery::Look { job }).await? {
            JobsAnswer::Seen { version, seen } => Ok((version, seen)),
            _ => Err(NoAnswer::Offline),
        }
    }

    async fn query(&self, query: JobsQuery) -> Result<JobsAnswer, NoAnswer> {
        let (group, directory) = (self.hold().group(), self.hold().network().directory());
        let query = &query;
        // Boxed, so that the futures of programs stay small.
        let ask = |deadline| Box::pin(directory.jobs_query(group, query.clone(), deadline));
        self.hold().until_passed(ask).await
    }

    /// Has a step committed that no leader holds off.
    async fn take(&self, command: Command) -> Result<Answer, NoAnswer> {
        match self.step(command).await? {
            JobStepped::Taken(answer) => Ok(*answer),
            JobStepped::NotYet { .. } => Err(NoAnswer::Offline),
        }
    }

    async fn step(&self, mut command: Command) -> Result<JobStepped, NoAnswer> {
        if check_who(&command.by).is_err() {
            let end = command
                .by
                .floor_char_boundary(crate::machine::task::WHO_BYTES_MAX);
            command.by.truncate(end);
        }
        let hold = self.hold();
        let deadline = hold.deadline();
        let directory = hold.network().directory();
        let stepped = Box::pin(directory.job_step(hold.group(), command, deadline));
        match hold.unless_down(timeout_at(deadline, stepped)).await? {
            Ok(Ok(stepped)) => Ok(stepped),
            _ if hold.is_down() => Err(NoAnswer::NetworkDown),
            _ => Err(NoAnswer::Offline),
        }
    }
}

/// The wall clock, which tests set.
fn now() -> Timestamp {
    let ms = i64::try_from(probe::now_ms()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("group", &self.group_id())
            .field("version", &self.version())
            .field("who", &self.shared.who)
            .finish()
    }
}
