//! Both sides of a collection: the changes and the base it reads, the packs and records it writes.

use bytes::Bytes;
use kvfs::base::{Base, BaseError, Fetch, Totals, Visit};
use kvfs::changes::ChangeSet;
use kvfs::ids::{Epoch, PackNo, SegmentNo};
use kvfs::op::{SnapshotKind, SnapshotRequest};
use kvfs::schema::key::Parts;
use kvfs::schema::{BlobRef, FrameRef, Space, Time, Value};
use kvfs::{FsError, FsResult, Ino, Xid};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use toa::collect::{CollectError, CollectErrorKind, Moved, PackSink, RecordSink};
use toa::pack::{PackSummary, decode_frame};
use uuid::Uuid;

pub type Records = BTreeMap<Vec<u8>, Bytes>;

/// Local blobs by segment; every blob has a segment of its own.
#[derive(Default, Clone)]
pub struct Blobs(BTreeMap<SegmentNo, Bytes>);

impl Blobs {
    pub fn add(&mut self, bytes: Bytes) -> BlobRef {
        let segment = SegmentNo(self.0.len() as u64 + 1);
        let blob = BlobRef { segment, offset: 0, len: bytes.len() as u32, crc: 0 };
        self.0.insert(segment, bytes);
        blob
    }

    pub fn read(&self, blob: &BlobRef) -> Bytes {
        self.0[&blob.segment].clone()
    }
}

/// Changes in a map.
pub struct Changes {
    pub records: Records,
    pub blobs: Blobs,
    pub xid_from: Xid,
    pub xid: Xid,
    pub ino_end: Ino,
    pub request: SnapshotRequest,
}

impl Changes {
    pub fn request() -> SnapshotRequest {
        let requested = Time::default();
        SnapshotRequest { id: Uuid::from_u128(1), name: None, kind: SnapshotKind::User, key: None, requested }
    }
}

impl ChangeSet for Changes {
    fn request(&self) -> &SnapshotRequest {
        &self.request
    }
    fn epoch(&self) -> Epoch {
        Epoch(1)
    }
    fn xid_from(&self) -> Xid {
        self.xid_from
    }
    fn xid(&self) -> Xid {
        self.xid
    }
    fn ino_end(&self) -> Ino {
        self.ino_end
    }
    fn totals(&self) -> Totals {
        Totals::default()
    }
    fn scan(&self, from: &[u8], end: &[u8], visit: &mut Visit<'_>) -> FsResult<()> {
        for (key, value) in self.records.range(from.to_vec()..end.to_vec().max(from.to_vec())) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn get(&self, key: &[u8]) -> FsResult<Option<Bytes>> {
        Ok(self.records.get(key).cloned())
    }
    fn read_blob(&self, blob: &BlobRef) -> FsResult<Bytes> {
        self.blobs.0.get(&blob.segment).cloned().ok_or_else(|| FsError::io(format!("{blob:?} is not here")))
    }
}

/// A published snapshot in maps, none of whose records is resident before it was fetched.
#[derive(Default)]
pub struct Snapshot {
    pub records: Records,
    pub packs: BTreeMap<PackNo, Bytes>,
    pub xid: Xid,
    pub ino_end: u64,
    fetched: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

#[derive(Debug)]
struct Missing {
    key: Vec<u8>,
    fetched: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

impl Fetch for Missing {
    fn fetch(&self) -> Result<(), BaseError> {
        self.fetched.lock().unwrap().insert(self.key.clone());
        Ok(())
    }
}

impl Snapshot {
    fn want(&self, key: &[u8]) -> Result<(), BaseError> {
        if self.fetched.lock().unwrap().contains(key) {
            return Ok(());
        }
        Err(BaseError::NotResident(Arc::new(Missing { key: key.to_vec(), fetched: Arc::clone(&self.fetched) })))
    }

    /// The snapshot that `run` makes of this one.
    pub fn apply(&mut self, run: &Records) {
        for (key, value) in run {
            apply_record(&mut self.records, key, value);
        }
    }

    pub fn frame(&self, frame: &FrameRef) -> Bytes {
        let object = &self.packs[&frame.pack];
        let stored = &object[frame.offset as usize..][..frame.stored_len as usize];
        decode_frame(stored, frame).unwrap()
    }
}

/// What a record of a newer tier does to the tiers below it.
pub fn apply_record(records: &mut Records, key: &[u8], value: &Bytes) {
    let parts = Parts::parse(key).unwrap();
    let hide = |records: &mut Records, dead: &dyn Fn(&Parts<'_>) -> bool| {
        records.retain(|key, _| {
            let other = Parts::parse(key).unwrap();
            other.ino != parts.ino || !dead(&other)
        });
    };
    match Value::decode(value).unwrap().1 {
        Value::Tombstone => {
            records.remove(key);
            if parts.space == Space::Inode {
                hide(records, &|other| matches!(other.space, Space::Window | Space::Xattr | Space::Cut));
            }
        }
        Value::Cut(first) => hide(records, &|other| other.space == Space::Window && other.number() >= Some(first)),
        _ => {
            records.insert(key.to_vec(), value.clone());
        }
    }
}

impl Base for Snapshot {
    fn xid(&self) -> Xid {
        self.xid
    }
    fn ino_end(&self) -> Ino {
        Ino(self.ino_end)
    }
    fn totals(&self) -> Totals {
        Totals::default()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        self.want(key)?;
        Ok(self.records.get(key).cloned())
    }
    fn scan(&self, from: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), BaseError> {
        for (key, value) in self.records.range(from.to_vec()..end.to_vec().max(from.to_vec())) {
            self.want(key)?;
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn read_frame(&self, frame: &FrameRef) -> Result<Bytes, BaseError> {
        Ok(self.frame(frame))
    }
}

/// Packs in a directory.
pub struct PackDir {
    pub dir: PathBuf,
    pub staged: BTreeMap<PackNo, Bytes>,
}

impl PackDir {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), staged: BTreeMap::new() }
    }
}

impl PackSink for PackDir {
    fn path(&mut self, pack: PackNo) -> Result<PathBuf, CollectError> {
        Ok(self.dir.join(format!("{:08}.tar.zst", pack.0)))
    }
    fn object(&self, pack: PackNo) -> String {
        format!("pack/{:08}.tar.zst", pack.0)
    }
    fn staged(&mut self, pack: &PackSummary, path: &Path) -> Result<(), CollectError> {
        let bytes =
            std::fs::read(path).map_err(|error| CollectError::sink("reading the pack", CollectErrorKind::Io, error))?;
        assert_eq!((bytes.len() as u64, blake3::hash(&bytes)), (pack.size, pack.hash.into()));
        self.staged.insert(pack.number, bytes.into());
        Ok(())
    }
}

/// Records in a map; refuses any other order than that of the keys.
#[derive(Default)]
pub struct Run {
    pub records: Records,
    pub moved: Vec<Moved>,
}

impl RecordSink for Run {
    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), CollectError> {
        if let Some((last, _)) = self.records.last_key_value() {
            assert!(last.as_slice() < key, "records come in key order");
        }
        self.records.insert(key.to_vec(), Bytes::copy_from_slice(value));
        Ok(())
    }
    fn moved(&mut self, moved: &Moved) -> Result<(), CollectError> {
        self.moved.push(*moved);
        Ok(())
    }
}
