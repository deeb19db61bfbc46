//! Messages about groups and groups on disk, at random: every variant of every type, and of
//! numbers the ones at the edges of their encodings more often than others.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::disk::{Applied, Disk, Held, key};
use super::fuzzing::{GROUP, JOBS, TASKS};
use super::jobs::generate as jobs;
use super::raft::{
    LogPosition, StoredElectorate, StoredEntry, StoredPayload, StoredSnapshotMeta, StoredVote,
};
use super::scope::Scope;
use super::slots::{Decided, Range, SlotsRequest, SlotsResponse};
use super::state::{write_jobs_snapshot, write_snapshot, write_tasks_snapshot};
use super::tasks::generate as tasks;
use super::wire::{
    Batch, Body, EPOCH, Many, RaftRequest, RaftResponse, Request, Response, Standing, State,
    Subject, Subscribed, Wish,
};
use crate::codec::AtMost;
use crate::id::{GroupId, NodeId, ProposalId, Version};
use crate::machine::job;
use crate::machine::task::Changes;
use crate::machine::{Command, Machine, Proposal, Record, Reply};
use crate::store::Store;

pub(crate) fn number(rng: &mut StdRng) -> u64 {
    const EDGES: [u64; 10] = [
        0,
        1,
        250,
        251,
        255,
        256,
        0xffff,
        0x1_0000,
        u32::MAX as u64 + 1,
        u64::MAX,
    ];
    match rng.random_range(0..4) {
        0 => EDGES[rng.random_range(0..EDGES.len())],
        1 => rng.random(),
        _ => rng.random_range(0..100),
    }
}

pub(crate) fn bytes(rng: &mut StdRng, bytes_max: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..=bytes_max)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// One in four is nothing.
pub(crate) fn maybe<T>(rng: &mut StdRng, of: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    (rng.random_range(0..4) > 0).then(|| of(rng))
}

pub(crate) fn list<T>(rng: &mut StdRng, of: impl Fn(&mut StdRng) -> T) -> Vec<T> {
    (0..rng.random_range(0..4)).map(|_| of(rng)).collect()
}

fn node(rng: &mut StdRng) -> NodeId {
    match rng.random_range(0..4) {
        0 => NodeId::from_u64(number(rng)),
        known => NodeId::of_voter(["a", "b", "c"][known - 1]),
    }
}

pub(crate) fn version(rng: &mut StdRng) -> Version {
    Version::new(number(rng))
}

fn position(rng: &mut StdRng) -> LogPosition {
    LogPosition {
        term: number(rng),
        index: number(rng),
    }
}

fn vote(rng: &mut StdRng) -> StoredVote {
    StoredVote {
        term: number(rng),
        node: node(rng),
        committed: rng.random(),
    }
}

/// Mostly the one slot of a cell.
fn slot(rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..4) {
        0 => bytes(rng, 9),
        _ => Vec::new(),
    }
}

pub(crate) fn proposal(rng: &mut StdRng) -> Proposal {
    let value = bytes(rng, 300);
    Proposal {
        id: ProposalId::new(rng.random(), node(rng), rng.random(), &value),
        value: value.into(),
        proposed_at_ms: number(rng),
    }
}

pub(crate) fn command(rng: &mut StdRng) -> Command {
    match rng.random_range(0..4) {
        0 => Command::Task(tasks::command(rng)),
        3 => Command::Job(jobs::command(rng)),
        1 => Command::Set {
            slot: slot(rng),
            proposal: proposal(rng),
        },
        _ => Command::Touch {
            slot: slot(rng),
            id: proposal(rng).id,
        },
    }
}

fn record(rng: &mut StdRng) -> Arc<Record> {
    Arc::new(Record {
        proposal: proposal(rng),
        version: version(rng),
    })
}

pub(crate) fn reply(rng: &mut StdRng) -> Reply {
    Reply {
        version: version(rng),
        record: maybe(rng, record),
        task: maybe(rng, |rng| Box::new(tasks::answer(rng))),
        job: maybe(rng, |rng| Box::new(jobs::answer(rng))),
    }
}

fn state(rng: &mut StdRng) -> State {
    State {
        version: version(rng),
        record: maybe(rng, record),
    }
}

