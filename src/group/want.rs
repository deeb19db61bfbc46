//! What this node's program waits for in a map: the voter that the node follows tells of nothing
//! else.

use std::sync::{Arc, Weak};

use super::directory::{Directory, Group};
use super::slots::Range;

/// While it is held, this node is told of decisions in a range of slots.
pub(crate) struct Want {
    directory: Weak<Directory>,
    range: Range,
    /// Always there; taken by `drop`.
    group: Option<Arc<Group>>,
}

impl Drop for Want {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            // A voter that tells more than is wanted is told so when it next does.
            group.view.want_no_more(&self.range);
            if let Some(directory) = self.directory.upgrade() {
                directory.forget_idle(group);
            }
        }
    }
}

impl Directory {
    /// Wants to be told of decisions in a range of slots, without one in all. Whatever was decided
    /// when that is in force raises the version, if this node has not seen it. Nothing where all is
    /// told anyway.
    pub(crate) fn want(self: &Arc<Self>, group: &Arc<Group>, range: Option<Range>) -> Option<Want> {
        if self.peers().is_voter() || !group.id().is_map() {
            return None;
        }
        let range = range.unwrap_or_default();
        group.view.want(&range);
        // One that is being joined looks at what is wanted when it is online.
        if group.view.is_online() {
            self.rescope(group, false);
        }
        Some(Want {
            directory: Arc::downgrade(self),
            range,
            group: Some(group.clone()),
        })
    }
}
