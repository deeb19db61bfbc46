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
use crate::machine::job::{Answer, Command, Refusal, Spec, Step};
use crate::machine::task::{ClaimId, WHO_BYTES_MAX};
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
pub(crate) use tick::{Claimed, Missed};

/// How often something is tried on a job that changes all the time.
const TRIES_MAX: u32 = 64;

/// The longest key by which a job is created once, in bytes.
const KEY_BYTES_MAX: usize = 255;

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

    fn of(hold: Arc<Hold>, mut who: String) -> Self {
        // It is shown on terminals, and what is committed holds no other name.
        who.retain(|letter| !letter.is_control());
        who.truncate(who.floor_char_boundary(WHO_BYTES_MAX));
        Self {
            shared: Arc::new(Shared {
                when: When::new(hold.view().clone(), hold.clone()),
                hold,
                who,
            }),
        }
    }

    /// The same namespace, acting in another name, of which 128 bytes are kept, and no control characters.
    /// Information only: nothing is decided by it.
    #[must_use]
    pub fn named(&self, who: impl Into<String>) -> Self {
        Self::of(self.shared.hold.clone(), who.into())
    }

    /// Creates a job of a JSON document. Its ticks are those after now.
    ///
    /// # Errors
    ///
    /// [`JobsError::Refused`] with the field that is wrong. [`JobsError::Full`],
    /// [`JobsError::Clock`], [`JobsError::Offline`], [`JobsError::NetworkDown`], [`JobsError::Busy`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still create the job.
    pub async fn create(&self, json: &str) -> Result<Status, JobsError> {
        let spec = document::read(json, now()).map_err(JobsError::Refused)?;
        self.create_as(self.new_claim_id(), spec).await
    }

    /// Creates a job as [`create`](Self::create) does, but one only however often it is asked with this
    /// key, for as long as the job is there: so what was not answered can be asked again.
    ///
    /// # Errors
    ///
    /// As `create`. A key has 1 to 255 bytes, and one that has created another job is refused, as the
    /// field `idempotency-key`.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still create the job.
    pub async fn create_once(&self, key: &str, json: &str) -> Result<Status, JobsError> {
        let refused = |message: String| {
            JobsError::Refused(JobError {
                field: "idempotency-key".into(),
                message,
            })
        };
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(refused("a key has 1 to 255 bytes".into()));
        }
        // Calls are known by it: those of no other cluster or namespace bear the same.
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.hold().network().ticket().fingerprint().as_bytes());
        hasher.update(self.group_id().as_bytes());
        hasher.update(key.as_bytes());
        let mut id = ClaimId([0; 16]);
        id.0.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        let spec = document::read(json, now()).map_err(JobsError::Refused)?;
        let status = self.create_as(id, spec.clone()).await?;
        match status.is_made_of(&spec) {
            true => Ok(status),
            false => {
                let id = status.id();
                Err(refused(format!("this key has created another job, {id}")))
            }
        }
    }

    async fn create_as(&self, id: ClaimId, spec: Spec) -> Result<Status, JobsError> {
        let spec = Arc::new(spec);
        let step = |_: Option<&Status>| Some(Step::Create(spec.clone()));
        let answer = self.act(id, JobId::default(), step).await?;
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
        Ok(self.page(JobId::default(), usize::MAX).await?.0)
    }

    /// How jobs stand, by id: those from an id on, so many at most, and where to go on if there are more.
    ///
    /// # Errors
    ///
    /// [`JobsError::Offline`], [`JobsError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn page(
        &self,
        from: JobId,
        at_most: usize,
    ) -> Result<(Vec<Status>, Option<JobId>), JobsError> {
        let (mut page, mut from) = (Vec::new(), Some(from));
        while let Some(id) = from
            && page.len() < at_most
        {
            match self.query(JobsQuery::Page { from: id }).await? {
                JobsAnswer::Page { jobs, next, .. } => {
                    page.extend(jobs.into_iter().map(Status::of));
                    from = next;
                }
                _ => return Err(JobsError::Offline),
            }
        }
        if let Some(beyond) = page.get(at_most) {
            from = Some(beyond.id());
            page.truncate(at_most);
        }
        Ok((page, from))
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
        let answer = self
            .act(self.new_claim_id(), id, |_| Some(Step::Pause))
            .await?;
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
        let answer = self.act(self.new_claim_id(), id, after).await?;
        self.changed(answer)
    }

    /// Asks for one execution whatever the schedule says, also of a job that is paused or over. Of an
    /// AT_LEAST_ONCE job it comes behind the tick that is still tried, which, if it is paused, waits, too.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause), and [`JobsError::Asked`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still ask for it.
    pub async fn run_now(&self, id: JobId) -> Result<Status, JobsError> {
        let answer = self
            .act(self.new_claim_id(), id, |_| Some(Step::RunNow))
            .await?;
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
        self.act(self.new_claim_id(), id, |_| Some(Step::Delete))
            .await
            .map(drop)
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
    /// meanwhile. All tries have this id, so that at most one of them does anything.
    async fn act(
        &self,
        id: ClaimId,
        job: JobId,
        step: impl Fn(Option<&Status>) -> Option<Step>,
    ) -> Result<Answer, JobsError> {
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

    async fn step(&self, command: Command) -> Result<JobStepped, NoAnswer> {
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
