//! A command of a job: in a process group of its own, which is killed as a whole when the command is
//! given up.

use std::io;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

use super::call::failed;
use crate::machine::task::{Failure, Outcome};

/// What `once serve` may be told its secrets by: nothing of it is for commands.
const SECRETS: [&str; 6] = [
    "ONCE_SECRET",
    "ONCE_SECRET_FILE",
    "ONCE_TICKET",
    "ONCE_TICKET_FILE",
    "ONCE_HTTP_TOKEN",
    "ONCE_HTTP_TOKEN_FILE",
];

/// Killed, with all that it has started in its group, when the future is dropped.
pub(super) async fn command(argv: &[String], key: &str, attempt: u32) -> Outcome {
    let Some((program, arguments)) = argv.split_first() else {
        return failed("there is no program".into());
    };
    let ended = match prepared(program, arguments, key, attempt).spawn() {
        Ok(child) => Group(child).ended().await,
        Err(error) => return failed(format!("cannot start {program:?}: {error}")),
    };
    match ended {
        Ok(status) if status.success() => Outcome::SUCCESS,
        Ok(status) => Outcome::Failed(match status.code() {
            Some(code) => Failure::Exit(code),
            None => failure_of_signal(status),
        }),
        Err(error) => failed(format!("it could not be waited for: {error}")),
    }
}

fn prepared(program: &str, arguments: &[String], key: &str, attempt: u32) -> Command {
    let mut command = Command::new(program);
    for secret in SECRETS {
        command.env_remove(secret);
    }
    command
        .args(arguments)
        .env("ONCE_IDEMPOTENCY_KEY", key)
        .env("ONCE_ATTEMPT", attempt.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    command
}

/// The command, and what it has started.
struct Group(Child);

impl Group {
    async fn ended(mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A child that was waited for has no number any more: it may be another's by now.
        #[cfg(unix)]
        if let Some(group) = self.0.id() {
            use nix::sys::signal::{Signal, killpg};
            let group = nix::unistd::Pid::from_raw(group as i32);
            // There may be nobody left in it.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

#[cfg(unix)]
fn failure_of_signal(status: ExitStatus) -> Failure {
    use std::os::unix::process::ExitStatusExt;
    Failure::Signal(status.signal().unwrap_or(0))
}

#[cfg(not(unix))]
fn failure_of_signal(_: ExitStatus) -> Failure {
    Failure::Error("it ended without an exit code".into())
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn commands_are_not_told_the_secrets_of_the_voter() {
        let command = prepared("env", &[], "k", 1);
        let removed = command.as_std().get_envs();
        let removed: Vec<_> = removed.filter(|(_, value)| value.is_none()).collect();
        assert_eq!(removed.len(), SECRETS.len());
    }

    /// A command that leaves a child in the background, which says its number in `file`.
    fn script(file: &std::path::Path, then: &str) -> [String; 3] {
        let file = file.display();
        let script = format!("sleep 1000 & echo $! > {file}.new; mv {file}.new {file}; {then}");
        ["sh".into(), "-c".into(), script]
    }

    async fn child_of(file: &std::path::Path) -> nix::unistd::Pid {
        loop {
            if let Ok(text) = std::fs::read_to_string(file) {
                return nix::unistd::Pid::from_raw(text.trim().parse().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A zombie is dead, too: whoever inherits it may not look.
    fn is_alive(pid: nix::unistd::Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        match stat {
            Ok(stat) => !stat.contains(") Z "),
            Err(_) => cfg!(not(target_os = "linux")) && nix::sys::signal::kill(pid, None).is_ok(),
        }
    }

    #[tokio::test]
    async fn what_is_given_up_is_killed_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let argv = script(&file, "wait");
        let running = command(&argv, "k", 1);
        let child = tokio::select! {
            outcome = running => panic!("it ends: {outcome:?}"),
            child = child_of(&file) => child,
        };
        while is_alive(child) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_has_ended_is_not_signalled_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        assert_eq!(
            command(&script(&file, "exit 0"), "k", 1).await,
            Outcome::SUCCESS
        );
        let child = child_of(&file).await;
        assert!(is_alive(child));
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}
