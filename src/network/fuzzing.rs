//! What a fuzzer does with admission, with what a voter keeps of itself and its peers, and with
//! the texts that people hand on.

use std::path::Path;
use std::sync::OnceLock;

use super::base32;
use super::book::Book;
use super::electorate::{Electorate, VOTERS_MAX};
use super::hello::{Admitted, Confirm, Hello, Terms, Welcome, answer_from_bytes, answer_to_bytes};
use super::past::{Myself, Peer, judge};
use super::proof::{AdmissionKeys, Binding, Kind, Role};
use super::refusal::Refusal;
use super::secret::Secret;
use super::ticket::{self, Ticket};
use crate::id::NodeId;
use crate::store::{Batch, Durability, Store};

/// The two sides of one connection on which frames are tried.
pub(crate) struct Scene {
    pub(crate) electorate: Electorate,
    pub(crate) terms: Terms,
    pub(crate) binding: Binding,
}

pub(crate) fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let names = ["a", "b", "c"].map(|name| (name.to_owned(), format!("{name}:1")));
        let electorate = Electorate::new(names.to_vec()).expect("three voters");
        let secret = Secret::try_from("correct horse battery").expect("21 bytes");
        let keys = AdmissionKeys::of_secret(&secret, "n");
        Scene {
            terms: Terms::new(keys, 0, "n", &electorate),
            electorate,
            binding: Binding {
                exported: [1; 32],
                dialer: [2; 32],
                acceptor: [3; 32],
            },
        }
    })
}

impl Scene {
    fn proof(&self, kind: Kind, role: Role) -> [u8; 32] {
        let proof = self.terms.keys.prove(kind, role, &self.binding);
        proof.expect("the keys are those of the secret").0
    }

    /// What an acceptor makes of a first frame.
    fn hello(&self, bytes: &[u8]) {
        for voter in [None, Some(NodeId::of_voter("b"))] {
            match Hello::admit(bytes, &self.terms, &self.binding, voter) {
                Ok(hello) => {
                    assert!(hello.kind == Kind::Observer || voter.is_some());
                    let again = hello.to_bytes();
                    let again = Hello::admit(&again, &self.terms, &self.binding, voter);
                    assert_eq!(again.expect("it was admitted before").body, hello.body);
                }
                Err(refusal) => said(&refusal),
            }
        }
    }

