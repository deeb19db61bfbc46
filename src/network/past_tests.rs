use super::*;

fn electorate(names: &[&str]) -> Electorate {
    let voters = names
        .iter()
        .map(|name| (name.to_string(), format!("{name}:1")));
    Electorate::new(voters.collect()).unwrap()
}

fn boots(starts: &[(u8, u64)]) -> Vec<Boot> {
    let start = |&(id, from)| Boot { id: [id; 16], from };
    starts.iter().map(start).collect()
}

fn peer(boot: u8, sequence: u64) -> Peer {
    Peer {
        incarnation: [1; 16],
        boot: [boot; 16],
        sequence,
        refused: None,
    }
}

fn claim(boot: u8, sequence: u64) -> Claim {
    Claim {
        incarnation: [1; 16],
        boot: [boot; 16],
        sequence,
        empty: false,
    }
}

fn refusal(verdict: Verdict) -> (Peer, String) {
    match verdict {
        Verdict::Refuse {
            peer,
            reason,
            remedy,
        } => {
            assert_eq!(peer.refused.as_ref(), Some(&reason));
            assert!(remedy.contains("refused for good"));
            (peer, reason)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_never_met_is_new_and_remembered_as_it_came() {
    assert_eq!(
        judge(None, None, &claim(5, 7), Some(&[])),
        Verdict::New(peer(5, 7))
    );
    assert_eq!(
        judge(None, None, &claim(5, 7), None),
        Verdict::New(peer(5, 7))
    );
}

#[test]
fn a_peer_with_its_past_is_known_and_the_memory_moves_on() {
    let old = peer(5, 7);
    let same_boot = judge(Some(&old), Some(&old), &claim(5, 9), Some(&[]));
    assert_eq!(same_boot, Verdict::Known(peer(5, 9)));
    let boots = boots(&[(6, 7), (8, 7)]);
    let two_boots_on = judge(Some(&old), Some(&old), &claim(8, 7), Some(&boots));
    assert_eq!(two_boots_on, Verdict::Known(peer(8, 7)));
}

#[test]
fn another_incarnation_is_refused_for_good() {
    let old = peer(5, 7);
    let wiped = Claim {
        incarnation: [2; 16],
        ..claim(5, 7)
    };
    let (refused, reason) = refusal(judge(Some(&old), Some(&old), &wiped, None));
    assert!(reason.contains("wiped or replaced"), "{reason}");
    // Even its true disk is refused afterwards, with the first reason, whatever was asked.
    for asked in [Some(&old), Some(&refused), None] {
        let (again, text) = refusal(judge(Some(&refused), asked, &claim(5, 9), Some(&[])));
        assert_eq!((again, text), (refused.clone(), reason.clone()));
    }
}

#[test]
fn a_list_without_the_remembered_boot_is_refused() {
    let old = peer(5, 7);
    let (_, reason) = refusal(judge(Some(&old), Some(&old), &claim(6, 9), None));
    assert!(reason.contains("restored or cloned"), "{reason}");
}

#[test]
fn a_list_that_does_not_end_in_the_current_boot_is_refused() {
    let old = peer(5, 7);
    for boots in [vec![], boots(&[(6, 7), (7, 8)])] {
        let (_, reason) = refusal(judge(Some(&old), Some(&old), &claim(6, 9), Some(&boots)));
        assert!(reason.contains("lacks this one"), "{reason}");
    }
}

#[test]
fn a_log_that_ends_before_what_was_durable_is_refused() {
    let old = peer(5, 7);
    for (boot, boots) in [(5, vec![]), (6, boots(&[(6, 6)]))] {
        let (refused, reason) =
            refusal(judge(Some(&old), Some(&old), &claim(boot, 6), Some(&boots)));
        assert!(reason.contains("ended at 6, where 7"), "{reason}");
        assert_eq!(refused.memory(), old.memory());
    }
}

/// Restored while nobody looked, and written to since: the log is long again, but began too early.
#[test]
fn a_start_on_a_log_that_was_longer_before_is_refused_however_far_it_came_since() {
    let old = peer(5, 7);
    let grown = claim(8, 99);
    for starts in [
        &[(8, 6)][..],
        &[(6, 6), (8, 50)],
        &[(6, 20), (8, 19)],
        &[(6, 20), (8, 100)],
    ] {
        let shown = boots(starts);
        let (_, reason) = refusal(judge(Some(&old), Some(&old), &grown, Some(&shown)));
        assert!(
            reason.contains("was restored: its log ended at"),
            "{reason}"
        );
    }
    let honest = judge(
        Some(&old),
        Some(&old),
        &grown,
        Some(&boots(&[(6, 7), (8, 99)])),
    );
    assert_eq!(honest, Verdict::Known(peer(8, 99)));
}

/// Two links are admitted at once, or a late frame of a process that is gone is read.
#[test]
fn an_answer_to_an_older_question_is_no_ground_for_refusal() {
    let (old, new) = (peer(5, 7), peer(6, 9));
    let late = judge(Some(&new), Some(&old), &claim(5, 7), Some(&[]));
    assert_eq!(late, Verdict::AskAgain);
    assert_eq!(
        judge(Some(&new), None, &claim(5, 7), Some(&[])),
        Verdict::AskAgain
    );
    assert_eq!(
        judge(None, Some(&old), &claim(5, 7), Some(&[])),
        Verdict::AskAgain
    );
    // A reply on another link told a higher number after the question: the highest stays.
    let heard = peer(5, 20);
    let verdict = judge(Some(&heard), Some(&old), &claim(5, 8), Some(&[]));
    assert_eq!(verdict, Verdict::Known(peer(5, 20)));
}

#[test]
fn a_reply_never_lowers_what_was_heard() {
    let mut known = peer(5, 7);
    assert!(known.heard(9));
    assert!(!known.heard(8));
    assert!(!known.heard(9));
    assert_eq!(known, peer(5, 9));
}

/// Both sides played out: a voter, its disk copied, and the copy started later.
#[test]
fn a_clone_is_refused_by_whoever_saw_the_original_start_again() {
    let mut original = Myself::new([1; 16], [5; 16]);
    let known = peer(5, 7);
    let mut clone = original.clone();
    original.start([6; 16], 7);
    clone.start([66; 16], 7);
    let electorate = electorate(&["a", "b", "c"]);
    let me = NodeId::of_voter("a");
    let shown = original.boots_since(Some(&known.memory()));
    let seen = judge(
        Some(&known),
        Some(&known),
        &original.claim(7, &electorate, me),
        shown.as_deref(),
    );
    let Verdict::Known(known) = seen else {
        panic!("{seen:?}")
    };
    let shown = clone.boots_since(Some(&known.memory()));
    let claim = clone.claim(9, &electorate, me);
    refusal(judge(Some(&known), Some(&known), &claim, shown.as_deref()));
}

#[test]
fn boots_since_is_the_tail_behind_the_remembered_one() {
    let mut myself = Myself::new([1; 16], [5; 16]);
    myself.start([6; 16], 7);
    myself.start([7; 16], 7);
    let since = |incarnation: u8, boot: u8| {
        myself.boots_since(Some(&Memory {
            incarnation: [incarnation; 16],
            boot: [boot; 16],
        }))
    };
    assert_eq!(myself.boot(), [7; 16]);
    assert_eq!(since(1, 5), Some(boots(&[(6, 7), (7, 7)])));
    assert_eq!(since(1, 7), Some(vec![]));
    assert_eq!(since(1, 8), None);
    assert_eq!(since(2, 7), None);
    assert_eq!(myself.boots_since(None), Some(vec![]));
}

#[test]
fn the_list_of_starts_is_bounded_and_drops_the_oldest() {
    let boot = |n: usize| u128::to_le_bytes(n as u128);
    let mut myself = Myself::new([1; 16], boot(0));
    for n in 1..BOOTS_MAX + 10 {
        myself.start(boot(n), 7);
    }
    assert_eq!(myself.boots.len(), BOOTS_MAX);
    assert_eq!(myself.boot(), boot(BOOTS_MAX + 9));
    let memory = |n| Memory {
        incarnation: [1; 16],
        boot: boot(n),
    };
    assert_eq!(myself.boots_since(Some(&memory(9))), None);
    assert_eq!(
        myself.boots_since(Some(&memory(10))).unwrap().len(),
        BOOTS_MAX - 1
    );
    assert_eq!(Myself::from_bytes(&myself.to_bytes()), Ok(myself));
}

#[test]
fn a_voter_votes_only_when_all_others_confirmed() {
    let electorate = electorate(&["a", "b", "c"]);
    let me = NodeId::of_voter("a");
    let mut myself = Myself::new([1; 16], [5; 16]);
    let mut waiting = myself.waiting_for(&electorate, me);
    waiting.sort();
    assert_eq!(waiting, ["b", "c"]);
    assert!(myself.claim(0, &electorate, me).empty);
    assert!(myself.qualify(NodeId::of_voter("b")));
    assert!(!myself.qualify(NodeId::of_voter("b")));
    assert!(!myself.may_vote(&electorate, me));
    assert_eq!(myself.waiting_for(&electorate, me), ["c"]);
    assert!(myself.qualify(NodeId::of_voter("c")));
    assert!(myself.may_vote(&electorate, me));
    assert!(!myself.claim(0, &electorate, me).empty);
    // It stays so over restarts.
    let mut again = Myself::from_bytes(&myself.to_bytes()).unwrap();
    again.start([6; 16], 7);
    assert!(again.may_vote(&electorate, me));
}

#[test]
fn an_electorate_of_one_is_qualified_at_once() {
    let myself = Myself::new([1; 16], [5; 16]);
    assert!(myself.may_vote(&electorate(&["a"]), NodeId::of_voter("a")));
}

#[test]
fn what_is_kept_on_disk_round_trips_and_its_bounds_are_checked() {
    let refused = Peer {
        refused: Some("why".into()),
        ..peer(5, u64::MAX)
    };
    for peer in [peer(5, 7), refused] {
        assert_eq!(Peer::from_bytes(&peer.to_bytes()), Ok(peer));
    }
    let mut myself = Myself::new([1; 16], [5; 16]);
    myself.qualify(NodeId::of_voter("b"));
    assert_eq!(Myself::from_bytes(&myself.to_bytes()), Ok(myself.clone()));
    myself.boots.clear();
    assert!(Myself::from_bytes(&myself.to_bytes()).is_err());
    let start = Boot {
        id: [0; 16],
        from: 0,
    };
    myself.boots = vec![start; BOOTS_MAX + 1];
    assert!(Myself::from_bytes(&myself.to_bytes()).is_err());
}

/// A fixture kept for ever: disks of today must stay readable.
#[test]
fn the_bytes_on_disk_never_change() {
    let mut myself = Myself::new([1; 16], [5; 16]);
    myself.qualify(NodeId::from_u64(3));
    let mut expected = vec![2];
    expected.extend([1; 16]);
    expected.push(1);
    expected.extend([5; 16]);
    expected.extend([0, 1, 3]);
    assert_eq!(myself.to_bytes(), expected);
    let peer = Peer {
        refused: Some("why".into()),
        ..peer(5, 7)
    };
    let mut expected = vec![2];
    expected.extend([1; 16]);
    expected.extend([5; 16]);
    expected.extend([7, 1, 3, b'w', b'h', b'y']);
    assert_eq!(peer.to_bytes(), expected);
}
