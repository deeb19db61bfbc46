//! What is written is read as it was: every variant of every type on the wire and on disk.

use std::fmt::Debug;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::codec::{self, Decode, Encode};
use crate::group::generate as group;
use crate::group::generate_jobs as jobs;
use crate::group::generate_tasks as tasks;
use crate::group::wire::{Body, RaftRequest, Request, Response, Subject};
use crate::id::NodeId;
use crate::network::fuzzing::scene;
use crate::network::generate as network;
use crate::network::hello::{
    Admitted, Confirm, Hello, Welcome, answer_from_bytes, answer_to_bytes,
};
use crate::network::past::{Myself, Peer};
use crate::network::proof::Kind;
use crate::network::ticket::Ticket;

const ROUNDS: usize = 1_000;

fn each(mut check: impl FnMut(&mut StdRng)) {
    let mut rng = StdRng::seed_from_u64(3);
    (0..ROUNDS).for_each(|_| check(&mut rng));
}

/// Nothing is there but the number of what was seen: a new variant fails to compile in
/// `kind_of_..`, and one that is never made fails here.
#[derive(Default)]
struct Seen(Vec<usize>);

impl Seen {
    fn see(&mut self, kind: usize) {
        if !self.0.contains(&kind) {
            self.0.push(kind);
        }
    }

    fn assert_all(mut self, kinds: usize) {
        self.0.sort_unstable();
        assert_eq!(self.0, (0..kinds).collect::<Vec<_>>());
    }
}

#[test]
fn every_request_is_read_as_it_was_written() {
    let (mut bodies, mut raft) = (Seen::default(), Seen::default());
    let (mut slots, mut queries, mut many) = (Seen::default(), Seen::default(), Seen::default());
    let mut of_jobs = Seen::default();
    each(|rng| {
        let request = group::request(rng);
        assert_eq!(Request::decode(&request.encode()).as_ref(), Ok(&request));
        let body = match &request.subject {
            Subject::One(_, body) => body,
            Subject::Many(said) => return many.see(group::kind_of_many(said)),
        };
        bodies.see(group::kind_of_body(body));
        if let Body::Raft(request) = body {
            raft.see(group::kind_of_raft_request(request));
            if let RaftRequest::Append { entries, .. } = request {
                assert!(entries.len() < 4);
            }
        }
        if let Body::Slots { request, .. } = body {
            slots.see(group::kind_of_slots_request(request));
        }
        if let Body::Tasks { query, .. } = body {
            queries.see(tasks::kind_of_query(query));
        }
        if let Body::Jobs { query, .. } = body {
            of_jobs.see(jobs::kind_of_query(query));
        }
    });
    bodies.assert_all(group::BODIES);
    many.assert_all(group::MANY);
    raft.assert_all(group::RAFT_REQUESTS);
    slots.assert_all(group::SLOTS_REQUESTS);
    queries.assert_all(tasks::QUERIES);
    of_jobs.assert_all(jobs::QUERIES);
}

#[test]
fn every_response_is_read_as_it_was_written() {
    let (mut responses, mut raft) = (Seen::default(), Seen::default());
    let (mut slots, mut answers) = (Seen::default(), Seen::default());
    let mut of_jobs = Seen::default();
    each(|rng| {
        let response = group::response(rng);
        assert_eq!(Response::decode(&response.encode()).as_ref(), Ok(&response));
        responses.see(group::kind_of_response(&response));
        if let Response::Raft(response) = &response {
            raft.see(group::kind_of_raft_response(response));
        }
        if let Response::Slots(response) = &response {
            slots.see(group::kind_of_slots_response(response));
        }
        if let Response::Tasks(answer) = &response {
            answers.see(tasks::kind_of_answer(answer));
        }
        if let Response::Jobs(answer) = &response {
            of_jobs.see(jobs::kind_of_answer(answer));
        }
    });
    responses.assert_all(group::RESPONSES);
    raft.assert_all(group::RAFT_RESPONSES);
    slots.assert_all(group::SLOTS_RESPONSES);
    answers.assert_all(tasks::ANSWERS);
    of_jobs.assert_all(jobs::ANSWERS);
}

#[test]
fn what_is_stored_of_a_group_is_read_as_it_was_written() {
    fn same<T: Encode + Decode<()> + PartialEq + Debug>(stored: T) {
        assert_eq!(
            codec::decode::<T>(1, &codec::encode(1, &stored)),
            Ok(stored)
        );
    }
    each(|rng| {
        same(group::entry(rng));
        same(group::applied(rng));
        same(group::snapshot_meta(rng));
        same(group::machine(rng));
        same(tasks::board(rng));
        same(group::command(rng));
        same(group::reply(rng));
    });
}

#[test]
fn every_frame_of_admission_is_read_as_it_was_written() {
    let scene = scene();
    let voter = Some(NodeId::of_voter("b"));
    let mut refusals = Seen::default();
    each(|rng| {
        let kind = network::kind(rng);
        let hello = network::hello(rng, kind);
        let read = Hello::admit(&hello.to_bytes(), &scene.terms, &scene.binding, voter).unwrap();
        assert_eq!((read.kind, read.body), (hello.kind, hello.body));

        let welcome = network::welcome(rng, kind);
        let bytes = answer_to_bytes(&Ok(welcome));
        let read = answer_from_bytes::<Welcome>(&bytes).unwrap().unwrap();
        read.check(&scene.terms, kind, &scene.binding).unwrap();
        assert_eq!(answer_to_bytes(&Ok(read)), bytes);

        let confirm = network::confirm(rng);
        assert_eq!(Confirm::from_bytes(&confirm.to_bytes()), Ok(confirm));

        let refusal = network::refusal(rng);
        refusals.see(network::kind_of_refusal(&refusal));
        let bytes = answer_to_bytes::<Admitted>(&Err(refusal.clone()));
        assert_eq!(answer_from_bytes::<Admitted>(&bytes), Ok(Err(refusal)));
    });
    refusals.assert_all(network::REFUSALS);
    let bytes = answer_to_bytes(&Ok(Admitted));
    assert_eq!(answer_from_bytes::<Admitted>(&bytes), Ok(Ok(Admitted)));
}

#[test]
fn pages_and_tickets_are_read_as_they_were_written() {
    each(|rng| {
        let myself = network::myself(rng);
        assert_eq!(Myself::from_bytes(&myself.to_bytes()), Ok(myself));
        let peer = network::peer(rng);
        assert_eq!(Peer::from_bytes(&peer.to_bytes()), Ok(peer));
        let ticket = network::ticket(rng);
        assert_eq!(ticket.to_string().parse::<Ticket>(), Ok(ticket));
    });
}

/// The first sample of each kind of hello is let in: else mutation starts from refused bytes.
#[test]
fn a_proven_body_is_admitted_behind_another_good_proof() {
    let scene = scene();
    each(|rng| {
        for kind in [Kind::Voter, Kind::Observer] {
            let body = network::hello(rng, kind).to_bytes()[33..].to_vec();
            let bytes = [&network::hello(rng, kind).to_bytes()[..33], &body].concat();
            let voter = Some(NodeId::of_voter("b"));
            assert!(Hello::admit(&bytes, &scene.terms, &scene.binding, voter).is_ok());
        }
    });
}
