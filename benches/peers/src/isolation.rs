//! A network in which nothing but loopback can be reached.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::child::find;

/// The hidden word that says that this process is in such a network already.
pub const WORD: &str = "--in-a-network-of-its-own";

/// Becomes this program again, with the same process id, in a network namespace that has only
/// loopback. Returns if that cannot be had here.
pub fn enter(args: &[String]) -> Result<()> {
    let (Some(unshare), Some(ip)) = (find("unshare"), find("ip")) else {
        return Ok(());
    };
    let command = |then: &str| {
        let mut command = Command::new(&unshare);
        command.arg("--net");
        // Who is not root may be it in a namespace of users.
        if !is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c"]);
        command.arg(format!("\"$0\" link set lo up && {then}"));
        command.arg(&ip);
        command
    };
    let mut trial = command("true");
    let trial = trial.stdin(Stdio::null()).stderr(Stdio::null()).status();
    if !trial.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let mut command = command("exec \"$@\"");
    command.arg(std::env::current_exe()?).arg(WORD).args(args);
    // It returns only if it fails.
    Err(command.exec().into())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
