//! `once run`.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::args::{Common, Run};
use super::board::{Board, words};
use super::child::{self, Program, Signals};
use super::embedded::{Claim, Held, Keeper, new_id};
use super::problem::{
    Done, IN_DOUBT, NOT_EXECUTABLE, Problem, RUNNING, code_elsewhere, code_of, of_signal,
};
use super::resource::Resource;
use super::{say, tick};
use crate::machine::task::Spec;
use crate::task::{ClaimId, Failure, Outcome, Policy, State, Status};

struct Running<'a> {
    args: &'a Run,
    common: &'a Common,
    name: String,
    spec: Spec,
    program: Program,
    board: &'a Board,
    signals: Signals,
    /// How long it waits for others, and until when.
    patience: Option<Duration>,
    until: Option<Instant>,
    /// The last attempt that was made here, where another may follow.
    last: Option<Went>,
}

/// How it went: an exit code, and what the report says of it.
struct Went {
    code: u8,
    report: Value,
}

pub(super) async fn run(args: &Run, common: &Common) -> Done {
    let went = prepare(args, common).await;
    if let Some(path) = &args.report {
        let (code, report) = match &went {
            Ok(went) => (went.code, went.report.clone()),
            Err(problem) => {
                let report = json!({ "name": args.name, "ran": false, "error": problem.message });
                (problem.code, report)
            }
        };
        write_report(path, report, code);
    }
    went.map(|went| went.code)
}

async fn prepare(args: &Run, common: &Common) -> Result<Went, Problem> {
    let program = Program::find(&args.command)?;
    let name = match args.every {
        None => args.name.clone(),
        Some(every) => tick::name(&args.name, every, &args.timezone).map_err(Problem::usage)?,
    };
    let ttl = args.spec.ttl.or(args.every.map(|every| every.ttl()));
    let spec = Spec {
        policy: args.spec.policy(),
        ttl_ms: ttl.map(|ttl| ttl.as_millis() as u64),
    };
    spec.check().map_err(Problem::usage)?;
    let signals = Signals::catch()?;
    let board = Board::open(common).await?;
    let patience = if args.no_wait {
        Some(Duration::ZERO)
    } else {
        args.wait
    };
    let mut running = Running {
        args,
        common,
        name,
        spec,
        program,
        board: &board,
        signals,
        patience,
        until: patience.map(|patience| Instant::now() + patience),
        last: None,
    };
    let went = running.go().await;
    drop(running);
    board.close().await;
    went
}

