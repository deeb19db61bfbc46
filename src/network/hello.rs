//! Admission: what two nodes tell each other before anything else, as pure functions.
//!
//! After the QUIC handshake the dialer sends [`Hello`] and the acceptor answers [`Welcome`] or a
//! refusal; the dialer sends [`Confirm`] and the acceptor answers [`Admitted`] or a refusal.
//! The dialer proves itself first, and until it has, the acceptor tells it nothing but
//! [`Refusal::WrongSecret`].
//!
//! `Confirm` also says that the dialer has judged the acceptor's past and keeps it on its disk,
//! `Admitted` the same of the dialer's: each may then count the other as one that never knew
//! another incarnation of it.

use std::collections::BTreeMap;

use super::electorate::Electorate;
use super::past::{BOOTS_MAX, Boot, Claim, Memory};
use super::proof::{AdmissionKeys, Binding, Kind, Proof, Role};
use super::refusal::Refusal;
use super::secret::Secret;
use crate::codec::{self, Decode, Encode, MalformedError};
use crate::id::NodeId;

/// The version of the bodies below. The first 33 bytes of a hello and the form of a refusal are
/// the same in all versions, so that versions can refuse each other in words.
pub(crate) const HELLO_VERSION: u8 = 2;

const REFUSAL_VERSION: u8 = 1;

/// The longest hello: what an unproven peer may make a node read, in bytes.
pub(crate) const HELLO_BYTES_MAX: usize = 512;

/// The longest of the other three frames, in bytes: all starts, an id and a number each, and some.
pub(crate) const ADMISSION_BYTES_MAX: usize = BOOTS_MAX * (16 + 9) + 4096;

/// The command variants that this build understands, a bit each. New ones are proposed only
/// after all voters announced them.
pub(crate) const FEATURES: u64 = 1;

/// What both sides must agree about, and the keys to prove that they may.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) keys: AdmissionKeys,
    pub(crate) epoch: u32,
    /// [`Electorate::digest`].
    pub(crate) digest: [u8; 32],
    /// The names that a proven peer with another digest is told.
    pub(crate) names: Vec<String>,
}

impl Terms {
    pub(crate) fn new(
        keys: AdmissionKeys,
        epoch: u32,
        network: &str,
        electorate: &Electorate,
    ) -> Self {
        let names = electorate.names().into_iter();
        Self {
            keys,
            epoch,
            digest: electorate.digest(network),
            names: names.map(str::to_owned).collect(),
        }
    }

    /// The order matters: the epoch first, since electorates of two epochs differ by nature.
    fn agree(&self, epoch: u32, digest: &[u8; 32]) -> Result<(), Refusal> {
        if epoch != self.epoch {
            return Err(Refusal::Epoch {
                theirs: epoch,
                ours: self.epoch,
            });
        }
        if *digest != self.digest {
            return Err(Refusal::ElectorateDiffers {
                ours: self.names.clone(),
            });
        }
        Ok(())
    }
}

/// The seeds of the ed25519 keys that the electorate prescribes for its voters.
pub(crate) fn expected_keys(
    electorate: &Electorate,
    secret: &Secret,
    network: &str,
) -> BTreeMap<NodeId, [u8; 32]> {
    let voters = electorate.voters().iter();
    voters
        .map(|voter| (voter.id, secret.voter_key_seed(network, &voter.name)))
        .collect()
}

/// The dialer's opening. On the wire: the kind (1 byte) and the proof (32 bytes), the same in
/// all versions, and behind them the versioned body.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub(crate) kind: Kind,
    pub(crate) proof: Proof,
    pub(crate) body: HelloBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct HelloBody {
    pub(crate) epoch: u32,
    pub(crate) digest: [u8; 32],
    /// The command variants that the sender understands.
    pub(crate) features: u64,
    /// What the sender says about its store. A voter has one, an observer none.
    pub(crate) past: Option<Claim>,
    /// What the sender remembers of the receiver.
    pub(crate) remembers: Option<Memory>,
}

impl Hello {
    /// The hello of a node on this connection, or `None` if it lacks the key of its kind.
    pub(crate) fn new(
        terms: &Terms,
        kind: Kind,
        binding: &Binding,
        past: Option<Claim>,
        remembers: Option<Memory>,
    ) -> Option<Self> {
        Some(Self {
            kind,
            proof: terms.keys.prove(kind, Role::Dialer, binding)?,
            body: HelloBody {
                epoch: terms.epoch,
                digest: terms.digest,
                features: FEATURES,
                past,
                remembers,
            },
        })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind.as_u8()];
        bytes.extend_from_slice(&self.proof.0);
        bytes.extend_from_slice(&codec::encode(HELLO_VERSION, &self.body));
        bytes
    }

    /// What the acceptor does with the first frame of a connection. Of the dialer it knows
    /// `binding`, and `voter`: which voter the dialer's TLS key belongs to, if any.
    ///
    /// The proof is verified before anything behind it is looked at. Judging the past is left to
    /// [`judge`](super::past::judge) when [`Confirm`] has come.
    pub(crate) fn admit(
        bytes: &[u8],
        terms: &Terms,
        binding: &Binding,
        voter: Option<NodeId>,
    ) -> Result<Self, Refusal> {
        if bytes.len() > HELLO_BYTES_MAX {
            return Err(Refusal::WrongSecret);
        }
        let (kind, rest) = bytes.split_first().ok_or(Refusal::WrongSecret)?;
        let kind = Kind::from_u8(*kind).ok_or(Refusal::WrongSecret)?;
        let (proof, body) = rest.split_first_chunk::<32>().ok_or(Refusal::WrongSecret)?;
        let proof = Proof(*proof);
        if !terms.keys.verify(&proof, kind, Role::Dialer, binding) {
            return Err(Refusal::WrongSecret);
        }
        if kind == Kind::Voter && voter.is_none() {
            return Err(Refusal::NotAVoter);
        }
        let body: HelloBody = codec::decode(HELLO_VERSION, body).map_err(refusal_of)?;
        terms.agree(body.epoch, &body.digest)?;
        check_past(kind, body.past.is_some(), body.remembers.is_some())?;
        Ok(Self { kind, proof, body })
    }
}

