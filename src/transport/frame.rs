//! Frames on a stream: a length (u32, little endian), that many bytes, the end of the stream.

use super::{Budget, Charge, TransportError};

/// Bytes of the length in front of a frame.
pub(super) const PREFIX_BYTES: usize = 4;

/// The most bytes reserved for a frame before its bytes have arrived, so that a length alone
/// costs the peer more to send than us to believe.
const RESERVE_BYTES_MAX: usize = 64 * 1024;

/// The length to send in front of a frame of this many bytes.
pub(super) fn prefix(bytes: usize) -> Result<[u8; PREFIX_BYTES], TransportError> {
    let length = u32::try_from(bytes).map_err(|_| TransportError::FrameTooLarge {
        bytes,
        bytes_max: u32::MAX as usize,
    })?;
    Ok(length.to_le_bytes())
}

/// A frame that is being put together from the pieces in which it arrives.
pub(super) struct FrameReader<'a> {
    bytes_max: usize,
    /// What pays for the frame, as soon as its length is known.
    budget: Option<&'a Budget>,
    charge: Option<Charge>,
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// Known once `prefix` is complete; never more than `bytes_max`.
    length: usize,
    body: Vec<u8>,
}

impl<'a> FrameReader<'a> {
    pub(super) fn new(bytes_max: usize, budget: Option<&'a Budget>) -> Self {
        Self {
            bytes_max,
            budget,
            charge: None,
            prefix: [0; PREFIX_BYTES],
            prefix_len: 0,
            length: 0,
            body: Vec::new(),
        }
    }

    /// Takes the next piece of the stream.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), TransportError> {
        if self.prefix_len < PREFIX_BYTES {
            let taken = piece.len().min(PREFIX_BYTES - self.prefix_len);
            self.prefix[self.prefix_len..][..taken].copy_from_slice(&piece[..taken]);
            self.prefix_len += taken;
            piece = &piece[taken..];
            if self.prefix_len < PREFIX_BYTES {
                return Ok(());
            }
            self.length = u32::from_le_bytes(self.prefix) as usize;
            if self.length > self.bytes_max {
                return Err(TransportError::FrameTooLarge {
                    bytes: self.length,
                    bytes_max: self.bytes_max,
                });
            }
            if let Some(budget) = self.budget {
                let bytes = self.length;
                let charge = budget.take(bytes);
                self.charge = Some(charge.ok_or(TransportError::OverBudget { bytes })?);
            }
            self.body.reserve_exact(self.length.min(RESERVE_BYTES_MAX));
        }
        if piece.len() > self.length - self.body.len() {
            return Err(TransportError::Malformed("bytes behind the frame"));
        }
        let needed = self.body.len() + piece.len();
        if needed > self.body.capacity() {
            // It may double, but never beyond what was paid for.
            let capacity = needed.max(2 * self.body.capacity()).min(self.length);
            self.body.reserve_exact(capacity - self.body.len());
        }
        self.body.extend_from_slice(piece);
        Ok(())
    }

    /// The frame, once the stream has ended, and what was charged for it.
    pub(super) fn finish(self) -> Result<(Vec<u8>, Option<Charge>), TransportError> {
        if self.prefix_len < PREFIX_BYTES || self.body.len() < self.length {
            return Err(TransportError::Malformed("the stream ended in the frame"));
        }
        Ok((self.body, self.charge))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]], bytes_max: usize) -> Result<Vec<u8>, TransportError> {
        let mut reader = FrameReader::new(bytes_max, None);
        pieces.iter().try_for_each(|piece| reader.push(piece))?;
        Ok(reader.finish()?.0)
    }

    #[test]
    fn a_frame_arrives_in_any_pieces() {
        let stream = [3, 0, 0, 0, b'a', b'b', b'c'];
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(read(&[head, tail], 3).unwrap(), b"abc");
        }
        assert_eq!(read(&[&[0, 0, 0, 0]], 0).unwrap(), b"");
    }

    #[test]
    fn bytes_behind_a_frame_and_missing_ones_are_errors() {
        let behind = read(&[&[1, 0, 0, 0, b'a', b'b']], 10);
        assert!(matches!(behind, Err(TransportError::Malformed(_))));
        let later = read(&[&[0, 0, 0, 0], b"x"], 10);
        assert!(matches!(later, Err(TransportError::Malformed(_))));
        for missing in [&[][..], &[1, 0, 0], &[1, 0, 0, 0]] {
            let ended = read(&[missing], 10);
            assert!(matches!(ended, Err(TransportError::Malformed(_))));
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_anything_is_allocated() {
        let mut reader = FrameReader::new(100, None);
        let refused = reader.push(&[0xff; 4]).unwrap_err();
        assert_eq!(
            refused,
            TransportError::FrameTooLarge {
                bytes: u32::MAX as usize,
                bytes_max: 100
            }
        );
        assert_eq!(reader.body.capacity(), 0);
    }

    #[test]
    fn a_length_within_the_limit_reserves_little_until_bytes_arrive() {
        let mut reader = FrameReader::new(usize::MAX, None);
        reader.push(&[0xff; 4]).unwrap();
        assert!(reader.body.capacity() <= RESERVE_BYTES_MAX);
    }

    #[test]
    fn a_frame_is_paid_for_before_anything_is_allocated() {
        let budget = Budget::alone(100);
        let mut reader = FrameReader::new(1000, Some(&budget));
        reader.push(&[60, 0, 0]).unwrap();
        assert!(budget.take(100).is_some(), "the length is not known yet");
        reader.push(&[0]).unwrap();
        assert!(budget.take(41).is_none());
        let mut other = FrameReader::new(1000, Some(&budget));
        let refused = other.push(&[41, 0, 0, 0]).unwrap_err();
        assert_eq!(refused, TransportError::OverBudget { bytes: 41 });
        assert_eq!(other.body.capacity(), 0);
        drop(other);
        reader.push(&[7; 60]).unwrap();
        let (frame, charge) = reader.finish().unwrap();
        assert_eq!(frame, [7; 60]);
        assert!(budget.take(41).is_none());
        drop(charge);
        assert!(budget.take(100).is_some());
    }

    #[test]
    fn a_frame_never_takes_more_memory_than_it_announced() {
        let length = 3 * RESERVE_BYTES_MAX + 5;
        let mut reader = FrameReader::new(usize::MAX, None);
        reader
            .push(&u32::try_from(length).unwrap().to_le_bytes())
            .unwrap();
        let piece = vec![1; 1000];
        for _ in 0..length / 1000 {
            reader.push(&piece).unwrap();
            assert!(reader.body.capacity() <= length);
        }
        reader.push(&piece[..length % 1000]).unwrap();
        assert_eq!(reader.finish().unwrap().0.len(), length);
    }
}
