//! A batch: puts and deletes that become durable and visible together or not at all.

/// One put (`Some`) or delete (`None`).
pub(super) type Op = (Vec<u8>, Option<Vec<u8>>);

/// What the two lengths of an operation take in the log.
const OP_OVERHEAD_BYTES: usize = 8;

/// The most bytes that one batch may take in the log.
pub(crate) const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Puts and deletes, applied in the order of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    ops: Vec<Op>,
    bytes: usize,
}

impl Batch {
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += OP_OVERHEAD_BYTES + key.len() + value.len();
        self.ops.push((key, Some(value)));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.bytes += OP_OVERHEAD_BYTES + key.len();
        self.ops.push((key, None));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The number of puts and deletes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// The bytes that this batch takes in the log.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub(super) fn into_ops(self) -> Vec<Op> {
        self.ops
    }
}

/// When a batch has to reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Sync as soon as the batch before it is synced.
    Now,
    /// Never ask for a sync: ride with the next `Now` batch, or
    /// [`LAZY_SYNC_AFTER_MS`](super::LAZY_SYNC_AFTER_MS) later at the latest.
    Lazy,
    /// Never ask for a sync and never cause one: ride with the next batch of another kind, or
    /// with the close. For a bounded number of batches only.
    Riding,
}
