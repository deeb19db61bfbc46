//! Waiting for something to happen to a cell.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::group::{View, Want};
use crate::id::Version;

/// How a future of [`When`] ended.
///
/// Not `must_use`: most callers go on in either case, and the next operation tells them that the
/// network is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Observed {
    /// What was waited for has happened.
    Reached,
    /// The network was shut down: it will not happen any more.
    NetworkDown,
}

impl Observed {
    /// What was waited for has happened.
    pub fn is_reached(self) -> bool {
        self == Self::Reached
    }
}

/// The state observer of a cell: see [`Once::when`](crate::Once::when).
///
/// Its futures borrow nothing: they can be made before the event, kept, moved into another task
/// and selected over. While one is alive the node goes on following the cell, even if all its
/// handles are dropped. None of them hangs after the network was shut down.
///
/// ```
/// use raft_once::{Network, Observed, Once};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new("demo").await?;
/// let once = Once::<String>::writer(&network, "seed");
/// once.when().online().await;
///
/// let updated = tokio::spawn(once.when().updated());
/// let version = once.write("genesis".into()).await?;
/// once.when().reaches(version).await;
/// assert_eq!(once.read(), Some("genesis".into()));
/// assert_eq!(updated.await?, Observed::Reached);
///
/// network.shutdown().await;
/// assert_eq!(once.when().updated().await, Observed::NetworkDown);
/// # Ok(())
/// # }
/// ```
pub struct When {
    view: Arc<View>,
    /// Whatever must live for the view to be kept up to date.
    alive: Arc<dyn Alive>,
}

/// What a [`When`] holds.
pub(crate) trait Alive: Send + Sync {
    /// The node is told of every version while this is held, not only of what somebody waits for.
    fn want_all(&self) -> Option<Want>;
}

impl When {
    pub(crate) fn new(view: Arc<View>, alive: Arc<dyn Alive>) -> Self {
        Self { view, alive }
    }

    /// Resolves when the cell is online here, at once if it is.
    ///
    /// A cell is *online* when everything that was committed before it came online is known here,
    /// and this node is in touch with a majority of the voters (an observer: with one voter).
    /// Reads work in any case; writes wait, within their timeout.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub fn online(&self) -> impl Future<Output = Observed> + Send + use<> {
        self.becomes(true)
    }

    /// Resolves when the cell is offline here, at once if it is. A cell that was just opened is
    /// offline for a moment.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub fn offline(&self) -> impl Future<Output = Observed> + Send + use<> {
        self.becomes(false)
    }

    fn becomes(&self, wanted: bool) -> impl Future<Output = Observed> + Send + use<> {
        let mut online = self.view.online();
        let event = async move { online.wait_for(|is| *is == wanted).await.is_ok() };
        let (down, alive) = (self.view.down().clone(), self.alive.clone());
        async move {
            let _alive = alive;
            // After shutdown nothing is on- or offline any more.
            tokio::select! {
                biased;
                () = down.cancelled() => Observed::NetworkDown,
                seen = event => observed(seen),
            }
        }
    }

    /// Resolves at the next commit that this node learns of after this call (not after the first
    /// poll): the write that decides the cell or a later, ignored one.
    ///
    /// On a handle that was not online yet this may be a commit from before the call. Several
    /// commits in a row may be seen as one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. A commit between dropping one such future and making the next is not seen by
    /// either: compare [`version`](crate::Once::version), or use [`reaches`](Self::reaches).
    pub fn updated(&self) -> impl Future<Output = Observed> + Send + use<> {
        // Subscribed here and now, so that a commit before the first poll counts.
        let mut versions = self.view.versions();
        let want = self.alive.want_all();
        self.first(async move {
            let _want = want;
            versions.changed().await.is_ok()
        })
    }

    /// Resolves when this node has seen the cell at `version` or a later one, at once if it has,
    /// also after shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future changes nothing.
    pub fn reaches(&self, version: Version) -> impl Future<Output = Observed> + Send + use<> {
        let mut versions = self.view.versions();
        let want = match self.view.version() >= version {
            true => None,
            false => self.alive.want_all(),
        };
        self.first(async move {
            let _want = want;
            versions.wait_for(|seen| *seen >= version).await.is_ok()
        })
    }

    /// The event, unless the network goes down first; if both have happened, the event.
    fn first<F>(&self, event: F) -> impl Future<Output = Observed> + Send + use<F>
    where
        F: Future<Output = bool> + Send,
    {
        let (down, alive) = (self.view.down().clone(), self.alive.clone());
        async move {
            let _alive = alive;
            tokio::select! {
                biased;
                seen = event => observed(seen),
                () = down.cancelled() => Observed::NetworkDown,
            }
        }
    }
}

/// A watch channel that closed says nothing any more: its view is gone, as if shut down.
fn observed(seen: bool) -> Observed {
    if seen {
        Observed::Reached
    } else {
        Observed::NetworkDown
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("When")
            .field("group", &self.view.group)
            .field("version", &self.view.version())
            .field("online", &self.view.is_online())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::id::GroupId;

    impl Alive for () {
        fn want_all(&self) -> Option<Want> {
            None
        }
    }

    fn when() -> When {
        let view = View::new(GroupId::from_bytes([1; 32]), CancellationToken::new());
        When::new(Arc::new(view), Arc::new(()))
    }

    fn go_online(view: &View) {
        view.add_interest();
        let losses = view.start_joining().expect("nobody else is at it");
        assert!(view.finish_joining(losses));
    }

    fn assert_static(_: &(impl Future<Output = Observed> + Send + 'static)) {}

    #[tokio::test]
    async fn futures_outlive_their_observer_and_see_what_came_before_the_first_poll() {
        let when = when();
        let view = when.view.clone();
        let (online, offline) = (when.online(), when.offline());
        let (updated, reaches) = (when.updated(), when.reaches(Version::new(4)));
        drop(when);
        assert_static(&online);
        assert_static(&updated);
        assert_eq!(offline.await, Observed::Reached, "offline to begin with");
        go_online(&view);
        assert_eq!(online.await, Observed::Reached);
        view.observe(Version::new(4), None);
        assert_eq!(updated.await, Observed::Reached);
        assert_eq!(reaches.await, Observed::Reached);
    }

    #[tokio::test]
    async fn updated_wants_a_new_commit_and_reaches_takes_an_old_one() {
        let when = when();
        when.view.observe(Version::new(4), None);
        let updated = tokio::spawn(when.updated());
        assert!(when.reaches(Version::new(3)).await.is_reached());
        tokio::task::yield_now().await;
        assert!(!updated.is_finished());
        when.view.observe(Version::new(5), None);
        assert!(updated.await.unwrap().is_reached());
    }

    #[tokio::test]
    async fn nothing_hangs_after_shutdown_and_what_was_reached_stays_so() {
        let when = when();
        when.view.observe(Version::new(4), None);
        let before = when.updated();
        when.view.down().cancel();
        assert_eq!(before.await, Observed::NetworkDown);
        assert_eq!(when.updated().await, Observed::NetworkDown);
        assert_eq!(when.online().await, Observed::NetworkDown);
        assert_eq!(when.offline().await, Observed::NetworkDown);
        assert_eq!(when.reaches(Version::new(5)).await, Observed::NetworkDown);
        assert_eq!(when.reaches(Version::new(4)).await, Observed::Reached);
    }
}
