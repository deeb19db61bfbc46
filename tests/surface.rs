//! Every operation of the public surface, on a network of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use raft_once::{
    Claim, ClaimError, EncodeError, Error, GroupId, InitError, Network, Observed, Once, OnceConfig,
    OnceReader, OnceWriter, Pending, ReadError, StoreId, Version,
};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error>;

async fn network() -> Network {
    Network::new("surface").await.expect("loopback is there")
}

/// A value whose `Serialize` or `Deserialize` misbehaves on purpose.
#[derive(Clone, Debug, PartialEq)]
enum Odd {
    Fine,
    WillNotEncode,
    PanicsOnDecode,
}

impl Serialize for Odd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fine => serializer.serialize_u8(0),
            Self::WillNotEncode => Err(serde::ser::Error::custom("the pen is dry")),
            Self::PanicsOnDecode => serializer.serialize_u8(2),
        }
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Fine),
            _ => panic!("on purpose"),
        }
    }
}

#[tokio::test]
async fn all_constructors_open_the_same_cell() {
    let network = network().await;
    let id = StoreId::from("config-seed");
    let config = OnceConfig::default;
    let writers: [OnceWriter<String>; 5] = [
        Once::<String>::writer(&network, StoreId::from("config-seed")),
        Once::<String>::writer_with_config(&network, id, config()),
        Once::<String>::new(&network, id),
        Once::<String>::new_with_config(&network, "config-seed".to_string(), config()),
        OnceWriter::<String>::writer(&network, id),
    ];
    let readers: [OnceReader<String>; 4] = [
        Once::<String>::reader(&network, "config-seed"),
        Once::<String>::reader_with_config(&network, id, config()),
        OnceReader::<String>::reader(&network, id),
        OnceReader::reader(&network, id),
    ];
    let groups = writers.iter().map(Once::group_id);
    let mut groups: Vec<GroupId> = groups.chain(readers.iter().map(Once::group_id)).collect();
    groups.dedup();
    assert_eq!(groups.len(), 1);

    writers[0].write("genesis".into()).await.unwrap();
    for writer in &writers {
        assert_eq!(writer.read().as_deref(), Some("genesis"));
    }
    for reader in &readers {
        assert_eq!(reader.get().as_deref(), Some("genesis"));
    }
    network.shutdown().await;
}

