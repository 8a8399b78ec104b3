//! Index runs: copied once, then every node, its order and every record in it.

use super::error::VerifyError;
use super::finding::{Finding, Findings, Problem};
use super::frames::FrameList;
use super::ledger::{Truth, parse_root};
use super::records;
use super::scratch::Scratch;
use super::source::{ReadFailure, Source};
use super::stack::LocalRun;
use crate::error::AgentError;
use crate::run::node::NodeCursor;
use crate::run::{FileNodes, Footer, NodePtr, NodeSource, RunError, Tree};
use cloud_mgmt::ledger::RunEntry;
use kvfs::Ino;
use kvfs::schema::Value;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// What is wrong with a run, or why nothing can be said of it.
enum Fault {
    Damage(Problem, String),
    Unknown(VerifyError),
}

impl From<VerifyError> for Fault {
    fn from(error: VerifyError) -> Self {
        Self::Unknown(error)
    }
}

/// Where the bytes of a run came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The copy that an interrupted verification had made.
    Copy,
    /// The bucket.
    Bucket,
}

/// What checking runs needs.
pub(super) struct RunCheck<'a> {
    pub source: &'a Source,
    pub scratch: &'a Scratch,
    pub truth: &'a Truth,
}

impl RunCheck<'_> {
    /// Checks a run that the listing has in its right size; `None` if it is damaged, which is added to the findings.
    /// `frames` is told every frame in it. `read` hears of bytes that were read.
    pub fn check(
        &self,
        entry: &RunEntry,
        mut frames: Option<&mut FrameList<'_>>,
        findings: &mut Findings,
        read: &mut dyn FnMut(u64, Origin),
    ) -> Result<Option<LocalRun>, VerifyError> {
        // A copy of an interrupted verification; one that does not check is fetched again, like any wrong bytes.
        let old = self.scratch.old_copy(&entry.object, entry.size);
        let mut last = None;
        for old in [old.map(Some), Some(None), Some(None)].into_iter().flatten() {
            let copied = match old {
                Some(file) => {
                    read(entry.size, Origin::Copy);
                    Ok(file)
                }
                None => self.copy(entry, read),
            };
            match copied {
                // What was added to the frames before a node did not check is of nodes that did.
                Ok(file) => match check_copy(file, self.scratch.dir(), entry, frames.as_deref_mut()) {
                    Ok(run) => return Ok(Some(run)),
                    Err(Fault::Unknown(error)) => return Err(error),
                    Err(Fault::Damage(problem, what)) => last = Some((problem, what)),
                },
                Err(ReadFailure::Wrong(what)) => last = Some((Problem::WrongBytes, what)),
                Err(ReadFailure::Gone) if self.truth.still_needs(&entry.object)? => {
                    last = Some((Problem::Missing, "it was listed and is gone".to_owned()));
                }
                Err(ReadFailure::Gone) => return Ok(None),
                Err(ReadFailure::Unknown(error)) => return Err(error),
            }
        }
        if let Some((problem, what)) = last {
            let hits = self.truth.users_of_run(&entry.object);
            findings.add(Finding::new(problem, Some(&entry.object), what).hits(hits));
        }
        Ok(None)
    }

    /// Brings the whole object.
    fn copy(&self, entry: &RunEntry, read: &mut dyn FnMut(u64, Origin)) -> Result<File, ReadFailure> {
        let mut copy = self.scratch.new_copy(&entry.object)?;
        self.source.read(&entry.object, entry.size, |bytes| {
            read(bytes.len() as u64, Origin::Bucket);
            copy.file.write_all(bytes).map_err(self.scratch.failed("write"))
        })?;
        Ok(copy.finish()?)
    }
}

