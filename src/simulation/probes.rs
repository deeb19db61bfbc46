//! What the code under simulation reports here. One thread runs one simulation, so a thread's
//! variables are those of its run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::time::Instant;

use super::process::Process;
use crate::id::{GroupId, NodeId};
use crate::probe::Bug;
use crate::testing::witness::{Violation, Witness};

/// Midnight before 1 January 2026, in milliseconds since 1970: when simulated time begins.
pub(super) const EPOCH_MS: u64 = 1_767_225_600_000;

/// So many polls at one moment of simulated time are an endless loop.
const POLLS_AT_ONCE_MAX: u64 = 1_000_000;

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    /// The watch itself has panicked.
    static BLIND: Cell<bool> = const { Cell::new(false) };
}

/// What a run is watched by beside its clients.
pub(super) struct Watch {
    pub(super) witness: Witness,
    /// What contradicts what was seen before, in words.
    pub(super) violations: Vec<String>,
    /// All messages that were delivered: when, between whom, and a digest of each.
    pub(super) messages: Vec<String>,
    began: Instant,
    /// The moment of the last poll, and how many there were at it.
    polled: (Instant, u64),
    pub(super) votes: u64,
    pub(super) applied: u64,
    /// What else happened how often.
    pub(super) counted: BTreeMap<&'static str, u64>,
}

/// A panic in a task ends the task alone; here it is a violation like any other.
fn note_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = WATCH.try_with(|watch| match watch.try_borrow_mut().as_deref_mut() {
                Ok(Some(watch)) => {
                    watch.violations.push(format!("panic: {info}"));
                    true
                }
                Err(_) => {
                    BLIND.set(true);
                    false
                }
                Ok(None) => false,
            });
            if !noted.unwrap_or(false) {
                before(info);
            }
        }));
    });
}

/// Begins to watch; planted is what shall go wrong on purpose.
pub(super) fn begin(bug: Option<Bug>) {
    note_panics();
    PLANTED.set(bug);
    WATCH.set(Some(Watch {
        witness: Witness::default(),
        violations: Vec::new(),
        messages: Vec::new(),
        began: Instant::now(),
        polled: (Instant::now(), 0),
        votes: 0,
        applied: 0,
        counted: BTreeMap::new(),
    }));
}

/// Plants a bug outside of a run, in this thread and until the guard is dropped.
#[must_use]
pub(crate) fn plant(bug: Bug) -> impl Drop {
    struct Planted;
    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(Some(bug));
    Planted
}

/// What was seen since [`begin`].
pub(super) fn end() -> Watch {
    PLANTED.set(None);
    let mut watch = WATCH.take().expect("a run ends what it began");
    if BLIND.take() {
        watch.violations.push("panic in what watches".into());
    }
    watch
}

/// So many contradictions were seen so far.
pub(super) fn violations() -> usize {
    WATCH.with_borrow(|watch| watch.as_ref().map_or(0, |watch| watch.violations.len()))
}

fn watch(look: impl FnOnce(&mut Watch)) {
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch {
            look(watch);
        }
    });
}

impl Watch {
    fn note(&mut self, found: Result<(), Violation>) {
        if let Err(violation) = found {
            self.violations.push(violation.to_string());
        }
    }
}

/// A task of some process was polled. `false` if time does not go on any more.
pub(super) fn polled() -> bool {
    let mut goes_on = true;
    watch(|watch| {
        let now = Instant::now();
        if watch.polled.0 != now {
            watch.polled = (now, 0);
        }
        watch.polled.1 += 1;
        goes_on = watch.polled.1 < POLLS_AT_ONCE_MAX;
        if !goes_on && watch.polled.1 == POLLS_AT_ONCE_MAX {
            let at = watch.began.elapsed();
            watch
                .violations
                .push(format!("an endless loop at {at:?} of simulated time"));
        }
    });
    goes_on
}

/// Where a voter stands in the list of the process that runs.
pub(crate) fn position(name: &str) -> Option<u64> {
    Process::current()?.position(name)
}

pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

pub(crate) fn granted(voter: NodeId, group: GroupId, term: u64, candidate: NodeId) {
    watch(|watch| {
        watch.votes += 1;
        let found = watch.witness.granted(voter, group, term, candidate);
        watch.note(found);
    });
}

pub(crate) fn count(what: &'static str) {
    watch(|watch| *watch.counted.entry(what).or_default() += 1);
}

pub(crate) fn led(node: NodeId, group: GroupId, term: u64) {
    watch(|watch| {
        let found = watch.witness.led(node, group, term);
        watch.note(found);
    });
}

pub(crate) fn applied(
    node: NodeId,
    group: GroupId,
    index: u64,
    term: u64,
    digest: impl FnOnce() -> [u8; 32],
) {
    watch(|watch| {
        watch.applied += 1;
        let found = watch.witness.applied(node, group, index, term, digest());
        watch.note(found);
    });
}

pub(crate) fn delivered(from: SocketAddr, to: SocketAddr, content: impl FnOnce() -> Vec<u8>) {
    watch(|watch| {
        let at = watch.began.elapsed().as_nanos();
        let content = content();
        let (from, to, bytes) = (from.port(), to.port(), content.len());
        let digest = blake3::hash(&content);
        watch
            .messages
            .push(format!("{at} ns, {from} to {to}, {bytes} B, {digest}"));
    });
}

/// The wall clock of the running process; of the machine outside of simulations.
pub(crate) fn now_ms() -> u64 {
    let elapsed = WATCH.with_borrow(|watch| watch.as_ref().map(|watch| watch.began.elapsed()));
    let Some(elapsed) = elapsed else {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        return since.map_or(0, |since| since.as_millis() as u64);
    };
    let ahead_ms = Process::current().map_or(0, |process| process.clock_ahead_ms());
    (EPOCH_MS + elapsed.as_millis() as u64).saturating_add_signed(ahead_ms)
}

pub(crate) use super::process::of_current;
