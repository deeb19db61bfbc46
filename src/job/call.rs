//! The call itself: made once, bounded in time and in what is read of the answer.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderName, LOCATION};
use reqwest::redirect::Policy as Redirects;
use reqwest::{Client, Method, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::timeout;
use url::Url;

use super::command::command;
use super::duration;
use crate::machine::job::{Action, Call, Spec};
use crate::machine::task::{Failure, Outcome};

/// How many redirects are followed.
const REDIRECTS_MAX: usize = 5;

/// How much is read of a response, in bytes, and for how long. Nothing in it is of interest, but some
/// servers give up what they do when nobody listens.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;
const RESPONSE_WITHIN: Duration = Duration::from_secs(5);

/// The header that says which tick a call is for.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What runs the actions of jobs.
#[derive(Clone)]
pub(crate) struct Caller {
    client: Result<Client, String>,
    /// Why no call by https can be made here, if none can.
    trusts_nobody: Option<String>,
    #[cfg(test)]
    instead: Option<Instead>,
}

/// What tests do in place of a call.
#[cfg(test)]
pub(crate) type Instead =
    Arc<dyn Fn(String, u32) -> futures::future::BoxFuture<'static, Outcome> + Send + Sync>;

impl Caller {
    /// It trusts whom this machine trusts. Where that is nobody, calls by https fail.
    pub(super) fn new() -> Self {
        let trusting = builder().and_then(|builder| builder.with_platform_verifier());
        let (config, trusts_nobody) = match trusting {
            Ok(config) => (Ok(config.with_no_client_auth()), None),
            Err(error) => (trusting_only(RootCertStore::empty()), Some(error)),
        };
        Self {
            trusts_nobody: trusts_nobody.map(|error| error.to_string()),
            ..Self::with(config)
        }
    }

    fn with(config: Result<ClientConfig, rustls::Error>) -> Self {
        let client = config
            .map_err(|error| error.to_string())
            .and_then(|config| {
                let client = Client::builder()
                    .tls_backend_preconfigured(config)
                    .retry(reqwest::retry::never())
                    // They are followed here, where the method is known.
                    .redirect(Redirects::none())
                    // A connection that is used again may turn out to be closed, and the call be made again.
                    .pool_max_idle_per_host(0)
                    .no_proxy()
                    .user_agent(concat!("raft-once/", env!("CARGO_PKG_VERSION")));
                client.build().map_err(|error| reason(&error))
            });
        Self {
            client,
            trusts_nobody: None,
            #[cfg(test)]
            instead: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn instead(instead: Instead) -> Self {
        Self {
            instead: Some(instead),
            ..Self::with(trusting_only(RootCertStore::empty()))
        }
    }

    /// Runs the action of a job once, whatever comes of it.
    pub(super) async fn run(&self, spec: &Spec, key: &str, attempt: u32) -> Outcome {
        let within = Duration::from_millis(spec.timeout_ms);
        let timed_out = |_| failed(format!("timed out after {}", duration::format(within)));
        #[cfg(test)]
        if let Some(instead) = &self.instead {
            let called = timeout(within, instead(key.into(), attempt)).await;
            return called.unwrap_or_else(timed_out);
        }
        match &spec.action {
            Action::Call(call) => match timeout(within, self.call(call, key)).await {
                // It has succeeded, whatever else is said, or is not.
                Ok(Ok(response)) => {
                    let _ = timeout(RESPONSE_WITHIN, read(response)).await;
                    Outcome::SUCCESS
                }
                Ok(Err(reason)) => failed(reason),
                Err(elapsed) => timed_out(elapsed),
            },
            Action::Command(argv) => timeout(within, command(argv, key, attempt))
                .await
                .unwrap_or_else(timed_out),
        }
    }

    /// The answer, if it is one of success.
    async fn call(&self, call: &Call, key: &str) -> Result<Response, String> {
        let client = self.client.as_ref().map_err(String::clone)?;
        let method = Method::from_bytes(call.method.as_bytes());
        let method = method.map_err(|_| format!("{:?} is no method", call.method))?;
        let url = Url::parse(&call.url);
        let mut url = url.map_err(|error| format!("{:?} is no URL: {error}", call.url))?;
        for _ in 0..=REDIRECTS_MAX {
            if let Some(why) = &self.trusts_nobody
                && url.scheme() == "https"
            {
                return Err(format!("no call by https can be made from here: {why}"));
            }
            let mut request = client.request(method.clone(), url.clone());
            for (name, value) in &call.headers {
                request = request.header(name, value);
            }
            request = request.header(IDEMPOTENCY_KEY, key);
            if !call.body.is_empty() {
                request = request.body(call.body.clone());
            }
            let response = request.send().await.map_err(|error| reason(&error))?;
            if response.status().is_success() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            url = redirect(&method, &url, response.status(), location)?;
        }
        Err(format!("more than {REDIRECTS_MAX} redirects"))
    }
}

/// Where an answer that is no success sends the call, if the same call is to be made there. What is in
/// it is for nobody else.
fn redirect(
    method: &Method,
    from: &Url,
    status: StatusCode,
    location: Option<&str>,
) -> Result<Url, String> {
    let Some(to) = location.and_then(|to| from.join(to).ok()) else {
        return Err(format!("HTTP {status}"));
    };
    match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {}
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            if !matches!(*method, Method::GET | Method::HEAD) {
                return Err(format!(
                    "HTTP {status}, not followed: that would make a GET of the {method}"
                ));
            }
        }
        _ => return Err(format!("HTTP {status}")),
    }
    let secured = from.scheme() == "http"
        && to.scheme() == "https"
        && from.host() == to.host()
        && from.port().is_none()
        && to.port().is_none();
    match from.origin() == to.origin() || secured {
        true => Ok(to),
        false => Err(format!(
            "HTTP {status} to another place, {}, not followed",
            to.origin().ascii_serialization()
        )),
    }
}

async fn read(mut response: Response) {
    let mut read = 0;
    while read < RESPONSE_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        read += chunk.len();
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

fn trusting_only(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    Ok(builder()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

pub(super) fn failed(reason: String) -> Outcome {
    Outcome::Failed(Failure::Error(reason))
}

/// The innermost cause says what happened.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let what = match error.is_connect() {
        true => "cannot connect",
        false => "the call failed",
    };
    format!("{what}: {cause}")
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
