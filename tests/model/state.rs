//! What a state of the model is made of, packed small: millions of them are kept.

use super::packed::{Entry, Log, Permutation, Queue, Vote, Write};

/// How many voters there are. The first of the group's preference order is voter 0.
pub const VOTERS: usize = 3;
/// How many proposers there are, each with one value and one proposal id.
pub const PROPOSERS: usize = 2;
/// The terms that fit: 1 to this one.
pub const TERM_MAX: u8 = 5;
/// Only the storm's terms are told of the network; the one after it is not.
const TERMS: usize = TERM_MAX as usize;
/// The logs that leaders have sent and that may still be on the way.
const SENT_MAX: usize = 5;

/// What a voter is, as far as its memory is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub enum Role {
    /// Knows no leader: newborn, just started, or it has voted. Awake or asleep: waking is a part
    /// of the step that needs it, and its memory is what is on its disk.
    #[default]
    Alone,
    /// Has heard from the leader of its term. Awake, or asleep as above.
    Follows,
    Candidate,
    Leader,
    /// A leader put cleanly to sleep by a process that runs on: it may wake as the leader.
    Slept,
    /// For good (after the storm only).
    Down,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Voter {
    pub role: Role,
    pub vote: Vote,
    pub log: Log,
    pub applied: u8,
    /// Noted on disk: not every voter had applied all when this one fell asleep as the leader.
    pub marked: bool,
    /// The vote on disk; the zero vote while nothing of the group is on disk.
    pub disk_vote: Vote,
    pub disk_log: Log,
    pub queue: Queue,
}

impl Voter {
    const NEWBORN: Voter = Voter {
        role: Role::Alone,
        vote: Vote::BY_BIRTH,
        log: Log::EMPTY,
        applied: 0,
        marked: false,
        disk_vote: Vote::NONE,
        disk_log: Log::EMPTY,
        queue: Queue::EMPTY,
    };

    /// Nothing of the group is on its disk.
    pub fn is_newborn(&self) -> bool {
        self.disk_vote == Vote::NONE
    }

    pub fn has_tail(&self) -> bool {
        self.applied < self.log.len()
    }

    pub fn leads(&self, term: u8) -> bool {
        matches!(self.role, Role::Leader | Role::Slept) && self.vote.term() == term
    }

    /// Brings the oldest waiting write to the disk.
    pub fn sync_one(&mut self) {
        // Whatever is written first, the vote by birth is written with it.
        match self.queue.pop() {
            Some(Write::Vote(vote)) => self.disk_vote = vote,
            Some(Write::Truncate(len)) => {
                self.disk_vote = self.disk_vote.max(Vote::BY_BIRTH);
                self.disk_log = self.disk_log.first(len);
            }
            Some(Write::Append(entry)) => {
                self.disk_vote = self.disk_vote.max(Vote::BY_BIRTH);
                self.disk_log.push(entry);
            }
            None => {}
        }
    }

    /// Brings writes to the disk until it holds this much of the log.
    pub fn sync_until(&mut self, len: u8) {
        while self.disk_log.matching(self.log) < len && !self.queue.is_empty() {
            self.sync_one();
        }
    }

    /// Queues a write; a queue that is full waits for the disk.
    pub fn write(&mut self, write: Write) {
        if self.queue.is_full() {
            self.sync_one();
        }
        self.queue.push(write);
    }

    pub fn sync_all(&mut self) {
        while !self.queue.is_empty() {
            self.sync_one();
        }
    }

    fn map(self, to: Permutation) -> Voter {
        let mut queue = Queue::default();
        for write in self.queue.writes() {
            queue.push(match write {
                Write::Vote(vote) => Write::Vote(vote.map(to)),
                Write::Append(entry) => Write::Append(Entry {
                    proposer: entry.proposer.map(|p| to.value(p)),
                    ..entry
                }),
                Write::Truncate(_) => write,
            });
        }
        Voter {
            vote: self.vote.map(to),
            log: to.log(self.log),
            disk_vote: self.disk_vote.map(to),
            disk_log: to.log(self.disk_log),
            queue,
            ..self
        }
    }
}

/// Everything the leader of a term has sent: any prefix of the log, any commit up to this one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Sent {
    pub term: u8,
    pub leader: u8,
    pub log: Log,
    pub commit: u8,
}

