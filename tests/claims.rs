//! Exactly one claimant wins, and everyone is told the truth, whatever gets lost.

mod common;

use common::*;
use futures::future::join_all;
use raft_once::testing::SimNet;
use raft_once::{Claim, ClaimError, Network, Once, OnceWriter, Pending, Version};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

/// Claims with one proposal until there is an answer.
async fn answered(cell: &OnceWriter<u32>, value: impl Into<Pending<u32>>) -> Claim<u32> {
    let mut pending = value.into();
    let asking = async {
        loop {
            match cell.claim(pending).await {
                Err(ClaimError::Offline(same)) => pending = same,
                answer => return answer.expect("a claim ends with an answer or with Offline"),
            }
        }
    };
    within("an answer to a claim", 4 * PATIENCE, asking).await
}

/// The claim, which must come back as `Offline`.
async fn offline(cell: &OnceWriter<u32>, value: u32) -> Pending<u32> {
    let started = Instant::now();
    let pending = match cell.claim(value).await {
        Err(ClaimError::Offline(pending)) => pending,
        other => panic!("nobody could confirm this: {other:?}"),
    };
    assert!(
        started.elapsed() <= WRITE_TIMEOUT + ms(100),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(*pending.value(), value);
    pending
}

fn winning_version(cell: &OnceWriter<u32>) -> Version {
    cell.decision().expect("decided").version
}

/// Of these answers exactly one is `Won`, the others name its value, and both say what the cell
/// says. `offers` are the values that were claimed with.
fn assert_one_winner(cell: &OnceWriter<u32>, offers: &[u32], answers: &[Claim<u32>]) {
    let value = cell.read().expect("decided");
    let decided = winning_version(cell);
    let mut winners = Vec::new();
    for (mine, answer) in offers.iter().zip(answers) {
        match answer {
            Claim::Won(version) => {
                assert_eq!((*mine, *version), (value, decided));
                winners.push(*mine);
            }
            Claim::Lost {
                winner,
                version,
                offered,
                ..
            } => assert_eq!((*winner, *version, *offered), (value, decided, *mine)),
        }
    }
    assert_eq!(
        winners,
        [value],
        "exactly one is told that it won: {answers:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn of_32_claimants_on_4_nodes_one_wins_and_the_others_learn_who() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for (round, delay) in [0, 1, 20, 100].into_iter().enumerate() {
        cluster.net.set_delay(ms(0), ms(delay));
        let id = format!("slot {round}");
        let claims = (0..32_u32).map(|n| {
            let cell = Once::<u32>::writer(&nodes[n as usize % 4], &id);
            tokio::spawn(async move { cell.claim(n).await.unwrap() })
        });
        let answers = within("all answers", PATIENCE, join_all(claims)).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        let cells = writers(&nodes, &id);
        agreed(&cells).await;
        let offers: Vec<u32> = (0..32).collect();
        assert_one_winner(&cells[0], &offers, &answers);
    }
}

/// What happens to the claimant's node while its claim is under way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    RepliesLost,
    HearsNothing,
    CutOff,
}

fn befall(net: &SimNet, nodes: &[Network], victim: usize, fate: Fate) {
    let victim = nodes[victim].local_addr();
    let others = nodes
        .iter()
        .map(Network::local_addr)
        .filter(|other| *other != victim);
    match fate {
        Fate::CutOff => net.isolate(victim),
        Fate::RepliesLost => others.for_each(|other| net.drop_replies(other, victim)),
        Fate::HearsNothing => others.for_each(|other| net.cut_one_way(other, victim)),
    }
}

