//! A node as its parent sees it: a child process that answers questions.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::node::{Plan, SECRET_VARIABLE, TICKET_VARIABLE};
use super::protocol::{Answer, Ask, EVENT};

/// How long a node may take to start, or to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What lets a node in: not for everybody to see.
pub enum Pass {
    Secret(String),
    Ticket(String),
}

/// Why a node did not start.
pub enum NotStarted {
    /// Another process has taken the port; another try may succeed.
    PortTaken(String),
    Failed(String),
}

impl NotStarted {
    pub fn reason(self) -> String {
        match self {
            Self::PortTaken(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Killed, and gone, when it is dropped.
pub struct Process {
    name: &'static str,
    pub node_id: String,
    child: Child,
    stdin: ChildStdin,
    answers: mpsc::UnboundedReceiver<Answer>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts this program again, as a node. `heard` is told all that it says, in order.
    pub async fn start(
        name: &'static str,
        plan: &Plan,
        pass: &Pass,
        heard: impl Fn(&Answer) + Send + 'static,
    ) -> Result<Self, NotStarted> {
        let failed = |error: std::io::Error| NotStarted::Failed(format!("{name}: {error}"));
        let (variable, value) = match pass {
            Pass::Secret(secret) => (SECRET_VARIABLE, secret),
            Pass::Ticket(ticket) => (TICKET_VARIABLE, ticket),
        };
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(plan.to_args())
            .env(variable, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both are pipes");
        };
        let (sender, answers) = mpsc::unbounded_channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let unasked = line.strip_prefix(EVENT);
                let answer = Answer::parse(unasked.unwrap_or(&line))
                    .unwrap_or_else(|| Answer::Failed(format!("it said {line:?}")));
                heard(&answer);
                if unasked.is_none() {
                    let _ = sender.send(answer);
                }
            }
        });
        let mut process = Self {
            name,
            node_id: String::new(),
            child,
            stdin,
            answers,
            reader: Some(reader),
        };
        match process.answer("to be up").await {
            Ok(Answer::Ready(node_id)) => process.node_id = node_id,
            Ok(Answer::PortTaken(reason)) => return Err(NotStarted::PortTaken(reason)),
            Ok(other) => {
                let reason = format!("expected {name} to start; saw {other:?}");
                return Err(NotStarted::Failed(reason));
            }
            Err(reason) => return Err(NotStarted::Failed(reason)),
        }
        Ok(process)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub async fn ask(&mut self, ask: Ask) -> Result<Answer, String> {
        let what = format!("an answer to {ask:?}");
        if let Err(error) = writeln!(self.stdin, "{ask}") {
            return Err(format!("expected {} to listen; saw: {error}", self.name));
        }
        self.answer(&what).await
    }

    async fn answer(&mut self, what: &str) -> Result<Answer, String> {
        let expected = format!("expected {what} from {}", self.name);
        match timeout(ANSWER_WITHIN, self.answers.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => match self.child.wait() {
                Ok(status) => Err(format!("{expected}; saw its process end, {status}")),
                Err(error) => Err(format!("{expected}; saw its process end, {error}")),
            },
            Err(_) => Err(format!("{expected}; saw nothing for {ANSWER_WITHIN:?}")),
        }
    }

    /// Asks it to end in order.
    pub async fn stop(mut self) -> Result<(), String> {
        let name = self.name;
        match self.ask(Ask::Stop).await? {
            Answer::Stopped => {}
            other => return Err(format!("expected {name} to stop; saw {other:?}")),
        }
        match timeout(ANSWER_WITHIN, self.answers.recv()).await {
            Ok(None) => {}
            other => return Err(format!("expected {name} to end; saw {other:?}")),
        }
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("expected {name} to end well; saw {other:?}")),
        }
    }
}

/// On Unix, `kill` is SIGKILL: the process has no chance to put anything in order.
impl Drop for Process {
    fn drop(&mut self) {
        // Errors only say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            // What it said before it died is heard before this returns.
            let _ = reader.join();
        }
    }
}
