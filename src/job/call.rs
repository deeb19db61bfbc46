//! The call itself, or the command: made once, bounded in time and in what is read of the answer.

use std::error::Error;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderName;
use reqwest::redirect::Policy as Redirects;
use reqwest::{Client, Method};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;

use crate::machine::job::{Action, Call, Spec};
use crate::machine::task::{Failure, Outcome};

use super::duration;

/// How many redirects are followed.
const REDIRECTS_MAX: usize = 5;

/// How much is read of a response, in bytes. Nothing in it is of interest.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// The header that says which tick a call is for.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What runs the actions of jobs.
#[derive(Clone)]
pub(super) struct Caller {
    client: Client,
}

impl Caller {
    pub(super) fn new() -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_platform_verifier())
            .map_err(|error| error.to_string())?
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(config)
            .retry(reqwest::retry::never())
            .redirect(Redirects::limited(REDIRECTS_MAX))
            // A connection that is used again may turn out to be closed, and the call be made again.
            .pool_max_idle_per_host(0)
            .no_proxy()
            .user_agent(concat!("raft-once/", env!("CARGO_PKG_VERSION")))
            .build();
        client
            .map(|client| Self { client })
            .map_err(|error| reason(&error))
    }

    /// Runs the action of a job once, whatever comes of it.
    pub(super) async fn run(&self, spec: &Spec, key: &str, attempt: u32) -> Outcome {
        let timeout = Duration::from_millis(spec.timeout_ms);
        let ran = async {
            match &spec.action {
                Action::Call(call) => self.call(call, key).await,
                Action::Command(argv) => command(argv, key, attempt).await,
            }
        };
        match tokio::time::timeout(timeout, ran).await {
            Ok(outcome) => outcome,
            Err(_) => failed(format!("timed out after {}", duration::format(timeout))),
        }
    }

    async fn call(&self, call: &Call, key: &str) -> Outcome {
        let Ok(method) = Method::from_bytes(call.method.as_bytes()) else {
            return failed(format!("{:?} is no method", call.method));
        };
        let mut request = self.client.request(method, &call.url);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        request = request.header(IDEMPOTENCY_KEY, key);
        if !call.body.is_empty() {
            request = request.body(call.body.clone());
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return failed(reason(&error)),
        };
        let status = response.status();
        if !status.is_success() {
            return failed(format!("HTTP {status}"));
        }
        let mut read = 0;
        while read < RESPONSE_BYTES_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            read += chunk.len();
        }
        Outcome::SUCCESS
    }
}

/// Killed when it is given up.
async fn command(argv: &[String], key: &str, attempt: u32) -> Outcome {
    let Some((program, arguments)) = argv.split_first() else {
        return failed("there is no program".into());
    };
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env("ONCE_IDEMPOTENCY_KEY", key)
        .env("ONCE_ATTEMPT", attempt.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match command.status().await {
        Ok(status) if status.success() => Outcome::SUCCESS,
        Ok(status) => Outcome::Failed(match status.code() {
            Some(code) => Failure::Exit(code),
            None => failure_of_signal(status),
        }),
        Err(error) => failed(format!("cannot start {program:?}: {error}")),
    }
}

#[cfg(unix)]
fn failure_of_signal(status: std::process::ExitStatus) -> Failure {
    use std::os::unix::process::ExitStatusExt;
    Failure::Signal(status.signal().unwrap_or(0))
}

#[cfg(not(unix))]
fn failure_of_signal(_: std::process::ExitStatus) -> Failure {
    Failure::Error("it ended without an exit code".into())
}

fn failed(reason: String) -> Outcome {
    Outcome::Failed(Failure::Error(reason))
}

/// The innermost cause says what happened.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let what = if error.is_redirect() {
        "too many redirects"
    } else if error.is_connect() {
        "cannot connect"
    } else {
        "the call failed"
    };
    format!("{what}: {cause}")
}
