//! What voters, proposers and faults may do while anything may go wrong.

use super::packed::{Entry, Log, Vote, Write};
use super::state::{PROPOSERS, Role, Sent, State, Told, VOTERS, Voter};
use super::{Action, Defect, Protocol};

/// The term that the first of the preference order leads by birth.
const FIRST_TERM: u8 = 1;
const MAJORITY: usize = 2;
const FIRSTBORN: usize = 0;

impl Protocol {
    pub(super) fn storm_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for proposer in 0..PROPOSERS as u8 {
            if state.told[usize::from(proposer)] == Told::Pending {
                actions.push(Action::Birth { proposer });
                for v in 0..VOTERS {
                    actions.push(Action::Propose { v, proposer });
                    actions.push(Action::Tell { v, proposer });
                }
            }
        }
        for (v, voter) in state.voters.iter().enumerate() {
            actions.push(Action::Acknowledge { v });
            let own = voter.vote.term();
            let highest = state.voters.iter().map(|other| other.vote.term()).max();
            actions.push(Action::Elect { v, term: own + 1 });
            if let Some(term) = highest
                .map(|highest| highest + 1)
                .filter(|term| *term > own + 1)
            {
                actions.push(Action::Elect { v, term });
            }
            for term in own..=self.bounds.terms {
                for candidate in (0..VOTERS).filter(|c| *c != v) {
                    actions.push(Action::Grant { v, term, candidate });
                }
            }
            for (number, sent) in state.on_the_way().enumerate() {
                for len in voter.log.matching(sent.log)..=sent.log.len() {
                    for commit in 0..=sent.commit.min(len) {
                        if commit == 0 || commit > voter.applied {
                            actions.push(Action::Receive {
                                v,
                                number,
                                len,
                                commit,
                            });
                        }
                    }
                }
            }
            if voter.role == Role::Candidate {
                actions.push(Action::Win { v });
            }
            if voter.role == Role::Leader {
                for upto in voter.applied + 1..=voter.log.len() {
                    for counts_itself in [true, false] {
                        actions.push(Action::Commit {
                            v,
                            upto,
                            counts_itself,
                        });
                    }
                }
            }
            actions.push(Action::Sleep { v });
            if voter.role == Role::Slept {
                actions.push(Action::Wake { v });
            }
            if state.crashes_left > 0 && !(voter.is_newborn() && voter.queue.is_empty()) {
                for kept in 0..=voter.queue.len() {
                    for applied in 0..=voter.applied {
                        actions.push(Action::Crash { v, kept, applied });
                    }
                }
            }
        }
    }

    /// What a step leads to, if it can be taken.
    pub(super) fn storm_step(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Birth { proposer } => self.bear(&mut state, proposer)?,
            Action::Propose { v, proposer } => {
                let (voter, entries) = (&state.voters[v], self.bounds.entries);
                if voter.role != Role::Leader || voter.log.len() >= entries {
                    return None;
                }
                self.append(&mut state, v, Some(proposer));
            }
            Action::Tell { v, proposer } => {
                state.told[usize::from(proposer)] = self.reply(&state.voters[v], proposer)?;
            }
            Action::Acknowledge { v } => self.acknowledge(&mut state, v)?,
            Action::Elect { v, term } => self.elect(&mut state, v, term)?,
            Action::Grant { v, term, candidate } => self.grant(&mut state, v, term, candidate)?,
            Action::Win { v } => self.win(&mut state, v)?,
            Action::Receive {
                v,
                number,
                len,
                commit,
            } => {
                let sent = state.sent[number];
                self.receive(&mut state, v, sent, len, commit)?;
            }
            Action::Commit {
                v,
                upto,
                counts_itself,
            } => {
                self.commit(&mut state, v, upto, counts_itself)?;
            }
            Action::Sleep { v } => self.sleep(&mut state, v)?,
            Action::Wake { v } => {
                let voter = &mut state.voters[v];
                voter.role = Role::Leader;
                voter.marked = false;
            }
            Action::Crash { v, kept, applied } => self.crash(&mut state, v, kept, applied)?,
            _ => return None,
        }
        if state.crashes_left == 0 && !self.has(Defect::SleepUnsynced) {
            // Nothing can be lost any more: a write that is late is as an answer that is late.
            state.voters.iter_mut().for_each(Voter::sync_all);
        }
        Some(state)
    }

    /// The leader by birth writes its vote and its first entry, and when both are durable it is
    /// awake as the leader. It has sent nothing before, so that a crash on the way leaves nothing
    /// or this.
    fn bear(&self, state: &mut State, proposer: u8) -> Option<()> {
        let voter = &mut state.voters[FIRSTBORN];
        let again = self.has(Defect::BornTwice) && voter.vote.term() == FIRST_TERM;
        if voter.role != Role::Alone
            || !(voter.is_newborn() && voter.vote == Vote::BY_BIRTH || again)
        {
            return None;
        }
        voter.role = Role::Leader;
        voter.vote = Vote::new(FIRST_TERM, FIRSTBORN, true);
        voter.log = Log::default();
        voter.applied = 0;
        let first = Entry {
            term: FIRST_TERM,
            proposer: Some(proposer),
        };
        voter.log.push(first);
        if self.has(Defect::BirthSentBeforeDurable) {
            voter.write(Write::Vote(voter.vote));
            voter.write(Write::Append(first));
        } else {
            (voter.disk_vote, voter.disk_log) = (voter.vote, voter.log);
        }
        self.lead(state, FIRSTBORN);
        Some(())
    }

    /// A leader appends to its log and sends it, durable here or not.
    pub(super) fn append(&self, state: &mut State, v: usize, proposer: Option<u8>) {
        let voter = &mut state.voters[v];
        let entry = Entry {
            term: voter.vote.term(),
            proposer,
        };
        voter.log.push(entry);
        voter.write(Write::Append(entry));
        self.send(state, v);
    }

    fn send(&self, state: &mut State, v: usize) {
        let voter = &state.voters[v];
        let (term, leader) = (voter.vote.term(), v as u8);
        state.send(Sent {
            term,
            leader,
            log: voter.log,
            commit: voter.applied,
        });
    }

    fn lead(&self, state: &mut State, v: usize) {
        let term = usize::from(state.voters[v].vote.term());
        state.led[term] |= 1 << v;
        self.send(state, v);
    }

    /// The answer to a proposal, by a voter that has applied it: as the leader that it was
    /// proposed at, or read from the record later.
    pub(super) fn reply(&self, voter: &Voter, proposer: u8) -> Option<Told> {
        let applied = voter.log.first(voter.applied);
        let won = self.record(applied) == Some(proposer);
        if matches!(voter.role, Role::Slept | Role::Down) || !applied.holds(proposer) {
            return None;
        }
        let copies = applied
            .entries()
            .filter(|entry| entry.proposer == Some(proposer));
        if self.has(Defect::RetryToldLost) && copies.count() > 1 {
            return Some(Told::Lost);
        }
        Some(if won { Told::Won } else { Told::Lost })
    }

    /// What the slot holds when this much is applied: the first write wins.
    pub(super) fn record(&self, applied: Log) -> Option<u8> {
        let mut values = applied.entries().filter_map(|entry| entry.proposer);
        if self.has(Defect::ApplyOverwrites) {
            values.last()
        } else {
            values.next()
        }
    }

    /// Somebody must want a leader: a proposal, or an entry that may or may not be committed. That
    /// no leader is known or can be reached is always possible in a storm. A leader must have
    /// heard of a higher term. A vote is durable before anybody is asked.
    fn elect(&self, state: &mut State, v: usize, term: u8) -> Option<()> {
        let wanted = state.told.contains(&Told::Pending) || state.voters[v].has_tail();
        let heard_of = state
            .voters
            .iter()
            .any(|other| other.vote.term() > state.voters[v].vote.term());
        let voter = &mut state.voters[v];
        let deposed = voter.role != Role::Leader || heard_of;
        if !wanted || !deposed || term > self.bounds.terms {
            return None;
        }
        // A leader put to sleep leads when it wakes, unless a message wakes it as a follower.
        voter.role = Role::Candidate;
        voter.vote = Vote::new(term, v, false);
        self.promise(voter);
        state.asked[usize::from(term)][v] = voter.log.last() + 1;
        state.granted[usize::from(term)][v] |= 1 << v;
        Some(())
    }

    /// Makes the vote durable, and all that waits for the disk before it.
    fn promise(&self, voter: &mut Voter) {
        voter.write(Write::Vote(voter.vote));
        if !self.has(Defect::VoteNotDurable) {
            voter.sync_all();
        }
    }

    fn grant(&self, state: &mut State, v: usize, term: u8, candidate: usize) -> Option<()> {
        let last = state.asked[usize::from(term)][candidate];
        let voter = &mut state.voters[v];
        let asked = Vote::new(term, candidate, false);
        let may = term > voter.vote.term() || voter.vote == asked;
        let is_behind = last <= voter.log.last() && !self.has(Defect::VoteIgnoresTheLog);
        let was_asked = last > 0;
        let is_known = state.granted[usize::from(term)][v] & 1 << candidate != 0;
        if !was_asked || !may || is_behind || is_known {
            return None;
        }
        voter.role = Role::Alone;
        voter.vote = asked;
        self.promise(voter);
        state.granted[usize::from(term)][v] |= 1 << candidate;
        Some(())
    }

    /// A majority granted its vote. That it won is written, not waited for, before its entries.
    fn win(&self, state: &mut State, v: usize) -> Option<()> {
        let voter = &mut state.voters[v];
        let granted = state.granted[usize::from(voter.vote.term())];
        let votes = granted.iter().filter(|granted| **granted & 1 << v != 0);
        let room = voter.log.len() < self.bounds.entries;
        if votes.count() < MAJORITY || !room {
            return None;
        }
        voter.role = Role::Leader;
        voter.marked = false;
        voter.vote = Vote::new(voter.vote.term(), v, true);
        voter.write(Write::Vote(voter.vote));
        self.append(state, v, None);
        self.lead(state, v);
        Some(())
    }

    /// A follower takes a message of a leader: the log up to `len`, and what of it is committed.
    fn receive(&self, state: &mut State, v: usize, sent: Sent, len: u8, commit: u8) -> Option<()> {
        let leader = usize::from(sent.leader);
        // What a leader sent may arrive when it leads no more; but whose link broke is told anew.
        let sender = &state.voters[leader];
        let is_there = sender.role == Role::Leader && sender.leads(sent.term);
        let voter = &mut state.voters[v];
        let vote = Vote::new(sent.term, leader, true);
        let is_of_another = voter.vote.committed() && voter.vote.node() != leader;
        if leader == v
            || voter.vote.term() > sent.term
            || voter.vote.term() == sent.term && is_of_another
        {
            return None;
        }
        let mut writes = Vec::new();
        if voter.vote != vote {
            writes.push(Write::Vote(vote));
        }
        let new = sent.log.first(len);
        let matching = voter.log.matching(new);
        if matching < len {
            if matching < voter.log.len() {
                writes.push(Write::Truncate(matching));
                voter.log = voter.log.first(matching);
                // A voter that follows the rules has applied none of these.
                voter.applied = voter.applied.min(matching);
            }
            for entry in new.entries().skip(usize::from(matching)) {
                writes.push(Write::Append(entry));
                voter.log.push(entry);
            }
        }
        if self.has(Defect::VoteBehindEntries) && matches!(writes.first(), Some(Write::Vote(_))) {
            writes.rotate_left(1);
        }
        writes.into_iter().for_each(|write| voter.write(write));
        let followed = voter.role == Role::Follows && voter.vote == vote;
        voter.vote = vote;
        voter.role = if is_there || followed {
            Role::Follows
        } else {
            Role::Alone
        };
        self.apply(state, v, commit);
        Some(())
    }

    /// A follower says how far it has the log of its leader on its disk.
    fn acknowledge(&self, state: &mut State, v: usize) -> Option<()> {
        let voter = &mut state.voters[v];
        let is_heard =
            |sent: &Sent| voter.vote == Vote::new(sent.term, usize::from(sent.leader), true);
        let acked = &mut state.acked[usize::from(voter.vote.term())];
        let sent = state.sent.iter().find(|sent| is_heard(sent))?;
        let held = voter.log.matching(sent.log);
        if usize::from(sent.leader) == v || held <= acked[v] {
            return None;
        }
        acked[v] = held;
        if !self.has(Defect::AckBeforeDurable) {
            voter.sync_until(held);
        }
        Some(())
    }

    /// A leader knows an entry of its own term on the disks of a majority, its own counting when
    /// it is durable there too; all before it is committed with it.
    fn commit(&self, state: &mut State, v: usize, upto: u8, counts_itself: bool) -> Option<()> {
        let voter = &mut state.voters[v];
        let term = voter.vote.term();
        let acked = state.acked[usize::from(term)];
        let others = (0..VOTERS).filter(|u| *u != v && acked[*u] >= upto).count();
        let of_own_term = voter.log.term(upto) == term || self.has(Defect::CountsOlderTerms);
        if usize::from(counts_itself) + others < MAJORITY || !of_own_term {
            return None;
        }
        if counts_itself {
            voter.sync_until(upto);
        }
        self.apply(state, v, upto);
        self.send(state, v);
        Some(())
    }

    /// Applies the log up to an index, and compares with what anybody ever applied.
    pub(super) fn apply(&self, state: &mut State, v: usize, upto: u8) {
        let voter = &mut state.voters[v];
        for index in voter.applied + 1..=upto {
            voter.applied = index;
            let applied = voter.log.first(index);
            if let Some(value) = self.record(applied) {
                state.seen |= 1 << value;
            }
            if state.chosen.len() < index {
                state.chosen = applied;
            } else if state.chosen.first(index) != applied {
                state.rewritten = true;
            }
        }
    }

    /// A leader with nothing left to do falls asleep, and notes it if it could not tell everybody;
    /// then somebody was out of its reach.
    fn sleep(&self, state: &mut State, v: usize) -> Option<()> {
        let unsynced = self.has(Defect::SleepUnsynced);
        let voter = &mut state.voters[v];
        if voter.role != Role::Leader || voter.has_tail() && !unsynced {
            return None;
        }
        if !unsynced {
            voter.sync_all();
        }
        let end = voter.log.len();
        let all_applied = state.voters.iter().all(|other| other.applied >= end);
        let voter = &mut state.voters[v];
        voter.marked = !all_applied && !self.has(Defect::SleepLeavesTail);
        voter.role = Role::Slept;
        if unsynced {
            self.reread(voter, voter.applied);
        }
        Some(())
    }

    /// The process is gone, and with it all writes but those that were `kept`; it starts again. Of
    /// what was applied, any part may have been written, behind the entries it came from.
    /// Everybody's link to it drops, and it to them: who follows its leader across a gap asks a
    /// majority what stands.
    fn crash(&self, state: &mut State, v: usize, kept: usize, applied: u8) -> Option<()> {
        let voter = &mut state.voters[v];
        (0..kept).for_each(|_| voter.sync_one());
        let written = voter.disk_log.matching(voter.log);
        if applied > written && !self.has(Defect::AppliedBeforeEntries) {
            return None;
        }
        state.crashes_left -= 1;
        for other in &mut state.voters {
            if other.role == Role::Follows {
                other.role = Role::Alone;
            }
        }
        let voter = &mut state.voters[v];
        voter.role = Role::Alone;
        self.reread(voter, applied);
        let (restored, first) = (
            Defect::LeaderRestoredAfterCrash,
            Defect::FirstbornLeadsAgain,
        );
        let vote = voter.disk_vote;
        let led = vote.committed() && vote.node() == v;
        if led && (self.has(restored) || self.has(first) && vote.term() == FIRST_TERM) {
            voter.role = Role::Leader;
            self.send(state, v);
        }
        Some(())
    }

    /// An instance starts from what is on the disk; what waits for it is lost.
    fn reread(&self, voter: &mut Voter, applied: u8) {
        voter.queue = Default::default();
        voter.vote = voter.disk_vote;
        if !self.has(Defect::NoVoteByBirth) {
            voter.vote = voter.vote.max(Vote::BY_BIRTH);
        }
        voter.log = voter.disk_log;
        voter.applied = applied.min(voter.log.len());
    }
}
