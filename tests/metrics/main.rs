//! What a node counts is what it says, in `status()` and through the `metrics` facade; and what is
//! beyond a limit is refused in words, and counted.

#[path = "../common/mod.rs"]
mod common;
mod recorder;

use common::*;
use raft_once::testing::SimNet;
use raft_once::{Claim, Error, Figures, Limits, Network, NetworkError, Once};
use recorder::Kept;

/// A voter that decides alone.
async fn alone(net: &SimNet, limits: Limits) -> Network {
    let started = voter(net, "a").electorate(electorate(1)).limits(limits);
    started.start().await.expect("a simulated voter starts")
}

async fn join(net: &SimNet, voter: &Network) -> Network {
    let joined = Network::join_simulated(voter.ticket(), net).await;
    let observer = joined.expect("a simulated observer joins");
    eventually("the observer is linked", || observer.status().in_touch).await;
    observer
}

/// The facade has been told the same as `status()` says.
fn are_the_same(kept: &Kept, node: &str, figures: &Figures) {
    let same = |name: &str, label, figure: u64| {
        let told = kept.of(name, node, label).sum();
        assert_eq!(told, figure as f64, "{name} {label:?} of {node}");
    };
    let f = figures;
    for (name, label, figure) in [
        ("proposals_total", None, f.proposals),
        ("proposals_committed_total", None, f.proposals_committed),
        ("proposals_unconfirmed_total", None, f.proposals_unconfirmed),
        ("proposals_of_others_total", None, f.proposals_of_others),
        ("claims_total", Some(("outcome", "won")), f.claims_won),
        ("claims_total", Some(("outcome", "lost")), f.claims_lost),
        (
            "claims_total",
            Some(("outcome", "offline")),
            f.claims_offline,
        ),
        (
            "job_executions_total",
            Some(("outcome", "succeeded")),
            f.job_executions_succeeded,
        ),
        (
            "job_executions_total",
            Some(("outcome", "failed")),
            f.job_executions_failed,
        ),
        (
            "job_executions_total",
            Some(("outcome", "missed")),
            f.job_executions_missed,
        ),
        ("commands_applied_total", None, f.commands_applied),
        ("decisions_total", None, f.decisions),
        ("elections_started_total", None, f.elections_started),
        ("elections_won_total", None, f.elections_won),
        ("leaderships_by_birth_total", None, f.leaderships_by_birth),
        ("leaderships_resumed_total", None, f.leaderships_resumed),
        (
            "wakes_total",
            Some(("cause", "message")),
            f.wakes_by_message,
        ),
        (
            "wakes_total",
            Some(("cause", "proposal")),
            f.wakes_by_proposal,
        ),
        ("wakes_total", Some(("cause", "birth")), f.wakes_by_birth),
        (
            "wakes_total",
            Some(("cause", "settling")),
            f.wakes_by_settling,
        ),
        ("wakes_total", Some(("cause", "help")), f.wakes_by_help),
        ("sleeps_total", None, f.sleeps),
        ("updates_pushed_total", None, f.updates_pushed),
        (
            "links_made_total",
            Some(("kind", "voter")),
            f.voter_links_made,
        ),
        (
            "links_made_total",
            Some(("kind", "observer")),
            f.observer_links_made,
        ),
        ("links", Some(("kind", "voter")), f.voter_links),
        ("links", Some(("kind", "observer")), f.observer_links),
        ("groups_awake", None, f.groups_awake),
        ("groups_stored", None, f.groups_stored),
        ("groups_of_others", None, f.groups_of_others),
        ("subscriptions", None, f.subscriptions),
        ("store_queue_bytes", None, f.store_queue_bytes),
        ("store_syncs_total", None, f.store_syncs),
        ("store_sync_bytes", None, f.sync_bytes.sum),
    ] {
        same(&format!("raft_once_{name}"), label, figure);
    }
}

fn total(nodes: &[Network], figure: impl Fn(&Figures) -> u64) -> u64 {
    nodes
        .iter()
        .map(|node| figure(&node.status().figures))
        .sum()
}

