//! Tasks: of all who run one, one starts it, and everybody else learns how it ended.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use futures::StreamExt;
use futures::future::join_all;
use raft_once::Network;
use raft_once::task::{
    Claimed, DeedKind, Failure, Outcome, Policy, Ran, State, Status, Task, TaskChange, TaskError,
    Tasks, Watch,
};
use raft_once::testing::SimNet;

fn open(node: &Network) -> Tasks {
    Tasks::new(node, "tests")
}

async fn online(node: &Network) -> Tasks {
    let tasks = open(node);
    within("the tasks are online", PATIENCE, tasks.when().online()).await;
    tasks
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(Failure::Error(reason.into()))
}

/// What `run` says of an action that must not start here.
async fn elsewhere(task: &Task) -> Status {
    let ran = task.run(|_| async { panic!("it was started") as Result<(), String> });
    match within("the run ends", PATIENCE, ran).await {
        Ok(Ran::Elsewhere(status)) => *status,
        other => panic!("not elsewhere: {other:?}"),
    }
}

async fn run_here(task: &Task, result: Result<u32, &'static str>) -> Status {
    let ran = within("the run ends", PATIENCE, task.run(|_| async { result })).await;
    match ran {
        Ok(Ran::Here(here)) => {
            assert_eq!(here.result, result);
            *here.status.expect("it was recorded")
        }
        other => panic!("not here: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn of_twenty_runs_on_all_nodes_one_starts_the_action_and_all_learn_its_outcome() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for round in 0..10 {
        let started = Arc::new(AtomicUsize::new(0));
        let runs = (0..20).map(|n| {
            let (node, started) = (nodes[n % nodes.len()].clone(), started.clone());
            tokio::spawn(async move {
                let task = open(&node).named(format!("process {n}"));
                let task = task.task(format!("round {round}"));
                let ran = task.run(|_| async {
                    started.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(ms(50)).await;
                    Ok::<_, String>(n)
                });
                ran.await.expect("a majority is up")
            })
        });
        let ran = within("all runs end", PATIENCE, join_all(runs)).await;
        assert_eq!(started.load(Ordering::SeqCst), 1);
        let (mut here, mut told) = (None, Vec::new());
        for ran in ran {
            match ran.unwrap() {
                Ran::Here(ran) => {
                    assert_eq!(here, None, "it ran here twice");
                    here = Some(format!("process {}", ran.result.unwrap()));
                }
                Ran::Elsewhere(status) => told.push(status),
            }
        }
        assert_eq!(told.len(), 19);
        for status in told {
            assert_eq!(
                (status.state, status.executor),
                (State::Succeeded, here.clone())
            );
            assert_eq!(status.outcome, Some(Outcome::SUCCESS));
        }
    }
    for node in &nodes {
        let all = online(node).await.list().await.unwrap();
        assert_eq!(all.len(), 10);
        assert!(all.iter().all(Status::executed));
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_runs_it_and_the_voters_wait_for_it() {
    let cluster = Cluster::start(2, 3).await;
    let observer = cluster.observer(0).await;
    let there = open(&observer).task("t");
    let running = tokio::spawn(async move {
        let action = |_| async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Ok::<_, String>(())
        };
        there.run(action).await
    });
    let tasks = open(&cluster.voters[1]);
    let waiting = tokio::spawn(async move { tasks.task("t").wait().await });
    eventually("it runs", || {
        !waiting.is_finished() && open(&observer).version().as_u64() > 0
    })
    .await;
    assert_eq!(
        elsewhere(&open(&cluster.voters[2]).task("t")).await.state,
        State::Succeeded
    );
    assert!(matches!(running.await.unwrap(), Ok(Ran::Here(_))));
    let waited = within("the waiter is told", PATIENCE, waiting).await;
    assert_eq!(waited.unwrap().unwrap().state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_recorded_and_not_retried_at_most_once() {
    let node = Network::new("demo").await.unwrap();
    let task = open(&node).task("t");
    let status = run_here(&task, Err("no luck")).await;
    assert_eq!(
        (status.state, status.outcome),
        (State::Failed, Some(failed("no luck")))
    );
    let status = elsewhere(&task).await;
    assert_eq!((status.state, status.attempt), (State::Failed, 1));
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_behind_pauses_that_double_at_least_once() {
    let cluster = Cluster::start(3, 3).await;
    let task = open(&cluster.voters[0]).task("t").at_least_once();
    let (began, starts) = (tokio::time::Instant::now(), AtomicUsize::new(0));
    let ran = task.run(|attempt| {
        assert_eq!(
            attempt.number() as usize,
            starts.fetch_add(1, Ordering::SeqCst) + 1
        );
        async move {
            match attempt.number() {
                3 => Ok(attempt.number()),
                n => Err(format!("attempt {n} fails")),
            }
        }
    });
    let Ok(Ran::Here(here)) = within("it succeeds", PATIENCE, ran).await else {
        panic!("it ran here");
    };
    assert_eq!((here.result, here.attempt.number()), (Ok(3), 3));
    assert!(began.elapsed() >= ms(3_000));
    // One that never succeeds is given up after as many retries as it may have.
    let policy = Policy::AtLeastOnce {
        retries_max: 2,
        backoff_first_ms: 0,
        backoff_max_ms: 0,
    };
    let status = run_here(
        &open(&cluster.voters[1]).task("u").policy(policy),
        Err("no"),
    )
    .await;
    assert_eq!((status.state, status.attempt), (State::Failed, 3));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_told_to_the_caller_and_recorded_as_a_failure() {
    let cluster = Cluster::start(4, 3).await;
    let task = open(&cluster.voters[0]).task("t");
    let ran = task.run(|_| async { panic!("oh no") as Result<(), String> });
    assert_eq!(ran.await.unwrap_err(), TaskError::Panicked("oh no".into()));
    let status = elsewhere(&open(&cluster.voters[1]).task("t")).await;
    assert_eq!(
        (status.state, status.outcome),
        (State::Failed, Some(failed("panic: oh no")))
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_is_abandoned_until_an_operator_resolves_or_resets_it() {
    let cluster = Cluster::start(5, 3).await;
    let (tasks, operator) = (
        open(&cluster.voters[0]),
        open(&cluster.voters[1]).named("ann"),
    );
    for name in ["resolved", "reset"] {
        let task = tasks.task(name);
        let dropped = task.run(|_| std::future::pending::<Result<(), String>>());
        assert!(tokio::time::timeout(ms(500), dropped).await.is_err());
        let running = operator.task(name).status().await.unwrap().unwrap();
        assert_eq!(running.state, State::Running);
        let refused = operator.task(name).resolve(Outcome::SUCCESS).await;
        assert!(
            matches!(refused, Err(TaskError::NotAbandoned(_))),
            "{refused:?}"
        );
        let waited = within("it is abandoned", PATIENCE, operator.task(name).wait()).await;
        assert_eq!(waited.unwrap().state, State::Abandoned);
        assert_eq!(elsewhere(&task).await.state, State::Abandoned);
    }
    let resolved = operator
        .task("resolved")
        .resolve(failed("lost"))
        .await
        .unwrap();
    assert_eq!(
        (resolved.state, resolved.resolved_by.as_deref()),
        (State::Failed, Some("ann"))
    );
    assert_eq!(
        elsewhere(&tasks.task("resolved")).await.state,
        State::Failed
    );
    let before = operator.task("reset").status().await.unwrap().unwrap();
    let reset = operator.task("reset").reset().await.unwrap();
    assert_eq!(
        (reset.state, reset.created_by.as_str()),
        (State::Pending, "ann")
    );
    assert!(reset.generation > before.generation && !reset.executed());
    let again = run_here(&tasks.task("reset"), Ok(1)).await;
    assert_eq!(
        (again.state, again.generation),
        (State::Succeeded, reset.generation)
    );
    let deeds = tasks.deeds().await.unwrap();
    let done: Vec<_> = deeds
        .iter()
        .map(|deed| (&*deed.task, deed.kind, &*deed.by))
        .collect();
    let expected = [
        ("resolved", DeedKind::Resolved, "ann"),
        ("reset", DeedKind::Reset, "ann"),
    ];
    assert_eq!(done, expected);
    assert_eq!(deeds[1].generation, before.generation);
}

#[tokio::test(start_paused = true)]
async fn an_action_learns_that_it_was_overtaken() {
    let cluster = Cluster::start(6, 3).await;
    let task = open(&cluster.voters[0]).task("t");
    let running = tokio::spawn(async move {
        let action = |attempt: raft_once::task::Attempt| async move {
            attempt.superseded().await;
            Ok::<_, String>("stopped")
        };
        task.run(action).await
    });
    let operator = open(&cluster.voters[1]).task("t");
    while operator.status().await.unwrap().is_none() {
        tokio::time::sleep(ms(10)).await;
    }
    operator.reset().await.unwrap();
    let ran = within("it stops", PATIENCE, running).await.unwrap();
    let Ok(Ran::Here(here)) = ran else {
        panic!("it ran here: {ran:?}");
    };
    // Its outcome is of a generation that is gone.
    assert_eq!((here.result, here.status), (Ok("stopped"), None));
    let status = operator.status().await.unwrap().unwrap();
    assert_eq!((status.state, status.attempt), (State::Pending, 0));
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_finished_by_whoever_has_its_id_once_and_by_nobody_else() {
    let cluster = Cluster::start(7, 3).await;
    let tasks = open(&cluster.voters[0]);
    let task = tasks.task("t");
    let id = tasks.new_claim_id();
    for _ in 0..3 {
        let Ok(Claimed::Here(attempt)) = task.claim_as(id).await else {
            panic!("claimed before by the same");
        };
        assert_eq!((attempt.claim(), attempt.number()), (id, 1));
    }
    let there = open(&cluster.voters[2]).task("t");
    let stranger = there.finish(tasks.new_claim_id(), Outcome::SUCCESS).await;
    assert_eq!(stranger.unwrap_err(), TaskError::Superseded);
    let missing = tasks.task("u").finish(id, Outcome::SUCCESS).await;
    assert_eq!(missing.unwrap_err(), TaskError::Missing);
    assert!(there.renew(id).await.unwrap());
    let read: raft_once::task::ClaimId = id.to_string().parse().unwrap();
    let exit = Outcome::Failed(Failure::Exit(3));
    for outcome in [exit.clone(), Outcome::SUCCESS] {
        let status = there.finish(read, outcome).await.unwrap();
        assert_eq!(
            (status.state, status.outcome),
            (State::Failed, Some(exit.clone()))
        );
    }
    assert!(!there.renew(id).await.unwrap());
    let Ok(Claimed::Elsewhere(status)) = task.claim_as(id).await else {
        panic!("it has ended");
    };
    assert_eq!(status.state, State::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_created_listed_and_deleted_and_keeps_what_it_was_created_with() {
    let cluster = Cluster::start(8, 3).await;
    let (here, there) = (open(&cluster.voters[0]), open(&cluster.voters[1]));
    let day = Duration::from_secs(86_400);
    let created = here
        .task("b")
        .at_least_once()
        .ttl(day)
        .create()
        .await
        .unwrap();
    assert_eq!(
        (created.state, created.executed(), created.ttl),
        (State::Pending, false, Some(day))
    );
    let again = there.task("b").create().await;
    assert_eq!(
        again.unwrap_err(),
        TaskError::Exists(Box::new(created.clone()))
    );
    let ran = run_here(&there.task("b").at_most_once(), Ok(1)).await;
    assert_eq!((ran.policy, ran.ttl), (created.policy, created.ttl));
    here.task("a").create().await.unwrap();
    let names = there.list().await.unwrap();
    let names: Vec<_> = names.iter().map(|status| &*status.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(there.task("a").delete().await, Ok(true));
    assert_eq!(here.task("a").delete().await, Ok(false));
    assert_eq!(here.task("a").status().await, Ok(None));
    assert_eq!(
        here.task("a").reset().await.unwrap_err(),
        TaskError::Missing
    );
    let other = Tasks::new(&cluster.voters[0], "another namespace");
    assert_eq!(other.list().await, Ok(vec![]));
    for name in ["", "a\nb", &"x".repeat(201)] {
        let refused = here.task(name).claim().await;
        assert!(matches!(refused, Err(TaskError::Invalid(_))), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_is_forgotten_behind_its_ttl_and_not_before_the_task_has_ended() {
    let cluster = Cluster::start(9, 3).await;
    let tasks = open(&cluster.voters[0]);
    let short = tasks.task("short").ttl(Duration::ZERO);
    let Ok(Claimed::Here(attempt)) = short.claim().await else {
        panic!("nobody else claims it");
    };
    assert_eq!(short.status().await.unwrap().unwrap().state, State::Running);
    short
        .finish(attempt.claim(), Outcome::SUCCESS)
        .await
        .unwrap();
    assert_eq!(short.status().await, Ok(None));
    let first = run_here(&short, Ok(1)).await;
    let second = run_here(&short, Ok(2)).await;
    assert!(second.generation > first.generation);
    let long = tasks.task("long").ttl(Duration::from_secs(3_600));
    run_here(&long, Ok(1)).await;
    assert_eq!(elsewhere(&long).await.state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_want_to_wait_is_told_who_runs_it() {
    let cluster = Cluster::start(10, 3).await;
    let task = open(&cluster.voters[0]).named("busy").task("t");
    task.claim().await.unwrap();
    for patience_ms in [0, 2_000] {
        let other = open(&cluster.voters[1])
            .task("t")
            .wait_at_most(ms(patience_ms));
        let status = elsewhere(&other).await;
        assert_eq!(
            (status.state, status.executor.as_deref()),
            (State::Running, Some("busy"))
        );
        assert!(status.silent_for.unwrap() >= ms(patience_ms) / 2);
    }
}

/// The next change, in words.
async fn next(watch: &mut Watch) -> String {
    let change = within("a change", PATIENCE, watch.next()).await;
    match change.expect("it goes on").expect("the network is up") {
        TaskChange::Changed(status) => format!("{} {:?}", status.name, status.state),
        TaskChange::Removed(name) => format!("{name} removed"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_what_stands_and_then_what_changes() {
    let cluster = Cluster::start(11, 3).await;
    let nodes = cluster.and_observer().await;
    let tasks = open(&nodes[0]);
    tasks.task("a").create().await.unwrap();
    run_here(&tasks.task("b"), Ok(1)).await;
    let mut watches: Vec<_> = nodes.iter().map(|node| open(node).watch()).collect();
    for watch in &mut watches {
        assert_eq!(next(watch).await, "a Pending");
        assert_eq!(next(watch).await, "b Succeeded");
    }
    let Ok(Claimed::Here(attempt)) = tasks.task("a").claim().await else {
        panic!("nobody else claims it");
    };
    for watch in &mut watches {
        assert_eq!(next(watch).await, "a Running");
    }
    let finished = tasks.task("a").finish(attempt.claim(), failed("no")).await;
    assert_eq!(finished.unwrap().state, State::Failed);
    for watch in &mut watches {
        assert_eq!(next(watch).await, "a Failed");
    }
    tasks.task("b").delete().await.unwrap();
    for watch in &mut watches {
        assert_eq!(next(watch).await, "b removed");
    }
    drop(watches.split_off(1));
    cluster.shutdown().await;
    assert!(matches!(
        watches[0].next().await,
        Some(Err(TaskError::NetworkDown))
    ));
    assert!(watches[0].next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_nothing_starts_and_an_outcome_is_recorded_when_it_is_back() {
    let cluster = Cluster::start(12, 3).await;
    let task = open(&cluster.voters[0]).task("t");
    let running = tokio::spawn(async move {
        let action = |_| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, String>(())
        };
        task.run(action).await
    });
    tokio::time::sleep(ms(1_000)).await;
    cluster.net.isolate(addr(0));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let other = open(&cluster.voters[0]).task("u");
    let ran = other.run(|_| async { panic!("it was started") as Result<(), String> });
    assert_eq!(ran.await.unwrap_err(), TaskError::Offline);
    cluster.heal().await;
    let Ok(Ran::Here(here)) = within("it is recorded", PATIENCE, running).await.unwrap() else {
        panic!("it ran here");
    };
    assert_eq!(here.status.unwrap().state, State::Succeeded);
    assert_eq!(other.status().await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn when_the_network_is_down_everything_says_so() {
    let net = SimNet::new(13);
    let started = voter(&net, "a").electorate(electorate(1)).start().await;
    let node = started.unwrap();
    let tasks = online(&node).await;
    let task = tasks.task("t");
    task.create().await.unwrap();
    let waiting = {
        let task = task.clone();
        tokio::spawn(async move { task.wait().await })
    };
    tokio::time::sleep(ms(100)).await;
    node.shutdown().await;
    assert_eq!(waiting.await.unwrap(), Err(TaskError::NetworkDown));
    assert_eq!(task.claim().await.unwrap_err(), TaskError::NetworkDown);
    assert_eq!(task.status().await, Err(TaskError::NetworkDown));
    assert_eq!(tasks.list().await, Err(TaskError::NetworkDown));
    let ran = task.run(|_| async { Ok::<_, String>(()) }).await;
    assert_eq!(ran.unwrap_err(), TaskError::NetworkDown);
}

#[tokio::test(start_paused = true)]
async fn whoever_ran_it_here_and_does_not_wait_on_is_told_of_its_own_attempt() {
    let node = Network::new("alone").await.unwrap();
    let tasks = open(&node);
    let task = tasks.task("a").at_least_once().wait_at_most(Duration::ZERO);
    let slow = task.run(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Err::<(), _>("no disk space")
    });
    match slow.await.unwrap() {
        Ran::Here(here) => {
            assert_eq!(here.result, Err("no disk space"));
            assert_eq!(here.status.unwrap().state, State::Pending);
        }
        Ran::Elsewhere(status) => panic!("elsewhere: {status:?}"),
    }
    // So far away that it is never.
    let forever = tasks.task("b").wait_at_most(Duration::MAX);
    run_here(&forever, Ok(1)).await;
    node.shutdown().await;
}
