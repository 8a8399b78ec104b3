//! The tree of a snapshot: every inode with what belongs to it, in one ordered pass, then names and directories.

use super::acls;
use super::directories::Directories;
use super::error::VerifyError;
use super::finding::{Finding, Findings, Problem, SnapshotName, Told};
use super::ledger::Truth;
use super::names::{Names, NodeRow};
use super::scratch::Scratch;
use super::stack::Stack;
use crate::error::AgentError;
use cloud_mgmt::ledger::Published;
use kvfs::Ino;
use kvfs::schema::key::Parts;
use kvfs::schema::value::PackValue;
use kvfs::schema::{FileKind, InodeValue, PackUsersValue, Place, Space, Value, WINDOW_BYTES, WindowValue};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What the index says of a pack.
#[derive(Clone, Debug)]
pub(super) struct PackFacts {
    /// Raw bytes in all its frames.
    pub raw: u64,
}

/// Sums over a tree.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TreeSums {
    pub inodes: u64,
    pub names: u64,
    pub bytes: u64,
}

/// What files of the snapshot use of a pack.
#[derive(Clone, Debug, Default)]
struct PackUse {
    live: u64,
    /// Behind the last frame that is used, bytes in the object.
    end: u64,
    /// One of the inodes that use it.
    ino: u64,
    /// Where the index says that its users are; `None`: it does not say.
    listed: Option<Vec<(Ino, Ino)>>,
    /// A user that is not there.
    unlisted: Option<Ino>,
}

impl PackUse {
    fn new(listed: Option<PackUsersValue>) -> Self {
        Self { listed: listed.map(|users| users.ranges().collect()), ..Self::default() }
    }

    fn is_listed(&self, ino: Ino) -> bool {
        self.listed.as_ref().is_none_or(|ranges| {
            let at = ranges.partition_point(|(_, last)| *last < ino);
            ranges.get(at).is_some_and(|(first, _)| *first <= ino)
        })
    }
}

/// What checking trees needs.
pub(super) struct TreeCheck<'a> {
    pub scratch: &'a Scratch,
    pub truth: &'a Truth,
    /// Filled as trees are checked.
    pub packs: &'a mut BTreeMap<u64, PackFacts>,
    pub findings: &'a mut Findings,
}

impl TreeCheck<'_> {
    /// Checks the tree that the runs of a snapshot show.
    pub fn check(&mut self, published: &Published, stack: &Stack) -> Result<TreeSums, VerifyError> {
        let mut scan = Scan {
            published,
            stack,
            truth: self.truth,
            facts: self.packs,
            findings: self.findings,
            open: None,
            used: HashMap::new(),
            known: HashSet::new(),
            names: Names::new(self.scratch)?,
            directories: Directories::new(self.scratch)?,
            sums: TreeSums::default(),
        };
        let mut failure = None;
        let scanned = stack.scan(&mut |key, value| match scan.record(key, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        scanned.map_err(AgentError::Base)?;
        scan.finish()
    }
}

/// The inode whose records are coming by.
struct OpenInode {
    ino: Ino,
    inode: Arc<InodeValue>,
    subdirectories: u32,
    stored: u64,
}

struct Scan<'a> {
    published: &'a Published,
    stack: &'a Stack,
    truth: &'a Truth,
    facts: &'a mut BTreeMap<u64, PackFacts>,
    findings: &'a mut Findings,
    open: Option<OpenInode>,
    used: HashMap<u64, PackUse>,
    /// Packs that the index has a record of.
    known: HashSet<u64>,
    names: Names<'a>,
    directories: Directories<'a>,
    sums: TreeSums,
}

