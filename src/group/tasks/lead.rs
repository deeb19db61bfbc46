//! What the leader does with a step or a question: it stamps what it puts into the log, and judges
//! the task in question by what it has heard.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::directory::Directory;
use super::super::replica::Replica;
use super::super::wire::Response;
use super::{PAGE_BYTES, SILENT_MS, Seen, TasksAnswer, TasksQuery, Watch};
use crate::codec;
use crate::id::Version;
use crate::machine::task::{
    Board, Changes, ClaimId, Command, How, Name, Phase, Policy, Step, Task,
};
use crate::machine::{self, Reply};
use crate::probe::{self, Bug, planted};

/// Whoever is heard to be alive after this is not taken for dead.
const SILENT: Duration = Duration::from_millis(SILENT_MS);

impl Directory {
    /// Commits a step, if `replica` leads.
    pub(in super::super) async fn lead_step(
        &self,
        replica: &Arc<Replica>,
        command: Command,
        deadline: Instant,
    ) -> Response {
        if matches!(command.step, Step::Claim(_)) {
            if planted(Bug::ClaimNotCommitted) {
                return self.answer_first(replica, command, deadline);
            }
            let mut is_confirmed = false;
            loop {
                if let Err(response) = self.judge(replica, &command.task, deadline).await {
                    return response;
                }
                let wait = self.backoff(replica, &command.task);
                let is_behind = replica.with_board(|_, version| version < command.seen);
                match wait {
                    Some(wait) if is_confirmed => {
                        let wait_ms = wait.as_millis().try_into().unwrap_or(u64::MAX);
                        return Response::Tasks(TasksAnswer::NotYet { wait_ms });
                    }
                    None if is_confirmed || !is_behind => break,
                    // A new leader may not have applied yet what an old one has answered, this very
                    // claim for one; and one that was deposed knows of no end of the pause.
                    _ if replica.confirm(deadline).await => is_confirmed = true,
                    _ => return Response::Elsewhere { hint: None },
                }
            }
        }
        self.put(replica, command, deadline).await
    }

    /// As one would that commits later what it has answered.
    fn answer_first(
        &self,
        replica: &Arc<Replica>,
        command: Command,
        deadline: Instant,
    ) -> Response {
        let (mut board, version) =
            replica.with_board(|board, version| (board.clone(), version.as_u64()));
        let version = Version::new(version + 1);
        let answer = board.apply(version, &command, &mut Changes::default());
        let replica = replica.clone();
        self.peers().spawn(Box::pin(async move {
            replica
                .write(machine::Command::Task(command), deadline)
                .await;
        }));
        Response::Committed {
            reply: Reply {
                task: Some(Box::new(answer)),
                ..Reply::at(version)
            },
            leader: self.peers().me(),
        }
    }

    async fn put(
        &self,
        replica: &Arc<Replica>,
        mut command: Command,
        deadline: Instant,
    ) -> Response {
        command.at_ms = probe::now_ms();
        let name = command.task.clone();
        let command = machine::Command::Task(command);
        let response = replica.write(command, deadline).await;
        if let Response::Committed { reply, .. } = &response {
            let (term, _) = replica.term();
            match (changed_by(reply), &reply.task) {
                (Some(task), _) => self
                    .vigils
                    .heard(replica.group, term, Watch::of(&name, task)),
                (None, Some(answer)) if answer.task.is_none() => {
                    self.vigils.forget(replica.group, &name);
                }
                _ => {}
            }
        }
        response
    }

    /// For how long a claim has to wait yet, behind an attempt that failed.
    fn backoff(&self, replica: &Replica, name: &Name) -> Option<Duration> {
        let task = replica.with_board(|board, _| board.get(name).cloned())?;
        let failed = task.attempt.as_ref()?;
        let is_failure = matches!(failed.end.as_ref()?.how, How::Ended(_));
        if task.phase() != Phase::Waiting || !is_failure {
            return None;
        }
        let pause = Duration::from_millis(task.spec.policy.backoff_ms(failed.number));
        pause
            .checked_sub(self.silence(replica, name, &task))
            .filter(|wait| !wait.is_zero())
    }

