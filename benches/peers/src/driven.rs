//! The other end of a [`Driven`](crate::child::Driven) process: it answers one request a line.

use std::io::{BufRead, Write};

use anyhow::Result;
use tokio::sync::mpsc;

/// The requests, in order. When the parent has gone, this process ends.
pub fn requests() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        // At once, whatever is under way: nobody is left to want it.
        std::process::exit(0);
    });
    receiver
}

/// One line, whatever is in it. Without anybody to read it there is nothing left to live for.
pub fn say(answer: &Result<String>) {
    let line = match answer {
        Ok(answer) if answer.is_empty() => "ok".to_string(),
        Ok(answer) => format!("ok {answer}"),
        Err(error) => format!("failed {error:#}"),
    };
    let line = line.replace('\n', " ");
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
