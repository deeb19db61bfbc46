//! Network namespaces, made and changed with `ip`.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the namespaces of tests begin with; the process and a number follow.
const PREFIX: &str = "raft-once-test-";

pub fn ip(args: &str) -> Result<String, String> {
    let output = Command::new("ip").args(args.split_whitespace()).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into()),
        false => Err(format!(
            "ip {args}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

pub fn must(args: &str) {
    if let Err(error) = ip(args) {
        panic!("{error}");
    }
}

/// A network namespace, removed when dropped, and with it all links into it.
pub struct Netns(pub String);

impl Netns {
    pub fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{next}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let netns = Self(name);
        ip(&format!("-n {} link set lo up", netns.0))?;
        Ok(netns)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.0));
    }
}

/// Namespaces that a killed run has left behind.
pub fn sweep() {
    let Ok(list) = ip("netns list") else { return };
    for name in list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Many commands in one namespace, by one process.
pub fn must_all(netns: &str, commands: &[String]) {
    let mut ip = Command::new("ip")
        .args(["-n", netns, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ip was there a moment ago");
    let mut stdin = ip.stdin.take().expect("piped");
    stdin
        .write_all((commands.join("\n") + "\n").as_bytes())
        .expect("ip reads its commands");
    drop(stdin);
    let output = ip.wait_with_output().expect("it is our child");
    assert!(
        output.status.success(),
        "ip in {netns}: {commands:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