pub(crate) fn machine(rng: &mut StdRng) -> Machine {
    let records = list(rng, |rng| (slot(rng), record(rng)));
    Machine::from_records(records)
}

fn voters(rng: &mut StdRng) -> BTreeSet<NodeId> {
    list(rng, node).into_iter().collect()
}

fn payload(rng: &mut StdRng) -> StoredPayload {
    match rng.random_range(0..4) {
        0 => StoredPayload::Blank,
        1 => StoredPayload::Electorate(voters(rng)),
        _ => StoredPayload::Command(command(rng)),
    }
}

pub(crate) fn entry(rng: &mut StdRng) -> StoredEntry {
    StoredEntry {
        at: position(rng),
        payload: payload(rng),
    }
}

fn electorate(rng: &mut StdRng) -> StoredElectorate {
    StoredElectorate {
        at: maybe(rng, position),
        voters: voters(rng),
    }
}

pub(crate) fn applied(rng: &mut StdRng) -> Applied {
    Applied {
        at: maybe(rng, position),
        version: version(rng),
    }
}

pub(crate) fn snapshot_meta(rng: &mut StdRng) -> StoredSnapshotMeta {
    StoredSnapshotMeta {
        at: maybe(rng, position),
        electorate: electorate(rng),
    }
}

pub(crate) fn snapshot(rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..3) {
        0 => write_tasks_snapshot(version(rng), &tasks::board(rng)),
        1 => write_jobs_snapshot(version(rng), &jobs::board(rng)),
        _ => write_snapshot(version(rng), &machine(rng)),
    }
}

fn raft_request(rng: &mut StdRng) -> RaftRequest {
    match rng.random_range(0..4) {
        0 => RaftRequest::Append {
            vote: vote(rng),
            prev: maybe(rng, position),
            entries: list(rng, entry),
            committed: maybe(rng, position),
        },
        1 => RaftRequest::Vote {
            vote: vote(rng),
            last: maybe(rng, position),
            transfer: rng.random(),
            pre: rng.random(),
        },
        2 => RaftRequest::Snapshot {
            vote: vote(rng),
            meta: snapshot_meta(rng),
            data: match rng.random() {
                true => bytes(rng, 99).into(),
                false => snapshot(rng).into(),
            },
        },
        _ => RaftRequest::Transfer {
            from: vote(rng),
            to: node(rng),
            last: maybe(rng, position),
        },
    }
}

pub(crate) const BODIES: usize = 12;

/// A body of each kind has a number of its own.
pub(crate) fn kind_of_body(body: &Body) -> usize {
    match body {
        Body::Raft(_) => 0,
        Body::Status => 1,
        Body::Propose { .. } => 2,
        Body::Settle { .. } => 3,
        Body::Barrier { .. } => 4,
        Body::Durable => 5,
        Body::Slots { .. } => 6,
        Body::Tasks { .. } => 7,
        Body::TaskChanges { .. } => 8,
        Body::Decided { .. } => 9,
        Body::Jobs { .. } => 10,
        Body::JobChanges { .. } => 11,
    }
}

pub(crate) const MANY: usize = 8;

pub(crate) fn kind_of_many(many: &Many) -> usize {
    match many {
        Many::Status(_) => 0,
        Many::Subscribe(_) => 1,
        Many::Unsubscribe(_) => 2,
        Many::Update(_) => 3,
        Many::Orphaned => 4,
        Many::Ping => 5,
        Many::Doubt { .. } => 6,
        Many::Rescope(_) => 7,
    }
}

fn wish(rng: &mut StdRng) -> Wish {
    Wish {
        group: group(rng),
        number: number(rng),
        scope: match rng.random() {
            true => Scope::All,
            false => Scope::Slots(AtMost::new(list(rng, range))),
        },
    }
}

fn many(rng: &mut StdRng) -> Many {
    let end = |rng: &mut StdRng| (group(rng), number(rng));
    match rng.random_range(0..MANY) {
        0 => Many::Status(Batch::new(list(rng, group))),
        1 => Many::Subscribe(Batch::new(list(rng, wish))),
        2 => Many::Unsubscribe(Batch::new(list(rng, end))),
        7 => Many::Rescope(Batch::new(list(rng, wish))),
        3 => Many::Update(Batch::new(list(rng, |rng| (group(rng), state(rng))))),
        4 => Many::Orphaned,
        5 => Many::Ping,
        _ => Many::Doubt { voter: node(rng) },
    }
}

