//! Short histories of one cell: those of a register, those somebody has tampered with, and ones
//! that no register comes near to.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::super::history::{History, OpId};
use super::super::operation::{Call, Operation, Outcome};

/// The search is exponential in it.
const OPERATIONS_MAX: usize = 8;
/// Leaves room between the times of a history for what is planted later.
const TICKS: u64 = 3;

/// A call that has begun and not ended.
struct Pending {
    op: OpId,
    client: u32,
    call: Call,
    /// What it will return: it took effect.
    effect: Option<Outcome>,
}

/// A register with its clients, and the log that versions count.
struct Register {
    value: Option<u64>,
    log: u64,
    history: History,
    /// Unused so far. A client that gave a call up is replaced.
    next_client: u32,
    idle: Vec<u32>,
    pending: Vec<Pending>,
    /// Given up. They may take effect yet.
    abandoned: Vec<Pending>,
    /// What each client knows: these have seen the cell decided.
    knowing: BTreeSet<u32>,
}

impl Register {
    fn invoke(&mut self, rng: &mut StdRng) {
        if self.idle.is_empty() {
            return;
        }
        let client = self.idle.swap_remove(rng.random_range(0..self.idle.len()));
        let value = 10 + self.history.len() as u64;
        let call = match rng.random_range(0..10) {
            0..=2 => Call::Write(value),
            3..=4 => Call::Claim(value),
            5 => Call::GetOrInit(value),
            6..=7 => Call::ReadLinearizable,
            8 => Call::Wait,
            _ => {
                self.look(rng, client);
                self.idle.push(client);
                return;
            }
        };
        let op = self.history.invoke(client, 0, call);
        self.pending.push(Pending {
            op,
            client,
            call,
            effect: None,
        });
    }

    /// A local read: the value, or nothing if it has not come to this handle yet.
    fn look(&mut self, rng: &mut StdRng, client: u32) {
        let lags = !self.knowing.contains(&client) && rng.random_bool(0.4);
        let value = self.value.filter(|_| !lags);
        if value.is_some() {
            self.knowing.insert(client);
        }
        self.history.observe(client, 0, value, self.log);
    }

    /// The moment at which the call takes effect.
    fn effect(&mut self, rng: &mut StdRng, call: Call) -> Option<Outcome> {
        let Some(proposed) = call.proposes() else {
            let can_return = call == Call::ReadLinearizable || self.value.is_some();
            return can_return.then_some(Outcome::Saw {
                value: self.value,
                version: self.log,
            });
        };
        if let (Call::GetOrInit(_), Some(_)) = (call, self.value) {
            return Some(Outcome::Saw {
                value: self.value,
                version: self.log,
            });
        }
        self.log += rng.random_range(1..=2);
        let version = self.log;
        let winner = *self.value.get_or_insert(proposed);
        Some(match call {
            Call::Write(_) => Outcome::Acknowledged { version },
            _ if winner == proposed => Outcome::Won { version },
            _ => Outcome::Lost { winner },
        })
    }

    fn take_effect(&mut self, rng: &mut StdRng) {
        let late = !self.abandoned.is_empty() && rng.random_bool(0.3);
        let from = if late { &self.abandoned } else { &self.pending };
        let waiting = from.iter().enumerate().filter(|(_, p)| p.effect.is_none());
        let waiting: Vec<(usize, Call)> = waiting.map(|(index, p)| (index, p.call)).collect();
        let Some(&(index, call)) = waiting.choose(rng) else {
            return;
        };
        let effect = self.effect(rng, call);
        let from = if late {
            &mut self.abandoned
        } else {
            &mut self.pending
        };
        from[index].effect = effect;
    }

    fn finish(&mut self, rng: &mut StdRng) {
        if self.pending.is_empty() {
            return;
        }
        let index = rng.random_range(0..self.pending.len());
        if rng.random_bool(0.1) {
            let pending = self.pending.swap_remove(index);
            if rng.random_bool(0.5) {
                self.history.finish(pending.op, Outcome::Unclear);
            }
            self.abandoned.push(pending);
            self.idle.push(self.next_client);
            self.next_client += 1;
            return;
        }
        let Some(outcome) = self.pending[index].effect else {
            return;
        };
        let pending = self.pending.swap_remove(index);
        self.history.finish(pending.op, outcome);
        let is_empty = matches!(outcome, Outcome::Saw { value: None, .. });
        if !is_empty {
            self.knowing.insert(pending.client);
        }
        self.idle.push(pending.client);
    }
}

/// What clients of a register may have recorded.
pub(super) fn valid(rng: &mut StdRng) -> History {
    let clients = rng.random_range(2..=4);
    let length = rng.random_range(1..=OPERATIONS_MAX);
    let mut register = Register {
        value: None,
        log: 0,
        history: History::new(),
        next_client: clients,
        idle: (0..clients).collect(),
        pending: vec![],
        abandoned: vec![],
        knowing: BTreeSet::new(),
    };
    while register.history.len() < length {
        match rng.random_range(0..3) {
            0 => register.invoke(rng),
            1 => register.take_effect(rng),
            _ => register.finish(rng),
        }
    }
    // Most calls still come to an end.
    for _ in 0..rng.random_range(0..4 * OPERATIONS_MAX) {
        register.take_effect(rng);
        register.finish(rng);
    }
    let mut history = register.history;
    for operation in &mut history.operations {
        operation.invoked *= TICKS;
        operation.returned = operation
            .returned
            .map(|(at, outcome)| (at * TICKS, outcome));
    }
    history
}

