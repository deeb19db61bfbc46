//! What a replica answers to the messages of Raft: between the structs of the wire and openraft's.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
};

use crate::id::NodeId;
use crate::probe;

use super::raft::{Snapshot, SnapshotMeta, StoredVote, Vote};
use super::replica::Replica;
use super::runtime::quietly;
use super::wire::{RaftRequest, RaftResponse};

impl Replica {
    /// Answers a Raft message of another voter.
    pub(crate) async fn answer(&self, request: RaftRequest) -> Result<RaftResponse, String> {
        quietly(&self.quiet, self.answer_aloud(request)).await
    }

    async fn answer_aloud(&self, request: RaftRequest) -> Result<RaftResponse, String> {
        match request {
            RaftRequest::Append {
                vote,
                prev,
                entries,
                committed,
            } => {
                let request = AppendEntriesRequest {
                    vote: vote.into(),
                    prev_log_id: prev.map(Into::into),
                    entries: entries.into_iter().map(Into::into).collect(),
                    leader_commit: committed.map(Into::into),
                };
                let answer = self.raft.append_entries(request).await;
                Ok(match answer.map_err(|error| error.to_string())? {
                    AppendEntriesResponse::Success => RaftResponse::Appended,
                    AppendEntriesResponse::PartialSuccess(at) => {
                        RaftResponse::AppendedUpTo(at.as_ref().map(Into::into))
                    }
                    AppendEntriesResponse::Conflict => RaftResponse::Conflict,
                    AppendEntriesResponse::HigherVote(vote) => {
                        RaftResponse::HigherVote((&vote).into())
                    }
                })
            }
            RaftRequest::Vote {
                vote,
                last,
                transfer,
                pre,
            } => {
                let request = VoteRequest {
                    vote: vote.into(),
                    last_log_id: last.map(Into::into),
                    leadership_transfer: transfer,
                };
                let answer = if pre {
                    Box::pin(self.raft.pre_vote(request)).await
                } else {
                    Box::pin(self.raft.vote(request)).await
                };
                let answer = answer.map_err(|error| error.to_string())?;
                if answer.vote_granted && !pre {
                    let candidate = NodeId::from_u64(answer.vote.leader_id.voted_for);
                    let term = answer.vote.leader_id.term;
                    probe::granted(self.peers.me(), self.group, term, candidate);
                }
                Ok(RaftResponse::Vote {
                    vote: (&answer.vote).into(),
                    granted: answer.vote_granted,
                    last: answer.last_log_id.as_ref().map(Into::into),
                })
            }
            RaftRequest::Snapshot { vote, meta, data } => {
                let snapshot = Snapshot {
                    meta: SnapshotMeta::from(&meta),
                    snapshot: data,
                };
                let answer = Box::pin(self.raft.install_full_snapshot(vote.into(), snapshot)).await;
                let answer = answer.map_err(|error| error.to_string())?;
                Ok(RaftResponse::Snapshot {
                    vote: (&answer.vote).into(),
                })
            }
            RaftRequest::Transfer { from, to, last } => {
                let from: Vote = StoredVote::into(from);
                let request = TransferLeaderRequest::new(from, to.as_u64(), last.map(Into::into));
                let answer = Box::pin(self.raft.handle_transfer_leader(request)).await;
                Ok(match answer.map_err(|error| error.to_string())? {
                    Ok(()) => RaftResponse::Transferred,
                    Err(_) => RaftResponse::NotTransferred,
                })
            }
        }
    }
}
