//! What is said to people and to machines.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use super::problem::{Done, Problem};
use crate::task::{State, Status};

/// How often it is looked whether somebody reads.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(120);

const WHEEL: [&str; 4] = ["|", "/", "-", "\\"];

const CLEAR: &str = "\r\x1b[K";

/// Prints to the standard output.
///
/// # Errors
///
/// Without a message, if whoever reads it is gone: then this process is to end, too.
pub(super) fn print(text: &str) -> Done {
    let mut out = io::stdout().lock();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match done {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Problem::new(0, "")),
        Err(error) => Err(Problem::new(
            super::problem::FAILED,
            format!("cannot write: {error}"),
        )),
        Ok(()) => Ok(0),
    }
}

/// Returns when nobody reads the standard output any more.
pub(super) async fn until_unread() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    loop {
        let out = io::stdout();
        // An error is told of whatever is asked for.
        let mut fds = [PollFd::new(out.as_fd(), PollFlags::empty())];
        let is_gone = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|found| found > 0);
        if is_gone {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

pub(super) fn print_json(value: &impl Serialize) -> Done {
    let text = serde_json::to_string(value).map_err(|error| Problem::usage(error.to_string()))?;
    print(&format!("{text}\n"))
}

/// Tells of something beside the result.
pub(super) fn note(json: bool, text: &str) {
    let mut out = io::stderr().lock();
    let text = match json {
        true => serde_json::json!({ "message": text }).to_string(),
        false => format!("once: {text}"),
    };
    // Nobody else could be told that this did not work.
    let _ = writeln!(out, "{text}");
}

pub(super) fn problem(json: bool, problem: &Problem) {
    if problem.message.is_empty() {
        return;
    }
    let mut out = io::stderr().lock();
    let text = if json {
        serde_json::json!({ "error": problem.message, "exitCode": problem.code }).to_string()
    } else {
        // Some quote what is in files, or what others have said.
        let lines: Vec<String> = problem.message.lines().map(plain).collect();
        let name = match out.is_terminal() {
            true => "\x1b[31monce:\x1b[0m",
            false => "once:",
        };
        format!("{name} {}", lines.join("\n"))
    };
    let _ = writeln!(out, "{text}");
}

/// A time as in RFC 3339, of whole seconds.
pub(super) fn time(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A word for a state; on a terminal in its colour.
pub(super) fn state(state: State) -> String {
    let (word, colour) = match state {
        State::Pending => ("pending", 0),
        State::Running => ("running", 36),
        State::Succeeded => ("succeeded", 32),
        State::Failed => ("failed", 31),
        State::Abandoned => ("abandoned", 33),
    };
    match io::stdout().is_terminal() && colour > 0 {
        true => format!("\x1b[{colour}m{word}\x1b[0m"),
        false => word.into(),
    }
}

/// A text of somebody else, for a terminal: what would move its cursor, or worse, is spelled out.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => plain.extend(c.escape_default()),
            false => plain.push(c),
        }
    }
    plain
}

/// Rows below a head, in columns.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |text: &str| {
        // Colours take no room.
        let mut is_code = false;
        let shown = text.chars().filter(|c| {
            let was_code = is_code;
            is_code = *c == '\x1b' || (is_code && *c != 'm');
            !was_code && !is_code
        });
        shown.count()
    };
    let mut widths: Vec<usize> = head.iter().map(|text| width(text)).collect();
    for row in rows {
        for (known, text) in widths.iter_mut().zip(row) {
            *known = (*known).max(width(text));
        }
    }
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for row in [&head].into_iter().chain(rows) {
        let mut line = String::new();
        for (cell, known) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(known + 3 - width(cell)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// On a terminal: shows that, and for whom, it waits, while `future` goes on.
pub(super) async fn spin<T>(
    json: bool,
    status: Option<&Status>,
    future: impl Future<Output = T>,
) -> T {
    let is_shown = !json && io::stderr().is_terminal();
    if !is_shown {
        return future.await;
    }
    let who = status.and_then(|status| status.executor.as_deref());
    let text = match (status, who) {
        (Some(status), Some(who)) if status.state == State::Running => {
            let since = status.executed_at.map(time).unwrap_or_default();
            format!("waiting for {}: {who} runs it since {since}", status.name)
        }
        (Some(status), _) => format!("waiting for {}", status.name),
        (None, _) => "waiting".into(),
    };
    let turning = async {
        for turn in WHEEL.iter().cycle() {
            let _ = write!(io::stderr(), "{CLEAR}{turn} {text}");
            tokio::time::sleep(TURN).await;
        }
    };
    let result = tokio::select! {
        result = future => Some(result),
        () = turning => None,
    };
    let _ = write!(io::stderr(), "{CLEAR}");
    match result {
        Some(result) => result,
        // The wheel has no end.
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room_in_columns() {
        let rows = [
            vec!["\x1b[32mab\x1b[0m".to_string(), "x".into()],
            vec!["abc".into(), "y".into()],
        ];
        assert_eq!(
            table(&["A", "B"], &rows),
            "A     B\n\x1b[32mab\x1b[0m    x\nabc   y\n"
        );
    }

    #[test]
    fn what_moves_the_cursor_is_spelled_out() {
        assert_eq!(plain("a\x1b[2Jb\n\u{9b}é"), "a\\u{1b}[2Jb\\n\\u{9b}é");
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_705_314_600_999);
        assert_eq!(time(at), "2024-01-15T10:30:00Z");
    }
}
