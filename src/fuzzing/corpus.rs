//! Good bytes for each target: where mutation starts, here and in `fuzz/`.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::TARGETS;
use crate::codec::encode_value;
use crate::group::generate as group;
use crate::network::generate as network;
use crate::network::hello::{Admitted, Hello, Welcome, answer_to_bytes};
use crate::network::proof::Kind;

/// The variable that names the folder into which the samples are written.
const CORPUS: &str = "RAFT_ONCE_CORPUS";

/// How many samples of each target are made.
const SAMPLES: usize = 200;

/// Samples of a target. One seed, the same ones always.
pub(super) fn samples(target: &str) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(1);
    (0..SAMPLES).map(|_| sample(target, &mut rng)).collect()
}

fn sample(target: &str, rng: &mut StdRng) -> Vec<u8> {
    match target {
        "frame" => {
            let body = group::bytes(rng, 60);
            let prefix = (body.len() as u32).to_le_bytes();
            [&[rng.random()], &prefix[..], &body].concat()
        }
        "admission" => admission(rng),
        "past" => match rng.random_range(0..4) {
            0 => [&[0], &*network::myself(rng).to_bytes()].concat(),
            1 => [&[1], &*network::peer(rng).to_bytes()].concat(),
            2 => judged(rng),
            _ => book(rng),
        },
        "ticket" => match rng.random_range(0..5) {
            0 => [&[0], network::ticket(rng).to_string().as_bytes()].concat(),
            1 => [&[1], &*network::ticket_content(rng)].concat(),
            2 => {
                let digits = group::bytes(rng, 40)
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect::<String>();
                [&[2], digits.as_bytes()].concat()
            }
            3 => [&[3], &*group::bytes(rng, 40)].concat(),
            _ => {
                let electorate = network::electorate(rng);
                let voters = electorate.voters().iter();
                let lines =
                    voters.map(|voter| format!("{} {}\n", voter.name.replace(' ', ""), voter.addr));
                [&[4], lines.collect::<String>().as_bytes()].concat()
            }
        },
        "request" => group::request(rng).encode(),
        "response" => match rng.random() {
            true => group::response(rng).encode(),
            false => group::snapshot(rng),
        },
        "answer" => answer(rng),
        "group_on_disk" => group::on_disk(rng),
        "log_recovery" => log(rng),
        "value" => value(rng),
        other => panic!("{other} has no samples"),
    }
}

