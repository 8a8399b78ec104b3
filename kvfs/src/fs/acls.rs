//! ACLs and modes: whatever changes one changes the other, in one record.

use super::{Fs, NewNode, Sgid, xattrs};
use crate::acl::{Acl, AclKind, AclSupport};
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{AttributeChange, Entry, NewInode, Op, Privileges};
use crate::schema::FileKind;
use bytes::Bytes;

const SGID: u32 = 0o2000;

/// An ACL that is in force; `None` if there is none, or the filesystem has none at all.
fn stored(fs: &Fs, ino: Ino, kind: AclKind) -> FsResult<Option<Acl>> {
    if fs.acls == AclSupport::Absent {
        return Ok(None);
    }
    let Some(value) = fs.stack.load().view().xattr(ino, kind.name())? else { return Ok(None) };
    Acl::parse(&value).map_err(|_| FsError::corrupt(format!("the {} of inode {ino}", kind.name().escape_ascii())))
}

fn attribute(kind: AclKind) -> Bytes {
    Bytes::from_static(kind.name())
}

/// setxattr of an ACL. Without entries it is the end of it.
pub fn set(fs: &Fs, ino: Ino, kind: AclKind, how: (&[u8], Sgid)) -> FsResult<()> {
    let (value, sgid) = how;
    if fs.acls == AclSupport::Absent {
        return Err(FsError::Unsupported);
    }
    let Some(acl) = Acl::parse(value)? else {
        return xattrs::remove(fs, ino, kind.name());
    };
    let engine = fs.writer()?;
    let _locked = fs.stack.locks().lock(&[ino]);
    let inode = fs.existing(ino)?;
    let (mut change, mut kept) = (AttributeChange::default(), Some(Bytes::from(acl.encode())));
    match (kind, inode.kind) {
        (_, FileKind::Symlink) => return Err(FsError::Unsupported),
        (AclKind::Default, FileKind::Directory) => {}
        (AclKind::Default, _) => return Err(FsError::Denied),
        (AclKind::Access, _) => {
            let mode = acl.mode(inode.mode);
            change.mode = Some(if sgid == Sgid::Drop { mode & !SGID } else { mode });
            kept = kept.filter(|_| acl.exceeds_mode());
        }
    }
    if kept.is_some() {
        xattrs::check_room(fs, ino, kind.name())?;
    }
    let op = Op::SetAcl { ino, change, privileges: Privileges::Keep, name: attribute(kind), value: kept };
    engine.run(fs.clock.now(), op).map(|_| ())
}

/// setattr: a new mode goes into the ACL, too.
pub fn set_attributes(fs: &Fs, ino: Ino, change: AttributeChange, privileges: Privileges) -> FsResult<()> {
    let plain = Op::SetAttributes { ino, change, privileges };
    let Some(mode) = change.mode.filter(|_| fs.acls == AclSupport::Enforced) else {
        return fs.change(&[ino], plain);
    };
    let engine = fs.writer()?;
    let _locked = fs.stack.locks().lock(&[ino]);
    let op = match stored(fs, ino, AclKind::Access)? {
        None => plain,
        Some(acl) => {
            let value = Some(acl.chmod(mode).encode().into());
            Op::SetAcl { ino, change, privileges, name: attribute(AclKind::Access), value }
        }
    };
    engine.run(fs.clock.now(), op).map(|_| ())
}

/// What makes `inode` at `at`, whose directory is locked. The directory's default ACL, or else the umask, takes from the
/// mode that `node` asks for.
pub fn make(fs: &Fs, at: Entry, node: &NewNode<'_>, mut inode: NewInode) -> FsResult<Op> {
    let default = match node.kind {
        FileKind::Symlink => None,
        _ => stored(fs, at.parent, AclKind::Default)?,
    };
    let Some(default) = default else {
        inode.mode &= !node.umask;
        return Ok(Op::Make { at, inode });
    };
    let access = default.inherit(inode.mode);
    inode.mode = access.mode(inode.mode);
    let access = access.exceeds_mode().then(|| (attribute(AclKind::Access), access.encode().into()));
    let inherited = (node.kind == FileKind::Directory).then(|| (attribute(AclKind::Default), default.encode().into()));
    let acls: Vec<(Bytes, Bytes)> = access.into_iter().chain(inherited).collect();
    Ok(if acls.is_empty() { Op::Make { at, inode } } else { Op::MakeWithAcls { at, inode, acls } })
}

#[cfg(test)]
mod tests;
