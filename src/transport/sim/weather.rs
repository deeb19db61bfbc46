//! What a test can do to a simulated network while it runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::net::SimNet;

impl SimNet {
    /// Cuts the link between `a` and `b`, both ways.
    pub fn cut(&self, a: SocketAddr, b: SocketAddr) {
        self.change(|net| {
            net.cuts.insert((a, b));
            net.cuts.insert((b, a));
        });
    }

    /// Cuts one direction. Connections notice it as if both were: after the idle timeout.
    pub fn cut_one_way(&self, from: SocketAddr, to: SocketAddr) {
        self.change(|net| {
            net.cuts.insert((from, to));
        });
    }

    /// Cuts `a` from everyone, nodes that come later included.
    pub fn isolate(&self, a: SocketAddr) {
        self.change(|net| {
            net.isolated.insert(a, BTreeSet::new());
        });
    }

    /// Ends what [`isolate`](Self::isolate) began; single cuts stay.
    pub fn rejoin(&self, a: SocketAddr) {
        self.change(|net| {
            net.isolated.remove(&a);
        });
    }

    /// Mends everything between `a` and `b`, even if one of them is isolated, and lost replies.
    pub fn heal(&self, a: SocketAddr, b: SocketAddr) {
        self.change(|net| {
            for (from, to) in [(a, b), (b, a)] {
                net.cuts.remove(&(from, to));
                net.replies_lost.remove(&(from, to));
                if let Some(reached) = net.isolated.get_mut(&from) {
                    reached.insert(to);
                }
            }
        });
    }

    /// Mends everything between everyone.
    pub fn heal_all(&self) {
        self.change(|net| {
            net.cuts.clear();
            net.isolated.clear();
            net.replies_lost.clear();
        });
    }

    /// Every message takes a random time in this range, one way. Messages of different requests
    /// may overtake each other. Without a delay they still pass through the scheduler.
    pub fn set_delay(&self, min: Duration, max: Duration) {
        let mut net = self.lock();
        (net.pace.min, net.pace.max) = (min, max.max(min));
    }

    /// Every message also takes the time that its bytes need at this speed.
    pub fn set_bytes_per_ms(&self, bytes: u64) {
        self.lock().pace.bytes_per_ms = Some(bytes);
    }

    /// Of 1,000 messages so many are lost on links that are up. Whoever waits for one waits until
    /// it gives up.
    pub fn set_loss(&self, per_mille: u32) {
        self.lock().pace.lost_per_mille = per_mille;
    }

    /// Of 1,000 requests so many arrive twice, the second time later.
    pub fn set_duplication(&self, per_mille: u32) {
        self.lock().pace.doubled_per_mille = per_mille;
    }

    /// From now on requests of `to` reach `from` and are executed, but the answers are lost.
    pub fn drop_replies(&self, from: SocketAddr, to: SocketAddr) {
        self.lock().replies_lost.insert((from, to));
    }
}
