//! Tasks: actions that a whole cluster starts at most once, or until they succeed.
//!
//! A task has a name in a namespace. Whoever is to run it *claims* it first: the claim is committed
//! by a majority of the voters before the action starts, so that of any number of processes, on any
//! number of hosts, one starts it. How it ended is recorded, and everybody else can learn it, or
//! wait for it.
//!
//! ```
//! use raft_once::Network;
//! use raft_once::task::{Ran, State, Tasks};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = Network::new("demo").await?;
//! # async fn seed() -> Result<u32, std::io::Error> { Ok(42) }
//! let tasks = Tasks::new(&network, "shop");
//! let task = tasks.task("seed-data").at_most_once();
//!
//! // The same line on every host; one of them runs it.
//! match task.run(|_| seed()).await? {
//!     Ran::Here(here) => println!("seeded here: {:?}", here.result),
//!     Ran::Elsewhere(status) => println!("{:?} on {:?}", status.state, status.executor),
//! }
//!
//! // It ran, so it is never started again.
//! let again = task.run(|_| async { unreachable!() as Result<(), std::io::Error> }).await?;
//! let Ran::Elsewhere(status) = again else { unreachable!() };
//! assert_eq!(status.state, State::Succeeded);
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! An *at-most-once* task ([`Policy::AtMostOnce`], the default) is started by at most one process
//! in each generation, whatever crashes, restarts or is cut off (P9). Nobody can promise that it is
//! started, or ends: an executor that dies leaves a task that is shown as
//! [`Abandoned`](State::Abandoned), until an operator [resolves](Task::resolve) or
//! [resets](Task::reset) it.
//!
//! An *at-least-once* task ([`Policy::AtLeastOnce`]) is started again after a failure, and when its
//! executor is not heard of for 15 seconds. That one may be at work all the same: attempts overlap
//! by nature, and the action has a number and a version to fence with.
//!
//! A *generation* begins when a task is created, also implicitly by a claim, and when it is reset.
//! After a reset an executor that was paused since before may still start once, for the old
//! generation; its outcome is refused.
//!
//! # For scripts
//!
//! [`Task::claim`] and [`Task::finish`] are the two halves of [`Task::run`], for actions that are no
//! future of this process:
//!
//! ```
//! use raft_once::Network;
//! use raft_once::task::{Claimed, Outcome, State, Tasks};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = Network::new("demo").await?;
//! let task = Tasks::new(&network, "shop").named("host-7").task("migrate");
//! if let Claimed::Here(attempt) = task.claim().await? {
//!     // Some other program works on it, and says so now and then.
//!     assert!(task.renew(attempt.claim()).await?);
//!     let status = task.finish(attempt.claim(), Outcome::SUCCESS).await?;
//!     assert_eq!((status.state, status.executor.as_deref()), (State::Succeeded, Some("host-7")));
//! }
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod error;
mod handle;
mod operate;
mod run;
mod status;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::timeout_at;

use crate::group::{Stepped, TasksAnswer, TasksQuery};
use crate::id::{GroupId, Version};
use crate::machine::task::Command;
use crate::network::Network;
use crate::once::{Hold, NoAnswer, When};

pub use crate::machine::task::{ClaimId, ClaimIdError, DeedKind, Failure, Outcome, Policy};
pub use error::TaskError;
pub use handle::{Claimed, Task};
pub use run::{Attempt, Here, Ran};
pub use status::{Condition, State, Status};
pub use watch::{TaskChange, Watch};

/// The tasks of one namespace.
///
/// A handle: clones share it, and it keeps the node alive. The namespace is one Raft group, and
/// handles with one name are one namespace, on whatever node they are opened. It holds 10,000 tasks
/// at most.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    hold: Arc<Hold>,
    when: When,
    /// Who acts.
    who: String,
}

/// What an operator did to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deed {
    /// The task's name.
    pub task: String,
    /// What was done.
    pub kind: DeedKind,
    /// By whom.
    pub by: String,
    /// When, by the leader's wall clock.
    pub at: SystemTime,
    /// The generation that the task was in before.
    pub generation: Version,
    /// Where in the history of the namespace.
    pub version: Version,
}