/// Frames of anybody to a voter of one or of three.
fn answer(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![rng.random()];
    for _ in 0..rng.random_range(1..5) {
        let frame = group::request(rng).encode();
        bytes.push(rng.random());
        bytes.extend((frame.len() as u16).to_le_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn admission(rng: &mut StdRng) -> Vec<u8> {
    let kind = network::kind(rng);
    // Behind the kind and the proof of a hello; behind the kind of an answer, its version and the proof.
    const HELLO_FRONT: usize = 33;
    const WELCOME_FRONT: usize = 34;
    match rng.random_range(0..6) {
        0 => [&[0], &*network::hello(rng, kind).to_bytes()].concat(),
        1 => {
            let hello: Hello = network::hello(rng, kind);
            [&[kind.as_u8()], &hello.to_bytes()[HELLO_FRONT..]].concat()
        }
        2 => {
            let welcome: Welcome = network::welcome(rng, kind);
            let bytes = answer_to_bytes(&Ok(welcome));
            [&[kind.as_u8() + 3], &bytes[WELCOME_FRONT..]].concat()
        }
        3 => {
            let answer = group::maybe(rng, network::refusal).map_or(Ok(Admitted), Err);
            [&[6], &*answer_to_bytes(&answer)].concat()
        }
        4 => {
            let refusal = network::refusal(rng);
            [&[3], &*answer_to_bytes::<Welcome>(&Err(refusal))].concat()
        }
        _ => [&[7], &*network::confirm(rng).to_bytes()].concat(),
    }
}

/// Two pages of a peer, a hello without its proof and a confirmation.
fn judged(rng: &mut StdRng) -> Vec<u8> {
    let remembered = network::peer(rng).to_bytes();
    let asked = match rng.random_range(0..4) {
        0 => network::peer(rng).to_bytes(),
        _ => remembered.clone(),
    };
    let hello = network::hello(rng, Kind::Voter).to_bytes();
    let pieces = [
        &*remembered,
        &asked,
        &hello[33..],
        &network::confirm(rng).to_bytes(),
    ]
    .map(<[u8]>::to_vec);
    let mut bytes = vec![2];
    for piece in pieces {
        bytes.push(piece.len() as u8);
        bytes.extend(piece);
    }
    bytes
}

/// The pages of a voter: whose disk it is, about itself, and about a peer.
fn book(rng: &mut StdRng) -> Vec<u8> {
    let owner = network::owner(rng);
    let pages = [
        owner,
        network::myself(rng).to_bytes(),
        network::peer(rng).to_bytes(),
    ];
    let mut bytes = vec![3];
    for page in &pages[..rng.random_range(0..=3)] {
        bytes.push(page.len() as u8);
        bytes.extend(page);
    }
    bytes
}

/// A log of one or two segments with some groups, and sometimes a byte that changed.
fn log(rng: &mut StdRng) -> Vec<u8> {
    let which = rng.random_range(0..2_u8);
    let mut next = 1;
    let mut bytes = vec![which];
    for index in 1..=rng.random_range(1..4_u8) {
        bytes.extend([0, index, next]);
        for _ in 0..rng.random_range(0..4) {
            let batches = rng.random_range(1..4_u8);
            next += batches;
            bytes.extend([1, batches]);
            for _ in 0..batches {
                bytes.extend([
                    2,
                    b'k',
                    rng.random_range(0..9),
                    1,
                    rng.random(),
                    rng.random(),
                ]);
            }
        }
        if rng.random_range(0..3) == 0 {
            bytes.extend([3, rng.random_range(0..9)]);
        }
    }
    if rng.random_range(0..3) == 0 {
        bytes.extend([4, rng.random_range(0..200), rng.random()]);
    }
    bytes
}

fn value(rng: &mut StdRng) -> Vec<u8> {
    use std::collections::{BTreeMap, HashMap};
    let text = "text".repeat(rng.random_range(0..5));
    let number: u64 = group::number(rng);
    let (kind, encoded) = match rng.random_range(0..9) {
        0 => (0, encode_value(&number, 99)),
        1 => (1, encode_value(&text, 99)),
        2 => (2, encode_value(&vec![7_u8; 9], 99)),
        3 => (3, encode_value(&vec![text; 3], 99)),
        4 => (
            4,
            encode_value(
                &(
                    -3_i8,
                    9_u16,
                    -70_000_i32,
                    i64::MIN,
                    u128::MAX,
                    1.5_f32,
                    true,
                    'x',
                ),
                99,
            ),
        ),
        5 => (5, encode_value(&Some(vec![number as u32; 3]), 99)),
        6 => (6, encode_value(&BTreeMap::from([(text, vec![number])]), 99)),
        7 => (
            7,
            encode_value(&HashMap::from([(3_u8, (7_u128, [number; 8]))]), 99),
        ),
        _ => {
            let addr = std::net::SocketAddr::from(([10, 0, 0, 1], 7400));
            let time = std::time::Duration::from_millis(7);
            (8, encode_value(&vec![Ok(addr), Err(time)], 99))
        }
    };
    [&[kind], &*encoded.unwrap()].concat()
}

/// `RAFT_ONCE_CORPUS=fuzz/corpus cargo test --all-features --lib fuzzing::corpus` writes them.
#[test]
fn samples_are_made_for_every_target_and_written_where_they_are_asked_for() {
    for target in TARGETS {
        let samples = samples(target.name);
        assert_eq!(samples, self::samples(target.name), "{}", target.name);
        let Some(corpus) = std::env::var_os(CORPUS) else {
            continue;
        };
        let folder = Path::new(&corpus).join(target.name);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, sample) in samples.iter().enumerate() {
            std::fs::write(folder.join(format!("sample-{number:03}")), sample).unwrap();
        }
    }
}
