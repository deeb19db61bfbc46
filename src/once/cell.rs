//! What all clones of one handle share: the decoded value, and the way to the group.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Notify};

use crate::codec::{DecodeError, decode_value};
use crate::group::{Sink, View};
use crate::id::GroupId;
use crate::machine::{Command, Record, Reply};
use crate::network::Network;
use crate::probe::{Bug, planted};

use super::config::OnceConfig;
use super::hold::{Hold, NoAnswer};
use super::when::When;

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
    hold: Arc<Hold>,
    pub(super) when: When,
    pub(super) config: OnceConfig,
}

impl<T> Cell<T>
where
    T: DeserializeOwned + Send + Sync + 'static,
{
    pub(super) fn open(network: &Network, group: GroupId, config: OnceConfig) -> Arc<Self> {
        let hold = Arc::new(Hold::new(network, group));
        let view = hold.view().clone();
        let cell = Arc::new(Self {
            value: OnceLock::new(),
            decoded: OnceLock::new(),
            known: Notify::new(),
            initialising: Mutex::new(()),
            decode: decode_value::<T>,
            when: When::new(view.clone(), hold.clone()),
            hold,
            config,
        });
        let sink: Arc<dyn Sink> = cell.clone();
        view.attach(&sink);
        cell
    }
}

impl<T> Cell<T> {
    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }

    pub(super) fn network(&self) -> &Network {
        self.hold.network()
    }

    pub(super) fn view(&self) -> &View {
        self.hold.view()
    }

    pub(super) fn group(&self) -> GroupId {
        self.view().group
    }

    pub(super) fn is_down(&self) -> bool {
        self.hold.is_down()
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
        self.hold.propose(command).await
    }

    /// Everything that was committed before the call is known here after it.
    pub(super) async fn barrier(&self) -> Result<(), NoAnswer> {
        let (group, directory) = (self.hold.group(), self.network().directory());
        let pass = |deadline| directory.barrier(group, deadline);
        self.hold.until_passed(pass).await.map(drop)
    }

    /// The result of `work`, unless the network goes down before there is one.
    pub(super) async fn unless_down<O>(
        &self,
        work: impl Future<Output = O>,
    ) -> Result<O, NoAnswer> {
        self.hold.unless_down(work).await
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
