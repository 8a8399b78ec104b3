//! Listing directories.

use super::{DirEntry, Fs};
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::schema::key::Parts;
use crate::schema::{FileKind, Key, Space, Value};

/// `.`, `..`, then the names in byte order; a listing resumes behind a name, whether it is still there or not.
pub fn read(fs: &Fs, ino: Ino, after: Option<&[u8]>, max: usize) -> FsResult<Vec<DirEntry>> {
    let directory = fs.existing(ino)?;
    if !directory.is_dir() {
        return Err(FsError::NotDirectory);
    }
    let dots = [(&b"."[..], ino), (&b".."[..], directory.parent)];
    let skip = match after {
        None => 0,
        Some(b".") => 1,
        Some(_) => 2,
    };
    let dot = |(name, ino): &(&[u8], Ino)| DirEntry { ino: *ino, kind: FileKind::Directory, name: name.to_vec() };
    let mut entries: Vec<DirEntry> = dots.iter().skip(skip).map(dot).take(max).collect();
    let from = match after {
        None | Some(b"." | b"..") => Key::first_of(ino, Space::Dirent),
        Some(name) => behind(ino, name),
    };
    let tiers = fs.stack.load();
    let room = max.saturating_sub(entries.len());
    for (key, value) in tiers.view().scan(ino, Space::Dirent, &from, room)? {
        let (Some(parts), Value::Dirent(dirent)) = (Parts::parse(key.as_bytes()), value) else {
            return Err(FsError::corrupt(format!("directory {ino}: an entry of another kind")));
        };
        entries.push(DirEntry { ino: dirent.ino, kind: dirent.kind, name: parts.rest.to_vec() });
    }
    Ok(entries)
}

/// The first possible key behind a name.
fn behind(ino: Ino, name: &[u8]) -> Key {
    let mut longer = name.to_vec();
    longer.push(0);
    Key::dirent(ino, &longer)
}
