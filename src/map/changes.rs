//! Decided slots in the order in which they were decided.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{BoxStream, Stream, StreamExt, unfold};
use serde::de::DeserializeOwned;

use super::key::{MapKey, key_of};
use super::read::{LOOK_AGAIN_MS, pause};
use super::{undecodable, value_of};
use crate::group::{Decided, Range, Want};
use crate::id::Version;
use crate::once::{Decision, Hold, ReadError};

/// A slot that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change<K, V> {
    /// Its key.
    pub key: K,
    /// Its value, for good.
    pub value: V,
    /// Where in the map's history it was decided: greater than that of all changes before, and
    /// where [`changes_since`](crate::OnceMap::changes_since) goes on.
    pub version: Version,
    /// Who decided it, and when.
    pub decision: Decision,
}

/// A stream of decided slots, in the order in which they were decided, that misses none and repeats
/// none: see [`OnceMap::changes`](crate::OnceMap::changes).
///
/// It is read page by page while it is polled, and never holds more than one page: a program that
/// is slow gets the decisions later, and holds up nobody. While this node is offline it waits, and
/// then goes on where it stopped, at whichever voter it finds.
///
/// # Errors
///
/// It yields [`ReadError::Decode`] in the place of a slot that is not of the types of this map, and
/// goes on. It ends after [`ReadError::NetworkDown`], when the network is shut down, and never else.
pub struct Changes<K, V>(BoxStream<'static, Result<Change<K, V>, ReadError>>);

struct Pages {
    /// Once it was waited for what comes.
    want: Option<Option<Want>>,
    hold: Arc<Hold>,
    /// Everything in the range up to here is in pages that were read.
    read: Version,
    range: Range,
    page: VecDeque<Decided>,
    is_down: bool,
}

impl<K, V> Changes<K, V>
where
    K: MapKey + 'static,
    V: DeserializeOwned + 'static,
{
    pub(super) fn new(hold: Arc<Hold>, since: Version, range: Range) -> Self {
        let pages = Pages {
            want: None,
            hold,
            read: since,
            range,
            page: VecDeque::new(),
            is_down: false,
        };
        let changes = unfold(pages, |mut pages| async move {
            let next = pages.next().await?;
            Some((next, pages))
        });
        // Decoded outside: what is awaited holds neither keys nor values.
        let hold = changes.map(|next| next.and_then(|(slot, name)| change(&slot, name)));
        Self(hold.boxed())
    }
}

fn change<K: MapKey, V: DeserializeOwned>(
    (slot, record): &Decided,
    winner_name: Option<String>,
) -> Result<Change<K, V>, ReadError> {
    Ok(Change {
        key: key_of(slot).map_err(undecodable)?,
        value: value_of(record).map_err(undecodable)?,
        version: record.version,
        decision: Decision::new(record, winner_name),
    })
}

impl Pages {
    /// The next slot, and who has won it by name.
    async fn next(&mut self) -> Option<Result<(Decided, Option<String>), ReadError>> {
        let mut pause_ms = LOOK_AGAIN_MS;
        loop {
            if let Some(slot) = self.page.pop_front() {
                let winner = self.hold.network().name_of(slot.1.proposer());
                return Some(Ok((slot, winner)));
            }
            if std::mem::replace(&mut self.is_down, self.hold.is_down()) {
                return None;
            }
            if self.is_down {
                return Some(Err(ReadError::NetworkDown));
            }
            let hold = self.hold.clone();
            let read = self.read_on(&mut pause_ms);
            // If it goes down the next round says so.
            let _ = hold.unless_down(read).await;
        }
    }

    /// Reads the next page, or waits until there may be one.
    async fn read_on(&mut self, pause_ms: &mut u64) {
        let (group, directory) = (self.hold.group(), self.hold.network().directory());
        // Looked at before the page is read: whatever comes later wakes us.
        let mut versions = self.hold.view().versions();
        let read = directory.changes(group, self.read, self.range.clone());
        match read.await {
            Ok((slots, upto)) if !slots.is_empty() || upto > self.read => {
                self.read = upto;
                self.page = slots.into();
            }
            // There is something new, and whoever we asked does not have it yet.
            Ok(_) if *versions.borrow_and_update() > self.read => pause(pause_ms).await,
            Ok(_) => {
                if self.want.is_none() {
                    self.want = Some(directory.want(group, Some(self.range.clone())));
                }
                // It fails when the view is gone, as if the node went down.
                let _ = versions.changed().await;
            }
            Err(_) => pause(pause_ms).await,
        }
    }
}

impl<K, V> Stream for Changes<K, V> {
    type Item = Result<Change<K, V>, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<K, V> std::fmt::Debug for Changes<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}
