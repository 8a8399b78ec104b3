//! Filling READDIR and READDIRPLUS replies.

use super::convert;
use super::core::{Core, Failing};
use super::directory::{Cookies, Resume};
use crate::error::{FsError, FsResult};
use crate::fs::api::{Attributes, DirEntry, FileSystem};
use crate::ids::Ino;
use fuser::{Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

/// Entries that are read at a time: about a reply of 32 KiB.
const NAMES_BATCH: usize = 512;
/// Here each costs a look-up, which is in vain if the reply is full.
const LOOKUPS_BATCH: usize = 64;

/// An entry, with attributes if they are asked for.
pub(super) struct Line {
    entry: DirEntry,
    attributes: Option<Attributes>,
}

/// Some consecutive entries.
pub(super) struct Batch {
    lines: Vec<Line>,
    /// Whether it is worth asking for more before this reply goes out.
    rest: Rest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Perhaps,
    Unlikely,
}

/// Whether a room for one more entry was left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// The entry is in.
    Enough,
    /// It is not.
    Full,
}

/// A reply that lists entries.
pub(super) trait Sheet: Failing {
    /// Some entries behind `from`; none at the end of the directory.
    fn read(fs: &dyn FileSystem, ino: Ino, from: &Resume) -> FsResult<Batch>;
    /// Adds a line.
    fn put(&mut self, core: &Core, cookie: u64, line: &Line) -> Room;
    /// Sends it.
    fn send(self);
}

impl Sheet for ReplyDirectory {
    fn read(fs: &dyn FileSystem, ino: Ino, from: &Resume) -> FsResult<Batch> {
        let entries = from.read(fs, ino, NAMES_BATCH)?;
        let rest = if entries.len() < NAMES_BATCH { Rest::Unlikely } else { Rest::Perhaps };
        let lines = entries.into_iter().map(|entry| Line { entry, attributes: None }).collect();
        Ok(Batch { lines, rest })
    }

    fn put(&mut self, _core: &Core, cookie: u64, line: &Line) -> Room {
        let entry = &line.entry;
        let kind = convert::file_type(entry.kind);
        room(self.add(INodeNo(entry.ino.0), cookie, kind, OsStr::from_bytes(&entry.name)))
    }

    fn send(self) {
        self.ok();
    }
}

impl Sheet for ReplyDirectoryPlus {
    fn read(fs: &dyn FileSystem, ino: Ino, from: &Resume) -> FsResult<Batch> {
        let mut from = from.clone();
        loop {
            let entries = from.read(fs, ino, LOOKUPS_BATCH)?;
            let Some(last) = entries.last() else { return Ok(Batch { lines: Vec::new(), rest: Rest::Unlikely }) };
            from = Resume::behind(&last.name);
            let rest = if entries.len() < LOOKUPS_BATCH { Rest::Unlikely } else { Rest::Perhaps };
            let lines = look_up_all(fs, entries)?;
            if !lines.is_empty() {
                return Ok(Batch { lines, rest });
            }
        }
    }

    fn put(&mut self, core: &Core, cookie: u64, line: &Line) -> Room {
        let entry = &line.entry;
        let (attr, ttl) = match &line.attributes {
            Some(attributes) => (convert::file_attr(attributes), core.cache_ttl()),
            None => (convert::bare_attr(entry.ino, entry.kind), Duration::ZERO),
        };
        let name = OsStr::from_bytes(&entry.name);
        let room = room(self.add(attr.ino, cookie, name, &ttl, &attr, Generation(0)));
        if let (Room::Enough, Some(attributes)) = (room, &line.attributes) {
            core.lookups.remember(attributes.ino);
        }
        room
    }

    fn send(self) {
        self.ok();
    }
}

fn room(full: bool) -> Room {
    if full { Room::Full } else { Room::Enough }
}

/// `.` and `..` go without attributes: the kernel takes none from them and holds no reference.
/// An entry that was removed in between is left out; what cannot be had ends the batch, or is the answer.
fn look_up_all(fs: &dyn FileSystem, entries: Vec<DirEntry>) -> FsResult<Vec<Line>> {
    let mut lines = Vec::with_capacity(entries.len());
    for entry in entries {
        let attributes = match entry.name.as_slice() {
            b"." | b".." => None,
            // The kernel holds the directory while it lists it: the name still stands for this inode.
            _ => match fs.attributes(entry.ino) {
                Ok(attributes) if attributes.nlink > 0 => Some(attributes),
                Ok(_) | Err(FsError::NotFound | FsError::Stale) => continue,
                Err(error) if lines.is_empty() => return Err(error),
                Err(_) => break,
            },
        };
        lines.push(Line { entry, attributes });
    }
    Ok(lines)
}

impl Core {
    /// Answers READDIR and READDIRPLUS of `ino` behind `cookie`.
    pub(super) fn list<S: Sheet>(self: &Arc<Self>, ino: Ino, handle: u64, cookie: u64, reply: S) {
        let Some(cookies) = self.directories.get(handle, cookie) else { return reply.fail(libc::EBADF) };
        let Some(from) = cookies.lock().resume(cookie) else { return reply.fail(libc::EINVAL) };
        self.answer(
            ino,
            reply,
            [],
            move |fs, []| S::read(fs, ino, &from),
            move |core, reply, batch| core.reply_with(ino, (handle, &cookies), reply, (cookie, batch)),
        );
    }

    /// Fills the reply and sends it.
    fn reply_with<S: Sheet>(&self, ino: Ino, from: (u64, &Mutex<Cookies>), mut reply: S, first: (u64, Batch)) {
        let (handle, cookies) = from;
        self.fill(ino, cookies, &mut reply, first);
        self.directories.keep(handle, &mut cookies.lock());
        reply.send();
    }

    /// Puts `first`, which follows the entry with a cookie, into the reply, then more as long as there is room and
    /// nothing has to be waited for.
    fn fill<S: Sheet>(&self, ino: Ino, cookies: &Mutex<Cookies>, reply: &mut S, first: (u64, Batch)) {
        let (mut cookie, mut batch) = first;
        loop {
            let mut known = cookies.lock();
            for line in &batch.lines {
                let next = known.assign(cookie, &line.entry.name);
                if reply.put(self, next, line) == Room::Full {
                    return;
                }
                cookie = next;
            }
            drop(known);
            let Some(last) = batch.lines.last().filter(|_| batch.rest == Rest::Perhaps) else { return };
            match S::read(&*self.fs, ino, &Resume::behind(&last.entry.name)) {
                Ok(more) => batch = more,
                Err(_) => return,
            }
        }
    }
}