pub(crate) const RAFT_REQUESTS: usize = 4;

pub(crate) fn kind_of_raft_request(request: &RaftRequest) -> usize {
    match request {
        RaftRequest::Append { .. } => 0,
        RaftRequest::Vote { .. } => 1,
        RaftRequest::Snapshot { .. } => 2,
        RaftRequest::Transfer { .. } => 3,
    }
}

fn body(rng: &mut StdRng) -> Body {
    match rng.random_range(0..BODIES) {
        0 => Body::Raft(raft_request(rng)),
        1 => Body::Status,
        2 => Body::Propose {
            command: command(rng),
            hops_left: rng.random(),
            within_ms: number(rng),
        },
        3 => Body::Settle {
            hops_left: rng.random(),
            within_ms: number(rng),
        },
        4 => Body::Barrier {
            within_ms: number(rng),
        },
        5 => Body::Durable,
        6 => Body::Tasks {
            query: tasks::query(rng),
            hops_left: rng.random(),
            within_ms: number(rng),
        },
        7 => Body::TaskChanges {
            after: version(rng),
        },
        8 => Body::Decided { vote: vote(rng) },
        9 => Body::Jobs {
            query: jobs::query(rng),
            hops_left: rng.random(),
            within_ms: number(rng),
        },
        10 => Body::JobChanges {
            after: version(rng),
        },
        _ => Body::Slots {
            at_least: version(rng),
            request: slots_request(rng),
        },
    }
}

fn range(rng: &mut StdRng) -> Range {
    Range {
        from: slot(rng),
        to: maybe(rng, slot),
    }
}

fn decided(rng: &mut StdRng) -> Decided {
    (slot(rng), record(rng))
}

pub(crate) const SLOTS_REQUESTS: usize = 9;

pub(crate) fn kind_of_slots_request(request: &SlotsRequest) -> usize {
    match request {
        SlotsRequest::Status { .. } => 0,
        SlotsRequest::Get { .. } => 1,
        SlotsRequest::Barrier { .. } => 2,
        SlotsRequest::Settle { .. } => 3,
        SlotsRequest::Page { .. } => 4,
        SlotsRequest::Changes { .. } => 5,
        SlotsRequest::Count => 6,
        SlotsRequest::Filled => 7,
        SlotsRequest::Fill { .. } => 8,
    }
}

fn slots_request(rng: &mut StdRng) -> SlotsRequest {
    let slot = slot(rng);
    match rng.random_range(0..SLOTS_REQUESTS) {
        0 => SlotsRequest::Status { slot },
        1 => SlotsRequest::Get { slot },
        2 => SlotsRequest::Barrier {
            slot,
            within_ms: number(rng),
        },
        3 => SlotsRequest::Settle {
            slot,
            hops_left: rng.random(),
            within_ms: number(rng),
        },
        4 => SlotsRequest::Page { range: range(rng) },
        5 => SlotsRequest::Changes {
            after: version(rng),
            range: range(rng),
        },
        6 => SlotsRequest::Count,
        7 => SlotsRequest::Filled,
        _ => SlotsRequest::Fill {
            after: version(rng),
            upto: version(rng),
            slots: list(rng, decided),
        },
    }
}

pub(crate) const SLOTS_RESPONSES: usize = 5;

pub(crate) fn kind_of_slots_response(response: &SlotsResponse) -> usize {
    match response {
        SlotsResponse::Record(_) => 0,
        SlotsResponse::Page { .. } => 1,
        SlotsResponse::Changes { .. } => 2,
        SlotsResponse::Count(_) => 3,
        SlotsResponse::Filled(_) => 4,
    }
}

