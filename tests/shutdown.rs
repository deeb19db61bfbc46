//! Nothing of a node outlives its shutdown, whoever still holds handles on it.
#![cfg(target_os = "linux")]

mod process;

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use raft_once::{ClaimError, Error, Network, NetworkBuilder, Observed, Once, ReadError};
use tokio::runtime::Handle;

use process::{SECRET, alone, free_addr, until_async, within};

/// What the open files of this process are called.
fn open_files() -> Vec<String> {
    let fds = fs::read_dir("/proc/self/fd").expect("there is /proc");
    // One that is closed meanwhile has no name.
    let names = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    names.map(|name| name.display().to_string()).collect()
}

fn files_below(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("UTF-8");
    let below = open_files()
        .into_iter()
        .filter(|name| name.starts_with(dir));
    below.collect()
}

/// Whether this process has a socket at that address.
fn has_socket(addr: SocketAddr) -> bool {
    let port = format!(":{:04X}", addr.port());
    let table = fs::read_to_string("/proc/self/net/udp").expect("there is /proc");
    let inodes: BTreeSet<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(1).is_some_and(|local| local.ends_with(&port)))
        .map(|words| format!("socket:[{}]", words[9]))
        .collect();
    open_files().iter().any(|name| inodes.contains(name))
}

/// The names of all threads.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("there is /proc");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let mut names: Vec<_> = names.map(|name| name.trim().to_string()).collect();
    names.sort();
    names
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Three voters in this process, the first of which is the one to look at.
async fn three(dir: &Path) -> ([Network; 3], NetworkBuilder) {
    let voters = ["a", "b", "c"].map(|name| (name, free_addr()));
    let builder = Network::builder("ending")
        .electorate(voters)
        .secret(SECRET)
        .write_timeout_ms(30_000);
    let start = async |name: &str| {
        let builder = builder.clone().voter(name).data_dir(dir.join(name));
        within("the start", builder.start()).await.unwrap()
    };
    let nodes = [start("a").await, start("b").await, start("c").await];
    for node in &nodes {
        until_async("all are linked", || {
            node.status().voters.iter().all(|v| v.linked)
        })
        .await;
    }
    let builder = builder.voter("a").data_dir(dir.join("a"));
    (nodes, builder)
}

