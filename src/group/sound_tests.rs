use std::sync::Arc;

use super::*;
use crate::group::disk::{Applied, Disk};
use crate::group::raft::{StoredElectorate, StoredSnapshotMeta};
use crate::group::state::{Contents, write_snapshot};
use crate::id::{GroupId, ProposalId, Version};
use crate::machine::Machine;
use crate::store::{Batch, Durability, Store};

const GROUP: GroupId = GroupId::from_bytes([7; 32]);

fn voters() -> BTreeSet<NodeId> {
    ["a", "b", "c"].map(NodeId::of_voter).into()
}

fn vote(term: u64, committed: bool) -> StoredVote {
    StoredVote {
        term,
        node: NodeId::of_voter("b"),
        committed,
    }
}

fn at(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

fn set(value: &[u8]) -> Command {
    Command::Set {
        slot: vec![],
        proposal: Proposal {
            id: ProposalId::new([1; 16], NodeId::of_voter("o"), [2; 16], value),
            value: value.into(),
            proposed_at_ms: 0,
        },
    }
}

fn entry(term: u64, index: u64) -> StoredEntry {
    StoredEntry {
        at: at(term, index),
        payload: StoredPayload::Command(set(b"value")),
    }
}

/// A group with entries 0 to 3, of which 2 are applied: the value was decided at 1.
fn sound() -> Held {
    let mut held = Held::newborn(&voters(), None);
    held.vote = Some(vote(1, true));
    held.entries
        .extend((1..4).map(|index| (index, entry(1, index))));
    held.machine.apply(Version::new(1), &set(b"value"));
    held.applied = Applied {
        at: Some(at(1, 2)),
        version: Version::new(2),
    };
    held
}

fn reason(change: impl FnOnce(&mut Held)) -> &'static str {
    let mut held = sound();
    assert_eq!(check_stored(&held), Ok(()));
    change(&mut held);
    check_stored(&held).expect_err("it is not sound any more")
}

#[test]
fn a_log_with_a_gap_or_an_entry_out_of_place_is_refused() {
    for gap in 0..3 {
        assert_eq!(
            reason(|held| drop(held.entries.remove(&gap))),
            "its log has a gap"
        );
    }
    let out_of_place = |held: &mut Held| {
        let entry = held.entries[&3].clone();
        held.entries.insert(4, entry);
    };
    assert!(reason(out_of_place).contains("in the place of another"));
    assert_eq!(
        reason(|held| held.purged = Some(at(1, 1))),
        "its log has a gap"
    );
    let older = |held: &mut Held| held.entries.get_mut(&3).unwrap().at.term = 0;
    assert_eq!(reason(older), "its log has a gap");
    assert_eq!(reason(|held| held.entries.clear()), "its log is missing");
}

#[test]
fn a_log_that_begins_behind_a_snapshot_is_sound() {
    let mut held = sound();
    held.entries = held.entries.split_off(&2);
    held.purged = Some(at(1, 1));
    assert_eq!(check_stored(&held), Ok(()));
    // A snapshot was installed, and what it covers is not purged yet.
    held.applied.at = Some(at(1, 9));
    assert_eq!(check_stored(&held), Ok(()));
    held.entries.clear();
    held.purged = Some(at(1, 9));
    assert_eq!(check_stored(&held), Ok(()));
}

#[test]
fn what_is_applied_must_agree_with_the_log() {
    assert!(reason(|held| held.applied.at = None).contains("is missing"));
    let beyond = |held: &mut Held| held.applied.version = Version::new(3);
    assert!(reason(beyond).contains("its version is beyond"));
    let before_the_record = |held: &mut Held| held.applied.version = Version::ZERO;
    assert!(reason(before_the_record).contains("a record is beyond"));
    assert!(reason(|held| held.applied.at = Some(at(0, 2))).contains("not in its log"));
    let purged = |held: &mut Held| {
        held.entries.clear();
        held.purged = Some(at(1, 3));
    };
    assert!(reason(purged).contains("begins behind what is applied"));
    // The same place, of another term.
    let purged = |held: &mut Held| {
        held.entries.clear();
        (held.purged, held.vote) = (Some(at(2, 2)), Some(vote(2, true)));
    };
    assert!(reason(purged).contains("begins behind what is applied"));
    let purged_before = |held: &mut Held| {
        held.entries.clear();
        held.purged = Some(at(0, 2));
    };
    assert!(reason(purged_before).contains("not in its log"));
    let older_snapshot = |held: &mut Held| held.applied.at = Some(at(0, 9));
    assert!(reason(older_snapshot).contains("not in its log"));
}

