//! Reading a tree.

use super::{Entry, Kind, Manifest};
use anyhow::{Context, Result, bail};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use walkdir::WalkDir;

const BLOCK_BYTES: u64 = 4096;
const READ_BYTES: u64 = 1 << 20;

impl Manifest {
    /// Reads the whole tree below `root`; anything that cannot be read is an error.
    pub fn scan(root: &Path) -> Result<Manifest> {
        let mut entries = BTreeMap::new();
        let mut groups: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
        for item in WalkDir::new(root).sort_by_file_name() {
            let item = item.context("cannot walk the tree")?;
            let path = item.path();
            let meta = fs::symlink_metadata(path).with_context(|| format!("stat of {}", path.display()))?;
            let name = path.strip_prefix(root)?.as_os_str().as_bytes().to_vec();
            if !meta.is_dir() && meta.nlink() > 1 {
                groups.entry(meta.ino()).or_default().push(name.clone());
            }
            let entry = entry_of(path, &meta).with_context(|| format!("reading {}", path.display()))?;
            entries.insert(name, entry);
        }
        for mut names in groups.into_values().filter(|names| names.len() > 1) {
            names.sort();
            for name in &names {
                if let Some(entry) = entries.get_mut(name) {
                    entry.link_group = Some(names[0].clone());
                }
            }
        }
        Ok(Manifest { entries })
    }
}

fn entry_of(path: &Path, meta: &Metadata) -> Result<Entry> {
    Ok(Entry {
        kind: kind_of(path, meta)?,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        xattrs: xattrs_of(path)?,
        link_group: None,
    })
}

fn kind_of(path: &Path, meta: &Metadata) -> Result<Kind> {
    let kind = meta.file_type();
    Ok(if kind.is_file() {
        let data = data_ranges(path, meta.size())?;
        Kind::File { size: meta.size(), hash: hash_of(path, &data)?, data }
    } else if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Symlink(fs::read_link(path)?.into_os_string().into_vec())
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_char_device() {
        Kind::CharDevice(meta.rdev())
    } else if kind.is_block_device() {
        Kind::BlockDevice(meta.rdev())
    } else {
        bail!("a file of unknown type")
    })
}

fn xattrs_of(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for name in xattr::list(path)? {
        // Labels that a security module adds belong to the host.
        if name.as_bytes() != b"security.selinux" {
            let value = xattr::get(path, &name)?.with_context(|| format!("{} went away", name.display()))?;
            found.insert(name.into_vec(), value);
        }
    }
    Ok(found)
}

fn data_ranges(path: &Path, size: u64) -> Result<Vec<(u64, u64)>> {
    let file = File::open(path)?;
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error).context("SEEK_DATA"),
        };
        let end = seek(&file, SeekFrom::Hole(start)).context("SEEK_HOLE")?.min(size);
        if end <= start {
            bail!("SEEK_HOLE went from {start} to {end}");
        }
        ranges.push((start, end));
        at = end;
    }
    Ok(ranges)
}

/// The same for the same bytes, wherever the filesystem keeps holes for zeros.
fn hash_of(path: &Path, data: &[(u64, u64)]) -> Result<[u8; 32]> {
    let file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES as usize];
    let mut done = 0;
    for &(start, end) in data {
        let mut at = (start / BLOCK_BYTES * BLOCK_BYTES).max(done);
        while at < end {
            let n = read_full(&file, &mut buffer, at)?;
            if n == 0 {
                bail!("the file ended at {at}, its data at {end}");
            }
            let wanted = (end.next_multiple_of(BLOCK_BYTES) - at).min(n as u64) as usize;
            for (index, block) in buffer[..wanted].chunks(BLOCK_BYTES as usize).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    let offset = at + index as u64 * BLOCK_BYTES;
                    let bytes = without_last_zeros(block);
                    hasher.update(&offset.to_le_bytes()).update(&bytes.len().to_le_bytes()).update(bytes);
                }
            }
            at += wanted as u64;
        }
        done = at;
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Blocks are hashed so, that a short last block equals the same bytes in a longer file; the size says the rest.
fn without_last_zeros(block: &[u8]) -> &[u8] {
    let end = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &block[..end]
}

fn read_full(file: &File, buffer: &mut [u8], at: u64) -> Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read_at(&mut buffer[n..], at + n as u64)? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}
