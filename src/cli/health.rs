//! Answers probes by HTTP, as much of it as probes need.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::serve::as_json;
use crate::network::Network;

/// The longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// The most requests at a time; others wait in the system's queue.
const REQUESTS_MAX: usize = 64;

/// How long a request may take: idle connections are not to hold up a probe for longer than it waits.
const REQUEST_WITHIN: Duration = Duration::from_millis(500);

/// The pause after a request could not be accepted: descriptors may be short.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

pub(super) struct Health(TcpListener);

impl Health {
    pub(super) async fn bind(addr: SocketAddr) -> std::io::Result<Self> {
        Ok(Self(TcpListener::bind(addr).await?))
    }

    pub(super) fn addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    /// Answers, for ever.
    pub(super) async fn answer(&self, network: &Network) {
        let room = Arc::new(Semaphore::new(REQUESTS_MAX));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = self.0.accept().await else {
                sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let network = network.clone();
            tokio::spawn(async move {
                // Who is too slow, or gone, gets no answer.
                let _ = timeout(REQUEST_WITHIN, respond(stream, &network)).await;
                drop(permit);
            });
        }
    }
}

async fn respond(mut stream: TcpStream, network: &Network) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 512];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await?;
        request.extend(&buffer[..read]);
        if read == 0 || request.len() > REQUEST_BYTES_MAX {
            return Ok(());
        }
    }
    let line = request
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let (code, kind, body) = answer_to(&String::from_utf8_lossy(line), network);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn answer_to(line: &str, network: &Network) -> (&'static str, &'static str, String) {
    const TEXT: &str = "text/plain";
    let path = line
        .strip_prefix("GET ")
        .and_then(|line| line.split(' ').next());
    let status = network.status();
    match path {
        Some("/livez" | "/healthz") => match status.failure {
            None => ("200 OK", TEXT, "ok\n".into()),
            Some(reason) => ("503 Service Unavailable", TEXT, format!("{reason}\n")),
        },
        Some("/readyz") if status.in_touch && status.failure.is_none() => {
            ("200 OK", TEXT, "ok\n".into())
        }
        Some("/readyz") => (
            "503 Service Unavailable",
            TEXT,
            "no majority of the voters is in touch\n".into(),
        ),
        Some("/status") => (
            "200 OK",
            "application/json",
            format!("{}\n", as_json(&status)),
        ),
        Some(_) => (
            "404 Not Found",
            TEXT,
            "there are /livez, /readyz and /status\n".into(),
        ),
        None => ("405 Method Not Allowed", TEXT, "only GET\n".into()),
    }
}
