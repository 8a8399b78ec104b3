//! Extended attributes.

use super::{Fs, NAME_BYTES_MAX};
use crate::acl::{AclKind, AclSupport};
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{Op, XattrMode};
use crate::schema::key::Parts;
use crate::schema::{Key, Space};
use bytes::Bytes;

/// Largest value, bytes: Linux's own limit.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Bytes that a listing of all names may have: Linux's own limit.
const LIST_BYTES_MAX: usize = 64 << 10;

/// `user.`, `trusted.` and `security.`. Of `system.`, ACLs can be read and removed where there are any; setting one is not
/// setting an attribute (see `acls.rs`).
fn check_name(name: &[u8]) -> FsResult<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(FsError::Range);
    }
    let known: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    if known.iter().any(|space| name.starts_with(space) && name.len() > space.len()) {
        Ok(())
    } else {
        Err(FsError::Unsupported)
    }
}

fn check_name_or_acl(fs: &Fs, name: &[u8]) -> FsResult<()> {
    match AclKind::of(name) {
        Some(_) if fs.acls == AclSupport::Enforced => Ok(()),
        _ => check_name(name),
    }
}

pub fn get(fs: &Fs, ino: Ino, name: &[u8]) -> FsResult<Bytes> {
    check_name_or_acl(fs, name)?;
    let tiers = fs.stack.load();
    tiers.view().xattr(ino, name)?.ok_or(FsError::NoAttribute)
}

pub fn list(fs: &Fs, ino: Ino) -> FsResult<Vec<Vec<u8>>> {
    let tiers = fs.stack.load();
    let rows = tiers.view().scan(ino, Space::Xattr, &Key::first_of(ino, Space::Xattr), usize::MAX)?;
    Ok(rows.iter().filter_map(|(key, _)| Parts::parse(key.as_bytes()).map(|parts| parts.rest.to_vec())).collect())
}

pub fn set(fs: &Fs, ino: Ino, name: &[u8], how: (&[u8], XattrMode)) -> FsResult<()> {
    let (value, mode) = how;
    check_name(name)?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(FsError::ValueTooLarge);
    }
    check_room(fs, ino, name)?;
    let value = Bytes::copy_from_slice(value);
    fs.change(&[ino], Op::SetXattr { ino, name: Bytes::copy_from_slice(name), value, mode })
}

/// Refuses a new name beyond those that can be listed.
pub fn check_room(fs: &Fs, ino: Ino, name: &[u8]) -> FsResult<()> {
    let is_new = |names: &[Vec<u8>]| !names.iter().any(|n| n == name);
    let names = list(fs, ino)?;
    let listed: usize = names.iter().map(|n| n.len() + 1).sum();
    if is_new(&names) && listed + name.len() + 1 > LIST_BYTES_MAX {
        return Err(FsError::NoSpace);
    }
    Ok(())
}

pub fn remove(fs: &Fs, ino: Ino, name: &[u8]) -> FsResult<()> {
    check_name_or_acl(fs, name)?;
    match fs.change(&[ino], Op::RemoveXattr { ino, name: Bytes::copy_from_slice(name) }) {
        // An ACL is always there: without an attribute it is the mode.
        Err(FsError::NoAttribute) if AclKind::of(name).is_some() => Ok(()),
        done => done,
    }
}
