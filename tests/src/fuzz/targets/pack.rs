//! Frames of packs. Their hash is made right; readers parse nothing else of a pack.

use super::Pieces;
use crate::fuzz::{Target, verdict};
use kvfs::ids::PackNo;
use kvfs::schema::FrameRef;
use toa::pack::decode_frame;
use toa::run::hash128;

pub const FRAME: Target = Target { name: "frame", seeds: frames, words: &["\u{28}\u{b5}"], parse: frame };

fn frames() -> Vec<Vec<u8>> {
    let texts = [Vec::new(), b"abc".to_vec(), vec![7; 5000], (0..3000_u32).flat_map(u32::to_le_bytes).collect()];
    let seed = |text: &Vec<u8>| {
        let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
        bytes.extend(zstd::bulk::compress(text, 3).expect("compresses"));
        bytes
    };
    texts.iter().map(seed).collect()
}

/// The length that an index gives, and the stored bytes.
fn frame(bytes: &[u8]) -> String {
    let mut pieces = Pieces(bytes);
    let raw_len = pieces.number(4) as u32;
    let stored = pieces.0;
    let stored_len = stored.len() as u32;
    let frame = FrameRef { pack: PackNo(1), offset: 0, stored_len, raw_len, hash: hash128(stored) };
    match decode_frame(stored, &frame) {
        Ok(raw) => {
            assert_eq!(raw.len(), raw_len as usize);
            assert!(decode_frame(stored, &FrameRef { hash: [0; 16], ..frame }).is_err(), "another hash");
            assert!(decode_frame(stored, &FrameRef { raw_len: raw_len ^ 1, ..frame }).is_err(), "another length");
            "decodes".into()
        }
        Err(error) => verdict(&error),
    }
}
