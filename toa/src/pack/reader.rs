//! From the stored bytes of a frame to its raw bytes.

use super::FRAME_RAW_BYTES_MAX;
use super::error::PackError;
use bytes::Bytes;
use kvfs::schema::FrameRef;
use zstd::zstd_safe;

/// BLAKE3 of stored bytes, first 128 bits.
pub(super) fn hash_of(stored: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(blake3::hash(stored).as_bytes()) {
        *to = *from;
    }
    short
}

/// Checks `stored` against `frame`, then decompresses it (I6): nothing is decompressed before its hash is right, and
/// nothing is allocated beyond the length that index and frame agree on.
pub fn decode_frame(stored: &[u8], frame: &FrameRef) -> Result<Bytes, PackError> {
    let corrupt = |what| PackError::Corrupt { pack: frame.pack, offset: frame.offset, what };
    if stored.len() != frame.stored_len as usize {
        return Err(corrupt("the stored length is wrong"));
    }
    if hash_of(stored) != frame.hash {
        return Err(corrupt("the hash is wrong"));
    }
    if frame.raw_len > FRAME_RAW_BYTES_MAX {
        return Err(corrupt("the frame is larger than a reader accepts"));
    }
    match zstd_safe::get_frame_content_size(stored) {
        Ok(Some(size)) if size == u64::from(frame.raw_len) => {}
        _ => return Err(corrupt("the frame's own length is not that of the index")),
    }
    if zstd_safe::find_frame_compressed_size(stored) != Ok(stored.len()) {
        return Err(corrupt("the bytes are not exactly one frame"));
    }
    let raw =
        zstd::bulk::decompress(stored, frame.raw_len as usize).map_err(|_| corrupt("the frame does not decode"))?;
    if raw.len() != frame.raw_len as usize {
        return Err(corrupt("the raw length is wrong"));
    }
    Ok(raw.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvfs::ids::PackNo;
    use proptest::prelude::*;

    fn frame_of(stored: &[u8], raw_len: u32) -> FrameRef {
        FrameRef { pack: PackNo(1), offset: 0, stored_len: stored.len() as u32, raw_len, hash: hash_of(stored) }
    }

    #[test]
    fn only_the_right_frame_is_decoded() {
        let stored = zstd::bulk::compress(&[7; 5000], 3).unwrap();
        let frame = frame_of(&stored, 5000);
        assert_eq!(decode_frame(&stored, &frame).unwrap(), vec![7; 5000]);
        assert!(decode_frame(&stored, &FrameRef { raw_len: 4999, ..frame }).is_err());
        assert!(decode_frame(&stored, &FrameRef { hash: [0; 16], ..frame }).is_err());
        let twice = [stored.clone(), stored.clone()].concat();
        assert!(decode_frame(&twice, &frame_of(&twice, 5000)).is_err());
        let huge = frame_of(&stored, FRAME_RAW_BYTES_MAX + 1);
        assert_eq!(decode_frame(&stored, &huge).unwrap_err().kind(), super::super::PackErrorKind::Corrupt);
    }

    proptest! {
        #[test]
        fn garbage_with_a_right_hash_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            raw_len in 0u32..1000,
        ) {
            let _ = decode_frame(&bytes, &frame_of(&bytes, raw_len));
        }

        #[test]
        fn damage_behind_a_right_hash_never_gives_another_length(at in 0usize..100, bit in 0u8..8) {
            let mut stored = zstd::bulk::compress(&(0..2000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>(), 3).unwrap();
            let at = at % stored.len();
            stored[at] ^= 1 << bit;
            if let Ok(raw) = decode_frame(&stored, &frame_of(&stored, 8000)) {
                prop_assert_eq!(raw.len(), 8000);
            }
        }
    }
}
