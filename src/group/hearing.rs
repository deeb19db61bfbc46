//! Whether a linked voter is heard. A link ends only long after the other side is gone, since it
//! costs much to make another. Whoever waits for an answer wants to know sooner: a voter that was
//! asked something and is silent is asked whether it is there, and if it does not say so in time
//! it is *suspected*. Then others are asked in its place, and elections do not wait for its lease.
//! A suspicion that is wrong costs an election, never more: it ends with the next word of the voter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::id::NodeId;

use super::ATTEMPT;
use super::directory::Directory;
use super::wire::{Many, Request};

/// A voter that has left something unanswered and said nothing for so long is asked whether it is
/// there.
const QUIET_MS: u64 = 50;

/// How often that is looked at while anything is asked.
const LOOK_MS: u64 = 25;

/// After so many looks at a voter that is asked nothing nobody looks any more.
const IDLE_LOOKS_MAX: u32 = 40;

/// How long a voter may take to say that it is there: at least, and at most.
const PATIENCE_MS: (u64, u64) = (100, 1_500);

/// It may take so many times as long as it took before.
const PATIENCE_ROUND_TRIPS: u32 = 4;

/// After this part of it the other voters are told of the doubt, so that they look for themselves.
const TELL_PART: u32 = 8;

/// A timer that fires so late says that it was this process which did not run.
const LATE_MS: u64 = 50;

pub(crate) struct Hearing {
    state: Mutex<State>,
    suspected: watch::Sender<bool>,
    /// Held while the voter is asked whether it is there.
    probing: tokio::sync::Mutex<()>,
}

struct State {
    heard: Instant,
    /// Requests that it has not answered, and since when there are any.
    open: usize,
    open_since: Instant,
    /// A task looks, and for how many looks it has seen nothing open.
    is_watched: bool,
    idle_looks: u32,
    patience: Duration,
}

fn bounded(patience: Duration) -> Duration {
    let (least, most) = PATIENCE_MS;
    patience.clamp(Duration::from_millis(least), Duration::from_millis(most))
}

impl Hearing {
    /// Of a voter that has just answered something in `round_trip`.
    pub(crate) fn new(round_trip: Duration) -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                heard: now,
                open: 0,
                open_since: now,
                is_watched: false,
                idle_looks: 0,
                patience: bounded(PATIENCE_ROUND_TRIPS * round_trip),
            }),
            suspected: watch::Sender::new(false),
            probing: tokio::sync::Mutex::default(),
        }
    }

    /// Every change under this lock is whole, and no code that can panic runs under it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is asked something; whether the caller is to start a task that [watches](watch).
    pub(crate) fn ask(self: &Arc<Self>) -> (Asked, bool) {
        let mut state = self.state();
        if state.open == 0 {
            state.open_since = Instant::now();
        }
        state.open += 1;
        let is_watched = std::mem::replace(&mut state.is_watched, true);
        (Asked(self.clone()), !is_watched)
    }

    /// It has said something.
    pub(crate) fn hear(&self) {
        self.state().heard = Instant::now();
        if *self.suspected.borrow() {
            self.suspected.send_replace(false);
        }
    }

    pub(crate) fn is_suspected(&self) -> bool {
        *self.suspected.borrow()
    }

    /// Resolves when it is suspected.
    pub(crate) async fn suspected(&self) {
        let mut suspected = self.suspected.subscribe();
        // The sender is here: it cannot be gone.
        let _ = suspected.wait_for(|suspected| *suspected).await;
    }

    /// It owes an answer, and has said nothing for a while.
    fn is_quiet(&self) -> bool {
        let state = self.state();
        let since = state.heard.max(state.open_since);
        state.open > 0 && since.elapsed() >= Duration::from_millis(QUIET_MS)
    }

    fn is_heard_within(&self, within: Duration) -> bool {
        self.state().heard.elapsed() < within
    }

    /// Whether the task that looks goes on.
    fn look(&self) -> bool {
        let mut state = self.state();
        let is_idle = state.open == 0 && !*self.suspected.borrow();
        state.idle_looks = if is_idle { state.idle_looks + 1 } else { 0 };
        if state.idle_looks > IDLE_LOOKS_MAX {
            state.idle_looks = 0;
            state.is_watched = false;
        }
        state.is_watched
    }

    fn patience(&self) -> Duration {
        self.state().patience
    }

    /// It said that it is there. What was slow once may be slow again, for a while.
    fn answered_in(&self, round_trip: Duration) {
        let mut state = self.state();
        let remembered = state.patience - state.patience / 8;
        state.patience = bounded(remembered.max(PATIENCE_ROUND_TRIPS * round_trip));
    }

    /// It did not answer what it was asked at `asked`; whether it is suspected from now on. The
    /// next time it has longer: it may be farther away than it seemed.
    fn missed(&self, asked: Instant) -> bool {
        let mut state = self.state();
        state.patience = bounded(2 * state.patience);
        state.heard < asked && !self.suspected.send_replace(true)
    }
}

/// A request that is not answered yet, or given up.
pub(crate) struct Asked(Arc<Hearing>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.state().open -= 1;
    }
}

impl Directory {
    /// Looks after a voter for as long as it is asked something, or suspected.
    pub(crate) async fn watch(self: Arc<Self>, voter: NodeId, hearing: Arc<Hearing>) {
        let this = Arc::downgrade(&self);
        drop(self);
        loop {
            sleep(Duration::from_millis(LOOK_MS)).await;
            let Some(this) = this.upgrade().filter(|_| hearing.look()) else {
                return;
            };
            let current = this.peers().hearing(voter);
            if !current.is_some_and(|current| Arc::ptr_eq(&current, &hearing)) {
                // That link is gone.
                return;
            }
            let _one = hearing.probing.lock().await;
            if hearing.is_quiet() || hearing.is_suspected() {
                this.probe(voter, &hearing, true).await;
            }
        }
    }

