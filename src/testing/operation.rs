//! One call of a client, and what came of it.

/// What a client asked of its handle. A value is proposed by one call only, on one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// [`Once::write`](crate::Once::write) or [`set`](crate::Once::set) with this value.
    Write(u64),
    /// [`Once::claim`](crate::Once::claim) with this value. Retries of its
    /// [`Pending`](crate::Pending) belong to the same call.
    Claim(u64),
    /// [`Once::get_or_init`](crate::Once::get_or_init) with an initialiser that makes this value.
    GetOrInit(u64),
    /// [`Once::read`](crate::Once::read): a look at what the handle knows.
    Read,
    /// [`Once::read_linearizable`](crate::Once::read_linearizable).
    ReadLinearizable,
    /// [`Once::wait`](crate::Once::wait) or [`await_value`](crate::Once::await_value).
    Wait,
}

impl Call {
    /// The value that it may make the cell's.
    pub fn proposes(self) -> Option<u64> {
        match self {
            Self::Write(value) | Self::Claim(value) | Self::GetOrInit(value) => Some(value),
            Self::Read | Self::ReadLinearizable | Self::Wait => None,
        }
    }
}

/// What a client learned from its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// A write was committed at this version. It says nothing about who won.
    Acknowledged {
        /// What the write returned.
        version: u64,
    },
    /// This very value is the cell's: of a claim, or of an initialiser that ran and won.
    Won {
        /// Where the cell was decided.
        version: u64,
    },
    /// Another value than the claimed one is the cell's.
    Lost {
        /// The cell's value.
        winner: u64,
    },
    /// What a read, a wait or `get_or_init` returned.
    Saw {
        /// The cell's value, or none.
        value: Option<u64>,
        /// The handle's version right after; 0 while nothing is known.
        version: u64,
    },
    /// No answer in time, or the client died: it may have happened, and it may happen yet.
    Unclear,
}

/// A call with the times between which it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) client: u32,
    pub(super) cell: u32,
    pub(super) call: Call,
    pub(super) invoked: u64,
    /// The time of its return, and what it returned.
    pub(super) returned: Option<(u64, Outcome)>,
}

impl Operation {
    pub(super) fn outcome(&self) -> Outcome {
        self.returned
            .map_or(Outcome::Unclear, |(_, outcome)| outcome)
    }

    /// When it was over, if it has an answer. An unclear one may take effect at any time.
    pub(super) fn ended(&self) -> Option<u64> {
        match self.returned? {
            (_, Outcome::Unclear) => None,
            (at, _) => Some(at),
        }
    }

    /// The value that its answer says is the cell's.
    pub(super) fn seen(&self) -> Option<u64> {
        match self.outcome() {
            Outcome::Won { .. } => self.call.proposes(),
            Outcome::Lost { winner } => Some(winner),
            Outcome::Saw { value, .. } => value,
            Outcome::Acknowledged { .. } | Outcome::Unclear => None,
        }
    }

    /// Since when the cell is decided, by its answer: an acknowledged write has won or come after
    /// the one that has.
    pub(super) fn decided_by(&self) -> Option<u64> {
        match self.outcome() {
            Outcome::Acknowledged { .. } => self.ended(),
            _ => self.seen().and(self.ended()),
        }
    }

    /// The version in its answer: the log index of something that was committed by its end.
    pub(super) fn version(&self) -> Option<u64> {
        match self.outcome() {
            Outcome::Acknowledged { version }
            | Outcome::Won { version }
            | Outcome::Saw { version, .. } => Some(version),
            Outcome::Lost { .. } | Outcome::Unclear => None,
        }
    }

    /// The version in its answer is that of a command of its own.
    pub(super) fn is_command(&self) -> bool {
        matches!(
            self.outcome(),
            Outcome::Acknowledged { .. } | Outcome::Won { .. }
        )
    }

    /// A linearizable read that found the cell empty.
    pub(super) fn found_empty(&self) -> bool {
        self.call == Call::ReadLinearizable
            && matches!(self.outcome(), Outcome::Saw { value: None, .. })
    }
}