/// What a proposer knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Told {
    /// Offers its value, at any voter, again and again under the same id.
    Pending,
    GaveUp,
    Won,
    Lost,
}

/// Where the faults are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Weather {
    /// Crashes, losses and delays of everything.
    Storm,
    /// One voter is down for good; the links of the others were cut, and are back.
    OneDown,
    /// All voters are up, and no link has gone down.
    Calm,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct State {
    pub voters: [Voter; VOTERS],
    /// The network: see the top of this target. Sorted, the empty ones last.
    pub sent: [Sent; SENT_MAX],
    /// By term and candidate: the end of its log when it asked for votes, and one more.
    pub asked: [[u8; VOTERS]; TERMS],
    /// By term and voter: the candidates it granted its vote, a bit each.
    pub granted: [[u8; VOTERS]; TERMS],
    /// By term and voter: how far it has the log of the term's leader on disk, and has said so.
    pub acked: [[u8; VOTERS]; TERMS],
    /// By term: who led it, a bit each.
    pub led: [u8; TERMS],
    pub told: [Told; PROPOSERS],
    /// The values that any voter ever had in its record, a bit each.
    pub seen: u8,
    /// The longest log that anybody ever applied.
    pub chosen: Log,
    /// An applied entry was not the one that was applied elsewhere before.
    pub rewritten: bool,
    pub crashes_left: u8,
    pub weather: Weather,
}

impl std::hash::Hash for State {
    /// As derived, but in few words: most of the time goes into this.
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        for voter in &self.voters {
            let small = [
                voter.role as u8,
                voter.vote.bits(),
                voter.applied,
                u8::from(voter.marked),
                voter.disk_vote.bits(),
            ];
            let small = small
                .into_iter()
                .fold(0, |all, byte| all << 8 | u64::from(byte));
            hasher.write_u64(small << 32 ^ u64::from(voter.queue.bits()));
            hasher.write_u64(u64::from(voter.log.bits()) << 32 | u64::from(voter.disk_log.bits()));
            hasher.write_u8(voter.role as u8);
        }
        for sent in &self.sent {
            let small = u64::from(sent.term) << 16 | u64::from(sent.leader) << 8;
            hasher.write_u64(u64::from(sent.log.bits()) << 32 | small | u64::from(sent.commit));
        }
        for table in [&self.asked, &self.granted, &self.acked] {
            let mut words = [0u64; 2];
            for (number, byte) in table.iter().flatten().enumerate() {
                words[number / 8] |= u64::from(*byte) << (8 * (number % 8));
            }
            hasher.write_u64(words[0]);
            hasher.write_u64(words[1]);
        }
        let small = [
            self.told[0] as u8,
            self.told[1] as u8,
            self.seen,
            u8::from(self.rewritten),
            self.crashes_left,
            self.weather as u8,
        ];
        let small = small
            .into_iter()
            .fold(0, |all, byte| all << 8 | u64::from(byte));
        hasher.write_u64(small);
        let led = self
            .led
            .iter()
            .fold(0, |all, bits| all << 3 | u32::from(*bits));
        hasher.write_u64(u64::from(self.chosen.bits()) << 32 | u64::from(led));
    }
}

impl State {
    pub fn newborn(crashes_left: u8) -> State {
        State {
            voters: [Voter::NEWBORN; VOTERS],
            sent: [Sent::default(); SENT_MAX],
            asked: [[0; VOTERS]; TERMS],
            granted: [[0; VOTERS]; TERMS],
            acked: [[0; VOTERS]; TERMS],
            led: [0; TERMS],
            told: [Told::Pending; PROPOSERS],
            seen: 0,
            chosen: Log::default(),
            rewritten: false,
            crashes_left,
            weather: Weather::Storm,
        }
    }

    pub fn on_the_way(&self) -> impl Iterator<Item = Sent> + use<> {
        self.sent.into_iter().take_while(|sent| sent.term > 0)
    }

    /// Adds to what is on the way, and drops what is a part of it.
    pub fn send(&mut self, new: Sent) {
        let is_part = |part: &Sent, of: &Sent| {
            part.term == of.term
                && part.leader == of.leader
                && part.commit <= of.commit
                && of.log.first(part.log.len()) == part.log
        };
        if self.on_the_way().any(|old| is_part(&new, &old)) {
            return;
        }
        let all = *self;
        let kept = all.on_the_way().filter(|old| !is_part(old, &new));
        self.set_sent(kept.chain([new]));
    }

