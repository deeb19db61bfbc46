//! A model of how a group of three voters is born, finds a leader when it needs one, falls asleep
//! and wakes, and a search through every state that it can be in, within bounds.
//!
//! # What is modelled
//!
//! Voters with a disk (vote, log), writes that wait for it in order, and a memory that a crash
//! takes (`state.rs`). A birth: the first voter of the order writes its committed vote of term 1
//! and entry 1, and sends nothing before both are durable. All others have voted for it by birth,
//! and elect from term 2. Elections that somebody must want: a pending proposal or an unapplied
//! tail. Votes that are promises, durable before they are given; the vote that says who won, which
//! is queued and not waited for. A new leader's blank entry, and that only entries of its own term
//! are counted. Proposers that offer one id at any leader, as often as they like. The first write
//! to the slot wins. A leader that sleeps only without a tail and with all writes on disk, notes
//! on its disk if not every voter has applied all, and may lead when it wakes; whoever starts
//! after a crash does not (`storm.rs`).
//!
//! The network loses, repeats, reorders and delays without limit. What was sent is kept as a set
//! that only grows: any of it may arrive at any time, again, or never. As a leader's log only grows
//! in its term, the set is one log for each term, of which any prefix may arrive with any commit
//! up to the last; and tables of who asked for votes, granted them, and acknowledged how much.
//!
//! # What is left out, and why that is sound
//!
//! - Pre-votes, leases and timeouts, in the storm: without them more elections happen, never fewer.
//!   For the same reason the order of preference binds nobody there but the leader by birth.
//! - When a write reaches the disk: that is decided when somebody relies on it (an acknowledgement,
//!   a promise, a leader that counts itself, sleep), and by a crash, which keeps any prefix of what
//!   waited. Nobody can tell these runs from others. At most four writes wait. What was applied is
//!   written lazily behind its entries: a crash leaves any part of it.
//! - A follower asleep: it has nothing that is not on its disk, and whatever reaches it wakes it,
//!   so it is the same state as one that is idle.
//! - Answers that tell of a higher term: a voter that hears of one may elect itself above it at
//!   once, which is all that the answer could lead to.
//! - Touches in place of values for a decided slot: an entry that must be ignored all the more.
//! - Messages that can change nothing any more are forgotten; voters 1 and 2 and the two values
//!   are interchangeable, and one state stands for all that differ in these names alone. So the
//!   names may change from one step of a counterexample to the next.
//! - Not modelled at all: snapshots and purging, handing leadership over at a shutdown, a birth
//!   that is given up under way, disks that go back in time, observers, openraft's own queues.
//!
//! # What is shown
//!
//! In every state: no two values are decided, no applied entry is another one elsewhere, who is
//! told that it won or lost is told the truth, a term has one leader and a voter one vote in it.
//!
//! And nobody is ever stuck (`calm.rs`, `graph.rs`). From every state the storm may end in five
//! ways. One of the voters stays down for good and all that was on the way is lost, proposals being
//! pending: then the two others must be able to answer every one. Or all are up and no link breaks
//! any more, with and without pending proposals: with, all must be answered; without, nobody may
//! have a tail for ever, or follow a leader that never tells it what was applied. From then on
//! every step is a help that the design promises, an exchange as a whole, with elections held
//! behind a pre-vote, by one voter at a time, with a reason, and only if nobody leads. One term and
//! three entries more than in the storm are enough for that, and the walk would see it if not.
//! "Able to" is exact: every calm state is on a path of such steps to where it should get. It takes
//! for granted that no message is lost without a link that breaks: an election under way then ends
//! with a leader, and whoever knows none has had a link break and asks a majority what stands.
//!
//! # Bounds and figures
//!
//! States after symmetry, storm and calm together; CPU time of both searches on one core, optimised a little.
//!
//!     terms  entries  crashes     states
//!         2        2        1    303,395    about 10 s    in every run
//!         3        2        0    462,647    about 15 s    in every run
//!         2        2        2    662,946    minutes       RAFT_ONCE_MODEL=large
//!         3        2        1  1,872,187    minutes       RAFT_ONCE_MODEL=large
//!
//! The counterexamples of `defects.rs` reach beyond: up to four terms, three entries, two crashes.

mod calm;
mod defects;
mod graph;
mod packed;
mod proofs;
mod state;
mod storm;

use state::{Role, State, Told, VOTERS, Weather};
use stateright::{Model, Property};

const AGREEMENT: &str = "no two values are decided";
const IMMUTABLE: &str = "what was applied anywhere is never another entry elsewhere";
const ANSWERS: &str = "who is told it won did win, and who is told it lost did not";
const ONE_LEADER: &str = "one leader per term";
const ONE_VOTE: &str = "one vote per voter and term";

/// One thing that is done otherwise than the design says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Defect {
    /// A vote is given before it is on the disk.
    VoteNotDurable,
    /// A vote is given to a candidate with a shorter log.
    VoteIgnoresTheLog,
    /// That a leader won is queued behind its entries.
    VoteBehindEntries,
    /// A newborn voter has no vote, and may give that of term 1.
    NoVoteByBirth,
    /// The leader by birth sends its entry before it is on the disk.
    BirthSentBeforeDurable,
    /// The leader by birth does not look at its disk first.
    BornTwice,
    /// After a crash the leader by birth leads term 1 again.
    FirstbornLeadsAgain,
    /// After a crash any leader leads again.
    LeaderRestoredAfterCrash,
    /// A follower acknowledges what is not on its disk.
    AckBeforeDurable,
    /// What was applied is written before the entries it came from.
    AppliedBeforeEntries,
    /// A leader counts the copies of entries of older terms.
    CountsOlderTerms,
    /// A leader falls asleep with a tail or with writes under way, which are lost.
    SleepUnsynced,
    /// The last write to the slot wins.
    ApplyOverwrites,
    /// A proposal that is in the log twice is told that it lost.
    RetryToldLost,
    /// A leader falls asleep before all have applied, and does not note it.
    SleepLeavesTail,
    /// A proposal does not wake a leader that sleeps.
    SleeperNotWoken,
    /// The preferred voter elects alone, also when another has the longer log.
    NoHandover,
    /// A newborn voter waits for the leader by birth.
    NobodyElectsTheNewborn,
}

