//! Whether the store still works. Once it does not, it never does again in this process.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::error::StoreFailed;

/// Invariant: `failure` is set at most once, and before `changed` tells anybody.
pub(super) struct Health {
    failure: OnceLock<StoreFailed>,
    changed: watch::Sender<bool>,
}

impl Health {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            failure: OnceLock::new(),
            changed: watch::Sender::new(false),
        })
    }

    /// The first reason stays. Returns it.
    pub(super) fn poison(&self, reason: &str) -> StoreFailed {
        let failure = self.failure.get_or_init(|| {
            tracing::error!(reason, "the store stops for good");
            StoreFailed::Poisoned(reason.into())
        });
        self.changed.send_replace(true);
        failure.clone()
    }

    pub(super) fn failure(&self) -> Option<StoreFailed> {
        self.failure.get().cloned()
    }

    pub(super) fn check(&self) -> Result<(), StoreFailed> {
        self.failure().map_or(Ok(()), Err)
    }

    /// Resolves when the store has failed; pends for ever while it has not.
    pub(super) async fn failed(&self) -> StoreFailed {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(failure) = self.failure() {
                return failure;
            }
            if changed.changed().await.is_err() {
                // The sender lives in `self`, which we hold.
                std::future::pending::<()>().await;
            }
        }
    }
}
