//! What only writers do.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use serde::Serialize;

use crate::codec::{DecodeError, EncodeError, encode_value};
use crate::id::Version;
use crate::machine::{Command, Proposal, Record, Slot};
use crate::probe::{Bug, planted};

use super::claim::{Claim, Pending};
use super::error::{ClaimError, Error, InitError};
use super::hold::NoAnswer;
use super::{Once, WRITER};

/// Why an offer came to nothing.
enum OfferError {
    NoAnswer(NoAnswer),
    Encoding(EncodeError),
}

impl<T> Once<T, WRITER>
where
    T: Clone + Serialize,
{
    /// Offers a value. The first one that is committed is the cell's value for good; all later
    /// ones are ignored.
    ///
    /// Returns the version at which the write was committed, **also if it was ignored**: the
    /// version advances, the value does not change. To learn whether the value won, use
    /// [`claim`](Self::claim). When this returns, [`read`](Once::read) on this handle and its
    /// clones sees the cell's value.
    ///
    /// ```
    /// # use raft_once::{Network, Once};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let once = Once::<String>::writer(&network, "config-seed");
    ///
    /// let first = once.write("genesis".into()).await?;
    /// let second = once.write("overwrite-attempt".into()).await?;
    /// assert!(second > first);
    /// assert_eq!(once.read(), Some("genesis".into()));
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Offline`] hands the value back when the write could not be confirmed within the
    /// network's write timeout; it may still win. [`Error::Encoding`] hands it back when it cannot
    /// be encoded or is too large. [`Error::NetworkDown`] after shutdown.
    ///
    /// # Cancel safety
    ///
    /// A dropped write may still be committed, and win. Nothing else is left half done.
    pub async fn write(&self, value: T) -> Result<Version, Error<T>> {
        if self.cell.is_down() {
            return Err(Error::NetworkDown);
        }
        let proposal = match self.propose(&value) {
            Ok(proposal) => proposal,
            Err(error) => return Err(Error::Encoding(value, error)),
        };
        let (id, slot) = (proposal.id, Slot::new());
        let command = match self.cell.view().record() {
            // Nothing but the version can change any more: spare the log the value.
            Some(_) => Command::Touch { slot, id },
            None => Command::Set { slot, proposal },
        };
        let answer = self.cell.propose(command).await;
        match (answer, self.cell.view().record()) {
            (Ok(reply), _) => Ok(reply.version),
            // The answer was lost, but the value is there.
            (Err(_), Some(record)) if record.proposal.id == id => Ok(record.version),
            (Err(NoAnswer::Offline), _) if planted(Bug::UnclearAcknowledged) => {
                Ok(Version::new(self.version().as_u64() + 1))
            }
            (Err(NoAnswer::Offline), _) => Err(Error::Offline(value)),
            (Err(NoAnswer::NetworkDown), _) => Err(Error::NetworkDown),
        }
    }

    /// The same as [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    ///
    /// # Cancel safety
    ///
    /// As [`write`](Self::write).
    pub async fn set(&self, value: T) -> Result<Version, Error<T>> {
        self.write(value).await
    }

    /// Offers a value and learns whether it won: one claim on a cell is told [`Claim::Won`], all
    /// others [`Claim::Lost`] with the winner's value.
    ///
    /// Won is won: a claimant that is told so did decide the cell, at most one ever is, and a retry
    /// of its [`Pending`] is told so again. Not the other way round: a claimant that was told
    /// nothing may have won. If that is this process, retry the `Pending`; if it has crashed, the
    /// cell stays decided, and nobody will be told.
    ///
    /// A claim on a cell that is known to be decided is answered at once, without a message.
    ///
    /// ```
    /// # use raft_once::{Claim, Network, Once};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let leader = Once::<String>::writer(&network, "leader");
    ///
    /// assert!(leader.claim("alice".to_string()).await?.is_won());
    /// match leader.claim("bob".to_string()).await? {
    ///     Claim::Won(version) => println!("bob leads, fencing token {version}"),
    ///     Claim::Lost { winner, .. } => assert_eq!(winner, "alice"),
    /// }
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClaimError::Offline`] hands a [`Pending`] back when the claim could not be confirmed
    /// within the network's write timeout: it may still win, and claiming with that `Pending`
    /// again asks whether it did. [`ClaimError::Encoding`] hands the value back.
    /// [`ClaimError::Decode`] if the claim was lost to a value that is not a `T`.
    /// [`ClaimError::NetworkDown`] after shutdown.
    ///
    /// # Cancel safety
    ///
    /// A dropped claim may still win, and nobody is told then: drop it only if that does not
    /// matter. Nothing else is left half done.
    pub async fn claim(&self, value: impl Into<Pending<T>>) -> Result<Claim<T>, ClaimError<T>> {
        self.claim_pending(value.into()).await
    }

    async fn claim_pending(&self, mut pending: Pending<T>) -> Result<Claim<T>, ClaimError<T>> {
        let counts = &self.cell.network().directory().counts;
        let offered = self.offer(&mut pending).await;
        match &offered {
            Ok((_, true)) => counts.claims_won.one(),
            Ok((_, false)) => counts.claims_lost.one(),
            Err(OfferError::NoAnswer(NoAnswer::Offline)) => counts.claims_offline.one(),
            Err(_) => {}
        }
        match offered {
            Ok((record, true)) => Ok(Claim::Won(record.version)),
            Ok((record, _)) if planted(Bug::EveryoneWins) => Ok(Claim::Won(record.version)),
            Ok((record, false)) => match self.cell.decide(&record) {
                Ok(winner) => Ok(Claim::Lost {
                    winner: winner.clone(),
                    version: record.version,
                    offered: pending.into_value(),
                }),
                Err(error) => Err(ClaimError::Decode(error.clone())),
            },
            Err(error) => Err(failed(error, pending)),
        }
    }

    /// The cell's value; if it has none, `init` makes one and offers it.
    ///
    /// Every caller, on every node, gets the one value that won. The initialiser is not run if the
    /// cell has a value: before it is run, a majority of the voters is asked. Of concurrent calls
    /// on one handle and its clones at most one runs its initialiser at a time, the others wait
    /// for it. **On several nodes (or handles opened separately) several initialisers may run at
    /// the same time**, and all but one of their values are thrown away; only the value is
    /// decided once, not the running. To run something once, [`claim`](Self::claim) first.
    ///
    /// ```
    /// # use raft_once::{Network, Once};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let seed = Once::<u64>::writer(&network, "cluster-seed");
    ///
    /// assert_eq!(seed.get_or_init(async || 42).await?, &42);
    /// assert_eq!(seed.get_or_init(async || unreachable!()).await?, &42);
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClaimError::Unreached`] if it could not be asked in time whether the cell has a value:
    /// the initialiser was not run. Else as [`claim`](Self::claim): what the initialiser made is
    /// handed back. [`ClaimError::Decode`] if the cell's value is not a `T`.
    ///
    /// # Cancel safety
    ///
    /// A dropped call drops the initialiser's future where it stands; what it had offered may
    /// still win. Another waiting call goes on with its own initialiser. A call that only waits is
    /// cancel safe.
    ///
    /// An initialiser that initialises the same handle waits for itself for ever.
    pub async fn get_or_init<F, Fut>(&self, init: F) -> Result<&T, ClaimError<T>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = T>,
    {
        let init = || async { Ok::<T, Infallible>(init().await) };
        self.get_or_try_init(init)
            .await
            .map_err(|error| match error {
                InitError::Claim(error) => error,
                InitError::Init(never) => match never {},
            })
    }

    /// The same as [`get_or_init`](Self::get_or_init) with an initialiser that can fail. If it
    /// does, nothing is offered, and another call may try.
    ///
    /// ```
    /// # use raft_once::{InitError, Network, Once};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = Network::new("demo").await?;
    /// let port = Once::<u16>::writer(&network, "port");
    ///
    /// let failed = port.get_or_try_init(async || "http".parse()).await;
    /// assert!(matches!(failed, Err(InitError::Init(_))));
    /// assert_eq!(port.get_or_try_init(async || "80".parse()).await?, &80);
    /// # network.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InitError::Init`] with the initialiser's error, or [`InitError::Claim`] with one of
    /// [`get_or_init`](Self::get_or_init).
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_init`](Self::get_or_init).
    pub async fn get_or_try_init<E, F, Fut>(&self, init: F) -> Result<&T, InitError<T, E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let cell = &*self.cell;
        if let Some(outcome) = cell.outcome() {
            return read(outcome);
        }
        let turn = async {
            tokio::select! {
                biased;
                outcome = cell.decided() => Err(outcome),
                guard = cell.initialising.lock() => Ok(guard),
            }
        };
        let _one_at_a_time = match cell.unless_down(turn).await {
            Ok(Ok(guard)) => guard,
            Ok(Err(outcome)) => return read(outcome),
            Err(error) => return Err(not_run(error)),
        };
        cell.barrier().await.map_err(not_run)?;
        if let Some(outcome) = cell.outcome() {
            return read(outcome);
        }
        let mut pending = Pending::from(init().await.map_err(InitError::Init)?);
        if planted(Bug::InitKeepsItsOwn)
            && let Ok(proposal) = self.propose(pending.value())
        {
            let version = Version::ZERO;
            return read(cell.decide(&Record { proposal, version }));
        }
        match self.offer(&mut pending).await {
            Ok((record, _)) => read(cell.decide(&record)),
            Err(error) => Err(InitError::Claim(failed(error, pending))),
        }
    }

    /// Offers what is pending, and returns the cell's record and whether it is this offer's.
    ///
    /// It is this offer's exactly if it carries the offer's id, which no other offer has; that is
    /// why a retry, and a look at a record that came some other way, have the same answer.
    async fn offer(&self, pending: &mut Pending<T>) -> Result<(Arc<Record>, bool), OfferError> {
        if self.cell.is_down() {
            return Err(OfferError::NoAnswer(NoAnswer::NetworkDown));
        }
        let group = self.cell.group();
        let offer = pending.offer_to(group, Slot::new(), |value| self.propose(value));
        let offer = offer.map_err(OfferError::Encoding)?;
        let answer = match self.cell.view().record() {
            Some(_) => Ok(()),
            None => self.cell.propose(offer.command()).await.map(drop),
        };
        match (self.cell.view().record(), answer) {
            (Some(record), _) => Ok((record.clone(), record.proposal.id == offer.id())),
            (None, Err(error)) => Err(OfferError::NoAnswer(error)),
            // A reply without a record contradicts the machine; unclear is what it is.
            (None, Ok(())) => Err(OfferError::NoAnswer(NoAnswer::Offline)),
        }
    }

    /// A new proposal of `value`.
    pub(super) fn propose(&self, value: &T) -> Result<Proposal, EncodeError> {
        let bytes = encode_value(value, self.cell.config.bytes_max())?;
        Ok(self.cell.hold().proposal(bytes))
    }
}

fn failed<T>(error: OfferError, pending: Pending<T>) -> ClaimError<T> {
    match error {
        OfferError::NoAnswer(NoAnswer::Offline) => ClaimError::Offline(pending),
        OfferError::NoAnswer(NoAnswer::NetworkDown) => ClaimError::NetworkDown,
        OfferError::Encoding(error) => ClaimError::Encoding(pending.into_value(), error),
    }
}

fn not_run<T, E>(error: NoAnswer) -> InitError<T, E> {
    InitError::Claim(match error {
        NoAnswer::Offline => ClaimError::Unreached,
        NoAnswer::NetworkDown => ClaimError::NetworkDown,
    })
}

fn read<'a, T, E>(outcome: Result<&'a T, &DecodeError>) -> Result<&'a T, InitError<T, E>> {
    outcome.map_err(|error| InitError::Claim(ClaimError::Decode(error.clone())))
}
