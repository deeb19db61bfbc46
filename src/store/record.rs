//! The bytes of the log: segment headers and groups.
//!
//! A group is what one append and one sync carry: the batches that were queued together, in
//! order. It counts whole or not at all. All numbers are little-endian.
//!
//! ```text
//! segment header   magic 8 | version 4 | epoch 4 | id 8 | first sequence 8 | zeros 28 | crc 4
//! group header     magic 3 | version 1 | epoch 4 | first sequence 8 | batches 4
//!                  | payload bytes 4 | payload crc 4 | header crc 4
//! operation        key bytes 4 | value bytes 4 (all ones: delete) | key | value
//! ```
//!
//! Both checksums of a group are salted with the id of its segment, so that bytes of another
//! segment, or a copy of a log inside a value, never pass for a group.

use super::batch::{Batch, Op};

pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const GROUP_HEADER_BYTES: usize = 32;
pub(super) const FORMAT_VERSION: u8 = 1;

/// The electorate's epoch; another one needs a build that knows what it means.
const EPOCH: u32 = 0;
const SEGMENT_MAGIC: [u8; 8] = *b"onceLOG\n";
const GROUP_MAGIC: [u8; 3] = *b"oG\xb1";
const DELETE: u32 = u32::MAX;

/// No log gets as far as this, one batch at a time: what claims to is damaged, and whatever comes
/// next is a number, too.
const SEQUENCE_MAX: u64 = 1 << 62;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Torn, damaged, or never written.
    Bad,
    /// Whole, but of a version or an epoch that this build does not know.
    Version(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) id: u64,
    /// The sequence number of the first batch in this segment: every one before it was durable
    /// before the segment was created.
    pub(super) first_sequence: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&u32::from(FORMAT_VERSION).to_le_bytes());
        bytes[12..16].copy_from_slice(&EPOCH.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(Fault::Bad)?;
        if bytes[..8] != SEGMENT_MAGIC || crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(Fault::Bad);
        }
        known(u32_at(bytes, 8), u32_at(bytes, 12))?;
        Ok(Self {
            id: u64_at(bytes, 16),
            first_sequence: sequence_at(bytes, 24)?,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub(super) first_sequence: u64,
    pub(super) batches: u32,
    payload_bytes: u32,
    payload_crc: u32,
}

impl GroupHeader {
    /// Reads the header that starts at `bytes[0]`; says nothing about the payload behind it.
    pub(super) fn decode(id: u64, bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = bytes.get(..GROUP_HEADER_BYTES).ok_or(Fault::Bad)?;
        if bytes[..3] != GROUP_MAGIC || crc(id, &bytes[..28]) != u32_at(bytes, 28) {
            return Err(Fault::Bad);
        }
        known(u32::from(bytes[3]), u32_at(bytes, 4))?;
        Ok(Self {
            first_sequence: sequence_at(bytes, 8)?,
            batches: u32_at(bytes, 16),
            payload_bytes: u32_at(bytes, 20),
            payload_crc: u32_at(bytes, 24),
        })
    }
}

/// A group that is whole: header and payload pass their checksums.
pub(super) struct Group<'a> {
    pub(super) header: GroupHeader,
    payload: &'a [u8],
}

impl<'a> Group<'a> {
    pub(super) fn decode(id: u64, bytes: &'a [u8]) -> Result<Self, Fault> {
        let header = GroupHeader::decode(id, bytes)?;
        let payload = bytes[GROUP_HEADER_BYTES..]
            .get(..header.payload_bytes as usize)
            .ok_or(Fault::Bad)?;
        if crc(id, payload) != header.payload_crc {
            return Err(Fault::Bad);
        }
        Ok(Self { header, payload })
    }

    pub(super) fn bytes(&self) -> usize {
        GROUP_HEADER_BYTES + self.payload.len()
    }

    pub(super) fn ops(&self) -> Result<Vec<Op>, Fault> {
        let mut ops = Vec::new();
        let mut rest = self.payload;
        while !rest.is_empty() {
            let (lengths, behind) = rest.split_at_checked(8).ok_or(Fault::Bad)?;
            let (key, behind) = behind
                .split_at_checked(u32_at(lengths, 0) as usize)
                .ok_or(Fault::Bad)?;
            let value_bytes = u32_at(lengths, 4);
            if value_bytes == DELETE {
                ops.push((key.to_vec(), None));
                rest = behind;
            } else {
                let (value, behind) = behind
                    .split_at_checked(value_bytes as usize)
                    .ok_or(Fault::Bad)?;
                ops.push((key.to_vec(), Some(value.to_vec())));
                rest = behind;
            }
        }
        Ok(ops)
    }
}

