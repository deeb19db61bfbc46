//! Shutdown, and voters that are not there.

use std::time::{Duration, Instant};

use raft_once::{ClaimError, Error, Observed, Once, ReadError, Version};

use crate::{alone, network};

#[tokio::test]
async fn after_shutdown_reads_answer_and_all_else_says_so_at_once() {
    let network = network().await;
    let set = Once::<u64>::writer(&network, "set");
    let empty = Once::<u64>::writer(&network, "empty");
    let version = set.write(42).await.unwrap();
    let waiting = empty.clone();
    let waiting = tokio::spawn(async move { waiting.await_value().await });
    let observers = [
        tokio::spawn(empty.when().updated()),
        tokio::spawn(empty.when().reaches(Version::new(u64::MAX))),
    ];
    tokio::task::yield_now().await;
    network.shutdown().await;

    let started = Instant::now();
    assert_eq!(waiting.await.unwrap(), Err(ReadError::NetworkDown));
    for observer in observers {
        assert_eq!(observer.await.unwrap(), Observed::NetworkDown);
    }
    assert_eq!(set.read(), Some(42));
    assert_eq!(set.get_ref(), Some(&42));
    assert!(set.is_some() && empty.is_none());
    assert_eq!(set.version(), version);
    assert_eq!(set.wait().await, Ok(&42));
    assert_eq!(set.read_linearizable().await, Ok(Some(42)));
    assert!(set.decision().is_some());
    assert_eq!(set.when().reaches(version).await, Observed::Reached);
    for cell in [&set, &empty] {
        assert!(matches!(cell.write(1).await, Err(Error::NetworkDown)));
        assert!(matches!(cell.set(1).await, Err(Error::NetworkDown)));
        assert!(matches!(cell.claim(1).await, Err(ClaimError::NetworkDown)));
        assert_eq!(cell.when().online().await, Observed::NetworkDown);
        assert_eq!(cell.when().offline().await, Observed::NetworkDown);
        assert_eq!(cell.when().updated().await, Observed::NetworkDown);
    }
    assert_eq!(empty.read_linearizable().await, Err(ReadError::NetworkDown));
    assert_eq!(empty.wait().await, Err(ReadError::NetworkDown));
    let init = empty.get_or_init(async || unreachable!()).await;
    assert!(matches!(init, Err(ClaimError::NetworkDown)));
    assert_eq!(set.get_or_init(async || unreachable!()).await.unwrap(), &42);
    // A cell that is opened now knows nothing, and says so without hanging.
    let late = Once::<u64>::reader(&network, "late");
    assert_eq!(late.wait().await, Err(ReadError::NetworkDown));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_write_under_way_ends_with_the_network() {
    let network = network().await;
    let cell = Once::<u64>::writer(&network, "cell");
    let writes = (0..8_u64).map(|n| {
        let cell = cell.clone();
        tokio::spawn(async move {
            for _ in 0..10_000 {
                match cell.write(n).await {
                    Ok(_) => {}
                    Err(Error::NetworkDown) => return true,
                    Err(_) => return false,
                }
            }
            false
        })
    });
    let writes: Vec<_> = writes.collect();
    tokio::time::sleep(Duration::from_millis(30)).await;
    network.shutdown().await;
    let ended = tokio::time::timeout(Duration::from_secs(2), futures::future::join_all(writes));
    for down in ended.await.expect("no write hangs") {
        assert!(
            down.unwrap(),
            "a write ended otherwise than with NetworkDown"
        );
    }
}

#[tokio::test]
async fn a_cell_keeps_its_node_alive() {
    let cell = {
        let network = network().await;
        Once::<u64>::writer(&network, "cell")
    };
    cell.write(42).await.unwrap();
    let reached = cell.when().reaches(cell.version());
    drop(cell);
    assert_eq!(reached.await, Observed::Reached);
}

#[tokio::test]
async fn without_a_majority_everything_is_handed_back_in_time() {
    let network = alone(300).await;
    let cell = Once::<String>::writer(&network, "cell");
    let started = Instant::now();
    match cell.write("mine".into()).await {
        Err(Error::Offline(value)) => assert_eq!(value, "mine"),
        other => panic!("{other:?}"),
    }
    let pending = match cell.claim("mine".to_string()).await {
        Err(ClaimError::Offline(pending)) => pending,
        other => panic!("{other:?}"),
    };
    assert_eq!(pending.value(), "mine");
    let pending = match cell.claim(pending).await {
        Err(ClaimError::Offline(pending)) => pending,
        other => panic!("{other:?}"),
    };
    assert_eq!(pending.into_value(), "mine");
    let init = cell
        .get_or_init(async || unreachable!("not run offline"))
        .await;
    assert!(matches!(init, Err(ClaimError::Unreached)));
    assert_eq!(cell.read_linearizable().await, Err(ReadError::Offline));
    assert_eq!(cell.when().offline().await, Observed::Reached);
    assert!(started.elapsed() < Duration::from_secs(5));
    // Shutdown ends what still waits.
    let waiting = tokio::spawn(async move { cell.await_value().await });
    network.shutdown().await;
    assert_eq!(waiting.await.unwrap(), Err(ReadError::NetworkDown));
}

#[tokio::test]
async fn a_dropped_write_or_claim_leaves_nothing_half_done() {
    let network = network().await;
    for polls in 0..60 {
        let cell = Once::<u64>::writer(&network, format!("cell-{polls}"));
        // Dropped after ever more steps, the first of which wake the cell's replica.
        let mut dropped = Box::pin(cell.write(1));
        for _ in 0..polls {
            if futures::poll!(&mut dropped).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(dropped);
        let mut dropped = Box::pin(cell.claim(2));
        let _ = futures::poll!(&mut dropped);
        drop(dropped);
        let claim = cell.claim(3).await.unwrap();
        let value = cell.read().unwrap();
        assert!(claim.is_won() == (value == 3) && (1..=3).contains(&value));
        assert!(cell.write(4).await.unwrap() > claim.version());
        assert_eq!(cell.read_linearizable().await, Ok(Some(value)));
    }
    network.shutdown().await;
}
