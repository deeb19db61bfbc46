//! A handle's hold on its group: while it lives, the node lives and follows the group.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::group::{Group, Interest, View, Want};
use crate::id::GroupId;
use crate::machine::{Command, Proposal, Reply};
use crate::network::Network;

use super::when::Alive;

/// The pauses between two tries to ask a majority, in milliseconds: doubled from the first up to
/// the second.
const BARRIER_PAUSE_MS: u64 = 10;
const BARRIER_PAUSE_MAX_MS: u64 = 200;

/// Why the group gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Offline,
    NetworkDown,
}

pub(crate) struct Hold {
    // In this order: the interest ends before the node may.
    interest: Interest,
    network: Network,
}

impl Alive for Hold {
    fn want_all(&self) -> Option<Want> {
        self.network.directory().want(self.group(), None)
    }
}

impl Hold {
    pub(crate) fn new(network: &Network, group: GroupId) -> Self {
        Self {
            interest: network.open(group),
            network: network.clone(),
        }
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn group(&self) -> &Arc<Group> {
        self.interest.group()
    }

    pub(crate) fn view(&self) -> &Arc<View> {
        self.interest.view()
    }

    pub(crate) fn is_down(&self) -> bool {
        self.network.down().is_cancelled()
    }

    /// A new proposal of these bytes.
    pub(crate) fn proposal(&self, value: Vec<u8>) -> Proposal {
        Proposal {
            id: self.network.proposal_id(&value),
            value: Arc::from(value),
            proposed_at_ms: self.network.now_ms(),
        }
    }

    /// Commits `command`, within the write timeout.
    pub(crate) async fn propose(&self, command: Command) -> Result<Reply, NoAnswer> {
        if self.is_down() {
            return Err(NoAnswer::NetworkDown);
        }
        let deadline = self.deadline();
        let directory = self.network.directory();
        let proposed = directory.propose(self.group(), command, deadline);
        // The group has deadlines of its own; this one makes sure of it.
        let reply = self.unless_down(timeout_at(deadline, proposed)).await?;
        match reply {
            Ok(Ok(reply)) => Ok(reply),
            _ if self.is_down() => Err(NoAnswer::NetworkDown),
            _ => Err(NoAnswer::Offline),
        }
    }

    /// Tries `pass`, which asks other nodes for something, until it succeeds or the write timeout
    /// is over.
    pub(crate) async fn until_passed<T, E, Fut>(
        &self,
        pass: impl Fn(Instant) -> Fut,
    ) -> Result<T, NoAnswer>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        if self.is_down() {
            return Err(NoAnswer::NetworkDown);
        }
        let deadline = self.deadline();
        let passed = async {
            let mut pause_ms = BARRIER_PAUSE_MS;
            loop {
                if let Ok(Ok(passed)) = timeout_at(deadline, pass(deadline)).await {
                    return Some(passed);
                }
                let resume = Instant::now() + Duration::from_millis(pause_ms);
                if resume >= deadline {
                    return None;
                }
                // It fails at once when too few voters are linked, which may change any moment.
                sleep_until(resume).await;
                pause_ms = (pause_ms * 2).min(BARRIER_PAUSE_MAX_MS);
            }
        };
        match self.unless_down(passed).await? {
            Some(passed) => Ok(passed),
            None if self.is_down() => Err(NoAnswer::NetworkDown),
            None => Err(NoAnswer::Offline),
        }
    }

    /// The result of `work`, unless the network goes down before there is one.
    pub(crate) async fn unless_down<O>(
        &self,
        work: impl Future<Output = O>,
    ) -> Result<O, NoAnswer> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.network.down().cancelled() => Err(NoAnswer::NetworkDown),
        }
    }

    /// When the write timeout of what is begun now is over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.network.write_timeout()
    }
}
