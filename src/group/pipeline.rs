//! Replicating to one follower without waiting for what may arrive in any order.
//!
//! Entries are sent one message at a time: a message that overtook the one before it would be
//! refused. A message without entries only tells how far the log is committed. Everything that it
//! refers to is acknowledged, so the next entry need not wait for its answer: else each write that
//! follows another would take a round trip more. Where several come at a time they do wait, and
//! travel and are synced together.

use std::collections::VecDeque;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesOrdered, Stream, StreamExt, unfold};
use openraft::error::{RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};

use super::peer::Peer;
use super::raft::Types;

/// The most messages to one follower that wait for their answers at once.
const UNANSWERED_MAX: usize = 4;

type Answer = Result<StreamAppendResult<Types>, RPCError<Types>>;

struct Pipeline<'s, S> {
    peer: &'s Peer,
    within: Duration,
    input: S,
    /// The answer, and whether anything may be sent after it.
    unanswered: FuturesOrdered<BoxFuture<'s, (Answer, bool)>>,
    /// Of each unanswered message: whether it carries entries.
    carries: VecDeque<bool>,
    /// How many entries came together the last time that any came.
    came_together: usize,
    ended: bool,
}

/// Sends what `input` yields and yields the answers, in the same order.
pub(super) fn pipelined<'s, S>(peer: &'s Peer, input: S, within: Duration) -> BoxStream<'s, Answer>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    let pipeline = Pipeline {
        peer,
        within,
        input,
        unanswered: FuturesOrdered::new(),
        carries: VecDeque::new(),
        came_together: 0,
        ended: false,
    };
    unfold(pipeline, next).boxed()
}

async fn next<'s, S>(mut pipeline: Pipeline<'s, S>) -> Option<(Answer, Pipeline<'s, S>)>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    loop {
        let unanswered_max = match pipeline.came_together {
            0..=1 => UNANSWERED_MAX,
            _ => 1,
        };
        let may_send = !pipeline.ended
            && pipeline.carries.len() < unanswered_max
            && pipeline.carries.back() != Some(&true);
        tokio::select! {
            biased;
            Some((answer, goes_on)) = pipeline.unanswered.next() => {
                let carried = pipeline.carries.pop_front();
                if goes_on && (carried, pipeline.carries.front()) == (Some(false), Some(&false)) {
                    // The answer to the next one says the same, and later. openraft takes this one
                    // for the answer to both: a leader would count as confirmed by a message that
                    // nobody has answered yet, and a linearizable read would miss what came between.
                    continue;
                }
                if !goes_on {
                    pipeline.ended = true;
                    pipeline.unanswered.clear();
                    pipeline.carries.clear();
                }
                return Some((answer, pipeline));
            }
            request = pipeline.input.next(), if may_send => match request {
                Some(request) => {
                    let entries = request.entries.len();
                    pipeline.carries.push_back(entries > 0);
                    if entries > 0 {
                        pipeline.came_together = entries;
                    }
                    let sent = send(pipeline.peer, request, pipeline.within);
                    pipeline.unanswered.push_back(Box::pin(sent));
                }
                None => pipeline.ended = true,
            },
            else => return None,
        }
    }
}

async fn send(
    peer: &Peer,
    request: AppendEntriesRequest<Types>,
    within: Duration,
) -> (Answer, bool) {
    let prev = request.prev_log_id;
    let last = request.entries.last().map(|entry| entry.log_id).or(prev);
    match peer.append(request, within).await {
        // Nothing to go back to: an answer that makes no sense.
        Ok(AppendEntriesResponse::Conflict) if prev.is_none() => {
            let error = Unreachable::from_string("a conflict in front of the log");
            (Err(error.into()), false)
        }
        Ok(response) => {
            let result = response.into_stream_result(prev, last);
            // What is left of a message that was taken in part is sent anew.
            let goes_on = matches!(&result, Ok(upto) if *upto == last);
            (Ok(result), goes_on)
        }
        Err(error) => (Err(error), false),
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
