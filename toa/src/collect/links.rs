//! Further names of files that are in the packs, as tar hard links.

use super::error::CollectError;
use super::walk::Walk;
use crate::pack::{Member, MemberKind};
use kvfs::Ino;
use kvfs::schema::{Key, Value};
use std::collections::HashMap;

/// Members that may have further names, by inode.
#[derive(Default)]
pub(super) struct Links(HashMap<Ino, Member>);

impl Links {
    /// `member` was (or will be) written under its path; other names shall link to it.
    pub fn expect(&mut self, member: &Member) {
        let link = Member { kind: MemberKind::HardLink { target: member.path.clone() }, ..member.clone() };
        self.0.insert(member.ino, Member { xattrs: Vec::new(), ..link });
    }
}

impl Walk<'_> {
    /// Writes the link members. A link must follow its target in the tar, but the entries of a directory come before
    /// most of what they name: so the entries are read again, only if there is something to link.
    pub(super) fn hard_links(&mut self) -> Result<(), CollectError> {
        if self.links.0.is_empty() {
            return Ok(());
        }
        let mut rows = self.view.changed(Key::orphan(Ino(0)), Key::end_of_inode(Ino(u64::MAX)));
        while let Some(row) = rows.next()? {
            let parts = row.parts()?;
            if parts.space != kvfs::schema::Space::Dirent {
                continue;
            }
            let Value::Dirent(dirent) = row.decode()?.1 else { continue };
            let Some(link) = self.links.0.get(&dirent.ino) else { continue };
            let path = self.paths.entry(parts.ino, parts.rest)?;
            if !matches!(&link.kind, MemberKind::HardLink { target } if *target == path) {
                let member = Member { path, ..link.clone() };
                self.packer.bare(&member)?;
            }
        }
        Ok(())
    }
}