fn slots_response(rng: &mut StdRng) -> SlotsResponse {
    match rng.random_range(0..SLOTS_RESPONSES) {
        0 => SlotsResponse::Record(maybe(rng, record)),
        1 => SlotsResponse::Page {
            slots: list(rng, decided),
            next: maybe(rng, range),
        },
        2 => SlotsResponse::Changes {
            slots: list(rng, decided),
            upto: version(rng),
            version: version(rng),
        },
        3 => SlotsResponse::Count(number(rng)),
        _ => SlotsResponse::Filled(version(rng)),
    }
}

pub(crate) fn request(rng: &mut StdRng) -> Request {
    Request {
        epoch: match rng.random_range(0..9) {
            0 => rng.random(),
            _ => EPOCH,
        },
        subject: match rng.random_range(0..4) {
            0 => Subject::Many(many(rng)),
            _ => Subject::One(group(rng), body(rng)),
        },
    }
}

fn group(rng: &mut StdRng) -> GroupId {
    match rng.random_range(0..4) {
        0 => GroupId::of_map("map".into(), "u64"),
        n => GroupId::from_bytes([n - 1; 32]),
    }
}

fn raft_response(rng: &mut StdRng) -> RaftResponse {
    match rng.random_range(0..RAFT_RESPONSES) {
        0 => RaftResponse::Appended,
        1 => RaftResponse::AppendedUpTo(maybe(rng, position)),
        2 => RaftResponse::Conflict,
        3 => RaftResponse::HigherVote(vote(rng)),
        4 => RaftResponse::Vote {
            vote: vote(rng),
            granted: rng.random(),
            last: maybe(rng, position),
        },
        5 => RaftResponse::Snapshot { vote: vote(rng) },
        6 => RaftResponse::Transferred,
        _ => RaftResponse::NotTransferred,
    }
}

pub(crate) const RAFT_RESPONSES: usize = 8;

pub(crate) fn kind_of_raft_response(response: &RaftResponse) -> usize {
    match response {
        RaftResponse::Appended => 0,
        RaftResponse::AppendedUpTo(_) => 1,
        RaftResponse::Conflict => 2,
        RaftResponse::HigherVote(_) => 3,
        RaftResponse::Vote { .. } => 4,
        RaftResponse::Snapshot { .. } => 5,
        RaftResponse::Transferred => 6,
        RaftResponse::NotTransferred => 7,
    }
}

pub(crate) const RESPONSES: usize = 14;

pub(crate) fn kind_of_response(response: &Response) -> usize {
    match response {
        Response::Raft(_) => 0,
        Response::Status { .. } => 1,
        Response::Committed { .. } => 2,
        Response::State(_) => 3,
        Response::Done => 4,
        Response::Elsewhere { .. } => 5,
        Response::Unclear => 6,
        Response::Refused { .. } => 7,
        Response::Slots(_) => 8,
        Response::Standings(_) => 9,
        Response::Subscribed(_) => 10,
        Response::Wanted(_) => 11,
        Response::Tasks(_) => 12,
        Response::Jobs(_) => 13,
    }
}

fn standing(rng: &mut StdRng) -> Standing {
    Standing {
        version: version(rng),
        is_decided: rng.random(),
        last: maybe(rng, position),
        applied: maybe(rng, position),
    }
}

fn subscribed(rng: &mut StdRng) -> Subscribed {
    match rng.random_range(0..3) {
        0 => Subscribed::State(state(rng)),
        1 => Subscribed::Alone,
        _ => Subscribed::No {
            reason: String::from_utf8_lossy(&bytes(rng, 30)).into_owned(),
        },
    }
}

pub(crate) fn response(rng: &mut StdRng) -> Response {
    match rng.random_range(0..RESPONSES) {
        0 => Response::Raft(raft_response(rng)),
        1 => Response::Status {
            state: state(rng),
            last: maybe(rng, position),
            applied: maybe(rng, position),
        },
        2 => Response::Committed {
            reply: reply(rng),
            leader: node(rng),
        },
        3 => Response::State(state(rng)),
        4 => Response::Done,
        5 => Response::Elsewhere {
            hint: maybe(rng, node),
        },
        6 => Response::Unclear,
        7 => Response::Slots(slots_response(rng)),
        8 => Response::Standings(Batch::new(list(rng, |rng| maybe(rng, standing)))),
        9 => Response::Subscribed(Batch::new(list(rng, subscribed))),
        10 => Response::Wanted(Batch::new(list(rng, |rng| rng.random()))),
        11 => Response::Tasks(tasks::tasks_answer(rng)),
        12 => Response::Jobs(jobs::jobs_answer(rng)),
        _ => Response::Refused {
            reason: String::from_utf8_lossy(&bytes(rng, 30)).into_owned(),
        },
    }
}

