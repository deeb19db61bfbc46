//! A cluster of four processes decides one `Once<String>`, and keeps it through crashes.
//!
//! ```console
//! $ cargo run --release --example cluster
//! ```
//!
//! It starts three voters, each a process of its own with its data in a temporary place, and an
//! observer. All four race to decide one cell. Then the leader is killed with SIGKILL, comes back
//! from its disk; two voters are killed and the third is left without a majority; all are killed
//! and started again. What each node sees is printed as it happens. The exit status is 0 only if
//! every step went as it should; one that did not says what was expected and what was seen.
//!
//! To see what the library says meanwhile:
//!
//! ```console
//! $ RUST_LOG=raft_once=info,openraft=warn cargo run --release --example cluster 2> log
//! ```
//!
//! Where to look: `node.rs` is what a program that uses the library looks like, `story.rs` is the
//! story. The rest is plumbing: the program runs itself again for each node (`process.rs`), and
//! talks to it in lines over its standard input and output (`protocol.rs`).

mod cluster;
mod node;
mod process;
mod protocol;
mod screen;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use screen::Screen;

/// The story takes less than a third of this.
const TIME_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match node::Plan::from_args(std::env::args().skip(1)) {
        Ok(None) => runtime.block_on(tell()),
        Ok(Some(plan)) => runtime.block_on(node::run(plan)),
        Err(reason) => {
            eprintln!("{reason}; run it without arguments");
            ExitCode::from(2)
        }
    }
}

/// Whatever way the story ends, its processes and files are gone when this returns.
async fn tell() -> ExitCode {
    let screen = Screen::new();
    let result = tokio::select! {
        told = tokio::time::timeout(TIME_LIMIT, story::tell(&screen)) => told.unwrap_or_else(|_| {
            Err(format!("expected the story to end in {TIME_LIMIT:?}; saw it still going on"))
        }),
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            screen.failed(&reason);
            ExitCode::FAILURE
        }
    }
}
