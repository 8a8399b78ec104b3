//! The path of an inode, by its parents.

use super::error::CollectError;
use super::rows::View;
use kvfs::Ino;
use kvfs::schema::{InodeValue, Key, Value};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Directories whose paths are remembered.
const DIRS_CACHED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);
/// A tree deeper than this is a cycle.
const DEPTH_MAX: usize = 100_000;

/// See the file's first line.
pub(super) struct Paths<'a> {
    view: View<'a>,
    dirs: LruCache<Ino, Arc<[u8]>>,
}

impl<'a> Paths<'a> {
    pub fn new(view: View<'a>) -> Self {
        Self { view, dirs: LruCache::new(DIRS_CACHED) }
    }

    /// The path of an entry, without a leading `/`.
    pub fn entry(&mut self, parent: Ino, name: &[u8]) -> Result<Vec<u8>, CollectError> {
        let dir = self.directory(parent)?;
        Ok(join(&dir, name))
    }

    /// The path by the inode's own hint; `None` if that name is not (or no longer) this inode.
    pub fn by_hint(&mut self, ino: Ino, inode: &InodeValue) -> Result<Option<Vec<u8>>, CollectError> {
        if ino == Ino::ROOT {
            return Ok(Some(b".".to_vec()));
        }
        if inode.name.is_empty() {
            return Ok(None);
        }
        match self.view.get(&Key::dirent(inode.parent, &inode.name))? {
            Some(Value::Dirent(dirent)) if dirent.ino == ino => self.entry(inode.parent, &inode.name).map(Some),
            _ => Ok(None),
        }
    }

    fn directory(&mut self, ino: Ino) -> Result<Arc<[u8]>, CollectError> {
        let mut below = Vec::new();
        let mut at = ino;
        let mut path: Arc<[u8]> = loop {
            if at == Ino::ROOT {
                break Arc::from(&b""[..]);
            }
            if let Some(known) = self.dirs.get(&at) {
                break Arc::clone(known);
            }
            let Some(Value::Inode(inode)) = self.view.get(&Key::inode(at))? else {
                return Err(CollectError::Inconsistent(format!("directory {at} has no inode")));
            };
            if below.len() >= DEPTH_MAX {
                return Err(CollectError::Inconsistent(format!("directory {ino} is its own ancestor")));
            }
            below.push((at, inode.name.clone()));
            at = inode.parent;
        };
        for (dir, name) in below.into_iter().rev() {
            path = join(&path, &name).into();
            self.dirs.put(dir, Arc::clone(&path));
        }
        Ok(path)
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
