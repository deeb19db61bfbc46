//! What a voter keeps about itself and its peers beside the groups: whose disk this is, its own
//! past, and what it remembers of the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::NetworkError;
use super::electorate::Electorate;
use super::past::{Boot, BootId, Claim, Memory, Myself, Peer, REMEDY, Verdict, judge};
use crate::codec::{self, Decode, Encode};
use crate::failpoint;
use crate::id::NodeId;
use crate::store::{Batch, Durability, Store, StoreFailed};

const BOOK_VERSION: u8 = 1;
const OWNER_KEY: &[u8] = b"nowner";
const MYSELF_KEY: &[u8] = b"nmyself";
const PEER_KEY_PREFIX: &[u8] = b"npeer";

/// The most pages of one peer that wait for the next commit: the newest of them counts. Of more
/// messages between two commits than that the later ones are remembered in memory.
const RIDING_PAGES_MAX: usize = 16;

/// Whose disk this is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Owner {
    network: String,
    voter: String,
    electorate: Vec<String>,
    epoch: u32,
}

struct Pages {
    myself: Myself,
    peers: BTreeMap<NodeId, Peer>,
    /// How many pages of each peer wait for this voter's next commit.
    riding: BTreeMap<NodeId, Arc<AtomicUsize>>,
}

pub(super) struct Book {
    store: Store,
    me: NodeId,
    electorate: Electorate,
    /// Batches are queued under this lock, so that the disk sees changes in the order in which
    /// the pages did.
    pages: Mutex<Pages>,
    /// Whether this voter may vote, append and lead.
    may_vote: watch::Sender<bool>,
}

