//! Frames of admission, pages of voters and texts, at random: every variant of every type.

use rand::RngExt;
use rand::rngs::StdRng;

use super::electorate::Electorate;
use super::fuzzing::{Scene, scene};
use super::hello::{Confirm, Hello, Welcome};
use super::past::{Claim, Memory, Myself, Peer};
use super::proof::Kind;
use super::refusal::Refusal;
use super::ticket::Ticket;
use crate::group::generate::{bytes, maybe, number};
use crate::id::NodeId;

/// Few, so that they are met again.
fn id(rng: &mut StdRng) -> [u8; 16] {
    [rng.random_range(0..4); 16]
}

fn text(rng: &mut StdRng) -> String {
    String::from_utf8_lossy(&bytes(rng, 30)).into_owned()
}

fn claim(rng: &mut StdRng) -> Claim {
    Claim {
        incarnation: id(rng),
        boot: id(rng),
        sequence: number(rng),
        empty: rng.random(),
    }
}

fn memory(rng: &mut StdRng) -> Memory {
    Memory {
        incarnation: id(rng),
        boot: id(rng),
    }
}

pub(crate) fn peer(rng: &mut StdRng) -> Peer {
    Peer {
        incarnation: id(rng),
        boot: id(rng),
        sequence: number(rng),
        refused: maybe(rng, text),
    }
}

/// The past of a voter that was started a few times.
pub(crate) fn myself(rng: &mut StdRng) -> Myself {
    let mut myself = Myself::new(id(rng), id(rng));
    for _ in 0..rng.random_range(0..5) {
        myself.start(id(rng), rng.random());
        if rng.random() {
            myself.qualify(NodeId::of_voter(["a", "b", "c"][rng.random_range(0..3)]));
        }
    }
    myself
}

pub(crate) fn kind(rng: &mut StdRng) -> Kind {
    [Kind::Voter, Kind::Observer][rng.random_range(0..2)]
}

/// A hello that is admitted.
pub(crate) fn hello(rng: &mut StdRng, kind: Kind) -> Hello {
    let Scene { terms, binding, .. } = scene();
    let (past, remembers) = match kind {
        Kind::Voter => (Some(claim(rng)), maybe(rng, memory)),
        Kind::Observer => (None, None),
    };
    Hello::new(terms, kind, binding, past, remembers).unwrap()
}

/// A welcome that is taken.
pub(crate) fn welcome(rng: &mut StdRng, kind: Kind) -> Welcome {
    let Scene { terms, binding, .. } = scene();
    let myself = myself(rng);
    let (past, remembers, boots) = match kind {
        Kind::Voter => {
            let memory = memory(rng);
            let boots = myself.boots_since(Some(&memory));
            (Some(claim(rng)), Some(memory), boots)
        }
        Kind::Observer => (None, None, None),
    };
    Welcome::new(terms, kind, binding, past, remembers, boots).unwrap()
}

pub(crate) fn confirm(rng: &mut StdRng) -> Confirm {
    let myself = myself(rng);
    Confirm {
        sequence: number(rng),
        boots: myself.boots_since(maybe(rng, memory).as_ref()),
    }
}

pub(crate) const REFUSALS: usize = 9;

pub(crate) fn kind_of_refusal(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::WrongSecret => 0,
        Refusal::UnknownVersion { .. } => 1,
        Refusal::Malformed(_) => 2,
        Refusal::NotAVoter => 3,
        Refusal::Epoch { .. } => 4,
        Refusal::ElectorateDiffers { .. } => 5,
        Refusal::LostItsPast { .. } => 6,
        Refusal::Crowded { .. } => 7,
        Refusal::NotReady => 8,
    }
}

pub(crate) fn refusal(rng: &mut StdRng) -> Refusal {
    match rng.random_range(0..REFUSALS) {
        0 => Refusal::WrongSecret,
        1 => Refusal::UnknownVersion {
            found: rng.random(),
            known: rng.random(),
        },
        2 => Refusal::Malformed(text(rng)),
        3 => Refusal::NotAVoter,
        4 => Refusal::Epoch {
            theirs: rng.random(),
            ours: rng.random(),
        },
        5 => Refusal::ElectorateDiffers {
            ours: (0..rng.random_range(0..6)).map(|_| text(rng)).collect(),
        },
        6 => Refusal::LostItsPast {
            reason: text(rng),
            remedy: text(rng),
        },
        7 => Refusal::Crowded {
            links_max: rng.random(),
        },
        _ => Refusal::NotReady,
    }
}

pub(crate) fn electorate(rng: &mut StdRng) -> Electorate {
    let count = [1, 3, 5][rng.random_range(0..3)];
    let voters = (0..count).map(|n| {
        let host = ["10.0.0.1", "host-a", "Example.org.", "[::1]"][rng.random_range(0..4)];
        (format!("voter {n}"), format!("{host}:{}", 7400 + n))
    });
    Electorate::new(voters.collect()).unwrap()
}

pub(crate) fn ticket(rng: &mut StdRng) -> Ticket {
    let key = |name: &str| *blake3::hash(name.as_bytes()).as_bytes();
    let network = "n".repeat(rng.random_range(1..=64));
    Ticket::new(&network, rng.random(), rng.random(), &electorate(rng), key).unwrap()
}

/// The content of a ticket, without its checksum and its text form.
pub(crate) fn ticket_content(rng: &mut StdRng) -> Vec<u8> {
    ticket(rng).encode(1)
}

/// The page that says whose disk it is: most often that of the voter that looks.
pub(crate) fn owner(rng: &mut StdRng) -> Vec<u8> {
    let voter = ["a", "a", "b"][rng.random_range(0..3)];
    let names = ["a", "b", "c"].map(String::from).to_vec();
    crate::codec::encode(1, &("n".to_owned(), voter.to_owned(), names, 0_u32))
}
