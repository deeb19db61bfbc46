//! What fuzzing has found: the bytes, as small as they could be made, and what they did.

use super::watch::run_by_name as run;

/// The id of the voter `a`, as it is encoded.
const A: [u8; 9] = [253, 185, 239, 144, 10, 121, 87, 194, 212];

/// The electorate of a group, which is `a` alone, at the beginning of its log.
fn electorate() -> Vec<u8> {
    [&[b'm' | 0x80, 0, 13, 0, 1, 0, 0, 1][..], &A].concat()
}

/// The state was ahead of itself, and nothing said so.
#[test]
fn a_group_whose_version_is_beyond_what_it_has_applied() {
    let applied = [b'a' | 0x80, 0, 4, 0, 1, 0, 0, 5];
    let purged = [b'p' | 0x80, 0, 2, 0, 0, 0];
    run(
        "group_on_disk",
        &[&applied[..], &electorate(), &purged].concat(),
    );
}

/// openraft panicked: `expect: self.purge_upto() <= self.snapshot_last_log_id()`.
#[test]
fn a_group_that_has_purged_the_place_it_has_applied_in_another_term() {
    let applied = [b'a' | 0x80, 0, 4, 0, 1, 0, 0, 0];
    let purged = [b'p' | 0x80, 0, 2, 0, 1, 0];
    let vote = [&[b'v' | 0x80, 0, 11, 0, 34][..], &A, &[1]].concat();
    run(
        "group_on_disk",
        &[&applied[..], &electorate(), &purged, &vote].concat(),
    );
}

/// openraft panicked: `Expect the Leader vote to be committed`.
#[test]
fn an_append_of_a_leader_that_was_not_elected() {
    let group = [1; 32];
    // Of the voter b, of term 1, with nothing in it.
    let append = [
        0, 0, 1, 253, 62, 106, 143, 196, 123, 3, 167, 207, 0, 0, 0, 0,
    ];
    let frame = [&[1, 0][..], &group, &append].concat();
    let sender = [1, frame.len() as u8, 0];
    run("answer", &[&[1], &sender[..], &frame].concat());
}

/// The reader allocated 500 MB for these ten bytes.
#[test]
fn a_small_value_that_says_it_is_a_long_text() {
    let claimed = 500_000_000_u64.to_le_bytes();
    run("value", &[&[1, 253][..], &claimed].concat());
}