/// Changes one thing, which may or may not make the history wrong, and keeps it well-formed.
pub(super) fn tamper(rng: &mut StdRng, operations: &mut Vec<Operation>) {
    let index = rng.random_range(0..operations.len());
    match rng.random_range(0..7) {
        // Times: a call that is moved, or takes shorter or longer.
        0 => {
            let end = end_of(operations);
            let op = &mut operations[index];
            op.invoked = rng.random_range(0..=op.returned.map_or(end, |(at, _)| at));
        }
        1 => {
            let end = end_of(operations);
            let op = &mut operations[index];
            let at = rng.random_range(op.invoked..=end.max(op.invoked));
            op.returned = op.returned.map(|(_, outcome)| (at, outcome));
        }
        2 => {
            let other = rng.random_range(0..operations.len());
            let (one, two) = (operations[index], operations[other]);
            operations[index].invoked = two.invoked;
            operations[other].invoked = one.invoked;
            let times = (one.returned, two.returned);
            if let (Some((first, mine)), Some((second, theirs))) = times {
                operations[index].returned = Some((second, mine));
                operations[other].returned = Some((first, theirs));
            }
            for op in [index, other].map(|at| operations[at]) {
                if op.returned.is_some_and(|(at, _)| at < op.invoked) {
                    (operations[index], operations[other]) = (one, two);
                    return;
                }
            }
        }
        // Answers: another one that the call could have had.
        3 | 4 => {
            let outcome = any_outcome(rng, operations, operations[index].call);
            let end = end_of(operations);
            let op = &mut operations[index];
            let at = op.returned.map_or(end.max(op.invoked), |(at, _)| at);
            op.returned = Some((at, outcome));
        }
        // What was known is forgotten.
        5 => {
            let op = &mut operations[index];
            op.returned = op.returned.map(|(at, _)| (at, Outcome::Unclear));
        }
        // Somebody else was there: mostly one who found nothing.
        _ if operations.len() < OPERATIONS_MAX => {
            let call = match rng.random_range(0..4) {
                0 => Call::Read,
                _ => Call::ReadLinearizable,
            };
            let value = match rng.random_range(0..4) {
                0 => any_value(rng, operations),
                _ => None,
            };
            let end = end_of(operations);
            let invoked = rng.random_range(0..=end);
            let at = rng.random_range(invoked..=end);
            operations.push(Operation {
                client: 99,
                cell: 0,
                call,
                invoked,
                returned: Some((at, Outcome::Saw { value, version: 0 })),
            });
        }
        _ => {}
    }
}

/// Calls and answers at random times, few enough that some fit together.
pub(super) fn arbitrary(rng: &mut StdRng) -> Vec<Operation> {
    let length = rng.random_range(1..=5);
    let mut operations = vec![];
    for index in 0..length {
        let value = 10 + index;
        let call = match rng.random_range(0..6) {
            0 => Call::Write(value),
            1 => Call::Claim(value),
            2 => Call::GetOrInit(value),
            3 => Call::Read,
            4 => Call::ReadLinearizable,
            _ => Call::Wait,
        };
        let invoked = rng.random_range(0..12);
        operations.push(Operation {
            client: index as u32,
            cell: 0,
            call,
            invoked,
            returned: None,
        });
    }
    for index in 0..operations.len() {
        let Operation { call, invoked, .. } = operations[index];
        let outcome = any_outcome(rng, &operations, call);
        operations[index].returned = Some((rng.random_range(invoked..=12), outcome));
    }
    operations
}

fn end_of(operations: &[Operation]) -> u64 {
    let ends = operations
        .iter()
        .map(|op| op.returned.map_or(op.invoked, |(at, _)| at));
    ends.max().unwrap_or_default()
}

/// One that was proposed, seldom none that was; or none.
fn any_value(rng: &mut StdRng, operations: &[Operation]) -> Option<u64> {
    let proposed: Vec<u64> = operations
        .iter()
        .filter_map(|op| op.call.proposes())
        .collect();
    match rng.random_range(0..10) {
        0 => Some(7),
        1..=2 => None,
        _ => proposed.choose(rng).copied(),
    }
}

/// An outcome that this call can have, true or not.
fn any_outcome(rng: &mut StdRng, operations: &[Operation], call: Call) -> Outcome {
    let version = 1;
    let value = any_value(rng, operations);
    match call {
        _ if rng.random_bool(0.1) => Outcome::Unclear,
        Call::Write(_) => Outcome::Acknowledged { version },
        Call::Claim(_) | Call::GetOrInit(_) if rng.random_bool(0.4) => Outcome::Won { version },
        Call::Claim(own) => Outcome::Lost {
            winner: value.unwrap_or(own),
        },
        Call::GetOrInit(own) => Outcome::Saw {
            value: value.or(Some(own)),
            version,
        },
        Call::Wait => match value {
            None => Outcome::Unclear,
            value => Outcome::Saw { value, version },
        },
        Call::Read | Call::ReadLinearizable => Outcome::Saw { value, version },
    }
}
