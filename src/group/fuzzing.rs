//! What a fuzzer does with messages about groups and with groups on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::census::Census;
use super::directory::Directory;
use super::disk::{Disk, key};
use super::raft::{StoredEntry, StoredPayload};
use super::sound::check_message;
use super::state::{
    read_jobs_snapshot, read_snapshot, read_tasks_snapshot, write_jobs_snapshot,
    write_tasks_snapshot,
};
use super::tasks::TasksQuery;
use super::wire::{Body, HOPS_MAX, RaftRequest, Request, Response, Subject};
use super::{CallError, Peers};
use crate::id::{GroupId, NodeId, ProposalId, Version};
use crate::limits::Limits;
use crate::machine::{Command, Machine, Proposal};
use crate::store::{Batch, Durability, Store};

/// The group that the pairs of [`group_on_disk`] belong to, and those of tasks and jobs with the same
/// ones.
pub(crate) const GROUP: GroupId = GroupId::from_bytes([7; 32]);
pub(crate) const TASKS: GroupId = GroupId::from_bytes(*b"tasks that a fuzzer madeoncetask");
pub(crate) const JOBS: GroupId = GroupId::from_bytes(*b"jobs that a fuzzer made oncejobs");

/// How long a voter is given to answer, in simulated milliseconds: longer than its own deadlines.
const ANSWER_MS: u64 = 300_000;

/// The most frames that one voter is sent.
const FRAMES_MAX: usize = 16;

pub(crate) fn request(bytes: &[u8]) {
    let Ok(request) = Request::decode(bytes) else {
        return;
    };
    assert_eq!(Request::decode(&request.encode()).as_ref(), Ok(&request));
    match request.subject {
        Subject::One(_, Body::Propose { command, .. }) => applied(&[(1, &command)]),
        Subject::One(_, Body::Raft(RaftRequest::Append { entries, .. })) => {
            entries_applied(&entries);
        }
        Subject::One(_, Body::Raft(RaftRequest::Snapshot { data, .. })) => snapshot(&data),
        _ => {}
    }
}

pub(crate) fn response(bytes: &[u8]) {
    if let Ok(response) = Response::decode(bytes) {
        assert_eq!(Response::decode(&response.encode()).as_ref(), Ok(&response));
    }
    snapshot(bytes);
}

fn snapshot(bytes: &[u8]) {
    if let Ok((version, board)) = read_tasks_snapshot(bytes) {
        let written = write_tasks_snapshot(version, &board);
        assert_eq!(read_tasks_snapshot(&written), Ok((version, board)));
    }
    if let Ok((version, board)) = read_jobs_snapshot(bytes) {
        let written = write_jobs_snapshot(version, &board);
        assert_eq!(read_jobs_snapshot(&written), Ok((version, board)));
    }
    if let Ok((_, machine)) = read_snapshot(bytes) {
        let records = machine.records();
        let records = records.map(|(slot, record)| (slot.clone(), record.clone()));
        assert_eq!(Machine::from_records(records.collect::<Vec<_>>()), machine);
    }
}

fn entries_applied(entries: &[StoredEntry]) {
    let commands = entries.iter().filter_map(|entry| match &entry.payload {
        StoredPayload::Command(command) => Some((entry.at.index, command)),
        _ => None,
    });
    applied(&commands.collect::<Vec<_>>());
}

/// The first write to a slot stays, whatever comes after it.
fn applied(commands: &[(u64, &Command)]) {
    let mut machine = Machine::default();
    let mut first = BTreeMap::new();
    for (version, command) in commands {
        let version = Version::new(*version);
        let reply = machine.apply(version, command);
        if let Command::Set { slot, proposal } = command {
            let stays = first.entry(slot.clone()).or_insert((version, proposal.id));
            let record = reply.record.expect("it was set");
            assert_eq!((record.version, record.proposal.id), *stays);
        }
    }
    assert_eq!(machine.records().count(), first.len());
}

/// A voter sees frames of observers and voters. The first byte says whether it is alone; then come
/// the frames, each behind the number of its sender and its length (2 bytes).
///
/// Messages of Raft that could be true are left out: that a whole history is, one message cannot
/// tell. Voters hold the secret and are honest, and openraft stops at a history that cannot be.
pub(crate) fn answer(bytes: &[u8]) {
    let Some((&size, mut rest)) = bytes.split_first() else {
        return;
    };
    let mut frames = Vec::new();
    while frames.len() < FRAMES_MAX
        && let Some(([sender, low, high], behind)) = rest.split_first_chunk::<3>()
    {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(behind.len());
        let (frame, behind) = behind.split_at(length);
        if !may_be_true(frame) {
            frames.push((Voter::sender(*sender), frame));
        }
        rest = behind;
    }
    Voter::run(size % 2 == 0, Store::in_memory(), &frames);
}

fn may_be_true(frame: &[u8]) -> bool {
    match Request::decode(frame).map(|request| request.subject) {
        Ok(Subject::One(group, Body::Raft(message))) => {
            check_message(&message, &Voter::electorate(false), group.kind()).is_ok()
        }
        _ => false,
    }
}

