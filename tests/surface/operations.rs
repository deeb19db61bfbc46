//! Opening, reading, writing and observing.

use raft_once::{
    ClaimError, Error, GroupId, Observed, Once, OnceConfig, OnceReader, OnceWriter, Pending,
    StoreId, Version,
};

use crate::{Failure, network};

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
