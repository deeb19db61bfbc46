//! What somebody wants to be told of a group: of a map perhaps some slots only.

use std::collections::BTreeMap;

use crate::codec::{AtMost, Decode, Encode};
use crate::machine::Slot;

use super::slots::Range;

/// The most ranges of slots that one follower of a map is told of, and the most bytes of their
/// bounds; whoever wants more is told of all.
pub(super) const RANGES_MAX: usize = 64;
const SCOPE_BYTES_MAX: usize = 4 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Scope {
    All,
    /// Decisions on these slots alone: ranges in order, that neither overlap nor touch.
    Slots(AtMost<Range, RANGES_MAX>),
}

impl Scope {
    pub(crate) fn of<'a>(ranges: impl IntoIterator<Item = &'a Range>) -> Self {
        let mut sorted: Vec<&Range> = ranges
            .into_iter()
            .filter(|range| !range.is_empty())
            .collect();
        sorted.sort_unstable_by(|one, other| one.from.cmp(&other.from));
        let mut apart: Vec<Range> = Vec::new();
        for range in sorted {
            match apart.last_mut() {
                Some(last) if last.to.as_ref().is_none_or(|to| range.from <= *to) => {
                    if last.to.is_some() && (range.to.is_none() || range.to > last.to) {
                        last.to.clone_from(&range.to);
                    }
                }
                _ => apart.push(range.clone()),
            }
        }
        let is_all = |range: &Range| range.from.is_empty() && range.to.is_none();
        let bytes: usize = apart.iter().map(Range::bytes).sum();
        if apart.len() > RANGES_MAX || bytes > SCOPE_BYTES_MAX || apart.iter().any(is_all) {
            return Self::All;
        }
        Self::Slots(AtMost::new(apart))
    }

    /// As it would have been made here: a peer may have sent anything.
    pub(crate) fn normal(&self) -> Self {
        match self {
            Self::All => Self::All,
            Self::Slots(ranges) => Self::of(ranges.iter()),
        }
    }

    /// About what it takes in memory, beside itself.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Slots(ranges) => {
                let bounds: usize = ranges.iter().map(Range::bytes).sum();
                bounds + ranges.len() * size_of::<Range>()
            }
        }
    }

    /// Whoever wants this is to be told of a decision on any of these slots.
    pub(crate) fn touches(&self, slots: &[Slot]) -> bool {
        match self {
            Self::All => true,
            Self::Slots(ranges) => slots.iter().any(|slot| {
                let behind = ranges.partition_point(|range| range.from <= *slot);
                behind > 0 && ranges[behind - 1].contains(slot)
            }),
        }
    }

    /// Whoever is told of this is told of all of `other`.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Slots(_), Self::All) => false,
            (Self::Slots(ours), Self::Slots(theirs)) => theirs
                .iter()
                .all(|range| ours.iter().any(|our| our.includes(range))),
        }
    }
}

/// Ranges of slots that somebody waits for, and how often; all slots are a range too.
#[derive(Default)]
pub(crate) struct Wants(BTreeMap<Range, usize>);

impl Wants {
    pub(crate) fn add(&mut self, range: &Range) {
        *self.0.entry(range.clone()).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, range: &Range) {
        if let Some(count) = self.0.get_mut(range) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(range);
            }
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope::of(self.0.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &str, to: &str) -> Range {
        Range {
            from: from.into(),
            to: (!to.is_empty()).then(|| to.into()),
        }
    }

    fn scope(ranges: &[(&str, &str)]) -> Scope {
        let ranges: Vec<_> = ranges.iter().map(|(from, to)| range(from, to)).collect();
        Scope::of(&ranges)
    }

    #[test]
    fn ranges_are_put_in_order_and_merged_where_they_meet() {
        let merged = scope(&[
            ("m", "p"),
            ("c", "e"),
            ("x", "x"),
            ("a", "c"),
            ("d", "f"),
            ("n", "o"),
        ]);
        assert_eq!(merged, scope(&[("a", "f"), ("m", "p")]));
        let Scope::Slots(ranges) = &merged else {
            panic!("{merged:?}");
        };
        assert_eq!(ranges.len(), 2);
        for (slot, is_in) in [
            ("a", true),
            ("ez", true),
            ("f", false),
            ("l", false),
            ("o", true),
            ("p", false),
        ] {
            assert_eq!(merged.touches(&[slot.into()]), is_in, "{slot}");
        }
        assert!(merged.touches(&["z".into(), "b".into()]) && !merged.touches(&[]));
        assert_eq!(scope(&[("b", ""), ("c", "d"), ("", "b")]), Scope::All);
        assert_eq!(scope(&[("b", ""), ("c", "")]), scope(&[("b", "")]));
    }

    #[test]
    fn a_scope_covers_what_lies_in_it() {
        let wide = scope(&[("a", "f"), ("m", "")]);
        for (narrow, is_in) in [
            (scope(&[]), true),
            (scope(&[("a", "f")]), true),
            (scope(&[("b", "c"), ("x", "")]), true),
            (scope(&[("e", "g")]), false),
            (scope(&[("a", "")]), false),
            (Scope::All, false),
        ] {
            assert_eq!(wide.covers(&narrow), is_in, "{narrow:?}");
            assert!(Scope::All.covers(&narrow) && narrow.covers(&scope(&[])));
        }
    }

    #[test]
    fn what_is_too_much_to_keep_is_all() {
        let keys = |count: usize, bytes: usize| {
            let key = |n: usize| [&[n as u8][..], &vec![0; bytes]].concat();
            let ranges = (0..count).map(|n| Range::of_slot(key(2 * n)));
            Scope::of(&ranges.collect::<Vec<_>>())
        };
        assert_ne!(keys(RANGES_MAX, 8), Scope::All);
        assert_eq!(keys(RANGES_MAX + 1, 8), Scope::All);
        assert_eq!(keys(3, 1_000), Scope::All);
        let Scope::Slots(ranges) = keys(RANGES_MAX, 8) else {
            panic!("all");
        };
        let mut hostile = ranges.into_vec();
        hostile.reverse();
        let hostile = Scope::Slots(AtMost::new(hostile));
        assert_eq!(hostile.normal(), keys(RANGES_MAX, 8));
    }
}
