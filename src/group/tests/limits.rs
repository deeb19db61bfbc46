//! What other nodes make this one keep has limits.

use super::*;
use crate::group::push::PUSHED_KIB_MAX;

fn group(n: u8) -> GroupId {
    GroupId::from_bytes([n; 32])
}

#[tokio::test(start_paused = true)]
async fn groups_of_others_are_limited_and_own_ones_are_not() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 1).await;
    let directory = nodes[0].directory();
    let one = directory.group_of_others(group(1), 2).unwrap();
    let two = directory.group_of_others(group(2), 2).unwrap();
    assert!(directory.group_of_others(group(3), 2).is_none());
    assert!(directory.group_of_others(group(1), 2).is_some());
    let own = nodes[0].open(group(3));
    assert!(directory.group_of_others(group(3), 2).is_some());
    directory.forget_idle(one);
    assert_eq!(directory.known_groups(), (2, 1));
    let four = directory.group_of_others(group(4), 2).unwrap();
    directory.forget_idle(two);
    directory.forget_idle(four);
    drop(own);
    // What brought it online lets go of it too.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(directory.known_groups(), (0, 0));
}

/// What is on the way to all subscribers has a limit: large updates wait, small ones do not.
#[tokio::test(start_paused = true)]
async fn large_updates_wait_for_room_and_small_ones_do_not() {
    let net = SimNet::new(1);
    let nodes = voters(&net, 1).await;
    let observer = Network::join_simulated(nodes[0].ticket(), &net).await;
    let observer = observer.unwrap();
    let pushed = nodes[0].directory().pushed.clone();
    let all = pushed.acquire_many_owned(PUSHED_KIB_MAX as u32).await;
    let (large, small) = (observer.open(group(1)), observer.open(group(2)));
    let write = async |id: GroupId, bytes: usize| {
        let interest = nodes[0].open(id);
        let value = vec![1; bytes];
        let command = Command::Set {
            slot: vec![],
            proposal: Proposal {
                id: nodes[0].proposal_id(&value),
                value: value.into(),
                proposed_at_ms: 0,
            },
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        let proposed = nodes[0].directory();
        let proposed = proposed.propose(interest.group(), command, deadline);
        proposed.await.unwrap();
    };
    online(small.view()).await;
    write(group(2), 100).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(small.view().record().is_some());
    online(large.view()).await;
    write(group(1), 10_000).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(large.view().record().is_none());
    drop(all);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(large.view().record().is_some());
    observer.shutdown().await;
    nodes[0].shutdown().await;
}
