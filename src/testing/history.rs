//! What clients of write-once cells did and saw, in order.

use super::check::{self, Checked};
use super::operation::{Call, Operation, Outcome};
use super::violation::Violation;

/// Names a call of a [`History`] until it is [finished](History::finish).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(usize);

/// What clients of write-once cells did and saw, in order; [`check`](Self::check) says whether
/// cells that keep their promises can have behaved so.
///
/// * *Cells* are numbers, and so are *values*: every call proposes a value of its own, so that a
///   value tells which call it came from.
/// * A *client* is one handle with its clones, for as long as it lives. A handle that is opened
///   again, after a crash for instance, is a new client. Calls of one client may overlap.
/// * *Times* only order. [`invoke`](Self::invoke), [`finish`](Self::finish) and
///   [`observe`](Self::observe) count up a clock of the history. [`invoke_at`](Self::invoke_at) and
///   its like take times from outside: nanoseconds of the one monotonic clock of a machine, so that
///   what several processes noted there can be put together with [`merge`](Self::merge). Calls
///   that end and begin at one time count as concurrent.
///
/// Record a call *before* making it and finish it after its answer. What has no answer stays
/// unfinished: it may have happened, and it may happen yet.
///
/// ```
/// use raft_once::testing::{Call, History, Outcome, SimNet, Violation};
/// use raft_once::{Claim, Network, Once};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let net = SimNet::new(7);
/// # let network = Network::builder("demo").electorate([("a", "127.0.0.1:100")]).voter("a")
/// #     .in_memory().simulated(&net).start().await?;
/// let cell = Once::<u64>::writer(&network, "leader");
/// let mut history = History::new();
///
/// // Client 1 claims cell 0 with a value that nobody else proposes.
/// let claim = history.invoke(1, 0, Call::Claim(10));
/// let outcome = match cell.claim(10).await {
///     Ok(Claim::Won(version)) => Outcome::Won { version: version.as_u64() },
///     Ok(Claim::Lost { winner, .. }) => Outcome::Lost { winner },
///     Err(_) => Outcome::Unclear,
/// };
/// history.finish(claim, outcome);
/// history.observe(1, 0, cell.read(), cell.version().as_u64());
///
/// let checked = history.check()?;
/// assert_eq!((checked.won, checked.cells_decided), (1, 1));
///
/// // Had another client then seen something else, the cell would have broken its word.
/// history.observe(2, 0, Some(11), 5);
/// assert!(matches!(history.check(), Err(Violation::Validity { value: 11, .. })));
/// # network.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct History {
    pub(super) operations: Vec<Operation>,
    /// The latest time of all calls and returns.
    clock: u64,
}

impl History {
    /// A history in which nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client makes a call, now.
    pub fn invoke(&mut self, client: u32, cell: u32, call: Call) -> OpId {
        self.invoke_at(self.clock + 1, client, cell, call)
    }

    /// The call has this outcome, now.
    ///
    /// # Panics
    ///
    /// If the call is finished already, or of another history.
    pub fn finish(&mut self, op: OpId, outcome: Outcome) {
        self.finish_at(self.clock + 1, op, outcome);
    }

    /// A client looks at its handle with [`Once::read`](crate::Once::read), now, which takes no
    /// time.
    pub fn observe(&mut self, client: u32, cell: u32, value: Option<u64>, version: u64) {
        self.observe_at(self.clock + 1, client, cell, value, version);
    }

    /// [`invoke`](Self::invoke) at the time `at`.
    pub fn invoke_at(&mut self, at: u64, client: u32, cell: u32, call: Call) -> OpId {
        self.add(Operation {
            client,
            cell,
            call,
            invoked: at,
            returned: None,
        })
    }

    /// [`finish`](Self::finish) at the time `at`.
    ///
    /// # Panics
    ///
    /// If the call is finished already, or of another history.
    pub fn finish_at(&mut self, at: u64, op: OpId, outcome: Outcome) {
        let operation = &mut self.operations[op.0];
        assert!(
            operation.returned.is_none(),
            "finished already: {operation}"
        );
        operation.returned = Some((at, outcome));
        self.clock = self.clock.max(at);
    }

    /// [`observe`](Self::observe) at the time `at`.
    pub fn observe_at(
        &mut self,
        at: u64,
        client: u32,
        cell: u32,
        value: Option<u64>,
        version: u64,
    ) {
        let op = self.invoke_at(at, client, cell, Call::Read);
        self.finish_at(at, op, Outcome::Saw { value, version });
    }

    pub(super) fn add(&mut self, operation: Operation) -> OpId {
        let returned = operation.returned.map_or(0, |(at, _)| at);
        self.clock = self.clock.max(operation.invoked).max(returned);
        self.operations.push(operation);
        OpId(self.operations.len() - 1)
    }

    /// What several recorders noted by one clock, in the order of invocation. Of one time, the
    /// earlier recorder's comes first. Ids of calls do not carry over.
    pub fn merge(histories: impl IntoIterator<Item = Self>) -> Self {
        let mut merged = Self::new();
        for history in histories {
            merged.clock = merged.clock.max(history.clock);
            merged.operations.extend(history.operations);
        }
        merged.operations.sort_by_key(|operation| operation.invoked);
        merged
    }

    /// How many calls were made, looks at a handle among them.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The operation as a line of [`to_lines`](Self::to_lines), without an end of line.
    ///
    /// A recorder that may be killed appends this line to its file when it has recorded a call,
    /// before it makes it, and again when the call is finished.
    ///
    /// # Panics
    ///
    /// If the call is of another history.
    pub fn line(&self, op: OpId) -> String {
        self.operations[op.0].to_string()
    }

    /// The cells that somebody was told to be decided.
    #[cfg(test)]
    pub(crate) fn decided(&self) -> std::collections::BTreeSet<u32> {
        let told = self.operations.iter();
        let told = told.filter(|op| op.decided_by().is_some());
        told.map(|op| op.cell).collect()
    }

    /// A hash of all that was recorded, and when: two runs of one seed are compared by it.
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(self.to_lines().as_bytes()).as_bytes()
    }

    /// Whether cells that keep their promises can have behaved so.
    ///
    /// It takes time in proportion to n log n for n operations.
    ///
    /// # Errors
    ///
    /// The first contradiction that is found, with the operations that contradict each other.
    pub fn check(&self) -> Result<Checked, Violation> {
        check::check(&self.operations)
    }
}