fn check_copy(file: File, dir: &Path, entry: &RunEntry, frames: Option<&mut FrameList<'_>>) -> Result<LocalRun, Fault> {
    let wrong = |what: String| Fault::Damage(Problem::WrongBytes, what);
    let root = parse_root(&entry.root).ok_or_else(|| wrong("the ledger has no root hash of it".to_owned()))?;
    let tree = Tree::<FileNodes>::of_file(file, dir, Some(&root)).map_err(|error| fault_of(error, "the footer"))?;
    let footer = tree.footer();
    if (footer.xid_from.0, footer.xid.0, footer.records) != (entry.xid_from, entry.xid, entry.records) {
        let what = "the ledger tells another xid range or number of records than the footer".to_owned();
        return Err(Fault::Damage(Problem::Manifest, what));
    }
    let mut walk = Walk { nodes: tree.source(), footer, frames, last: None, inos: None, records: 0, stored: 0 };
    if let Some(root) = footer.root {
        walk.node(&root, footer.depth.saturating_sub(1), &[], None)?;
    }
    let malformed = |what: String| Fault::Damage(Problem::Malformed, what);
    if walk.records != footer.records {
        return Err(malformed(format!("it has {} records, its footer says {}", walk.records, footer.records)));
    }
    if walk.stored != footer.tree_bytes {
        return Err(malformed(format!("its nodes have {} of {} bytes", walk.stored, footer.tree_bytes)));
    }
    let inos = walk.inos;
    Ok(LocalRun::new(tree, inos))
}

fn fault_of(error: RunError, what: &str) -> Fault {
    match error {
        RunError::Io { operation, path, source } => {
            Fault::Unknown(VerifyError::Scratch { operation, dir: path, source })
        }
        RunError::TooNew { .. } => Fault::Unknown(AgentError::Run(error).into()),
        RunError::Corrupt(_) | RunError::Order | RunError::TooLarge { .. } => {
            Fault::Damage(Problem::WrongBytes, format!("{what}: {error}"))
        }
    }
}

/// From the root down, in key order.
struct Walk<'a, 'f, 's> {
    nodes: &'a FileNodes,
    footer: &'a Footer,
    frames: Option<&'f mut FrameList<'s>>,
    last: Option<Vec<u8>>,
    /// First and last inode so far.
    inos: Option<(Ino, Ino)>,
    records: u64,
    stored: u64,
}

impl Walk<'_, '_, '_> {
    /// The node at `pointer` and what is below it: all keys are at least `low` and below `high`.
    fn node(&mut self, pointer: &NodePtr, level: u8, low: &[u8], high: Option<&[u8]>) -> Result<(), Fault> {
        let at = format!("the node at byte {}", pointer.offset);
        if pointer.end().is_none_or(|end| end > self.footer.tree_bytes) {
            return Err(Fault::Damage(Problem::Malformed, format!("{at} lies outside of the run")));
        }
        let node = self.nodes.node(pointer, level).map_err(|error| fault_of(error, &at))?;
        self.stored += u64::from(pointer.stored_len);
        let mut cursor = NodeCursor::default();
        let mut first = true;
        let mut more = cursor.advance(&node);
        while more {
            let key = cursor.key().to_vec();
            let is_bound = if first && level > 0 { key == low } else { key.as_slice() >= low };
            if !is_bound || high.is_some_and(|high| key.as_slice() >= high) {
                return Err(Fault::Damage(Problem::Malformed, format!("{at} has keys of its neighbours")));
            }
            first = false;
            if level == 0 {
                self.record(&key, cursor.value(&node), &at)?;
                more = cursor.advance(&node);
                continue;
            }
            let malformed = || Fault::Damage(Problem::Malformed, format!("{at} has a record that is no pointer"));
            let child = cursor.pointer(&node).ok_or_else(malformed)?;
            more = cursor.advance(&node);
            let next = more.then(|| cursor.key().to_vec());
            self.node(&child, level - 1, &key, next.as_deref().or(high))?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8], at: &str) -> Result<(), Fault> {
        let malformed = |what: String| Fault::Damage(Problem::Malformed, format!("{at}: {what}"));
        if self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(malformed("its keys do not ascend".to_owned()));
        }
        let record = records::check(key, value, self.footer.xid).map_err(malformed)?;
        if let (Value::Window(window), Some(frames)) = (&record.value, &mut self.frames) {
            frames.add(record.parts.ino, window)?;
        }
        let ino = record.parts.ino;
        self.inos = Some(self.inos.map_or((ino, ino), |(first, _)| (first, ino)));
        self.last = Some(key.to_vec());
        self.records += 1;
        Ok(())
    }
}
