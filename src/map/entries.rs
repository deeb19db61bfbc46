//! Decided slots in the order of their keys.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{BoxStream, Stream, StreamExt, unfold};
use serde::de::DeserializeOwned;

use super::key::{MapKey, key_of};
use super::{undecodable, value_of};
use crate::group::{Decided, Range};
use crate::once::{Hold, ReadError};

/// Decided slots in the order of their keys: see [`OnceMap::iter`](crate::OnceMap::iter).
pub struct Entries<K, V>(BoxStream<'static, Result<(K, V), ReadError>>);

struct Pages {
    hold: Arc<Hold>,
    page: VecDeque<Decided>,
    next: Option<Range>,
}

impl<K, V> Entries<K, V>
where
    K: MapKey + Send + 'static,
    V: DeserializeOwned + Send + 'static,
{
    pub(super) fn new(hold: Arc<Hold>, range: Range) -> Self {
        let pages = Pages {
            hold,
            page: VecDeque::new(),
            next: Some(range),
        };
        let entries = unfold(pages, |mut pages| async move {
            let next = pages.next().await?;
            Some((next.and_then(|slot| entry(&slot)), pages))
        });
        Self(entries.boxed())
    }
}

fn entry<K: MapKey, V: DeserializeOwned>((slot, record): &Decided) -> Result<(K, V), ReadError> {
    let key = key_of(slot).map_err(undecodable)?;
    Ok((key, value_of(record).map_err(undecodable)?))
}

impl Pages {
    async fn next(&mut self) -> Option<Result<Decided, ReadError>> {
        loop {
            if let Some(slot) = self.page.pop_front() {
                return Some(Ok(slot));
            }
            let range = self.next.take()?;
            let (group, directory) = (self.hold.group(), self.hold.network().directory());
            let read = |_| directory.slots(group, range.clone());
            match self.hold.until_passed(read).await {
                Ok((slots, next)) => {
                    self.page = slots.into();
                    self.next = next;
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

impl<K, V> Stream for Entries<K, V> {
    type Item = Result<(K, V), ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<K, V> std::fmt::Debug for Entries<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entries").finish_non_exhaustive()
    }
}