/// A voter finds pairs on its disk and is asked to commit. Each pair stands behind the kind of its
/// key (1 byte), the length of the rest of the key (1) and that of the value (2); a set high bit
/// of the kind puts version and epoch in front of the value.
pub(crate) fn group_on_disk(bytes: &[u8]) {
    let mut batch = Batch::default();
    let mut rest = bytes;
    while let Some(([kind, key_bytes, low, high], behind)) = rest.split_first_chunk::<4>() {
        let (tail, behind) = behind.split_at(usize::from(*key_bytes).min(behind.len()));
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(behind.len());
        let (value, behind) = behind.split_at(length);
        let value = match kind & 0x80 {
            0 => value.to_vec(),
            _ => [&[1, 0], value].concat(),
        };
        batch.put(key(TASKS, Some(kind & 0x7f), tail), value.clone());
        batch.put(key(JOBS, Some(kind & 0x7f), tail), value.clone());
        batch.put(key(GROUP, Some(kind & 0x7f), tail), value);
        rest = behind;
    }
    let store = Store::in_memory();
    store.write(batch, Durability::Now, |_| {});
    let voters = Voter::electorate(true);
    if let Ok(held) = Disk::load(&store, GROUP, &voters, None, true) {
        assert!(held.applied.version.as_u64() <= held.applied.at.map_or(0, |at| at.index));
        let records = held.machine.records();
        for (_, record) in records {
            assert!(record.version <= held.applied.version);
        }
    }
    if let Ok(held) = Disk::load(&store, TASKS, &voters, None, true) {
        assert_eq!(held.board.check(held.applied.version), Ok(()));
    }
    if let Ok(held) = Disk::load(&store, JOBS, &voters, None, true) {
        assert_eq!(held.jobs.check(held.applied.version), Ok(()));
    }
    let propose = Request::new(
        GROUP,
        Body::Propose {
            command: set(9),
            hops_left: HOPS_MAX,
            within_ms: 2_000,
        },
    );
    let status = Request::new(GROUP, Body::Status).encode();
    let propose = propose.encode();
    let frames = [Voter::sender(0), Voter::sender(1)].map(|sender| (sender, &*status));
    let look = Body::Tasks {
        query: TasksQuery::Page {
            from: String::new(),
        },
        hops_left: HOPS_MAX,
        within_ms: 2_000,
    };
    let look = Request::new(TASKS, look).encode();
    let asked = [(Voter::sender(0), &*propose), (Voter::sender(0), &*look)];
    let frames = [&frames[..], &asked].concat();
    Voter::run(true, store, &frames);
}

fn set(n: u8) -> Command {
    let value = vec![n];
    Command::Set {
        slot: vec![],
        proposal: Proposal {
            id: ProposalId::new([n; 16], NodeId::of_voter("o"), [n; 16], &value),
            value: value.into(),
            proposed_at_ms: 0,
        },
    }
}

/// A voter whose peers send and never answer.
struct Voter {
    voters: BTreeSet<NodeId>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Voter {
    fn me() -> NodeId {
        NodeId::of_voter("a")
    }

    fn electorate(alone: bool) -> BTreeSet<NodeId> {
        let names: &[&str] = if alone { &["a"] } else { &["a", "b", "c"] };
        names.iter().map(|name| NodeId::of_voter(name)).collect()
    }

    fn sender(number: u8) -> NodeId {
        NodeId::of_voter(["o", "b", "c"][usize::from(number % 3)])
    }

    /// Answers all frames, and one that makes sense after them; then stops.
    fn run(alone: bool, store: Store, frames: &[(NodeId, &[u8])]) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without IO needs nothing of the system");
        runtime.block_on(async {
            let tasks = Arc::new(Mutex::new(JoinSet::new()));
            let voter = Self {
                voters: Self::electorate(alone),
                tasks: tasks.clone(),
            };
            let down = CancellationToken::new();
            let directory = {
                let (census, limits) = (Census::default(), Limits::default());
                Directory::new(Arc::new(voter), Some(store), down.clone(), census, limits)
            };
            for (sender, frame) in frames {
                answered(&directory, *sender, frame).await;
            }
            if alone {
                let sound = Request::new(
                    GroupId::from_bytes([8; 32]),
                    Body::Propose {
                        command: set(8),
                        hops_left: HOPS_MAX,
                        within_ms: 10_000,
                    },
                );
                let response = answered(&directory, Self::sender(0), &sound.encode()).await;
                assert!(
                    matches!(response, Response::Committed { .. }),
                    "{response:?}"
                );
            }
            directory.stop().await;
            down.cancel();
            let mut tasks = std::mem::take(&mut *lock(&tasks));
            while let Some(ended) = tasks.try_join_next() {
                ended.expect("no task panics");
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answered(directory: &Arc<Directory>, sender: NodeId, frame: &[u8]) -> Response {
    let within = Duration::from_millis(ANSWER_MS);
    let answer =
        tokio::time::timeout(within, directory.answer(sender, Request::decode(frame))).await;
    let answer = answer.expect("an answer within the deadlines of the voter");
    let response = Response::decode(&answer).expect("what is sent can be read");
    if let Response::Refused { reason } = &response {
        // A panic in a task of Raft's shows in its answer alone.
        assert!(!reason.contains("panic"), "{reason}");
    }
    response
}

impl Peers for Voter {
    fn me(&self) -> NodeId {
        Self::me()
    }

    fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    fn order(&self, _: &GroupId) -> Vec<NodeId> {
        self.voters.iter().copied().collect()
    }

    fn follow_order(&self, group: &GroupId) -> Vec<NodeId> {
        self.order(group)
    }

    fn is_linked(&self, _: NodeId) -> bool {
        true
    }
    fn hearing(&self, _: NodeId) -> Option<Arc<crate::group::Hearing>> {
        None
    }

    fn call(&self, node: NodeId, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, CallError>> {
        futures::future::ready(Err(CallError::NoLink(node))).boxed()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        lock(&self.tasks).spawn(task);
    }

    fn jitter_ms(&self, max_ms: u64) -> u64 {
        max_ms / 2
    }

    fn may_vote(&self) -> bool {
        true
    }
}
