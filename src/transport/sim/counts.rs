//! What was carried, in numbers.

/// What a [`SimNet`](super::SimNet) has carried since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimCounts {
    /// Messages that arrived: requests, replies, and what ends a stream or a connection.
    pub delivered: u64,
    /// Messages that were lost for good.
    pub dropped: u64,
    /// Those of them that were lost on links that are up ([`SimNet::set_loss`](super::SimNet::set_loss)).
    pub lost: u64,
    /// Requests that arrived twice.
    pub doubled: u64,
    /// Messages that arrived before one that was sent earlier in the same direction.
    pub reordered: u64,
    /// Connections that were opened.
    pub connections: u64,
}
