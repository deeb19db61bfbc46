//! What remains when the faults end: steps that help, and nothing else.
//!
//! Messages arrive and disks keep up, so that a step is a whole exchange. An election is preceded
//! by a pre-vote, and held only by a voter that has a reason to hold it and knows no leader that
//! answers. These guards are the rules that could leave a group without a leader.

use super::packed::{LOG_MAX, Log, Vote};
use super::state::{PROPOSERS, Role, Sent, State, TERM_MAX, Told, VOTERS, Voter, Weather};
use super::{Action, Defect, Protocol};

/// The voter that the group prefers.
const PREFERRED: usize = 0;
const MAJORITY: usize = 2;

impl Protocol {
    /// The end of the faults. With a voter `down`, that one never comes back, and all that was on
    /// the way is lost. Without, no link ever breaks again. Whether proposals are still `pending`.
    pub(super) fn end_storm(&self, last: &State, down: Option<usize>, pending: bool) -> State {
        let mut state = *last;
        state.weather = if down.is_some() {
            Weather::OneDown
        } else {
            Weather::Calm
        };
        for told in &mut state.told {
            if !pending && *told == Told::Pending {
                *told = Told::GaveUp;
            }
        }
        for (v, voter) in state.voters.iter_mut().enumerate() {
            voter.sync_all();
            if down == Some(v) {
                *voter = State::newborn(0).voters[v];
                voter.role = Role::Down;
            } else if voter.role == Role::Candidate || down.is_some() && voter.role == Role::Follows
            {
                // An election that is under way ends, and a link that breaks is noticed.
                voter.role = Role::Alone;
            }
        }
        // Nothing that is on the way is needed, and what has been is in the disks.
        state.sent = State::newborn(0).sent;
        state.asked = State::newborn(0).asked;
        state.granted = State::newborn(0).granted;
        state.acked = State::newborn(0).acked;
        state.led = State::newborn(0).led;
        state.chosen = Log::default();
        state.crashes_left = 0;
        state
    }

