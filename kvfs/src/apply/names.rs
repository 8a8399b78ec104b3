//! Names: making, linking, removing, renaming.

use super::Draft;
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{Entry, NewInode, RenameMode};
use crate::schema::{DirentValue, FileKind, InodeValue, Time, Value};
use bytes::Bytes;

/// Links that a file may have; a directory is not limited.
const LINKS_MAX: u32 = u32::MAX - 1;

fn new_inode(new: &NewInode, at: &Entry, time: Time) -> InodeValue {
    InodeValue {
        kind: new.kind,
        mode: new.mode & 0o7777,
        uid: new.uid,
        gid: new.gid,
        nlink: if new.kind == FileKind::Directory { 2 } else { 1 },
        rdev: new.rdev,
        size: new.target.len() as u64,
        stored: 0,
        atime: time,
        mtime: time,
        ctime: time,
        parent: at.parent,
        name: at.name.clone(),
        target: new.target.clone(),
    }
}

/// The first record of a new filesystem.
pub fn root(draft: &mut Draft<'_>, root: &NewInode, time: Time) {
    let at = Entry { parent: Ino::ROOT, name: Bytes::new() };
    draft.put_new_inode(root.ino, new_inode(root, &at, time));
}

pub fn make(draft: &mut Draft<'_>, at: &Entry, new: &NewInode, time: Time) -> FsResult<()> {
    let mut parent = draft.directory(at.parent)?;
    if draft.dirent(at.parent, &at.name)?.is_some() {
        return Err(FsError::Exists);
    }
    if new.kind == FileKind::Directory {
        parent.nlink += 1;
    }
    touch(&mut parent, time);
    draft.put_inode(at.parent, parent)?;
    draft.put_new_inode(new.ino, new_inode(new, at, time));
    draft.put_dirent(at.parent, &at.name, DirentValue { ino: new.ino, kind: new.kind });
    Ok(())
}

/// [`make`], with ACLs from the beginning: attribute and value of each.
pub fn make_with_acls(
    draft: &mut Draft<'_>,
    at: &Entry,
    new: (&NewInode, &[(Bytes, Bytes)]),
    time: Time,
) -> FsResult<()> {
    let (new, acls) = new;
    make(draft, at, new, time)?;
    for (name, value) in acls {
        draft.put_xattr(new.ino, name, Value::Xattr(value.clone()));
    }
    Ok(())
}

pub fn link(draft: &mut Draft<'_>, ino: Ino, at: &Entry, time: Time) -> FsResult<()> {
    let mut parent = draft.directory(at.parent)?;
    let mut inode = draft.inode(ino)?;
    if inode.is_dir() {
        return Err(FsError::NotPermitted);
    }
    if inode.nlink == 0 {
        return Err(FsError::NotFound);
    }
    if inode.nlink >= LINKS_MAX {
        return Err(FsError::TooManyLinks);
    }
    if draft.dirent(at.parent, &at.name)?.is_some() {
        return Err(FsError::Exists);
    }
    inode.nlink += 1;
    inode.ctime = time;
    let kind = inode.kind;
    touch(&mut parent, time);
    draft.put_inode(at.parent, parent)?;
    draft.put_inode(ino, inode)?;
    draft.put_dirent(at.parent, &at.name, DirentValue { ino, kind });
    Ok(())
}

pub fn unlink(draft: &mut Draft<'_>, at: &Entry, time: Time) -> FsResult<()> {
    let mut parent = draft.directory(at.parent)?;
    let victim = draft.dirent(at.parent, &at.name)?.ok_or(FsError::NotFound)?;
    if victim.kind == FileKind::Directory {
        return Err(FsError::IsDirectory);
    }
    touch(&mut parent, time);
    draft.put_inode(at.parent, parent)?;
    draft.remove_dirent(at.parent, &at.name);
    drop_link(draft, victim.ino, time)
}

pub fn rmdir(draft: &mut Draft<'_>, at: &Entry, time: Time) -> FsResult<()> {
    let mut parent = draft.directory(at.parent)?;
    let victim = draft.dirent(at.parent, &at.name)?.ok_or(FsError::NotFound)?;
    if victim.kind != FileKind::Directory {
        return Err(FsError::NotDirectory);
    }
    if !draft.is_empty_dir(victim.ino)? {
        return Err(FsError::NotEmpty);
    }
    parent.nlink -= 1;
    touch(&mut parent, time);
    draft.put_inode(at.parent, parent)?;
    draft.remove_dirent(at.parent, &at.name);
    drop_directory(draft, victim.ino, time)
}

/// One name less of something that is not a directory.
fn drop_link(draft: &mut Draft<'_>, ino: Ino, time: Time) -> FsResult<()> {
    let mut inode = draft.inode(ino)?;
    inode.nlink = inode.nlink.saturating_sub(1);
    inode.ctime = time;
    let gone = inode.nlink == 0;
    draft.put_inode(ino, inode)?;
    if gone {
        draft.mark_orphan(ino);
    }
    Ok(())
}

