//! The limits that whoever runs a node may want to change. All others are constants, beside what
//! they limit.

/// A limit was set to what it cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitError {
    pub(crate) name: &'static str,
    pub(crate) value: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $default:literal, $min:literal..=$max:literal;)+) => {
        /// How much a voter keeps, and how much of it others may make it keep. Observers keep
        /// nothing, and need none of these.
        ///
        /// Give all voters the same ones: a proposal that one voter refuses is tried at the others.
        /// What is beyond a limit is refused in words, and counted in
        /// [`Figures`](crate::Figures).
        ///
        /// ```
        /// use raft_once::{Limits, Network};
        ///
        /// let limits = Limits::default().awake_groups_max(4_096).observer_links_max(64);
        /// let builder = Network::builder("orders").limits(limits);
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[doc = $doc])+ ///
            #[doc = concat!("The default is ", stringify!($default), "; it may be from ",
                stringify!($min), " to ", stringify!($max), ".")]
            pub $name: usize,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Limits {
            $(#[doc = concat!("Sets [`", stringify!($name), "`](Self#structfield.", stringify!($name), ").")]
            #[must_use]
            pub const fn $name(mut self, $name: usize) -> Self {
                self.$name = $name;
                self
            })+

            pub(crate) fn check(&self) -> Result<(), LimitError> {
                $(if !($min..=$max).contains(&self.$name) {
                    return Err(LimitError {
                        name: stringify!($name),
                        value: self.$name as u64,
                        min: $min,
                        max: $max,
                    });
                })+
                Ok(())
            }
        }
    };
}

limits! {
    /// Replicas that are awake at once, 124 to 340 KiB each and what their logs hold. A quarter of them is
    /// kept for messages of other voters.
    awake_groups_max: 16_384, 8..=1_048_576;
    /// Groups on disk. A voter that holds so many takes no proposals for new ones, and three
    /// quarters of it are open to observers; groups are never deleted. Those that are under way
    /// already, or that another voter has let in, are stored all the same.
    groups_stored_max: 16_777_216, 1..=1_073_741_824;
    /// New groups that one observer may ask this voter for in a second. One that has not asked for
    /// a while may ask for those of four seconds at once.
    observer_births_per_second_max: 512, 1..=1_000_000;
    /// Groups that are kept in memory because observers follow them or are at work on them, and
    /// twice that for voters.
    groups_of_observers_max: 262_144, 1..=16_777_216;
    /// Groups that one observer may follow at this voter.
    subscriptions_per_observer_max: 16_384, 1..=16_777_216;
    /// Links to observers.
    observer_links_max: 1_024, 0..=65_536;
    /// Bytes that may wait for this voter's disk before it takes no more proposals.
    disk_queue_bytes_max: 67_108_864, 1_048_576..=4_294_967_295;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_ranges() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let error = Limits::default().awake_groups_max(7).check().unwrap_err();
        let expected = LimitError {
            name: "awake_groups_max",
            value: 7,
            min: 8,
            max: 1_048_576,
        };
        assert_eq!(error, expected);
        assert_eq!(Limits::default().awake_groups_max(8).check(), Ok(()));
        assert!(
            Limits::default()
                .observer_links_max(65_537)
                .check()
                .is_err()
        );
    }
}
