//! Write-once cells that a whole cluster shares.
//!
//! A [`Once<T>`] is to a cluster what `tokio::sync::OnceCell` is to a process: the first value that
//! is committed wins and stays, for good, through crashes, restarts and partitions. Each cell is a
//! small Raft group of its own, whose log is kept by the network's one, three or five *voters*;
//! any number of other nodes, *observers*, read and write it through them. A cell that nobody is
//! writing costs no message, no timer and no thread.
//!
//! An [`OnceMap<K, V>`] is a map of such cells in one group, for many small decisions of one kind. A
//! [`task`] is an action that one process of the cluster starts.
//!
//! # Quick start
//!
//! One node, alone, in memory. This is all a test needs:
//!
//! ```
//! use raft_once::{Network, Once};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let network = Network::new("demo").await?;
//!     let seed = Once::<String>::writer(&network, "config-seed");
//!
//!     seed.write("genesis".into()).await?;
//!     seed.write("overwrite attempt".into()).await?; // Ok, and ignored
//!
//!     assert_eq!(seed.read(), Some("genesis".into()));
//!     network.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! Three voters on three machines: the same program with the same list and secret everywhere, only
//! the voter's name differs. Any further node leaves `.voter` and `.data_dir` out, or has only a
//! [`Ticket`]:
//!
//! ```no_run
//! use raft_once::{Network, Once, Secret};
//!
//! # async fn run(ticket: raft_once::Ticket) -> Result<(), Box<dyn std::error::Error>> {
//! let secret = Secret::try_from(std::env::var("ORDERS_SECRET")?)?;
//! let network = Network::builder("orders")
//!     .electorate([("a", "10.0.0.1:7400"), ("b", "10.0.0.2:7400"), ("c", "10.0.0.3:7400")])
//!     .voter("a")
//!     .secret(secret)
//!     .data_dir("/var/lib/orders/raft-once")
//!     .start()
//!     .await?;
//! let leader = Once::<String>::writer(&network, "leader");
//!
//! // Elsewhere, with nothing but a ticket:
//! let observer = Network::join(ticket).await?;
//! let leader_there = Once::<String>::reader(&observer, "leader");
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! * **Agreement** (P1): no two reads of one cell, anywhere, ever, return different values.
//! * **Validity** (P2): the value is one that some writer offered, whole.
//! * **Stability** (P3): an acknowledged value is never lost or changed while a majority of the
//!   voters keep their disks.
//! * **One winner** (P4): a [`claim`](Once::claim) that is told [`Claim::Won`] did win; at most one
//!   ever is told so; a retry of the same [`Pending`] gets the same answer.
//! * **Reads** (P5): [`read`](Once::read) that returns `Some` is linearizable, with no network at
//!   all. `None` may be stale; that of [`read_linearizable`](Once::read_linearizable) never is.
//! * **Progress** (P6): with a majority of the voters up and connected, writes finish. Otherwise
//!   they end within the write timeout, and hand the value back.
//! * **Quiet** (P7): a cell that nobody is writing costs no message, no timer and no thread.
//! * **Closed** (P8): who does not hold the network's secret, or a ticket made from it, can neither
//!   read nor write; only voters vote; malformed bytes neither crash a node nor exhaust its memory.
//! * **At most once** (P9): an action that is started only by whoever was told `Won` is started by
//!   at most one process, ever; one that is run as a [`task`], by one in each of its generations.
//!
//! The first five hold under any crash, restart, partition, loss, duplication, reordering, delay,
//! pause and clock jump, and when disk writes that were not synced vanish or tear.
//!
//! What is **not** promised:
//!
//! * *Exactly once.* A winner can crash before it has done anything; then nobody does it. No
//!   library can promise that an action outside of it completes exactly once.
//! * *A lock.* Nothing is renewed, nothing expires, nothing is released.
//! * *Safety from holders of the secret.* They are trusted; this is not Byzantine consensus.
//! * *Safety from disks that go back in time* where nobody else remembers better. A wiped, restored
//!   or cloned disk is detected and refused if a peer knows. An electorate of one has no peers.
//!
//! # Recipes
//!
//! ## A genesis config: all nodes start with the same one
//!
//! Each node offers its own; whichever is committed first is everyone's.
//!
//! ```
//! # use raft_once::{Network, Once, OnceConfig};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! struct Genesis {
//!     chain: String,
//!     shards: u32,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = Network::new("demo").await?;
//! // The name keeps the cell the same when the type moves or the compiler changes.
//! let config = OnceConfig::new().type_name("orders.Genesis.v1");
//! let cell = Once::<Genesis>::writer_with_config(&network, "genesis", config);
//!
//! let mine = Genesis { chain: "main".into(), shards: 16 };
//! let genesis: &Genesis = cell.get_or_init(async || mine).await?;
//! assert_eq!(genesis.shards, 16);
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! ## A cluster seed: made once, the same everywhere
//!
//! The initialiser runs only where the cell is found empty. On several nodes it may run at the same
//! time, but all of them return the one value that won.
//!
//! ```
//! # use raft_once::{Network, Once};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = Network::new("demo").await?;
//! # async fn fresh_seed() -> Result<u64, std::io::Error> { Ok(42) }
//! let cell = Once::<u64>::writer(&network, "cluster-seed");
//! let seed = *cell.get_or_try_init(fresh_seed).await?;
//! # assert_eq!(seed, 42);
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! ## Initialising something with exactly one winner
//!
//! Where even the *attempt* must not happen twice, claim first, act after.
//!
//! ```
//! # use raft_once::{Claim, Network, Once};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = Network::new("demo").await?;
//! # async fn create_the_tables() {}
//! let migration = Once::<String>::writer(&network, "migration-7");
//! match migration.claim("host-a".to_string()).await? {
//!     Claim::Won(_) => create_the_tables().await, // in this process only, or, if it dies, nowhere
//!     Claim::Lost { winner, .. } => println!("{winner} does it"),
//! }
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! ## A leader per term
//!
//! A cell is one term: to replace a leader, go on to the next cell. The version at which a claim
//! won is a fencing token within its cell; across terms, fence by the term.
//!
//! ```
//! # use raft_once::{Network, Once};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = Network::new("demo").await?;
//! # let term = 7;
//! let slot = Once::<String>::writer(&network, format!("leader/{term}"));
//! if slot.claim("host-a".to_string()).await?.is_won() {
//!     println!("this node leads term {term}");
//! }
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! ## Waiting for a value on an observer
//!
//! Waiting costs nothing until the value is there.
//!
//! ```
//! # use raft_once::{Network, Once};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = Network::new("demo").await?;
//! let observer = Network::join(network.ticket()).await?;
//! let there = Once::<String>::reader(&observer, "config-seed");
//! let waiting = tokio::spawn(async move { there.await_value().await });
//!
//! let here = Once::<String>::writer(&network, "config-seed");
//! here.write("genesis".into()).await?;
//! assert_eq!(waiting.await??, "genesis");
//! # observer.shutdown().await;
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! ## Retrying a claim
//!
//! A claim that cannot be confirmed in time may still win. [`ClaimError::Offline`] hands a
//! [`Pending`] back; claiming with it asks again about the *same* proposal, so that a claim that
//! won learns it, however late.
//!
//! ```
//! # use raft_once::{Network, Once};
//! use raft_once::{ClaimError, Pending};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = Network::new("demo").await?;
//! let slot = Once::<String>::writer(&network, "leader");
//! let mut pending = Pending::from("host-a".to_string());
//! let claim = loop {
//!     match slot.claim(pending).await {
//!         Err(ClaimError::Offline(same)) => pending = same,
//!         answer => break answer?,
//!     }
//! };
//! assert!(claim.is_won());
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Questions
//!
//! **Is it a lock?** No. A lock is released; a cell is decided for ever. Nothing is renewed and
//! nothing expires, so a paused process cannot lose a cell that it won, and a dead one cannot give
//! it back.
//!
//! **What if the winner crashes after claiming?** The cell stays decided, and names it
//! ([`Once::decision`]). Whether its action happened, only the action's own traces can tell. Let the
//! value say who won, and let somebody decide: go on to another cell (`"job/2"`), or repair by
//! hand.
//!
//! **Why must all voters be up at the first start?** A voter with an empty disk may be new, or
//! one that has lost its disk, and with it votes that it gave. Only the others know which; so each
//! of them is asked once. From then on a majority is enough. [`Network::status`] says whom a voter
//! waits for.
//!
//! **How many voters?** Three: one may be down. Five: two may be down, and writes are a little
//! slower. One is for tests and for a single machine: there is nobody to notice a lost disk. More
//! readers need no more voters: let them be observers.
//!
//! **Can I change a value?** No. Not with a majority, not with the secret. Put a version into the
//! id (`"config/2"`), or keep what changes elsewhere and its address here.
//!
//! **What is the `type_name` about?** A cell's identity is its id *and* the name of its value type,
//! by default the compiler's: `my_crate::config::Genesis`. Move or rename the type, or build with
//! another compiler that spells it differently, and the new build opens a new, empty cell. In a
//! rolling upgrade that is **two cells and two winners**. Set [`OnceConfig::type_name`] for every
//! cell that outlives one build.
//!
//! **Two types with one id?** Two cells, that know nothing of each other; unless both are given the
//! same `type_name`. Then they are one, and whoever cannot decode the other's value gets a
//! [`DecodeError`].
//!
//! **What does `None` mean?** That no value is known *here, now*. The cell may be empty; the value
//! may be on its way; or there is one that this node cannot decode ([`Once::is_some`] is true then).
//!
//! **Is `read()` linearizable?** If it returns `Some`, yes: the value is final, so that no later
//! read anywhere returns another one. `None` is not. Where a `None` decides something, use
//! [`Once::read_linearizable`].
//!
//! **What happens at 1 MiB?** A value that takes more than [`OnceConfig::value_bytes_max`] bytes
//! when encoded is refused before anything is sent, and handed back with
//! [`EncodeError::TooLarge`]. The limit can be set up to 16 MiB; but cells are for small values.
//!
//! # Logging
//!
//! Events go to [`tracing`](https://docs.rs/tracing), to the subscriber that is in force when the
//! node starts. At `info` nothing is said while all is well; a voter whose link is lost or that is
//! refused is a warning or an error. At `raft_once=debug` a proposal can be followed through the
//! nodes by its group and its id: `proposed`, `asked to commit`, `applied`, `committed`. The targets
//! are the parts of the library: `raft_once::network` (who is admitted, refused and linked),
//! `raft_once::group` (proposals and replicas), `raft_once::once` (values that cannot be decoded).
//! The consensus library underneath logs as `openraft`, and below `debug` only its errors pass.
//! Values and secrets are never logged.
//!
//! # Figures
//!
//! What a node has done, has now and has refused is in [`Network::status`] as [`Figures`], and goes to
//! the [`metrics`](https://docs.rs/metrics) facade with the labels `network` and `node`: to the recorder
//! that is in force when the node starts, so install yours before. The operations manual lists the
//! series, and what to raise an alarm on. How much a voter may be made to keep is set by [`Limits`].

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod codec;
mod failpoint;
#[cfg(any(test, all(fuzzing, feature = "testing")))]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod id;
#[cfg(feature = "jobs")]
pub mod job;
mod limits;
mod machine;
mod map;
mod metrics;
mod network;
mod once;
mod probe;
#[cfg(test)]
mod simulation;
mod store;
pub mod task;
mod transport;

