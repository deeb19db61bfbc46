//! What a history contradicts.

/// A promise that a [`History`](super::History) shows to be broken. Operations are told in the
/// words of [`History::to_lines`](super::History::to_lines).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Nothing about the cells: the recorder has noted what no handle can answer.
    #[error("malformed, cell {cell}: {what}: [{operation}]")]
    Malformed {
        /// The cell.
        cell: u32,
        /// What is wrong with it.
        what: &'static str,
        /// The operation that cannot be.
        operation: String,
    },
    /// A value was seen that nobody had proposed for the cell by then (P2).
    #[error("validity, cell {cell}: nobody proposed {value} before it was seen by [{seen}]")]
    Validity {
        /// The cell.
        cell: u32,
        /// The value.
        value: u64,
        /// Who saw it.
        seen: String,
    },
    /// Two were told that they won, or one was told that it lost to itself (P4).
    #[error("one winner, cell {cell}: [{one}] and [{other}]")]
    Winners {
        /// The cell.
        cell: u32,
        /// The first of them.
        one: String,
        /// The second, or the same one.
        other: String,
    },
    /// Two values of one cell were seen (P1).
    #[error("agreement, cell {cell}: [{one}] and [{other}]")]
    Agreement {
        /// The cell.
        cell: u32,
        /// Who saw one value.
        one: String,
        /// Who saw another.
        other: String,
    },
    /// A handle that knew a value was empty later (P3).
    #[error("stability, cell {cell}: the handle knew a value by [{knew}], but then [{empty}]")]
    Stability {
        /// The cell.
        cell: u32,
        /// What told the handle that the cell is decided.
        knew: String,
        /// Its look at an empty cell, later.
        empty: String,
    },
    /// No order of the operations in real time explains the answers (P5).
    #[error(
        "linearizability, cell {cell}: the cell was decided by the end of [{decided}], but {why} [{late}]"
    )]
    Linearizability {
        /// The cell.
        cell: u32,
        /// The earliest return of an operation that shows the cell to be decided.
        decided: String,
        /// Why the cell was not decided yet.
        why: &'static str,
        /// What was invoked after that.
        late: String,
    },
    /// Versions contradict the order of the log.
    #[error("versions, cell {cell}: {rule}, but [{earlier}] and [{later}]")]
    Versions {
        /// The cell.
        cell: u32,
        /// What holds of versions.
        rule: &'static str,
        /// The operation whose version should be the smaller one.
        earlier: String,
        /// The operation whose version should be the greater one.
        later: String,
    },
}
