//! What a cell costs, beside what the machine itself costs, in one run: compare figures of one
//! run only.
//!
//! `cargo bench --bench once`. `s` is `machine/append_fdatasync`, `r` is
//! `machine/quic_round_trip`: a warm durable write is one round trip beside one sync, done twice.

#![allow(
    missing_docs,
    reason = "criterion_group! makes an undocumented function"
)]

use std::hint::black_box;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iroh::endpoint::{Connection, Endpoint, presets};
use iroh::{EndpointAddr, RelayMode};
use raft_once::{Network, Once, Version};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const VALUE: [u8; 200] = [7; 200];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// On the disk that the project is built on: a memory file system would flatter.
fn temp_dir() -> TempDir {
    tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).expect("a temporary directory")
}

fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").port()
}

/// Three voters with disks and an observer, in this process, over QUIC on loopback.
struct Cluster {
    voters: Vec<Network>,
    observer: Network,
    _dirs: Vec<TempDir>,
}

impl Cluster {
    async fn start() -> Self {
        let names = ["a", "b", "c"];
        let electorate = names.map(|name| (name, format!("127.0.0.1:{}", free_port())));
        let dirs: Vec<_> = names.iter().map(|_| temp_dir()).collect();
        let mut voters = Vec::new();
        for (name, dir) in names.iter().zip(&dirs) {
            let voter = Network::builder("bench")
                .electorate(electorate.clone())
                .voter(*name)
                .data_dir(dir.path())
                .start();
            voters.push(voter.await.expect("a voter"));
        }
        let observer = Network::join(voters[0].ticket())
            .await
            .expect("an observer");
        let cluster = Self {
            voters,
            observer,
            _dirs: dirs,
        };
        for node in cluster.nodes() {
            let cell = Once::<u8>::reader(node, "ready");
            cell.when().online().await;
        }
        cluster
    }

    fn nodes(&self) -> impl Iterator<Item = &Network> {
        self.voters.iter().chain([&self.observer])
    }

    /// The voters, the leader of `cell` first.
    fn leader_first(&self, cell: &Once<Vec<u8>>) -> Vec<&Network> {
        let leader = |network: &&Network| {
            let status = network.status();
            let cells = status.cells.iter();
            cells
                .filter(|status| status.group == cell.group_id())
                .any(|cell| cell.leader == Some(status.node_id))
        };
        let mut voters: Vec<&Network> = self.voters.iter().collect();
        voters.sort_by_key(|network| !leader(network));
        voters
    }

    async fn stop(self) {
        self.observer.shutdown().await;
        for voter in &self.voters {
            voter.shutdown().await;
        }
    }
}

fn machine(c: &mut Criterion) {
    let mut group = c.benchmark_group("machine");
    let dir = temp_dir();
    let mut file = std::fs::File::create(dir.path().join("log")).expect("a file");
    group.bench_function("append_fdatasync", |b| {
        b.iter(|| {
            file.write_all(&VALUE).expect("append");
            file.sync_data().expect("sync");
        });
    });
    let runtime = runtime();
    let (connection, _ends) = runtime.block_on(connect());
    group.bench_function("quic_round_trip", |b| {
        b.to_async(&runtime).iter(|| round_trip(&connection));
    });
    group.finish();
}

/// Two endpoints on loopback, one of which answers each stream with what it got.
async fn connect() -> (Connection, (Endpoint, Endpoint)) {
    const ALPN: &[u8] = b"raft-once/bench";
    let endpoint = || async {
        Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .clear_address_lookup()
            .alpns(vec![ALPN.to_vec()])
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")
            .expect("an address")
            .bind()
            .await
            .expect("an endpoint")
    };
    let (client, server) = (endpoint().await, endpoint().await);
    let addr = EndpointAddr::new(server.id()).with_ip_addr(server.bound_sockets()[0]);
    let serving = server.clone();
    tokio::spawn(async move {
        let incoming = serving.accept().await.expect("a connection");
        let connection = incoming.await.expect("a handshake");
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            tokio::spawn(async move {
                let request = receive.read_to_end(1024).await.expect("a request");
                send.write_all(&request).await.expect("a reply");
                send.finish().expect("an open stream");
            });
        }
    });
    let connection = client.connect(addr, ALPN).await.expect("connected");
    (connection, (client, server))
}