#[test]
fn an_electorate_stands_at_the_beginning_and_nowhere_else() {
    let elsewhere = |held: &mut Held| held.electorate.at = Some(at(1, 1));
    assert!(reason(elsewhere).contains("not the one it was born with"));
    let missing = |held: &mut Held| held.electorate.at = None;
    assert!(reason(missing).contains("not the one it was born with"));
    let payload = StoredPayload::Electorate(voters());
    let later = |held: &mut Held| held.entries.get_mut(&3).unwrap().payload = payload;
    assert!(reason(later).contains("another electorate"));
    let other = StoredPayload::Electorate(BTreeSet::new());
    let other = |held: &mut Held| held.entries.get_mut(&0).unwrap().payload = other;
    assert!(reason(other).contains("another electorate"));
    let nobody = |held: &mut Held| held.entries.get_mut(&0).unwrap().payload = StoredPayload::Blank;
    assert!(reason(nobody).contains("another electorate"));
}

#[test]
fn a_vote_that_its_log_has_overtaken_is_refused() {
    assert!(reason(|held| held.vote = None).contains("older than its log"));
    assert!(reason(|held| held.vote = Some(vote(0, true))).contains("older than its log"));
    let snapshot = |held: &mut Held| held.applied.at = Some(at(2, 9));
    assert!(reason(snapshot).contains("older than its log"));
}

#[test]
fn numbers_at_the_end_of_all_numbers_are_refused() {
    assert!(reason(|held| held.vote = Some(vote(u64::MAX, false))).contains("gets that far"));
    let far = |held: &mut Held| {
        held.entries.clear();
        (held.purged, held.applied.at) = (Some(at(1, u64::MAX)), Some(at(1, u64::MAX)));
    };
    assert!(reason(far).contains("gets that far"));
    let ballot = |term: u64, index: u64| RaftRequest::Vote {
        vote: vote(term, false),
        last: Some(at(1, index)),
        transfer: false,
        pre: false,
    };
    let append = |term: u64, index: u64| RaftRequest::Append {
        vote: vote(term, true),
        prev: None,
        entries: vec![],
        committed: Some(at(1, index)),
    };
    let snapshot = |term: u64, index: u64| {
        let data = write_snapshot(Version::ZERO, &Machine::default());
        let mut snapshot = snapshot(|meta| meta.at = Some(at(1, index)), data);
        if let RaftRequest::Snapshot { vote, .. } = &mut snapshot {
            vote.term = term;
        }
        snapshot
    };
    let transfer = |term: u64, index: u64| RaftRequest::Transfer {
        from: vote(term, true),
        to: NodeId::of_voter("a"),
        last: Some(at(1, index)),
    };
    for (term, index) in [(NUMBER_MAX + 1, 1), (1, NUMBER_MAX + 1)] {
        for message in [
            ballot(term, index),
            append(term, index),
            snapshot(term, index),
            transfer(term, index),
        ] {
            let refused = check_message(&message, &voters(), Kind::Cell);
            assert_eq!(refused, Err("no history gets that far"), "{message:?}");
        }
    }
}

/// Whoever reads a value would trust it: no bit of it may change on the way to and from the disk.
#[test]
fn every_flipped_bit_of_a_decided_value_is_noticed() {
    let store = Store::in_memory();
    let disk = Disk::new(store.clone(), GROUP, Held::newborn(&voters(), None));
    futures::executor::block_on(disk.save_vote(vote(1, false))).unwrap();
    let mut held = sound();
    held.entries.clear();
    held.purged = held.applied.at;
    let Held {
        applied,
        electorate,
        machine,
        ..
    } = held;
    futures::executor::block_on(disk.install(applied, electorate, Contents::Cell(machine)))
        .unwrap();
    disk.purge(at(1, 2));
    assert!(Disk::load(&store, GROUP, &voters(), None, true).is_ok());

    let value = |pair: &(Vec<u8>, Vec<u8>)| pair.1.windows(5).position(|at| at == b"value");
    let pairs = store.scan(b"g").unwrap();
    let (pair, place) = pairs
        .iter()
        .find_map(|pair| Some((pair, value(pair)?)))
        .unwrap();
    for bit in 0..5 * 8 {
        let mut flipped = pair.1.clone();
        flipped[place + bit / 8] ^= 1 << (bit % 8);
        let mut batch = Batch::default();
        batch.put(pair.0.clone(), flipped);
        store.write(batch, Durability::Now, |_| {});
        let error = Disk::load(&store, GROUP, &voters(), None, true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("not the one that was proposed"), "{error}");
        assert!(error.contains(&GROUP.to_string()), "{error}");
    }
}