    fn set_sent(&mut self, all: impl Iterator<Item = Sent>) {
        let mut sent = [Sent::default(); SENT_MAX];
        let mut count = 0;
        for one in all {
            sent[count] = one;
            count += 1;
        }
        sent[..count].sort_unstable();
        self.sent = sent;
    }

    /// Forgets what can have no effect any more, so that states that differ in nothing else are one.
    pub fn tidy(&mut self) {
        let promised = |v: usize| {
            let voter = &self.voters[v];
            voter.disk_vote.term().max(voter.vote.term().min(1))
        };
        let terms: [u8; VOTERS] = std::array::from_fn(promised);
        let floor = terms.into_iter().min().unwrap_or(1);
        for term in 1..TERMS as u8 {
            let t = usize::from(term);
            if term < floor {
                self.led[t] = 0;
            }
            let mut running = 0;
            for (v, voter) in self.voters.iter().enumerate() {
                let runs = voter.role == Role::Candidate && voter.vote.term() == term;
                running |= u8::from(runs) << v;
            }
            for v in 0..VOTERS {
                // Nobody else can grant it any more, or not otherwise than it has.
                if (0..VOTERS).all(|other| other == v || terms[other] >= term) {
                    self.asked[t][v] = 0;
                }
                // Its disk lets it grant nobody else that vote; for the candidate it is one while it runs.
                if terms[v] >= term {
                    self.granted[t][v] &= running;
                }
            }
            if !self.voters.iter().any(|voter| voter.leads(term)) {
                self.acked[t] = [0; VOTERS];
            }
        }
        let all = *self;
        let is_live = |sent: &Sent| {
            let others = (0..VOTERS).filter(|v| *v != usize::from(sent.leader));
            others.into_iter().any(|v| {
                let voter = &all.voters[v];
                let heard = Vote::new(sent.term, usize::from(sent.leader), true);
                let knows = voter.disk_vote == heard
                    && voter.disk_log.first(sent.log.len()) == sent.log
                    && voter.vote == heard
                    && voter.log.first(sent.log.len()) == sent.log
                    && voter.applied >= sent.commit;
                terms[v] <= sent.term && (!knows || all.crashes_may_undo(voter))
            })
        };
        self.set_sent(all.on_the_way().filter(is_live));
    }

    /// What a voter has applied may be forgotten in a crash, and then it must be told again.
    fn crashes_may_undo(&self, voter: &Voter) -> bool {
        voter.applied > 0 && self.crashes_left > 0
    }

    /// Voters 1 and 2 have the same part, and so have the two values: of the states that differ
    /// in these names alone, the least stands for all.
    #[must_use]
    pub fn canonical(self) -> State {
        let mut least = self;
        for voters in [false, true] {
            for values in [false, true] {
                let to = Permutation { voters, values };
                // The voters decide most comparisons, and they come first.
                if (voters || values) && self.map_voters(to) <= least.voters {
                    least = least.min(self.map(to));
                }
            }
        }
        least
    }

    fn map_voters(&self, to: Permutation) -> [Voter; VOTERS] {
        std::array::from_fn(|v| self.voters[to.voter(v)].map(to))
    }

    fn map(self, to: Permutation) -> State {
        let mut mapped = self;
        mapped.voters = self.map_voters(to);
        for t in 0..TERMS {
            for v in 0..VOTERS {
                mapped.asked[t][to.voter(v)] = self.asked[t][v];
                mapped.acked[t][to.voter(v)] = self.acked[t][v];
                mapped.granted[t][to.voter(v)] = to.voters_of(self.granted[t][v]);
            }
            mapped.led[t] = to.voters_of(self.led[t]);
        }
        let sent = self.on_the_way().map(|sent| Sent {
            leader: to.voter(usize::from(sent.leader)) as u8,
            log: to.log(sent.log),
            ..sent
        });
        mapped.set_sent(sent);
        if to.values {
            mapped.told.reverse();
            mapped.seen = self.seen >> 1 | (self.seen & 1) << 1;
        }
        mapped.chosen = to.log(self.chosen);
        mapped
    }
}
