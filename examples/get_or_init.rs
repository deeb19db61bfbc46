//! A service that makes its configuration once, whichever of its replicas comes first.
//!
//! ```console
//! $ cargo run --example get_or_init
//! ```
//!
//! Three replicas start at the same moment, find no configuration, and each begins to make one.
//! All of them end up with the same one: the first that was committed. A fourth replica that comes
//! later gets it too, and does not even begin. The program ends with status 0 if it was so.

use std::error::Error;
use std::net::UdpSocket;
use std::time::Duration;

use raft_once::{Network, Once, OnceConfig, Secret};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ServiceConfig {
    made_by: String,
    shards: u32,
    token_salt: u64,
}

/// What every replica does when it starts.
async fn configure(replica: &str, network: &Network) -> Result<ServiceConfig, Box<dyn Error>> {
    // The type name keeps the cell the same when the type moves or the compiler changes.
    let settings = OnceConfig::new().type_name("shop.ServiceConfig.v1");
    let config = Once::<ServiceConfig>::writer_with_config(network, "service-config", settings);

    // Guaranteed: every caller, on every node, gets the one value that won; and where a value is
    // decided already, the closure is not run. *Not* guaranteed: that only one closure runs. Here
    // up to three do, and the configurations of two are thrown away. So the closure may be
    // expensive, but must do no harm when it is run for nothing. If it would: `claim` first, then
    // act (see the example `election`).
    let make = || async {
        println!("{replica}: no configuration yet, making one ...");
        tokio::time::sleep(Duration::from_millis(300)).await;
        ServiceConfig {
            made_by: replica.to_string(),
            shards: 16,
            token_salt: rand::random(),
        }
    };
    let decided = config.get_or_init(make).await?.clone();
    println!("{replica}: runs with {decided:?}");
    Ok(decided)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let voters = three_voters("shop").await?;

    let (a, b, c) = tokio::try_join!(
        configure("replica a", &voters[0]),
        configure("replica b", &voters[1]),
        configure("replica c", &voters[2]),
    )?;

    // More replicas need no more voters: they join with a ticket, which is itself a secret.
    let observer = Network::join(voters[0].ticket()).await?;
    let late = configure("replica d, late", &observer).await?;

    for node in voters.iter().chain([&observer]) {
        node.shutdown().await;
    }
    if [&b, &c, &late] != [&a; 3] {
        return Err(format!(
            "expected four equal configurations, saw {:?}",
            [a, b, c, late]
        )
        .into());
    }
    if late.made_by.contains("late") {
        return Err("the late replica made a configuration although there was one".into());
    }
    println!("four replicas, one configuration, made by {}", a.made_by);
    Ok(())
}

/// Three voters in this one process, in memory, on free loopback ports. A real service has one
/// voter per machine, with a `data_dir`, and the addresses and the secret in its settings.
async fn three_voters(network: &str) -> Result<Vec<Network>, Box<dyn Error>> {
    let bind = || UdpSocket::bind("127.0.0.1:0");
    // All three are bound before any is released, so that no two ports are the same.
    let sockets = [bind()?, bind()?, bind()?];
    let mut electorate = Vec::new();
    for (name, socket) in ["a", "b", "c"].into_iter().zip(&sockets) {
        electorate.push((name, socket.local_addr()?.to_string()));
    }
    drop(sockets);
    let secret = Secret::generate();
    let mut voters = Vec::new();
    for (name, _) in &electorate {
        let voter = Network::builder(network)
            .electorate(electorate.clone())
            .voter(*name)
            .secret(secret.clone())
            .in_memory();
        voters.push(voter.start().await?);
    }
    Ok(voters)
}
