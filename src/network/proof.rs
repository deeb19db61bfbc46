//! The proof that a node holds the key of its kind, bound to one connection.

use std::fmt;

use super::secret::{Secret, length_prefixed};
use crate::codec::{Decode, Encode};
use crate::probe::{Bug, planted};

const CONTEXT: &[u8] = b"raft-once admission proof v1";

/// As what a node asks to be admitted. The numbers are on the wire for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It holds the secret, and its TLS key is that of a voter.
    Voter,
    /// It holds the observer key.
    Observer,
}

impl Kind {
    pub(crate) const fn as_u8(self) -> u8 {
        match self {
            Self::Voter => 1,
            Self::Observer => 2,
        }
    }

    pub(crate) const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Voter),
            2 => Some(Self::Observer),
            _ => None,
        }
    }
}

/// Which side of a connection a node is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Dialer,
    Acceptor,
}

/// What both ends of one connection know of it, and nobody else can arrange for another one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    /// TLS keying material exported on this connection.
    pub(crate) exported: [u8; 32],
    /// The TLS key of the dialer.
    pub(crate) dialer: [u8; 32],
    /// The TLS key of the acceptor.
    pub(crate) acceptor: [u8; 32],
}

/// The keys that this node can prove things with.
#[derive(Clone)]
pub(crate) struct AdmissionKeys {
    /// `None` on a node that joined with a ticket.
    voter: Option<[u8; 32]>,
    observer: [u8; 32],
}

impl AdmissionKeys {
    /// The keys of a node that has the secret.
    pub(crate) fn of_secret(secret: &Secret, network: &str) -> Self {
        Self {
            voter: Some(secret.voter_admission_key(network)),
            observer: secret.observer_key(network),
        }
    }

    /// The keys of a node that has a ticket.
    pub(crate) const fn of_observer_key(observer: [u8; 32]) -> Self {
        Self {
            voter: None,
            observer,
        }
    }

    /// The proof that `role` gives on this connection, or `None` if this node lacks the key.
    pub(crate) fn prove(&self, kind: Kind, role: Role, binding: &Binding) -> Option<Proof> {
        let hash = self.expected(kind, role, binding)?;
        Some(Proof(*hash.as_bytes()))
    }

    /// Whether `proof` is the one that `role` must give on this connection.
    pub(crate) fn verify(&self, proof: &Proof, kind: Kind, role: Role, binding: &Binding) -> bool {
        match self.expected(kind, role, binding) {
            // Comparison of `blake3::Hash` takes the same time whatever differs.
            Some(expected) => expected == blake3::Hash::from_bytes(proof.0),
            None => false,
        }
    }

    /// The role is inside, so that a proof cannot be sent back to the one who made it.
    fn expected(&self, kind: Kind, role: Role, binding: &Binding) -> Option<blake3::Hash> {
        let key = match kind {
            Kind::Voter => self.voter.as_ref()?,
            Kind::Observer => &self.observer,
        };
        let role = match role {
            Role::Acceptor if !planted(Bug::ProofReflected) => 2,
            Role::Dialer | Role::Acceptor => 1,
        };
        let message = length_prefixed(&[
            CONTEXT,
            &[role],
            &binding.exported,
            &binding.dialer,
            &binding.acceptor,
            &[kind.as_u8()],
        ]);
        Some(blake3::keyed_hash(key, &message))
    }
}

impl fmt::Debug for AdmissionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdmissionKeys(..)")
    }
}

/// Good for one role on one connection only. Compared by [`AdmissionKeys::verify`] alone.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct Proof(pub(crate) [u8; 32]);

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> AdmissionKeys {
        AdmissionKeys::of_secret(
            &Secret::try_from("correct horse battery").unwrap(),
            "orders",
        )
    }

    fn binding() -> Binding {
        Binding {
            exported: [1; 32],
            dialer: [2; 32],
            acceptor: [3; 32],
        }
    }

    /// Fixtures kept for ever: nodes of other versions must admit each other.
    #[test]
    fn proofs_never_change() {
        let text = |kind, role| {
            let proof = keys().prove(kind, role, &binding()).unwrap();
            blake3::Hash::from_bytes(proof.0).to_string()
        };
        assert_eq!(
            text(Kind::Voter, Role::Dialer),
            "65fd7c28b0a579a5703d083d11f65eba62bfb47d221a49e433a443d9616d78d2"
        );
        assert_eq!(
            text(Kind::Observer, Role::Acceptor),
            "9caccde0d1542de8560532d0107b4bc007bb4c62e33224175ad1ef6645cdfb1f"
        );
    }

    #[test]
    fn a_proof_holds_for_its_role_kind_and_connection_only() {
        let keys = keys();
        let proof = keys.prove(Kind::Voter, Role::Dialer, &binding()).unwrap();
        assert!(keys.verify(&proof, Kind::Voter, Role::Dialer, &binding()));
        // Reflected to its maker.
        assert!(!keys.verify(&proof, Kind::Voter, Role::Acceptor, &binding()));
        assert!(!keys.verify(&proof, Kind::Observer, Role::Dialer, &binding()));
        // Replayed on another connection, by or to somebody else, or with the ends exchanged.
        let other = [9; 32];
        for replay in [
            Binding {
                exported: other,
                ..binding()
            },
            Binding {
                dialer: other,
                ..binding()
            },
            Binding {
                acceptor: other,
                ..binding()
            },
            Binding {
                dialer: [3; 32],
                acceptor: [2; 32],
                ..binding()
            },
        ] {
            assert!(!keys.verify(&proof, Kind::Voter, Role::Dialer, &replay));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_proof_is_noticed() {
        let keys = keys();
        let proof = keys.prove(Kind::Voter, Role::Dialer, &binding()).unwrap();
        for bit in 0..256 {
            let mut flipped = proof.clone();
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!keys.verify(&flipped, Kind::Voter, Role::Dialer, &binding()));
        }
    }

    #[test]
    fn another_secret_or_network_proves_nothing() {
        let secret = Secret::try_from("correct horse battery").unwrap();
        let other = Secret::try_from("incorrect horse battery").unwrap();
        for stranger in [
            AdmissionKeys::of_secret(&secret, "order"),
            AdmissionKeys::of_secret(&other, "orders"),
        ] {
            for kind in [Kind::Voter, Kind::Observer] {
                let proof = stranger.prove(kind, Role::Dialer, &binding()).unwrap();
                assert!(!keys().verify(&proof, kind, Role::Dialer, &binding()));
            }
        }
    }

    #[test]
    fn an_observer_key_proves_an_observer_and_never_a_voter() {
        let secret = Secret::try_from("correct horse battery").unwrap();
        let ticket = AdmissionKeys::of_observer_key(secret.observer_key("orders"));
        assert!(
            ticket
                .prove(Kind::Voter, Role::Dialer, &binding())
                .is_none()
        );
        let proof = ticket
            .prove(Kind::Observer, Role::Dialer, &binding())
            .unwrap();
        assert!(keys().verify(&proof, Kind::Observer, Role::Dialer, &binding()));
        assert!(!keys().verify(&proof, Kind::Voter, Role::Dialer, &binding()));
        assert!(!ticket.verify(&proof, Kind::Voter, Role::Dialer, &binding()));
        assert_eq!(format!("{ticket:?}"), "AdmissionKeys(..)");
    }
}
