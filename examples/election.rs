//! Nodes elect a leader, once per term, with `claim`.
//!
//! ```console
//! $ cargo run --example election
//! ```
//!
//! One node stands for election while it is still alone: no majority can confirm its claim, which
//! is handed back. When the other nodes are up, it asks again about *the same* claim, while they
//! stand as well. One wins, the others learn who. A second term is another cell. The program ends
//! with status 0 if each term had exactly one winner, and all nodes agree on it.

use std::error::Error;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use raft_once::{Claim, ClaimError, Network, NetworkError, Once, Pending, Secret};

/// Each term is a cell of its own: a cell is never emptied, so a new leader needs a new cell.
fn slot(network: &Network, term: u32) -> Once<String> {
    Once::writer(network, format!("leader/term-{term}"))
}

/// Asks until there is an answer: is it us?
///
/// A claim that nobody confirmed in time *may have won all the same*: the answer may be what was
/// lost. `Offline` hands it back as a [`Pending`], and claiming with that asks about the same
/// proposal, so that a node that has won learns it. Claiming with the bare value again would be a
/// new proposal, which loses to the old one: a leader that takes itself for a loser.
async fn stand(
    slot: &Once<String>,
    name: &str,
    mut pending: Pending<String>,
) -> Result<bool, Box<dyn Error>> {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        match slot.claim(pending).await {
            Ok(Claim::Won(version)) => {
                println!("  {name}: won, at version {version}");
                return Ok(true);
            }
            Ok(Claim::Lost { winner, .. }) => {
                println!("  {name}: lost, {winner} leads");
                return Ok(false);
            }
            Err(ClaimError::Offline(same)) if Instant::now() < give_up => pending = same,
            Err(error) => return Err(error.into()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = Nodes::on_free_ports()?;
    let a = nodes.start("a").await?;

    println!("term 1: a stands while it is alone");
    let pending = match slot(&a, 1).claim("a".to_string()).await {
        Err(ClaimError::Offline(pending)) => pending,
        other => return Err(format!("expected Offline without a majority, saw {other:?}").into()),
    };
    println!(
        "  a: no majority confirmed the claim of {:?}",
        pending.value()
    );

    let (b, c) = (nodes.start("b").await?, nodes.start("c").await?);
    println!("term 1: b and c are up and stand too, a asks again");
    term(1, [&a, &b, &c], pending).await?;
    println!("term 2: a new term, a new cell");
    term(2, [&a, &b, &c], "a".to_string().into()).await?;

    for network in [a, b, c] {
        network.shutdown().await;
    }
    Ok(())
}

/// All three stand; checks that one wins, and that all agree on which.
async fn term(
    term: u32,
    networks: [&Network; 3],
    pending_of_a: Pending<String>,
) -> Result<(), Box<dyn Error>> {
    let [a, b, c] = networks.map(|network| slot(network, term));
    let (a_won, b_won, c_won) = tokio::try_join!(
        stand(&a, "a", pending_of_a),
        stand(&b, "b", "b".to_string().into()),
        stand(&c, "c", "c".to_string().into()),
    )?;
    let winners = [a_won, b_won, c_won].into_iter().filter(|won| *won).count();
    if winners != 1 {
        return Err(format!("expected one winner of term {term}, saw {winners}").into());
    }
    // Whoever has an answer also knows who decided the cell, and when.
    let decisions = [&a, &b, &c].map(|slot| slot.decision());
    if decisions[0].is_none() || decisions.iter().any(|decision| *decision != decisions[0]) {
        return Err(format!("expected one decision of term {term}, saw {decisions:?}").into());
    }
    // To fence off an old leader, give the term to whatever it writes to.
    let leader = a.wait().await?;
    println!("  all agree: {leader} leads term {term}");
    Ok(())
}

/// Three voters in this one process, in memory, on free loopback ports. Real ones run on three
/// machines, each with a `data_dir`.
struct Nodes {
    electorate: Vec<(&'static str, String)>,
    secret: Secret,
}

impl Nodes {
    fn on_free_ports() -> std::io::Result<Self> {
        let bind = || UdpSocket::bind("127.0.0.1:0");
        // All three are bound before any is released, so that no two ports are the same.
        let sockets = [bind()?, bind()?, bind()?];
        let mut electorate = Vec::new();
        for (name, socket) in ["a", "b", "c"].into_iter().zip(&sockets) {
            electorate.push((name, socket.local_addr()?.to_string()));
        }
        Ok(Self {
            electorate,
            secret: Secret::generate(),
        })
    }

    async fn start(&self, name: &str) -> Result<Network, NetworkError> {
        Network::builder("election")
            .electorate(self.electorate.clone())
            .voter(name)
            .secret(self.secret.clone())
            .in_memory()
            .write_timeout_ms(500)
            .start()
            .await
    }
}
