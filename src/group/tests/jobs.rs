//! Jobs on nodes that lose power, links and answers: whoever was told that it has a tick has it,
//! whatever happens then, and nobody else ever has.

use super::cluster::Cluster;
use super::*;
use crate::job::{Claimed, JobId, Jobs, JobsError, Missed, Slot, State, Tick};
use crate::machine::task::{ClaimId, Failure, Outcome};
use crate::probe;

fn group() -> GroupId {
    GroupId::of_jobs("tests")
}

fn jobs(node: &Network) -> Jobs {
    Jobs::new(node, "tests")
}

/// A time of day so many seconds behind the one at which the jobs of a test are made.
pub(super) fn ticks() -> impl Fn(u64) -> Slot {
    let began = probe::now_ms();
    move |n| Slot::Tick(Tick::of_utc(began + (60 + n) * 1_000).expect("it is one"))
}

pub(super) async fn create(node: &Network, namespace: &str, kind: &str) -> JobId {
    let json = format!(
        r#"{{"schedule": "* * * * * *", "api": "https://example.com/", "type": "{kind}", "isRecurring": true}}"#
    );
    let created = Jobs::new(node, namespace).create(&json).await;
    created.expect("it is created").id()
}

async fn state(node: &Network, id: JobId, slot: Slot) -> State {
    let status = jobs(node).get(id).await.expect("a leader answers");
    let history = status.expect("it is there").history();
    let execution = history.iter().find(|execution| execution.slot == slot);
    execution.expect("it is remembered").state
}

fn leader(cluster: &Cluster) -> usize {
    let leads = |n: &usize| {
        let group = cluster.node(*n).directory().group(group());
        group.awake().is_some_and(|replica| replica.leads())
    };
    let leader = (0..cluster.count()).find(|n| cluster.is_up(*n) && leads(n));
    leader.expect("somebody leads")
}

