//! Every operation of the public surface, on a network of one.

mod bad_input;
mod claims;
mod endings;
mod operations;

use raft_once::Network;

type Failure = Box<dyn std::error::Error>;

async fn network() -> Network {
    Network::new("surface").await.expect("loopback is there")
}

/// One voter of three, the other two of which never start.
async fn alone(write_timeout_ms: u64) -> Network {
    Network::builder("alone")
        .electorate([
            ("a", "127.0.0.1:0"),
            ("b", "127.0.0.1:1"),
            ("c", "127.0.0.1:2"),
        ])
        .voter("a")
        .in_memory()
        .write_timeout_ms(write_timeout_ms)
        .start()
        .await
        .expect("loopback is there")
}