#[test]
fn no_task_thread_socket_or_file_outlives_shutdown() {
    if !alone("no_task_thread_socket_or_file_outlives_shutdown") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // What is made once per process is made before anything is counted.
        let warm = Network::new("warm").await.unwrap();
        Once::<u64>::writer(&warm, "cell").write(1).await.unwrap();
        warm.shutdown().await;
        drop(warm);
        until_async("the tasks of the first node end", || tasks() == 0).await;
        let (tasks_before, threads_before) = (tasks(), threads().len());

        let dir = tempfile::tempdir().unwrap();
        let (nodes, _) = three(dir.path()).await;
        let observer = within("joining", Network::join(nodes[0].ticket()))
            .await
            .unwrap();
        let addrs: Vec<_> = nodes
            .iter()
            .chain([&observer])
            .map(|n| n.local_addr())
            .collect();
        let mut held = Vec::new();
        for (at, node) in nodes.iter().chain([&observer]).enumerate() {
            for cell in 0..8_u64 {
                let cell = Once::<u64>::writer(node, format!("cell-{cell}"));
                let written = within("a write", cell.write(at as u64)).await;
                written.unwrap();
                held.push(cell);
            }
        }
        assert!(tasks() > tasks_before && threads().len() > threads_before);
        assert!(!files_below(dir.path()).is_empty());
        assert!(addrs.iter().all(|addr| has_socket(*addr)));

        for (node, addr) in nodes.iter().chain([&observer]).zip(&addrs) {
            within("the shutdown", node.shutdown()).await;
            // At once, not some time later.
            assert!(!has_socket(*addr), "the socket at {addr} outlives shutdown");
            UdpSocket::bind(addr).unwrap_or_else(|error| panic!("{addr}: {error}"));
        }
        let left = files_below(dir.path());
        assert!(left.is_empty(), "files outlive shutdown: {left:?}");
        let left = threads();
        assert!(
            !left.iter().any(|name| name.starts_with("once-")),
            "{left:?}"
        );
        let mut last = 0;
        until_async(
            format!("all tasks end; before there were {tasks_before}"),
            || {
                if std::mem::replace(&mut last, tasks()) != tasks() {
                    println!("{} tasks", tasks());
                }
                tasks() <= tasks_before
            },
        )
        .await;
        // Idle blocking threads of tokio end after a while.
        until_async(
            format!("all threads end; before there were {threads_before}"),
            || threads().len() <= threads_before,
        )
        .await;
        assert_eq!(held[0].read(), held[8].read());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn port_and_disk_are_free_the_moment_shutdown_returns() {
    let dir = tempfile::tempdir().unwrap();
    let (nodes, builder) = three(dir.path()).await;
    let cell = Once::<u64>::writer(&nodes[0], "cell");
    within("a write", cell.write(42)).await.unwrap();
    let addr = nodes[0].local_addr();
    within("the shutdown", nodes[0].shutdown()).await;

    let below = dir.path().join("a");
    let left = files_below(&below);
    assert!(left.is_empty(), "files outlive shutdown: {left:?}");
    assert!(!has_socket(addr));
    drop(UdpSocket::bind(addr).unwrap());
    let again = within("the start", builder.start()).await.unwrap();
    assert_eq!(again.local_addr(), addr);
    let there = Once::<u64>::reader(&again, "cell");
    assert_eq!(within("the value", there.await_value()).await, Ok(42));
    assert_eq!(cell.read(), Some(42));
    for node in [&again, &nodes[1], &nodes[2]] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_with_everybody_else_gone_returns_and_frees_all() {
    let dir = tempfile::tempdir().unwrap();
    let (nodes, builder) = three(dir.path()).await;
    let cell = Once::<u64>::writer(&nodes[0], "cell");
    within("a write", cell.write(42)).await.unwrap();
    // All at once: nobody is left to hand anything over to.
    let all = futures::future::join_all(nodes.iter().map(|node| node.shutdown()));
    within("the shutdowns", all).await;
    let left = files_below(dir.path());
    assert!(left.is_empty(), "files outlive shutdown: {left:?}");
    let again = within("the start", builder.start()).await.unwrap();
    within("the shutdown", again.shutdown()).await;
    // Twice, and from two tasks at once, does no harm.
    let clone = again.clone();
    within(
        "the shutdown",
        futures::future::join(again.shutdown(), clone.shutdown()),
    )
    .await;
}

#[test]
fn a_network_that_is_only_dropped_ends_too() {
    if !alone("a_network_that_is_only_dropped_ends_too") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let before = tasks();
        let (nodes, builder) = three(dir.path()).await;
        let addrs: Vec<_> = nodes.iter().map(|node| node.local_addr()).collect();
        let cell = Once::<u64>::writer(&nodes[0], "cell");
        within("a write", cell.write(42)).await.unwrap();

        let [first, second, third] = nodes;
        // The cell alone keeps the first node.
        drop(first);
        let other = Once::<u64>::writer(&second, "other");
        within("a write", other.write(1)).await.unwrap();
        assert!(has_socket(addrs[0]));
        drop((cell, other, second, third));

        for addr in &addrs {
            until_async(format!("the socket at {addr} is closed"), || {
                !has_socket(*addr)
            })
            .await;
        }
        until_async("the files are closed", || {
            files_below(dir.path()).is_empty()
        })
        .await;
        until_async("the store threads end", || {
            !threads().iter().any(|name| name.starts_with("once-"))
        })
        .await;
        until_async(format!("all tasks end; before there were {before}"), || {
            tasks() <= before
        })
        .await;
        let again = within("the start", builder.start()).await.unwrap();
        again.shutdown().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_shutdown_reads_answer_and_nothing_else_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let (nodes, _) = three(dir.path()).await;
    let observer = within("joining", Network::join(nodes[0].ticket()))
        .await
        .unwrap();
    for node in [&observer, &nodes[0]] {
        let set = Once::<u64>::writer(node, "set");
        let empty = Once::<u64>::writer(node, "empty");
        within("a write", set.write(42)).await.unwrap();
        let waiting = empty.clone();
        let waiting = tokio::spawn(async move { waiting.await_value().await });
        let updated = tokio::spawn(empty.when().updated());
        tokio::task::yield_now().await;
        within("the shutdown", node.shutdown()).await;

        let ended = within("a wait that was under way", waiting).await.unwrap();
        assert_eq!(ended, Err(ReadError::NetworkDown));
        assert_eq!(
            within("an observer", updated).await.unwrap(),
            Observed::NetworkDown
        );
        within("everything after shutdown", async {
            assert_eq!(set.read(), Some(42));
            assert_eq!(set.wait().await, Ok(&42));
            assert_eq!(set.read_linearizable().await, Ok(Some(42)));
            assert!(set.decision().is_some() && empty.read().is_none());
            for cell in [&set, &empty] {
                assert!(matches!(cell.write(1).await, Err(Error::NetworkDown)));
                assert!(matches!(cell.claim(1).await, Err(ClaimError::NetworkDown)));
                assert_eq!(cell.when().online().await, Observed::NetworkDown);
            }
            assert_eq!(empty.wait().await, Err(ReadError::NetworkDown));
            assert_eq!(empty.read_linearizable().await, Err(ReadError::NetworkDown));
            let init = empty
                .get_or_init(async || unreachable!("run after shutdown"))
                .await;
            assert!(matches!(init, Err(ClaimError::NetworkDown)));
            assert_eq!(set.get_or_init(async || unreachable!()).await.unwrap(), &42);
            let late = Once::<u64>::writer(node, "late");
            assert_eq!(late.wait().await, Err(ReadError::NetworkDown));
            assert!(matches!(late.write(1).await, Err(Error::NetworkDown)));
        })
        .await;
        let text = Error::<u64>::NetworkDown.to_string();
        assert!(text.contains("start a new one"), "{text}");
        // Status still answers.
        assert_eq!(node.status().network, "ending");
    }
    nodes[1].shutdown().await;
    nodes[2].shutdown().await;
}