impl Scan<'_> {
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), VerifyError> {
        // Both were checked with the run.
        let (Some(parts), Ok((_, value))) = (Parts::parse(key), Value::decode(value)) else { return Ok(()) };
        if self.open.as_ref().is_some_and(|open| open.ino != parts.ino) {
            self.close();
        }
        match (parts.space, value) {
            (Space::Inode, Value::Inode(inode)) => self.inode(parts.ino, inode)?,
            (Space::Window, Value::Window(window)) => {
                if self.belongs(&parts) {
                    self.window(parts.number().unwrap_or_default(), &window);
                }
            }
            (Space::Dirent, Value::Dirent(entry)) => {
                self.sums.names += 1;
                self.names.name(entry, parts.ino, parts.rest)?;
                if self.belongs(&parts)
                    && let Some(open) = self.open.as_mut().filter(|_| entry.kind == FileKind::Directory)
                {
                    open.subdirectories = open.subdirectories.saturating_add(1);
                }
            }
            (Space::Xattr, Value::Xattr(value)) => {
                if self.belongs(&parts)
                    && let Some(open) = &self.open
                    && let Some(what) = acls::fault(self.truth.acls, &open.inode, parts.rest, &value)
                {
                    self.add(Problem::Acl, parts.ino, what);
                }
            }
            (Space::Pack, Value::Pack(pack)) => self.pack(parts.number().unwrap_or_default(), &pack),
            // Asked for by pack, where it is first used.
            (Space::PackUsers, _) => {}
            _ => {
                self.belongs(&parts);
            }
        }
        Ok(())
    }

    fn add(&mut self, problem: Problem, ino: Ino, what: impl Into<String>) {
        let hits = vec![SnapshotName::from(&*self.published.snapshot)];
        let finding = Finding::new(problem, None, what).on(ino.0).hits(hits);
        if self.findings.add(finding) == Told::Now
            && let Some(finding) = self.findings.last_mut()
        {
            finding.path = self.stack.path(ino);
        }
    }

    fn add_pack(&mut self, problem: Problem, number: u64, what: impl Into<String>) {
        let object = self.truth.packs.get(&number).map(|pack| pack.entry.object.as_str());
        let hits = vec![SnapshotName::from(&*self.published.snapshot)];
        self.findings.add(Finding::new(problem, object, what).hits(hits));
    }

    fn inode(&mut self, ino: Ino, inode: Arc<InodeValue>) -> Result<(), VerifyError> {
        self.sums.inodes += 1;
        if inode.kind == FileKind::Regular {
            self.sums.bytes = self.sums.bytes.saturating_add(inode.size);
        }
        if ino.0 >= self.published.snapshot.ino_end || ino.0 == 0 {
            let what = format!(
                "its number is not below {}, the end of the snapshot's inode numbers",
                self.published.snapshot.ino_end
            );
            self.add(Problem::Tree, ino, what);
        }
        if inode.nlink == 0 {
            self.add(Problem::Tree, ino, "it is in the snapshot and has no links");
        }
        if inode.kind == FileKind::Symlink && inode.size != inode.target.len() as u64 {
            let what = format!("a symbolic link of {} bytes, and its size is {}", inode.target.len(), inode.size);
            self.add(Problem::Tree, ino, what);
        }
        self.names.node(&NodeRow::new(ino, &inode))?;
        if inode.is_dir() {
            self.directories.add(ino, inode.parent)?;
        }
        self.open = Some(OpenInode { ino, inode, subdirectories: 0, stored: 0 });
        Ok(())
    }

    /// Whether the record is of the inode at hand, and of a kind that it can have.
    fn belongs(&mut self, parts: &Parts<'_>) -> bool {
        let what = match (&self.open, parts.space) {
            (Some(open), Space::Window) if open.inode.kind != FileKind::Regular => {
                "it has bytes and is no regular file"
            }
            (Some(open), Space::Dirent) if open.inode.kind != FileKind::Directory => {
                "it has entries and is no directory"
            }
            (Some(_), _) => return true,
            (None, Space::Dirent) => "it has entries and there is no such inode",
            (None, _) => "it has bytes or xattrs and there is no such inode",
        };
        self.add(Problem::Tree, parts.ino, what);
        false
    }

    fn window(&mut self, number: u64, window: &WindowValue) {
        let Some(open) = self.open.as_mut() else { return };
        let (ino, size) = (open.ino, open.inode.size);
        open.stored += window.stored_bytes();
        let end = window.extents.last().map_or(0, |last| u64::from(last.end()));
        let end = number.checked_mul(WINDOW_BYTES).and_then(|start| start.checked_add(end));
        if !window.is_empty() && end.is_none_or(|end| end > size) {
            self.add(Problem::Extent, ino, format!("it has bytes in window {number}, behind its end at {size}"));
        }
        for extent in &window.extents {
            if let Place::Frame { frame, .. } = &extent.place {
                let pack = frame.pack;
                let used = self.used.entry(pack.0).or_insert_with(|| PackUse::new(self.stack.users(pack)));
                used.live += u64::from(extent.len);
                used.end = used.end.max(frame.offset.saturating_add(u64::from(frame.stored_len)));
                used.ino = ino.0;
                if used.unlisted.is_none() && !used.is_listed(ino) {
                    used.unlisted = Some(ino);
                }
            }
        }
    }

    /// The inode at hand is complete.
    fn close(&mut self) {
        let Some(OpenInode { ino, inode, subdirectories, stored }) = self.open.take() else { return };
        if inode.is_dir() && inode.nlink != subdirectories.saturating_add(2) {
            let what = format!("a directory with {subdirectories} subdirectories has {} links", inode.nlink);
            self.add(Problem::Tree, ino, what);
        }
        if inode.stored != stored {
            let what = format!("its extents have {stored} bytes, the inode says {}", inode.stored);
            self.add(Problem::Extent, ino, what);
        }
    }

    /// The index's record of a pack; all inodes came before it.
    fn pack(&mut self, number: u64, pack: &PackValue) {
        let used = self.used.remove(&number).unwrap_or_default();
        self.known.insert(number);
        self.facts.entry(number).or_insert(PackFacts { raw: pack.raw });
        if used.live != pack.live {
            let what = format!("files use {} bytes of pack {number}, the index counts {}", used.live, pack.live);
            self.add_pack(Problem::PackUse, number, what);
        }
        if let Some(ino) = used.unlisted {
            let what = format!("inode {ino} uses pack {number}, and the index does not name it among the users");
            self.add_pack(Problem::PackUse, number, what);
        }
        if used.end > pack.size {
            let what = format!("inode {} names a frame that ends at byte {} of {}", used.ino, used.end, pack.size);
            self.add_pack(Problem::Extent, number, what);
        }
        if number >= self.published.snapshot.pack_end {
            let what =
                format!("pack {number} is not below {}, the end of pack numbers", self.published.snapshot.pack_end);
            self.add_pack(Problem::Manifest, number, what);
        }
        // A deleted filesystem keeps its index and no packs.
        if self.truth.history.deletion().is_some() {
            return;
        }
        match self.truth.packs.get(&number) {
            Some(known) if (&known.entry.object, known.entry.size) != (&pack.object, pack.size) => {
                let what = format!("the index says that pack {number} is {} of {} bytes", pack.object, pack.size);
                self.add_pack(Problem::Manifest, number, what);
            }
            Some(known) if known.is_used_by(self.published.seq) => {}
            _ => {
                let what = format!(
                    "the snapshot's index has pack {number}, {}, and by the ledger it is dead or unknown",
                    pack.object
                );
                self.add_pack(Problem::PackUse, number, what);
            }
        }
    }

    fn finish(mut self) -> Result<TreeSums, VerifyError> {
        self.close();
        let mut without: Vec<_> = std::mem::take(&mut self.used).into_iter().collect();
        without.sort_unstable_by_key(|(number, _)| *number);
        for (number, used) in without {
            let what = format!("it has bytes in pack {number}, of which the index has no record");
            self.add(Problem::Extent, Ino(used.ino), what);
        }
        self.leaks();
        let entry = &self.published.snapshot;
        if (self.sums.inodes, self.sums.bytes) != (entry.inodes, entry.bytes) {
            let TreeSums { inodes, bytes, .. } = self.sums;
            let what = format!(
                "the manifest counts {} inodes and {} bytes, the tree has {inodes} and {bytes}",
                entry.inodes, entry.bytes
            );
            let object = self.truth.history.fs().ledger_object(self.published.seq.0);
            let hits = vec![SnapshotName::from(&**entry)];
            self.findings.add(Finding::new(Problem::Manifest, Some(&object), what).hits(hits));
        }
        let Self { published, stack, findings, names, directories, sums, .. } = self;
        let mut add = |ino: Ino, what: String| {
            let hits = vec![SnapshotName::from(&*published.snapshot)];
            if findings.add(Finding::new(Problem::Tree, None, what).on(ino.0).hits(hits)) == Told::Now
                && let Some(finding) = findings.last_mut()
            {
                finding.path = stack.path(ino);
            }
        };
        names.check(&mut add)?;
        directories.check(&mut add)?;
        Ok(sums)
    }

    /// Packs that the ledger keeps for this snapshot and its index does not know.
    fn leaks(&mut self) {
        let unknown: Vec<u64> = self
            .truth
            .packs
            .iter()
            .filter(|(number, pack)| pack.is_used_by(self.published.seq) && !self.known.contains(number))
            .map(|(number, _)| *number)
            .collect();
        for number in unknown {
            self.add_pack(
                Problem::Unused,
                number,
                format!("no file uses pack {number}, and no record says that it is dead"),
            );
        }
    }
}
