//! Following groups at other voters: what is asked of them, many groups at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::id::NodeId;

use super::ATTEMPT;
use super::directory::{Directory, GROUPS_AT_ONCE, Group};
use super::scope::Scope;
use super::wire::{Batch, Many, Request, Response, Subscribed, Wish};

/// What became of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// What stood is taken in, and what comes will be told.
    Yes,
    /// To be asked for alone.
    Alone,
    /// Nobody here needs it any more.
    Unwanted,
    No,
}

/// Subscriptions that were noted and not answered yet. They are taken back when nobody waits for
/// an answer any more: whoever did may have been given up.
struct Noted {
    voter: NodeId,
    /// By number.
    left: BTreeMap<u64, Arc<Group>>,
}

impl Drop for Noted {
    fn drop(&mut self) {
        for (number, group) in &self.left {
            group.view.unfollow_if(self.voter, *number);
        }
    }
}

impl Directory {
    /// Subscribes to all of these at `voter`, which passes a barrier for them and answers with what
    /// stands. No more than one frame may be about.
    pub(super) async fn follow_at(
        self: &Arc<Self>,
        voter: NodeId,
        groups: &[Arc<Group>],
        deadline: Instant,
    ) -> Vec<Followed> {
        let mut followed = vec![Followed::Unwanted; groups.len()];
        let mut noted = Noted {
            voter,
            left: BTreeMap::new(),
        };
        let (mut asked, mut wishes) = (Vec::new(), Vec::new());
        for (n, group) in groups.iter().enumerate() {
            // Noted first: if the link drops from here on, the view is told.
            let number = self.subscription_number();
            let scope = self.scope_of(group);
            if group.view.follow(voter, number, scope.clone()) {
                noted.left.insert(number, group.clone());
                asked.push((n, number));
                wishes.push(Wish {
                    group: group.id(),
                    number,
                    scope,
                });
                followed[n] = Followed::No;
            }
        }
        if asked.is_empty() {
            return followed;
        }
        let request = Request::of_many(Many::Subscribe(Batch::new(wishes)));
        let call = self.peers().call(voter, request.encode());
        let answer = match timeout_at(deadline, call).await {
            Ok(Ok(frame)) => Response::decode(&frame).ok(),
            _ => None,
        };
        let Some(Response::Subscribed(answers)) = answer.filter(|answer| {
            matches!(answer, Response::Subscribed(answers) if answers.len() == asked.len())
        }) else {
            return followed;
        };
        for ((n, number), answer) in asked.into_iter().zip(answers.into_vec()) {
            let view = &groups[n].view;
            followed[n] = match answer {
                Subscribed::State(state) => {
                    if view.following().get(&voter) != Some(&number) {
                        // Nobody here wants it any more, and the word of that may have overtaken us.
                        self.leave_at(voter, groups[n].id(), number);
                    }
                    noted.left.remove(&number);
                    view.observe(state.version, state.record.as_ref());
                    Followed::Yes
                }
                Subscribed::Alone => Followed::Alone,
                Subscribed::No { reason } => {
                    tracing::debug!(group = ?groups[n].id(), %voter, reason, "not followed");
                    Followed::No
                }
            };
        }
        followed
    }

    /// What to be told of: a voter follows on behalf of others, too.
    fn scope_of(&self, group: &Group) -> Scope {
        match self.peers().is_voter() || !group.id().is_map() {
            true => Scope::All,
            false => group.view.scope(),
        }
    }

