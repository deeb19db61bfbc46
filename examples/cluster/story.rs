//! The story: what is done to the cluster, and what must be seen then.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, OBSERVER, VOTERS, Views};
use super::node::WRITE_TIMEOUT_MS;
use super::protocol::{Answer, Ask, Decision};
use super::screen::Screen;

/// A value is durable on a majority before its write is acknowledged; that it is *decided* is
/// written down some milliseconds later, for which nobody waits. Only a voter that starts alone
/// can tell the difference, which `from_disk` has one do.
const APPLIED_TO_DISK: Duration = Duration::from_millis(300);

/// What was decided in the race, and must never change again.
struct Decided {
    value: String,
    decision: Decision,
    version: u64,
}

pub async fn tell(screen: &Screen) -> Result<(), String> {
    screen.title("raft-once: three voters and an observer, four processes, one write-once cell");

    screen.step("Start a, b, c and the observer");
    let mut cluster = Cluster::start(screen).await?;
    in_touch(&mut cluster, 4).await?;
    screen.held("all are in touch, and the cell is empty");

    screen.step("All four race to set the cell");
    let mut decided = race(&mut cluster, screen).await?;

    screen.step("The leader's process is killed; a survivor writes");
    let leader = leader(&mut cluster).await?;
    screen.node(leader, "leads");
    tokio::time::sleep(APPLIED_TO_DISK).await;
    let survivor = other_than(leader);
    cluster.kill(leader)?;
    ignored_write(&mut cluster, screen, survivor, &mut decided).await?;

    screen.step(&format!("The killed voter, {leader}, comes back"));
    cluster.restart(leader).await?;
    in_touch(&mut cluster, 4).await?;
    agree(&mut cluster, &mut decided).await?;
    screen.held(&format!("{leader} is back and reads {:?}", decided.value));

    screen.step("Two voters are killed; the third writes");
    for voter in VOTERS.into_iter().filter(|voter| *voter != leader) {
        cluster.kill(voter)?;
    }
    offline(&mut cluster, screen, leader, &decided).await?;

    screen.step("The last ones are killed too; all start again");
    cluster.kill(leader)?;
    cluster.kill(OBSERVER)?;
    from_disk(&mut cluster, screen, leader, &decided).await?;
    for voter in VOTERS.into_iter().filter(|voter| *voter != leader) {
        cluster.restart(voter).await?;
    }
    cluster.observer().await?;
    in_touch(&mut cluster, 4).await?;
    all_read(&mut cluster, &decided).await?;
    screen.held(&format!("all four still read {:?}", decided.value));
    ignored_write(&mut cluster, screen, OBSERVER, &mut decided).await?;

    screen.step("All are asked to stop");
    cluster.stop().await?;
    screen.held("all four processes ended with status 0");
    screen.end();
    Ok(())
}

fn other_than(name: &str) -> &'static str {
    if VOTERS[0] == name {
        VOTERS[1]
    } else {
        VOTERS[0]
    }
}

/// Waits until all nodes are online, and the voters see each other.
async fn in_touch(cluster: &mut Cluster, nodes: usize) -> Result<Views, String> {
    let all_see_all = |views: &Views| {
        let mut all = views.values();
        let full = views.len() == nodes;
        full && all.all(|view| view.online && view.voters == VOTERS.len() && view.waiting_for == 0)
    };
    let expected = "all nodes online and linked to all voters";
    cluster.until(expected, all_see_all).await
}

async fn race(cluster: &mut Cluster, screen: &Screen) -> Result<Decided, String> {
    let offer = |name: &str| format!("{name} was first");
    let answers = cluster.ask_all(|name| Ask::Claim(offer(name))).await?;
    for (name, answer) in &answers {
        let told = match answer {
            Answer::Won { version } => format!("won, at version {version}"),
            Answer::Lost { winner } => format!("lost to {winner:?}"),
            other => format!("{other:?}"),
        };
        screen.node(name, &format!("claimed it with {:?}: {told}", offer(name)));
    }
    let won = answers.iter().filter_map(|(name, answer)| match answer {
        Answer::Won { version } => Some((*name, *version)),
        _ => None,
    });
    let won: Vec<(&str, u64)> = won.collect();
    let [(winner, won_at)] = won[..] else {
        return Err(format!("expected exactly one winner; saw {answers:?}"));
    };
    let value = offer(winner);
    for (name, answer) in answers.iter().filter(|(name, _)| **name != winner) {
        let lost = Answer::Lost {
            winner: value.clone(),
        };
        if *answer != lost {
            return Err(format!(
                "expected of {name}'s claim {lost:?}; saw {answer:?}"
            ));
        }
    }
    let views = cluster
        .until("four equal views of the decided cell", |views| {
            views.len() == 4 && views.values().all(|view| view.value.is_some()) && equal(views)
        })
        .await?;
    let Some(view) = views.values().next() else {
        return Err("expected four views; saw none".into());
    };
    let Some(decision) = view.decision.clone() else {
        return Err(format!("expected a decision; saw {view:?}"));
    };
    let winner_is = cluster.node_id(winner) == Some(&*decision.winner);
    if !winner_is || decision.version != won_at || view.value.as_ref() != Some(&value) {
        return Err(format!(
            "expected {value:?}, decided by {winner} at version {won_at}; saw {view:?}"
        ));
    }
    screen.held(&format!(
        "one winner, {winner}, at version {won_at}; four equal views of it, at version {}",
        view.version
    ));
    Ok(Decided {
        value,
        decision,
        version: view.version,
    })
}