/// What some history of a voter that is alone has left on its disk, as pairs for
/// [`group_on_disk`](super::fuzzing::group_on_disk).
pub(crate) fn on_disk(rng: &mut StdRng) -> Vec<u8> {
    let store = Store::in_memory();
    let held = Held::newborn(&BTreeSet::from([NodeId::of_voter("a")]), None);
    let group = [GROUP, TASKS, JOBS][rng.random_range(0..3)];
    let disk = Disk::new(store.clone(), group, held);
    let mut term = 0;
    for _ in 0..rng.random_range(1..12) {
        step(rng, &disk, &mut term);
    }
    let pairs = store.scan(&key(group, None, &[])).unwrap();
    pairs_to_bytes(&pairs)
}

/// One thing that Raft may do to a disk.
fn step(rng: &mut StdRng, disk: &Disk, term: &mut u64) {
    let (last, at) = {
        let held = disk.held();
        (held.last(), held.applied.at)
    };
    let next = last.map_or(0, |last| last.index + 1);
    match rng.random_range(0..5) {
        0 => {
            *term += 1;
            let vote = StoredVote {
                term: *term,
                node: NodeId::of_voter("a"),
                committed: rng.random(),
            };
            futures::executor::block_on(disk.save_vote(vote)).unwrap();
        }
        1 | 2 => {
            let count = rng.random_range(1..4);
            let entries = (next..next + count).map(|index| StoredEntry {
                at: LogPosition { term: *term, index },
                payload: match rng.random_range(0..3) {
                    0 => StoredPayload::Blank,
                    _ if disk.group == TASKS => {
                        let step = tasks::sound_command(rng, index.max(1));
                        StoredPayload::Command(Command::Task(step))
                    }
                    _ if disk.group == JOBS => {
                        let step = jobs::sound_command(rng, index.max(1));
                        StoredPayload::Command(Command::Job(step))
                    }
                    _ => StoredPayload::Command(Command::Set {
                        slot: vec![],
                        proposal: proposal(rng),
                    }),
                },
            });
            disk.append(entries.collect::<Vec<_>>(), |written| written.unwrap());
        }
        3 => {
            let mut held = disk.held();
            let entries: Vec<_> = held.entries.values().cloned().collect();
            let (mut new, mut changes) = (Vec::new(), Changes::default());
            let mut job_changes = job::Changes::default();
            for entry in entries.into_iter().filter(|entry| Some(entry.at) > at) {
                held.applied.at = Some(entry.at);
                if let StoredPayload::Command(command) = &entry.payload {
                    let version = Version::new(entry.at.index);
                    held.applied.version = version;
                    held.apply_step(version, command, &mut changes);
                    held.apply_job(version, command, &mut job_changes);
                    let reply = held.machine.apply(version, command);
                    new.extend(reply.record.map(|record| (command.slot().to_vec(), record)));
                }
            }
            match disk.group {
                TASKS => disk.save_tasks(&mut held, &changes),
                JOBS => disk.save_jobs(&mut held, &job_changes),
                _ => disk.save_applied(&mut held, new),
            }
        }
        // Never beyond what is applied.
        _ => {
            if let Some(at) = at {
                disk.purge(at);
            }
        }
    }
}

/// Version and epoch, which [`group_on_disk`](super::fuzzing::group_on_disk) can put in front.
const FRONT: [u8; 2] = [1, 0];

pub(crate) fn pairs_to_bytes(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (pair_key, value) in pairs {
        let tail = &pair_key[key(GROUP, None, &[]).len()..];
        let (kind, tail) = tail.split_first().unwrap();
        let (front, value) = match value.strip_prefix(&FRONT) {
            Some(value) => (0x80, value),
            None => (0, &value[..]),
        };
        bytes.extend([kind | front, tail.len() as u8]);
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(tail);
        bytes.extend(value);
    }
    bytes
}
