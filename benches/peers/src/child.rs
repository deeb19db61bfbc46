//! The processes of a system: killed, and gone, when they are dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;

/// What a process that is no part of this program needs to die with it, even if this is killed
/// outright. It replaces itself by the command, so that the process id stays.
const DIES_WITH_PARENT: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];

/// A server of somebody else.
pub struct Child {
    name: String,
    process: Process,
    log: PathBuf,
}

impl Child {
    /// What it says goes to a file beside its data.
    pub fn start(name: &str, program: &Path, args: &[String], folder: &Path) -> Result<Self> {
        let mut command = match find(DIES_WITH_PARENT[0]) {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(&DIES_WITH_PARENT[1..]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(args).stdin(Stdio::null());
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        command.stdout(out.try_clone()?).stderr(out);
        Self::spawn(name, command, log)
    }

    fn spawn(name: &str, mut command: Command, log: PathBuf) -> Result<Self> {
        let process = command
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Self {
            name: name.into(),
            process,
            log,
        })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Fails with its last words if it has ended.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.process.try_wait()? else {
            return Ok(());
        };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
        bail!("{} ended with {status}:\n  {last}", self.name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// This program once more, doing what it is told in lines. It ends when its standard input does,
/// so that it never outlives this process.
pub struct Driven {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Driven {
    /// `args` come after the hidden word that makes it a node; returns what it said when it was
    /// ready.
    pub async fn start(name: &str, args: &[String], folder: &Path) -> Result<(Self, String)> {
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?);
        let mut child = Child::spawn(name, command, log)?;
        let stdin = child.process.stdin.take().context("a pipe")?;
        let stdout = child.process.stdout.take().context("a pipe")?;
        let mut driven = Self {
            child,
            stdin: ChildStdin::from_std(stdin)?,
            lines: BufReader::new(ChildStdout::from_std(stdout)?).lines(),
        };
        let ready = driven.answer("ready", Duration::from_secs(60)).await?;
        Ok((driven, ready))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks, and waits for the answer: what comes after `ok`.
    pub async fn ask(&mut self, request: &str) -> Result<String> {
        self.ask_within(request, Duration::from_secs(120)).await
    }

    pub async fn ask_within(&mut self, request: &str, within: Duration) -> Result<String> {
        self.tell(request).await?;
        self.answer(request, within).await
    }

    /// Asks, for an answer that is waited for later.
    pub async fn tell(&mut self, request: &str) -> Result<()> {
        self.child.check()?;
        let line = format!("{request}\n");
        self.stdin.write_all(line.as_bytes()).await?;
        self.stdin.flush().await?;
        Ok(())
    }

    pub async fn answer(&mut self, request: &str, within: Duration) -> Result<String> {
        let name = self.child.name.clone();
        let line = match timeout(within, self.lines.next_line()).await {
            Ok(line) => line?,
            Err(_) => bail!("{name} did not answer {request:?} in {within:?}"),
        };
        let Some(line) = line else {
            // It closed its end: its status follows at once.
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.child.check()?;
            bail!("{name} stopped listening");
        };
        let Some(answer) = line.strip_prefix("ok") else {
            bail!("{name}, asked to {request:?}: {line}");
        };
        ensure!(answer.is_empty() || answer.starts_with(' '), "{line}");
        Ok(answer.trim_start().into())
    }
}

/// A program on the path, or where Debian puts servers.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
