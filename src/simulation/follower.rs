//! Programs that follow a map: each must see every decision once and in order, whatever happens.

use std::collections::BTreeSet;

use futures::StreamExt;

use super::client::{Board, on};
use super::handle::open_map;
use crate::{Network, Version};

/// What a stream has seen since its process began.
#[derive(Default)]
pub(super) struct Followed {
    pub(super) slots: BTreeSet<u32>,
    last: Version,
}

/// Follows the map until the process dies. Now and then the stream is dropped, and another one goes
/// on behind what was seen.
pub(super) async fn follow(board: Board, life: u64, network: Network, again_after: usize) {
    let map = open_map(&network);
    let client = on(&board).next_client();
    on(&board).followed.insert(life, Followed::default());
    let mut since = Version::ZERO;
    loop {
        let mut changes = map.changes_since(since, ..).take(again_after);
        while let Some(change) = changes.next().await {
            // It fails when its node is shut down, and then it is over.
            let Ok(change) = change else { return };
            let mut shared = on(&board);
            shared.history.observe(
                client,
                change.key,
                Some(change.value),
                map.version().as_u64(),
            );
            let Some(followed) = shared.followed.get_mut(&life) else {
                return;
            };
            let is_new = followed.slots.insert(change.key);
            if !is_new || change.version <= followed.last {
                let wrong = format!(
                    "stream: slot {} at {} after {} in life {life}, seen before: {}",
                    change.key, change.version, followed.last, !is_new
                );
                shared.wrong.push(wrong);
                return;
            }
            followed.last = change.version;
            since = change.version;
        }
    }
}