pub use codec::{DecodeError, EncodeError};
pub use id::{GroupId, NodeId, StoreId, UniqueId, Version};
pub use limits::Limits;
pub use map::{Change, Changes, Entries, MapKey, OnceMap, OnceMapReader, OnceMapWriter};
pub use metrics::{Distribution, Figures};
pub use network::{
    CellStatus, ElectorateError, Network, NetworkBuilder, NetworkError, NetworkStatus, Role,
    Secret, SecretError, Ticket, TicketError, VoterStatus,
};
pub use once::{
    Claim, ClaimError, Decision, Error, InitError, Observed, Once, OnceConfig, OnceReader,
    OnceWriter, Pending, READER, ReadError, WRITER, When,
};

/// For tests of services built on this crate: a simulated network, [`SimNet`](testing::SimNet), and
/// a record of what clients did and saw, [`History`](testing::History), which says whether the
/// cells kept their promises. Needs the feature `testing`.
///
/// Nodes are put on the network with [`NetworkBuilder::simulated`] and
/// [`Network::join_simulated`]. No socket is opened, the address that a node binds is its name on
/// the net, and time is tokio's: in a test with a paused clock minutes pass in milliseconds.
///
/// ```
/// use raft_once::testing::SimNet;
/// use raft_once::{Network, Once};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let net = SimNet::new(7);
/// let voter = Network::builder("demo")
///     .electorate([("a", "127.0.0.1:100")])
///     .voter("a")
///     .in_memory()
///     .simulated(&net)
///     .start()
///     .await?;
/// let observer = Network::join_simulated(voter.ticket(), &net).await?;
///
/// Once::<u64>::writer(&voter, "seed").write(42).await?;
/// let there = Once::<u64>::reader(&observer, "seed");
/// assert_eq!(there.await_value().await?, 42);
///
/// net.cut(voter.local_addr(), observer.local_addr());
/// assert_eq!(there.read(), Some(42));
/// # Ok(()) }
/// ```
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    mod check;
    #[cfg(test)]
    mod check_tests;
    #[cfg(test)]
    mod cross_check;
    mod history;
    mod linear;
    mod lines;
    #[cfg(test)]
    mod lines_tests;
    mod operation;
    mod versions;
    mod violation;
    #[cfg(test)]
    pub(crate) mod witness;

    pub use self::check::Checked;
    pub use self::history::{History, OpId};
    pub use self::lines::LineError;
    pub use self::operation::{Call, Outcome};
    pub use self::violation::Violation;
    /// The variable that has a process die at a failpoint: `name:count`, the `count`th time that
    /// it comes to the failpoint `name`.
    pub use crate::failpoint::ENV as FAILPOINT_ENV;
    /// The failpoints, for tests that kill processes: around every step that makes something
    /// durable, and around every message.
    pub use crate::failpoint::NAMES as FAILPOINTS;
    pub use crate::transport::sim::{SimCounts, SimNet};
}
