//! A small filesystem that keeps both the truth and the records a real one would keep.

use crate::sides::{Blobs, Changes, PackDir, Records, Run, Snapshot};
use bytes::Bytes;
use kvfs::ids::PackNo;
use kvfs::schema::key::Parts;
use kvfs::schema::{
    DirentValue, Extent, FileKind, InodeValue, Key, Place, Space, Time, Value, WINDOW_BYTES, WindowValue,
};
use kvfs::{Ino, Xid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tempfile::TempDir;
use toa::collect::{CollectInput, Collected, Limits, Pins, collect};
use uuid::Uuid;

pub struct Node {
    pub value: InodeValue,
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Bytes>,
}

/// How an unlinked file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Open,
    No,
}

pub struct World {
    pub nodes: BTreeMap<Ino, Node>,
    pub names: BTreeMap<(Ino, Vec<u8>), Ino>,
    pub base: Snapshot,
    pub runs: Vec<Records>,
    pub limits: Limits,
    pub pins: Pins,
    pub dir: TempDir,
    changes: Records,
    blobs: Blobs,
    xid: Xid,
    next_ino: u64,
    next_pack: PackNo,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            base: Snapshot::default(),
            runs: Vec::new(),
            limits: Limits::default(),
            pins: Pins::default(),
            dir: tempfile::tempdir().unwrap(),
            changes: Records::new(),
            blobs: Blobs::default(),
            xid: Xid(0),
            next_ino: 1,
            next_pack: PackNo(1),
        };
        world.born(FileKind::Directory, Ino::ROOT, b"");
        world
    }

    fn put(&mut self, key: Key, value: &Value) {
        self.changes.insert(key.into_bytes(), value.encode(self.xid));
    }

    fn put_inode(&mut self, ino: Ino) {
        let value = self.nodes[&ino].value.clone();
        self.put(Key::inode(ino), &Value::Inode(value.into()));
    }

    fn born(&mut self, kind: FileKind, parent: Ino, name: &[u8]) -> Ino {
        let ino = Ino(self.next_ino);
        self.next_ino += 1;
        self.xid = self.xid.next();
        let time = Time { secs: 1_000_000 + ino.0 as i64, nanos: 5 };
        let value = InodeValue {
            kind,
            mode: if kind == FileKind::Directory { 0o755 } else { 0o640 },
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            size: 0,
            stored: 0,
            atime: time,
            mtime: time,
            ctime: time,
            parent,
            name: Bytes::copy_from_slice(name),
            target: Bytes::new(),
        };
        self.nodes.insert(ino, Node { value, content: Vec::new(), xattrs: BTreeMap::new() });
        self.put_inode(ino);
        ino
    }

    pub fn make(&mut self, kind: FileKind, parent: Ino, name: &[u8]) -> Ino {
        let ino = self.born(kind, parent, name);
        self.names.insert((parent, name.to_vec()), ino);
        self.put(Key::dirent(parent, name), &Value::Dirent(DirentValue { ino, kind }));
        ino
    }

    pub fn file(&mut self, parent: Ino, name: &[u8], content: &[u8]) -> Ino {
        let ino = self.make(FileKind::Regular, parent, name);
        self.write(ino, 0, content);
        ino
    }

    pub fn symlink(&mut self, parent: Ino, name: &[u8], target: &[u8]) {
        let ino = self.make(FileKind::Symlink, parent, name);
        let value = &mut self.nodes.get_mut(&ino).unwrap().value;
        (value.target, value.size) = (Bytes::copy_from_slice(target), target.len() as u64);
        self.put_inode(ino);
    }

    /// The window as the layers and the base show it.
    fn window(&self, ino: Ino, number: u64) -> WindowValue {
        let key = Key::window(ino, number);
        let cut = self.changes.get(Key::cut(ino).as_bytes()).map(|value| Value::decode(value).unwrap().1);
        let is_cut = matches!(cut, Some(Value::Cut(first)) if first <= number);
        let below = || self.base.records.get(key.as_bytes()).filter(|_| !is_cut);
        match self.changes.get(key.as_bytes()).or_else(below).map(|value| Value::decode(value).unwrap().1) {
            Some(Value::Window(window)) => Arc::unwrap_or_clone(window),
            _ => WindowValue::default(),
        }
    }

    fn put_extent(&mut self, ino: Ino, number: u64, extent: Extent) {
        let mut window = self.window(ino, number);
        window.put(extent);
        self.put(Key::window(ino, number), &Value::Window(window.into()));
    }

    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) {
        self.xid = self.xid.next();
        let mut at = offset;
        for chunk in cut_at_windows(offset, bytes) {
            let (number, start) = (at / WINDOW_BYTES, (at % WINDOW_BYTES) as u32);
            let place = if chunk.len() <= 300 {
                Place::Inline(Bytes::copy_from_slice(chunk))
            } else {
                // A blob that begins before and ends behind the extent, as after an overwrite.
                let padded = [b"<<", chunk, b">>>"].concat();
                Place::Segment { blob: self.blobs.add(padded.into()), within: 2 }
            };
            self.put_extent(ino, number, Extent { start, len: chunk.len() as u32, place });
            at += chunk.len() as u64;
        }
        let node = self.nodes.get_mut(&ino).unwrap();
        let end = offset as usize + bytes.len();
        if node.content.len() < end {
            node.content.resize(end, 0);
        }
        node.content[offset as usize..end].copy_from_slice(bytes);
        node.value.size = node.content.len() as u64;
        self.put_inode(ino);
    }

    pub fn truncate(&mut self, ino: Ino, size: u64) {
        self.xid = self.xid.next();
        let node = self.nodes.get_mut(&ino).unwrap();
        let shrinks = size < node.value.size;
        node.content.resize(size as usize, 0);
        node.value.size = size;
        if shrinks {
            let first = size.div_ceil(WINDOW_BYTES);
            let old = self.changes.get(Key::cut(ino).as_bytes()).map(|value| Value::decode(value).unwrap().1);
            let least = if let Some(Value::Cut(old)) = old { old.min(first) } else { first };
            self.put(Key::cut(ino), &Value::Cut(least));
            let dead = Key::window(ino, first).into_bytes()..Key::end_of(ino, Space::Window).into_bytes();
            let keys: Vec<_> = self.changes.range(dead).map(|(key, _)| key.clone()).collect();
            self.changes.retain(|key, _| !keys.contains(key));
            if !size.is_multiple_of(WINDOW_BYTES) {
                let mut window = self.window(ino, size / WINDOW_BYTES);
                window.clear((size % WINDOW_BYTES) as u32, WINDOW_BYTES as u32);
                self.put(Key::window(ino, size / WINDOW_BYTES), &Value::Window(window.into()));
            }
        }
        self.put_inode(ino);
    }

    /// Shares extents, as `copy_file_range` does: at any distance, across windows, at most up to the source's end.
    pub fn share(&mut self, from: (Ino, u64), to: (Ino, u64), len: u64) {
        let len = len.min((self.nodes[&from.0].content.len() as u64).saturating_sub(from.1));
        if len == 0 || (from.0 == to.0 && from.1.abs_diff(to.1) < len) {
            return;
        }
        self.xid = self.xid.next();
        let (mut done, start) = (0, from.1 as usize);
        while done < len {
            let (source, target) = (from.1 + done, to.1 + done);
            let (low, high) = ((source % WINDOW_BYTES) as u32, (target % WINDOW_BYTES) as u32);
            let room = WINDOW_BYTES as u32 - low.max(high);
            let step = room.min((len - done).try_into().unwrap_or(u32::MAX));
            let shown = self.window(from.0, source / WINDOW_BYTES);
            let mut window = self.window(to.0, target / WINDOW_BYTES);
            window.clear(high, high + step);
            for piece in shown.extents.iter().filter_map(|extent| extent.slice(low, low + step)) {
                window.put(Extent { start: piece.start - low + high, ..piece });
            }
            self.put(Key::window(to.0, target / WINDOW_BYTES), &Value::Window(window.into()));
            done += u64::from(step);
        }
        let bytes = self.nodes[&from.0].content[start..start + len as usize].to_vec();
        let node = self.nodes.get_mut(&to.0).unwrap();
        let end = (to.1 + len) as usize;
        node.content.resize(node.content.len().max(end), 0);
        node.content[to.1 as usize..end].copy_from_slice(&bytes);
        node.value.size = node.content.len() as u64;
        self.put_inode(to.0);
    }

    pub fn link(&mut self, ino: Ino, parent: Ino, name: &[u8]) {
        self.xid = self.xid.next();
        let value = &mut self.nodes.get_mut(&ino).unwrap().value;
        value.nlink += 1;
        (value.parent, value.name) = (parent, Bytes::copy_from_slice(name));
        let kind = value.kind;
        self.put_inode(ino);
        self.names.insert((parent, name.to_vec()), ino);
        self.put(Key::dirent(parent, name), &Value::Dirent(DirentValue { ino, kind }));
    }

    pub fn unlink(&mut self, parent: Ino, name: &[u8], held: Held) {
        self.xid = self.xid.next();
        let ino = self.names.remove(&(parent, name.to_vec())).unwrap();
        self.put(Key::dirent(parent, name), &Value::Tombstone);
        let value = &mut self.nodes.get_mut(&ino).unwrap().value;
        value.nlink -= 1;
        let left = value.nlink;
        self.put_inode(ino);
        if left == 0 {
            self.nodes.remove(&ino);
            match held {
                Held::Open => self.put(Key::orphan(ino), &Value::Orphan),
                Held::No => self.put(Key::inode(ino), &Value::Tombstone),
            }
        }
    }

    pub fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8])) {
        if self.names.contains_key(&(to.0, to.1.to_vec())) || self.is_below(to.0, from) {
            return;
        }
        self.xid = self.xid.next();
        let ino = self.names.remove(&(from.0, from.1.to_vec())).unwrap();
        let value = &mut self.nodes.get_mut(&ino).unwrap().value;
        (value.parent, value.name) = (to.0, Bytes::copy_from_slice(to.1));
        let kind = value.kind;
        self.put(Key::dirent(from.0, from.1), &Value::Tombstone);
        self.names.insert((to.0, to.1.to_vec()), ino);
        self.put(Key::dirent(to.0, to.1), &Value::Dirent(DirentValue { ino, kind }));
        self.put_inode(ino);
    }

    fn is_below(&self, mut dir: Ino, entry: (Ino, &[u8])) -> bool {
        let moved = self.names[&(entry.0, entry.1.to_vec())];
        while dir != Ino::ROOT {
            if dir == moved {
                return true;
            }
            dir = self.nodes[&dir].value.parent;
        }
        false
    }

    pub fn set_xattr(&mut self, ino: Ino, name: &[u8], value: Option<&[u8]>) {
        self.xid = self.xid.next();
        let xattrs = &mut self.nodes.get_mut(&ino).unwrap().xattrs;
        let record = if let Some(value) = value {
            xattrs.insert(name.to_vec(), Bytes::copy_from_slice(value));
            Value::Xattr(Bytes::copy_from_slice(value))
        } else {
            xattrs.remove(name);
            Value::Tombstone
        };
        self.put(Key::xattr(ino, name), &record);
        self.put_inode(ino);
    }

    /// Local bytes that the changes show.
    pub fn local_bytes(&self) -> u64 {
        let dead = |ino: Ino| !self.nodes.contains_key(&ino);
        let windows = self.changes.iter().filter(|(key, _)| !dead(Parts::parse(key).unwrap().ino));
        let local = windows.map(|(_, value)| match Value::decode(value).unwrap().1 {
            Value::Window(window) => {
                let extents = window.extents.iter().filter(|e| !matches!(e.place, Place::Frame { .. }));
                extents.map(|extent| u64::from(extent.len)).sum()
            }
            _ => 0,
        });
        local.sum()
    }

    /// Takes a snapshot and makes it the base.
    pub fn snapshot(&mut self) -> Collected {
        self.xid = self.xid.next();
        let changes = Changes {
            records: std::mem::take(&mut self.changes),
            blobs: self.blobs.clone(),
            xid_from: self.base.xid,
            xid: self.xid,
            ino_end: Ino(self.next_ino),
            request: Changes::request(),
        };
        let mut packs = PackDir::new(self.dir.path());
        let mut run = Run::default();
        let input = CollectInput {
            changes: &changes,
            base: &self.base,
            fs: Uuid::from_u128(7),
            next_pack: self.next_pack,
            pins: &self.pins,
            limits: self.limits,
        };
        let collected = collect(input, &mut packs, &mut run).unwrap();
        assert_eq!(collected.records, run.records.len() as u64);
        assert_eq!(collected.packs.len(), packs.staged.len());
        self.base.packs.append(&mut packs.staged);
        for moved in &run.moved {
            let blob = self.blobs.read(&moved.blob);
            let frame = self.base.frame(&moved.frame);
            let (from, to) = (moved.blob_within as usize, moved.frame_within as usize);
            assert_eq!(blob[from..][..moved.len as usize], frame[to..][..moved.len as usize]);
        }
        let mut next = Snapshot::default();
        next.records.clone_from(&self.base.records);
        next.packs = std::mem::take(&mut self.base.packs);
        (next.xid, next.ino_end) = (self.xid, self.next_ino);
        next.apply(&run.records);
        for dead in &collected.packs_dead {
            assert!(next.packs.remove(&dead.number).is_some(), "a dead pack was alive before");
        }
        self.base = next;
        self.runs.insert(0, run.records);
        self.next_pack = collected.pack_end;
        collected
    }

    /// Every byte and every record of the base is that of the truth.
    pub fn verify(&self) {
        let mut live: BTreeMap<PackNo, u64> = BTreeMap::new();
        let (mut users, mut recorded) = (BTreeMap::<PackNo, BTreeSet<Ino>>::new(), BTreeSet::new());
        let (mut inodes, mut names, mut xattrs) = (0, 0, 0);
        for (key, value) in &self.base.records {
            let parts = Parts::parse(key).unwrap();
            match Value::decode(value).unwrap().1 {
                Value::Inode(inode) => {
                    inodes += 1;
                    assert_eq!(Some(&*inode), self.nodes.get(&parts.ino).map(|node| &node.value));
                }
                Value::Dirent(dirent) => {
                    names += 1;
                    assert_eq!(self.names.get(&(parts.ino, parts.rest.to_vec())), Some(&dirent.ino));
                }
                Value::Xattr(bytes) => {
                    xattrs += 1;
                    assert_eq!(self.nodes[&parts.ino].xattrs.get(parts.rest), Some(&bytes));
                }
                Value::Window(window) => {
                    assert!(self.nodes.contains_key(&parts.ino), "windows of a dead inode");
                    for extent in &window.extents {
                        match &extent.place {
                            Place::Frame { frame, .. } => {
                                *live.entry(frame.pack).or_default() += u64::from(extent.len);
                                users.entry(frame.pack).or_default().insert(parts.ino);
                            }
                            Place::Inline(_) => {}
                            Place::Segment { .. } => panic!("a local place left this machine"),
                        }
                    }
                }
                Value::Pack(pack) => {
                    let number = PackNo(parts.number().unwrap());
                    assert_eq!(pack.size, self.base.packs[&number].len() as u64);
                    assert_eq!(pack.live, live.remove(&number).unwrap_or(0), "live bytes of pack {number}");
                    recorded.insert(number);
                }
                Value::PackUsers(listed) => {
                    let number = PackNo(parts.number().unwrap());
                    assert!(recorded.remove(&number), "users of pack {number}, which is none");
                    let unlisted: Vec<_> = users
                        .remove(&number)
                        .unwrap_or_default()
                        .into_iter()
                        .filter(|ino| !listed.contains(*ino))
                        .collect();
                    assert!(unlisted.is_empty(), "users of pack {number} that are not listed: {unlisted:?}");
                }
                other => panic!("{other:?} in a snapshot"),
            }
        }
        assert!(live.is_empty(), "packs without a record: {live:?}");
        assert!(recorded.is_empty(), "packs without a list of users: {recorded:?}");
        assert_eq!((inodes, names), (self.nodes.len(), self.names.len()));
        assert_eq!(xattrs, self.nodes.values().map(|node| node.xattrs.len()).sum::<usize>());
        for (ino, node) in &self.nodes {
            assert!(self.read(*ino) == node.content, "content of inode {ino}");
        }
    }

    /// The bytes of a file by the base alone.
    pub fn read(&self, ino: Ino) -> Vec<u8> {
        let mut content = vec![0; self.nodes[&ino].content.len()];
        let range = Key::window(ino, 0).into_bytes()..Key::end_of(ino, Space::Window).into_bytes();
        for (key, value) in self.base.records.range(range) {
            let Value::Window(window) = Value::decode(value).unwrap().1 else { panic!("not a window") };
            let at = (Parts::parse(key).unwrap().number().unwrap() * WINDOW_BYTES) as usize;
            for extent in Arc::unwrap_or_clone(window).extents {
                let bytes = match extent.place {
                    Place::Inline(bytes) => bytes,
                    Place::Frame { frame, within } => {
                        self.base.frame(&frame).slice(within as usize..(within + extent.len) as usize)
                    }
                    Place::Segment { .. } => panic!("a local place left this machine"),
                };
                content[at + extent.start as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
        content
    }
}

fn cut_at_windows(offset: u64, mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut room = (WINDOW_BYTES - offset % WINDOW_BYTES) as usize;
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        let (chunk, rest) = bytes.split_at(bytes.len().min(room));
        chunks.push(chunk);
        (bytes, room) = (rest, WINDOW_BYTES as usize);
    }
    chunks
}

/// Bytes that do not compress away, different for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}
