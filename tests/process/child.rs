//! The child's side: a node that does what it is told on stdin.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use raft_once::{
    Claim, ClaimError, Error, Network, NetworkError, Once, Pending, ReadError, Secret,
};

use super::{CHILD, DEADLINE, FIELD, MARK, RECORD, Spec};

impl Spec {
    pub(super) fn to_env(&self) -> (&'static str, String) {
        let mut lines = vec![format!("network={}", self.network)];
        for (name, addr) in &self.voters {
            lines.push(format!("elect={name}@{addr}"));
        }
        let dir = self.dir.as_ref().map(|dir| dir.display().to_string());
        let timeout = self.write_timeout_ms.map(|ms| ms.to_string());
        let segment = self.segment_bytes.map(|bytes| bytes.to_string());
        for (key, value) in [
            ("voter", &self.voter),
            ("dir", &dir),
            ("secret", &self.secret),
            ("bind", &self.bind),
            ("write_timeout_ms", &timeout),
            ("log", &self.log),
            ("segment_bytes", &segment),
        ] {
            if let Some(value) = value {
                lines.push(format!("{key}={value}"));
            }
        }
        lines.push(format!("log_times={}", self.log_times));
        (CHILD, lines.join("\n"))
    }

    fn from_env(text: &str) -> Self {
        let mut spec = Self::default();
        for line in text.lines() {
            let (key, value) = line.split_once('=').expect("key=value");
            let some = || Some(value.to_string());
            match key {
                "network" => spec.network = value.into(),
                "elect" => {
                    let (name, addr) = value.split_once('@').expect("name@addr");
                    spec.voters.push((name.into(), addr.into()));
                }
                "voter" => spec.voter = some(),
                "dir" => spec.dir = Some(value.into()),
                "secret" => spec.secret = some(),
                "bind" => spec.bind = some(),
                "write_timeout_ms" => spec.write_timeout_ms = Some(value.parse().expect("ms")),
                "log" => spec.log = some(),
                "log_times" => spec.log_times = value == "true",
                "segment_bytes" => spec.segment_bytes = Some(value.parse().expect("bytes")),
                _ => panic!("unknown key {key}"),
            }
        }
        spec
    }

    async fn start(&self) -> Result<Network, NetworkError> {
        let mut builder = Network::builder(&self.network).electorate(self.voters.clone());
        if let Some(voter) = &self.voter {
            builder = builder.voter(voter);
        }
        if let Some(dir) = &self.dir {
            builder = builder.data_dir(dir);
        }
        if let Some(secret) = &self.secret {
            builder = builder.secret(secret.parse::<Secret>().expect("a good secret"));
        }
        if let Some(bind) = &self.bind {
            builder = builder.bind(bind.parse::<SocketAddr>().expect("an address"));
        }
        if let Some(ms) = self.write_timeout_ms {
            builder = builder.write_timeout_ms(ms);
        }
        #[cfg(feature = "testing")]
        if let Some(bytes) = self.segment_bytes {
            builder = builder.segment_bytes_max(bytes);
        }
        let deadline = tokio::time::Instant::now() + DEADLINE / 2;
        loop {
            match builder.clone().start().await {
                // Somebody may have taken the port for a moment.
                Err(NetworkError::Bind { .. }) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                result => return result,
            }
        }
    }
}

/// Further commands of one test, to the node of the child.
pub type More = fn(Network, Vec<String>) -> BoxFuture<'static, Vec<String>>;

/// Runs the node that the environment describes, until stdin ends; without one, returns.
pub fn child_entry() {
    child_entry_with(|_, words| {
        Box::pin(async move { vec!["error".into(), format!("unknown command {words:?}")] })
    });
}

/// [`child_entry`] with more commands than the usual ones.
pub fn child_entry_with(more: More) {
    let Ok(spec) = std::env::var(CHILD) else {
        return;
    };
    let spec = Spec::from_env(&spec);
    let filter = spec.log.as_deref().unwrap_or("warn");
    let logging = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match spec.log_times {
        true => logging.init(),
        false => logging.without_time().init(),
    }
    let (commands, mut received) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let _ = commands.send(line);
        }
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let network = match spec.start().await {
            Ok(network) => network,
            Err(error) => {
                say("0", &["failed".into(), error.to_string()]);
                std::process::exit(1);
            }
        };
        say("0", &["ready".into(), network.local_addr().to_string()]);
        let node = Arc::new(Running {
            network,
            more,
            cells: Mutex::default(),
            pending: Mutex::default(),
        });
        while let Some(line) = received.recv().await {
            let node = node.clone();
            tokio::spawn(async move {
                let words: Vec<&str> = line.split(FIELD).collect();
                say(words[0], &node.answer(&words[1..]).await);
            });
        }
    });
}

