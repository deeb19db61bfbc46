//! Walks through every state that can be reached, and finds those from which no help leads on.
//!
//! stateright's `eventually` misses what goes round in circles, so it cannot tell this. Here the
//! edges of all calm states are kept, and a search backwards from the goals marks every state that
//! can still reach one. In a finite graph "from every state a goal can be reached" is as much as
//! can be asked of a protocol with chance in it: a run that picks among its steps at random, with
//! no step ruled out for ever, reaches a goal with probability one.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use stateright::Model;

use super::state::{State, Weather};
use super::{Action, Protocol};

/// A state from which something cannot be reached, and a way to get there.
pub struct Stuck {
    pub state: State,
    pub way: Vec<Action>,
}

pub struct Graph {
    pub states: usize,
    pub calm: usize,
    /// Somebody waits for an answer, and none can ever come.
    pub unanswered: Option<Stuck>,
    /// Somebody follows a leader that will never tell it what stands.
    pub deaf: Option<Stuck>,
}

struct Walk<'a> {
    protocol: &'a Protocol,
    /// By hash of a state, its number.
    known: HashMap<u64, u32>,
    hasher: RandomState,
    /// By number: where it was found.
    parents: Vec<u32>,
    /// Edges between calm states, by number: from, to.
    edges: Vec<(u32, u32)>,
    waiting: Vec<u32>,
    deaf: Vec<u32>,
    calm: Vec<u32>,
}

/// Explores everything.
pub fn explore(protocol: &Protocol) -> Graph {
    let mut walk = Walk {
        protocol,
        known: HashMap::new(),
        hasher: RandomState::new(),
        parents: Vec::new(),
        edges: Vec::new(),
        waiting: Vec::new(),
        deaf: Vec::new(),
        calm: Vec::new(),
    };
    let mut queue = VecDeque::new();
    for state in protocol.init_states() {
        walk.number(&state, 0);
        queue.push_back(state);
    }
    let mut next = 0;
    let mut actions = Vec::new();
    while let Some(state) = queue.pop_front() {
        let from = next;
        next += 1;
        let is_calm = state.weather != Weather::Storm;
        actions.clear();
        protocol.actions(&state, &mut actions);
        for action in &actions {
            let Some(to) = protocol.next_state(&state, *action) else {
                continue;
            };
            let (number, is_new) = walk.number(&to, from);
            if is_calm {
                walk.edges.push((from, number));
            }
            if is_new {
                queue.push_back(to);
            }
        }
    }
    walk.judge()
}

impl Walk<'_> {
    fn number(&mut self, state: &State, parent: u32) -> (u32, bool) {
        let next = self.parents.len() as u32;
        let hash = self.hasher.hash_one(state);
        let number = *self.known.entry(hash).or_insert(next);
        if number == next {
            self.parents.push(parent);
            if state.weather != Weather::Storm {
                self.calm.push(number);
                if Protocol::waits(state) {
                    self.waiting.push(number);
                }
                if Protocol::is_deaf(state) {
                    self.deaf.push(number);
                }
            }
        }
        (number, number == next)
    }

    fn judge(mut self) -> Graph {
        self.edges.sort_unstable_by_key(|(_, to)| *to);
        let unanswered = self.stuck(&self.waiting);
        let deaf = self.stuck(&self.deaf);
        Graph {
            states: self.parents.len(),
            calm: self.calm.len(),
            unanswered: unanswered.map(|number| self.retrace(number)),
            deaf: deaf.map(|number| self.retrace(number)),
        }
    }

    /// The first of the `bad` calm states that can reach none that is not bad.
    fn stuck(&self, bad: &[u32]) -> Option<u32> {
        let mut reaches = vec![true; self.parents.len()];
        bad.iter()
            .for_each(|number| reaches[*number as usize] = false);
        let mut goals: Vec<u32> = self.calm.clone();
        goals.retain(|number| reaches[*number as usize]);
        while let Some(goal) = goals.pop() {
            let first = self.edges.partition_point(|(_, to)| *to < goal);
            for (from, _) in self.edges[first..].iter().take_while(|(_, to)| *to == goal) {
                if !std::mem::replace(&mut reaches[*from as usize], true) {
                    goals.push(*from);
                }
            }
        }
        bad.iter()
            .copied()
            .find(|number| !reaches[*number as usize])
    }

    /// How a state was found, by taking the same steps again.
    fn retrace(&self, number: u32) -> Stuck {
        let mut numbers = vec![number];
        while let Some(last) = numbers.last().copied().filter(|number| *number != 0) {
            numbers.push(self.parents[last as usize]);
        }
        let mut state = self.protocol.init_states()[0];
        let mut way = Vec::new();
        for number in numbers.into_iter().rev().skip(1) {
            let steps = self.protocol.next_steps(&state);
            let mut steps = steps.into_iter();
            let step = steps.find(|(_, to)| self.known[&self.hasher.hash_one(to)] == number);
            let (action, to) = step.expect("it was found by one of these steps");
            way.push(action);
            state = to;
        }
        Stuck { state, way }
    }
}
