//! Answers HTTP: probes, and the API with its page. One request a connection, so that nobody holds
//! one for long.

mod api;
mod guard;
mod probes;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

pub(super) use api::Api;
pub(super) use guard::{Token, check_addr};
pub(super) use probes::probe;

/// The longest head of a request, in bytes; hyper takes no smaller bound.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The most requests at a time; others wait in the system's queue.
const REQUESTS_MAX: usize = 64;

/// The pause after a connection could not be accepted: descriptors may be short.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// How long who connects may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within {
    /// To say what is asked for.
    head: Duration,
    /// For all of it.
    all: Duration,
}

/// A port that answers.
pub(super) struct Port(TcpListener);

impl Port {
    pub(super) async fn bind(addr: SocketAddr) -> std::io::Result<Self> {
        Ok(Self(TcpListener::bind(addr).await?))
    }

    pub(super) fn addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    /// Answers, for ever.
    pub(super) async fn answer<F>(
        &self,
        within: Within,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = Reply> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(REQUESTS_MAX));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = self.0.accept().await else {
                sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let answer = answer.clone();
            tokio::spawn(async move {
                // Who is too slow, or gone, gets no answer.
                let _ = timeout(within.all, respond(stream, within, answer)).await;
                drop(permit);
            });
        }
    }
}

async fn respond<F: Future<Output = Reply>>(
    stream: TcpStream,
    within: Within,
    answer: impl Fn(Request<Incoming>) -> F,
) {
    let service = service_fn(|request| {
        let answered = answer(request);
        async { Ok::<_, Infallible>(*answered.await.0) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(within.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Nobody else is to know that a client has gone.
    let _ = serving.await;
}

/// What is answered.
pub(super) struct Reply(Box<Response<Full<Bytes>>>);

impl Reply {
    fn new(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = status;
        Self(response.into())
            .with(CONTENT_TYPE.as_str(), kind)
            .with(X_CONTENT_TYPE_OPTIONS.as_str(), "nosniff")
    }

    fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into() + "\n")
    }

    fn json(status: StatusCode, value: &Value) -> Self {
        Self::new(status, "application/json", format!("{value}\n"))
    }

    /// Nothing but that it is done.
    fn empty() -> Self {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Self(response.into())
    }

    /// Why not, and by which field, if it is about one.
    fn error(status: StatusCode, field: &str, message: impl Into<String>) -> Self {
        let field = (!field.is_empty()).then_some(field);
        let error = json!({"error": {"field": field, "message": message.into()}});
        Self::json(status, &error)
    }

    fn not_allowed(allowed: &'static str) -> Self {
        let message = format!("this answers {allowed}");
        Self::error(StatusCode::METHOD_NOT_ALLOWED, "", message).with(ALLOW.as_str(), allowed)
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        // What is put there is made here: it is ASCII.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }
}
