//! A migration that every replica of a service starts, and one runs.
//!
//! ```console
//! $ cargo run --example tasks
//! ```
//!
//! Six replicas, three voters and three observers, run the same task at the same moment. One is told
//! to start it; the others wait until it is done, and go on. A replica that comes later goes on at
//! once. The program ends with status 0 if it was so.

use std::error::Error;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use raft_once::task::{Ran, State, Tasks};
use raft_once::{Network, Secret};

static MIGRATIONS: AtomicU32 = AtomicU32::new(0);

/// What every replica does when it starts.
async fn migrate(replica: String, network: &Network) -> Result<(), Box<dyn Error>> {
    let tasks = Tasks::new(network, "shop").named(&replica);
    let migration = tasks.task("migrate to 7");
    let ran = migration.run(|_| async {
        MIGRATIONS.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok::<_, std::io::Error>(())
    });
    // Guaranteed: the closure is run by one replica at most, and whoever comes here with a state of
    // `Succeeded` comes after it. *Not* guaranteed: that it ends. If the one that runs it dies, the
    // others are told `Abandoned`, and an operator has to look.
    match ran.await? {
        Ran::Here(here) => here.result?,
        Ran::Elsewhere(status) if status.state == State::Succeeded => {
            println!(
                "{replica}: {} has done it",
                status.executor.unwrap_or_default()
            );
        }
        Ran::Elsewhere(status) => return Err(format!("{replica}: {:?}", status.state).into()),
    }
    println!("{replica}: starts with the new tables");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut nodes = three_voters("shop").await?;
    for n in 0..3 {
        nodes.push(Network::join(nodes[n].ticket()).await?);
    }
    let replicas = nodes.iter().enumerate();
    let all = replicas.map(|(n, node)| migrate(format!("replica {n}"), node));
    futures::future::try_join_all(all).await?;
    migrate("a late replica".into(), &nodes[4]).await?;
    for node in &nodes {
        node.shutdown().await;
    }
    match MIGRATIONS.load(Ordering::SeqCst) {
        1 => Ok(()),
        n => Err(format!("{n} migrations were started").into()),
    }
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
