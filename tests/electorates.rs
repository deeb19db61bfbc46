//! Who belongs to a network, who is refused and why, and when a first start is over.

mod common;

use common::*;
use raft_once::testing::SimNet;
use raft_once::{Claim, Error, Network, Once, Role};
use tokio::time::Instant;

async fn start(net: &SimNet, name: &str, voters: &[(&str, String)]) -> Network {
    let started = voter(net, name)
        .electorate(voters.iter().cloned())
        .start()
        .await;
    started.expect("a simulated voter starts")
}

fn waiting_for(node: &Network) -> Vec<String> {
    let mut names = node.status().waiting_for;
    names.sort();
    names
}

fn trouble(node: &Network, name: &str) -> String {
    seen(node, name).trouble.unwrap_or_default()
}

async fn in_trouble(node: &Network, name: &str, words: &str) {
    let mut text = String::new();
    let told = async {
        while !text.contains(words) {
            tokio::time::sleep(ms(50)).await;
            text = trouble(node, name);
        }
    };
    if tokio::time::timeout(PATIENCE, told).await.is_err() {
        panic!("the trouble with {name} should say {words:?}; it says {text:?}");
    }
    // A link to a process that was killed is noticed to be dead a little later.
    eventually("no link", || !seen(node, name).linked).await;
}

async fn cannot_write(node: &Network) {
    let cell = Once::<u32>::writer(node, "cell");
    let started = Instant::now();
    let written = cell.write(666).await;
    assert!(matches!(written, Err(Error::Offline(666))), "{written:?}");
    assert!(started.elapsed() <= WRITE_TIMEOUT + ms(100));
    assert!(cell.is_none());
}

#[tokio::test(start_paused = true)]
async fn order_and_addresses_of_the_electorate_may_differ() {
    let net = SimNet::new(1);
    let nobody = |port| format!("127.0.0.1:{port}");
    // Of two voters at least one knows where the other is; the own address may be wrong.
    let a = voter(&net, "a")
        .electorate([
            ("c", addr(2).to_string()),
            ("a", nobody(8)),
            ("b", nobody(9)),
        ])
        .bind(addr(0))
        .start()
        .await
        .unwrap();
    let b = start(
        &net,
        "b",
        &[
            ("b", addr(1).to_string()),
            ("c", nobody(9)),
            ("a", addr(0).to_string()),
        ],
    )
    .await;
    let c = start(
        &net,
        "c",
        &[
            ("a", nobody(9)),
            ("b", addr(1).to_string()),
            ("c", addr(2).to_string()),
        ],
    )
    .await;
    let cluster = Cluster {
        net,
        voters: vec![a, b, c],
    };
    cluster.all_linked().await;
    let ids = |node: &Network| -> Vec<_> {
        node.status()
            .voters
            .into_iter()
            .map(|voter| (voter.name, voter.node_id))
            .collect()
    };
    assert_eq!(ids(&cluster.voters[0]), ids(&cluster.voters[1]));
    assert_eq!(ids(&cluster.voters[0]), ids(&cluster.voters[2]));
    // Three claims, one winner: they are one electorate, not several.
    let cells = writers(&cluster.voters, "cell");
    let (x, y, z) = tokio::join!(cells[0].claim(0), cells[1].claim(1), cells[2].claim(2));
    let won = [x.unwrap(), y.unwrap(), z.unwrap()]
        .iter()
        .filter(|claim| claim.is_won())
        .count();
    assert_eq!(won, 1);
    agreed(&cells).await;
}

