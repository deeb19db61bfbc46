//! The admitted connections of this node: at most one a peer, kept up by redialing, and how requests
//! on them are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::book::Book;
use super::calls::{add_sequence, hear, take_sequence};
use super::electorate::Electorate;
use super::hello::Terms;
use super::limits::{Budgets, allowance};
use super::past::BootId;
use super::proof::Kind;
use crate::codec::FRAME_BYTES_MAX;
use crate::group::wire::Request;
use crate::group::{Directory, Hearing};
use crate::id::NodeId;
use crate::limits::Limits;
use crate::metrics::Counts;
use crate::transport::{Budget, Connection, Incoming, PeerKey, Places, Transport, TransportError};

/// How long a peer may take to send a request that it has begun, and to take in an answer.
pub(super) const REQUEST_READ_MS: u64 = 10_000;
const REPLY_SEND_MS: u64 = 10_000;

/// How many connections may be under admission at once: of strangers, of whom the oldest makes
/// way for the newest, and of those who hold a voter's key.
pub(super) const UNADMITTED_MAX: usize = 64;

/// How long a replaced link lives on, so that requests that are under way on it are answered.
const LINGER_MS: u64 = 2_000;

/// Behind every request and reply: how far the log of the sender is durable (0: an observer).
pub(super) const SEQUENCE_BYTES: usize = 8;

/// Codes with which a connection is closed.
pub(super) mod code {
    pub(crate) const REPLACED: u32 = 1;
    pub(crate) const REFUSED: u32 = 2;
    pub(crate) const SHUTDOWN: u32 = 3;
    pub(crate) const FAILED: u32 = 4;
}

/// An admitted connection.
pub(super) struct Link {
    pub(super) node: NodeId,
    pub(super) connection: Arc<dyn Connection>,
    /// The node that dialed: of two links to one peer the one dialed by the lower id stays.
    pub(super) dialer: NodeId,
    /// Which start of a voter this is a link to.
    pub(super) boot: Option<BootId>,
    /// Whether the peer is heard.
    pub(super) hearing: Arc<Hearing>,
}

pub(super) struct Links {
    pub(super) me: NodeId,
    pub(super) kind: Kind,
    pub(super) electorate: Electorate,
    pub(super) terms: Terms,
    pub(super) voter_keys: BTreeMap<PeerKey, NodeId>,
    pub(super) transport: Arc<dyn Transport>,
    /// A voter's.
    pub(super) book: Option<Arc<Book>>,
    pub(super) down: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) voters: BTreeSet<NodeId>,
    pub(super) entropy: Mutex<StdRng>,
    directory: OnceLock<Weak<Directory>>,
    table: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    /// Held while the table changes and the directory is told: it hears of links coming and
    /// going in the order in which they do.
    telling: Mutex<()>,
    runtime: tokio::runtime::Handle,
    changed: watch::Sender<u64>,
    /// Why a voter is not linked, in words.
    troubles: Mutex<BTreeMap<NodeId, String>>,
    pub(super) budgets: Budgets,
    pub(super) counts: Arc<Counts>,
    pub(super) limits: Limits,
    /// Connections under admission: of strangers, and of those who hold a voter's key.
    unadmitted: [Arc<Places>; 2],
}

/// What a [`Links`] is made of.
pub(super) struct Parts {
    pub(super) me: NodeId,
    pub(super) kind: Kind,
    pub(super) electorate: Electorate,
    pub(super) terms: Terms,
    pub(super) voter_keys: BTreeMap<PeerKey, NodeId>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) book: Option<Arc<Book>>,
    pub(super) entropy: StdRng,
    pub(super) down: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) counts: Arc<Counts>,
    pub(super) limits: Limits,
}

