//! Admission over a connection, both sides, and the tasks that dial and accept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::hello::{
    ADMISSION_BYTES_MAX, Admitted, Confirm, HELLO_BYTES_MAX, Hello, Welcome, answer_from_bytes,
    answer_to_bytes,
};
use super::links::{Link, Links, code};
use super::past::{Boot, Claim, Peer, Verdict};
use super::proof::{Binding, Kind};
use super::refusal::Refusal;
use crate::codec::Encode;
use crate::group::Hearing;
use crate::id::NodeId;
use crate::transport::{Connection, Incoming, PeerKey, TransportError};

/// How long admission may take, from the first byte to the last.
const ADMISSION_MS: u64 = 3_000;

/// How long a refused peer is given to read why.
const FAREWELL_MS: u64 = 500;

/// Pauses between attempts to link a voter: doubling from the first to the second.
const REDIAL_MS: (u64, u64) = (20, 1_000);

/// The pause after a refusal that will not go away by itself.
const REDIAL_REFUSED_MS: u64 = 5_000;

/// Of two voters, the one with the higher id lets the other dial first.
const GIVE_WAY_MS: u64 = 50;

/// Why a link was not made.
#[derive(Debug)]
enum Failed {
    /// The peer, or this node, will not have it.
    Refused(Refusal),
    /// It may go better next time.
    Transient(String),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Failed {
    fn transient(error: impl ToString) -> Self {
        Self::Transient(error.to_string())
    }
}

impl Links {
    /// Accepts connections until the transport closes.
    pub(super) async fn accept_all(self: Arc<Self>) {
        while let Some(connection) = self.transport.accept().await {
            // TLS has proved the key: strangers cannot use up the places of voters.
            let is_voter = self.voter_keys.contains_key(&connection.remote_key());
            let place = self.unadmitted(is_voter).take();
            let this = self.clone();
            self.spawn_task(async move {
                let admission = async {
                    let admission = this.welcome(&connection);
                    let admission = timeout(Duration::from_millis(ADMISSION_MS), admission);
                    let refused = match admission.await {
                        Ok(Ok(())) => return true,
                        Ok(Err(failed)) => failed,
                        Err(_) => Failed::transient("admission took too long"),
                    };
                    let (key, addr) = (connection.remote_key(), connection.remote_addr());
                    tracing::debug!(?key, ?addr, ?refused, "not admitted");
                    // What was sent must arrive before the connection goes.
                    let farewell = Duration::from_millis(FAREWELL_MS);
                    let _ = timeout(farewell, connection.closed()).await;
                    false
                };
                if place.hold(admission).await != Some(true) {
                    connection.close(code::REFUSED, "not admitted");
                }
            });
        }
    }

    /// The acceptor's side of admission.
    async fn welcome(self: &Arc<Self>, connection: &Arc<dyn Connection>) -> Result<(), Failed> {
        let key = connection.remote_key();
        let voter = self.voter_keys.get(&key).copied();
        let binding = Binding {
            exported: connection.binding().map_err(Failed::transient)?,
            dialer: key.0,
            acceptor: self.transport.local_key().0,
        };

        let mut first = connection.incoming().await.map_err(Failed::transient)?;
        let bytes = first
            .read(HELLO_BYTES_MAX)
            .await
            .map_err(Failed::transient)?;
        let admitted = Hello::admit(&bytes, &self.terms, &binding, voter)
            .and_then(|hello| self.may_link(&hello, voter).map(|()| hello));
        let hello = match admitted {
            Ok(hello) => hello,
            Err(refusal) => return self.refuse::<Welcome>(first, refusal).await,
        };
        let peer = match (hello.kind, voter) {
            (Kind::Voter, Some(voter)) => voter,
            _ => NodeId::of_key(&key.0),
        };
        let asked = self.remembered(hello.kind, peer);
        let welcome = Welcome::new(
            &self.terms,
            hello.kind,
            &binding,
            self.own_claim(hello.kind),
            asked.as_ref().map(Peer::memory),
            self.own_boots(hello.kind, &hello.body.remembers),
        );
        let Some(welcome) = welcome else {
            return self.refuse::<Welcome>(first, Refusal::NotReady).await;
        };
        let answer = answer_to_bytes(&Ok::<_, Refusal>(welcome));
        let welcomed = Instant::now();
        first.reply(answer).await.map_err(Failed::transient)?;

        let mut second = connection.incoming().await.map_err(Failed::transient)?;
        let bytes = second
            .read(ADMISSION_BYTES_MAX)
            .await
            .map_err(Failed::transient)?;
        let hearing = Arc::new(Hearing::new(welcomed.elapsed()));
        let confirmed = match Confirm::from_bytes(&bytes) {
            Ok(confirm) => confirm,
            Err(refusal) => return self.refuse::<Admitted>(second, refusal).await,
        };
        let mut boot = None;
        if let Some(past) = &hello.body.past {
            let claim = confirmed.claim(past);
            boot = Some(claim.boot);
            let boots = confirmed.boots.as_deref();
            if let Err(refusal) = self.judge(peer, asked.as_ref(), &claim, boots).await {
                return self.refuse::<Admitted>(second, refusal).await;
            }
            // The dialer confirms only after its verdict on us is on its disk.
            self.qualified_by(peer).await?;
        }
        let link = Link {
            node: peer,
            connection: connection.clone(),
            dialer: peer,
            boot,
            hearing,
        };
        if !self.add(link) {
            return self.refuse::<Admitted>(second, Refusal::NotReady).await;
        }
        let answer = answer_to_bytes(&Ok::<_, Refusal>(Admitted));
        second.reply(answer).await.map_err(Failed::transient)
    }

