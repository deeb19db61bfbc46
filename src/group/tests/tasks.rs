//! Tasks on nodes that lose power, links and answers: whoever was told that it has a claim has it,
//! whatever happens then, and nobody else ever has.

use super::cluster::{Cluster, until};
use super::*;
use crate::machine::task::{Board, ClaimId};
use crate::task::{Claimed, Outcome, Policy, Ran, State, Status, Task, TaskError, Tasks};

fn group() -> GroupId {
    GroupId::of_tasks("tests")
}

fn task(node: &Network, name: &str) -> Task {
    Tasks::new(node, "tests").task(name)
}

async fn claimed(task: &Task) -> ClaimId {
    match task.claim().await {
        Ok(Claimed::Here(attempt)) => attempt.claim(),
        other => panic!("not claimed: {other:?}"),
    }
}

async fn status(node: &Network, name: &str) -> Status {
    let status = task(node, name).status().await;
    status.expect("a leader answers").expect("it is there")
}

/// Whoever leads the group now.
fn leader(cluster: &Cluster) -> usize {
    let leads = |n: &usize| {
        let group = cluster.node(*n).directory().group(group());
        group.awake().is_some_and(|replica| replica.leads())
    };
    let leader = (0..cluster.count()).find(|n| cluster.is_up(*n) && leads(n));
    leader.expect("somebody leads")
}

/// What is on the disk of a voter that sleeps.
fn board(node: &Network) -> Board {
    let directory = node.directory();
    let store = directory.store().expect("it is a voter");
    directory.load(store, group()).expect("it is sound").board
}

async fn ran<E>(task: &Task, result: Result<(), E>) -> bool
where
    E: std::fmt::Display + Clone,
{
    let ran = task.run(|_| std::future::ready(result.clone())).await;
    matches!(ran, Ok(Ran::Here(_)))
}

