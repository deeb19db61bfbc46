//! A place of its own for each test: a state directory, and files that commands write.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What any single thing may take. Nothing is expected of how long it does take.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// In a script: waits until there is a file `go`; for ever it does not, so that nothing is left of a test
/// that failed.
const UNTIL_GO: &str =
    "until_go() { i=0; while [ ! -e go ] && [ $i -lt 15000 ]; do sleep 0.01; i=$((i+1)); done; }; ";

/// What a command came to.
#[derive(Debug)]
pub struct Went {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Went {
    #[track_caller]
    pub fn expect(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.out
    }
}

pub struct Lab {
    folder: TempDir,
    /// Of what it is called with.
    pub ticket: Option<PathBuf>,
}

impl Lab {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            folder,
            ticket: None,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The lines of a file; none if it is not there.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(Into::into).collect()
    }

    /// Commands run in the folder of the test, and know no other state.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ONCE_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.folder.path())
            .env("ONCE_STATE_DIR", self.path("state"));
        if let Some(ticket) = &self.ticket {
            command.env("ONCE_TICKET_FILE", ticket);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        let mut command = self.command(env!("CARGO_BIN_EXE_once"));
        command.args(args).spawn().expect("once starts")
    }

    /// Runs `once` with the words of `line`; what stands behind ` -- ` is a line for `sh -c`.
    pub fn once(&self, line: &str) -> Went {
        ended(self.start(words(line)))
    }

    /// Ten racers for each of so many keys, or of as many as `ONCE_RACE_KEYS` says; each begins elsewhere.
    pub fn race_for_keys(&self, keys: usize) {
        let keys = std::env::var("ONCE_RACE_KEYS")
            .ok()
            .and_then(|keys| keys.parse().ok())
            .unwrap_or(keys);
        let race = |racer: usize| {
            for key in 0..keys {
                let key = (key + racer * 7) % keys;
                self.once(&format!("run {key} -- echo {key} >> out"))
                    .expect(0);
            }
        };
        std::thread::scope(|scope| {
            for racer in 0..10 {
                scope.spawn(move || race(racer));
            }
        });
        let mut lines: Vec<usize> = self
            .lines("out")
            .iter()
            .map(|line| line.parse().expect("a key"))
            .collect();
        lines.sort_unstable();
        assert_eq!(lines, (0..keys).collect::<Vec<_>>());
    }

    pub fn start_line(&self, line: &str) -> Child {
        self.start(words(line))
    }

    /// Runs a script in which `koncli` and `once` are this binary.
    pub fn script(&self, text: &str) -> Went {
        let bin = self.path("bin");
        if fs::create_dir(&bin).is_ok() {
            for name in ["koncli", "once"] {
                std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_once"), bin.join(name))
                    .expect("a link");
            }
        }
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&paths)));
        let mut command = self.command("/bin/sh");
        command
            .arg("-c")
            .arg(text)
            .env("PATH", paths.expect("paths"));
        ended(command.spawn().expect("sh starts"))
    }

    /// Makes a program of this name on the PATH of scripts.
    pub fn stub(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.script("true").expect(0);
        let path = self.path("bin").join(name);
        fs::write(&path, text).expect("a stub");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a stub");
    }

    pub fn json(&self, line: &str) -> serde_json::Value {
        let out = self.once(line).expect(0);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    pub fn state_of(&self, name: &str) -> String {
        let task = self.json(&format!("get {name} -o json"));
        task["status"]["state"].as_str().unwrap_or_default().into()
    }
}

fn words(line: &str) -> Vec<String> {
    let (line, script) = match line.split_once(" -- ") {
        Some((line, script)) => (line, Some(script)),
        None => (line, None),
    };
    let mut words: Vec<String> = line.split_whitespace().map(Into::into).collect();
    if let Some(script) = script {
        let script = match script.contains("until_go") {
            true => format!("{UNTIL_GO}{script}"),
            false => script.into(),
        };
        words.extend(["--", "sh", "-c", &script].map(Into::into));
    }
    words
}

pub fn ended(mut child: Child) -> Went {
    // Meanwhile: what it says may be more than fits into a pipe.
    let out = child.stdout.take().map(read);
    let err = child.stderr.take().map(read);
    let code = until("a command ends", || {
        child
            .try_wait()
            .expect("a child")
            .map(|status| status.code())
    });
    let said = |reading: Option<JoinHandle<String>>| match reading {
        Some(reading) => reading.join().expect("text"),
        None => String::new(),
    };
    Went {
        code,
        out: said(out),
        err: said(err),
    }
}

fn read(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("text");
        text
    })
}

/// Kills it. What it has started may hold what it would say open for long, so that nobody reads that.
pub fn kill(mut child: Child) {
    child.kill().expect("it is there");
    child.wait().expect("it ends");
}

/// Looks again and again until there is something.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < give_up,
            "it was waited in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process.
pub fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, signal).expect("it is there");
}
