//! What a fuzzer does with frames on a stream.

use super::frame::{FrameReader, PREFIX_BYTES, prefix};

/// The first byte says how large a frame may be and in pieces of what size the stream comes.
pub(crate) fn frame(bytes: &[u8]) {
    let Some((&control, stream)) = bytes.split_first() else {
        return;
    };
    let bytes_max = [0, 1, 100, 64 * 1024, usize::MAX][usize::from(control % 5)];
    let piece_bytes = usize::from(control / 5) + 1;

    let mut reader = FrameReader::new(bytes_max, None);
    let pieces = stream.chunks(piece_bytes);
    let read = { pieces }
        .try_for_each(|piece| reader.push(piece))
        .and_then(|()| reader.finish());

    // A frame is read exactly if the stream is one.
    let frame = stream.split_first_chunk::<PREFIX_BYTES>();
    let frame = frame.filter(|(length, body)| {
        u32::from_le_bytes(**length) as usize == body.len() && body.len() <= bytes_max
    });
    assert_eq!(
        read.ok().map(|(frame, _)| frame).as_deref(),
        frame.map(|(_, body)| body)
    );
    if let Some((length, body)) = frame {
        assert_eq!(prefix(body.len()).as_ref(), Ok(length));
    }
}