fn drop_directory(draft: &mut Draft<'_>, ino: Ino, time: Time) -> FsResult<()> {
    let mut inode = draft.inode(ino)?;
    inode.nlink = 0;
    inode.ctime = time;
    draft.put_inode(ino, inode)?;
    draft.mark_orphan(ino);
    Ok(())
}

pub fn rename(draft: &mut Draft<'_>, ends: (&Entry, &Entry), mode: RenameMode, time: Time) -> FsResult<()> {
    let (from, to) = ends;
    draft.directory(from.parent)?;
    draft.directory(to.parent)?;
    let moved = draft.dirent(from.parent, &from.name)?.ok_or(FsError::NotFound)?;
    let target = draft.dirent(to.parent, &to.name)?;
    refuse_loop(draft, moved, to.parent)?;
    match (mode, target) {
        (RenameMode::Exchange, None) => Err(FsError::NotFound),
        (RenameMode::Exchange, Some(target)) => {
            refuse_loop(draft, target, from.parent)?;
            if target.ino == moved.ino {
                return Ok(());
            }
            move_links(draft, (from.parent, to.parent), (moved, Some(target)), time)?;
            draft.put_dirent(from.parent, &from.name, target);
            settle(draft, target.ino, from, time)?;
            draft.put_dirent(to.parent, &to.name, moved);
            settle(draft, moved.ino, to, time)
        }
        (RenameMode::NoReplace, Some(_)) => Err(FsError::Exists),
        // POSIX: two names of one file stay as they are.
        (RenameMode::Replace, Some(target)) if target.ino == moved.ino => Ok(()),
        (RenameMode::Replace | RenameMode::NoReplace, target) => {
            if let Some(target) = target {
                replace(draft, moved, target, (to, time))?;
            }
            move_links(draft, (from.parent, to.parent), (moved, None), time)?;
            draft.remove_dirent(from.parent, &from.name);
            draft.put_dirent(to.parent, &to.name, moved);
            settle(draft, moved.ino, to, time)
        }
    }
}

/// A directory must not become its own descendant.
fn refuse_loop(draft: &mut Draft<'_>, moved: DirentValue, into: Ino) -> FsResult<()> {
    if moved.kind != FileKind::Directory {
        return Ok(());
    }
    let mut at = into;
    while at != Ino::ROOT {
        if at == moved.ino {
            return Err(FsError::Invalid);
        }
        at = draft.inode(at)?.parent;
    }
    Ok(())
}

/// Removes what a rename replaces.
fn replace(draft: &mut Draft<'_>, moved: DirentValue, target: DirentValue, to: (&Entry, Time)) -> FsResult<()> {
    let (to, time) = to;
    match (moved.kind == FileKind::Directory, target.kind == FileKind::Directory) {
        (true, false) => Err(FsError::NotDirectory),
        (false, true) => Err(FsError::IsDirectory),
        (false, false) => drop_link(draft, target.ino, time),
        (true, true) => {
            if !draft.is_empty_dir(target.ino)? {
                return Err(FsError::NotEmpty);
            }
            let mut parent = draft.inode(to.parent)?;
            parent.nlink -= 1;
            draft.put_inode(to.parent, parent)?;
            drop_directory(draft, target.ino, time)
        }
    }
}

/// Times and link counts of the two directories of a rename.
fn move_links(
    draft: &mut Draft<'_>,
    parents: (Ino, Ino),
    what: (DirentValue, Option<DirentValue>),
    time: Time,
) -> FsResult<()> {
    let (from, to) = parents;
    let is_dir = |d: DirentValue| i64::from(d.kind == FileKind::Directory);
    let across = if from == to { 0 } else { is_dir(what.0) - what.1.map_or(0, is_dir) };
    let mut old = draft.inode(from)?;
    old.nlink = old.nlink.saturating_add_signed(-across as i32);
    touch(&mut old, time);
    draft.put_inode(from, old)?;
    if from != to {
        let mut new = draft.inode(to)?;
        new.nlink = new.nlink.saturating_add_signed(across as i32);
        touch(&mut new, time);
        draft.put_inode(to, new)?;
    }
    Ok(())
}

/// A renamed inode knows its new name.
fn settle(draft: &mut Draft<'_>, ino: Ino, at: &Entry, time: Time) -> FsResult<()> {
    let mut inode = draft.inode(ino)?;
    inode.ctime = time;
    inode.parent = at.parent;
    inode.name = at.name.clone();
    draft.put_inode(ino, inode)
}

/// An unlinked inode that nobody holds any more; one that has names again stays as it is.
pub fn purge(draft: &mut Draft<'_>, ino: Ino) -> FsResult<()> {
    match draft.inode(ino) {
        Ok(inode) if inode.nlink > 0 => Ok(()),
        Ok(_) | Err(FsError::NotFound) => {
            draft.purge(ino);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn touch(directory: &mut InodeValue, time: Time) {
    directory.mtime = time;
    directory.ctime = time;
}
