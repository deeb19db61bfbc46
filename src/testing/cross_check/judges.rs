//! Two judges that search through all orders: stateright's `LinearizabilityTester`, once with a
//! specification of just our calls, and once with its own write-once register.
//!
//! Each operation is a thread of its own, so that only time orders them. Of equal times,
//! invocations come first: such operations overlap.

use stateright::semantics::write_once_register::{WORegister, WORegisterOp, WORegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::super::operation::{Call, Operation, Outcome};

/// The operations that say anything about the register, with their begins and ends in order. A
/// local read of nothing may be stale and says nothing.
fn events(operations: &[Operation]) -> Vec<(u64, bool, usize)> {
    let mut events = vec![];
    for (index, op) in operations.iter().enumerate() {
        let is_stale =
            op.call == Call::Read && matches!(op.outcome(), Outcome::Saw { value: None, .. });
        if is_stale {
            continue;
        }
        events.push((op.invoked, false, index));
        if let Some((at, _)) = op
            .returned
            .filter(|(_, outcome)| *outcome != Outcome::Unclear)
        {
            events.push((at, true, index));
        }
    }
    events.sort_unstable();
    events
}

/// A cell as calls see it, but for versions.
#[derive(Clone, Debug)]
struct OnceCell(Option<u64>);

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Acknowledged,
    Won,
    Lost(u64),
    Saw(Option<u64>),
}

impl SequentialSpec for OnceCell {
    type Op = Call;
    type Ret = Answer;

    /// Of an operation without an answer. Its effect is all that matters.
    fn invoke(&mut self, call: &Call) -> Answer {
        if let Some(value) = call.proposes() {
            self.0.get_or_insert(value);
        }
        Answer::Saw(self.0)
    }

    fn is_valid_step(&mut self, call: &Call, answer: &Answer) -> bool {
        let before = self.0;
        match (*call, answer) {
            (Call::Write(value), Answer::Acknowledged) => {
                self.0.get_or_insert(value);
                true
            }
            (Call::Claim(value) | Call::GetOrInit(value), Answer::Won) => {
                self.0 = Some(value);
                before.is_none()
            }
            (Call::Claim(_), Answer::Lost(winner)) => before == Some(*winner),
            (Call::GetOrInit(value), Answer::Saw(seen)) => {
                if *seen == Some(value) {
                    self.0.get_or_insert(value);
                }
                self.0 == *seen
            }
            (Call::Read | Call::ReadLinearizable | Call::Wait, Answer::Saw(seen)) => {
                before == *seen
            }
            _ => false,
        }
    }
}

/// Malformed operations aside, of which there are none.
pub(super) fn by_our_spec(operations: &[Operation]) -> bool {
    let mut tester = LinearizabilityTester::new(OnceCell(None));
    for (_, is_return, index) in events(operations) {
        let op = &operations[index];
        let recorded = if is_return {
            let answer = match op.outcome() {
                Outcome::Acknowledged { .. } => Answer::Acknowledged,
                Outcome::Won { .. } => Answer::Won,
                Outcome::Lost { winner } => Answer::Lost(winner),
                Outcome::Saw { value, .. } => Answer::Saw(value),
                Outcome::Unclear => unreachable!("it has no return"),
            };
            tester.on_return(index, answer)
        } else {
            tester.on_invoke(index, op.call)
        };
        recorded.unwrap();
    }
    tester.is_consistent()
}

/// The register tells each write whether it won, which an acknowledged one does not know: the
/// history is accepted if it is with any one of them as the winner, or with none.
pub(super) fn by_their_register(operations: &[Operation]) -> bool {
    let acknowledged = operations
        .iter()
        .enumerate()
        .filter(|(_, op)| matches!(op.outcome(), Outcome::Acknowledged { .. }))
        .map(|(index, _)| Some(index));
    std::iter::once(None)
        .chain(acknowledged)
        .any(|winner| with_winner(operations, winner))
}

fn with_winner(operations: &[Operation], winner: Option<usize>) -> bool {
    let mut tester = LinearizabilityTester::new(WORegister(None));
    for (_, is_return, index) in events(operations) {
        let op = &operations[index];
        let recorded = if is_return {
            match op.outcome() {
                Outcome::Acknowledged { .. } if winner == Some(index) => {
                    tester.on_return(index, WORegisterRet::WriteOk)
                }
                Outcome::Acknowledged { .. } => tester.on_return(index, WORegisterRet::WriteFail),
                Outcome::Won { .. } => tester.on_return(index, WORegisterRet::WriteOk),
                // A lost claim is a write that fails and a read that tells why, one after the
                // other, both until the return.
                Outcome::Lost { winner } => tester
                    .on_return(index, WORegisterRet::WriteFail)
                    .and_then(|tester| tester.on_invoke(index, WORegisterOp::Read))
                    .and_then(|tester| {
                        tester.on_return(index, WORegisterRet::ReadOk(Some(winner)))
                    }),
                Outcome::Saw { value, .. } if is_write(op) => {
                    debug_assert_eq!(value, op.call.proposes());
                    tester.on_return(index, WORegisterRet::WriteOk)
                }
                Outcome::Saw { value, .. } => tester.on_return(index, WORegisterRet::ReadOk(value)),
                Outcome::Unclear => unreachable!("it has no return"),
            }
        } else {
            let call = match op.call.proposes() {
                Some(value) if is_write(op) => WORegisterOp::Write(value),
                _ => WORegisterOp::Read,
            };
            tester.on_invoke(index, call)
        };
        recorded.unwrap();
    }
    tester.is_consistent()
}

/// It writes: all proposals do but for an initialiser that was spared by another value.
fn is_write(op: &Operation) -> bool {
    match (op.call, op.outcome()) {
        (Call::GetOrInit(own), Outcome::Saw { value, .. }) => value == Some(own),
        (call, _) => call.proposes().is_some(),
    }
}