    /// Tells the dialer why not.
    async fn refuse<T: Encode>(&self, question: Incoming, refusal: Refusal) -> Result<(), Failed> {
        let counts = &self.counts;
        let counted = match &refusal {
            Refusal::WrongSecret => &counts.refused_secret,
            Refusal::UnknownVersion { .. }
            | Refusal::Malformed(_)
            | Refusal::NotAVoter
            | Refusal::Epoch { .. }
            | Refusal::ElectorateDiffers { .. } => &counts.refused_terms,
            Refusal::LostItsPast { .. } => &counts.refused_past,
            Refusal::Crowded { .. } => &counts.refused_observer_links,
            Refusal::NotReady => &counts.refused_not_ready,
        };
        counted.one();
        let answer = answer_to_bytes(&Err::<T, _>(refusal.clone()));
        question.reply(answer).await.map_err(Failed::transient)?;
        Err(Failed::Refused(refusal))
    }

    fn may_link(&self, hello: &Hello, voter: Option<NodeId>) -> Result<(), Refusal> {
        // Nobody links an observer, and nobody is a voter beside this one under its name.
        if self.kind == Kind::Observer || voter == Some(self.me) {
            return Err(Refusal::NotAVoter);
        }
        if hello.kind == Kind::Observer && self.is_full() {
            return Err(Refusal::Crowded {
                links_max: u32::try_from(self.limits.observer_links_max).unwrap_or(u32::MAX),
            });
        }
        Ok(())
    }

    fn remembered(&self, kind: Kind, peer: NodeId) -> Option<Peer> {
        match (kind, &self.book) {
            (Kind::Voter, Some(book)) => book.peer(peer),
            _ => None,
        }
    }

    fn own_claim(&self, kind: Kind) -> Option<Claim> {
        match (kind, &self.book) {
            (Kind::Voter, Some(book)) => Some(book.claim()),
            _ => None,
        }
    }

    fn own_boots(&self, kind: Kind, remembered: &Option<super::past::Memory>) -> Option<Vec<Boot>> {
        match (kind, &self.book) {
            (Kind::Voter, Some(book)) => book.boots_since(remembered.as_ref()),
            _ => None,
        }
    }

    async fn judge(
        &self,
        peer: NodeId,
        asked: Option<&Peer>,
        claim: &Claim,
        boots: Option<&[Boot]>,
    ) -> Result<(), Refusal> {
        let Some(book) = &self.book else {
            return Err(Refusal::NotReady);
        };
        match book.judge(peer, asked, claim, boots).await {
            Ok(Verdict::New(_) | Verdict::Known(_)) => Ok(()),
            Ok(Verdict::Refuse { reason, remedy, .. }) => {
                if asked.is_none_or(|peer| peer.refused.is_none()) {
                    let voter = self.name(peer);
                    tracing::error!(%voter, reason, remedy, "voter refused for good");
                }
                Err(Refusal::LostItsPast {
                    reason,
                    remedy: remedy.into(),
                })
            }
            Ok(Verdict::AskAgain) | Err(_) => Err(Refusal::NotReady),
        }
    }

    /// `peer` never knew another incarnation of this voter.
    async fn qualified_by(&self, peer: NodeId) -> Result<(), Failed> {
        if let Some(book) = &self.book
            && book.qualify(peer).await.map_err(Failed::transient)?
        {
            tracing::debug!("every voter is known: this one may vote");
            self.qualified();
        }
        Ok(())
    }

    /// Keeps a link to `voter` up for as long as the node lives.
    pub(super) async fn keep_linked(self: Arc<Self>, voter: NodeId) {
        let mut changes = self.changes();
        let mut pause_ms = REDIAL_MS.0;
        loop {
            changes.mark_unchanged();
            if self.link(voter).is_some() {
                pause_ms = REDIAL_MS.0;
                if changes.changed().await.is_err() {
                    return;
                }
                if self.link(voter).is_none() && voter < self.me && self.kind == Kind::Voter {
                    tokio::time::sleep(Duration::from_millis(GIVE_WAY_MS)).await;
                }
                continue;
            }
            let pause = match self.dial(voter).await {
                Ok(()) => continue,
                Err(Failed::Refused(refusal)) => {
                    let transient = refusal.is_transient();
                    if !transient {
                        let text = refusal.to_string();
                        if self.trouble_with(voter).as_ref() != Some(&text) {
                            tracing::warn!(voter = %self.name(voter), refused = %text);
                        }
                        self.trouble(voter, text);
                    }
                    if transient {
                        pause_ms
                    } else {
                        REDIAL_REFUSED_MS
                    }
                }
                Err(Failed::Transient(what)) => {
                    self.trouble(voter, what);
                    pause_ms
                }
            };
            let pause = pause + {
                use crate::group::Peers;
                self.jitter_ms(pause_ms)
            };
            pause_ms = (pause_ms * 2).min(REDIAL_MS.1);
            // A link that the voter makes meanwhile ends the pause.
            let linked =
                async { while self.link(voter).is_none() && changes.changed().await.is_ok() {} };
            let _ = timeout(Duration::from_millis(pause), linked).await;
        }
    }

