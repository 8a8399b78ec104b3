//! Bytes that leave a pack: a file shows the same from local data.

use super::Draft;
use super::content::{WriteBytes, part, pieces, windows_of};
use crate::error::{FsError, FsResult};
use crate::op::{Evacuation, Payload};
use crate::schema::{Extent, Place};
use std::sync::Arc;

/// Replaces what still shows exactly these bytes of the frame: whatever was written, copied or cut there meanwhile stays.
pub fn evacuate(draft: &mut Draft<'_>, from: &Evacuation, payload: &Payload) -> FsResult<()> {
    let wrong = || FsError::corrupt("an evacuation of more than one piece of one window");
    let pieces = pieces(WriteBytes { offset: from.offset, len: from.len, payload })?;
    let windows: Vec<_> = windows_of(from.offset, u64::from(from.len)).collect();
    let ([(_, _, place)], [(window, first, end)]) = (pieces.as_slice(), windows.as_slice()) else {
        return Err(wrong());
    };
    let mut value = draft.window(from.ino, *window)?;
    let shown = |piece: &Extent| match &piece.place {
        Place::Frame { frame, within } => {
            *frame == from.frame && from.within.checked_add(piece.start - first) == Some(*within)
        }
        _ => false,
    };
    let same: Vec<Extent> =
        value.extents.iter().filter_map(|extent| extent.slice(*first, *end)).filter(shown).collect();
    if same.is_empty() {
        return Ok(());
    }
    let replaced = Arc::make_mut(&mut value);
    for Extent { start, len, .. } in same {
        replaced.put(Extent { start, len, place: part(place, start - first, len) });
    }
    draft.put_window(from.ino, *window, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::apply;
    use crate::base::EmptyBase;
    use crate::ids::{Ino, PackNo, SegmentNo, Xid};
    use crate::op::{CopyRange, Op, Privileges, Record};
    use crate::schema::{BlobRef, FileKind, FrameRef, InodeValue, Key, Time, Value, WINDOW_BYTES, WindowValue};
    use crate::stack::{Change, ChangeList, Overlay, Stack, Tiers};
    use bytes::Bytes;
    use std::sync::Arc;

    const FILE: Ino = Ino(2);

    fn frame(offset: u64) -> FrameRef {
        FrameRef { pack: PackNo(4), offset, stored_len: 90, raw_len: 10_000, hash: [1; 16] }
    }

    fn packed(start: u32, len: u32, within: u32) -> Extent {
        Extent { start, len, place: Place::Frame { frame: frame(0), within } }
    }

    fn local(start: u32, len: u32, within: u32) -> Extent {
        let blob = BlobRef { segment: SegmentNo(1), offset: 4096, len: 1000, crc: 1 };
        Extent { start, len, place: Place::Segment { blob, within } }
    }

    fn inode() -> InodeValue {
        let time = Time { secs: 5, nanos: 6 };
        InodeValue {
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 1,
            gid: 2,
            nlink: 1,
            rdev: 0,
            size: 2 << 20,
            stored: 1000,
            atime: time,
            mtime: time,
            ctime: time,
            parent: Ino::ROOT,
            name: Bytes::from_static(b"file"),
            target: Bytes::new(),
        }
    }

    /// A file whose second window shows 1,000 bytes of a frame, from byte 500 of it on.
    struct File(Stack);

    impl File {
        fn new() -> Self {
            let stack = Stack::read_only(Arc::new(EmptyBase));
            stack.swap(Tiers { active: Some(Arc::new(Overlay::default())), ..stack.load().duplicate() });
            let inode = inode();
            let window = WindowValue { extents: vec![packed(100, 1000, 500)] };
            let mut list = ChangeList::default();
            list.changes.push(Change::Put(Key::inode(FILE), Value::Inode(Arc::new(inode))));
            list.changes.push(Change::Put(Key::window(FILE, 1), Value::Window(Arc::new(window))));
            stack.load().active.as_ref().unwrap().apply(&list, Xid(1));
            Self(stack)
        }

        fn run(&self, op: Op, payload: Payload) {
            let tiers = self.0.load();
            let mut draft = Draft::new(tiers.view());
            let time = Time { secs: 77, nanos: 0 };
            apply(&Record { time, op, payload, requested: None }, &mut draft).unwrap();
            tiers.active.as_ref().unwrap().apply(&draft.into_changes(), Xid(2));
        }

        /// Evacuates what the file showed in the beginning.
        fn evacuate(&self, frame: FrameRef) {
            let from = Evacuation { ino: FILE, offset: WINDOW_BYTES + 100, len: 1000, frame, within: 500 };
            let Place::Segment { blob, .. } = local(0, 1, 0).place else { unreachable!() };
            self.run(Op::Evacuate(from), Payload::Stored(vec![blob]));
        }

        fn extents(&self) -> Vec<Extent> {
            self.0.load().view().window(FILE, 1).unwrap().extents.clone()
        }
    }

    #[test]
    fn the_same_bytes_are_shown_from_local_data_and_nothing_else_changes() {
        let file = File::new();
        let before = file.0.load().view().inode(FILE).unwrap();
        file.evacuate(frame(0));
        assert_eq!(file.extents(), [local(100, 1000, 0)]);
        assert_eq!(file.0.load().view().inode(FILE).unwrap(), before);
    }

    #[test]
    fn what_was_written_meanwhile_stays() {
        let file = File::new();
        let privileges = Privileges::Keep;
        let write = Op::Write { ino: FILE, offset: WINDOW_BYTES + 300, len: 4, privileges };
        file.run(write, Payload::Inline(Bytes::from_static(b"newx")));
        let hole = crate::op::AllocateMode::PunchHole;
        file.run(
            Op::Allocate { ino: FILE, offset: WINDOW_BYTES + 900, len: 100, mode: hole, privileges },
            Payload::None,
        );
        file.evacuate(frame(0));
        let new = Extent { start: 300, len: 4, place: Place::Inline(Bytes::from_static(b"newx")) };
        assert_eq!(file.extents(), [local(100, 200, 0), new, local(304, 596, 204), local(1000, 100, 900)]);
    }

    #[test]
    fn other_bytes_of_the_same_frame_are_not_taken_for_these() {
        let file = File::new();
        // The file now shows, at the place in question, bytes 700.. of the frame and no more 500...
        let range = CopyRange {
            from: FILE,
            from_offset: WINDOW_BYTES + 300,
            to: FILE,
            to_offset: WINDOW_BYTES + 100,
            len: 200,
        };
        file.run(Op::CopyRange { range, privileges: Privileges::Keep }, Payload::None);
        file.evacuate(frame(0));
        assert_eq!(file.extents(), [packed(100, 200, 700), local(300, 800, 200)]);
        let file = File::new();
        file.evacuate(frame(90));
        assert_eq!(file.extents(), [packed(100, 1000, 500)], "another frame");
    }
}