async fn round_trip(connection: &Connection) {
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    send.write_all(&VALUE).await.expect("sent");
    send.finish().expect("an open stream");
    receive.read_to_end(1024).await.expect("a reply");
}

fn read(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("read");
    let network = runtime.block_on(Network::new("bench")).expect("a network");
    let cell = Once::<u64>::writer(&network, "read");
    runtime.block_on(cell.write(42)).expect("written");
    let tokio_cell = Arc::new(tokio::sync::OnceCell::new_with(Some(42_u64)));
    group.bench_function("arc_tokio_once_cell_get", |b| {
        b.iter(|| black_box(&tokio_cell).get().copied());
    });
    group.bench_function("get_ref", |b| {
        b.iter(|| black_box(&cell).get_ref().copied())
    });
    group.bench_function("read", |b| b.iter(|| black_box(&cell).read()));
    group.finish();
    drop(cell);
    runtime.block_on(network.shutdown());
}

fn write(c: &mut Criterion) {
    let runtime = runtime();
    let cluster = runtime.block_on(Cluster::start());
    let cell = Once::<Vec<u8>>::writer(&cluster.voters[0], "warm");
    runtime
        .block_on(cell.write(VALUE.to_vec()))
        .expect("written");
    let voters = cluster.leader_first(&cell);

    let mut group = c.benchmark_group("durable_write");
    for (name, node) in [
        ("leader", voters[0]),
        ("other_voter", voters[1]),
        ("observer", &cluster.observer),
    ] {
        let cell = Once::<Vec<u8>>::writer(node, "warm");
        runtime.block_on(cell.wait()).expect("known");
        group.bench_function(name, |b| {
            b.to_async(&runtime)
                .iter(|| async { cell.write(VALUE.to_vec()).await.expect("written") });
        });
    }
    // 64 writers, each with one write in flight.
    let cell = Once::<Vec<u8>>::writer(voters[0], "warm");
    group.throughput(Throughput::Elements(1));
    group.bench_function("64_writers_of_one_cell", |b| {
        b.to_async(&runtime)
            .iter_custom(|writes| write_from_many(cell.clone(), 64, writes));
    });
    group.finish();
    drop(cell);

    let mut group = c.benchmark_group("cell");
    let names = AtomicU64::new(0);
    let fresh = || format!("fresh-{}", names.fetch_add(1, Ordering::Relaxed));
    // Every cell keeps its replicas awake: a bounded number of them.
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2));
    group.bench_function("open_to_online", |b| {
        b.to_async(&runtime).iter(|| async {
            let cell = Once::<u64>::reader(&cluster.voters[1], fresh());
            cell.when().online().await;
        });
    });
    group.bench_function("open_to_online_observer", |b| {
        b.to_async(&runtime).iter(|| async {
            let cell = Once::<u64>::reader(&cluster.observer, fresh());
            cell.when().online().await;
        });
    });
    group.bench_function("fresh_cell_decided", |b| {
        b.to_async(&runtime).iter(|| async {
            let cell = Once::<u64>::writer(&cluster.voters[1], fresh());
            cell.write(42).await.expect("written")
        });
    });
    group.finish();
    runtime.block_on(cluster.stop());
}

async fn write_from_many(cell: Once<Vec<u8>>, writers: u64, writes: u64) -> Duration {
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|n| {
            let cell = cell.clone();
            let share = writes / writers + u64::from(n < writes % writers);
            tokio::spawn(async move {
                let mut last = Version::ZERO;
                for _ in 0..share {
                    last = cell.write(VALUE.to_vec()).await.expect("written");
                }
                last
            })
        })
        .collect();
    for task in tasks {
        black_box(task.await.expect("a writer"));
    }
    start.elapsed()
}

criterion_group!(benches, machine, read, write);
criterion_main!(benches);
