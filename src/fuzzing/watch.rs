//! Running a target as a fuzzer does: a panic counts wherever it happens, and memory is counted.

use std::cell::Cell;
use std::panic::{set_hook, take_hook};
use std::sync::Once;

use super::{PER_INPUT_BYTE, TARGETS, Target, memory};

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// A task's panic ends that task alone; all tasks of a target run on its own thread.
fn count_panics() {
    static COUNTING: Once = Once::new();
    COUNTING.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

pub(super) fn run(target: &Target, bytes: &[u8]) {
    count_panics();
    let panics = PANICS.get();
    let peak = memory::peak_bytes(|| (target.run)(bytes));
    assert_eq!(PANICS.get(), panics, "{}: a task panicked", target.name);
    let allowed = target.memory_bytes_max + bytes.len() * PER_INPUT_BYTE;
    assert!(
        peak <= allowed,
        "{} held {peak} bytes, {allowed} are allowed",
        target.name
    );
}

pub(super) fn run_by_name(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    run(target.expect("targets have the names of functions"), bytes);
}
