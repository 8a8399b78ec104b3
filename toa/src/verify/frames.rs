//! The frames that index runs name, in the order in which packs hold them.

use super::error::VerifyError;
use super::scratch::Scratch;
use super::sort::{Row, Sorted, Sorter, number_at, short_at};
use kvfs::Ino;
use kvfs::ids::PackNo;
use kvfs::schema::{FrameRef, Place, WindowValue};

/// `pack u64 | offset u64 | stored u32 | raw u32 | hash | inode u64`
const ROW: usize = 48;
/// The part of a row that is the frame.
const FRAME: usize = 40;

/// A frame, and one of the inodes that have bytes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamedFrame {
    pub frame: FrameRef,
    pub ino: Ino,
}

/// Takes the frames of windows, in any order.
pub(super) struct FrameList<'s>(Sorter<'s, ROW>);

impl<'s> FrameList<'s> {
    pub fn new(scratch: &'s Scratch) -> Self {
        Self(Sorter::new(scratch))
    }

    pub fn add(&mut self, ino: Ino, window: &WindowValue) -> Result<(), VerifyError> {
        for extent in &window.extents {
            if let Place::Frame { frame, .. } = &extent.place {
                self.0.push(encode(frame, ino))?;
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Result<NamedFrames<'s>, VerifyError> {
        let mut rows = self.0.finish()?;
        let next = rows.next()?;
        Ok(NamedFrames { rows, next })
    }
}

/// The frames, pack by pack.
pub(super) struct NamedFrames<'s> {
    rows: Sorted<'s, ROW>,
    next: Option<[u8; ROW]>,
}

impl NamedFrames<'_> {
    /// The frames of `pack`, each once, by offset. Packs are asked for in ascending order.
    pub fn of(&mut self, pack: PackNo) -> Result<Vec<NamedFrame>, VerifyError> {
        let mut frames: Vec<NamedFrame> = Vec::new();
        while let Some(row) = self.next.filter(|row| number_at(row, 0) <= pack.0) {
            let named = decode(&row);
            if named.frame.pack == pack && frames.last().is_none_or(|last| last.frame != named.frame) {
                frames.push(named);
            }
            self.next = self.rows.next()?;
        }
        Ok(frames)
    }
}

fn encode(frame: &FrameRef, ino: Ino) -> [u8; ROW] {
    Row::new()
        .with(&frame.pack.0.to_be_bytes())
        .with(&frame.offset.to_be_bytes())
        .with(&frame.stored_len.to_be_bytes())
        .with(&frame.raw_len.to_be_bytes())
        .with(&frame.hash)
        .with(&ino.0.to_be_bytes())
        .finish()
}

fn decode(row: &[u8; ROW]) -> NamedFrame {
    let hash = row.get(24..FRAME).and_then(|hash| hash.try_into().ok()).unwrap_or_default();
    let frame = FrameRef {
        pack: PackNo(number_at(row, 0)),
        offset: number_at(row, 8),
        stored_len: short_at(row, 16),
        raw_len: short_at(row, 20),
        hash,
    };
    NamedFrame { frame, ino: Ino(number_at(row, FRAME)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvfs::schema::Extent;

    #[test]
    fn frames_come_pack_by_pack_and_once() {
        let scratch = Scratch::temporary();
        let mut list = FrameList::new(&scratch);
        let frame = |pack, offset| FrameRef { pack: PackNo(pack), offset, stored_len: 3, raw_len: 4, hash: [7; 16] };
        for (ino, pack, offset) in [(9, 3, 50), (8, 3, 50), (7, 1, 10), (7, 3, 2), (6, 2, 0)] {
            let place = Place::Frame { frame: frame(pack, offset), within: 0 };
            list.add(Ino(ino), &WindowValue { extents: vec![Extent { start: 0, len: 1, place }] }).unwrap();
        }
        let mut frames = list.finish().unwrap();
        assert_eq!(frames.of(PackNo(0)).unwrap(), []);
        assert_eq!(frames.of(PackNo(1)).unwrap(), [NamedFrame { frame: frame(1, 10), ino: Ino(7) }]);
        let third = [(2, 7), (50, 8)].map(|(offset, ino)| NamedFrame { frame: frame(3, offset), ino: Ino(ino) });
        assert_eq!(frames.of(PackNo(3)).unwrap(), third);
        assert_eq!(frames.of(PackNo(4)).unwrap(), []);
    }
}