    /// Has `voter` tell of what is wanted now, in the place of what it tells. Returns those of which
    /// that has yet to succeed, and whether they are still followed there.
    pub(super) async fn rescope_at(
        self: &Arc<Self>,
        voter: NodeId,
        groups: Vec<Arc<Group>>,
    ) -> Vec<(Arc<Group>, bool)> {
        let mut asked = Vec::new();
        let mut wishes = Vec::new();
        for group in groups {
            let number = self.subscription_number();
            match group.view.rescope(voter, number) {
                Some(scope) => {
                    wishes.push(Wish {
                        group: group.id(),
                        number,
                        scope,
                    });
                    asked.push((group, number));
                }
                None => self.forget_idle(group),
            }
        }
        if asked.is_empty() {
            return Vec::new();
        }
        let request = Request::of_many(Many::Rescope(Batch::new(wishes)));
        let call = self.peers().call(voter, request.encode());
        let answers = match timeout_at(Instant::now() + ATTEMPT, call).await {
            Ok(Ok(frame)) => match Response::decode(&frame) {
                Ok(Response::Subscribed(answers)) => answers.into_vec(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        let answers = answers.into_iter().map(Some).chain(std::iter::repeat(None));
        let mut failed = Vec::new();
        for ((group, number), answer) in asked.into_iter().zip(answers) {
            match answer {
                Some(Subscribed::State(state)) => {
                    group.view.observe(state.version, None);
                    self.forget_idle(group);
                }
                Some(_) => {
                    let is_followed = !group.view.unfollow_if(voter, number);
                    failed.push((group, is_followed));
                }
                None => {
                    group.view.rescope_failed(voter, number);
                    failed.push((group, true));
                }
            }
        }
        failed
    }

    /// This voter does not see all the others.
    pub(super) fn has_gap(&self) -> bool {
        self.peers().linked_voters().len() + 1 < self.peers().voters().len()
    }

    /// A voter hears of commits from the leader. While it cannot see some voter, that may be the
    /// leader: it then also follows at the voters it does see. Returns of which groups that has yet
    /// to succeed.
    pub(super) async fn follow_around_gaps(
        self: &Arc<Self>,
        groups: &[Arc<Group>],
    ) -> Vec<Arc<Group>> {
        if !self.has_gap() {
            for group in groups {
                for (voter, number) in group.view.following() {
                    group.view.unfollow_if(voter, number);
                    // If it is lost, we go on being told, which harms nobody.
                    self.leave_at(voter, group.id(), number);
                }
            }
            return Vec::new();
        }
        let voters = self.peers().linked_voters();
        let all = voters.into_iter().map(|voter| async move {
            let mut new: Vec<_> = groups.to_vec();
            new.retain(|group| !group.view.following().contains_key(&voter));
            self.follow_all_at(voter, new).await
        });
        futures::future::join_all(all).await.concat()
    }

    /// Returns those that are not followed then.
    async fn follow_all_at(
        self: &Arc<Self>,
        voter: NodeId,
        groups: Vec<Arc<Group>>,
    ) -> Vec<Arc<Group>> {
        let deadline = || Instant::now() + ATTEMPT;
        let answers = self.follow_at(voter, &groups, deadline()).await;
        let all = groups.into_iter().zip(answers);
        let tried = futures::stream::iter(all).map(|(group, answer)| async move {
            let mut answer = answer;
            if answer == Followed::Alone {
                let alone = std::slice::from_ref(&group);
                let again = self.follow_at(voter, alone, deadline()).await;
                answer = again[0];
            }
            (answer != Followed::Yes).then_some(group)
        });
        let failed = tried.buffer_unordered(GROUPS_AT_ONCE);
        failed.filter_map(std::future::ready).collect().await
    }
}

/// Follows around gaps, and asks a majority where a voter was lost that may have led and have
/// committed what it told others alone. Its link may be back already. Returns where that has yet to
/// succeed.
pub(super) async fn mend(
    directory: Arc<Directory>,
    groups: Vec<Arc<Group>>,
    deadline: Instant,
) -> Vec<Arc<Group>> {
    let is_needed = |group: &Group| directory.peers().in_touch() && !group.view.is_idle();
    let (needed, idle): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| is_needed(group));
    let mut failed = directory.follow_around_gaps(&needed).await;
    let in_doubt = needed.iter().filter(|group| group.view.take_doubt());
    let in_doubt: Vec<_> = in_doubt.cloned().collect();
    failed.extend(directory.still_in_doubt(in_doubt, deadline).await);
    failed.retain(|group| is_needed(group));
    let failed: BTreeMap<_, _> = failed
        .into_iter()
        .map(|group| (group.id(), group))
        .collect();
    for group in needed.into_iter().chain(idle) {
        if !failed.contains_key(&group.id()) {
            directory.forget_idle(group);
        }
    }
    failed.into_values().collect()
}