    /// Whether `voter` is linked and heard. One that is silent is asked.
    pub(super) async fn is_heard(self: &Arc<Self>, voter: NodeId) -> bool {
        let Some(hearing) = self.peers().hearing(voter) else {
            return false;
        };
        let began = Instant::now();
        let _one = hearing.probing.lock().await;
        // Somebody else may have asked meanwhile.
        let within = began.elapsed() + Duration::from_millis(QUIET_MS);
        if !hearing.is_suspected() && !hearing.is_heard_within(within) {
            self.probe(voter, &hearing, false).await;
        }
        !hearing.is_suspected()
    }

    /// Another node doubts that `voter` is there.
    pub(super) async fn doubted(self: &Arc<Self>, voter: NodeId) {
        if self.peers().voters().contains(&voter) {
            self.is_heard(voter).await;
        }
    }

    /// Asks `voter` whether it is there. The caller holds `probing`.
    async fn probe(self: &Arc<Self>, voter: NodeId, hearing: &Hearing, tells: bool) {
        let patience = hearing.patience();
        let asked = Instant::now();
        let ping = Request::of_many(Many::Ping).encode();
        let call = timeout(patience, self.peers().call(voter, ping));
        tokio::pin!(call);
        let answer = match timeout(patience / TELL_PART, &mut call).await {
            Ok(answer) => answer,
            Err(_) => {
                if tells && !hearing.is_suspected() {
                    self.tell_doubt(voter);
                }
                call.await
            }
        };
        let took = asked.elapsed();
        match answer {
            Ok(Ok(_)) => hearing.answered_in(took),
            // The link is gone, which says it all; or it was this process that did not run.
            Ok(Err(_)) => {}
            Err(_) if took > patience + Duration::from_millis(LATE_MS) => {}
            Err(_) => {
                if hearing.missed(asked) {
                    tracing::debug!(%voter, ?patience, "suspected: it does not answer");
                    self.counts.voters_suspected.one();
                    self.settle_left_by(voter);
                }
            }
        }
    }

    /// What a leader that is gone left behind must be settled, or those who wait wait for ever.
    pub(super) fn settle_left_by(self: &Arc<Self>, node: NodeId) {
        if !self.peers().is_voter() {
            return;
        }
        self.settle_newborns_of(node);
        self.for_awake(move |directory, replica| async move {
            let leader = replica.leader();
            let is_lost =
                leader.is_none_or(|leader| leader == node || !directory.peers().is_live(leader));
            if is_lost && !replica.leads() && replica.has_tail() {
                directory.settle_tail(&replica).await;
            }
        });
    }

    fn tell_doubt(&self, voter: NodeId) {
        let doubt = Request::of_many(Many::Doubt { voter }).encode();
        let others = self.peers().linked_voters().into_iter();
        for other in others.filter(|other| *other != voter) {
            let call = self.peers().call(other, doubt.clone());
            self.peers().spawn(Box::pin(async move {
                // Nothing depends on it.
                let _ = timeout(ATTEMPT, call).await;
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_word_or_the_first_open_question() {
        let hearing = Arc::new(Hearing::new(ms(1)));
        tokio::time::advance(ms(10_000)).await;
        assert!(!hearing.is_quiet(), "it was asked nothing");
        let (asked, _) = hearing.ask();
        assert!(!hearing.is_quiet(), "it was asked just now");
        tokio::time::advance(ms(QUIET_MS)).await;
        assert!(hearing.is_quiet());
        hearing.hear();
        assert!(!hearing.is_quiet());
        tokio::time::advance(ms(QUIET_MS)).await;
        drop(asked);
        assert!(!hearing.is_quiet());
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspicion_ends_with_the_next_word_and_leaves_more_patience() {
        let hearing = Arc::new(Hearing::new(ms(1)));
        assert_eq!(hearing.patience(), ms(100));
        tokio::time::advance(ms(1)).await;
        let asked = Instant::now();
        tokio::time::advance(ms(100)).await;
        assert!(hearing.missed(asked));
        assert!(!hearing.missed(asked), "once");
        hearing.suspected().await;
        assert_eq!(hearing.patience(), ms(400));
        hearing.hear();
        assert!(!hearing.is_suspected());
        // What it takes is what it is given, and forgotten little by little.
        hearing.answered_in(ms(200));
        assert_eq!(hearing.patience(), ms(800));
        for _ in 0..100 {
            hearing.answered_in(ms(1));
        }
        assert_eq!(hearing.patience(), ms(100));
    }

    #[tokio::test(start_paused = true)]
    async fn who_said_something_else_meanwhile_is_not_suspected() {
        let hearing = Arc::new(Hearing::new(ms(1)));
        let asked = Instant::now();
        tokio::time::advance(ms(10)).await;
        hearing.hear();
        assert!(!hearing.missed(asked));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_at_a_voter_that_is_asked_nothing() {
        let hearing = Arc::new(Hearing::new(ms(1)));
        let (asked, starts) = hearing.ask();
        assert!(starts);
        assert!(!hearing.ask().1, "one task is enough");
        for _ in 0..1_000 {
            assert!(hearing.look());
        }
        drop(asked);
        let looks = (0..1_000).take_while(|_| hearing.look()).count();
        assert_eq!(looks, IDLE_LOOKS_MAX as usize);
        assert!(hearing.ask().1, "the next one starts it again");
    }
}
