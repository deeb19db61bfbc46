//! Bytes from strangers, broken peers and rotten disks: every decoder refuses them or reads
//! them, and none panics. Seeded, so that a failure comes again.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::electorate::Electorate;
use super::hello::{Admitted, Confirm, Hello, Terms, Welcome, answer_from_bytes, answer_to_bytes};
use super::past::{Boot, Claim, Memory, Myself, Peer};
use super::proof::{AdmissionKeys, Binding, Kind};
use super::refusal::Refusal;
use super::secret::Secret;
use super::ticket::Ticket;
use crate::id::NodeId;

const ROUNDS: usize = 4_000;

fn random(rng: &mut StdRng) -> Vec<u8> {
    let length = rng.random_range(0..200);
    (0..length).map(|_| rng.random()).collect()
}

/// Flips, cuts, inserts, or writes a length that no frame has.
fn mutated(rng: &mut StdRng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..4) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, rng.random()),
            _ => {
                let length: u32 = rng.random();
                let claimed = [&[252][..], &length.to_le_bytes()].concat();
                bytes.splice(at..at, claimed);
            }
        }
    }
    bytes
}

fn samples() -> (Terms, Binding, Vec<Vec<u8>>) {
    let electorate = Electorate::new(vec![("a".into(), "h:1".into())]).unwrap();
    let secret = Secret::try_from("correct horse battery").unwrap();
    let keys = AdmissionKeys::of_secret(&secret, "n");
    let terms = Terms::new(keys, 0, "n", &electorate);
    let binding = Binding {
        exported: [1; 32],
        dialer: [2; 32],
        acceptor: [3; 32],
    };
    let claim = Claim {
        incarnation: [4; 16],
        boot: [5; 16],
        sequence: 6,
        empty: true,
    };
    let memory = Memory {
        incarnation: [4; 16],
        boot: [5; 16],
    };
    let (past, remembers) = (Some(claim.clone()), Some(memory));
    let hello = Hello::new(&terms, Kind::Voter, &binding, past, remembers).unwrap();
    let start = Boot {
        id: [5; 16],
        from: 9,
    };
    let boots = Some(vec![start; 3]);
    let past = Some(claim);
    let welcome = Welcome::new(
        &terms,
        Kind::Voter,
        &binding,
        past,
        remembers,
        boots.clone(),
    );
    let refusal = Refusal::ElectorateDiffers {
        ours: vec!["a".into(), "b".into()],
    };
    let peer = Peer {
        incarnation: [4; 16],
        boot: [5; 16],
        sequence: 6,
        refused: Some("why".into()),
    };
    let mut myself = Myself::new([4; 16], [5; 16]);
    myself.start([6; 16], 3);
    myself.qualify(NodeId::of_voter("b"));
    let ticket = Ticket::new("n", 0, [7; 32], &electorate, |_| [8; 32]).unwrap();
    let samples = vec![
        hello.to_bytes(),
        answer_to_bytes(&Ok(welcome.unwrap())),
        answer_to_bytes::<Welcome>(&Err(refusal)),
        answer_to_bytes(&Ok(Admitted)),
        Confirm { sequence: 6, boots }.to_bytes(),
        peer.to_bytes(),
        myself.to_bytes(),
        ticket.encode(1),
        ticket.to_string().into_bytes(),
    ];
    (terms, binding, samples)
}

fn offer(bytes: &[u8], terms: &Terms, binding: &Binding) {
    let voter = Some(NodeId::of_voter("a"));
    let _ = Hello::admit(bytes, terms, binding, voter);
    if let Ok(Ok(welcome)) = answer_from_bytes::<Welcome>(bytes) {
        let _ = welcome.check(terms, Kind::Voter, binding);
    }
    if let Ok(Err(refusal)) = answer_from_bytes::<Admitted>(bytes) {
        let _ = refusal.to_string();
    }
    let _ = Confirm::from_bytes(bytes);
    if let Ok(myself) = Myself::from_bytes(bytes) {
        let _ = myself.boot();
    }
    let _ = Peer::from_bytes(bytes);
    let _ = Secret::try_from(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<Ticket>();
    let _ = text.parse::<Secret>();
    let _ = Electorate::new(vec![(text.to_string(), text.to_string())]);
    let _ = Electorate::new(vec![("a".into(), text.into_owned())]);
}

#[test]
fn no_decoder_panics_on_random_bytes() {
    let mut rng = StdRng::seed_from_u64(1);
    let (terms, binding, _) = samples();
    for _ in 0..ROUNDS {
        offer(&random(&mut rng), &terms, &binding);
    }
}

#[test]
fn no_decoder_panics_on_damaged_frames() {
    let mut rng = StdRng::seed_from_u64(2);
    let (terms, binding, samples) = samples();
    for round in 0..ROUNDS {
        let bytes = mutated(&mut rng, &samples[round % samples.len()]);
        offer(&bytes, &terms, &binding);
    }
}

/// Behind a good proof the body is decoded: a proven but broken peer must do no harm either.
#[test]
fn a_damaged_body_behind_a_good_proof_does_not_panic() {
    let mut rng = StdRng::seed_from_u64(3);
    let (terms, binding, samples) = samples();
    let (proof, body) = samples[0].split_at(33);
    for _ in 0..ROUNDS {
        let bytes = [proof, &mutated(&mut rng, body)].concat();
        let read = Hello::admit(&bytes, &terms, &binding, Some(NodeId::of_voter("a")));
        assert!(!matches!(read, Err(Refusal::WrongSecret)) || bytes.len() > 512);
    }
}

/// Behind a good checksum the content is decoded: anybody can compute one.
#[test]
fn a_damaged_ticket_behind_a_good_checksum_does_not_panic() {
    let mut rng = StdRng::seed_from_u64(4);
    let (.., samples) = samples();
    for _ in 0..ROUNDS {
        let body = mutated(&mut rng, &samples[7]);
        if let Ok(ticket) = super::ticket::sealed(body).parse::<Ticket>() {
            let _ = ticket.electorate().unwrap();
        }
    }
}
