//! What changes in a namespace, as a stream.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt, unfold};

use super::status::Status;
use super::{TaskError, Tasks};
use crate::group::{Seen, TasksAnswer};
use crate::id::Version;

/// The pauses between two looks where something was heard of and not found yet, in milliseconds:
/// doubled from the first up to the second.
const LOOK_AGAIN_MS: u64 = 1;
const LOOK_AGAIN_MAX_MS: u64 = 200;

/// Something that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskChange {
    /// A task is new, or stands otherwise than before.
    Changed(Box<Status>),
    /// The task of this name was deleted or forgotten.
    Removed(String),
}

/// A stream of what changes in a namespace: see [`Tasks::watch`].
///
/// Several changes of one task may become one, the last; none is lost. That a task is abandoned is no
/// change, but something that the leader says when it is asked: see [`Task::status`](super::Task::status)
/// and [`Task::wait`](super::Task::wait). While this node is offline the stream waits, and then goes on.
///
/// # Errors
///
/// It ends after [`TaskError::NetworkDown`], when the network is shut down, and never else.
pub struct Watch(BoxStream<'static, Result<TaskChange, TaskError>>);

struct Changes {
    tasks: Tasks,
    /// Everything up to here was read.
    read: Version,
    /// The last removal that was looked into.
    removed: Version,
    /// All that the stream has told of and that is not removed.
    told: BTreeSet<String>,
    next: VecDeque<TaskChange>,
    is_down: bool,
}

impl Watch {
    pub(super) fn new(tasks: Tasks) -> Self {
        let changes = Changes {
            tasks,
            read: Version::ZERO,
            removed: Version::ZERO,
            told: BTreeSet::new(),
            next: VecDeque::new(),
            is_down: false,
        };
        let stream = unfold(changes, |mut changes| async move {
            let next = changes.next().await?;
            Some((next, changes))
        });
        Self(stream.boxed())
    }
}

impl Changes {
    async fn next(&mut self) -> Option<Result<TaskChange, TaskError>> {
        let mut pause_ms = LOOK_AGAIN_MS;
        loop {
            if let Some(change) = self.next.pop_front() {
                match &change {
                    TaskChange::Changed(status) => self.told.insert(status.name.clone()),
                    TaskChange::Removed(name) => self.told.remove(name),
                };
                return Some(Ok(change));
            }
            if std::mem::replace(&mut self.is_down, self.tasks.hold().is_down()) {
                return None;
            }
            if self.is_down {
                return Some(Err(TaskError::NetworkDown));
            }
            let tasks = self.tasks.clone();
            // If it goes down the next round says so.
            let _ = tasks.hold().unless_down(self.read_on(&mut pause_ms)).await;
        }
    }

    /// Reads what has changed, or waits until something may have.
    async fn read_on(&mut self, pause_ms: &mut u64) {
        let tasks = self.tasks.clone();
        let hold = tasks.hold();
        // Looked at before the tasks are: whatever comes later wakes us.
        let mut versions = hold.view().versions();
        let heard = *versions.borrow_and_update();
        let read = hold
            .network()
            .directory()
            .task_changes(hold.group(), self.read);
        match read.await {
            Ok(TasksAnswer::Changes {
                tasks,
                upto,
                removed,
            }) if upto > self.read => {
                if self.find_removed(removed, upto).await.is_err() {
                    return pause(pause_ms).await;
                }
                self.read = upto;
                self.next.extend(tasks.into_iter().map(|(name, task)| {
                    let seen = Seen { task, silent_ms: 0 };
                    TaskChange::Changed(Box::new(Status::of(name, &seen)))
                }));
            }
            // It fails when the view is gone, as if the node went down.
            Ok(_) if heard <= self.read => drop(versions.changed().await),
            _ => pause(pause_ms).await,
        }
    }

    /// What of all that was told of is not there any more.
    async fn find_removed(&mut self, removed: Version, upto: Version) -> Result<(), TaskError> {
        if removed <= self.removed {
            return Ok(());
        }
        if !self.told.is_empty() {
            let there = self.tasks.list().await?.into_iter();
            let there: BTreeSet<_> = there.map(|status| status.name).collect();
            let gone = self.told.difference(&there).cloned();
            self.next.extend(gone.map(TaskChange::Removed));
        }
        // What was removed behind this page may be told of by somebody who does not know that yet.
        self.removed = self.removed.max(removed.min(upto));
        Ok(())
    }
}

async fn pause(pause_ms: &mut u64) {
    tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
    *pause_ms = (*pause_ms * 2).min(LOOK_AGAIN_MAX_MS);
}

impl Stream for Watch {
    type Item = Result<TaskChange, TaskError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