/// The reference's examples, in its order.
#[tokio::test]
async fn the_examples_of_the_reference_work() -> Result<(), Failure> {
    let network = network().await;
    let once = Once::<String>::writer(&network, StoreId::from("config-seed"));

    // Reading.
    if let Some(seed) = once.read() {
        panic!("nobody wrote {seed}");
    }
    assert!(once.is_none());
    assert_eq!(once.is_empty(), once.is_none());
    assert_eq!(once.is_some(), !once.is_empty());
    assert_eq!(once.version(), Version::ZERO);

    // Status.
    once.when().online().await;
    let updated = once.when().updated();

    // The first write is stored permanently.
    let v = once.write("genesis".into()).await?;
    once.when().reaches(v).await;
    assert_eq!(once.read(), Some("genesis".into()));
    updated.await;

    // The second is silently ignored, and a commit all the same.
    let updated = once.when().updated();
    let v2 = once.write("overwrite-attempt".into()).await?;
    once.when().reaches(v2).await;
    assert!(v2 > v);
    assert_eq!(updated.await, Observed::Reached);
    assert_eq!(once.read(), Some("genesis".into()));

    // Using the alias.
    let v3 = once.set("another-attempt".into()).await?;
    assert!(v3 > v2);
    assert_eq!(once.version(), v3);
    assert_eq!(once.get(), Some("genesis".into()));
    assert_eq!(once.get_ref().map(String::as_str), Some("genesis"));
    assert_eq!(once.is_some(), !once.is_empty());

    // Errors.
    match once.write("again".into()).await {
        Ok(version) => {
            once.when().reaches(version).await;
        }
        Err(Error::Offline(value)) => panic!("offline with {value}"),
        Err(Error::Encoding(value, err)) => panic!("{value}: {err}"),
        Err(Error::NetworkDown) => panic!("down"),
    }
    network.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn the_winner_and_only_the_winner_is_told() {
    let network = network().await;
    let cell = Once::<String>::writer(&network, "leader");
    let won = match cell.claim("alice".to_string()).await.unwrap() {
        Claim::Won(version) => version,
        lost => panic!("{lost:?}"),
    };
    match cell.claim("bob".to_string()).await.unwrap() {
        Claim::Lost {
            winner,
            version,
            offered,
            ..
        } => assert_eq!(
            (winner.as_str(), version, offered.as_str()),
            ("alice", won, "bob")
        ),
        won => panic!("{won:?}"),
    }
    // The same value is not the same proposal.
    assert!(!cell.claim("alice".to_string()).await.unwrap().is_won());
    // Nothing was sent for the claims that were lost here.
    assert_eq!(cell.version(), won);

    let decision = cell.decision().unwrap();
    assert_eq!(decision.winner, network.node_id());
    assert_eq!(decision.winner_name.as_deref(), Some("solo"));
    assert_eq!(decision.version, won);
    assert_eq!(decision.value_bytes, 1 + "alice".len());
    let age = decision.proposed_at.elapsed().unwrap_or_default();
    assert!(age < Duration::from_secs(60));
    network.shutdown().await;
}

#[tokio::test]
async fn of_many_claims_at_once_one_wins() {
    let network = network().await;
    let claims = (0..32).map(|n| {
        let cell = Once::<u32>::writer(&network, "slot");
        tokio::spawn(async move { cell.claim(n).await.unwrap().is_won() })
    });
    let answers = futures::future::join_all(claims).await;
    let winners = answers.into_iter().filter(|won| *won.as_ref().unwrap());
    assert_eq!(winners.count(), 1);
    network.shutdown().await;
}

#[tokio::test]
async fn only_one_initialiser_runs_at_a_time_and_all_get_its_value() {
    let network = network().await;
    let cell = Once::<u32>::writer(&network, "seed");
    let (runs, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let calls = (0..16).map(|n| {
        let (cell, runs, running) = (cell.clone(), runs.clone(), running.clone());
        tokio::spawn(async move {
            let init = async || {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                tokio::time::sleep(Duration::from_millis(5)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                runs.fetch_add(1, Ordering::SeqCst);
                n
            };
            *cell.get_or_init(init).await.unwrap()
        })
    });
    let values = futures::future::join_all(calls).await;
    let first = *values[0].as_ref().unwrap();
    assert!(values.iter().all(|value| *value.as_ref().unwrap() == first));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    network.shutdown().await;
}

#[tokio::test]
async fn a_waiting_initialiser_gives_way_to_a_value_from_elsewhere() {
    let network = network().await;
    let cell = Once::<u32>::writer(&network, "seed");
    let (stuck, waiting) = (cell.clone(), cell.clone());
    let stuck = tokio::spawn(async move {
        let init = std::future::pending;
        stuck.get_or_init(init).await.copied()
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let waiting = tokio::spawn(async move { *waiting.get_or_init(async || 1).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    Once::<u32>::writer(&network, "seed")
        .write(9)
        .await
        .unwrap();
    assert_eq!(waiting.await.unwrap(), 9);
    stuck.abort();
    network.shutdown().await;
}

#[tokio::test]
async fn a_failed_initialiser_leaves_the_cell_to_the_next() {
    let network = network().await;
    let cell = Once::<u32>::writer(&network, "seed");
    let failed = cell.get_or_try_init(async || "x".parse()).await;
    assert!(matches!(failed, Err(InitError::Init(_))));
    assert_eq!(cell.version(), Version::ZERO);
    let value = cell.get_or_try_init(async || "7".parse::<u32>()).await;
    assert_eq!(value.unwrap(), &7);
    let value = cell
        .get_or_try_init(async || Err::<u32, _>("not run"))
        .await;
    assert_eq!(value.unwrap(), &7);
    // Another handle of its own finds the value before it would run its initialiser.
    let other = Once::<u32>::writer(&network, "seed");
    assert_eq!(
        other.get_or_init(async || unreachable!()).await.unwrap(),
        &7
    );
    network.shutdown().await;
}

#[tokio::test]
async fn readers_wait_for_the_value() {
    let network = network().await;
    let reader = Once::<String>::reader(&network, "seed");
    assert_eq!(reader.read_linearizable().await, Ok(None));
    let (waiting, same) = (reader.clone(), reader.clone());
    let waiting = tokio::spawn(async move { waiting.wait().await.cloned() });
    let owned = tokio::spawn(async move { same.await_value().await });
    tokio::task::yield_now().await;
    let writer = Once::<String>::writer(&network, "seed");
    writer.write("genesis".into()).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "genesis");
    assert_eq!(owned.await.unwrap().unwrap(), "genesis");
    assert_eq!(reader.read_linearizable().await, Ok(Some("genesis".into())));
    network.shutdown().await;
}

#[tokio::test]
async fn a_value_that_cannot_be_sent_is_handed_back() {
    let network = network().await;
    let config = OnceConfig::new().value_bytes_max(10);
    let cell = Once::<String>::writer_with_config(&network, "small", config);
    let too_large = EncodeError::TooLarge { bytes_max: 10 };
    let big = "x".repeat(10);
    match cell.write(big.clone()).await {
        Err(Error::Encoding(value, error)) => assert_eq!((value, error), (big.clone(), too_large)),
        other => panic!("{other:?}"),
    }
    let claimed = cell.claim(big).await;
    assert!(matches!(claimed, Err(ClaimError::Encoding(..))));
    assert!(cell.write("x".repeat(9)).await.is_ok());

    let default = Once::<Vec<u8>>::writer(&network, "default");
    let over = default.write(vec![7; 1024 * 1024]).await;
    assert!(matches!(over, Err(Error::Encoding(..))));
    let under = vec![7; 1024 * 1024 - 8];
    default.write(under.clone()).await.unwrap();
    assert_eq!(default.get_ref(), Some(&under));

    let odd = Once::<Odd>::writer(&network, "odd");
    match odd.write(Odd::WillNotEncode).await {
        Err(Error::Encoding(Odd::WillNotEncode, EncodeError::Serialize(reason))) => {
            assert!(reason.contains("the pen is dry"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let init = odd.get_or_init(async || Odd::WillNotEncode).await;
    assert!(matches!(
        init,
        Err(ClaimError::Encoding(Odd::WillNotEncode, _))
    ));
    assert!(odd.is_none());
    odd.write(Odd::Fine).await.unwrap();
    network.shutdown().await;
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_wherever_one_can_be_returned() {
    let network = network().await;
    let config = || OnceConfig::new().type_name("demo.Seed.v1");
    let text = Once::<String>::writer_with_config(&network, "seed", config());
    let number = Once::<(u64, u64)>::writer_with_config(&network, "seed", config());
    assert_eq!(text.group_id(), number.group_id());
    let waiting = number.clone();
    let waiting = tokio::spawn(async move { waiting.await_value().await });
    text.write("not two numbers".into()).await.unwrap();

    assert!(matches!(waiting.await.unwrap(), Err(ReadError::Decode(_))));
    assert!(number.is_some() && !number.is_empty() && !number.is_none());
    assert_eq!(number.read(), None);
    assert_eq!(number.get_ref(), None);
    assert!(number.decision().is_some());
    let linearizable = number.read_linearizable().await;
    assert!(matches!(linearizable, Err(ReadError::Decode(_))));
    assert!(matches!(
        number.claim((1, 2)).await,
        Err(ClaimError::Decode(_))
    ));
    let init = number.get_or_init(async || unreachable!()).await;
    assert!(matches!(init, Err(ClaimError::Decode(_))));
    // A write is acknowledged and ignored, as ever.
    assert!(number.write((1, 2)).await.unwrap() > Version::ZERO);
    assert!(format!("{number:?}").contains("undecodable"));
    network.shutdown().await;
}

#[tokio::test]
async fn a_panic_in_deserialize_is_a_decode_error_and_the_node_lives_on() {
    let network = network().await;
    let odd = Once::<Odd>::writer(&network, "odd");
    // It did win, whatever becomes of reading it.
    assert!(odd.claim(Odd::PanicsOnDecode).await.unwrap().is_won());
    match odd.wait().await {
        Err(ReadError::Decode(error)) => assert!(error.reason.contains("panicked"), "{error}"),
        other => panic!("{other:?}"),
    }
    let version = odd.version();
    assert!(odd.write(Odd::Fine).await.unwrap() > version);
    network.shutdown().await;
}

#[tokio::test]
async fn types_are_cells_of_their_own() {
    let network = network().await;
    let a = Once::<u64>::writer(&network, "x");
    let b = Once::<u32>::writer(&network, "x");
    a.write(1).await.unwrap();
    assert_eq!(b.read_linearizable().await, Ok(None));
    assert_ne!(a.group_id(), b.group_id());
    network.shutdown().await;
}

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
    // Two of three voters never start.
    let network = Network::builder("alone")
        .electorate([
            ("a", "127.0.0.1:0"),
            ("b", "127.0.0.1:1"),
            ("c", "127.0.0.1:2"),
        ])
        .voter("a")
        .in_memory()
        .write_timeout_ms(300)
        .start()
        .await
        .unwrap();
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
async fn a_pending_claim_from_elsewhere_is_a_new_one_here() {
    let alone = Network::builder("alone")
        .electorate([
            ("a", "127.0.0.1:0"),
            ("b", "127.0.0.1:1"),
            ("c", "127.0.0.1:2"),
        ])
        .voter("a")
        .in_memory()
        .write_timeout_ms(50)
        .start()
        .await
        .unwrap();
    let there = Once::<u64>::writer(&alone, "there");
    let Err(ClaimError::Offline(pending)) = there.claim(7).await else {
        panic!("two voters are missing");
    };
    let network = network().await;
    let here = Once::<u64>::writer(&network, "here");
    here.write(7).await.unwrap();
    match here.claim(pending).await.unwrap() {
        Claim::Lost { winner, .. } => assert_eq!(winner, 7),
        won => panic!("the write won, not the claim: {won:?}"),
    }
    alone.shutdown().await;
    network.shutdown().await;
}

#[tokio::test]
async fn no_value_shows_in_debug_output() {
    let network = network().await;
    let cell = Once::<String>::writer(&network, "cell");
    assert!(format!("{cell:?}").contains("empty"));
    cell.write("hunter2".into()).await.unwrap();
    let shown = format!("{cell:?} {:?} {:?}", cell.when(), Pending::from("hunter2"));
    assert!(
        shown.contains("set") && !shown.contains("hunter2"),
        "{shown}"
    );
    network.shutdown().await;
}

#[test]
fn handles_and_futures_go_anywhere() {
    fn goes_anywhere<T: Send + Sync + 'static>() {}
    fn sent<F: Future + Send>(_: &F) {}
    fn kept<F: Future<Output = Observed> + Send + 'static>(_: &F) {}
    goes_anywhere::<OnceWriter<String>>();
    goes_anywhere::<OnceReader<String>>();
    goes_anywhere::<Pending<String>>();
    goes_anywhere::<Error<String>>();
    goes_anywhere::<ClaimError<String>>();
    let _ = |cell: OnceWriter<String>| {
        sent(&cell.write(String::new()));
        sent(&cell.claim(String::new()));
        sent(&cell.get_or_init(async || String::new()));
        sent(&cell.get_or_try_init(async || Ok::<_, ()>(String::new())));
        sent(&cell.wait());
        sent(&cell.await_value());
        sent(&cell.read_linearizable());
        kept(&cell.when().online());
        kept(&cell.when().offline());
        kept(&cell.when().updated());
        kept(&cell.when().reaches(Version::ZERO));
    };
}