async fn all_asleep(nodes: &[Network]) {
    eventually("all replicas sleep", || {
        total(nodes, |figures| figures.groups_awake) == 0
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn figures_of_a_cluster_are_those_that_its_work_makes() {
    let kept = Kept::default();
    let recording = metrics::set_default_local_recorder(&kept);
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let (voters, observer) = (&nodes[..3], &nodes[3]);
    let cells = writers(&nodes, "cell");
    all_online(&cells).await;
    assert!(matches!(cells[3].claim(1).await, Ok(Claim::Won(_))));
    agreed(&cells).await;
    assert!(matches!(cells[0].claim(2).await, Ok(Claim::Lost { .. })));
    let version = cells[3].write(3).await.unwrap();
    for cell in &cells {
        within("the last write", PATIENCE, cell.when().reaches(version)).await;
    }

    // Each voter has applied the value and the touch, and decided once.
    eventually("all have applied both", || {
        total(voters, |figures| figures.commands_applied) == 6
    })
    .await;
    assert_eq!(total(voters, |figures| figures.decisions), 3);
    // A lost claim on a cell that is known to be decided is offered to nobody.
    assert_eq!(total(&nodes, |figures| figures.proposals), 2);
    assert_eq!(total(&nodes, |figures| figures.proposals_committed), 2);
    assert_eq!(total(&nodes, |figures| figures.claims_won), 1);
    assert_eq!(total(&nodes, |figures| figures.claims_lost), 1);
    // Its first leader is known by birth, and the first write wakes nobody. The second wakes that
    // leader, which leads on, and it the others by what it sends.
    assert_eq!(total(voters, |figures| figures.wakes_by_birth), 0);
    assert_eq!(total(voters, |figures| figures.leaderships_by_birth), 1);
    assert_eq!(total(voters, |figures| figures.wakes_by_proposal), 1);
    assert_eq!(total(voters, |figures| figures.leaderships_resumed), 1);
    assert_eq!(total(voters, |figures| figures.wakes_by_message), 2);
    assert_eq!(total(voters, |figures| figures.elections_started), 0);
    assert_eq!(total(voters, |figures| figures.groups_awake), 3);
    assert_eq!(total(voters, |figures| figures.groups_stored), 3);
    assert_eq!(total(voters, |figures| figures.groups_of_others), 0);
    assert_eq!(total(voters, |figures| figures.voter_links), 6);
    assert_eq!(total(voters, |figures| figures.observer_links), 3);
    assert_eq!(observer.status().figures.voter_links, 3);
    assert_eq!(total(voters, |figures| figures.subscriptions), 1);
    assert!(total(voters, |figures| figures.updates_pushed) > 0);

    all_asleep(voters).await;
    assert_eq!(total(voters, |figures| figures.sleeps), 3);
    let asleep = voters[0].status().figures;
    assert_eq!((asleep.groups_asleep(), asleep.groups_awake), (1, 0));
    // The next write wakes whoever led, which leads on.
    cells[3].write(4).await.unwrap();
    assert_eq!(total(voters, |figures| figures.wakes_by_proposal), 2);
    assert_eq!(total(voters, |figures| figures.leaderships_resumed), 2);
    all_asleep(voters).await;

    // A voter that was away is helped by one that is woken for that.
    cluster.net.isolate(addr(2));
    cluster.noticed(0, 2).await;
    cluster.noticed(1, 2).await;
    cells[0].write(5).await.unwrap();
    eventually("the two sleep", || {
        total(&voters[..2], |figures| figures.groups_awake) == 0
    })
    .await;
    cluster.heal().await;
    eventually("one is woken to help", || {
        total(voters, |figures| figures.wakes_by_help) > 0
    })
    .await;
    all_asleep(voters).await;
    assert!(total(voters, |figures| figures.voter_links_lost) >= 4);

    for (name, node) in NAMES.iter().zip(voters) {
        are_the_same(&kept, name, &node.status().figures);
    }
    let figures = observer.status().figures;
    are_the_same(&kept, &observer.node_id().to_string(), &figures);
    // A job has series when it is run.
    assert_eq!(kept.halves(), ["raft_once_executions_by_job_total"]);

    // What a node had is gone with it.
    drop(cells);
    for node in &nodes {
        node.shutdown().await;
        let figures = node.status().figures;
        assert_eq!((figures.voter_links, figures.observer_links), (0, 0));
        assert_eq!((figures.subscriptions, figures.groups_awake), (0, 0));
    }
    drop((nodes, cluster, recording));
    tokio::time::sleep(ms(1_000)).await;
    let all = kept.all();
    let gauges = ["links{", "groups_", "subscriptions{", "store_queue_bytes{"];
    let gauges = gauges.map(|gauge| format!("raft_once_{gauge}"));
    let gauges = all
        .iter()
        .filter(|(name, _)| gauges.iter().any(|gauge| name.starts_with(gauge)));
    let left: Vec<_> = gauges.map(|(name, gauge)| (name, gauge.sum())).collect();
    assert_eq!(left.len(), 4 * 7);
    assert!(left.iter().all(|(_, sum)| *sum == 0.0), "{left:?}");
}

/// On a real disk, whose writer is a thread.
#[tokio::test]
async fn syncs_and_what_they_carry_are_counted() {
    let kept = Kept::default();
    let _recording = metrics::set_default_local_recorder(&kept);
    let dir = tempfile::tempdir().unwrap();
    let start = async || {
        let node = Network::builder("test")
            .electorate([("a", "127.0.0.1:0")])
            .voter("a")
            .data_dir(dir.path());
        node.start().await.unwrap()
    };
    let node = start().await;
    for n in 0..10 {
        let cell = Once::<u32>::writer(&node, format!("cell {n}"));
        cell.write(n).await.unwrap();
    }
    assert_eq!(node.status().figures.groups_stored, 10);
    node.shutdown().await;
    let figures = node.status().figures;
    assert!(figures.store_syncs >= 10, "{figures:?}");
    assert!(figures.store_lazy_syncs < figures.store_syncs);
    assert!(figures.store_checkpoints >= 1);
    assert_eq!(figures.store_queue_bytes, 0);
    let (batches, bytes) = (&figures.sync_batches, &figures.sync_bytes);
    assert_eq!(
        (batches.count, bytes.count),
        (figures.store_syncs, batches.count)
    );
    assert!(batches.sum >= batches.count && bytes.sum > batches.sum);
    assert_eq!(
        batches.buckets.iter().map(|(_, n)| n).sum::<u64>(),
        batches.count
    );
    are_the_same(&kept, "a", &figures);
    let told = kept.of("raft_once_store_sync_batches", "a", None);
    assert_eq!(
        (told.count() as u64, told.sum()),
        (batches.count, batches.sum as f64)
    );
    drop(node);

    // What is stored is known again, and nothing else.
    let again = start().await;
    let figures = again.status().figures;
    assert_eq!((figures.groups_stored, figures.groups_asleep()), (10, 10));
    assert_eq!(figures.proposals, 0);
    again.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_observer_too_many_is_refused_in_words_and_counted() {
    let net = SimNet::new(1);
    let node = alone(&net, Limits::default().observer_links_max(1)).await;
    let first = join(&net, &node).await;
    let second = Network::join_simulated(node.ticket(), &net).await.unwrap();
    eventually("the second is refused", || {
        node.status().figures.refused_observer_links > 1
    })
    .await;
    let figures = node.status().figures;
    assert_eq!(
        (figures.observer_links, figures.observer_links_made),
        (1, 1)
    );
    first.shutdown().await;
    eventually("the second has its turn", || second.status().in_touch).await;
    let figures = node.status().figures;
    assert_eq!(
        (figures.observer_links, figures.observer_links_made),
        (1, 2)
    );
    assert_eq!(figures.observer_links_lost, 1);
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_stores_as_much_as_it_may_says_what_to_do() {
    let net = SimNet::new(1);
    let node = alone(&net, Limits::default().groups_stored_max(3)).await;
    let cells: Vec<_> = (0..4)
        .map(|n| Once::<u32>::writer(&node, format!("cell {n}")))
        .collect();
    for cell in &cells[..3] {
        cell.write(1).await.unwrap();
    }
    let refused = cells[3].write(4).await;
    assert!(matches!(refused, Err(Error::Offline(4))), "{refused:?}");
    let status = node.status();
    assert!(status.figures.refused_groups_stored > 0);
    assert_eq!(status.figures.proposals_unconfirmed, 1);
    assert_eq!(
        status.figures.groups_stored,
        status.limits.groups_stored_max as u64
    );
    let trouble = |status: &raft_once::NetworkStatus, group| {
        let cell = status.cells.iter().find(|cell| cell.group == group);
        cell.expect("it is open").trouble.clone()
    };
    let said = trouble(&status, cells[3].group_id()).expect("why it was refused");
    assert!(said.contains("3 groups are stored"), "{said}");
    assert!(
        said.contains("raise groups_stored_max on all voters"),
        "{said}"
    );
    assert_eq!(trouble(&status, cells[0].group_id()), None);
    // What exists lives on.
    cells[0].write(2).await.unwrap();
    assert_eq!(cells[3].read_linearizable().await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_asks_for_new_cells_without_end_holds_up_nobody_else() {
    let net = SimNet::new(1);
    let node = alone(&net, Limits::default().observer_births_per_second_max(2)).await;
    let (greedy, modest) = (join(&net, &node).await, join(&net, &node).await);
    let asked: Vec<_> = (0..100)
        .map(|n| {
            let cell = Once::<u32>::writer(&greedy, format!("greedy {n}"));
            tokio::spawn(async move { cell.write(n).await.is_ok() })
        })
        .collect();
    eventually("it is refused", || node.status().figures.refused_births > 0).await;
    for (n, other) in [&modest, &node].into_iter().enumerate() {
        let cell = Once::<u32>::writer(other, format!("modest {n}"));
        let written = within("a write of another", ms(1_000), cell.write(1)).await;
        written.unwrap();
    }
    let mut decided = 0;
    for asked in asked {
        decided += u32::from(asked.await.unwrap());
    }
    // What it had saved, and its rate until the writes ended.
    assert!((8..=20).contains(&decided), "{decided}");
    let said = greedy.status().cells.into_iter();
    let said: Vec<_> = said.filter_map(|cell| cell.trouble).collect();
    assert!(
        said.iter()
            .all(|said| said.contains("2 new groups a second")),
        "{said:?}"
    );
    // Later it may go on: nothing is refused for good.
    tokio::time::sleep(ms(10_000)).await;
    let cell = Once::<u32>::writer(&greedy, "greedy 99");
    cell.write(99).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn subscriptions_beyond_the_limit_are_refused_and_counted() {
    let net = SimNet::new(1);
    let node = alone(&net, Limits::default().subscriptions_per_observer_max(3)).await;
    let observer = join(&net, &node).await;
    let cells: Vec<_> = (0..4)
        .map(|n| Once::<u32>::reader(&observer, format!("cell {n}")))
        .collect();
    eventually("one is refused", || {
        node.status().figures.refused_subscriptions > 0
    })
    .await;
    assert_eq!(node.status().figures.subscriptions, 3);
    drop(cells);
    eventually("all have ended", || {
        node.status().figures.subscriptions == 0
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_out_of_its_range_is_refused_at_the_start() {
    let net = SimNet::new(1);
    let limits = Limits::default().awake_groups_max(2);
    let node = voter(&net, "a").electorate(electorate(1)).limits(limits);
    let error = node.start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the limit awake_groups_max is 2: it may be from 8 to 1048576"
    );
    assert!(matches!(
        error,
        NetworkError::Limit {
            name: "awake_groups_max",
            ..
        }
    ));
}