/// Every node in turn claims, alone, and is struck at many moments of its claim, for a time in
/// which links do not notice, one in which they do, and one that outlasts the claim's deadline.
/// Nobody else claims, so whatever was lost, and however often it asked: it won, at the version
/// at which the cell was decided.
async fn a_lone_claimant_is_told_that_it_won(fate: Fate) {
    for node in 0..4 {
        let cluster = Cluster::start(1, 3).await;
        let nodes = cluster.and_observer().await;
        for moment in [1, 15, 35, 55, 75, 95, 115] {
            for healed_after in [1_000, 2_500, 7_000] {
                cluster.net.set_delay(ms(10), ms(10));
                let case = format!("{fate:?}, node {node}, {moment} ms, {healed_after} ms");
                let cells = writers(&nodes, &case);
                all_online(&cells).await;
                let cell = cells[node].clone();
                let claim = tokio::spawn(async move { answered(&cell, 1).await });
                tokio::time::sleep(ms(moment)).await;
                befall(&cluster.net, &nodes, node, fate);
                tokio::time::sleep(ms(healed_after)).await;
                cluster.net.heal_all();
                let answer = claim.await.expect("an answer");
                agreed(&cells).await;
                assert_eq!(answer, Claim::Won(winning_version(&cells[0])), "{case}");
                cluster.net.set_delay(ms(0), ms(0));
                cluster.heal().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_replies_are_lost_still_reports_that_it_won() {
    a_lone_claimant_is_told_that_it_won(Fate::RepliesLost).await;
}

#[tokio::test(start_paused = true)]
async fn a_claimant_that_hears_nothing_still_learns_that_it_won() {
    a_lone_claimant_is_told_that_it_won(Fate::HearsNothing).await;
}

#[tokio::test(start_paused = true)]
async fn a_claimant_that_is_cut_off_still_learns_that_it_won() {
    a_lone_claimant_is_told_that_it_won(Fate::CutOff).await;
}

#[tokio::test(start_paused = true)]
async fn a_claimant_that_is_struck_and_its_rival_agree_on_who_won() {
    let mut won = [0, 0];
    for fate in [Fate::RepliesLost, Fate::HearsNothing, Fate::CutOff] {
        for node in 0..4 {
            let cluster = Cluster::start(1, 3).await;
            let nodes = cluster.and_observer().await;
            for moment in [1, 15, 35, 55, 75, 95, 115] {
                cluster.net.set_delay(ms(10), ms(10));
                let case = format!("{fate:?}, node {node}, {moment} ms");
                let cells = writers(&nodes, &case);
                all_online(&cells).await;
                let cell = cells[node].clone();
                let claim = tokio::spawn(async move { answered(&cell, 1).await });
                tokio::time::sleep(ms(moment)).await;
                befall(&cluster.net, &nodes, node, fate);
                let rival = answered(&cells[(node + 1) % 3], 2).await;
                tokio::time::sleep(ms(7_000)).await;
                cluster.net.heal_all();
                let answers = [claim.await.expect("an answer"), rival];
                agreed(&cells).await;
                assert_one_winner(&cells[0], &[1, 2], &answers);
                won[usize::from(answers[1].is_won())] += 1;
                cluster.net.set_delay(ms(0), ms(0));
                cluster.heal().await;
            }
        }
    }
    assert!(
        won.iter().all(|won| *won > 0),
        "struck in time and too late: {won:?}"
    );
}

/// A claim of node `n` that is committed, of which it hears nothing.
async fn committed_unheard(
    cluster: &Cluster,
    nodes: &[Network],
    cells: &[OnceWriter<u32>],
    n: usize,
) -> Pending<u32> {
    all_online(cells).await;
    befall(&cluster.net, nodes, n, Fate::HearsNothing);
    let pending = offline(&cells[n], 1).await;
    let others: Vec<_> = (0..3)
        .filter(|other| *other != n)
        .map(|o| cells[o].clone())
        .collect();
    assert_eq!(agreed(&others).await, 1, "it is committed");
    assert_eq!(cells[n].read(), None, "and the claimant does not know");
    pending
}

#[tokio::test(start_paused = true)]
async fn a_pending_claim_that_was_committed_reports_that_it_won() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "the same handle");
    let pending = committed_unheard(&cluster, &nodes, &cells, 3).await;
    let rival = answered(&cells[0], 2).await;
    cluster.heal().await;
    let claim = answered(&cells[3], pending).await;
    assert_one_winner(&cells[1], &[1, 2], &[claim, rival]);

    // Any handle in the process will do, a new one, and one of another node.
    for other in [3, 1] {
        let cells = writers(&nodes, &format!("through node {other}"));
        let pending = committed_unheard(&cluster, &nodes, &cells, 3).await;
        cluster.heal().await;
        let new = Once::<u32>::writer(&nodes[other], format!("through node {other}"));
        let claim = answered(&new, pending).await;
        assert_eq!(claim, Claim::Won(winning_version(&cells[0])));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_claim_that_was_never_sent_wins_or_loses_as_it_happens() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    for node in 0..4 {
        for contended in [false, true] {
            let cells = writers(&nodes, &format!("node {node}, contended: {contended}"));
            all_online(&cells).await;
            cluster.net.isolate(nodes[node].local_addr());
            let mut pending = offline(&cells[node], 1).await;
            // Asking again does not help while it is cut off.
            pending = match cells[node].claim(pending).await {
                Err(ClaimError::Offline(pending)) => pending,
                other => panic!("{other:?}"),
            };
            let rival = match contended {
                true => Some(answered(&cells[(node + 1) % 3], 2).await),
                false => None,
            };
            cluster.heal().await;
            let claim = answered(&cells[node], pending).await;
            assert_eq!(agreed(&cells).await, if contended { 2 } else { 1 });
            match rival {
                Some(rival) => assert_one_winner(&cells[node], &[1, 2], &[claim, rival]),
                None => assert_one_winner(&cells[node], &[1], &[claim]),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_taken_out_of_a_pending_claim_starts_anew() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "cell");
    let pending = committed_unheard(&cluster, &nodes, &cells, 3).await;
    cluster.heal().await;
    let value = pending.into_value();
    match answered(&cells[3], value).await {
        Claim::Lost {
            winner,
            version,
            offered,
            ..
        } => assert_eq!(
            (winner, version, offered),
            (1, winning_version(&cells[0]), 1)
        ),
        won => panic!("the old proposal won, not this one: {won:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_claim_offered_to_another_cell_is_a_new_proposal() {
    let cluster = Cluster::start(1, 3).await;
    let nodes = cluster.and_observer().await;
    let cells = writers(&nodes, "first");
    let pending = committed_unheard(&cluster, &nodes, &cells, 3).await;
    cluster.heal().await;
    let others = writers(&nodes, "second");
    assert!(answered(&others[0], 5).await.version() > Version::ZERO);
    match answered(&others[3], pending).await {
        Claim::Lost { winner, .. } => assert_eq!(winner, 5),
        won => panic!("nothing that happened in the first cell counts here: {won:?}"),
    }
}

/// Cuts and heals at random for a while, then mends everything.
async fn havoc(net: SimNet, nodes: Vec<Network>, mut random: StdRng) {
    for _ in 0..random.random_range(3..16) {
        let a = random.random_range(0..nodes.len());
        let b = (a + random.random_range(1..nodes.len())) % nodes.len();
        let (a, b) = (nodes[a].local_addr(), nodes[b].local_addr());
        match random.random_range(0..8) {
            0 | 1 => net.cut(a, b),
            2 => net.cut_one_way(a, b),
            3 => net.isolate(a),
            4 => net.drop_replies(a, b),
            5 => net.heal(a, b),
            6 => net.heal_all(),
            _ => net.set_delay(ms(0), ms(random.random_range(0..60))),
        }
        let pause = match random.random_bool(0.5) {
            true => random.random_range(0..200),
            false => random.random_range(0..3_000),
        };
        tokio::time::sleep(ms(pause)).await;
    }
    net.heal_all();
}

/// The claimants of one run: on each of two cells, all four nodes, some with two claims.
async fn claims_under_havoc(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start(seed, 3).await;
    let nodes = cluster.and_observer().await;
    cluster.net.set_delay(ms(0), ms(random.random_range(0..20)));
    let chaos = StdRng::seed_from_u64(random.random());
    let chaos = tokio::spawn(havoc(cluster.net.clone(), nodes.clone(), chaos));
    let mut claims = Vec::new();
    for cell in 0..2 {
        for n in 0..6_u32 {
            let cell = Once::<u32>::writer(&nodes[n as usize % 4], format!("cell {cell}"));
            let later = ms(random.random_range(0..8_000));
            claims.push(tokio::spawn(async move {
                tokio::time::sleep(later).await;
                answered(&cell, n).await
            }));
        }
    }
    let answers = join_all(claims).await;
    let answers: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.expect("an answer"))
        .collect();
    within("the end of the havoc", 4 * PATIENCE, chaos)
        .await
        .unwrap();
    cluster.net.heal_all();
    let offers: Vec<u32> = (0..6).collect();
    for (cell, answers) in answers.chunks(6).enumerate() {
        let cells = writers(&nodes, &format!("cell {cell}"));
        let value = agreed(&cells).await;
        assert_one_winner(&cells[0], &offers, answers);
        for cell in &cells {
            assert_eq!(cell.read_linearizable().await, Ok(Some(value)));
        }
    }
}

#[test]
fn under_random_delays_cuts_and_heals_one_claim_wins_each_cell() {
    for_seeds(0..50, claims_under_havoc);
}