    /// What a dialer makes of the answer to its hello.
    fn welcome(&self, bytes: &[u8]) {
        match answer_from_bytes::<Welcome>(bytes) {
            Ok(Ok(welcome)) => {
                let checked = [Kind::Voter, Kind::Observer]
                    .map(|kind| welcome.check(&self.terms, kind, &self.binding).is_ok());
                assert_ne!(checked, [true; 2], "a proof is one of a kind");
                let again = answer_to_bytes(&Ok(welcome));
                let again = answer_from_bytes::<Welcome>(&again);
                assert!(matches!(again, Ok(Ok(_))), "it was a welcome before");
            }
            Ok(Err(refusal)) => {
                said(&refusal);
                let again = answer_to_bytes::<Welcome>(&Err(refusal.clone()));
                let again = answer_from_bytes::<Welcome>(&again);
                assert!(matches!(again, Ok(Err(same)) if same == refusal));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn said(refusal: &Refusal) {
    assert!(!refusal.to_string().is_empty());
}

/// The first byte says which frame it is, and whether a good proof stands in front of it or is
/// put into its place.
pub(crate) fn admission(bytes: &[u8]) {
    let scene = scene();
    let Some((&what, bytes)) = bytes.split_first() else {
        return;
    };
    match what % 8 {
        0 => scene.hello(bytes),
        proven @ (1 | 2) => {
            let kind = Kind::from_u8(proven).expect("two kinds");
            let proof = scene.proof(kind, Role::Dialer);
            scene.hello(&[&[kind.as_u8()], &proof[..], bytes].concat());
        }
        3 => scene.welcome(bytes),
        proven @ (4 | 5) => {
            let kind = Kind::from_u8(proven - 3).expect("two kinds");
            let proof = scene.proof(kind, Role::Acceptor);
            // Behind the kind of the answer and the version.
            scene.welcome(&[&[0, 1], &proof[..], bytes].concat());
        }
        6 => match answer_from_bytes::<Admitted>(bytes) {
            Ok(Ok(Admitted)) => assert_eq!(answer_to_bytes::<Admitted>(&Ok(Admitted)), bytes),
            Ok(Err(refusal)) => said(&refusal),
            Err(error) => assert!(!error.to_string().is_empty()),
        },
        _ => match Confirm::from_bytes(bytes) {
            Ok(confirm) => {
                let again = Confirm::from_bytes(&confirm.to_bytes());
                assert_eq!(again.as_ref(), Ok(&confirm));
            }
            Err(refusal) => said(&refusal),
        },
    }
}

/// The first byte says whose page it is. Two pages of peers and a hello, one behind the other with
/// lengths in front, are a peer that is judged; three pages are the book of a voter.
pub(crate) fn past(bytes: &[u8]) {
    let Some((&what, bytes)) = bytes.split_first() else {
        return;
    };
    match what % 4 {
        0 => myself(bytes),
        1 => {
            if let Ok(peer) = Peer::from_bytes(bytes) {
                assert_eq!(Peer::from_bytes(&peer.to_bytes()).as_ref(), Ok(&peer));
            }
        }
        2 => judged(bytes),
        _ => book(bytes),
    }
}

/// The next piece, behind its length.
fn next_piece<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first()?;
    let (piece, behind) = behind.split_at_checked(usize::from(*length))?;
    *rest = behind;
    Some(piece)
}

/// A voter starts on a disk with these pages: on whose disk it is, about itself, about a peer.
fn book(mut bytes: &[u8]) {
    let store = Store::in_memory();
    let mut batch = Batch::default();
    let peer = [&b"npeer"[..], &NodeId::of_voter("b").as_u64().to_be_bytes()].concat();
    for key in [b"nowner".to_vec(), b"nmyself".to_vec(), peer] {
        if let Some(page) = next_piece(&mut bytes) {
            batch.put(key, page.to_vec());
        }
    }
    store.write(batch, Durability::Now, |_| {});
    let electorate = &scene().electorate;
    let open = |fresh| {
        let opened = Book::open(store.clone(), Path::new("."), "n", "a", electorate, fresh);
        futures::executor::block_on(opened).map_err(|error| error.to_string())
    };
    match open([[1; 16], [2; 16]]) {
        Ok(book) => {
            assert_eq!(book.boot(), [2; 16]);
            assert_eq!(book.may_vote(), book.waiting_for().is_empty());
            let claim = book.claim();
            let again = open([[1; 16], [3; 16]])
                .expect("it was opened before")
                .claim();
            assert_eq!(
                (again.incarnation, again.empty),
                (claim.incarnation, claim.empty)
            );
        }
        Err(error) => assert!(!error.is_empty()),
    }
}

fn myself(bytes: &[u8]) {
    let Ok(myself) = Myself::from_bytes(bytes) else {
        return;
    };
    let again = Myself::from_bytes(&myself.to_bytes());
    assert_eq!(again.as_ref(), Ok(&myself));
    let electorate = &scene().electorate;
    let me = NodeId::of_voter("a");
    let claim = myself.claim(7, electorate, me);
    assert_eq!(claim.boot, myself.boot());
    assert_eq!(claim.empty, !myself.may_vote(electorate, me));
    assert!(myself.waiting_for(electorate, me).len() < VOTERS_MAX);
    assert!(myself.boots_since(None).is_some());
}

fn judged(bytes: &[u8]) {
    let mut rest = bytes;
    let mut next = || next_piece(&mut rest);
    let mut peer = || Peer::from_bytes(next()?).ok();
    let (remembered, asked) = (peer(), peer());
    let scene = scene();
    let proof = scene.proof(Kind::Voter, Role::Dialer);
    let hello = [&[Kind::Voter.as_u8()], &proof[..], next().unwrap_or(&[])].concat();
    let voter = Some(NodeId::of_voter("b"));
    let (Ok(hello), Ok(confirm)) = (
        Hello::admit(&hello, &scene.terms, &scene.binding, voter),
        Confirm::from_bytes(next().unwrap_or(&[])),
    ) else {
        return;
    };
    if let Some(claim) = &hello.body.past {
        let claim = confirm.claim(claim);
        let boots = confirm.boots.as_deref();
        // Whatever the answer is, asking again changes nothing.
        let verdict = judge(remembered.as_ref(), asked.as_ref(), &claim, boots);
        let again = judge(remembered.as_ref(), asked.as_ref(), &claim, boots);
        assert_eq!(verdict, again);
    }
}

/// The first byte says what kind of text it is.
pub(crate) fn ticket(bytes: &[u8]) {
    let Some((&what, bytes)) = bytes.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    match what % 5 {
        0 => ticket_of(&text),
        // Anybody can compute a checksum.
        1 => ticket_of(&ticket::sealed(bytes.to_vec())),
        2 => {
            if let Ok(secret) = text.parse::<Secret>() {
                assert_eq!(secret.to_hex().parse::<Secret>().as_ref(), Ok(&secret));
                assert_eq!(format!("{secret:?}"), "Secret(..)");
            }
            let _ = Secret::try_from(bytes);
        }
        3 => {
            if let Some(decoded) = base32::decode(&text) {
                assert_eq!(base32::encode(&decoded), text);
            }
            assert_eq!(
                base32::decode(&base32::encode(bytes)).as_deref(),
                Some(bytes)
            );
        }
        // Lines of names and addresses.
        _ => {
            let pairs = text
                .lines()
                .map(|line| line.split_once(' ').unwrap_or((line, "h:1")));
            let pairs = pairs.map(|(name, addr)| (name.to_owned(), addr.to_owned()));
            match Electorate::new(pairs.collect()) {
                Ok(electorate) => {
                    let ids: Vec<_> = electorate.voters().iter().map(|voter| voter.id).collect();
                    assert!(ids.is_sorted_by(|one, next| one < next));
                    assert!(matches!(ids.len(), 1 | 3 | 5));
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

fn ticket_of(text: &str) {
    match text.parse::<Ticket>() {
        Ok(ticket) => {
            assert_eq!(ticket.to_string().parse().as_ref(), Ok(&ticket));
            assert!(ticket.electorate().is_ok(), "checked when it was read");
            assert!(!ticket.network().is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