impl Links {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            me: parts.me,
            kind: parts.kind,
            voters: parts.electorate.voters().iter().map(|v| v.id).collect(),
            electorate: parts.electorate,
            terms: parts.terms,
            voter_keys: parts.voter_keys,
            transport: parts.transport,
            book: parts.book,
            down: parts.down,
            tasks: parts.tasks,
            entropy: Mutex::new(parts.entropy),
            directory: OnceLock::new(),
            table: Mutex::default(),
            telling: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            changed: watch::Sender::new(0),
            troubles: Mutex::default(),
            budgets: Budgets::new(),
            counts: parts.counts,
            limits: parts.limits,
            unadmitted: [(); 2].map(|()| Places::new(UNADMITTED_MAX)),
        }
    }

    /// The directory that answers requests; set once, before the first link.
    pub(super) fn serve(&self, directory: &Arc<Directory>) {
        let first = self.directory.set(Arc::downgrade(directory)).is_ok();
        assert!(first, "links serve one directory");
    }

    pub(super) fn directory(&self) -> Option<Arc<Directory>> {
        self.directory.get()?.upgrade()
    }

    pub(super) fn table(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Link>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn telling(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This voter may vote from now on.
    pub(super) fn qualified(&self) {
        let _telling = self.telling();
        if let Some(directory) = self.directory() {
            directory.qualification_changed();
        }
    }

    pub(super) fn link(&self, node: NodeId) -> Option<Arc<Link>> {
        self.table().get(&node).cloned()
    }

    pub(super) fn linked(&self) -> Vec<NodeId> {
        self.table().keys().copied().collect()
    }

    /// No more observers can be linked.
    pub(super) fn is_full(&self) -> bool {
        self.is_full_without(&self.table())
    }

    fn is_full_without(&self, table: &BTreeMap<NodeId, Arc<Link>>) -> bool {
        let observers = table.keys().filter(|node| !self.voters.contains(node));
        let max = self.limits.observer_links_max;
        table.len() >= max && observers.count() >= max
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.entropy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(&mut bytes);
        bytes
    }

    /// Notes why a voter is not linked; the first time, and whenever it changes, in the log too.
    pub(super) fn trouble(&self, node: NodeId, what: String) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.get(&node) != Some(&what) {
            tracing::debug!(voter = %self.name(node), %what, "no link");
            troubles.insert(node, what);
        }
    }

    pub(super) fn trouble_with(&self, node: NodeId) -> Option<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.get(&node).cloned()
    }

    /// What a person calls the node.
    pub(super) fn name(&self, node: NodeId) -> String {
        match self.electorate.get(node) {
            Some(voter) => voter.name.clone(),
            None => format!("observer {node}"),
        }
    }

    /// Makes an admitted connection the link to its peer, unless there is a better one. Returns
    /// whether it was taken.
    pub(super) fn add(self: &Arc<Self>, link: Link) -> bool {
        let link = Arc::new(link);
        let node = link.node;
        let is_voter = self.voters.contains(&node);
        let _telling = self.telling();
        let replaced = {
            let mut table = self.table();
            if self.down.is_cancelled() {
                return false;
            }
            match table.get(&node) {
                Some(old) if old.boot == link.boot && old.dialer < link.dialer => return false,
                // Others may have come while this one was under admission.
                None if !is_voter && self.is_full_without(&table) => return false,
                _ => {
                    self.counts.link_made(is_voter);
                    let replaced = table.insert(node, link.clone());
                    if replaced.is_some() {
                        self.counts.link_lost(is_voter);
                    }
                    replaced
                }
            }
        };
        link.connection.allow(allowance(is_voter));
        self.troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&node);
        let directory = self.directory();
        if let Some(old) = replaced {
            // The peer may have given up the old link before we noticed, and with it all that it
            // knew about us: begin anew with it.
            self.spawn_task(async move {
                if is_voter {
                    // What is under way on it may still be answered. An observer dials anew only
                    // when it has given up its old link, and could pile up such links.
                    tokio::time::sleep(Duration::from_millis(LINGER_MS)).await;
                }
                old.connection
                    .close(code::REPLACED, "replaced by a newer link");
            });
            if let Some(directory) = &directory {
                directory.link_down(node);
            }
        }
        tracing::debug!(peer = %self.name(node), "linked");
        self.changed.send_modify(|changes| *changes += 1);
        let (this, served) = (self.clone(), link);
        self.spawn_task(async move { this.run(served).await });
        if let Some(directory) = &directory {
            directory.link_up(node);
        }
        true
    }

    /// Serves the peer's requests until the connection ends.
    async fn run(self: Arc<Self>, link: Arc<Link>) {
        let is_voter = self.voters.contains(&link.node);
        let budget = self.budgets.of(is_voter);
        let gone = CancellationToken::new();
        while let Ok(incoming) = link.connection.incoming().await {
            link.hearing.hear();
            let (this, peer) = (self.clone(), link.node);
            let (budget, gone) = (budget.clone(), gone.clone());
            self.spawn_task(async move {
                let answering = this.answer(peer, incoming, &budget);
                gone.run_until_cancelled(answering).await;
            });
        }
        if !is_voter {
            // What an observer asked for ends with its link, or by linking anew it could have any
            // number of requests under way. The requests of voters are few and come to an end.
            gone.cancel();
        }
        let closed = link.connection.closed().await;
        let _telling = self.telling();
        let current = {
            let mut table = self.table();
            let current = table
                .get(&link.node)
                .is_some_and(|known| Arc::ptr_eq(known, &link));
            if current {
                table.remove(&link.node);
                self.counts.link_lost(is_voter);
            }
            current
        };
        if !current {
            return;
        }
        let is_well = matches!(closed.code, Some(code::SHUTDOWN | code::REPLACED));
        if self.voters.contains(&link.node) && !is_well {
            tracing::warn!(voter = %self.name(link.node), %closed, "lost the link to a voter");
        } else {
            tracing::debug!(peer = %self.name(link.node), %closed, "link lost");
        }
        if self.voters.contains(&link.node) {
            self.trouble(link.node, closed.to_string());
        }
        if let Some(book) = &self.book {
            book.keep(link.node);
        }
        self.changed.send_modify(|changes| *changes += 1);
        if let Some(directory) = self.directory() {
            directory.link_down(link.node);
        }
    }

    async fn answer(self: Arc<Self>, peer: NodeId, mut incoming: Incoming, budget: &Budget) {
        let is_voter = self.voters.contains(&peer);
        let read = incoming.read_within(FRAME_BYTES_MAX + SEQUENCE_BYTES, budget);
        let read = tokio::time::timeout(Duration::from_millis(REQUEST_READ_MS), read);
        let (mut frame, charge) = match read.await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                tracing::debug!(peer = %self.name(peer), %error, "bad request");
                match error {
                    TransportError::OverBudget { .. } | TransportError::FrameTooLarge { .. } => {
                        self.counts.refused_bytes.one();
                    }
                    TransportError::Malformed(_) => self.counts.refused_malformed.one(),
                    _ => {}
                }
                return;
            }
            Err(_) => return,
        };
        let Some(directory) = self.directory() else {
            return;
        };
        let Some(sequence) = take_sequence(&mut frame) else {
            self.counts.refused_malformed.one();
            tracing::debug!(peer = %self.name(peer), "a request without its end");
            return;
        };
        let request = Request::decode(&frame);
        // What cannot be understood may be anything, and what is heard here is never forgotten.
        match &request {
            Ok(_) => hear(self.book.as_deref(), peer, sequence),
            Err(_) => self.counts.refused_malformed.one(),
        }
        // Proposals of a voter that wait here must not stand in the way of its Raft messages, by
        // which they are committed.
        let charge = (!is_voter).then_some(charge);
        drop(frame);
        let answering = directory.answer(peer, request);
        let mut reply = answering.await;
        drop(charge);
        add_sequence(self.book.as_deref(), &mut reply);
        let charge = (!is_voter).then(|| budget.take(reply.len()));
        if let Some(None) = charge {
            self.counts.refused_bytes.one();
            tracing::debug!(peer = %self.name(peer), bytes = reply.len(), "no room for an answer");
            return;
        }
        // A reply that cannot be sent is lost; the peer's deadline tells it so.
        let sent = incoming.reply(reply);
        let _ = tokio::time::timeout(Duration::from_millis(REPLY_SEND_MS), sent).await;
    }

    /// Runs a task until it ends or the node goes down.
    pub(super) fn spawn_task(&self, task: impl Future<Output = ()> + Send + 'static) {
        let down = self.down.clone();
        let task = async move {
            tokio::select! {
                () = down.cancelled() => {}
                () = task => {}
            }
        };
        // Handles may be opened and dropped on any thread.
        self.tasks
            .spawn_on(crate::probe::of_current(task), &self.runtime);
    }

    /// Closes all links.
    pub(super) fn close(&self, code: u32, reason: &str) {
        let links = {
            let mut table = self.table();
            for node in table.keys() {
                self.counts.link_lost(self.voters.contains(node));
            }
            std::mem::take(&mut *table)
        };
        for link in links.into_values() {
            if let Some(book) = &self.book {
                book.keep(link.node);
            }
            link.connection.close(code, reason);
        }
    }

    /// Where connections under admission have their places.
    pub(super) fn unadmitted(&self, is_voter: bool) -> &Arc<Places> {
        &self.unadmitted[usize::from(is_voter)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request is a task, also each message of Raft, and many come at once.
    const TASK_BYTES_MAX: usize = 6 * 1024;

    #[test]
    fn the_task_of_a_request_is_small_whatever_may_come_in_it() {
        fn bytes<F: Future>(
            _: impl FnOnce(Arc<Links>, NodeId, Incoming, &'static Budget) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let bytes = bytes(|links, peer, incoming, budget| links.answer(peer, incoming, budget));
        assert!(bytes <= TASK_BYTES_MAX, "{bytes} bytes");
    }
}
