//! A queued batch and whoever waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::batch::{Batch, Durability};
use super::error::StoreFailed;

type Callback = Box<dyn FnOnce(Result<u64, StoreFailed>) + Send>;

pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) durability: Durability,
    pub(super) done: Done,
}

/// The answer that is owed for one batch. Invariant: given exactly once, with an error if this
/// is dropped, because a callback that never comes hangs whoever waits for it.
pub(super) struct Done(Option<Callback>);

impl Done {
    pub(super) fn new(callback: impl FnOnce(Result<u64, StoreFailed>) + Send + 'static) -> Self {
        Self(Some(Box::new(callback)))
    }

    /// Says whether the callback returned; one that panics must not take other answers along.
    #[must_use]
    pub(super) fn answer(mut self, result: Result<u64, StoreFailed>) -> bool {
        self.call(result)
    }

    fn call(&mut self, result: Result<u64, StoreFailed>) -> bool {
        match self.0.take() {
            Some(callback) => catch_unwind(AssertUnwindSafe(|| callback(result))).is_ok(),
            None => true,
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.call(Err(StoreFailed::Poisoned(
            "it ended before this batch was durable".into(),
        )));
    }
}
