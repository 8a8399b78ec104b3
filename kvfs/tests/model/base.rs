//! A base in memory, made from the changes of a snapshot as an agent would make it.

use bytes::Bytes;
use kvfs::FsResult;
use kvfs::base::{Base, BaseError, Totals, Visit};
use kvfs::changes::ChangeSet;
use kvfs::ids::{Ino, PackNo, Xid};
use kvfs::schema::key::Parts;
use kvfs::schema::{FrameRef, Key, Place, Space, Value};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

#[derive(Clone, Default)]
pub(crate) struct MemoryBase {
    rows: BTreeMap<Vec<u8>, Bytes>,
    frames: BTreeMap<u64, Bytes>,
    xid: u64,
    ino_end: u64,
    totals: Totals,
}

impl MemoryBase {
    /// The snapshot that `changes` make of this one.
    pub(crate) fn next(&self, changes: &dyn ChangeSet) -> FsResult<Self> {
        assert_eq!(changes.xid_from(), Xid(self.xid), "changes must follow their base");
        let mut next = self.clone();
        let mut rows = Vec::new();
        changes
            .scan(&[], &[0xff; 10], &mut |key, value| {
                rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
                ControlFlow::Continue(())
            })
            .unwrap();
        for pair in rows.windows(2) {
            assert!(pair[0].0 < pair[1].0, "changes come in key order");
        }
        for (key, bytes) in rows {
            next.take(changes, &key, &bytes)?;
        }
        (next.xid, next.ino_end) = (changes.xid().0, changes.ino_end().0);
        next.totals = changes.totals();
        Ok(next)
    }

    fn take(&mut self, changes: &dyn ChangeSet, key: &[u8], bytes: &Bytes) -> FsResult<()> {
        let parts = Parts::parse(key).unwrap();
        let (xid, value) = Value::decode(bytes).unwrap();
        assert_eq!(changes.get(key).unwrap().as_ref(), Some(bytes), "get and scan agree");
        match value {
            Value::Orphan => {}
            Value::Cut(first) => {
                self.drop_range(&Key::window(parts.ino, first), &Key::end_of(parts.ino, Space::Window));
            }
            Value::Tombstone => {
                if parts.space == Space::Inode {
                    self.drop_range(&Key::inode(parts.ino), &Key::first_of(parts.ino, Space::Dirent));
                }
                self.rows.remove(key);
            }
            Value::Inode(inode) if inode.nlink == 0 => {
                self.drop_range(&Key::inode(parts.ino), &Key::first_of(parts.ino, Space::Dirent));
            }
            Value::Window(mut window) => {
                for extent in &mut Arc::make_mut(&mut window).extents {
                    if let Place::Segment { blob, within } = &extent.place {
                        let raw = changes.read_blob(blob)?;
                        let offset = self.frames.len() as u64;
                        let hash = [0; 16];
                        let (stored_len, raw_len) = (raw.len() as u32, raw.len() as u32);
                        self.frames.insert(offset, raw);
                        let frame = FrameRef { pack: PackNo(1), offset, stored_len, raw_len, hash };
                        extent.place = Place::Frame { frame, within: *within };
                    }
                }
                if self.rows.contains_key(Key::inode(parts.ino).as_bytes()) {
                    self.rows.insert(key.to_vec(), Value::Window(window).encode(xid));
                }
            }
            _ if parts.space == Space::Xattr && !self.rows.contains_key(Key::inode(parts.ino).as_bytes()) => {}
            _ => {
                self.rows.insert(key.to_vec(), bytes.clone());
            }
        }
        Ok(())
    }

    fn drop_range(&mut self, from: &Key, end: &Key) {
        let (from, end) = (from.as_bytes().to_vec(), end.as_bytes().to_vec());
        self.rows.retain(|key, _| *key < from || *key >= end);
    }
}

impl Base for MemoryBase {
    fn xid(&self) -> Xid {
        Xid(self.xid)
    }
    fn ino_end(&self) -> Ino {
        Ino(self.ino_end)
    }
    fn totals(&self) -> Totals {
        self.totals
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        Ok(self.rows.get(key).cloned())
    }
    fn scan(&self, from: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), BaseError> {
        for (key, value) in self.rows.range(from.to_vec()..end.to_vec()) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn read_frame(&self, frame: &FrameRef) -> Result<Bytes, BaseError> {
        self.frames.get(&frame.offset).cloned().ok_or_else(|| BaseError::Gone("frame".into()))
    }
}
