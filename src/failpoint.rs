//! Named places at which a test can have the process die at once, as by SIGKILL: around every step
//! that makes something durable, and around every message.
//!
//! Without the feature `testing` they are compiled to nothing. With it, [`ENV`] arms one of them at
//! the start of the process, `name:count`: the process aborts when it comes to `name` for the
//! `count`th time.

/// The variable of the environment that arms a failpoint.
#[cfg(feature = "testing")]
pub const ENV: &str = "RAFT_ONCE_FAILPOINT";

/// Every failpoint, from the disk upwards.
#[cfg(any(test, feature = "testing"))]
pub const NAMES: [&str; 47] = [
    // A first start: nothing of the store is there, an empty checkpoint without its name, the first
    // segment too, and all of it while its names may not be on disk.
    "create.before_checkpoint",
    "create.before_segment",
    "create.before_rename",
    "create.after_rename",
    // Every start: the names that are there, the checkpoint, the last group once more.
    "recovery.before_names",
    "recovery.after_names",
    "recovery.after_checkpoint",
    // A segment whose creation a crash cut short goes.
    "recovery.before_unused",
    "recovery.between_unused",
    "recovery.after_unused",
    "recovery.before_settle",
    "recovery.before_sync",
    "recovery.after_sync",
    // The log: before a group of batches is written, between the write and its sync, and when it
    // is durable but nobody has been told.
    "store.before_write",
    "store.before_sync",
    "store.after_sync",
    // A new segment: a file without a header, a header on disk whose name may not be, all of it.
    "segment.before_header",
    "segment.before_names",
    "segment.after_names",
    "segment.before_remove",
    "segment.after_remove",
    "checkpoint.before_commit",
    "checkpoint.after_commit",
    // A voter's past: its own start, who has confirmed it, and what it remembers of a peer.
    "past.before_start",
    "past.after_start",
    "past.before_qualify",
    "past.after_qualify",
    "past.before_verdict",
    "past.after_verdict",
    "link.before_request",
    "link.after_request",
    "link.before_reply",
    "link.after_reply",
    // A group: a birth, a vote, entries that are durable and not yet acknowledged, a state that is
    // applied and not yet told, old entries that go, and a snapshot that comes in their place.
    "group.before_birth",
    "group.after_birth",
    "group.before_first_seal",
    "group.before_vote",
    "group.after_vote",
    "group.before_acknowledge",
    "group.before_apply",
    "group.after_apply",
    "group.before_purge",
    "group.after_purge",
    "group.before_install",
    "group.after_install",
    // A group that falls asleep while a voter is away.
    "mark.before_write",
    "mark.after_write",
];

/// Dies here if this failpoint is armed and its time has come.
#[cfg(feature = "testing")]
#[inline]
pub(crate) fn hit(name: &'static str) {
    if armed::POSSIBLY.load(std::sync::atomic::Ordering::Relaxed) {
        armed::hit(name);
    }
}

/// Nothing: the feature `testing` is off.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn hit(_: &'static str) {}

#[cfg(feature = "testing")]
mod armed {
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::{ENV, NAMES};

    /// False once it is known that nothing is armed.
    pub(super) static POSSIBLY: AtomicBool = AtomicBool::new(true);

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    #[derive(Debug)]
    struct Armed {
        name: &'static str,
        /// Hits that are left; the one that finds 1 is the last.
        left: AtomicU64,
    }

    #[cold]
    pub(super) fn hit(name: &'static str) {
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var(ENV).ok()?;
            Some(parse(&text).unwrap_or_else(|| panic!("{ENV}={text} is no failpoint")))
        });
        let Some(armed) = armed else {
            POSSIBLY.store(false, Ordering::Relaxed);
            return;
        };
        if armed.name == name && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Nothing that could run a destructor or flush a buffer but this line.
            let _ = writeln!(std::io::stderr(), "failpoint {name}: abort");
            std::process::abort();
        }
    }

    fn parse(text: &str) -> Option<Armed> {
        let (name, count) = text.split_once(':')?;
        let name = NAMES.into_iter().find(|known| *known == name)?;
        let count: u64 = count.parse().ok().filter(|count| *count > 0)?;
        Some(Armed {
            name,
            left: AtomicU64::new(count),
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_arms_is_a_known_name_and_a_count() {
            let armed = parse("store.before_sync:3").unwrap();
            assert_eq!(armed.name, "store.before_sync");
            assert_eq!(armed.left.into_inner(), 3);
            for bad in [
                "",
                "store.before_sync",
                "store.before_sync:0",
                "store:1",
                "x:y",
            ] {
                assert!(parse(bad).is_none(), "{bad}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::NAMES;

    fn sources(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_name_stands_at_one_place_and_no_place_has_another_name() {
        let mut text = String::new();
        sources(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut text,
        );
        let opening = ["failpoint::hit", "(\""].concat();
        let mut places: Vec<_> = text
            .split(&opening)
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        places.sort_unstable();
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        assert_eq!(places, names);
    }
}