impl Book {
    /// Opens the book of voter `name`, notes another start, and returns when that is durable.
    /// `fresh` are the random ids that a new incarnation and this start would have.
    pub(super) async fn open(
        store: Store,
        dir: &Path,
        network: &str,
        name: &str,
        electorate: &Electorate,
        fresh: [[u8; 16]; 2],
    ) -> Result<Self, NetworkError> {
        let unusable = |reason: String| NetworkError::Data {
            dir: dir.to_path_buf(),
            reason,
        };
        let owner = Owner {
            network: network.into(),
            voter: name.into(),
            electorate: electorate.names().into_iter().map(Into::into).collect(),
            epoch: crate::group::wire::EPOCH,
        };
        let failed = |error: StoreFailed| unusable(error.to_string());
        if let Some(bytes) = store.get(OWNER_KEY).map_err(failed)? {
            let found: Owner =
                codec::decode(BOOK_VERSION, &bytes).map_err(|error| unusable(error.to_string()))?;
            if found != owner {
                return Err(NetworkError::DataDirOfAnother {
                    dir: dir.to_path_buf(),
                    found_voter: found.voter,
                    found_network: found.network,
                    found_electorate: found.electorate,
                    voter: owner.voter,
                    network: owner.network,
                    electorate: owner.electorate,
                });
            }
        }
        let myself = match store.get(MYSELF_KEY).map_err(failed)? {
            Some(bytes) => {
                let mut myself = Myself::from_bytes(&bytes)
                    .map_err(|error| unusable(format!("its own past: {error}")))?;
                myself.start(fresh[1], store.sequence());
                myself
            }
            None => Myself::new(fresh[0], fresh[1]),
        };
        let mut peers = BTreeMap::new();
        for voter in electorate.voters() {
            if let Some(bytes) = store.get(&peer_key(voter.id)).map_err(failed)? {
                let peer = Peer::from_bytes(&bytes)
                    .map_err(|error| unusable(format!("the past of {}: {error}", voter.name)))?;
                peers.insert(voter.id, peer);
            }
        }
        let me = NodeId::of_voter(name);
        let mut batch = Batch::default();
        batch.put(OWNER_KEY.to_vec(), codec::encode(BOOK_VERSION, &owner));
        batch.put(MYSELF_KEY.to_vec(), myself.to_bytes());
        let may_vote = watch::Sender::new(myself.may_vote(electorate, me));
        let book = Self {
            store,
            me,
            electorate: electorate.clone(),
            pages: Mutex::new(Pages {
                myself,
                peers,
                riding: BTreeMap::new(),
            }),
            may_vote,
        };
        // The start must be durable before any peer hears of it.
        failpoint::hit("past.before_start");
        book.store.write_durably(batch).await.map_err(failed)?;
        failpoint::hit("past.after_start");
        Ok(book)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn boot(&self) -> BootId {
        self.pages().myself.boot()
    }

    pub(super) fn sequence(&self) -> u64 {
        self.store.sequence()
    }

    pub(super) fn may_vote(&self) -> bool {
        *self.may_vote.borrow()
    }

    /// The names of the voters that have not confirmed this one's past yet.
    pub(super) fn waiting_for(&self) -> Vec<String> {
        self.pages().myself.waiting_for(&self.electorate, self.me)
    }

    /// Why `peer` is refused for good, if it is.
    pub(super) fn refused(&self, peer: NodeId) -> Option<String> {
        let reason = self.pages().peers.get(&peer)?.refused.clone()?;
        Some(format!("{reason}; {REMEDY}"))
    }

    pub(super) fn claim(&self) -> Claim {
        let sequence = self.store.sequence();
        self.pages()
            .myself
            .claim(sequence, &self.electorate, self.me)
    }

    pub(super) fn peer(&self, peer: NodeId) -> Option<Peer> {
        self.pages().peers.get(&peer).cloned()
    }

    pub(super) fn boots_since(&self, remembered: Option<&Memory>) -> Option<Vec<Boot>> {
        self.pages().myself.boots_since(remembered)
    }

    /// Judges a peer's claim. Returns when the verdict is durable: only then may the peer learn
    /// of it.
    pub(super) async fn judge(
        &self,
        peer: NodeId,
        asked: Option<&Peer>,
        claim: &Claim,
        boots: Option<&[Boot]>,
    ) -> Result<Verdict, StoreFailed> {
        let (verdict, written) = {
            let mut pages = self.pages();
            let verdict = judge(pages.peers.get(&peer), asked, claim, boots);
            let mut batch = Batch::default();
            match &verdict {
                Verdict::New(known)
                | Verdict::Known(known)
                | Verdict::Refuse { peer: known, .. } => {
                    batch.put(peer_key(peer), known.to_bytes());
                    pages.peers.insert(peer, known.clone());
                }
                Verdict::AskAgain => {}
            }
            let written = (!batch.is_empty()).then(|| self.store.write_durably(batch));
            (verdict, written)
        };
        if let Some(written) = written {
            failpoint::hit("past.before_verdict");
            written.await?;
            failpoint::hit("past.after_verdict");
        }
        Ok(verdict)
    }

    /// `peer` has confirmed that it never knew another incarnation of this voter. Returns whether
    /// this voter may vote from now on and could not before.
    pub(super) async fn qualify(&self, peer: NodeId) -> Result<bool, StoreFailed> {
        let written = {
            let mut pages = self.pages();
            // Until this voter may vote it is written again each time: whoever noted it first may
            // have been given up before it was durable, and has told nobody.
            if !pages.myself.qualify(peer) && *self.may_vote.borrow() {
                return Ok(false);
            }
            let mut batch = Batch::default();
            batch.put(MYSELF_KEY.to_vec(), pages.myself.to_bytes());
            failpoint::hit("past.before_qualify");
            self.store.write_durably(batch)
        };
        written.await?;
        failpoint::hit("past.after_qualify");
        let may_vote = self.pages().myself.may_vote(&self.electorate, self.me);
        let gained = self
            .may_vote
            .send_if_modified(|was| !std::mem::replace(was, may_vote) && may_vote);
        Ok(gained)
    }

    /// A message of `peer` told how far its log is durable. That is kept with this voter's own
    /// next commit, for which it does not wait: whatever that commit answers, it remembers what
    /// it had heard.
    pub(super) fn heard(&self, peer: NodeId, sequence: u64) {
        let mut pages = self.pages();
        let Some(known) = pages.peers.get_mut(&peer) else {
            return;
        };
        if !known.heard(sequence) {
            return;
        }
        let page = known.to_bytes();
        let riding = pages.riding.entry(peer).or_default().clone();
        if riding.fetch_add(1, Ordering::AcqRel) < RIDING_PAGES_MAX {
            let mut batch = Batch::default();
            batch.put(peer_key(peer), page);
            self.store.write(batch, Durability::Riding, move |_| {
                riding.fetch_sub(1, Ordering::AcqRel);
            });
        } else {
            riding.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Keeps what was heard of `peer`: no more is heard for a while.
    pub(super) fn keep(&self, peer: NodeId) {
        let pages = self.pages();
        if let Some(known) = pages.peers.get(&peer) {
            let mut batch = Batch::default();
            batch.put(peer_key(peer), known.to_bytes());
            self.store.write(batch, Durability::Lazy, |_| {});
        }
    }
}

fn peer_key(peer: NodeId) -> Vec<u8> {
    let mut key = PEER_KEY_PREFIX.to_vec();
    key.extend_from_slice(&peer.as_u64().to_be_bytes());
    key
}