    fn silence(&self, replica: &Replica, name: &Name, task: &Task) -> Duration {
        let (term, _) = replica.term();
        self.vigils
            .silent_for(replica.group, term, Watch::of(name, task))
    }

    /// Has a task forgotten that is over, and an attempt expired whose executor is silent, where
    /// another may follow. The response says why that could not be committed.
    async fn judge(
        &self,
        replica: &Arc<Replica>,
        name: &Name,
        deadline: Instant,
    ) -> Result<(), Response> {
        let Some(task) = replica.with_board(|board, _| board.get(name).cloned()) else {
            return Ok(());
        };
        let (id, step) = match (task.running(), task.spec.policy) {
            (Some(claim), Policy::AtLeastOnce { .. })
                if self.silence(replica, name, &task) >= SILENT =>
            {
                (claim, Step::Expire)
            }
            _ if task.is_over(probe::now_ms()) => (ClaimId([0; 16]), Step::Judge),
            _ => return Ok(()),
        };
        let command = Command {
            task: name.clone(),
            id,
            by: String::new(),
            seen: Version::ZERO,
            at_ms: 0,
            step,
        };
        match self.put(replica, command, deadline).await {
            Response::Committed { .. } => Ok(()),
            other => Err(other),
        }
    }

    /// Answers a question, if `replica` leads.
    pub(in super::super) async fn lead_query(
        &self,
        replica: &Arc<Replica>,
        query: TasksQuery,
        deadline: Instant,
    ) -> Response {
        if !replica.confirm(deadline).await {
            return Response::Elsewhere { hint: None };
        }
        Response::Tasks(match query {
            TasksQuery::Look { task: name } => {
                if let Err(response) = self.judge(replica, &name, deadline).await {
                    return response;
                }
                let (task, version) =
                    replica.with_board(|board, version| (board.get(&name).cloned(), version));
                let seen = task.map(|task| Box::new(self.seen(replica, &name, task)));
                TasksAnswer::Seen { version, seen }
            }
            TasksQuery::Page { from } => {
                let (tasks, next) = replica.with_board(|board, _| page(board, &from));
                let seen = tasks.into_iter().map(|(name, task)| {
                    let seen = self.seen(replica, &name, task);
                    (name, seen)
                });
                TasksAnswer::Page {
                    tasks: seen.collect(),
                    next,
                }
            }
            TasksQuery::Deeds => {
                let deeds = replica.with_board(|board, _| board.deeds().cloned().collect());
                let leader = self.peers().me();
                TasksAnswer::Deeds { deeds, leader }
            }
            TasksQuery::Renew { task: name, claim } => {
                let task = replica.with_board(|board, _| board.get(&name).cloned());
                let task = task.filter(|task| task.running() == Some(claim));
                if let Some(task) = &task {
                    let (term, _) = replica.term();
                    self.vigils
                        .heard(replica.group, term, Watch::of(&name, task));
                }
                TasksAnswer::Renewed(task.is_some())
            }
        })
    }

    fn seen(&self, replica: &Replica, name: &Name, task: Task) -> Seen {
        let silent_ms = match task.running() {
            Some(_) => self.silence(replica, name, &task).as_millis(),
            None => 0,
        };
        Seen {
            task,
            silent_ms: silent_ms.try_into().unwrap_or(u64::MAX),
        }
    }
}

/// The task, if this reply says that it was changed.
fn changed_by(reply: &Reply) -> Option<&Task> {
    let task = reply.task.as_ref()?.task.as_ref()?;
    (task.changed == reply.version).then_some(task)
}

/// The first tasks from a name on, and where to go on if there are more.
fn page(board: &Board, from: &Name) -> (Vec<(Name, Task)>, Option<Name>) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for (name, task) in board.tasks().range(from.clone()..) {
        if bytes >= PAGE_BYTES {
            return (page, Some(name.clone()));
        }
        bytes += bytes_of(name, task);
        page.push((name.clone(), task.clone()));
    }
    (page, None)
}

pub(super) fn bytes_of(name: &Name, task: &Task) -> usize {
    codec::encode(0, &(name, task)).len()
}