impl Tasks {
    /// Opens a namespace. It returns at once: the node gets in touch in the background, see
    /// [`when`](Self::when).
    ///
    /// What is done through it is done in the name of this node; see [`named`](Self::named).
    pub fn new(network: &Network, namespace: impl AsRef<str>) -> Self {
        let node = network.node_id();
        let who = network.name_of(node).unwrap_or_else(|| node.to_string());
        let group = GroupId::of_tasks(namespace.as_ref());
        let hold = Arc::new(Hold::new(network, group));
        Self {
            shared: Arc::new(Shared {
                when: When::new(hold.view().clone(), hold.clone()),
                hold,
                who,
            }),
        }
    }

    /// The same namespace, acting in another name: it is the executor of what is run, and who
    /// deletes, resets and resolves. Information only: nothing is decided by it.
    #[must_use]
    pub fn named(&self, who: impl Into<String>) -> Self {
        Self {
            shared: Arc::new(Shared {
                hold: self.shared.hold.clone(),
                when: When::new(self.hold().view().clone(), self.shared.hold.clone()),
                who: who.into(),
            }),
        }
    }

    /// The task of this name, whether it is there or not.
    pub fn task(&self, name: impl Into<String>) -> Task {
        Task::new(self.clone(), name.into())
    }

    /// How all tasks stand, by name.
    ///
    /// Each is as of now, all together are not of one moment.
    ///
    /// # Errors
    ///
    /// [`TaskError::Offline`], [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn list(&self) -> Result<Vec<Status>, TaskError> {
        Ok(self.page("", usize::MAX).await?.0)
    }

    /// How tasks stand, by name: those from a name on, so many at most, and where to go on if there are
    /// more.
    ///
    /// # Errors
    ///
    /// [`TaskError::Offline`], [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn page(
        &self,
        from: &str,
        at_most: usize,
    ) -> Result<(Vec<Status>, Option<String>), TaskError> {
        let (mut page, mut from) = (Vec::new(), Some(from.to_string()));
        while page.len() < at_most
            && let Some(name) = from.take()
        {
            match self.query(TasksQuery::Page { from: name }).await? {
                TasksAnswer::Page { tasks, next } => {
                    let statuses = tasks.into_iter();
                    page.extend(statuses.map(|(name, seen)| Status::of(name, &seen)));
                    from = next;
                }
                _ => return Err(TaskError::Offline),
            }
        }
        if let Some(beyond) = page.get(at_most) {
            from = Some(beyond.name.clone());
            page.truncate(at_most);
        }
        Ok((page, from))
    }

    /// What operators did: the last 256 times that a task was reset, deleted or resolved.
    ///
    /// # Errors
    ///
    /// [`TaskError::Offline`], [`TaskError::NetworkDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub async fn deeds(&self) -> Result<Vec<Deed>, TaskError> {
        let TasksAnswer::Deeds { deeds, .. } = self.query(TasksQuery::Deeds).await? else {
            return Err(TaskError::Offline);
        };
        let deeds = deeds.into_iter().map(|deed| Deed {
            task: deed.task,
            kind: deed.kind,
            by: deed.by,
            at: status::at(deed.at_ms),
            generation: deed.generation,
            version: deed.version,
        });
        Ok(deeds.collect())
    }

    /// A stream of what changes: first all tasks as they stand, then each that has changed, as soon
    /// as this node hears of it. See [`Watch`].
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone())
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

    fn hold(&self) -> &Hold {
        &self.shared.hold
    }

    /// A new claim id, at random: for [`Task::claim_as`], if it is to be kept somewhere before the
    /// claim is made.
    pub fn new_claim_id(&self) -> ClaimId {
        ClaimId(self.hold().network().random_id())
    }

    async fn query(&self, query: TasksQuery) -> Result<TasksAnswer, NoAnswer> {
        let (group, directory) = (self.hold().group(), self.hold().network().directory());
        let query = &query;
        // Boxed, so that the futures of programs stay small.
        let ask = |deadline| Box::pin(directory.query(group, query.clone(), deadline));
        self.hold().until_passed(ask).await
    }

    async fn step(&self, command: Command) -> Result<Stepped, NoAnswer> {
        let hold = self.hold();
        let deadline = hold.deadline();
        let directory = hold.network().directory();
        let stepped = Box::pin(directory.step(hold.group(), command, deadline));
        match hold.unless_down(timeout_at(deadline, stepped)).await? {
            Ok(Ok(stepped)) => Ok(stepped),
            _ if hold.is_down() => Err(NoAnswer::NetworkDown),
            _ => Err(NoAnswer::Offline),
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("group", &self.group_id())
            .field("version", &self.version())
            .field("who", &self.shared.who)
            .finish()
    }
}
