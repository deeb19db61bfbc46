//! What arrives at the port of a node must not hurt it: real nodes on 127.0.0.1 and peers that
//! keep to no rule. After each attack the node works and nothing of the attacker is left.

mod admission;
mod floods;
mod memory;
mod requests;

use std::net::SocketAddr;
use std::time::Duration;

use super::electorate::Electorate;
use super::hello::{Admitted, Confirm, Hello, Terms, Welcome, answer_from_bytes};
use super::links::SEQUENCE_BYTES;
use super::proof::{AdmissionKeys, Binding, Kind};
use super::refusal::Refusal;
use super::{Network, Secret};
use crate::group::Scope;
use crate::group::wire::{Batch, Body, Many, Request, Response, Wish};
use crate::id::{GroupId, NodeId, ProposalId};
use crate::machine::{Command, Proposal};
use crate::once::{Claim, ClaimError, Once, Pending};
use crate::transport::PeerKey;
use crate::transport::raw::Raw;

const NETWORK: &str = "hostile";
const SECRET: &str = "a secret that no attacker knows";
const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long anything may take. Nothing here asserts on speed: this only ends a hanging test.
const DEADLINE: Duration = Duration::from_secs(60);

async fn within<T>(awaited: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(done) => done,
        Err(_) => panic!("in vain awaited: {awaited}"),
    }
}

