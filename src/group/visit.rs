//! What a request of another node makes this one keep: a group, for as long as it takes.

use std::ops::Deref;
use std::sync::Arc;

use crate::id::{GroupId, NodeId};
use crate::machine::Command;
use crate::transport::{Pool, Taken};

use super::directory::{Directory, Group};

/// The most groups that are kept here because observers follow them or are at work on them, and
/// the most because any other node does: voters may go on where observers may not.
pub(crate) const GROUPS_OF_OBSERVERS_MAX: usize = 262_144;
pub(crate) const GROUPS_OF_OTHERS_MAX: usize = 2 * GROUPS_OF_OBSERVERS_MAX;

/// The most bytes of values that others have proposed here and that are not committed yet.
pub(crate) const PROPOSED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A value up to this size is always taken: there are no more of them than requests.
const PROPOSED_FREE_BYTES: usize = 4 * 1024;

/// A group that is kept for another node at least until this is dropped.
pub(super) struct Visit {
    directory: Arc<Directory>,
    /// Always there; taken by `drop`.
    group: Option<Arc<Group>>,
}

impl Deref for Visit {
    type Target = Arc<Group>;

    fn deref(&self) -> &Arc<Group> {
        self.group.as_ref().expect("taken by drop alone")
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.directory.forget_idle(group);
        }
    }
}

impl Directory {
    /// The group, for `peer`.
    pub(super) fn visit(self: &Arc<Self>, peer: NodeId, id: GroupId) -> Result<Visit, String> {
        let max = match self.peers().voters().contains(&peer) {
            true => GROUPS_OF_OTHERS_MAX,
            false => GROUPS_OF_OBSERVERS_MAX,
        };
        let Some(group) = self.group_of_others(id, max) else {
            return Err(format!(
                "{max} groups are in use here by other nodes already; \
                 close handles there, or spread them over more voters"
            ));
        };
        Ok(Visit {
            directory: self.clone(),
            group: Some(group),
        })
    }
}

/// What a command costs while it waits; `None` if too much is waiting already.
pub(super) fn wait_in(proposed: &Arc<Pool>, command: &Command) -> Option<Option<Taken>> {
    match command {
        Command::Set { proposal, .. } if proposal.value.len() > PROPOSED_FREE_BYTES => {
            proposed.take(proposal.value.len()).map(Some)
        }
        Command::Set { .. } | Command::Touch { .. } => Some(None),
    }
}
