//! Votes, logs and queues of writes, a few bytes each.

/// How many writes may wait for a voter's disk.
const QUEUE_MAX: usize = 4;
/// The entries that fit into a log.
pub const LOG_MAX: u8 = 6;

/// What a log entry holds: nothing (a new leader's blank), or the proposal of a proposer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub term: u8,
    /// `None` in a blank entry.
    pub proposer: Option<u8>,
}

/// A log: entry `i` (the first is 1) in five bits each, term and proposer; an absent one is zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Log(u32);

/// The lower bit of each entry's proposer, and the bits of each entry's term.
const LOW_BITS: u32 = 0b00001_00001_00001_00001_00001_00001;
const TERM_BITS: u32 = 0b11100_11100_11100_11100_11100_11100;

impl Log {
    pub const EMPTY: Log = Log(0);

    pub fn bits(self) -> u32 {
        self.0
    }

    pub fn len(self) -> u8 {
        (32 - self.0.leading_zeros()).div_ceil(5) as u8
    }

    pub fn get(self, index: u8) -> Option<Entry> {
        let bits = (self.0 >> (5 * (index - 1))) & 31;
        let proposer = (bits & 3) as u8;
        (bits != 0).then_some(Entry {
            term: (bits >> 2) as u8,
            proposer: proposer.checked_sub(1),
        })
    }

    pub fn push(&mut self, entry: Entry) {
        assert!(self.len() < LOG_MAX);
        let bits = u32::from(entry.term) << 2 | u32::from(entry.proposer.map_or(0, |p| p + 1));
        self.0 |= bits << (5 * self.len());
    }

    #[must_use]
    pub fn first(self, len: u8) -> Log {
        Log(self.0 & ((1 << (5 * len)) - 1))
    }

    pub fn entries(self) -> impl Iterator<Item = Entry> {
        (1..=self.len()).map_while(move |index| self.get(index))
    }

    /// Term and index of the last entry, in an order that compares as Raft compares logs.
    pub fn last(self) -> u8 {
        let len = self.len();
        let term = if len == 0 { 0 } else { self.term(len) };
        term << 4 | len
    }

    pub fn term(self, index: u8) -> u8 {
        self.get(index).map_or(0, |entry| entry.term)
    }

    /// How long the two are the same as far as Raft can tell: by term and index.
    pub fn matching(self, other: Log) -> u8 {
        let differing = (self.0 ^ other.0) & TERM_BITS;
        let same = (differing.trailing_zeros() / 5) as u8;
        same.min(self.len()).min(other.len())
    }

    pub fn holds(self, proposer: u8) -> bool {
        self.entries().any(|entry| entry.proposer == Some(proposer))
    }

    pub fn swap_values(self) -> Log {
        let (low, high) = (self.0 & LOW_BITS, self.0 & LOW_BITS << 1);
        Log(self.0 & TERM_BITS | low << 1 | high >> 1)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[")?;
        for entry in self.entries() {
            let what = entry
                .proposer
                .map_or('-', |p| if p == 0 { 'A' } else { 'B' });
            write!(f, " {}{what}", entry.term)?;
        }
        write!(f, " ]")
    }
}

/// A vote: for whom, in which term, and whether that one is known to have won.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Vote(u8);

impl Vote {
    /// None was ever written.
    pub const NONE: Vote = Vote(0);
    /// The vote that every voter has by birth: in term 1, for the first of the order.
    pub const BY_BIRTH: Vote = Vote(1 << 3);

    pub fn new(term: u8, node: usize, committed: bool) -> Vote {
        Vote(term << 3 | (node as u8) << 1 | u8::from(committed))
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn term(self) -> u8 {
        self.0 >> 3
    }

    pub fn node(self) -> usize {
        usize::from(self.0 >> 1 & 3)
    }

    pub fn committed(self) -> bool {
        self.0 & 1 == 1
    }

    pub fn map(self, to: Permutation) -> Vote {
        if self.0 == 0 {
            return self;
        }
        Vote::new(self.term(), to.voter(self.node()), self.committed())
    }
}

impl std::fmt::Debug for Vote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let committed = if self.committed() { "!" } else { "" };
        write!(f, "{}:{}{committed}", self.term(), self.node())
    }
}

/// A write that waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Vote(Vote),
    /// Keeps so many entries.
    Truncate(u8),
    Append(Entry),
}

/// The writes that wait for a voter's disk, in order; a byte each, none is zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Queue([u8; QUEUE_MAX]);

impl Queue {
    pub const EMPTY: Queue = Queue([0; QUEUE_MAX]);

    pub fn bits(self) -> u32 {
        u32::from_le_bytes(self.0)
    }

    pub fn is_full(self) -> bool {
        self.len() == QUEUE_MAX
    }

    pub fn len(self) -> usize {
        self.0.iter().take_while(|byte| **byte != 0).count()
    }

    pub fn is_empty(self) -> bool {
        self.0[0] == 0
    }

    pub fn push(&mut self, write: Write) {
        let byte = match write {
            Write::Vote(vote) => 0x40 | vote.0,
            Write::Truncate(len) => 0x80 | len,
            Write::Append(entry) => {
                let mut log = Log::default();
                log.push(entry);
                0xc0 | log.0 as u8
            }
        };
        let end = self.len();
        self.0[end] = byte;
    }

    pub fn pop(&mut self) -> Option<Write> {
        let write = Queue::write(self.0[0])?;
        self.0.rotate_left(1);
        self.0[QUEUE_MAX - 1] = 0;
        Some(write)
    }

    fn write(byte: u8) -> Option<Write> {
        match byte >> 6 {
            1 => Some(Write::Vote(Vote(byte & 0x3f))),
            2 => Some(Write::Truncate(byte & 0x3f)),
            3 => Log(u32::from(byte & 0x3f)).get(1).map(Write::Append),
            _ => None,
        }
    }

    pub fn writes(self) -> impl Iterator<Item = Write> {
        self.0.into_iter().map_while(Queue::write)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.writes()).finish()
    }
}

/// Another naming of the same state.
#[derive(Clone, Copy)]
pub struct Permutation {
    /// 1 and 2 change places.
    pub voters: bool,
    pub values: bool,
}

impl Permutation {
    pub fn voter(self, voter: usize) -> usize {
        if self.voters && voter != 0 {
            3 - voter
        } else {
            voter
        }
    }

    pub fn voters_of(self, bits: u8) -> u8 {
        if self.voters {
            bits & 1 | (bits & 2) << 1 | (bits & 4) >> 1
        } else {
            bits
        }
    }

    pub fn value(self, value: u8) -> u8 {
        if self.values { 1 - value } else { value }
    }

    pub fn log(self, log: Log) -> Log {
        if self.values { log.swap_values() } else { log }
    }
}