    /// Dials a voter at every address its name resolves to, until one admits this node.
    async fn dial(self: &Arc<Self>, voter: NodeId) -> Result<(), Failed> {
        let Some(known) = self.electorate.get(voter) else {
            return Err(Failed::transient("not in the electorate"));
        };
        let key = self.voter_keys.iter().find(|(_, id)| **id == voter);
        let Some((key, _)) = key else {
            return Err(Failed::transient("its key is not known"));
        };
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(&known.addr)
            .await
            .map_err(|error| Failed::Transient(format!("{}: {error}", known.addr)))?
            .collect();
        let mut last = Failed::Transient(format!("{} has no address", known.addr));
        for address in addresses {
            let admission = self.dial_at(voter, *key, address);
            last = match timeout(Duration::from_millis(2 * ADMISSION_MS), admission).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(failed)) => failed,
                Err(_) => Failed::Transient(format!("{address}: admission took too long")),
            };
        }
        Err(last)
    }

    /// The dialer's side of admission.
    async fn dial_at(
        self: &Arc<Self>,
        voter: NodeId,
        key: PeerKey,
        address: SocketAddr,
    ) -> Result<(), Failed> {
        let dialed = self.transport.dial(key, address).await;
        let connection = dialed.map_err(|error| match error {
            // Voters' keys come from the secret and the names: another key is another secret.
            TransportError::Handshake { .. } => Failed::Transient(format!(
                "whoever answers at {address} does not hold this voter's key ({error}); \
                 give all nodes the same secret and network name, or an observer a new ticket"
            )),
            error => Failed::transient(error),
        })?;
        let admitted = self.confirm(voter, &connection).await;
        if admitted.is_err() {
            connection.close(code::REFUSED, "not admitted");
        }
        admitted
    }

    async fn confirm(
        self: &Arc<Self>,
        voter: NodeId,
        connection: &Arc<dyn Connection>,
    ) -> Result<(), Failed> {
        let binding = Binding {
            exported: connection.binding().map_err(Failed::transient)?,
            dialer: self.transport.local_key().0,
            acceptor: connection.remote_key().0,
        };
        let asked = self.remembered(self.kind, voter);
        let memory = asked.as_ref().map(Peer::memory);
        let claim = self.own_claim(self.kind);
        let hello = Hello::new(&self.terms, self.kind, &binding, claim, memory)
            .ok_or_else(|| Failed::transient("this node lacks the key to ask as a voter"))?;
        let asked_at = Instant::now();
        let welcome: Welcome = exchange(connection, hello.to_bytes()).await?;
        let hearing = Arc::new(Hearing::new(asked_at.elapsed()));
        welcome.check(&self.terms, self.kind, &binding)?;
        let mut boot = None;
        if let Some(past) = &welcome.past {
            boot = Some(past.boot);
            let boots = welcome.boots.as_deref();
            self.judge(voter, asked.as_ref(), past, boots).await?;
        }
        let confirm = Confirm {
            sequence: self.book.as_ref().map_or(0, |book| book.sequence()),
            boots: self.own_boots(self.kind, &welcome.remembers),
        };
        let Admitted = exchange(connection, confirm.to_bytes()).await?;
        if self.kind == Kind::Voter {
            self.qualified_by(voter).await?;
        }
        let link = Link {
            node: voter,
            connection: connection.clone(),
            dialer: self.me,
            boot,
            hearing,
        };
        if self.add(link) {
            Ok(())
        } else {
            // The other side may have this one alone, for a moment yet: it is no loss to it.
            connection.close(code::REPLACED, "linked by the other side meanwhile");
            Err(Failed::transient("linked by the other side meanwhile"))
        }
    }
}

/// One question and its answer during admission.
async fn exchange<T: crate::codec::Decode<()>>(
    connection: &Arc<dyn Connection>,
    question: Vec<u8>,
) -> Result<T, Failed> {
    let request = connection.request(question, ADMISSION_BYTES_MAX);
    let answer = timeout(Duration::from_millis(ADMISSION_MS), request)
        .await
        .map_err(|_| Failed::transient("admission took too long"))?
        .map_err(Failed::transient)?;
    let answer = answer_from_bytes::<T>(&answer).map_err(Failed::transient)?;
    answer.map_err(Failed::Refused)
}
