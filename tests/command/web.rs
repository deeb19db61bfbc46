//! A voter that answers HTTP, and whoever asks it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Stdio};

use serde_json::Value;

use super::lab::{Lab, PATIENCE, until};

pub const TOKEN: &str = "0123456789abcdef";

/// Voter `a`. There is a ticket for its cluster.
pub struct Node {
    pub lab: Lab,
    pub addr: SocketAddr,
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the API of a voter answers, once its log says so.
pub fn addr_of(lab: &Lab, log: &str) -> SocketAddr {
    until("the API answers", || {
        let lines = lab.lines(log);
        let at = lines
            .iter()
            .find_map(|line| line.split_once("at http://"))?
            .1;
        at.trim_end_matches('/').parse().ok()
    })
}

impl Node {
    /// The others of so many voters never come. The file `token` has a token.
    pub fn start(voters: usize, more: &str) -> Self {
        let mut lab = Lab::new();
        let sockets: Vec<_> = (0..voters)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let voters = ["a", "b", "c"].iter().zip(&sockets);
        let voters: Vec<_> = voters
            .map(|(name, socket)| format!("{name}={}", socket.local_addr().unwrap()))
            .collect();
        let voters = voters.join(",");
        drop(sockets);
        std::fs::write(lab.path("token"), TOKEN).unwrap();
        lab.once("secret --out secret").expect(0);
        let of = format!("--voters {voters} --secret-file secret");
        let ticket = lab.once(&format!("ticket {of}")).expect(0);
        std::fs::write(lab.path("ticket"), ticket).unwrap();
        let mut command = lab.command(env!("CARGO_BIN_EXE_once"));
        let args = format!("serve --voter a {of} --data-dir data --http 127.0.0.1:0 {more}");
        let log = std::fs::File::create(lab.path("log")).unwrap();
        let child = command
            .args(args.split_whitespace())
            .stdout(Stdio::null())
            .stderr(log);
        let child = child.spawn().unwrap();
        lab.ticket = Some(lab.path("ticket"));
        let addr = addr_of(&lab, "log");
        Self { lab, addr, child }
    }

    pub fn ask(&self, method: &str, path: &str) -> Answer {
        ask(self.addr, method, path, &[], None)
    }

    pub fn create(&self, job: &Value) -> Answer {
        ask(
            self.addr,
            "POST",
            "/api/jobs",
            &[JSON],
            Some(&job.to_string()),
        )
    }
}

pub const JSON: (&str, &str) = ("Content-Type", "application/json");

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1);
        Self {
            status: status.and_then(|status| status.parse().ok()).unwrap_or(0),
            head: head.into(),
            body: body.into(),
        }
    }

    fn is_whole(&self) -> bool {
        let length = self.header("content-length");
        let length = length.and_then(|length| length.parse::<usize>().ok());
        length.is_some_and(|length| self.body.len() >= length)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.body.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let mut headers = lines.filter_map(|line| line.split_once(':'));
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }
}

/// One request on a connection of its own.
pub fn ask(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        write!(head, "Host: {addr}\r\n").unwrap();
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if let Some(body) = body {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    raw(addr, format!("{head}\r\n{}", body.unwrap_or("")).as_bytes())
}

/// Sends bytes as they are. Whoever is refused need not read all of it.
pub fn raw(addr: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(request);
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    // Some leave the connection open.
    while !Answer::of(&bytes).is_whole()
        && let Ok(read @ 1..) = stream.read(&mut piece)
    {
        bytes.extend(&piece[..read]);
    }
    Answer::of(&bytes)
}
