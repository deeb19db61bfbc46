//! Probes: what engines that run containers ask.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};

use super::{Port, Reply, Within};
use crate::cli::serve::as_json;
use crate::network::{Network, NetworkStatus};

/// Idle connections are not to hold up a probe for longer than it waits.
const WITHIN: Within = Within {
    head: Duration::from_millis(500),
    all: Duration::from_millis(500),
};

/// Answers probes, for ever.
pub(in crate::cli) async fn probe(port: &Port, network: &Network) {
    let network = network.clone();
    let answer = move |request: Request<Incoming>| {
        let reply = match *request.method() {
            Method::GET => reply(request.uri().path(), &network.status()),
            _ => Reply::not_allowed("GET"),
        };
        std::future::ready(reply)
    };
    port.answer(WITHIN, answer).await;
}

fn reply(path: &str, status: &NetworkStatus) -> Reply {
    match path {
        "/livez" | "/healthz" => match &status.failure {
            None => Reply::text(StatusCode::OK, "ok"),
            Some(reason) => Reply::text(StatusCode::SERVICE_UNAVAILABLE, reason),
        },
        "/readyz" if status.in_touch && status.failure.is_none() => {
            Reply::text(StatusCode::OK, "ok")
        }
        "/readyz" => Reply::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "no majority of the voters is in touch",
        ),
        "/status" => Reply::json(StatusCode::OK, &as_json(status)),
        _ => Reply::text(
            StatusCode::NOT_FOUND,
            "there are /livez, /readyz and /status",
        ),
    }
}