async fn until(awaited: &str, mut reached: impl FnMut() -> bool) {
    within(awaited, async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn secret() -> Secret {
    Secret::try_from(SECRET).unwrap()
}

/// A node that is attacked.
struct Victim {
    network: Network,
    electorate: Electorate,
    /// Tasks that it has while nobody is linked.
    tasks: usize,
}

impl Victim {
    /// A voter that decides alone.
    async fn alone() -> Self {
        Self::start("a", &[("a".into(), "127.0.0.1:0".into())]).await
    }

    async fn start(name: &str, voters: &[(String, String)]) -> Self {
        let started = Network::builder(NETWORK)
            .electorate(voters.to_vec())
            .voter(name)
            .secret(secret())
            .in_memory()
            .start();
        let network = started.await.unwrap();
        let tasks = network.node.links.tasks.len();
        Self {
            network,
            electorate: Electorate::new(voters.to_vec()).unwrap(),
            tasks,
        }
    }

    fn key(&self) -> PeerKey {
        self.network.node.links.transport.local_key()
    }

    fn addr(&self) -> SocketAddr {
        self.network.local_addr()
    }

    /// What holders of these keys agree to with this node.
    fn terms(&self, keys: AdmissionKeys) -> Terms {
        Terms::new(keys, 0, NETWORK, &self.electorate)
    }

    /// What a holder of a ticket knows.
    fn observer_terms(&self) -> Terms {
        self.terms(AdmissionKeys::of_observer_key(
            secret().observer_key(NETWORK),
        ))
    }

    /// What a holder of the secret knows.
    fn voter_terms(&self) -> Terms {
        self.terms(AdmissionKeys::of_secret(&secret(), NETWORK))
    }

    async fn dial(&self, seed: [u8; 32]) -> Raw {
        within("a connection", Raw::dial(seed, self.key(), self.addr())).await
    }

    fn binding(&self, raw: &Raw) -> Binding {
        Binding {
            exported: raw.binding(),
            dialer: raw.key().0,
            acceptor: self.key().0,
        }
    }

    /// The hello of an observer.
    fn hello(&self, raw: &Raw) -> Hello {
        let binding = self.binding(raw);
        Hello::new(&self.observer_terms(), Kind::Observer, &binding, None, None).unwrap()
    }

    /// A peer that was admitted as an observer and from then on keeps to no rule.
    async fn observer(&self, seed: [u8; 32]) -> Raw {
        let raw = self.dial(seed).await;
        self.admit(&raw).await;
        raw
    }

    async fn admit(&self, raw: &Raw) {
        let welcome = welcome(raw, &self.hello(raw).to_bytes()).await;
        let welcome = welcome.expect("an observer is welcome");
        let checked = welcome.check(&self.observer_terms(), Kind::Observer, &self.binding(raw));
        checked.unwrap();
        let admitted = confirm(raw).await;
        assert_eq!(admitted, Ok(Admitted));
    }

    /// How many replicas are awake: each has a task of its own, and all together have another.
    fn awake(&self) -> usize {
        let groups = self.network.directory().status();
        let awake = groups.iter().filter(|group| group.awake).count();
        awake + usize::from(awake > 0)
    }

    fn unadmitted(&self) -> [usize; 2] {
        [false, true].map(|is_voter| self.network.node.links.unadmitted(is_voter).len())
    }

    /// Nothing of any peer is left.
    async fn is_alone(&self) {
        let links = &self.network.node.links;
        until("no connection, budget or task is left", || {
            self.unadmitted() == [0, 0]
                && links.linked().is_empty()
                && links.budgets.observers.used() == 0
                && self.network.directory().proposed.used() == 0
                && links.tasks.len() <= self.tasks + self.awake()
        })
        .await;
    }

    /// An honest node joins by the ticket and wins a claim on a new cell.
    async fn works(&self) {
        let honest = Network::join(self.network.ticket()).await.unwrap();
        self.serves(&honest).await;
        honest.shutdown().await;
    }

    async fn serves(&self, honest: &Network) {
        let id = format!("cell {}", rand::random::<u64>());
        let cell = Once::<u64>::writer(honest, id.as_str());
        within("a claim of an honest node", async {
            let mut pending = Pending::from(7);
            loop {
                pending = match cell.claim(pending).await {
                    Ok(claim) => break assert!(matches!(claim, Claim::Won(_)), "{claim:?}"),
                    Err(ClaimError::Offline(pending)) => pending,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
    }

    /// It works, and ends as it began.
    async fn survived(self) {
        self.works().await;
        self.is_alone().await;
        self.network.shutdown().await;
    }
}

async fn welcome(raw: &Raw, hello: &[u8]) -> Result<Welcome, Refusal> {
    let answer = within("an answer", raw.request(hello)).await.unwrap();
    answer_from_bytes(&answer).unwrap()
}

async fn confirm(raw: &Raw) -> Result<Admitted, Refusal> {
    let confirm = Confirm {
        sequence: 0,
        boots: None,
    };
    let answer = within("an answer", raw.request(&confirm.to_bytes())).await;
    answer_from_bytes(&answer.unwrap()).unwrap()
}

fn group(n: u64) -> GroupId {
    GroupId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn command(n: u8, bytes: usize) -> Command {
    let value = vec![n; bytes];
    Command::Set {
        slot: vec![],
        proposal: Proposal {
            id: ProposalId::new([n; 16], NodeId::from_u64(9), [0; 16], &value),
            value: value.into(),
            proposed_at_ms: 0,
        },
    }
}

fn propose(n: u8, bytes: usize) -> Body {
    Body::Propose {
        command: command(n, bytes),
        hops_left: 1,
        within_ms: 10_000,
    }
}

/// A request as it is on the wire between two nodes that are linked: with the durable sequence
/// number of the sender behind it.
fn on_the_wire(request: &[u8]) -> Vec<u8> {
    [request, &[0; SEQUENCE_BYTES]].concat()
}

/// Sends one request to a node and returns its answer.
async fn ask(raw: &Raw, group: GroupId, body: Body) -> Result<Response, String> {
    ask_bytes(raw, &Request::new(group, body).encode()).await
}

/// To be told of all of these.
fn wishes(groups: impl Iterator<Item = GroupId>) -> Batch<Wish> {
    let wish = |group| Wish {
        group,
        number: 1,
        scope: Scope::All,
    };
    Batch::new(groups.map(wish).collect())
}

async fn ask_many(raw: &Raw, many: Many) -> Result<Response, String> {
    ask_bytes(raw, &Request::of_many(many).encode()).await
}

async fn ask_bytes(raw: &Raw, request: &[u8]) -> Result<Response, String> {
    let reply = within("a reply", raw.request(&on_the_wire(request))).await?;
    let answer = &reply[..reply.len() - SEQUENCE_BYTES];
    Response::decode(answer).map_err(|error| error.to_string())
}

/// Why a request was refused.
async fn refused(raw: &Raw, request: &[u8]) -> String {
    match ask_bytes(raw, request).await {
        Ok(Response::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}
