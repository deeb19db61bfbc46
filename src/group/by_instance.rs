//! Tests of what instances do have them bear cells, too.

use crate::id::NodeId;

/// On which voters instances see to births, as they do wherever this one case is not at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByInstance {
    None,
    Some,
    All,
}

thread_local! {
    static BY_INSTANCE: std::cell::Cell<ByInstance> = const { std::cell::Cell::new(ByInstance::None) };
}

/// For what runs on this thread.
pub(crate) fn bear_by_instance(which: ByInstance) {
    BY_INSTANCE.set(which);
}

pub(super) fn by_instance(me: NodeId) -> bool {
    match BY_INSTANCE.get() {
        ByInstance::None => false,
        ByInstance::Some => me.as_u64().is_multiple_of(2),
        ByInstance::All => true,
    }
}