#[test]
fn a_value_in_the_log_that_is_not_the_proposed_one_is_refused() {
    let changed = |held: &mut Held| {
        let StoredPayload::Command(Command::Set { proposal, .. }) =
            &mut held.entries.get_mut(&3).unwrap().payload
        else {
            panic!("it is a set");
        };
        proposal.value = Arc::from(*b"other");
    };
    assert!(reason(changed).contains("in its log is not the one"));
}

fn append(entries: Vec<StoredEntry>) -> RaftRequest {
    RaftRequest::Append {
        vote: vote(1, true),
        prev: Some(LogPosition::GENESIS),
        entries,
        committed: Some(at(1, 1)),
    }
}

fn snapshot(change: impl FnOnce(&mut StoredSnapshotMeta), data: Vec<u8>) -> RaftRequest {
    let mut meta = StoredSnapshotMeta {
        at: Some(at(1, 2)),
        electorate: StoredElectorate {
            at: Some(LogPosition::GENESIS),
            voters: voters(),
        },
    };
    change(&mut meta);
    RaftRequest::Snapshot {
        vote: vote(1, true),
        meta,
        data: data.into(),
    }
}

#[test]
fn messages_of_honest_voters_pass() {
    let machine = sound().machine;
    let data = write_snapshot(Version::new(2), &machine);
    for message in [
        append(vec![]),
        append(vec![entry(1, 1), entry(1, 2)]),
        RaftRequest::Vote {
            vote: vote(2, false),
            last: Some(at(1, 3)),
            transfer: false,
            pre: true,
        },
        snapshot(|_| {}, data),
        RaftRequest::Transfer {
            from: vote(1, true),
            to: NodeId::of_voter("a"),
            last: None,
        },
    ] {
        assert_eq!(
            check_message(&message, &voters(), Kind::Cell),
            Ok(()),
            "{message:?}"
        );
    }
}

#[test]
fn messages_that_raft_would_stop_at_are_refused() {
    let data = || write_snapshot(Version::new(2), &sound().machine);
    let stranger = StoredVote {
        node: NodeId::of_voter("o"),
        ..vote(1, true)
    };
    let electorate = StoredEntry {
        payload: StoredPayload::Electorate(voters()),
        ..entry(1, 1)
    };
    let led_by = |leader: StoredVote| RaftRequest::Append {
        vote: leader,
        prev: None,
        entries: vec![],
        committed: None,
    };
    let ballot = |vote: StoredVote| RaftRequest::Vote {
        vote,
        last: Some(at(1, 3)),
        transfer: false,
        pre: false,
    };
    let transfer = |from: StoredVote, to: &str| RaftRequest::Transfer {
        from,
        to: NodeId::of_voter(to),
        last: None,
    };
    for (message, reason) in [
        (led_by(vote(1, false)), "not that of a leader"),
        (led_by(stranger), "not that of a leader"),
        (append(vec![entry(1, 2)]), "not a piece of a log"),
        (
            append(vec![entry(1, 1), entry(0, 2)]),
            "not a piece of a log",
        ),
        (append(vec![entry(2, 1)]), "newer than its leader"),
        (append(vec![electorate]), "does not change"),
        (ballot(vote(2, true)), "not that of a candidate"),
        (
            ballot(StoredVote {
                committed: false,
                ..stranger
            }),
            "not that of a candidate",
        ),
        (ballot(vote(0, false)), "newer than its candidate"),
        (snapshot(|meta| meta.at = None, data()), "of no moment"),
        (
            snapshot(|meta| meta.at = Some(at(2, 2)), data()),
            "newer than its leader",
        ),
        (
            snapshot(|meta| meta.electorate.voters.clear(), data()),
            "another electorate",
        ),
        (snapshot(|_| {}, vec![1, 2, 3]), "malformed"),
        (
            snapshot(|meta| meta.at = Some(at(1, 1)), data()),
            "contradicts itself",
        ),
        (
            snapshot(|_| {}, write_snapshot(Version::ZERO, &sound().machine)),
            "contradicts itself",
        ),
        (transfer(vote(1, false), "a"), "not that of a leader"),
        (transfer(vote(1, true), "o"), "no voter"),
    ] {
        let refused = check_message(&message, &voters(), Kind::Cell).unwrap_err();
        assert!(refused.contains(reason), "{refused}: {message:?}");
    }
    assert_eq!(
        check_message(
            &snapshot(|_| {}, write_snapshot(Version::ZERO, &Machine::default())),
            &voters(),
            Kind::Cell
        ),
        Ok(())
    );
}