/// One write, so that lines of two tasks do not mix.
fn say(id: &str, fields: &[String]) {
    let text = fields.join(&FIELD.to_string()).replace('\n', " ");
    let mut out = std::io::stdout().lock();
    // A parent that is gone does not read it.
    let _ = out.write_all(format!("\n{MARK}{id}{FIELD}{text}\n").as_bytes());
    let _ = out.flush();
}

struct Running {
    network: Network,
    more: More,
    cells: Mutex<HashMap<String, Once<String>>>,
    pending: Mutex<HashMap<String, Pending<String>>>,
}

impl Running {
    fn cell(&self, name: &str) -> Once<String> {
        let mut cells = self.cells.lock().unwrap();
        let cell = cells
            .entry(name.to_string())
            .or_insert_with(|| Once::writer(&self.network, name));
        cell.clone()
    }

    async fn answer(&self, words: &[&str]) -> Vec<String> {
        let said = |words: &[&dyn ToString]| words.iter().map(|w| w.to_string()).collect();
        match *words {
            ["write", cell, value] => match self.cell(cell).write(value.into()).await {
                Ok(version) => said(&[&"ok", &version.as_u64()]),
                Err(Error::Offline(value)) => said(&[&"offline", &value]),
                Err(error) => said(&[&"error", &error]),
            },
            // Goes on with the proposal that an earlier claim of this value left behind.
            ["claim", cell, value] => {
                let key = format!("{cell}{FIELD}{value}");
                let left = self.pending.lock().unwrap().remove(&key);
                let pending = left.unwrap_or_else(|| Pending::from(value.to_string()));
                match self.cell(cell).claim(pending).await {
                    Ok(Claim::Won(version)) => said(&[&"won", &version.as_u64()]),
                    Ok(Claim::Lost {
                        winner,
                        version,
                        offered,
                        ..
                    }) => said(&[&"lost", &version.as_u64(), &winner, &offered]),
                    Err(ClaimError::Offline(same)) => {
                        let value = same.value().clone();
                        self.pending.lock().unwrap().insert(key, same);
                        said(&[&"offline", &value])
                    }
                    Err(error) => said(&[&"error", &error]),
                }
            }
            ["read", cell] => found(self.cell(cell).read()),
            ["linear", cell] => match self.cell(cell).read_linearizable().await {
                Ok(value) => found(value),
                Err(ReadError::Offline) => said(&[&"offline"]),
                Err(error) => said(&[&"error", &error]),
            },
            ["wait", cell] => match self.cell(cell).await_value().await {
                Ok(value) => found(Some(value)),
                Err(error) => said(&[&"error", &error]),
            },
            ["online", cell] => said(&[&format!("{:?}", self.cell(cell).when().online().await)]),
            ["offline", cell] => said(&[&format!("{:?}", self.cell(cell).when().offline().await)]),
            ["group", cell] => said(&[&self.cell(cell).group_id()]),
            ["decision", cell] => match self.cell(cell).decision() {
                Some(decision) => said(&[&"some", &decision.version.as_u64(), &decision.winner]),
                None => said(&[&"none"]),
            },
            ["status"] => self.status(),
            ["shutdown"] => {
                self.network.shutdown().await;
                said(&[&"done"])
            }
            _ => {
                let words = words.iter().map(|word| word.to_string()).collect();
                (self.more)(self.network.clone(), words).await
            }
        }
    }

    fn status(&self) -> Vec<String> {
        let status = self.network.status();
        let field = FIELD.to_string();
        let mut records = vec![
            [
                status.in_touch.to_string(),
                status.waiting_for.join(","),
                status.failure.unwrap_or_default(),
            ]
            .join(&field),
        ];
        for voter in status.voters {
            let linked = voter.linked.to_string();
            let trouble = voter.trouble.unwrap_or_default();
            records.push(["voter".into(), voter.name, linked, trouble].join(&field));
        }
        for cell in status.cells {
            let (awake, term) = (cell.awake.to_string(), cell.term.to_string());
            let (version, decided, online) = (cell.version.as_u64(), cell.decided, cell.online);
            let leader = cell.leader.map(|leader| leader.to_string());
            let leader = leader.unwrap_or_else(|| "nobody".into());
            let more =
                format!("led by {leader}, version {version}, decided: {decided}, online: {online}");
            records.push(["cell".into(), cell.group.to_string(), awake, term, more].join(&field));
        }
        vec![records.join(&RECORD.to_string())]
    }
}

fn found(value: Option<String>) -> Vec<String> {
    match value {
        Some(value) => vec!["some".into(), value],
        None => vec!["none".into()],
    }
}
