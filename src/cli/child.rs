//! The command, while it runs.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{SigSet, Signal, killpg, raise};
use nix::unistd::{AccessFlags, Pid, access, getpgrp, tcgetpgrp, tcsetpgrp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::problem::{NOT_EXECUTABLE, NOT_FOUND, Problem};
use crate::task::{Failure, Outcome};

/// Where commands are looked for without a PATH.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How much of a program is looked at, to tell text from anything else.
const START_BYTES: u64 = 256;

/// What begins a script that says by what it is to be run.
const SCRIPT: &[u8] = b"#!";

/// Signals that are passed on: all that would end this process and can be caught, but those of real
/// time. (A fault of this process itself, as SEGV, is no message for the command.)
const PASSED: &[Signal] = &[
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGIO,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGBUS,
    #[cfg(target_os = "linux")]
    Signal::SIGPWR,
    #[cfg(target_os = "linux")]
    Signal::SIGSTKFLT,
];

/// Behind which nothing of the command is to be left; behind another, if it has ended the command.
const ENDING: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// The most signals that wait to be passed on; more are as good as these.
const SIGNALS_MAX: usize = 64;

/// The signals that this process gets from now on, in place of being ended by them.
pub(super) struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        let (send, receive) = mpsc::channel(SIGNALS_MAX);
        let ignored = ignored();
        for &passed in PASSED {
            // As by `nohup`: it is ignored here, and by the command.
            if ignored & bit(passed) != 0 {
                continue;
            }
            let mut stream = signal(SignalKind::from_raw(passed as i32))?;
            let send = send.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    // As the system does where the same signal waits already.
                    let _ = send.try_send(passed);
                }
            });
        }
        Ok(Self(receive))
    }

    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// Whether it is there to end whoever gets it.
pub(super) fn ends(signal: Signal) -> bool {
    ENDING.contains(&signal)
}

/// Signals have numbers from 1 to 64.
fn bit(signal: Signal) -> u64 {
    1 << (signal as u32 - 1)
}

/// The signals that this process was told to ignore by whoever started it, as far as the system says.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or_default()
}

/// A command that can be executed.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    name: OsString,
    args: Vec<OsString>,
}

impl Program {
    /// Finds a command as a shell does, before anything is claimed for it.
    pub(super) fn find(command: &[OsString]) -> Result<Self, Problem> {
        let Some((name, args)) = command.split_first() else {
            return Err(Problem::usage("there is no command to run"));
        };
        let path = find(name)?;
        // One that cannot be read may be executed all the same: it is no script.
        let Ok(file) = File::open(&path) else {
            let (name, args) = (name.clone(), args.into());
            return Ok(Self { path, name, args });
        };
        let mut start = Vec::new();
        let read = file.take(START_BYTES).read_to_end(&mut start);
        read.map_err(|error| not_executable(&path, &error.to_string()))?;
        if let Some(line) = start.strip_prefix(SCRIPT) {
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let interpreter = line
                .split(|byte| b" \t\r".contains(byte))
                .find(|word| !word.is_empty());
            let interpreter = Path::new(OsStr::from_bytes(interpreter.unwrap_or_default()));
            if !is_executable(interpreter) {
                let reason = format!(
                    "its interpreter {} cannot be executed",
                    interpreter.display()
                );
                return Err(not_executable(&path, &reason));
            }
        } else if !start.contains(&0) {
            // Text without a first line that says by what: shells run it themselves.
            let args = [path.into_os_string()]
                .into_iter()
                .chain(args.iter().cloned());
            return Ok(Self {
                path: "/bin/sh".into(),
                name: "sh".into(),
                args: args.collect(),
            });
        }
        Ok(Self {
            path,
            name: name.clone(),
            args: args.into(),
        })
    }
}

fn find(name: &OsStr) -> Result<PathBuf, Problem> {
    let not_found = || {
        Problem::new(
            NOT_FOUND,
            format!("{}: command not found; nothing was claimed", name.display()),
        )
    };
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match path.exists() {
            true if is_executable(&path) => Ok(path),
            true => Err(not_executable(
                &path,
                "it is no file that this user may execute",
            )),
            false => Err(not_found()),
        };
    }
    let paths = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let mut is_there = None;
    for folder in std::env::split_paths(&paths) {
        let folder = if folder.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            folder
        };
        let path = folder.join(name);
        if is_executable(&path) && !name.is_empty() {
            return Ok(path);
        }
        is_there = is_there.or(path.is_file().then_some(path));
    }
    Err(is_there.map_or_else(not_found, |path| {
        not_executable(&path, "this user may not execute it")
    }))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

fn not_executable(path: &Path, reason: &str) -> Problem {
    Problem::new(
        NOT_EXECUTABLE,
        format!(
            "{} cannot be executed: {reason}; nothing was claimed",
            path.display()
        ),
    )
}

/// What a child has done.
enum Event {
    Stopped,
    Ended(io::Result<ExitStatus>),
}