/// Encodes one group into `buffer`, which is cleared first.
///
/// The caller keeps the sum of all batches under 4 GiB (`GROUP_BYTES_MAX` and
/// `BATCH_BYTES_MAX` do), so no length is cut here.
pub(super) fn encode_group<'a>(
    buffer: &mut Vec<u8>,
    id: u64,
    first_sequence: u64,
    batches: impl Iterator<Item = &'a Batch>,
) {
    buffer.clear();
    buffer.resize(GROUP_HEADER_BYTES, 0);
    let mut count = 0_u32;
    for batch in batches {
        count += 1;
        for (key, value) in batch.ops() {
            buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
            let value_bytes = value.as_ref().map_or(DELETE, |value| value.len() as u32);
            buffer.extend_from_slice(&value_bytes.to_le_bytes());
            buffer.extend_from_slice(key);
            buffer.extend_from_slice(value.as_deref().unwrap_or_default());
        }
    }
    let payload_bytes = (buffer.len() - GROUP_HEADER_BYTES) as u32;
    let payload_crc = crc(id, &buffer[GROUP_HEADER_BYTES..]);
    buffer[..3].copy_from_slice(&GROUP_MAGIC);
    buffer[3] = FORMAT_VERSION;
    buffer[4..8].copy_from_slice(&EPOCH.to_le_bytes());
    buffer[8..16].copy_from_slice(&first_sequence.to_le_bytes());
    buffer[16..20].copy_from_slice(&count.to_le_bytes());
    buffer[20..24].copy_from_slice(&payload_bytes.to_le_bytes());
    buffer[24..28].copy_from_slice(&payload_crc.to_le_bytes());
    let header_crc = crc(id, &buffer[..28]);
    buffer[28..32].copy_from_slice(&header_crc.to_le_bytes());
}

/// Where the first valid group header at or behind `from` starts.
pub(super) fn find_group_header(id: u64, bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(rest) = bytes.get(at..) {
        at += rest.iter().position(|&byte| byte == GROUP_MAGIC[0])?;
        if GroupHeader::decode(id, &bytes[at..]) != Err(Fault::Bad) {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn known(version: u32, epoch: u32) -> Result<(), Fault> {
    if version != u32::from(FORMAT_VERSION) {
        return Err(Fault::Version(u64::from(version)));
    }
    if epoch != EPOCH {
        return Err(Fault::Version(u64::from(version) | u64::from(epoch) << 32));
    }
    Ok(())
}

fn crc(id: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// Callers pass slices whose length they have checked.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The first batch has number 1.
fn sequence_at(bytes: &[u8], at: usize) -> Result<u64, Fault> {
    match u64_at(bytes, at) {
        sequence @ 1..=SEQUENCE_MAX => Ok(sequence),
        _ => Err(Fault::Bad),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> (Vec<u8>, Vec<Batch>) {
        let mut one = Batch::default();
        one.put(b"key".to_vec(), b"value".to_vec());
        one.put(b"".to_vec(), b"".to_vec());
        let mut two = Batch::default();
        two.delete(b"gone".to_vec());
        let batches = vec![one, two];
        let mut bytes = Vec::new();
        encode_group(&mut bytes, 7, 41, batches.iter());
        (bytes, batches)
    }

    #[test]
    fn a_group_round_trips() {
        let (mut bytes, batches) = group();
        let whole = bytes.len();
        bytes.extend_from_slice(&[0; 50]);
        let group = Group::decode(7, &bytes).unwrap();
        assert_eq!(group.bytes(), whole);
        assert_eq!((group.header.first_sequence, group.header.batches), (41, 2));
        let expected: Vec<Op> = batches.into_iter().flat_map(Batch::into_ops).collect();
        assert_eq!(group.ops().unwrap(), expected);
    }

    #[test]
    fn every_flipped_bit_of_a_group_is_noticed() {
        let (bytes, _) = group();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Group::decode(7, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_of_a_group_and_another_segments_group_are_bad() {
        let (bytes, _) = group();
        for length in 0..bytes.len() {
            assert!(Group::decode(7, &bytes[..length]).is_err(), "{length}");
        }
        assert!(Group::decode(8, &bytes).is_err());
        assert!(Group::decode(7, &[0; 100]).is_err());
    }

    #[test]
    fn a_header_is_found_behind_damage() {
        let (bytes, _) = group();
        let mut log = b"oG oG".to_vec();
        log.extend_from_slice(&bytes);
        assert_eq!(find_group_header(7, &log, 0), Some(5));
        assert_eq!(find_group_header(7, &log, 6), None);
        assert_eq!(find_group_header(8, &log, 0), None);
    }

    /// Their checksums are right: only the numbers are not.
    #[test]
    fn numbers_that_no_log_reaches_are_bad() {
        for first_sequence in [0, SEQUENCE_MAX + 1, u64::MAX] {
            let header = SegmentHeader {
                id: 3,
                first_sequence,
            };
            assert_eq!(SegmentHeader::decode(&header.encode()), Err(Fault::Bad));
            let mut bytes = Vec::new();
            encode_group(&mut bytes, 7, first_sequence, group().1.iter());
            assert!(Group::decode(7, &bytes).is_err());
        }
    }

    #[test]
    fn a_segment_header_round_trips_and_every_flipped_bit_is_noticed() {
        let header = SegmentHeader {
            id: 3,
            first_sequence: 9,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        assert_eq!(SegmentHeader::decode(&bytes[..63]), Err(Fault::Bad));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), Err(Fault::Bad), "{bit}");
        }
    }
}
