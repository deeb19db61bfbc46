//! What all clones of one handle share: the decoded value, and the way to the group.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::codec::{DecodeError, decode_value};
use crate::group::{Interest, Sink, View};
use crate::id::GroupId;
use crate::machine::{Command, Record, Reply};
use crate::network::Network;
use crate::probe::{Bug, planted};

use super::config::OnceConfig;
use super::when::When;

/// The pauses between two tries to ask a majority, in milliseconds: doubled from the first up to
/// the second.
const BARRIER_PAUSE_MS: u64 = 10;
const BARRIER_PAUSE_MAX_MS: u64 = 200;

/// Why the group gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    Offline,
    NetworkDown,
}

/// A handle's hold on its group: while it lives, the node lives and follows the group.
pub(super) struct Followed {
    // In this order: the interest ends before the node may.
    interest: Interest,
    network: Network,
}

/// The typed side of a group.
///
/// Invariant: a value is stored in `value` only from a committed record, at most once; `decoded`
/// says that this was tried, and why it failed if it did.
pub(super) struct Cell<T> {
    /// First, so that a read touches as little memory as possible.
    value: OnceLock<T>,
    decoded: OnceLock<Result<(), DecodeError>>,
    /// Wakes those who wait for `decoded`.
    known: Notify,
    /// Held by the one caller that runs an initialiser.
    pub(super) initialising: Mutex<()>,
    decode: fn(&[u8]) -> Result<T, DecodeError>,
    followed: Arc<Followed>,
    pub(super) when: When,
    pub(super) config: OnceConfig,
}

impl<T> Cell<T>
where
    T: DeserializeOwned + Send + Sync + 'static,
{
    pub(super) fn open(network: &Network, group: GroupId, config: OnceConfig) -> Arc<Self> {
        let followed = Arc::new(Followed {
            interest: network.open(group),
            network: network.clone(),
        });
        let view = followed.interest.view().clone();
        let cell = Arc::new(Self {
            value: OnceLock::new(),
            decoded: OnceLock::new(),
            known: Notify::new(),
            initialising: Mutex::new(()),
            decode: decode_value::<T>,
            when: When::new(view.clone(), followed.clone()),
            followed,
            config,
        });
        let sink: Arc<dyn Sink> = cell.clone();
        view.attach(&sink);
        cell
    }
}

impl<T> Cell<T> {
    pub(super) fn network(&self) -> &Network {
        &self.followed.network
    }

    pub(super) fn view(&self) -> &View {
        self.followed.interest.view()
    }

    pub(super) fn group(&self) -> GroupId {
        self.view().group
    }

    pub(super) fn is_down(&self) -> bool {
        self.network().down().is_cancelled()
    }

    /// The value, if it is decided, known here, and a `T`.
    #[inline]
    pub(super) fn get(&self) -> Option<&T> {
        if planted(Bug::OfflineForgets) && !self.view().is_online() {
            return None;
        }
        match self.value.get() {
            Some(value) => Some(value),
            None => self.get_slow(),
        }
    }

    #[cold]
    fn get_slow(&self) -> Option<&T> {
        self.outcome()?.ok()
    }

    /// The decided value, or why it is none; `None` while nothing is known to be decided.
    ///
    /// It asks the view too, and so never lags behind what the view has told others: a version
    /// that was waited for, a reply.
    pub(super) fn outcome(&self) -> Option<Result<&T, &DecodeError>> {
        if let Some(value) = self.value.get() {
            return Some(Ok(value));
        }
        Some(self.decide(self.view().record()?))
    }

    /// Takes in the decided record: decodes it, once.
    pub(super) fn decide(&self, record: &Record) -> Result<&T, &DecodeError> {
        let bytes = &record.proposal.value;
        let misread = planted(Bug::ValueChanged).then(|| misread(bytes));
        let bytes = misread.as_deref().unwrap_or(bytes);
        let decoded = self.decoded.get_or_init(|| {
            // This may run where the node applies its log, where a panic in a `Deserialize`
            // would take the whole group down.
            let decoded = catch_unwind(AssertUnwindSafe(|| (self.decode)(bytes)));
            let decoded = decoded.unwrap_or_else(|_| {
                Err(DecodeError {
                    type_name: std::any::type_name::<T>(),
                    bytes: bytes.len(),
                    reason: "its Deserialize panicked".into(),
                })
            });
            match decoded {
                Ok(value) => {
                    // Empty until now: only this closure sets it, and it runs once.
                    let _ = self.value.set(value);
                    Ok(())
                }
                Err(error) => {
                    tracing::warn!(group = ?self.group(), %error, "a cell cannot be read here");
                    Err(error)
                }
            }
        });
        self.known.notify_waiters();
        match (self.value.get(), decoded) {
            (Some(value), _) => Ok(value),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => unreachable!("decoded without an error, so the value was set"),
        }
    }

    /// Waits until something is decided and known here.
    pub(super) async fn decided(&self) -> Result<&T, &DecodeError> {
        loop {
            let known = self.known.notified();
            tokio::pin!(known);
            // Enlisted before looking, so that nothing falls in between.
            known.as_mut().enable();
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            known.await;
        }
    }

    /// Commits `command`, within the write timeout.
    pub(super) async fn propose(&self, command: Command) -> Result<Reply, NoAnswer> {
        if self.is_down() {
            return Err(NoAnswer::NetworkDown);
        }
        let group = self.followed.interest.group();
        let deadline = self.deadline();
        let proposed = self.network().directory().propose(group, command, deadline);
        // The group has deadlines of its own; this one makes sure of it.
        let reply = self.unless_down(timeout_at(deadline, proposed)).await?;
        match reply {
            Ok(Ok(reply)) => Ok(reply),
            _ if self.is_down() => Err(NoAnswer::NetworkDown),
            _ => Err(NoAnswer::Offline),
        }
    }

    /// Everything that was committed before the call is known here after it.
    pub(super) async fn barrier(&self) -> Result<(), NoAnswer> {
        if self.is_down() {
            return Err(NoAnswer::NetworkDown);
        }
        let deadline = self.deadline();
        match self.unless_down(self.pass_barrier(deadline)).await? {
            true => Ok(()),
            false if self.is_down() => Err(NoAnswer::NetworkDown),
            false => Err(NoAnswer::Offline),
        }
    }

    async fn pass_barrier(&self, deadline: Instant) -> bool {
        let group = self.followed.interest.group();
        let directory = self.network().directory();
        let mut pause_ms = BARRIER_PAUSE_MS;
        loop {
            let passed = timeout_at(deadline, directory.barrier(group, deadline)).await;
            if let Ok(Ok(_)) = passed {
                return true;
            }
            let resume = Instant::now() + Duration::from_millis(pause_ms);
            if resume >= deadline {
                return false;
            }
            // It fails at once when too few voters are linked, which may change any moment.
            sleep_until(resume).await;
            pause_ms = (pause_ms * 2).min(BARRIER_PAUSE_MAX_MS);
        }
    }

    /// The result of `work`, unless the network goes down before there is one.
    pub(super) async fn unless_down<O>(
        &self,
        work: impl Future<Output = O>,
    ) -> Result<O, NoAnswer> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.network().down().cancelled() => Err(NoAnswer::NetworkDown),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.network().write_timeout()
    }
}

/// What a planted bug makes of a value.
fn misread(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.last_mut().into_iter().for_each(|last| *last ^= 1);
    bytes
}

impl<T: Send + Sync> Sink for Cell<T> {
    fn decided(&self, record: &Arc<Record>) {
        // Errors were logged and are kept; whoever asks for the value gets them.
        let _ = self.decide(record);
    }
}
