//! Hard links: the first name is the file, later ones are links to it.

use super::error::ExportError;
use kvfs::Ino;
use kvfs::schema::InodeValue;
use std::collections::HashMap;

/// Files with several names that are not all seen yet: their first paths. Files with one name are never here.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<Ino, First>);

#[derive(Debug)]
struct First {
    path: Vec<u8>,
    names_left: u32,
}

impl Links {
    /// The path of the first name; `None` if `path` is the first one itself.
    pub fn first_name(&mut self, ino: Ino, inode: &InodeValue, path: &[u8]) -> Option<Vec<u8>> {
        if inode.is_dir() || inode.nlink < 2 {
            return None;
        }
        let Some(first) = self.0.get_mut(&ino) else {
            self.0.insert(ino, First { path: path.to_vec(), names_left: inode.nlink - 1 });
            return None;
        };
        first.names_left -= 1;
        if first.names_left > 0 {
            return Some(first.path.clone());
        }
        self.0.remove(&ino).map(|first| first.path)
    }

    /// Checks that every file had as many names as it says.
    pub fn finish(&self) -> Result<(), ExportError> {
        match self.0.iter().min_by_key(|(ino, _)| **ino) {
            None => Ok(()),
            Some((ino, first)) => {
                let what = format!("inode {ino} has {} names less than it says", first.names_left);
                Err(ExportError::index(&first.path, what))
            }
        }
    }
}