#[tokio::test(start_paused = true)]
async fn a_claim_outlives_the_leader_that_committed_it() {
    for seed in 0..4 {
        let mut cluster = Cluster::start(seed, 3).await;
        let claimant = seed as usize % 3;
        let claim = claimed(&task(cluster.node(claimant), "t")).await;
        let gone = leader(&cluster);
        let (executor, other) = ((gone + 1) % 3, (gone + 2) % 3);
        match seed % 2 {
            0 => cluster.cut_power(gone),
            _ => cluster.kill(gone),
        }
        let again = task(cluster.node(other), "t").claim().await;
        let is_known = matches!(&again, Ok(Claimed::Elsewhere(at)) if at.state == State::Running);
        assert!(is_known, "seed {seed}: {again:?}");
        let executor = task(cluster.node(executor), "t");
        let ended = executor.finish(claim, Outcome::SUCCESS).await.unwrap();
        assert_eq!(ended.state, State::Succeeded);
        cluster.power_up(gone).await;
        cluster.met().await;
        let seen = status(cluster.node(gone), "t").await;
        assert_eq!((seen.state, seen.attempt), (State::Succeeded, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_in_doubt_and_told_again_to_whoever_has_its_id() {
    let net = SimNet::new(3);
    let nodes = voters(&net, 3).await;
    let observer = Network::join_simulated(nodes[0].ticket(), &net)
        .await
        .unwrap();
    online(observer.open(group()).view()).await;
    net.set_delay(Duration::from_millis(1), Duration::from_millis(1));
    assert!(ran(&task(&nodes[0], "first"), Ok::<_, String>(())).await);
    let (mut doubted, mut offline, mut held) = (0, 0, 0);
    for ms in 0..16 {
        let name = format!("after {ms} ms");
        let there = task(&observer, &name);
        let claiming = {
            let there = there.clone();
            tokio::spawn(async move { there.claim().await })
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
        for voter in 0..3 {
            net.drop_replies(addr(voter), observer.local_addr());
        }
        let claim = claiming.await.unwrap();
        // It holds or does not; nobody may be told both.
        let before = task(&nodes[1], &name).status().await.unwrap();
        let elsewhere = task(&nodes[2], &name);
        net.heal_all();
        online(observer.open(group()).view()).await;
        match claim {
            Ok(Claimed::Here(attempt)) => {
                held += 1;
                assert!(before.is_some());
                assert!(there.renew(attempt.claim()).await.unwrap());
            }
            Err(TaskError::InDoubt(id)) => {
                doubted += 1;
                if before.is_some() {
                    let other = elsewhere.claim().await.unwrap();
                    assert!(matches!(other, Claimed::Elsewhere(_)), "{other:?}");
                }
                let again = there.claim_as(id).await.unwrap();
                let Claimed::Here(attempt) = again else {
                    panic!("claimed by nobody else: {again:?}");
                };
                assert_eq!((attempt.claim(), attempt.number()), (id, 1));
                let other = elsewhere.claim().await.unwrap();
                assert!(matches!(other, Claimed::Elsewhere(_)), "{other:?}");
            }
            Err(TaskError::Offline) => {
                offline += 1;
                assert_eq!(before, None, "nothing was claimed");
                claimed(&elsewhere).await;
            }
            other => panic!("after {ms} ms: {other:?}"),
        }
    }
    assert!(
        doubted > 0 && offline > 0 && held > 0,
        "{doubted} {offline} {held}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_nothing_is_claimed_and_whoever_asks_is_told_so() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 3).await;
    online(nodes[0].open(group()).view()).await;
    net.isolate(addr(0));
    let alone = task(&nodes[0], "t");
    assert_eq!(alone.claim().await.unwrap_err(), TaskError::Offline);
    let ran = alone.run(|_| async { unreachable!() as Result<(), String> });
    assert_eq!(ran.await.unwrap_err(), TaskError::Offline);
    net.heal_all();
    online(nodes[0].open(group()).view()).await;
    assert_eq!(alone.status().await, Ok(None));
    claimed(&alone).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_executor_is_replaced_at_least_once_and_only_then() {
    let cluster = Cluster::start(2, 3).await;
    let silent = task(cluster.node(0), "t").at_least_once();
    let Ok(Claimed::Here(first)) = silent.claim().await else {
        panic!("not claimed");
    };
    let began = Instant::now();
    let next = task(cluster.node(1), "t");
    let ran =
        next.run(|attempt| async move { Ok::<_, String>((attempt.number(), attempt.version())) });
    let Ok(Ran::Here(here)) = ran.await else {
        panic!("not taken over");
    };
    let (number, version) = here.result.unwrap();
    assert!(number == 2 && version > first.version());
    let silence = Duration::from_millis(crate::group::SILENT_MS);
    assert!(began.elapsed() >= silence, "{:?}", began.elapsed());
    let late = silent.finish(first.claim(), Outcome::SUCCESS).await;
    assert_eq!(late.unwrap_err(), TaskError::Superseded);
    assert!(!silent.renew(first.claim()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_renews_is_replaced_by_nobody_however_long_it_takes() {
    let mut cluster = Cluster::start(5, 3).await;
    let long = task(cluster.node(0), "t").at_least_once();
    let running = tokio::spawn(async move {
        let action = |_| async {
            tokio::time::sleep(Duration::from_secs(90)).await;
            Ok::<_, String>(())
        };
        long.run(action).await
    });
    let other = task(cluster.node(1), "t").at_least_once();
    let waiting = tokio::spawn(async move {
        other
            .run(|_| async { unreachable!() as Result<(), String> })
            .await
    });
    // Leaders come and go; what an older one has heard counts for nothing.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(25)).await;
        if let Some(n) = [leader(&cluster)].into_iter().find(|n| *n == 2) {
            cluster.kill(n);
            cluster.power_up(n).await;
        }
    }
    assert!(matches!(running.await.unwrap(), Ok(Ran::Here(_))));
    let waited = waiting.await.unwrap();
    let is_told = matches!(&waited, Ok(Ran::Elsewhere(seen)) if seen.state == State::Succeeded);
    assert!(is_told, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_to_start_once_is_abandoned_with_its_executor_and_never_started_again() {
    let mut cluster = Cluster::start(3, 3).await;
    let executor = task(cluster.node(0), "t");
    let claim = claimed(&executor).await;
    let other = task(cluster.node(1), "t");
    for _ in 0..3 {
        let ran = other.run(|_| async { unreachable!() as Result<(), String> });
        let Ok(Ran::Elsewhere(seen)) = ran.await else {
            panic!("it ran elsewhere");
        };
        assert_eq!((seen.state, seen.attempt), (State::Abandoned, 1));
        // Another leader begins to listen afresh.
        let gone = leader(&cluster);
        if gone == 2 {
            cluster.kill(gone);
            cluster.power_up(gone).await;
        }
    }
    // It was at work all the same.
    let late = executor.finish(claim, Outcome::SUCCESS).await.unwrap();
    assert_eq!(late.state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn claims_outcomes_and_deeds_are_there_after_all_voters_have_lost_power() {
    let mut cluster = Cluster::start(4, 3).await;
    let tasks = Tasks::new(cluster.node(1), "tests").named("an executor");
    let claim = claimed(&tasks.task("runs")).await;
    assert!(ran(&tasks.task("reset"), Err("no".to_string())).await);
    tasks.task("reset").reset().await.unwrap();
    assert!(ran(&tasks.task("deleted"), Ok::<_, String>(())).await);
    assert!(tasks.task("deleted").delete().await.unwrap());
    let (before, deeds) = (tasks.list().await.unwrap(), tasks.deeds().await.unwrap());
    drop(tasks);
    for n in 0..3 {
        cluster.cut_power(n);
    }
    for n in 0..3 {
        cluster.power_up(n).await;
    }
    cluster.met().await;
    let tasks = Tasks::new(cluster.node(2), "tests");
    assert_eq!(tasks.deeds().await.unwrap(), deeds);
    assert_eq!(deeds.len(), 2);
    let again = tasks.task("runs").claim().await.unwrap();
    assert!(
        matches!(&again, Claimed::Elsewhere(seen) if seen.executor.as_deref() == Some("an executor"))
    );
    let finished = tasks.task("runs").finish(claim, Outcome::SUCCESS).await;
    assert_eq!(finished.unwrap().state, State::Succeeded);
    let mut after = tasks.list().await.unwrap().into_iter();
    for before in before {
        let after = after.next().unwrap();
        assert_eq!(after.name, before.name);
        assert_eq!(after.generation, before.generation);
        if after.name != "runs" {
            assert_eq!(after, before);
        }
    }
    assert!(after.next().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_away_for_long_is_sent_all_tasks() {
    let mut cluster = Cluster::start(6, 3).await;
    assert!(ran(&task(cluster.node(0), "before"), Ok::<_, String>(())).await);
    cluster.all_asleep().await;
    cluster.cut_power(2);
    for n in 0..40 {
        let there = task(cluster.node(n % 2), &format!("task {n}"));
        assert!(ran(&there, Err("no".to_string())).await);
    }
    // It knew of this one.
    assert!(task(cluster.node(0), "before").delete().await.unwrap());
    task(cluster.node(1), "task 7").reset().await.unwrap();
    cluster.power_up(2).await;
    cluster.met().await;
    assert!(ran(&task(cluster.node(2), "after"), Ok::<_, String>(())).await);
    cluster.all_asleep().await;
    let boards: Vec<_> = (0..3).map(|n| board(cluster.node(n))).collect();
    assert!(boards[0] == boards[1] && boards[1] == boards[2]);
    assert_eq!(boards[2].tasks().len(), 41);
    assert_eq!(boards[2].deeds().count(), 2);
    for node in cluster.up() {
        let entries = node.directory().log_length(group());
        assert!(entries <= 64, "{entries} entries");
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_sleeps_while_nobody_runs_or_waits_and_its_silences_go_on() {
    let cluster = Cluster::start(7, 3).await;
    // A node that has forgotten the group is elected anew, and begins to listen afresh.
    let _open: Vec<_> = cluster.up().map(|node| node.open(group())).collect();
    let claim = claimed(&task(cluster.node(0), "t")).await;
    let mut watch = Tasks::new(cluster.node(1), "tests").watch();
    let first = futures::StreamExt::next(&mut watch).await;
    assert!(first.unwrap().is_ok());
    // A claim that nobody renews, and a stream, keep nobody awake.
    cluster.all_asleep().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let seen = status(cluster.node(2), "t").await;
    assert_eq!(seen.state, State::Abandoned, "{seen:?}");
    assert!(task(cluster.node(1), "t").renew(claim).await.unwrap());
    assert_eq!(status(cluster.node(2), "t").await.state, State::Running);
    cluster.all_asleep().await;
    // An executor does.
    let there = task(cluster.node(0), "long");
    let running = tokio::spawn(async move {
        let action = |_| async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok::<_, String>(())
        };
        there.run(action).await
    });
    tokio::time::sleep(Duration::from_secs(50)).await;
    let leader = leader(&cluster);
    assert_eq!(
        status(cluster.node(leader), "long").await.state,
        State::Running
    );
    assert!(matches!(running.await.unwrap(), Ok(Ran::Here(_))));
    until("the stream tells of it", || {
        cluster.node(1).open(group()).view().version() > Version::ZERO
    })
    .await;
    cluster.all_asleep().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_its_pause_wherever_it_is_claimed() {
    let cluster = Cluster::start(8, 3).await;
    let policy = Policy::AtLeastOnce {
        retries_max: 5,
        backoff_first_ms: 4_000,
        backoff_max_ms: 6_000,
    };
    let mut last: Option<Instant> = None;
    for (n, pause_ms) in [0, 4_000, 6_000, 6_000].into_iter().enumerate() {
        let there = task(cluster.node(n % 3), "t").policy(policy);
        let attempt = loop {
            match there.claim().await.unwrap() {
                Claimed::Here(attempt) => break attempt,
                Claimed::NotYet(wait) => tokio::time::sleep(wait).await,
                Claimed::Elsewhere(seen) => panic!("{seen:?}"),
            }
        };
        let since = last.map_or(Duration::ZERO, |last| last.elapsed());
        assert!(
            since >= Duration::from_millis(pause_ms),
            "attempt {n}: {since:?}"
        );
        let failed = Outcome::Failed(crate::task::Failure::Exit(1));
        let seen = there.finish(attempt.claim(), failed).await.unwrap();
        assert_eq!((seen.state, seen.attempt), (State::Pending, n as u32 + 1));
        last = Some(Instant::now());
    }
}