/// How far the storm goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) terms: u8,
    pub(crate) entries: u8,
    pub(crate) crashes: u8,
}

/// The protocol, as designed or with a defect.
pub(crate) struct Protocol {
    pub(crate) bounds: Bounds,
    pub(crate) defect: Option<Defect>,
    /// The one property to check, if not all.
    pub(crate) only: Option<&'static str>,
    /// What has happened before: each run begins with it.
    pub(crate) begun: &'static [Action],
    /// Whether the storm may end.
    pub(crate) ends: bool,
}

/// A step. Which of them can be taken in a state, the storm and the calm decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Birth {
        proposer: u8,
    },
    Propose {
        v: usize,
        proposer: u8,
    },
    Tell {
        v: usize,
        proposer: u8,
    },
    Acknowledge {
        v: usize,
    },
    Elect {
        v: usize,
        term: u8,
    },
    Grant {
        v: usize,
        term: u8,
        candidate: usize,
    },
    Win {
        v: usize,
    },
    Receive {
        v: usize,
        number: usize,
        len: u8,
        commit: u8,
    },
    Commit {
        v: usize,
        upto: u8,
        counts_itself: bool,
    },
    Sleep {
        v: usize,
    },
    Wake {
        v: usize,
    },
    Crash {
        v: usize,
        kept: usize,
        applied: u8,
    },
    EndStorm {
        down: Option<usize>,
        pending: bool,
    },
    StepDown {
        v: usize,
    },
    Replicate {
        v: usize,
        to: usize,
    },
    CommitAll {
        v: usize,
    },
    WakeAsFollower {
        v: usize,
    },
    Hold {
        v: usize,
    },
}

impl Protocol {
    /// As designed.
    pub(crate) fn within(bounds: Bounds) -> Protocol {
        let (defect, only, begun, ends) = (None, None, &[][..], true);
        Protocol {
            bounds,
            defect,
            only,
            begun,
            ends,
        }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State::newborn(self.bounds.crashes);
        if self.has(Defect::NoVoteByBirth) {
            state.voters[1].vote = Default::default();
            state.voters[2].vote = Default::default();
        }
        for action in self.begun {
            let next = self.storm_step(&state, *action);
            state = next.expect("a step that can be taken");
        }
        state.tidy();
        vec![state.canonical()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.weather != Weather::Storm {
            return self.calm_actions(state, actions);
        }
        self.storm_actions(state, actions);
        if !self.ends {
            return;
        }
        for v in 0..VOTERS {
            actions.push(Action::EndStorm {
                down: Some(v),
                pending: true,
            });
        }
        actions.push(Action::EndStorm {
            down: None,
            pending: true,
        });
        actions.push(Action::EndStorm {
            down: None,
            pending: false,
        });
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = match action {
            Action::EndStorm { down, pending } => self.end_storm(last, down, pending),
            _ if last.weather == Weather::Storm => self.storm_step(last, action)?,
            _ => self.calm_step(last, action)?,
        };
        state.tidy();
        Some(state.canonical())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let all = vec![
            Property::always(AGREEMENT, |_, s: &State| s.seen != 3),
            Property::always(IMMUTABLE, |_, s: &State| !s.rewritten),
            Property::always(ANSWERS, |_, s: &State| {
                s.told.iter().enumerate().all(|(p, told)| match told {
                    Told::Won => s.seen == 1 << p,
                    Told::Lost => s.seen == 2 >> p,
                    _ => true,
                })
            }),
            Property::always(ONE_LEADER, |_, s: &State| {
                s.led.iter().all(|l| l.count_ones() <= 1)
            }),
            Property::always(ONE_VOTE, |_, s: &State| {
                s.granted.iter().flatten().all(|g| g.count_ones() <= 1)
            }),
            Property::sometimes("decided by a leader by birth", |_, s: &State| {
                s.seen != 0 && s.chosen.get(1).is_some_and(|entry| entry.term == 1)
            }),
            Property::sometimes("decided by an elected leader", |_, s: &State| {
                s.seen != 0 && s.chosen.get(1).is_some_and(|entry| entry.term > 1)
            }),
            Property::sometimes("a proposal is committed twice", |_, s: &State| {
                s.chosen
                    .entries()
                    .filter(|entry| entry.proposer == Some(0))
                    .count()
                    > 1
            }),
            Property::sometimes(
                "a leader sleeps while a voter has not applied all",
                |_, s: &State| {
                    s.voters
                        .iter()
                        .any(|voter| voter.role == Role::Slept && voter.marked)
                },
            ),
            Property::sometimes("both proposers are answered", |_, s: &State| {
                s.told == [Told::Won, Told::Lost]
            }),
        ];
        let is_asked =
            |property: &Property<Self>| self.only.is_none_or(|only| only == property.name);
        all.into_iter().filter(is_asked).collect()
    }
}
