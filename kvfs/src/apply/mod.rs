//! What a journal record does to the tree: one deterministic function, live, in replay, and later on a standby.
//!
//! It reads through a [`Draft`] and leaves its changes there; it never looks at a clock, a counter or the disk.

mod attributes;
mod content;
mod copy;
mod draft;
mod evacuate;
mod names;

pub use content::{WriteBytes, windows_of};
pub use draft::{Draft, KnownName};

use crate::error::FsResult;
use crate::op::{Op, Record};

/// Applies `record` to `draft`. An error means that the operation is refused and the draft is to be thrown away.
pub fn apply(record: &Record, draft: &mut Draft<'_>) -> FsResult<()> {
    let time = record.time;
    match &record.op {
        Op::Root(root) => {
            names::root(draft, root, time);
            Ok(())
        }
        Op::Make { at, inode } => names::make(draft, at, inode, time),
        Op::MakeWithAcls { at, inode, acls } => names::make_with_acls(draft, at, (inode, acls.as_slice()), time),
        Op::Link { ino, at } => names::link(draft, *ino, at, time),
        Op::Unlink { at } => names::unlink(draft, at, time),
        Op::Rmdir { at } => names::rmdir(draft, at, time),
        Op::Rename { from, to, mode } => names::rename(draft, (from, to), *mode, time),
        Op::SetAttributes { ino, change, privileges } => attributes::set(draft, *ino, change, *privileges, time),
        Op::Write { ino, offset, len, privileges } => {
            let bytes = WriteBytes { offset: *offset, len: *len, payload: &record.payload };
            content::write(draft, *ino, bytes, *privileges, time)
        }
        Op::Allocate { ino, offset, len, mode, privileges } => {
            content::allocate(draft, *ino, (*offset, *len), (*mode, *privileges), time)
        }
        Op::SetXattr { ino, name, value, mode } => attributes::set_xattr(draft, *ino, (name, value), *mode, time),
        Op::SetAcl { ino, change, privileges, name, value } => {
            attributes::set(draft, *ino, change, *privileges, time)?;
            attributes::put_acl(draft, *ino, name, value.as_ref())
        }
        Op::RemoveXattr { ino, name } => attributes::remove_xattr(draft, *ino, name, time),
        Op::CopyRange { range, privileges } => copy::copy(draft, range, *privileges, time),
        Op::Evacuate(evacuation) => evacuate::evacuate(draft, evacuation, &record.payload),
        Op::Purge { ino } => names::purge(draft, *ino),
        Op::PurgeAll { inos } => inos.iter().try_for_each(|ino| names::purge(draft, *ino)),
        Op::Snapshot(_) | Op::Epoch { .. } => Ok(()),
    }
}
