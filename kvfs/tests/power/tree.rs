//! A subtree as it is, and as the model has it, in one form.

use crate::reference::{Content, Id, ROOT, Reference};
use kvfs::fs::{FileSystem, Fs};
use kvfs::schema::FileKind;
use kvfs::{FsResult, Ino};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What stands under one name.
#[derive(Clone, PartialEq)]
pub struct Entry {
    mode: u32,
    body: Body,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, PartialEq)]
enum Body {
    Dir,
    Symlink(Vec<u8>),
    File { links: u32, bytes: Arc<Vec<u8>> },
}

/// Everything below a directory, by path.
pub type Tree = BTreeMap<String, Entry>;

/// The model's tree.
pub fn of_model(model: &Reference) -> Tree {
    let mut tree = Tree::new();
    add_model(model, ROOT, "", &mut tree);
    tree
}

fn add_model(model: &Reference, dir: Id, path: &str, tree: &mut Tree) {
    for (name, id) in model.dir(dir).into_iter().flatten() {
        let node = &model.nodes[id];
        let path = format!("{path}/{}", String::from_utf8_lossy(name));
        let body = match &node.content {
            Content::Dir(_) => Body::Dir,
            Content::Symlink(target) => Body::Symlink(target.clone()),
            Content::File(bytes) => Body::File { links: node.names, bytes: bytes.clone() },
        };
        tree.insert(path.clone(), Entry { mode: node.mode, body, xattrs: node.xattrs.clone() });
        if model.is_dir(*id) {
            add_model(model, *id, &path, tree);
        }
    }
}

/// The real tree below `dir`; and where each path is.
pub fn scan(fs: &Fs, dir: Ino) -> FsResult<(Tree, BTreeMap<String, Ino>)> {
    let (mut tree, mut inos) = (Tree::new(), BTreeMap::new());
    add_real(fs, dir, "", &mut tree, &mut inos)?;
    Ok((tree, inos))
}

fn add_real(fs: &Fs, dir: Ino, path: &str, tree: &mut Tree, inos: &mut BTreeMap<String, Ino>) -> FsResult<()> {
    for entry in fs.read_dir(dir, None, usize::MAX)?.into_iter().skip(2) {
        let found = fs.lookup(dir, &entry.name)?;
        let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
        let body = match found.kind {
            FileKind::Directory => Body::Dir,
            FileKind::Symlink => Body::Symlink(fs.read_link(found.ino)?.to_vec()),
            _ => Body::File { links: found.nlink, bytes: Arc::new(fs.read(found.ino, 0, u32::MAX)?.to_vec()) },
        };
        let mut xattrs = BTreeMap::new();
        for name in fs.list_xattrs(found.ino)? {
            let value = fs.get_xattr(found.ino, &name)?.to_vec();
            xattrs.insert(name, value);
        }
        tree.insert(path.clone(), Entry { mode: found.mode, body, xattrs });
        inos.insert(path.clone(), found.ino);
        if found.kind == FileKind::Directory {
            add_real(fs, found.ino, &path, tree, inos)?;
        }
    }
    Ok(())
}

/// What differs, in a few words.
pub fn differences(expected: &Tree, found: &Tree) -> String {
    let mut lines = Vec::new();
    for (path, entry) in expected {
        match found.get(path) {
            None => lines.push(format!("{path} is missing")),
            Some(there) if there != entry => lines.push(format!("{path} is {there:?} instead of {entry:?}")),
            Some(_) => {}
        }
    }
    lines.extend(found.keys().filter(|path| !expected.contains_key(*path)).map(|path| format!("{path} is too much")));
    lines.truncate(5);
    lines.join("; ")
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, body, xattrs } = self;
        match body {
            Body::Dir => write!(f, "dir {mode:o}")?,
            Body::Symlink(_) => write!(f, "symlink {mode:o}")?,
            Body::File { links, bytes } => {
                write!(f, "file {mode:o}, {links} links, {} bytes, crc {:08x}", bytes.len(), crc(bytes))?;
            }
        }
        write!(f, ", {} xattrs", xattrs.len())
    }
}

fn crc(bytes: &[u8]) -> u32 {
    blake3::hash(bytes).as_bytes().first_chunk::<4>().map_or(0, |head| u32::from_le_bytes(*head))
}