impl Running<'_> {
    async fn go(&mut self) -> Result<Went, Problem> {
        // One id until something is started under it: a claim that holds although its answer was lost
        // is this one's then.
        let mut id = new_id();
        loop {
            match self.claim(id).await? {
                Claim::Here(held) => {
                    id = new_id();
                    let (went, may_follow) = self.start(held).await?;
                    if !may_follow {
                        return Ok(went);
                    }
                    self.last = Some(went);
                    self.until = self.patience.map(|patience| Instant::now() + patience);
                }
                Claim::Elsewhere(status) => match status.state {
                    State::Running | State::Pending => {
                        if let Err(problem) = self.wait_for(&status).await {
                            return self.given_up(problem);
                        }
                    }
                    State::Succeeded => {
                        return Ok(self.elsewhere(&status, self.args.skip_exit_code));
                    }
                    State::Failed => {
                        self.say_elsewhere(&status);
                        return Ok(self.elsewhere(&status, code_elsewhere(&status)));
                    }
                    State::Abandoned => return Err(abandoned(&status)),
                },
                Claim::NotYet(pause) => {
                    if self
                        .until
                        .is_some_and(|until| until < Instant::now() + pause)
                    {
                        let why = "it has failed, and waits to be started again";
                        let problem = self.out_of_patience(why);
                        return self.given_up(problem);
                    }
                    self.unless_signalled(sleep(pause)).await?;
                }
            }
        }
    }

    /// A signal that comes while nothing is claimed yet ends it; what is claimed then all the same, has
    /// failed by that signal without being started.
    async fn claim(&mut self, id: ClaimId) -> Result<Claim, Problem> {
        let (board, name, stop) = (self.board, self.name.clone(), CancellationToken::new());
        let claim = board.claim(&name, self.spec, Keeper::Process, id, &stop);
        let mut claim = std::pin::pin!(claim);
        let signal = tokio::select! {
            biased;
            claimed = &mut claim => return claimed,
            signal = self.signals.next() => signal,
        };
        stop.cancel();
        let claimed = claim.await;
        let why = match claimed {
            Ok(Claim::Here(held)) => {
                let outcome = Outcome::Failed(Failure::Signal(signal as i32));
                let within = self.args.record_within;
                // A second signal is not waited for: it is kept here at the worst.
                let stop = CancellationToken::new();
                board
                    .record(&name, held.claim, outcome, within, &stop)
                    .await?;
                "when it was claimed, and before it was started"
            }
            Err(problem) if problem.code == IN_DOUBT => return Err(problem),
            _ => "before it was claimed",
        };
        let message = format!("{name}: ended by {signal} {why}");
        Err(Problem::new(of_signal(signal as i32), message))
    }

    /// Whoever has run it, and does not wait for the next attempt, ends as that one did.
    fn given_up(&mut self, problem: Problem) -> Result<Went, Problem> {
        match self.last.take() {
            Some(went) if problem.code == RUNNING => Ok(went),
            _ => Err(problem),
        }
    }

    /// Waits until somebody else may have ended it.
    async fn wait_for(&mut self, status: &Status) -> Result<(), Problem> {
        let who = status.executor.as_deref().unwrap_or("somebody");
        let since = status.executed_at.map(say::time).unwrap_or_default();
        if self.until.is_some_and(|until| until <= Instant::now()) {
            return Err(self.out_of_patience(&format!("{who} runs it since {since}")));
        }
        let (board, name, until) = (self.board, self.name.clone(), self.until);
        let waiting = async {
            let changed = board.changed(&name, Some(status.state));
            match until {
                None => changed.await,
                // Looked at once more then.
                Some(until) => tokio::time::timeout_at(until, changed)
                    .await
                    .unwrap_or(Ok(())),
            }
        };
        let json = self.common.json;
        self.unless_signalled(say::spin(json, Some(status), waiting))
            .await?
    }

    /// Nothing runs here meanwhile: a signal that would end this process does.
    async fn unless_signalled<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Problem> {
        tokio::select! {
            result = future => Ok(result),
            signal = self.signals.next() => {
                let message = format!("{}: ended by {signal} while it waited", self.name);
                Err(Problem::new(of_signal(signal as i32), message))
            }
        }
    }

    fn out_of_patience(&self, why: &str) -> Problem {
        let message = format!(
            "{}: {why}; `once wait {}` waits for it",
            self.name, self.name
        );
        Problem::new(RUNNING, message)
    }

    /// Starts the command, and records how it ended; and whether it is to be started again.
    async fn start(&mut self, held: Held) -> Result<(Went, bool), Problem> {
        let environment = [
            ("ONCE_KEY", self.name.clone()),
            ("ONCE_CLAIM_ID", held.claim.to_string()),
            ("ONCE_ATTEMPT", held.attempt.to_string()),
            ("ONCE_VERSION", held.version.to_string()),
        ];
        let (board, name, json) = (self.board, self.name.clone(), self.common.json);
        let superseded = async {
            board.keep(&name, held.claim).await;
            say::note(
                json,
                &format!(
                    "{name} is not run under this claim any more: it was taken over, resolved, reset or deleted"
                ),
            );
            std::future::pending::<Infallible>().await
        };
        let ran = tokio::select! {
            ran = child::run(&self.program, &environment, &mut self.signals) => ran,
            never = superseded => match never {},
        };
        let (outcome, ended_by, code) = match ran {
            Ok((outcome, ended_by)) => {
                let code = code_of(&outcome);
                (outcome, ended_by, code)
            }
            Err(error) => {
                let reason = format!("it could not be started: {error}");
                say::note(json, &format!("{name}: {reason}"));
                let code = NOT_EXECUTABLE;
                (Outcome::Failed(Failure::Exit(code.into())), None, code)
            }
        };
        let recorded = self.record(held.claim, outcome.clone()).await;
        let status = match recorded {
            Ok(status) => status,
            Err(problem) if problem.code == super::problem::FAILED => {
                // It ran here, whatever became of its name since.
                say::note(
                    json,
                    &format!("{name} {}: {}", words(&outcome), problem.message),
                );
                let report = self.report(&held, code, &outcome, None);
                return Ok((Went { code, report }, false));
            }
            Err(problem) if problem.code == IN_DOUBT => return Err(problem),
            Err(problem) => {
                // Its code would say that nothing was claimed.
                let message = format!(
                    "{name} {}, which could not be recorded: {}. `once finish {name} --claim {}` records it",
                    words(&outcome),
                    problem.message,
                    held.claim
                );
                return Err(Problem::new(IN_DOUBT, message));
            }
        };
        // The lock of the claim is freed only now.
        if status.policy != self.spec.policy {
            let policy = match status.policy {
                Policy::AtMostOnce => "at most once",
                Policy::AtLeastOnce { .. } => "at least once, with its own retries",
            };
            say::note(
                json,
                &format!("{name} was created to be run {policy}, which stays until it is deleted"),
            );
        }
        // Whoever asks for at most once starts it at most once, whatever others do.
        let may_follow = status.state == State::Pending
            && matches!(self.spec.policy, Policy::AtLeastOnce { .. })
            && ended_by.is_none();
        if may_follow {
            say::note(
                json,
                &format!(
                    "{name}: attempt {} {}; it is started again",
                    held.attempt,
                    words(&outcome)
                ),
            );
        }
        let report = self.report(&held, code, &outcome, Some(&status));
        Ok((Went { code, report }, may_follow))
    }

    /// Records how it ended. Told to end meanwhile, it leaves that to a later `once`.
    async fn record(&mut self, claim: ClaimId, outcome: Outcome) -> Result<Status, Problem> {
        let (board, stop) = (self.board, CancellationToken::new());
        let within = self.args.record_within;
        let record = board.record(&self.name, claim, outcome, within, &stop);
        let mut record = std::pin::pin!(record);
        loop {
            tokio::select! {
                biased;
                recorded = &mut record => return recorded,
                signal = self.signals.next() => if child::ends(signal) {
                    stop.cancel();
                },
            }
        }
    }

    fn report(&self, held: &Held, code: u8, outcome: &Outcome, status: Option<&Status>) -> Value {
        json!({
            "name": self.name,
            "namespace": self.common.namespace,
            "ran": true,
            "exitCode": code,
            "outcome": words(outcome),
            "claim": held.claim.to_string(),
            "attempt": held.attempt,
            "version": held.version.as_u64(),
            "task": status.map(|status| Resource::of(&self.common.namespace, status)),
        })
    }

    fn elsewhere(&self, status: &Status, code: u8) -> Went {
        let report = json!({
            "name": self.name,
            "namespace": self.common.namespace,
            "ran": false,
            "exitCode": code,
            "outcome": status.outcome.as_ref().map(words),
            "task": Resource::of(&self.common.namespace, status),
        });
        Went { code, report }
    }

    fn say_elsewhere(&self, status: &Status) {
        let who = status.executor.as_deref().unwrap_or("somebody");
        let how = status.outcome.as_ref().map(words).unwrap_or_default();
        let next = format!("`once reset {}` lets it run again", self.name);
        say::note(
            self.common.json,
            &format!("{} was run by {who} and {how}; {next}", self.name),
        );
    }
}

/// What an abandoned task comes to.
pub(super) fn abandoned(status: &Status) -> Problem {
    let (name, who) = (
        &status.name,
        status.executor.as_deref().unwrap_or("its executor"),
    );
    let message = format!(
        "{name} is abandoned: {who} has claimed it and is not heard of any more. It is not started again. Find out \
         how far it came; then `once resolve {name}` says how it ended, or `once reset {name}` lets it run again"
    );
    Problem::new(IN_DOUBT, message)
}

/// A report that cannot be written changes no exit code.
fn write_report(path: &Path, mut report: Value, code: u8) {
    report["exitCode"] = code.into();
    if let Err(error) = fs::write(path, format!("{report}\n")) {
        say::note(
            false,
            &format!("the report {} cannot be written: {error}", path.display()),
        );
    }
}
