//! Why a link is refused, and what to do about it.

use std::fmt;

use crate::codec::{Decode, Encode};

/// Why a node is not admitted.
///
/// A peer that proved nothing hears only [`Refusal::WrongSecret`]. On the wire: variants are
/// only ever appended, so that other versions can read the refusal that concerns them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Refusal {
    /// The proof is not that of this network's secret.
    WrongSecret,
    /// The frame has a format version that the refusing node does not know.
    UnknownVersion { found: u8, known: u8 },
    /// The frame is proven, but makes no sense.
    Malformed(String),
    /// It proved the secret as a voter, but its TLS key is not that of a voter.
    NotAVoter,
    /// It has another epoch of the electorate.
    Epoch { theirs: u32, ours: u32 },
    /// It has another electorate. These are the names in that of the refusing node.
    ElectorateDiffers { ours: Vec<String> },
    /// Its disk forgot what the refusing node remembers of it.
    LostItsPast { reason: String, remedy: String },
    /// The refusing node has as many links as it allows.
    Crowded { links_max: u32 },
    /// The refusing node cannot judge at the moment.
    NotReady,
}

impl Refusal {
    /// Whether the same two nodes may agree later with no change to either.
    pub(crate) const fn is_transient(&self) -> bool {
        matches!(self, Self::Crowded { .. } | Self::NotReady)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongSecret => write!(
                f,
                "the secret or the name of the network differs; \
                 give all nodes the same ones, or an observer a new ticket"
            ),
            Self::UnknownVersion { found, known } => write!(
                f,
                "the refused node speaks format version {found}, the refusing one {known}; \
                 run the same version of raft-once on both"
            ),
            Self::Malformed(reason) => write!(
                f,
                "the refusing node could not make sense of the hello ({reason}); \
                 run the same version of raft-once on both"
            ),
            Self::NotAVoter => write!(
                f,
                "the refused node asks to vote, but its key is not that of a voter; \
                 start it under a name in the electorate, or as an observer"
            ),
            Self::Epoch { theirs, ours } => write!(
                f,
                "the refused node has epoch {theirs} of the electorate, the refusing one {ours}; \
                 give all nodes the newest electorate, or an observer a new ticket"
            ),
            Self::ElectorateDiffers { ours } => write!(
                f,
                "the electorates differ: that of the refusing node is {}; \
                 give all nodes the same names (order and addresses do not matter), \
                 or an observer a new ticket",
                ours.join(", ")
            ),
            Self::LostItsPast { reason, remedy } => {
                write!(f, "the refused node lost its past: {reason}; {remedy}")
            }
            Self::Crowded { links_max } => write!(
                f,
                "the refusing node has {links_max} links and allows no more; \
                 let fewer observers run; until then the link is tried again"
            ),
            Self::NotReady => write!(
                f,
                "the refusing node is not ready yet; nothing to do, the link is tried again"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        let lost = Refusal::LostItsPast {
            reason: "its disk was wiped".into(),
            remedy: "stop that voter".into(),
        };
        let names = vec!["a".to_owned(), "b".into(), "c".into()];
        for (refusal, what, transient) in [
            (Refusal::WrongSecret, "give all nodes the same", false),
            (
                Refusal::UnknownVersion { found: 2, known: 1 },
                "run the same version",
                false,
            ),
            (
                Refusal::Malformed("x".into()),
                "run the same version",
                false,
            ),
            (
                Refusal::NotAVoter,
                "start it under a name in the electorate",
                false,
            ),
            (
                Refusal::Epoch { theirs: 1, ours: 2 },
                "the newest electorate",
                false,
            ),
            (
                Refusal::ElectorateDiffers { ours: names },
                "is a, b, c; give all nodes",
                false,
            ),
            (lost, "wiped; stop that voter", false),
            (
                Refusal::Crowded { links_max: 9 },
                "let fewer observers run",
                true,
            ),
            (Refusal::NotReady, "tried again", true),
        ] {
            let text = refusal.to_string();
            assert!(text.contains(what), "{text}");
            assert_eq!(refusal.is_transient(), transient, "{text}");
        }
    }
}
