//! One record of an index run: whether a reader can live with it.

use crate::pack::FRAME_RAW_BYTES_MAX;
use kvfs::Xid;
use kvfs::schema::key::Parts;
use kvfs::schema::{FrameRef, Place, Space, Value};

/// Bytes of a key that is none, as they are shown.
const KEY_SHOWN: usize = 32;

/// A record that was taken apart.
pub(super) struct Record<'a> {
    pub parts: Parts<'a>,
    pub value: Value,
}

/// Takes a record apart, or says what is wrong with it. `xid`: nothing in the run is newer.
pub(super) fn check<'a>(key: &'a [u8], value: &[u8], xid: Xid) -> Result<Record<'a>, String> {
    let shown = key.get(..KEY_SHOWN).unwrap_or(key);
    let parts = Parts::parse(key).ok_or_else(|| format!("{shown:02x?} is not a key"))?;
    let (written, value) = Value::decode(value).map_err(|error| format!("{}: {error}", describe(&parts)))?;
    if written > xid {
        return Err(format!("{} was written by record {written}, and the run ends at {xid}", describe(&parts)));
    }
    if !fits(parts.space, &value) {
        return Err(format!("{} holds a value of another kind", describe(&parts)));
    }
    if let Value::Window(window) = &value {
        for extent in &window.extents {
            match &extent.place {
                Place::Inline(_) => {}
                Place::Segment { .. } => return Err(format!("{} lies on one machine only", describe(&parts))),
                Place::Frame { frame, .. } => {
                    check_frame(frame).map_err(|what| format!("{}: {what}", describe(&parts)))?;
                }
            }
        }
    }
    Ok(Record { parts, value })
}

/// What the record is about, for messages.
pub(super) fn describe(parts: &Parts<'_>) -> String {
    let ino = parts.ino;
    match parts.space {
        Space::Inode => format!("inode {ino}"),
        Space::Cut => format!("the cut of inode {ino}"),
        Space::Window => format!("window {} of inode {ino}", parts.number().unwrap_or_default()),
        Space::Xattr => format!("xattr {:?} of inode {ino}", String::from_utf8_lossy(parts.rest)),
        Space::Dirent => format!("entry {:?} of directory {ino}", String::from_utf8_lossy(parts.rest)),
        Space::Orphan => format!("the orphan mark of inode {}", parts.subject()),
        Space::Pack => format!("pack {}", parts.number().unwrap_or_default()),
        Space::PackUsers => format!("the users of pack {}", parts.number().unwrap_or_default()),
    }
}

fn fits(space: Space, value: &Value) -> bool {
    match (space, value) {
        // Marks never leave their machine.
        (Space::Orphan, _) => false,
        (_, Value::Tombstone)
        | (Space::Inode, Value::Inode(_))
        | (Space::Cut, Value::Cut(_))
        | (Space::Window, Value::Window(_))
        | (Space::Xattr, Value::Xattr(_))
        | (Space::Dirent, Value::Dirent(_))
        | (Space::Pack, Value::Pack(_))
        | (Space::PackUsers, Value::PackUsers(_)) => true,
        _ => false,
    }
}

fn check_frame(frame: &FrameRef) -> Result<(), String> {
    if frame.raw_len > FRAME_RAW_BYTES_MAX {
        return Err(format!("its frame has {} bytes, more than a reader accepts", frame.raw_len));
    }
    if frame.stored_len == 0 || frame.offset.checked_add(u64::from(frame.stored_len)).is_none() {
        return Err(format!("its frame of {} bytes at {} cannot be", frame.stored_len, frame.offset));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvfs::Ino;
    use kvfs::ids::PackNo;
    use kvfs::schema::{DirentValue, Extent, FileKind, Key, WindowValue};

    fn verdict(key: &Key, value: &Value) -> Result<(), String> {
        check(key.as_bytes(), &value.encode(Xid(5)), Xid(5)).map(drop)
    }

    fn window(frame: FrameRef) -> Value {
        let place = Place::Frame { frame, within: 0 };
        Value::Window(WindowValue { extents: vec![Extent { start: 0, len: 1, place }] }.into())
    }

    #[test]
    fn records_that_no_reader_can_live_with_are_named() {
        let entry = Value::Dirent(DirentValue { ino: Ino(9), kind: FileKind::Regular });
        verdict(&Key::dirent(Ino(1), b"name"), &entry).unwrap();
        verdict(&Key::inode(Ino(3)), &Value::Tombstone).unwrap();
        for name in [&b".."[..], b".", b"a/b", b"a\0"] {
            assert!(verdict(&Key::dirent(Ino(1), name), &entry).unwrap_err().contains("is not a key"));
        }
        assert!(verdict(&Key::inode(Ino(3)), &entry).unwrap_err().contains("inode 3 holds"));
        assert!(verdict(&Key::orphan(Ino(3)), &Value::Orphan).unwrap_err().contains("inode 3"));
        let newer = Value::Cut(1).encode(Xid(6));
        assert!(check(Key::cut(Ino(3)).as_bytes(), &newer, Xid(5)).is_err_and(|what| what.contains("record 6")));
        let frame = FrameRef { pack: PackNo(1), offset: 5, stored_len: 7, raw_len: 9, hash: [0; 16] };
        verdict(&Key::window(Ino(3), 0), &window(frame)).unwrap();
        for bad in [
            FrameRef { raw_len: FRAME_RAW_BYTES_MAX + 1, ..frame },
            FrameRef { stored_len: 0, ..frame },
            FrameRef { offset: u64::MAX, ..frame },
        ] {
            assert!(verdict(&Key::window(Ino(3), 0), &window(bad)).unwrap_err().contains("window 0 of inode 3"));
        }
    }
}