/// Value, version and decision are the same everywhere.
fn equal(views: &Views) -> bool {
    let seen = views.values();
    let seen: Vec<_> = seen.map(|v| (&v.value, v.version, &v.decision)).collect();
    seen.windows(2).all(|pair| pair[0] == pair[1])
}

/// Waits until all nodes that run have equal views of what was decided, at the version that was
/// seen before or a later one.
async fn agree(cluster: &mut Cluster, decided: &mut Decided) -> Result<(), String> {
    let version = decided.version;
    let expected = format!("equal views at version {version} or later");
    let views = cluster.until(&expected, |views| {
        equal(views) && views.values().all(|view| view.version >= version)
    });
    views.await?;
    for view in all_read(cluster, decided).await?.values() {
        decided.version = view.version;
    }
    Ok(())
}

/// All nodes that run see what was decided. Not necessarily at the version that was seen before:
/// after a crash of all nodes, a node may know the value, which is final, and not yet how many
/// ignored writes followed it.
async fn all_read(cluster: &mut Cluster, decided: &Decided) -> Result<Views, String> {
    let expected = format!("all nodes to read {:?}", decided.value);
    let some = |views: &Views| views.values().all(|view| view.value.is_some());
    let views = cluster.until(&expected, some).await?;
    for (name, view) in &views {
        let value_is = view.value.as_ref() == Some(&decided.value);
        if !value_is || view.decision.as_ref() != Some(&decided.decision) {
            return Err(format!(
                "expected {name} to see {:?}, {:?}; saw {view:?}",
                decided.value, decided.decision
            ));
        }
    }
    Ok(views)
}

/// The voter that leads the cell's group, when those voters that know a leader name the same.
async fn leader(cluster: &mut Cluster) -> Result<&'static str, String> {
    let named = |views: &Views| -> BTreeSet<String> {
        let voters = VOTERS.iter().filter_map(|name| views.get(name));
        voters.filter_map(|view| view.leader.clone()).collect()
    };
    let expected = "the voters to name one leader";
    let views = cluster
        .until(expected, |views| named(views).len() == 1)
        .await?;
    let leader = named(&views).into_iter().next().unwrap_or_default();
    let leader = cluster.name_of(&leader);
    let voter = VOTERS.into_iter().find(|voter| *voter == leader);
    voter.ok_or_else(|| format!("expected a voter to lead; saw {leader}"))
}

async fn ignored_write(
    cluster: &mut Cluster,
    screen: &Screen,
    writer: &'static str,
    decided: &mut Decided,
) -> Result<(), String> {
    let asked = Instant::now();
    let (value, before) = (format!("{writer} comes too late"), decided.version);
    screen.node(writer, &format!("writes {value:?}"));
    let written = match cluster.ask(writer, Ask::Write(value)).await? {
        Answer::Written { version } if version > before => version,
        other => {
            return Err(format!(
                "expected {writer}'s write to be acknowledged at a version after {before}; \
                 saw {other:?}"
            ));
        }
    };
    let took = asked.elapsed().as_secs_f64();
    decided.version = written;
    agree(cluster, decided).await?;
    screen.held(&format!(
        "acknowledged after {took:.1} s, at version {written}, and ignored: still {:?}",
        decided.value
    ));
    Ok(())
}

async fn offline(
    cluster: &mut Cluster,
    screen: &Screen,
    voter: &'static str,
    decided: &Decided,
) -> Result<(), String> {
    let asked = Instant::now();
    let value = format!("{voter} is alone");
    screen.node(voter, &format!("writes {value:?}"));
    let answer = cluster.ask(voter, Ask::Write(value.clone())).await?;
    let took = asked.elapsed();
    if answer != Answer::Offline(value.clone()) {
        return Err(format!(
            "expected Offline and {value:?} back; saw {answer:?}"
        ));
    }
    if took > Duration::from_millis(WRITE_TIMEOUT_MS + 1_000) {
        return Err(format!(
            "expected Offline after the write timeout of {WRITE_TIMEOUT_MS} ms; saw it after {took:?}"
        ));
    }
    let expected = format!("{voter} offline, its value as before");
    let as_before = |views: &Views| {
        views
            .get(voter)
            .is_some_and(|view| !view.online && view.value.as_ref() == Some(&decided.value))
    };
    cluster.until(&expected, as_before).await?;
    screen.held(&format!(
        "Offline after {:.1} s, {value:?} handed back; the cell still reads {:?}",
        took.as_secs_f64(),
        decided.value
    ));
    Ok(())
}

/// A voter that was killed starts alone. There is nobody to ask: what it reads is on its disk.
async fn from_disk(
    cluster: &mut Cluster,
    screen: &Screen,
    voter: &'static str,
    decided: &Decided,
) -> Result<(), String> {
    cluster.restart(voter).await?;
    let expected = format!("{voter}, alone, to read {:?} from its disk", decided.value);
    match cluster.ask(voter, Ask::ReadLinearizable).await? {
        Answer::View(view)
            if view.value.as_ref() == Some(&decided.value)
                && view.decision.as_ref() == Some(&decided.decision) => {}
        other => return Err(format!("expected {expected}; saw {other:?}")),
    }
    screen.held(&format!(
        "{voter} alone, linked to nobody, reads {:?} from its disk",
        decided.value
    ));
    Ok(())
}
