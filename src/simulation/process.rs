//! A simulated process: all tasks of one node, which die, pause and have their wall clock in
//! common. Whatever is spawned by a task of a process belongs to it too.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::probes;

thread_local! {
    /// The process whose task is being polled.
    static CURRENT: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

#[derive(Default)]
pub(crate) struct Process(Mutex<State>);

#[derive(Default)]
struct State {
    dead: bool,
    paused: bool,
    /// How many more polls of its tasks it lives, and what happens then, at that very moment.
    doom: Option<(u64, Box<dyn FnOnce() + Send>)>,
    /// Tasks that were to be polled while it was paused.
    waiting: Vec<Waker>,
    clock_ahead_ms: i64,
    /// The list of voters that it was started with.
    voters: Vec<&'static str>,
}

impl Process {
    pub(crate) fn new(voters: Vec<&'static str>) -> Arc<Self> {
        let process = Self::default();
        process.state().voters = voters;
        Arc::new(process)
    }

    /// Where a voter stands in its list, counted from 1.
    pub(crate) fn position(&self, name: &str) -> Option<u64> {
        let at = self
            .state()
            .voters
            .iter()
            .position(|voter| *voter == name)?;
        Some(at as u64 + 1)
    }

    /// The process whose task is running.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No task of it is polled any more.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.dead = true;
        state.doom = None;
        state.waiting.clear();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// It dies after `polls` more polls of its tasks, between two of them; `last` happens at once.
    pub(crate) fn doom(&self, polls: u64, last: impl FnOnce() + Send + 'static) {
        self.state().doom = Some((polls, Box::new(last)));
    }

    /// It lives on, if it was doomed.
    pub(crate) fn spare(&self) {
        self.state().doom = None;
    }

    pub(crate) fn pause(&self) {
        self.state().paused = true;
    }

    pub(crate) fn resume(&self) {
        let mut state = self.state();
        state.paused = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Its wall clock jumps.
    pub(crate) fn set_clock_ahead_ms(&self, ms: i64) {
        self.state().clock_ahead_ms = ms;
    }

    pub(crate) fn clock_ahead_ms(&self) -> i64 {
        self.state().clock_ahead_ms
    }

    /// Makes `future` a part of this process.
    pub(crate) fn hold<F: Future>(self: &Arc<Self>, future: F) -> Held<F> {
        Held {
            process: Some(self.clone()),
            future: Box::pin(future),
        }
    }

    fn may_run(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        if state.paused && !state.dead {
            state.waiting.push(cx.waker().clone());
        }
        !state.paused && !state.dead
    }

    fn has_run(&self) {
        let mut state = self.state();
        let last = match &mut state.doom {
            Some((0, _)) => state.doom.take(),
            Some((polls, _)) => {
                *polls -= 1;
                None
            }
            None => None,
        };
        let Some((_, last)) = last else {
            return;
        };
        state.dead = true;
        drop(state);
        last();
    }
}

/// A part of the process that is running now, if there is one.
pub(crate) fn of_current<F: Future>(future: F) -> Held<F> {
    Held {
        process: Process::current(),
        future: Box::pin(future),
    }
}

/// A future that is polled only while its process runs.
pub(crate) struct Held<F> {
    process: Option<Arc<Process>>,
    future: Pin<Box<F>>,
}

/// Sets back who was running, also if the task panics.
struct Running(Option<Arc<Process>>);

impl Drop for Running {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl<F: Future> Future for Held<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(process) = self.process.clone() else {
            return self.future.as_mut().poll(cx);
        };
        if !process.may_run(cx) {
            return Poll::Pending;
        }
        let running = Running(CURRENT.replace(Some(process.clone())));
        let polled = self.future.as_mut().poll(cx);
        drop(running);
        process.has_run();
        if !probes::polled() {
            process.kill();
        }
        // What the last poll brought about in its own process is gone with it.
        match process.is_dead() {
            true => Poll::Pending,
            false => polled,
        }
    }
}
