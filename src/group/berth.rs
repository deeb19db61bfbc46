//! The one place of a group's instance. Two instances over one store could vote twice in a term,
//! so whoever starts one or ends it holds the berth's lock, and knows of the one before.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lease::{Lease, LeaseEnd};
use super::newborn::Newborn;
use super::replica::Replica;

#[derive(Default)]
pub(crate) struct Berth {
    awake: Mutex<Option<Arc<Replica>>>,
    /// While no instance runs, what is newer than the disk.
    newborn: Mutex<Option<Newborn>>,
    /// Held by whoever wakes the group or puts it to sleep.
    pub(super) changing: tokio::sync::Mutex<Past>,
}

/// The instance of a group that is there or was before, as far as another one has to know of it.
#[derive(Default)]
pub(crate) struct Past {
    /// When all parts of it are gone. Kept until what it has queued is visible in the store, too:
    /// a group that is loaded before would see less than what comes to be on the disk later.
    end: Option<LeaseEnd>,
    /// It led when it ended in order, and nothing has run since: when it is settled, all that it
    /// wrote is durable.
    led: bool,
}

impl Berth {
    /// Of a group that sleeps; whether it led when it was put to sleep, and nothing has run since.
    pub(super) fn new(led: bool) -> Self {
        let changing = tokio::sync::Mutex::new(Past { end: None, led });
        Self {
            changing,
            ..Self::default()
        }
    }

    /// Somebody wakes the group, puts it to sleep or has it born.
    pub(super) fn is_changing(&self) -> bool {
        self.changing.try_lock().is_err()
    }

    /// It was put to sleep in order while it led.
    pub(super) fn sleeps_as_leader(&self) -> bool {
        let past = self.changing.try_lock();
        past.is_ok_and(|past| past.led && past.end.is_none()) && !self.is_awake()
    }

    fn place(&self) -> MutexGuard<'_, Option<Arc<Replica>>> {
        self.awake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instance that runs, for as long as the caller keeps it: it is not put to sleep then.
    pub(crate) fn awake(&self) -> Option<Arc<Replica>> {
        self.place().clone()
    }

    pub(crate) fn is_awake(&self) -> bool {
        self.place().is_some()
    }

    pub(super) fn newborn(&self) -> Option<Newborn> {
        let newborn = self.newborn.lock();
        newborn.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The caller holds `changing`.
    pub(super) fn set_newborn(&self, newborn: Option<Newborn>) {
        let place = self.newborn.lock();
        *place.unwrap_or_else(PoisonError::into_inner) = newborn;
    }

    /// The caller holds `changing`.
    pub(super) fn fill(&self, replica: Arc<Replica>) {
        let before = self.replace(replica);
        assert!(before.is_none(), "two instances of one group");
    }

    pub(super) fn replace(&self, replica: Arc<Replica>) -> Option<Arc<Replica>> {
        self.place().replace(replica)
    }

    /// Takes the instance out, if nobody uses it and `may` says so. The caller holds `changing`.
    pub(super) fn clear_if(&self, may: impl FnOnce(&Replica) -> bool) -> Option<Arc<Replica>> {
        let mut place = self.place();
        // Everyone else has cloned it under this lock.
        place.take_if(|replica| Arc::strong_count(replica) == 1 && may(replica))
    }
}

impl Past {
    /// Notes that an instance is about to start, and returns the lease that its parts hold.
    ///
    /// # Panics
    ///
    /// If the one before is not known to be gone.
    pub(super) fn begin(&mut self) -> Lease {
        assert!(self.end.is_none(), "an instance starts beside another");
        let (lease, end) = Lease::new();
        *self = Self {
            end: Some(end),
            led: false,
        };
        lease
    }

    /// The end of the instance that is there or was before, unless it is settled.
    pub(super) fn end(&self) -> Option<&LeaseEnd> {
        self.end.as_ref()
    }

    /// Every part of it is gone, and all that it wrote is visible in the store.
    pub(super) fn settle(&mut self) {
        let end = self.end.take();
        assert!(
            end.is_none_or(|end| end.is_reached()),
            "an instance is forgotten that still runs"
        );
    }

    /// It leads, and writes nothing more.
    pub(super) fn leads(&mut self) {
        self.led = true;
    }

    /// It was put to sleep in order, and is settled; whether it led until then.
    pub(super) fn slept(&mut self, led: bool) {
        assert!(self.end.is_none(), "an instance that is not settled sleeps");
        self.led = led;
    }

    /// It led when it was put to sleep.
    pub(super) fn led(&self) -> bool {
        self.led
    }
}