/// Runs the program in a process group of its own, and passes signals on to it. How it ended, and the
/// signal that told it to, if one did.
///
/// # Errors
///
/// When it could not be started.
pub(super) async fn run(
    program: &Program,
    environment: &[(&str, String)],
    signals: &mut Signals,
) -> io::Result<(Outcome, Option<Signal>)> {
    let mut command = Command::new(&program.path);
    command
        .arg0(&program.name)
        .args(&program.args)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    let terminal = Terminal::ours();
    let mut child = command.process_group(0).spawn()?;
    let group = Pid::from_raw(child.id() as i32);
    terminal.give_to(group);
    let passed = Arc::new(AtomicU64::new(0));
    let (send, mut events) = mpsc::channel(1);
    let was_passed = passed.clone();
    let waiting = std::thread::Builder::new().spawn(move || {
        let ended_by = loop {
            match has_happened(group) {
                Happened::Stopped => drop(send.blocking_send(Event::Stopped)),
                Happened::Ended(signal) => break signal,
            }
        };
        // It has ended, and its number is its own until it is waited for.
        let was_passed = |signal| was_passed.load(Ordering::SeqCst) & bit(signal) != 0;
        if ENDING.into_iter().chain(ended_by).any(was_passed) {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = send.blocking_send(Event::Ended(child.wait()));
    });
    if let Err(error) = waiting {
        let _ = killpg(group, Signal::SIGKILL);
        return Err(error);
    }
    let mut ended_by = None;
    let ended = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Stopped) => terminal.stop_with(group),
                Some(Event::Ended(ended)) => break ended,
                None => break Err(io::Error::other("nobody waits for the command any more")),
            },
            signal = signals.next() => {
                if ends(signal) {
                    ended_by = ended_by.or(Some(signal));
                }
                passed.fetch_or(bit(signal), Ordering::SeqCst);
                // It may have ended just now.
                let _ = killpg(group, signal);
            }
        }
    };
    terminal.give_to(getpgrp());
    let outcome = outcome(ended);
    if let Outcome::Failed(Failure::Signal(number)) = outcome
        && let Ok(signal) = Signal::try_from(number)
    {
        // A key of the terminal reaches the command alone.
        let is_key = terminal.0.is_some() && [Signal::SIGINT, Signal::SIGQUIT].contains(&signal);
        if is_key || passed.load(Ordering::SeqCst) & bit(signal) != 0 {
            ended_by = ended_by.or(Some(signal));
        }
    }
    Ok((outcome, ended_by))
}

/// What a child that is not waited for yet has done.
enum Happened {
    Stopped,
    /// By this signal, if it was one.
    Ended(Option<Signal>),
}

/// Waits until the child has stopped, or ended.
fn has_happened(child: Pid) -> Happened {
    #[cfg(target_os = "linux")]
    {
        use nix::errno::Errno;
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED;
        loop {
            match waitid(Id::Pid(child), flags | WaitPidFlag::WNOWAIT) {
                Ok(WaitStatus::Stopped(..)) => {
                    // So that it is told of once.
                    let _ = waitid(Id::Pid(child), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG);
                    return Happened::Stopped;
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => return Happened::Ended(Some(signal)),
                Err(Errno::EINTR) => {}
                _ => return Happened::Ended(None),
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = child;
        Happened::Ended(None)
    }
}

fn outcome(ended: io::Result<ExitStatus>) -> Outcome {
    match ended.map(|status| (status.code(), status.signal())) {
        Ok((Some(0), _)) => Outcome::SUCCESS,
        Ok((Some(code), _)) => Outcome::Failed(Failure::Exit(code)),
        Ok((None, Some(signal))) => Outcome::Failed(Failure::Signal(signal)),
        Ok((None, None)) => Outcome::Failed(Failure::Error("it ended in an unknown way".into())),
        Err(error) => Outcome::Failed(Failure::Error(format!(
            "it could not be waited for: {error}"
        ))),
    }
}

/// The terminal that this process is in the foreground of, if it is. The command is put there, so that
/// it can read from it, and is stopped and interrupted by its keys.
struct Terminal(Option<io::Stdin>);

impl Terminal {
    fn ours() -> Self {
        let stdin = io::stdin();
        let is_ours = stdin.is_terminal() && tcgetpgrp(&stdin) == Ok(getpgrp());
        if is_ours {
            let mut background = SigSet::empty();
            background.add(Signal::SIGTTOU);
            // Or to take the terminal back would stop this process.
            let _ = background.thread_block();
        }
        Self(is_ours.then_some(stdin))
    }

    fn give_to(&self, group: Pid) {
        if let Some(stdin) = &self.0 {
            let _ = tcsetpgrp(stdin, group);
            // It may have tried to read already.
            if group != getpgrp() {
                let _ = killpg(group, Signal::SIGCONT);
            }
        }
    }

    /// The command was stopped, by a key: this process stops, too, so that the shell takes over, and goes
    /// on with it.
    fn stop_with(&self, group: Pid) {
        let Some(stdin) = &self.0 else {
            return;
        };
        self.give_to(getpgrp());
        let _ = raise(Signal::SIGSTOP);
        if tcgetpgrp(stdin) == Ok(getpgrp()) {
            self.give_to(group);
        } else {
            let _ = killpg(group, Signal::SIGCONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn code(command: &str) -> u8 {
        Program::find(&[command.into()]).unwrap_err().code
    }

    #[test]
    fn a_command_is_found_as_by_a_shell() {
        assert!(Program::find(&["sh".into()]).is_ok());
        assert!(Program::find(&["/bin/sh".into()]).is_ok());
        assert_eq!(code("no-such-command"), NOT_FOUND);
        assert_eq!(code("/no/such/command"), NOT_FOUND);
        assert_eq!(code(""), NOT_FOUND);
        assert_eq!(code("/"), NOT_EXECUTABLE);
    }

    #[test]
    fn what_cannot_be_executed_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        assert_eq!(code(&write("#!/bin/sh\n", 0o644)), NOT_EXECUTABLE);
        assert_eq!(
            code(&write("#!/no/such/interpreter -x\n", 0o755)),
            NOT_EXECUTABLE
        );
        assert!(Program::find(&[write("#! /bin/sh -e\n", 0o755).into()]).is_ok());
        let by_shell = Program::find(&[write("exit 3\n", 0o755).into()]).unwrap();
        assert_eq!(by_shell.path, Path::new("/bin/sh"));
    }
}
