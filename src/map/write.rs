//! What only writers do.

use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::{MapKey, slot_of};
use super::{OnceMap, value_of};
use crate::codec::{EncodeError, encode_value};
use crate::id::Version;
use crate::machine::{Command, Proposal, Record, Slot};
use crate::once::{Claim, ClaimError, Error, InitError, NoAnswer, Pending, ReadError, WRITER};
use crate::probe::{Bug, planted};

/// Why an offer came to nothing.
enum OfferError {
    NoAnswer(NoAnswer),
    Encoding(EncodeError),
}

impl<K, V> OnceMap<K, V, WRITER>
where
    K: MapKey + Send + 'static,
    V: Serialize + DeserializeOwned + Send + 'static,
{
    /// Offers a value for a slot and learns whether it won: one claim of a slot is told
    /// [`Claim::Won`], all others [`Claim::Lost`] with the winner's value.
    ///
    /// Won is won, as with [`Once::claim`](crate::Once::claim): a claimant that is told so did decide
    /// the slot, at most one ever is, and a retry of its [`Pending`] with the same key is told so
    /// again. The version is a fencing token: of two decisions of one map the later one has the
    /// greater version.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Offline`] hands a [`Pending`] back when the claim could not be confirmed within
    /// the network's write timeout: it may still win, and claiming the same key with that `Pending`
    /// again asks whether it did. [`ClaimError::Encoding`] hands the value back, also when the key
    /// is too long. [`ClaimError::Decode`] if the claim was lost to a value that is not a `V`.
    /// [`ClaimError::NetworkDown`] after shutdown.
    ///
    /// # Cancel safety
    ///
    /// A dropped claim may still win, and nobody is told then. Nothing else is left half done.
    pub async fn claim(
        &self,
        key: K,
        value: impl Into<Pending<V>>,
    ) -> Result<Claim<V>, ClaimError<V>> {
        let mut pending = value.into();
        let offered = match slot_of(&key) {
            Ok(slot) => self.offer(slot, &mut pending).await,
            Err(error) => Err(OfferError::Encoding(error)),
        };
        let counts = &self.hold().network().directory().counts;
        match &offered {
            Ok((_, true)) => counts.claims_won.one(),
            Ok((_, false)) => counts.claims_lost.one(),
            Err(OfferError::NoAnswer(NoAnswer::Offline)) => counts.claims_offline.one(),
            Err(_) => {}
        }
        match offered {
            Ok((record, true)) => Ok(Claim::Won(record.version)),
            Ok((record, _)) if planted(Bug::EveryoneWins) => Ok(Claim::Won(record.version)),
            Ok((record, false)) => match value_of(&record) {
                Ok(winner) => Ok(Claim::Lost {
                    winner,
                    version: record.version,
                    offered: pending.into_value(),
                }),
                Err(error) => Err(ClaimError::Decode(error)),
            },
            Err(error) => Err(failed(error, pending)),
        }
    }

    /// Offers a value for a slot. The first one that is committed is the slot's value for good; all
    /// later ones are ignored.
    ///
    /// Returns the version at which the write was committed, **also if it was ignored**. To learn
    /// whether the value won, use [`claim`](Self::claim).
    ///
    /// # Errors
    ///
    /// [`Error::Offline`] hands the value back when the write could not be confirmed within the
    /// network's write timeout; it may still win. [`Error::Encoding`] hands it back when it, or the
    /// key, cannot be encoded or is too large. [`Error::NetworkDown`] after shutdown.
    ///
    /// # Cancel safety
    ///
    /// A dropped write may still be committed, and win. Nothing else is left half done.
    pub async fn write(&self, key: K, value: V) -> Result<Version, Error<V>> {
        let proposal = slot_of(&key).and_then(|slot| Ok((slot, self.propose(&value)?)));
        let (slot, proposal) = match proposal {
            Ok(proposal) => proposal,
            Err(error) => return Err(Error::Encoding(value, error)),
        };
        match self.hold().propose(Command::Set { slot, proposal }).await {
            Ok(reply) => Ok(reply.version),
            Err(NoAnswer::Offline) => Err(Error::Offline(value)),
            Err(NoAnswer::NetworkDown) => Err(Error::NetworkDown),
        }
    }

    /// The value of a slot; if it has none, `init` makes one and offers it.
    ///
    /// Every caller, on every node, gets the one value that won. The initialiser is not run if the
    /// slot has a value: before it is run, a majority of the voters is asked. Of concurrent calls
    /// with one key on one handle and its clones at most one runs its initialiser at a time, the
    /// others wait for it. **On several nodes several initialisers may run at the same time**, and
    /// all but one of their values are thrown away. To run something once,
    /// [`claim`](Self::claim) first.
    ///
    /// ```
    /// # use raft_once::{Network, OnceMap};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let seeds = OnceMap::<String, u64>::writer(&network, "seeds");
    /// let key = || "cluster".to_string();
    ///
    /// assert_eq!(seeds.get_or_init(key(), async || 42).await?, 42);
    /// assert_eq!(seeds.get_or_init(key(), async || unreachable!()).await?, 42);
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClaimError::Unreached`] if it could not be asked in time whether the slot has a value: the
    /// initialiser was not run. Else as [`claim`](Self::claim).
    ///
    /// # Cancel safety
    ///
    /// A dropped call drops the initialiser's future where it stands; what it had offered may still
    /// win. Another waiting call goes on with its own initialiser.
    ///
    /// An initialiser that initialises the same slot of the same handle waits for itself for ever.
    pub async fn get_or_init<F, Fut>(&self, key: K, init: F) -> Result<V, ClaimError<V>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V>,
    {
        let init = || async { Ok::<V, Infallible>(init().await) };
        self.get_or_try_init(key, init)
            .await
            .map_err(|error| match error {
                InitError::Claim(error) => error,
                InitError::Init(never) => match never {},
            })
    }

    /// The same as [`get_or_init`](Self::get_or_init) with an initialiser that can fail. If it
    /// does, nothing is offered, and another call may try.
    ///
    /// # Errors
    ///
    /// [`InitError::Init`] with the initialiser's error, or [`InitError::Claim`] with one of
    /// [`get_or_init`](Self::get_or_init).
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_init`](Self::get_or_init).
    pub async fn get_or_try_init<E, F, Fut>(&self, key: K, init: F) -> Result<V, InitError<V, E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        // What is known already needs neither a turn nor a majority.
        match self.get(&key).await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) | Err(ReadError::Offline) => {}
            // A key that no slot has is refused where its value can be handed back.
            Err(ReadError::Key(_)) => {}
            Err(error) => return Err(not_run(error)),
        }
        let turn = self.turn(&key);
        let waiting = self.hold().unless_down(turn.lock());
        let _one_at_a_time = match waiting.await {
            Ok(guard) => guard,
            Err(error) => return Err(not_run(error.into())),
        };
        match self.record_now(&key).await {
            Ok(Some(record)) => return decoded(&record),
            Ok(None) | Err(ReadError::Key(_)) => {}
            Err(error) => return Err(not_run(error)),
        }
        let mut pending = Pending::from(init().await.map_err(InitError::Init)?);
        let offered = match slot_of(&key) {
            Ok(slot) => self.offer(slot, &mut pending).await,
            Err(error) => Err(OfferError::Encoding(error)),
        };
        match offered {
            Ok((_, true)) => Ok(pending.into_value()),
            Ok((record, false)) => decoded(&record),
            Err(error) => Err(InitError::Claim(failed(error, pending))),
        }
    }

    /// The lock of those who initialise this slot through this handle.
    fn turn(&self, key: &K) -> Arc<tokio::sync::Mutex<()>> {
        let mut slot = Slot::new();
        key.encode(&mut slot);
        let turns = self.shared.initialising.lock();
        let mut turns = turns.unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        match turns.entry(slot) {
            Entry::Occupied(mut known) => known.get().upgrade().unwrap_or_else(|| {
                let turn = Arc::default();
                known.insert(Arc::downgrade(&turn));
                turn
            }),
            Entry::Vacant(vacant) => {
                let turn = Arc::default();
                vacant.insert(Arc::downgrade(&turn));
                turn
            }
        }
    }

    /// Offers what is pending for a slot, and returns the slot's record and whether it is this
    /// offer's: exactly if it carries the offer's id, which no other offer has.
    async fn offer(
        &self,
        slot: Slot,
        pending: &mut Pending<V>,
    ) -> Result<(Arc<Record>, bool), OfferError> {
        let group = self.hold().view().group;
        let offer = pending.offer_to(group, slot, |value| self.propose(value));
        let offer = offer.map_err(OfferError::Encoding)?;
        let reply = self.hold().propose(offer.command()).await;
        match reply.map_err(OfferError::NoAnswer)?.record {
            Some(record) => {
                let is_ours = record.proposal.id == offer.id();
                Ok((record, is_ours))
            }
            // A reply without a record contradicts the machine; unclear is what it is.
            None => Err(OfferError::NoAnswer(NoAnswer::Offline)),
        }
    }

    /// A new proposal of `value`.
    fn propose(&self, value: &V) -> Result<Proposal, EncodeError> {
        let bytes = encode_value(value, self.shared.config.bytes_max())?;
        Ok(self.hold().proposal(bytes))
    }
}

fn decoded<V: DeserializeOwned, E>(record: &Record) -> Result<V, InitError<V, E>> {
    value_of(record).map_err(|error| InitError::Claim(ClaimError::Decode(error)))
}

fn failed<V>(error: OfferError, pending: Pending<V>) -> ClaimError<V> {
    match error {
        OfferError::NoAnswer(NoAnswer::Offline) => ClaimError::Offline(pending),
        OfferError::NoAnswer(NoAnswer::NetworkDown) => ClaimError::NetworkDown,
        OfferError::Encoding(error) => ClaimError::Encoding(pending.into_value(), error),
    }
}

fn not_run<V, E>(error: ReadError) -> InitError<V, E> {
    InitError::Claim(match error {
        ReadError::NetworkDown => ClaimError::NetworkDown,
        ReadError::Decode(error) => ClaimError::Decode(error),
        ReadError::Offline | ReadError::Key(_) => ClaimError::Unreached,
    })
}
