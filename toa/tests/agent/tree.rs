//! Whole trees, read through the interface of a mount, and random changes to them.

use kvfs::fs::{Caller, FileSystem, NewNode};
use kvfs::op::{AllocateMode, AttributeChange, CopyRange, Privileges, RenameMode, XattrMode};
use kvfs::schema::FileKind;
use kvfs::{FsError, FsResult, Ino};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use std::collections::BTreeMap;

const CALLER: Caller = Caller { uid: 1, gid: 2 };

/// Calls again when something had to be fetched, as a mount does.
pub(crate) fn waiting<T>(run: impl Fn() -> FsResult<T>) -> FsResult<T> {
    for _ in 0..1000 {
        match run() {
            Err(FsError::NotResident(need)) => need.fetch()?,
            done => return done,
        }
    }
    panic!("no progress after 1000 fetches");
}

#[derive(Clone, Debug, PartialEq)]
struct Inode {
    what: String,
    hash: Option<blake3::Hash>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tree(BTreeMap<String, Inode>);

impl Tree {
    pub(crate) fn read(fs: &dyn FileSystem) -> Tree {
        let mut tree = Tree::default();
        tree.walk(fs, Ino::ROOT, "");
        tree
    }

    fn walk(&mut self, fs: &dyn FileSystem, ino: Ino, path: &str) {
        let entries = waiting(|| fs.read_dir(ino, None, usize::MAX >> 1)).unwrap();
        for entry in entries.into_iter().skip(2) {
            let path = format!("{path}/{}", String::from_utf8(entry.name.clone()).unwrap());
            let a = waiting(|| fs.lookup(ino, &entry.name)).unwrap();
            assert_eq!((a.ino, a.kind), (entry.ino, entry.kind), "{path}");
            let what = format!(
                "{} {:?} {:o} {}:{} links {} size {} {:?} {:?}",
                a.ino, a.kind, a.mode, a.uid, a.gid, a.nlink, a.size, a.mtime, a.ctime
            );
            let hash = match a.kind {
                FileKind::Regular => Some(content(fs, a.ino, a.size)),
                FileKind::Symlink => Some(blake3::hash(&waiting(|| fs.read_link(a.ino)).unwrap())),
                _ => None,
            };
            let mut xattrs = BTreeMap::new();
            for name in waiting(|| fs.list_xattrs(a.ino)).unwrap() {
                let value = waiting(|| fs.get_xattr(a.ino, &name)).unwrap().to_vec();
                xattrs.insert(name, value);
            }
            self.0.insert(path.clone(), Inode { what, hash, xattrs });
            if a.kind == FileKind::Directory {
                self.walk(fs, a.ino, &path);
            }
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(&format!("/{name}"))
    }

    pub(crate) fn difference(&self, other: &Tree) -> String {
        let paths: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differs = |path: &&&String| self.0.get(**path) != other.0.get(**path);
        let show = |path: &String| format!("{path}: {:?} / {:?}", self.0.get(path), other.0.get(path));
        paths.iter().filter(differs).map(|path| show(path)).collect::<Vec<_>>().join("\n")
    }
}

fn content(fs: &dyn FileSystem, ino: Ino, size: u64) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < size {
        let bytes = waiting(|| fs.read(ino, at, 300_000)).unwrap();
        assert!(!bytes.is_empty());
        hasher.update(&bytes);
        at += bytes.len() as u64;
    }
    hasher.finalize()
}

pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    <StdRng as rand::SeedableRng>::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn make(fs: &dyn FileSystem, parent: Ino, name: &str, kind: FileKind) -> FsResult<Ino> {
    let target: &[u8] = if kind == FileKind::Symlink { b"to/somewhere" } else { b"" };
    let node = NewNode { kind, mode: 0o751, umask: 0, rdev: 0, target };
    fs.make(CALLER, parent, name.as_bytes(), &node).map(|a| a.ino)
}

pub(crate) fn write_file(fs: &dyn FileSystem, name: &str, bytes: &[u8]) {
    let ino = match fs.lookup(Ino::ROOT, name.as_bytes()) {
        Ok(found) => found.ino,
        Err(_) => make(fs, Ino::ROOT, name, FileKind::Regular).unwrap(),
    };
    fs.write(ino, 0, bytes, Privileges::Keep).unwrap();
}

/// A new file that shows the bytes of another one from the same places.
pub(crate) fn share(fs: &dyn FileSystem, from: &str, to: &str, len: u64) {
    let from = waiting(|| fs.lookup(Ino::ROOT, from.as_bytes())).unwrap().ino;
    let to = make(fs, Ino::ROOT, to, FileKind::Regular).unwrap();
    let range = CopyRange { from, from_offset: 0, to, to_offset: 0, len };
    assert_eq!(waiting(|| fs.copy_range(&range, Privileges::Keep)).unwrap(), len);
}

pub(crate) fn read_file(fs: &dyn FileSystem, name: &str) -> Vec<u8> {
    let found = waiting(|| fs.lookup(Ino::ROOT, name.as_bytes())).unwrap();
    waiting(|| fs.read(found.ino, 0, 1 << 20)).unwrap().to_vec()
}

/// Steps of which many fail, which is as it should be.
pub(crate) fn random_changes(fs: &dyn FileSystem, random: &mut StdRng, steps: u32) {
    for _ in 0..steps {
        let dirs = all(fs, FileKind::Directory);
        let files = all(fs, FileKind::Regular);
        let dir = dirs[random.random_range(0..dirs.len())];
        let other = dirs[random.random_range(0..dirs.len())];
        let name = format!("n{}", random.random_range(0..12));
        let to = format!("n{}", random.random_range(0..12));
        let file = (!files.is_empty()).then(|| files[random.random_range(0..files.len())]);
        let _refused = match (random.random_range(0..15), file) {
            (0..=2, _) | (_, None) => make(fs, dir, &name, FileKind::Regular).map(|_| ()),
            (3, _) => make(fs, dir, &name, FileKind::Directory).map(|_| ()),
            (4, _) => make(fs, dir, &name, FileKind::Symlink).map(|_| ()),
            (5, _) => unlink(fs, dir, &name),
            (6, _) => fs.rmdir(dir, name.as_bytes()),
            (7, _) => fs.rename((dir, name.as_bytes()), (other, to.as_bytes()), RenameMode::Replace),
            (8, Some(file)) => fs.link(file, other, to.as_bytes()).map(|_| ()),
            (9, Some(file)) => {
                let value = [random.random::<u8>(); 30];
                fs.set_xattr(file, b"user.x", &value, XattrMode::Set)
            }
            (10, Some(file)) => {
                let size = Some(random.random_range(0..3_000_000));
                let change = AttributeChange { size, ..AttributeChange::default() };
                fs.set_attributes(file, &change, Privileges::Keep).map(|_| ())
            }
            (11, Some(file)) => {
                let (at, len) = (random.random_range(0..2_000_000), random.random_range(1..1_500_000));
                fs.allocate(file, at, len, AllocateMode::PunchHole, Privileges::Keep)
            }
            (12, Some(from)) => {
                let to = files[random.random_range(0..files.len())];
                let (from_offset, to_offset) = (random.random_range(0..2_000_000), random.random_range(0..2_000_000));
                let range = CopyRange { from, from_offset, to, to_offset, len: random.random_range(1..1_500_000) };
                fs.copy_range(&range, Privileges::Keep).map(|_| ())
            }
            (_, Some(file)) => {
                let len = [200, 5_000, 30_000, 1_300_000][random.random_range(0..4)];
                let data = noise(random.next_u64(), random.random_range(1..len));
                fs.write(file, random.random_range(0..2_500_000), &data, Privileges::Keep).map(|_| ())
            }
        };
    }
}

/// As the kernel does it: the last name gone, and nobody holds the file.
fn unlink(fs: &dyn FileSystem, dir: Ino, name: &str) -> FsResult<()> {
    let victim = fs.lookup(dir, name.as_bytes())?;
    fs.unlink(dir, name.as_bytes())?;
    fs.forgotten(victim.ino);
    Ok(())
}

fn all(fs: &dyn FileSystem, kind: FileKind) -> Vec<Ino> {
    let mut found = if kind == FileKind::Directory { vec![Ino::ROOT] } else { Vec::new() };
    let mut open = vec![Ino::ROOT];
    while let Some(dir) = open.pop() {
        for entry in waiting(|| fs.read_dir(dir, None, 10_000)).unwrap().into_iter().skip(2) {
            if entry.kind == kind {
                found.push(entry.ino);
            }
            if entry.kind == FileKind::Directory {
                open.push(entry.ino);
            }
        }
    }
    found
}
