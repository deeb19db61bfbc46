//! The first entry of a group, on the disk of its leader by birth and of those that take it.

use std::io;

use crate::failpoint;
use crate::id::{NodeId, Version};
use crate::machine::{Command, Reply};
use crate::probe::{self, Bug, planted};
use crate::store::{Batch, Durability};

use super::disk::{Applied, Disk, pack};
use super::raft::{LogPosition, StoredEntry, StoredPayload};
use super::seal::seal_newborn;

/// The term of the leader that a newborn group has by birth.
pub(super) const FIRST_TERM: u64 = 1;

/// Where its first entry is.
pub(super) const FIRST: LogPosition = LogPosition {
    term: FIRST_TERM,
    index: LogPosition::GENESIS.index + 1,
};

impl Disk {
    /// Whether this is a newborn group that `me` leads by birth.
    pub(crate) fn is_firstborn(&self, me: NodeId) -> bool {
        let held = self.held();
        let again = planted(Bug::FirstbornAgain);
        let vote = held
            .vote
            .filter(|vote| again || (!held.born && !vote.committed));
        vote.is_some_and(|vote| vote.term == FIRST_TERM && vote.node == me)
    }

    /// Writes the first entry of a newborn group as the leader of its first term, and returns when
    /// it is durable.
    ///
    /// Only then may an instance start that leads that term and sends the entry: a voter that
    /// crashes finds on its disk that it led, and never leads that term again with another entry.
    pub(crate) async fn bear(&self, command: Command) -> io::Result<()> {
        let written = {
            let mut held = self.held();
            let Some(vote) = held.vote.as_mut().filter(|vote| vote.term == FIRST_TERM) else {
                return Err(io::Error::other("the group has another term already"));
            };
            vote.committed = true;
            let entry = StoredEntry {
                at: FIRST,
                payload: StoredPayload::Command(command),
            };
            let mut batch = self.batch(&mut held);
            batch.put(self.entry_key(entry.at.index), pack(&entry));
            held.entries.insert(entry.at.index, entry);
            failpoint::hit("group.before_birth");
            if planted(Bug::BirthNotSynced) {
                self.store.write(batch, Durability::Lazy, |_| {});
                return Ok(());
            }
            self.store.write_durably(batch)
        };
        let written = written.await.map(|_| ()).map_err(io::Error::other);
        failpoint::hit("group.after_birth");
        written
    }

    /// Applies the first entry, which [`bear`](Self::bear) has written and which is committed, and
    /// has the seal that takes its place queued by `write`.
    ///
    /// # Panics
    ///
    /// If there is no such entry, or more than that one.
    pub(crate) fn apply_first(&self, me: NodeId, write: impl FnOnce(Batch)) -> (Command, Reply) {
        let mut held = self.held();
        assert_eq!(held.last(), Some(FIRST), "group {}: no birth", self.group);
        let payload = held.entries[&FIRST.index].payload.clone();
        probe::applied(me, self.group, FIRST.index, FIRST.term, || payload.digest());
        let StoredPayload::Command(command) = payload else {
            panic!("group {}: the first entry decides nothing", self.group);
        };
        let version = Version::new(FIRST.index);
        let reply = held.machine.apply(version, &command);
        held.applied = Applied {
            at: Some(FIRST),
            version,
        };
        let mut batch = Batch::default();
        seal_newborn(self.group, &mut held, &mut batch);
        failpoint::hit("group.before_first_seal");
        // Queued under the lock, as all that is written.
        write(batch);
        (command, reply)
    }
}
