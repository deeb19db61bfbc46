//! Runs the engine as a task, on tokio's clock: for whole nodes in simulated time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::SimDisk;
use crate::store::LAZY_SYNC_AFTER_MS;
use crate::store::engine::Engine;
use crate::store::queue::{Queue, Turn};
use crate::store::writer::{finish, guarded};

/// The writer thread's loop, with a wait between write and sync for a disk that is held.
pub(in crate::store) async fn pump(
    queue: Arc<Queue>,
    pushed: Arc<Notify>,
    mut engine: Engine,
    disk: SimDisk,
    closed: Arc<watch::Sender<bool>>,
) {
    let mut lazy_until = None;
    loop {
        match queue.begin_turn() {
            Turn::Group(jobs) => {
                lazy_until = None;
                if let Some(Some(jobs)) = guarded(&mut engine, |engine| engine.write(jobs)) {
                    // As a thread's would be: whoever wrote goes on before the answer comes.
                    tokio::task::yield_now().await;
                    let ms = disk.draw_sync_ms();
                    if ms > 0 {
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                    }
                    disk.until_released().await;
                    guarded(&mut engine, |engine| engine.settle(jobs));
                }
                queue.finish_turn();
            }
            Turn::Finish(end) => {
                disk.until_released().await;
                finish(engine, end);
                closed.send_replace(true);
                return;
            }
            Turn::Nothing if !queue.has_lazy() => pushed.notified().await,
            Turn::Nothing => {
                let after = Duration::from_millis(LAZY_SYNC_AFTER_MS);
                let until = *lazy_until.get_or_insert_with(|| Instant::now() + after);
                if timeout_at(until, pushed.notified()).await.is_err() {
                    queue.hurry();
                }
            }
        }
    }
}