#[tokio::test(start_paused = true)]
async fn electorates_that_differ_in_names_refuse_each_other_and_say_so() {
    let net = SimNet::new(1);
    let abc = electorate(3);
    let abd = [
        ("a", addr(0).to_string()),
        ("b", addr(1).to_string()),
        ("d", addr(3).to_string()),
    ];
    let a = start(&net, "a", &abc).await;
    let b = start(&net, "b", &abd).await;
    in_trouble(&a, "b", "electorates differ").await;
    in_trouble(&b, "a", "electorates differ").await;
    // Each is told the names that the other one has.
    assert!(trouble(&a, "b").contains("a, b, d"), "{}", trouble(&a, "b"));
    assert!(trouble(&b, "a").contains("a, b, c"), "{}", trouble(&b, "a"));
    assert!(!a.status().in_touch && !b.status().in_touch);
    // A third one that agrees with `a` makes no majority of those who agree with `b`.
    let c = start(&net, "c", &abc).await;
    eventually("a and c link", || {
        seen(&a, "c").linked && seen(&c, "a").linked
    })
    .await;
    assert_eq!(waiting_for(&a), ["b"]);
    for node in [&a, &b, &c] {
        cannot_write(node).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subset_of_the_electorate_is_another_electorate() {
    let net = SimNet::new(1);
    let a = start(&net, "a", &electorate(3)).await;
    let b = start(&net, "b", &electorate(5)).await;
    in_trouble(&a, "b", "electorates differ").await;
    in_trouble(&b, "a", "electorates differ").await;
    cannot_write(&a).await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_with_another_secret_is_kept_out_and_told_so() {
    let cluster = Cluster::start(1, 3).await;
    cluster.voters[2].shutdown().await;
    let stranger = voter(&cluster.net, "c")
        .secret("quite another secret, just as long")
        .electorate(electorate(3))
        .start()
        .await
        .unwrap();
    cannot_write(&stranger).await;
    for name in ["a", "b"] {
        assert!(!seen(&stranger, name).linked);
    }
    assert!(!cluster.seen(0, 2).linked && !cluster.seen(1, 2).linked);
    assert_eq!(waiting_for(&stranger), ["a", "b"]);
    // The others go on.
    let cells = writers(&cluster.voters[..2], "cell");
    cells[0].write(1).await.unwrap();
    assert_eq!(agreed(&cells).await, 1);
    for name in ["a", "b"] {
        in_trouble(&stranger, name, "secret").await;
    }
    in_trouble(&cluster.voters[0], "c", "secret").await;
}

#[tokio::test(start_paused = true)]
async fn an_observer_with_another_secret_reads_nothing_and_is_told_so() {
    let cluster = Cluster::start(1, 3).await;
    let cell = Once::<u32>::writer(&cluster.voters[0], "cell");
    cell.write(1).await.unwrap();
    let stranger = Network::builder("test")
        .electorate(electorate(3))
        .secret("quite another secret, just as long")
        .simulated(&cluster.net)
        .start()
        .await
        .unwrap();
    assert_eq!(stranger.status().role, Role::Observer);
    cannot_write(&stranger).await;
    assert!(
        cluster
            .voters
            .iter()
            .all(|voter| voter.status().observers == 0)
    );
    in_trouble(&stranger, "a", "secret").await;
}

#[tokio::test(start_paused = true)]
async fn an_observer_of_another_electorate_is_refused_and_told_so() {
    let cluster = Cluster::start(1, 3).await;
    let cell = Once::<u32>::writer(&cluster.voters[0], "cell");
    cell.write(1).await.unwrap();
    let stranger = Network::builder("test")
        .electorate(electorate(5))
        .secret(SECRET)
        .simulated(&cluster.net)
        .start()
        .await
        .unwrap();
    for name in ["a", "b", "c"] {
        in_trouble(&stranger, name, "electorates differ").await;
    }
    cannot_write(&stranger).await;
    assert!(
        cluster
            .voters
            .iter()
            .all(|voter| voter.status().observers == 0)
    );
}

#[tokio::test(start_paused = true)]
async fn an_observer_by_the_secret_is_as_good_as_one_by_ticket() {
    let cluster = Cluster::start(1, 3).await;
    let observer = Network::builder("test")
        .electorate(electorate(3))
        .secret(SECRET)
        .simulated(&cluster.net)
        .start()
        .await
        .unwrap();
    let cell = Once::<u32>::writer(&observer, "cell");
    assert!(matches!(cell.claim(1).await, Ok(Claim::Won(_))));
    assert_eq!(agreed(&writers(&cluster.voters, "cell")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_in_nobodys_electorate_takes_no_part() {
    let cluster = Cluster::start(1, 3).await;
    let own = [
        ("d", addr(3).to_string()),
        ("a", addr(0).to_string()),
        ("b", addr(1).to_string()),
    ];
    let outsider = start(&cluster.net, "d", &own).await;
    // Whatever they call it, it is told what to do about the electorate or the name.
    for name in ["a", "b"] {
        in_trouble(&outsider, name, "electorate").await;
    }
    cannot_write(&outsider).await;
    assert_eq!(waiting_for(&outsider), ["a", "b"]);
    for voter in &cluster.voters {
        let status = voter.status();
        assert_eq!((status.voters.len(), status.observers), (3, 0));
    }
    let cells = writers(&cluster.voters, "cell");
    cells[0].write(1).await.unwrap();
    assert_eq!(agreed(&cells).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_start_waits_for_every_voter_once() {
    for count in [3, 5] {
        let net = SimNet::new(1);
        let mut voters = Vec::new();
        for name in &NAMES[..count - 1] {
            voters.push(start(&net, name, &electorate(count)).await);
        }
        let last = NAMES[count - 1].to_owned();
        eventually("all that are there have met", || {
            voters
                .iter()
                .all(|voter| waiting_for(voter) == [last.clone()])
        })
        .await;
        // A majority is linked, and yet may not decide: the missing one may know better.
        for voter in &voters {
            assert!(!voter.status().in_touch);
            cannot_write(voter).await;
        }
        voters.push(start(&net, &last, &electorate(count)).await);
        let cluster = Cluster { net, voters };
        cluster.all_linked().await;
        let cells = writers(&cluster.voters, "before it leaves");
        cells[0].write(1).await.unwrap();
        assert_eq!(agreed(&cells).await, 1);

        // From now on a majority is enough.
        cluster.voters[count - 1].shutdown().await;
        let rest = &cluster.voters[..count - 1];
        let cells = writers(rest, "after it has left");
        cells[1].write(2).await.unwrap();
        assert_eq!(agreed(&cells).await, 2);
        for voter in rest {
            let status = voter.status();
            assert!(status.in_touch && status.waiting_for.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_start_that_was_met_pairwise_is_over_too() {
    // `a` meets `b`, then `c`, while `b` and `c` never see each other: only `a` may vote.
    let net = SimNet::new(1);
    net.cut(addr(1), addr(2));
    let mut voters = Vec::new();
    for name in ["a", "b", "c"] {
        voters.push(start(&net, name, &electorate(3)).await);
    }
    eventually("a has met both", || waiting_for(&voters[0]).is_empty()).await;
    tokio::time::sleep(ms(10_000)).await;
    assert_eq!(waiting_for(&voters[1]), ["c"]);
    assert_eq!(waiting_for(&voters[2]), ["b"]);
    cannot_write(&voters[0]).await;
    net.heal_all();
    let cluster = Cluster { net, voters };
    cluster.all_linked().await;
    // Once met is enough.
    cluster.cut(1, 2);
    cluster.noticed(1, 2).await;
    let cells = writers(&cluster.voters, "another cell");
    cells[2].write(3).await.unwrap();
    assert_eq!(agreed(&cells).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_forgot_everything_is_refused_for_good() {
    for (forgetful, orderly) in [(0, true), (1, false), (2, false)] {
        let mut cluster = Cluster::start(1, 3).await;
        let cells = writers(&cluster.voters, "decided");
        cells[0].write(1).await.unwrap();
        assert_eq!(agreed(&cells).await, 1);
        drop(cells);
        let old = cluster.voters.remove(forgetful);
        match orderly {
            true => old.shutdown().await,
            false => {
                cluster.net.kill(addr(forgetful));
                drop(old);
            }
        }
        let name = NAMES[forgetful];
        // It comes back with the same name, secret and address, and an empty store.
        let again = start(&cluster.net, name, &electorate(3)).await;
        for voter in &cluster.voters {
            in_trouble(voter, name, "wiped").await;
        }
        for other in (0..3).filter(|other| *other != forgetful) {
            in_trouble(&again, NAMES[other], "wiped").await;
        }
        cannot_write(&again).await;
        assert_eq!(waiting_for(&again).len(), 2, "nobody has confirmed it");

        // The rest is a majority and goes on; it is refused for good.
        for minutes in 0..3 {
            let cells = writers(&cluster.voters, &format!("after {minutes} min"));
            cells[minutes % 2].write(5).await.unwrap();
            assert_eq!(agreed(&cells).await, 5);
            tokio::time::sleep(ms(60_000)).await;
            for voter in &cluster.voters {
                assert!(!seen(voter, name).linked);
                assert!(
                    trouble(voter, name).contains("wiped"),
                    "{}",
                    trouble(voter, name)
                );
            }
        }
        assert_eq!(agreed(&writers(&cluster.voters, "decided")).await, 1);
        // An observer is not confused by it either.
        let observer = cluster_observer(&cluster).await;
        let cell = Once::<u32>::writer(&observer, "decided");
        cell.write(9).await.unwrap();
        assert_eq!(cell.read(), Some(1));
        // Another restart does not help.
        again.shutdown().await;
        let third = start(&cluster.net, name, &electorate(3)).await;
        cannot_write(&third).await;
        assert!(!seen(&cluster.voters[0], name).linked);
    }
}

/// An observer that is linked to whom it can.
async fn cluster_observer(cluster: &Cluster) -> Network {
    let joined = Network::join_simulated(cluster.voters[0].ticket(), &cluster.net).await;
    let observer = joined.expect("a simulated observer joins");
    eventually("the observer is linked to two voters", || {
        observer
            .status()
            .voters
            .iter()
            .filter(|voter| voter.linked)
            .count()
            >= 2
    })
    .await;
    observer
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_forgot_its_only_peers_too_is_no_majority() {
    // Two of three forget at once: what they forgot may have been decided, so nobody decides.
    let mut cluster = Cluster::start(1, 3).await;
    let cells = writers(&cluster.voters, "decided");
    cells[1].write(1).await.unwrap();
    assert_eq!(agreed(&cells).await, 1);
    drop(cells);
    let rest = cluster.voters.split_off(1);
    for node in &rest {
        node.shutdown().await;
    }
    drop(rest);
    let b = start(&cluster.net, "b", &electorate(3)).await;
    let c = start(&cluster.net, "c", &electorate(3)).await;
    in_trouble(&cluster.voters[0], "b", "wiped").await;
    in_trouble(&cluster.voters[0], "c", "wiped").await;
    eventually("b and c have met", || seen(&b, "c").linked).await;
    for node in [&b, &c, &cluster.voters[0]] {
        cannot_write_to(node, "decided").await;
    }
    assert_eq!(waiting_for(&b), ["a"]);
    assert_eq!(waiting_for(&c), ["a"]);
}

async fn cannot_write_to(node: &Network, id: &str) {
    let cell = Once::<u32>::writer(node, id);
    let written = cell.write(666).await;
    assert!(matches!(written, Err(Error::Offline(666))), "{written:?}");
    assert_ne!(cell.read(), Some(666));
}
