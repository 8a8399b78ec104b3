//! Attributes and extended attributes.

use super::{Draft, content};
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{AttributeChange, Privileges, XattrMode};
use crate::schema::{FileKind, InodeValue, Time, Value};
use bytes::Bytes;

/// File capabilities: dropped together with suid and sgid.
const CAPABILITY: &[u8] = b"security.capability";
const SUID: u32 = 0o4000;
const SGID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

pub fn set(
    draft: &mut Draft<'_>,
    ino: Ino,
    change: &AttributeChange,
    privileges: Privileges,
    time: Time,
) -> FsResult<()> {
    let mut inode = draft.inode(ino)?;
    if let Some(size) = change.size {
        content::resize(draft, ino, &mut inode, size)?;
        inode.mtime = time;
    }
    if privileges == Privileges::Drop {
        drop_privileges(draft, ino, &mut inode)?;
    }
    if let Some(mode) = change.mode {
        inode.mode = mode & 0o7777;
    }
    inode.uid = change.uid.unwrap_or(inode.uid);
    inode.gid = change.gid.unwrap_or(inode.gid);
    inode.atime = change.atime.unwrap_or(inode.atime);
    inode.mtime = change.mtime.unwrap_or(inode.mtime);
    inode.ctime = time;
    draft.put_inode(ino, inode)
}

/// Clears suid, sgid (of what the group may execute) and file capabilities. A directory's sgid means something else.
pub fn drop_privileges(draft: &mut Draft<'_>, ino: Ino, inode: &mut InodeValue) -> FsResult<()> {
    if inode.kind == FileKind::Directory {
        return Ok(());
    }
    inode.mode &= !SUID;
    if inode.mode & GROUP_EXECUTE != 0 {
        inode.mode &= !SGID;
    }
    if draft.has_xattr(ino, CAPABILITY)? {
        draft.put_xattr(ino, CAPABILITY, Value::Tombstone);
    }
    Ok(())
}

pub fn set_xattr(
    draft: &mut Draft<'_>,
    ino: Ino,
    attribute: (&[u8], &Bytes),
    mode: XattrMode,
    time: Time,
) -> FsResult<()> {
    let (name, value) = attribute;
    let mut inode = draft.inode(ino)?;
    match (mode, draft.has_xattr(ino, name)?) {
        (XattrMode::Create, true) => return Err(FsError::Exists),
        (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
        _ => {}
    }
    inode.ctime = time;
    draft.put_inode(ino, inode)?;
    draft.put_xattr(ino, name, Value::Xattr(value.clone()));
    Ok(())
}

/// An ACL, besides the inode's own change.
pub fn put_acl(draft: &mut Draft<'_>, ino: Ino, name: &[u8], value: Option<&Bytes>) -> FsResult<()> {
    match value {
        Some(value) => draft.put_xattr(ino, name, Value::Xattr(value.clone())),
        None if draft.has_xattr(ino, name)? => draft.put_xattr(ino, name, Value::Tombstone),
        None => {}
    }
    Ok(())
}

pub fn remove_xattr(draft: &mut Draft<'_>, ino: Ino, name: &[u8], time: Time) -> FsResult<()> {
    let mut inode = draft.inode(ino)?;
    if !draft.has_xattr(ino, name)? {
        return Err(FsError::NoAttribute);
    }
    inode.ctime = time;
    draft.put_inode(ino, inode)?;
    draft.put_xattr(ino, name, Value::Tombstone);
    Ok(())
}