fn failed() -> Outcome {
    Outcome::Failed(Failure::Error("HTTP 503".into()))
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_tick_outlives_the_leader_that_committed_it() {
    for seed in 0..4 {
        let mut cluster = Cluster::start(seed, 3).await;
        let tick = ticks();
        let id = create(cluster.node(0), "tests", "AT_MOST_ONCE").await;
        let claimant = seed as usize % 3;
        let mine = jobs(cluster.node(claimant)).job(id);
        let claim = mine.claim(ClaimId([1; 16]), tick(1), 1).await;
        assert!(matches!(claim, Ok(Claimed::Here(..))), "{claim:?}");
        let gone = leader(&cluster);
        match seed % 2 {
            0 => cluster.cut_power(gone),
            _ => cluster.kill(gone),
        }
        let (one, other) = ((gone + 1) % 3, (gone + 2) % 3);
        let theirs = jobs(cluster.node(other)).job(id);
        let again = theirs.claim(ClaimId([2; 16]), tick(1), 1).await;
        assert!(matches!(again, Ok(Claimed::Elsewhere(_))), "{again:?}");
        let later = theirs.claim(ClaimId([2; 16]), tick(2), 1).await;
        assert!(
            matches!(later, Ok(Claimed::Here(..))),
            "the next is free: {later:?}"
        );
        let mine = jobs(cluster.node(one)).job(id);
        assert!(
            mine.finish(ClaimId([1; 16]), tick(1), failed())
                .await
                .unwrap()
        );
        cluster.power_up(gone).await;
        cluster.met().await;
        assert_eq!(state(cluster.node(gone), id, tick(1)).await, State::Failed);
        let late = jobs(cluster.node(gone)).job(id);
        let late = late.claim(ClaimId([3; 16]), tick(1), 2).await;
        assert!(
            matches!(late, Ok(Claimed::Elsewhere(_))),
            "no retry: {late:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_too_late_for_a_tick_is_told_so_without_an_entry_in_the_log() {
    let cluster = Cluster::start(9, 3).await;
    let tick = ticks();
    for kind in ["AT_MOST_ONCE", "AT_LEAST_ONCE"] {
        let id = create(cluster.node(0), "tests", kind).await;
        let claim = |node: usize, n: u8| {
            let (job, slot) = (jobs(cluster.node(node)).job(id), tick(1));
            async move { job.claim(ClaimId([n; 16]), slot, 1).await }
        };
        assert!(matches!(claim(0, 1).await, Ok(Claimed::Here(..))));
        let version = || jobs(cluster.node(leader(&cluster))).version();
        let before = version();
        for node in 0..3 {
            let late = claim(node, 2).await;
            assert!(matches!(late, Ok(Claimed::Elsewhere(Some(_)))), "{late:?}");
        }
        assert_eq!(version(), before);
        // Whoever has it is told so, again and again.
        assert!(matches!(claim(2, 1).await, Ok(Claimed::Here(..))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_told_again_to_whoever_has_its_id() {
    let net = SimNet::new(3);
    let nodes = voters(&net, 3).await;
    let observer = Network::join_simulated(nodes[0].ticket(), &net)
        .await
        .unwrap();
    online(observer.open(group()).view()).await;
    net.set_delay(Duration::from_millis(1), Duration::from_millis(1));
    let tick = ticks();
    let id = create(&nodes[0], "tests", "AT_MOST_ONCE").await;
    let (mut doubted, mut held) = (0, 0);
    for ms in 0..16 {
        let (there, slot) = (jobs(&observer).job(id), tick(ms));
        let mine = ClaimId([ms as u8; 16]);
        let claiming = {
            let there = there.clone();
            tokio::spawn(async move { there.claim(mine, slot, 1).await })
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
        for voter in 0..3 {
            net.drop_replies(addr(voter), observer.local_addr());
        }
        let claim = claiming.await.unwrap();
        net.heal_all();
        online(observer.open(group()).view()).await;
        match claim {
            Ok(Claimed::Here(..)) => held += 1,
            Err(JobsError::Offline) => doubted += 1,
            other => panic!("after {ms} ms: {other:?}"),
        }
        // Of the two, whoever is first has it: the one with the id of the claim that is in doubt,
        // or another one, if it was not committed.
        let other = jobs(&nodes[1]).job(id);
        let other = other.claim(ClaimId([99; 16]), slot, 1).await.unwrap();
        let other = matches!(other, Claimed::Here(..));
        let again = matches!(there.claim(mine, slot, 1).await.unwrap(), Claimed::Here(..));
        assert!(other != again, "after {ms} ms: {other} {again}");
    }
    assert!(doubted > 0 && held > 0, "{doubted} {held}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_worker_is_abandoned_or_replaced_as_the_job_says() {
    let cluster = Cluster::start(2, 3).await;
    let tick = ticks();
    let once = create(cluster.node(0), "tests", "AT_MOST_ONCE").await;
    let often = create(cluster.node(0), "tests", "AT_LEAST_ONCE").await;
    for id in [once, often] {
        let dead = jobs(cluster.node(0)).job(id);
        let claim = dead.claim(ClaimId([1; 16]), tick(1), 1).await;
        assert!(matches!(claim, Ok(Claimed::Here(..))), "{claim:?}");
    }
    let other = jobs(cluster.node(1));
    for _ in 0..2 {
        let taken = other.job(often).claim(ClaimId([2; 16]), tick(1), 2).await;
        assert!(
            matches!(taken, Ok(Claimed::Elsewhere(_))),
            "not yet: {taken:?}"
        );
        assert_eq!(state(cluster.node(2), once, tick(1)).await, State::Running);
        tokio::time::sleep(Duration::from_millis(crate::group::SILENT_MS / 2)).await;
    }
    assert_eq!(
        state(cluster.node(2), once, tick(1)).await,
        State::Abandoned
    );
    let taken = other.job(often).claim(ClaimId([2; 16]), tick(1), 2).await;
    let Ok(Claimed::Here(execution, _)) = taken else {
        panic!("not taken over: {taken:?}");
    };
    assert_eq!((execution.attempt, execution.slot), (2, tick(1)));
    let late = jobs(cluster.node(0)).job(often);
    assert!(
        !late
            .finish(ClaimId([1; 16]), tick(1), Outcome::SUCCESS)
            .await
            .unwrap()
    );
    assert!(!late.renew(ClaimId([1; 16]), tick(1)).await.unwrap());
    assert!(
        other
            .job(often)
            .renew(ClaimId([2; 16]), tick(1))
            .await
            .unwrap()
    );
    let abandoned = other.job(once).claim(ClaimId([2; 16]), tick(1), 2).await;
    assert!(
        matches!(abandoned, Ok(Claimed::Elsewhere(_))),
        "{abandoned:?}"
    );
    let late = jobs(cluster.node(0)).job(once);
    assert!(
        late.finish(ClaimId([1; 16]), tick(1), Outcome::SUCCESS)
            .await
            .unwrap()
    );
    assert_eq!(
        state(cluster.node(2), once, tick(1)).await,
        State::Succeeded
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_its_pause_wherever_it_is_claimed() {
    let cluster = Cluster::start(8, 3).await;
    let tick = ticks();
    let id = create(cluster.node(0), "tests", "AT_LEAST_ONCE").await;
    let mut last: Option<Instant> = None;
    for (n, pause_ms) in [0, 1_000, 2_000, 4_000].into_iter().enumerate() {
        let there = jobs(cluster.node(n % 3)).job(id);
        let claim = ClaimId([n as u8 + 1; 16]);
        loop {
            match there.claim(claim, tick(1), n as u32 + 1).await.unwrap() {
                Claimed::Here(..) => break,
                Claimed::NotYet(wait) => tokio::time::sleep(wait).await,
                Claimed::Elsewhere(_) => panic!("nobody else is here"),
            }
        }
        let since = last.map_or(Duration::ZERO, |last| last.elapsed());
        assert!(
            since >= Duration::from_millis(pause_ms),
            "attempt {n}: {since:?}"
        );
        assert!(there.finish(claim, tick(1), failed()).await.unwrap());
        last = Some(Instant::now());
    }
    assert_eq!(state(cluster.node(2), id, tick(1)).await, State::Failed);
}

#[tokio::test(start_paused = true)]
async fn jobs_and_their_history_are_there_after_all_voters_have_lost_power() {
    let mut cluster = Cluster::start(4, 3).await;
    let tick = ticks();
    let id = create(cluster.node(0), "tests", "AT_MOST_ONCE").await;
    let deleted = create(cluster.node(1), "tests", "AT_MOST_ONCE").await;
    let there = jobs(cluster.node(1));
    let claim = there.job(id).claim(ClaimId([1; 16]), tick(1), 1).await;
    assert!(matches!(claim, Ok(Claimed::Here(..))), "{claim:?}");
    let Slot::Tick(missed) = tick(5) else {
        unreachable!("it is a tick")
    };
    let miss = async |due_ms| there.job(id).miss(ClaimId([2; 16]), missed, due_ms).await;
    // By the leader's clock.
    let early = miss(probe::now_ms() + 60_000).await;
    assert!(matches!(early, Ok(Missed::NotYet(_))), "{early:?}");
    let recorded = miss(0).await;
    assert!(matches!(recorded, Ok(Missed::Recorded(_))), "{recorded:?}");
    there.pause(id).await.unwrap();
    there.delete(deleted).await.unwrap();
    drop(there);
    for n in 0..3 {
        cluster.cut_power(n);
    }
    for n in 0..3 {
        cluster.power_up(n).await;
    }
    cluster.met().await;
    let there = jobs(cluster.node(2));
    let all = there.list().await.unwrap();
    assert_eq!((all.len(), all[0].id(), all[0].is_paused()), (1, id, true));
    let states: Vec<_> = all[0]
        .history()
        .iter()
        .map(|execution| execution.state)
        .collect();
    assert_eq!(states, [State::Running, State::Missed]);
    assert_eq!(there.pause(deleted).await.unwrap_err(), JobsError::Missing);
    let again = there.job(id).claim(ClaimId([3; 16]), tick(1), 1).await;
    assert!(matches!(again, Ok(Claimed::Elsewhere(_))), "{again:?}");
    there.resume(id).await.unwrap();
    let next = there.job(id).claim(ClaimId([3; 16]), tick(6), 1).await;
    assert!(matches!(next, Ok(Claimed::Here(..))), "{next:?}");
    let new = create(cluster.node(0), "tests", "AT_MOST_ONCE").await;
    assert!(new > deleted, "no id comes back");
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_away_for_long_is_sent_all_jobs() {
    let mut cluster = Cluster::start(6, 3).await;
    let tick = ticks();
    let before = create(cluster.node(0), "tests", "AT_MOST_ONCE").await;
    cluster.all_asleep().await;
    cluster.cut_power(2);
    let id = create(cluster.node(0), "tests", "AT_MOST_ONCE").await;
    for n in 0..40 {
        let there = jobs(cluster.node(n as usize % 2)).job(id);
        let claim = there.claim(ClaimId([n; 16]), tick(n.into()), 1).await;
        assert!(matches!(claim, Ok(Claimed::Here(..))), "{claim:?}");
        assert!(
            there
                .finish(ClaimId([n; 16]), tick(n.into()), failed())
                .await
                .unwrap()
        );
    }
    jobs(cluster.node(1)).delete(before).await.unwrap();
    cluster.power_up(2).await;
    cluster.met().await;
    let there = jobs(cluster.node(2)).job(id);
    let claim = there.claim(ClaimId([99; 16]), tick(50), 1).await;
    assert!(matches!(claim, Ok(Claimed::Here(..))), "{claim:?}");
    cluster.all_asleep().await;
    let board = |n: usize| {
        let directory = cluster.node(n).directory();
        let store = directory.store().expect("it is a voter");
        directory.load(store, group()).expect("it is sound").jobs
    };
    let boards: Vec<_> = (0..3).map(board).collect();
    assert!(boards[0] == boards[1] && boards[1] == boards[2]);
    assert_eq!(boards[2].jobs().len(), 1);
}