/// The acceptor's answer to a hello.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct Welcome {
    pub(crate) proof: Proof,
    pub(crate) epoch: u32,
    pub(crate) digest: [u8; 32],
    pub(crate) features: u64,
    /// What the acceptor says about its store; to an observer nothing.
    pub(crate) past: Option<Claim>,
    /// What the acceptor remembers of the dialer.
    pub(crate) remembers: Option<Memory>,
    /// The acceptor's starts after the one that the dialer remembers; `None` when that one is
    /// not in its list. To an observer `None`.
    pub(crate) boots: Option<Vec<Boot>>,
}

impl Welcome {
    /// The answer to a hello of this `kind`, or `None` if the acceptor lacks the key.
    pub(crate) fn new(
        terms: &Terms,
        kind: Kind,
        binding: &Binding,
        past: Option<Claim>,
        remembers: Option<Memory>,
        boots: Option<Vec<Boot>>,
    ) -> Option<Self> {
        Some(Self {
            proof: terms.keys.prove(kind, Role::Acceptor, binding)?,
            epoch: terms.epoch,
            digest: terms.digest,
            features: FEATURES,
            past,
            remembers,
            boots,
        })
    }

    /// What the dialer checks before it confirms. That the acceptor's TLS key is that of the
    /// voter it dialed has been settled by the QUIC handshake.
    pub(crate) fn check(
        &self,
        terms: &Terms,
        kind: Kind,
        binding: &Binding,
    ) -> Result<(), Refusal> {
        if !terms
            .keys
            .verify(&self.proof, kind, Role::Acceptor, binding)
        {
            return Err(Refusal::WrongSecret);
        }
        terms.agree(self.epoch, &self.digest)?;
        check_past(kind, self.past.is_some(), self.remembers.is_some())?;
        check_boots(self.boots.as_deref())
    }
}

/// The dialer's second frame: it has judged the acceptor's past.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Confirm {
    /// The dialer's durable sequence number, read after the welcome came: the one in the hello
    /// may be older than what the acceptor has heard since. An observer sends 0.
    pub(crate) sequence: u64,
    /// The dialer's starts after the one that the acceptor remembers; `None` when that one is
    /// not in its list. An observer sends `None`.
    pub(crate) boots: Option<Vec<Boot>>,
}

impl Confirm {
    /// The dialer's claim as of now, to be judged.
    pub(crate) fn claim(&self, hello: &Claim) -> Claim {
        Claim {
            sequence: self.sequence,
            ..hello.clone()
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        codec::encode(HELLO_VERSION, self)
    }

    /// What the acceptor does with the second frame of a connection.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        check_length(bytes).map_err(refusal_of)?;
        let confirm: Self = codec::decode(HELLO_VERSION, bytes).map_err(refusal_of)?;
        check_boots(confirm.boots.as_deref())?;
        Ok(confirm)
    }
}

/// The acceptor's last word: it has judged the dialer's past, and the link is open.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Admitted;

/// An answer of the acceptor as bytes: a zero and the versioned body, or a one and the refusal.
pub(crate) fn answer_to_bytes<T: Encode>(answer: &Result<T, Refusal>) -> Vec<u8> {
    let (tag, body) = match answer {
        Ok(body) => (0, codec::encode(HELLO_VERSION, body)),
        Err(refusal) => (1, codec::encode(REFUSAL_VERSION, refusal)),
    };
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&body);
    bytes
}

/// An answer of the acceptor: its body, or its refusal.
pub(crate) fn answer_from_bytes<T: Decode<()>>(
    bytes: &[u8],
) -> Result<Result<T, Refusal>, MalformedError> {
    check_length(bytes)?;
    let (tag, body) = bytes.split_first().ok_or(MalformedError::Empty)?;
    match tag {
        0 => codec::decode(HELLO_VERSION, body).map(Ok),
        1 => codec::decode(REFUSAL_VERSION, body).map(Err),
        other => Err(MalformedError::Body(format!("an answer of kind {other}"))),
    }
}

fn check_length(bytes: &[u8]) -> Result<(), MalformedError> {
    if bytes.len() > ADMISSION_BYTES_MAX {
        let reason = format!(
            "{} bytes, at most {ADMISSION_BYTES_MAX} allowed",
            bytes.len()
        );
        return Err(MalformedError::Body(reason));
    }
    Ok(())
}

fn refusal_of(error: MalformedError) -> Refusal {
    match error {
        MalformedError::Version { found, known } => Refusal::UnknownVersion { found, known },
        other => Refusal::Malformed(other.to_string()),
    }
}

/// Voters have a past, and observers neither have one nor are remembered.
fn check_past(kind: Kind, past: bool, remembers: bool) -> Result<(), Refusal> {
    match (kind, past, remembers) {
        (Kind::Voter, true, _) | (Kind::Observer, false, false) => Ok(()),
        (Kind::Voter, false, _) => Err(Refusal::Malformed("a voter without a past".into())),
        (Kind::Observer, ..) => Err(Refusal::Malformed("an observer with a past".into())),
    }
}

fn check_boots(boots: Option<&[Boot]>) -> Result<(), Refusal> {
    match boots {
        Some(boots) if boots.len() > BOOTS_MAX => {
            Err(Refusal::Malformed(format!("{} starts", boots.len())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
