//! Places for those who have yet to prove something. Each newcomer gets one: when all are taken,
//! that of the one who has been there longest. So a crowd of those who never finish cannot keep
//! out those who do, unless it comes faster than they need.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

pub(crate) struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    last: u64,
    /// By age, the oldest first.
    by_number: BTreeMap<u64, CancellationToken>,
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken; never more than `max`.
    pub(crate) fn len(&self) -> usize {
        self.taken().by_number.len()
    }

    pub(crate) fn take(self: &Arc<Self>) -> Place {
        let lost = CancellationToken::new();
        let mut taken = self.taken();
        if taken.by_number.len() >= self.max
            && let Some((_, oldest)) = taken.by_number.pop_first()
        {
            oldest.cancel();
        }
        taken.last += 1;
        let number = taken.last;
        taken.by_number.insert(number, lost.clone());
        Place {
            places: self.clone(),
            number,
            lost,
        }
    }
}

/// Free again when it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    lost: CancellationToken,
}

impl Place {
    /// The result of `work`, or `None` if a newcomer took the place before.
    pub(crate) async fn hold<O>(&self, work: impl Future<Output = O>) -> Option<O> {
        self.lost.run_until_cancelled(work).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn a_newcomer_takes_the_place_of_the_oldest() {
        let places = Places::new(2);
        let (first, second) = (places.take(), places.take());
        assert_eq!(first.hold(ready(1)).await, Some(1));
        let third = places.take();
        assert_eq!(places.len(), 2);
        assert_eq!(first.hold(pending::<()>()).await, None);
        assert_eq!(second.hold(ready(2)).await, Some(2));
        drop((first, third));
        assert_eq!(places.len(), 1);
        let _fourth = places.take();
        assert_eq!(second.hold(ready(2)).await, Some(2));
        drop(second);
        assert_eq!(places.len(), 1);
    }
}
