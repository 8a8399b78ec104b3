//! Looking up, making, removing and renaming.

use super::{Attributes, Caller, Fs, NAME_BYTES_MAX, NewNode, acls, attributes_of};
use crate::apply::KnownName;
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{Entry, NewInode, Op, RenameMode};
use crate::schema::{FileKind, InodeValue};
use crate::stack::Extended;
use bytes::Bytes;
use smallvec::SmallVec;
use std::sync::Arc;

const SGID: u32 = 0o2000;
/// Longest symlink target, bytes (`PATH_MAX` less the NUL).
const TARGET_BYTES_MAX: usize = 4095;

/// A checked name in a directory.
pub fn entry(parent: Ino, name: &[u8]) -> FsResult<Entry> {
    if name.len() > NAME_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(FsError::Invalid);
    }
    Ok(Entry { parent, name: Bytes::copy_from_slice(name) })
}

fn directory(fs: &Fs, ino: Ino) -> FsResult<Arc<InodeValue>> {
    let inode = fs.existing(ino)?;
    if inode.is_dir() { Ok(inode) } else { Err(FsError::NotDirectory) }
}

pub fn lookup(fs: &Fs, parent: Ino, name: &[u8]) -> FsResult<Attributes> {
    if name.len() > NAME_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    let tiers = fs.stack.load();
    let view = tiers.view();
    let ino = match name {
        b"." => parent,
        b".." => directory(fs, parent)?.parent,
        _ => match view.dirent(parent, name)? {
            Some(dirent) => dirent.ino,
            None => return Err(missing(fs, parent)),
        },
    };
    // Between the two reads the name may have gone, and its inode with it.
    let inode = view.inode(ino)?.ok_or(FsError::NotFound)?;
    Ok(attributes_of(ino, &inode))
}

/// Why a name is not there.
fn missing(fs: &Fs, parent: Ino) -> FsError {
    match directory(fs, parent) {
        Ok(_) => FsError::NotFound,
        Err(error) => error,
    }
}

pub fn make(fs: &Fs, caller: Caller, at: (Ino, &[u8]), node: &NewNode<'_>) -> FsResult<Attributes> {
    let at = entry(at.0, at.1)?;
    if node.target.len() > TARGET_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    let engine = fs.writer()?;
    let _locked = fs.stack.locks().lock(&[at.parent]);
    let parent = fs.existing(at.parent)?;
    let mut inode = NewInode {
        ino: engine.allocate_ino(),
        kind: node.kind,
        mode: node.mode & 0o7777,
        uid: caller.uid,
        gid: caller.gid,
        rdev: node.rdev,
        target: Bytes::copy_from_slice(node.target),
    };
    if parent.mode & SGID != 0 {
        inode.gid = parent.gid;
        if node.kind == FileKind::Directory {
            inode.mode |= SGID;
        }
    }
    let ino = inode.ino;
    engine.run(fs.clock.now(), acls::make(fs, at, node, inode)?)?;
    Ok(attributes_of(ino, fs.existing(ino)?.as_ref()))
}

/// Removes a name.
pub fn remove(fs: &Fs, parent: Ino, name: &[u8], op: impl Fn(Entry) -> Op) -> FsResult<()> {
    let at = entry(parent, name)?;
    let engine = fs.writer()?;
    let mut victim = None;
    loop {
        // The lock on the directory holds its names still; the inode behind the name is known only under it.
        let inos: SmallVec<[Ino; 2]> = [Some(parent), victim].into_iter().flatten().collect();
        let mut locked = fs.stack.locks().lock(&inos);
        let known = known(fs, &at)?;
        let found = known.dirent.ok_or_else(|| missing(fs, parent))?;
        if locked.extend(&[found.ino]) == Extended::Yes {
            return engine.run_knowing(fs.clock.now(), op(at), &[known]).map(|_| ());
        }
        victim = Some(found.ino);
    }
}

fn known(fs: &Fs, at: &Entry) -> FsResult<KnownName> {
    let dirent = fs.stack.load().view().dirent(at.parent, &at.name)?;
    Ok(KnownName { parent: at.parent, name: at.name.clone(), dirent })
}

pub fn rename(fs: &Fs, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> FsResult<()> {
    let (from, to) = (entry(from.0, from.1)?, entry(to.0, to.1)?);
    let engine = fs.writer()?;
    let mut moved_dir = None;
    let mut inos: SmallVec<[Ino; 4]> = SmallVec::from_slice(&[from.parent, to.parent]);
    loop {
        // Comes before the locks of inodes.
        let moving = moved_dir.is_some().then(|| fs.stack.locks().lock_moves());
        let mut locked = fs.stack.locks().lock(&inos);
        let names = [known(fs, &from)?, known(fs, &to)?];
        let moved = names[0].dirent.ok_or_else(|| missing(fs, from.parent))?;
        let both = [Some(moved), names[1].dirent];
        if from.parent != to.parent && moving.is_none() {
            moved_dir = both.into_iter().flatten().find(|d| d.kind == FileKind::Directory);
            if moved_dir.is_some() {
                continue;
            }
        }
        let further: SmallVec<[Ino; 2]> = both.into_iter().flatten().map(|dirent| dirent.ino).collect();
        if locked.extend(&further) == Extended::Yes {
            return engine.run_knowing(fs.clock.now(), Op::Rename { from, to, mode }, &names).map(|_| ());
        }
        inos.truncate(2);
        inos.extend(further);
    }
}

/// Nobody holds the inode any more: if it has no name either, it goes.
pub fn forgotten(fs: &Fs, ino: Ino) {
    let Some(engine) = fs.engine.load_full() else { return };
    if engine.check_writable().is_ok() {
        engine.purge_soon(ino);
    }
}