    pub(super) fn calm_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for v in 0..VOTERS {
            match state.voters[v].role {
                Role::Leader => {
                    actions.push(Action::StepDown { v });
                    actions.push(Action::CommitAll { v });
                    for proposer in 0..PROPOSERS as u8 {
                        actions.push(Action::Propose { v, proposer });
                        actions.push(Action::Tell { v, proposer });
                    }
                    for to in (0..VOTERS).filter(|to| *to != v) {
                        actions.push(Action::Replicate { v, to });
                    }
                }
                Role::Slept => {
                    actions.push(Action::Wake { v });
                    actions.push(Action::WakeAsFollower { v });
                }
                Role::Alone | Role::Follows => actions.push(Action::Hold { v }),
                Role::Candidate | Role::Down => {}
            }
        }
    }

    pub(super) fn calm_step(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::StepDown { v } => {
                let newer = |vote: &Vote| vote.term() > state.voters[v].vote.term();
                let newest = up(&state)
                    .map(|u| state.voters[u].vote)
                    .max()
                    .filter(newer)?;
                let voter = &mut state.voters[v];
                voter.role = Role::Alone;
                voter.vote = Vote::new(newest.term(), newest.node(), false);
            }
            Action::Replicate { v, to } => self.replicate(&mut state, v, to)?,
            Action::CommitAll { v } => {
                let voter = &state.voters[v];
                let end = voter.log.len();
                let holders = up(&state).filter(|u| {
                    let other = &state.voters[*u];
                    other.vote == voter.vote && other.log.matching(voter.log) == end
                });
                if !voter.has_tail()
                    || holders.count() < MAJORITY
                    || voter.log.term(end) != voter.vote.term()
                {
                    return None;
                }
                self.apply(&mut state, v, end);
            }
            Action::Propose { v, proposer } => {
                let is_pending = state.told[usize::from(proposer)] == Told::Pending;
                let voter = &state.voters[v];
                if !is_pending || voter.log.holds(proposer) || voter.log.len() >= LOG_MAX {
                    return None;
                }
                self.append(&mut state, v, Some(proposer));
            }
            Action::Tell { v, proposer } => {
                let told = &mut state.told[usize::from(proposer)];
                if *told != Told::Pending {
                    return None;
                }
                *told = self.reply(&state.voters[v], proposer)?;
            }
            Action::Wake { v } | Action::WakeAsFollower { v } => {
                // A proposal comes to it, as its followers know it for the leader, or it has noted
                // that somebody was out of its reach.
                let asked = is_asked(&state) && !self.has(Defect::SleeperNotWoken);
                let voter = &mut state.voters[v];
                if !asked && !voter.marked {
                    return None;
                }
                let leads = action == Action::Wake { v };
                voter.role = if leads { Role::Leader } else { Role::Alone };
                voter.marked &= !leads;
            }
            Action::Hold { v } => self.hold_election(&mut state, v)?,
            _ => return None,
        }
        for voter in &mut state.voters {
            voter.sync_all();
        }
        // The one thing of the network that counts here is what the disks hold.
        state.sent = [Sent::default(); _];
        state.led = State::newborn(0).led;
        state.chosen = Log::default();
        Some(state)
    }

    /// A leader repeats entries, and how far they are committed, until that is acknowledged.
    fn replicate(&self, state: &mut State, v: usize, to: usize) -> Option<()> {
        let leader = state.voters[v];
        let follower = &mut state.voters[to];
        let is_known = follower.vote == leader.vote
            && follower.log == leader.log
            && follower.applied == leader.applied;
        if follower.role == Role::Down || is_known || follower.vote.term() > leader.vote.term() {
            return None;
        }
        let applied = follower.applied;
        if leader.log.first(applied) != follower.log.first(applied) {
            state.rewritten = true;
        }
        follower.role = Role::Follows;
        follower.vote = leader.vote;
        follower.disk_vote = leader.vote;
        follower.log = leader.log;
        follower.disk_log = leader.log;
        // What it has applied is committed, so it is a part of any leader's log.
        let upto = leader.applied.max(follower.applied);
        self.apply(state, to, upto);
        Some(())
    }

    /// Whether a voter that leads nobody has a reason to hold an election.
    fn wants_leader(&self, state: &State, v: usize) -> bool {
        let voter = &state.voters[v];
        let leader = &state.voters[voter.vote.node()];
        let answers = matches!(leader.role, Role::Leader | Role::Slept);
        match voter.role {
            // It hands what it is asked to its leader: that one leads, or wakes, or has this one
            // elect.
            Role::Follows => is_asked(state) && !answers || voter.marked,
            Role::Alone => is_asked(state) || voter.marked,
            _ => false,
        }
    }

    fn hold_election(&self, state: &mut State, v: usize) -> Option<()> {
        let somebody_leads = up(state).any(|u| state.voters[u].role == Role::Leader);
        if somebody_leads || !self.wants_leader(state, v) {
            return None;
        }
        if self.has(Defect::NoHandover)
            && v != PREFERRED
            && state.voters[PREFERRED].role != Role::Down
        {
            return None;
        }
        if self.has(Defect::NobodyElectsTheNewborn) && state.voters[v].is_newborn() {
            return None;
        }
        let last = state.voters[v].log.last();
        let granting: Vec<usize> = up(state)
            .filter(|u| last >= state.voters[*u].log.last())
            .collect();
        let term = up(state).map(|u| state.voters[u].vote.term()).max()? + 1;
        if granting.len() < MAJORITY {
            return None;
        }
        assert!(
            term <= TERM_MAX,
            "one election must do, as nobody leads at the end of a storm"
        );
        for u in granting {
            let voter = &mut state.voters[u];
            voter.role = Role::Alone;
            voter.vote = Vote::new(term, v, false);
            voter.disk_vote = voter.vote;
        }
        let voter = &mut state.voters[v];
        voter.role = Role::Leader;
        voter.marked = false;
        voter.vote = Vote::new(term, v, true);
        voter.disk_vote = voter.vote;
        assert!(voter.log.len() < LOG_MAX);
        self.append(state, v, None);
        Some(())
    }

    /// The storm has ended and somebody still waits for the answer to a proposal.
    pub(super) fn waits(state: &State) -> bool {
        state.weather != Weather::Storm && is_wanted(state)
    }

    /// The storm has ended, and somebody has not heard what was decided, or may not yet know
    /// whether something was: and nobody proposes anything.
    pub(super) fn is_deaf(state: &State) -> bool {
        let newest = state.voters.iter().map(|voter| voter.applied).max();
        let is_behind = |voter: &Voter| voter.role == Role::Follows && Some(voter.applied) < newest;
        let unheard = || state.voters.iter().any(is_behind);
        state.weather == Weather::Calm && !is_wanted(state) && (any_tail(state) || unheard())
    }
}

fn up(state: &State) -> impl Iterator<Item = usize> + use<'_> {
    (0..VOTERS).filter(|v| state.voters[*v].role != Role::Down)
}

/// A proposal is pending.
fn is_wanted(state: &State) -> bool {
    state.told.contains(&Told::Pending)
}

/// A proposal is pending, or not all know the same while somebody knows no leader. That one has
/// had a link break: it asks what stands, and a tail must be settled. Or it took part in an
/// election that is under way, and as nothing is lost any more, that ends with a leader.
fn is_asked(state: &State) -> bool {
    let any_alone = up(state).any(|u| state.voters[u].role == Role::Alone);
    let newest = up(state).map(|u| state.voters[u].applied).max();
    let knows = |u: usize| Some(state.voters[u].applied) == newest;
    is_wanted(state) || any_alone && (any_tail(state) || !up(state).all(knows))
}

fn any_tail(state: &State) -> bool {
    up(state).any(|u| state.voters[u].has_tail())
}
