//! What a loss of power leaves.
//!
//! Of a file's pages that no sync covered each is as it was durable or after any of the later writes to it, whatever
//! happened to its neighbours; sometimes it is torn, each sector on its own. Its length is one that it had. Of the changes
//! of names those in a synced directory are there; the others go by [`NameOrder`].

use super::disk::{Body, Change, DirState, Disk, FileState, NameKind, NameOp, Node, put};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap};

/// Unit of the page cache, bytes.
const PAGE_BYTES: usize = 4096;
/// What a disk writes in one piece, bytes.
const SECTOR_BYTES: usize = 512;

/// Which unsynced changes of names may be there without others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOrder {
    /// A prefix of all of them: a filesystem with one journal (ext4, XFS).
    Global,
    /// A prefix in each directory: all that fsync of a directory promises.
    EachDirectory,
}

/// How power is lost.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Decides what remains.
    pub seed: u64,
    /// See the type.
    pub names: NameOrder,
}

impl Loss {
    /// The same seed loses the same; every third one in the order of one journal.
    pub fn from_seed(seed: u64) -> Self {
        Self { seed, names: if seed.is_multiple_of(3) { NameOrder::Global } else { NameOrder::EachDirectory } }
    }
}

/// What remains of each inode of the life in use.
pub(super) fn remains(disk: &Disk, loss: &Loss) -> HashMap<Node, Body> {
    let mut rng = StdRng::seed_from_u64(loss.seed);
    let mut names: HashMap<Node, BTreeMap<Vec<u8>, Node>> = HashMap::new();
    let mut nodes: Vec<Node> = disk.inodes.keys().copied().filter(|node| disk.is_current(*node)).collect();
    nodes.sort_unstable();
    for node in &nodes {
        if let Ok(dir) = disk.dir(*node) {
            names.insert(*node, dir.first.clone());
        }
    }
    for op in surviving_names(&disk.name_ops, loss.names, &mut rng) {
        apply(op, &mut names);
    }
    // All or most of it is lost, or little: a disk that was busy, one that was idle.
    let keep = *[0.0, 0.5, 0.9, 1.0].get(rng.random_range(0..4)).unwrap_or(&0.5);
    let mut remains = HashMap::new();
    for node in nodes {
        let body = match disk.inodes.get(&node).map(|inode| &inode.body) {
            Some(Body::File(file)) => {
                let bytes = if disk.faults.is_unsynced(&disk.path(node)) {
                    file.durable.clone()
                } else {
                    surviving_bytes(file, keep, &mut rng)
                };
                Body::File(FileState { cache: bytes.clone(), durable: bytes, changes: Vec::new() })
            }
            Some(Body::Dir(_)) => {
                let names = names.remove(&node).unwrap_or_default();
                Body::Dir(DirState { first: names.clone(), names })
            }
            None => continue,
        };
        remains.insert(node, body);
    }
    remains
}

fn surviving_names<'o>(ops: &'o [NameOp], order: NameOrder, rng: &mut StdRng) -> Vec<&'o NameOp> {
    let prefix = |ops: Vec<&'o NameOp>, rng: &mut StdRng| -> Vec<&'o NameOp> {
        let durable = ops.iter().rposition(|op| op.synced).map_or(0, |last| last + 1);
        let kept = rng.random_range(durable..=ops.len());
        ops.into_iter().take(kept).collect()
    };
    match order {
        NameOrder::Global => prefix(ops.iter().collect(), rng),
        NameOrder::EachDirectory => {
            let mut by_dir: BTreeMap<[Node; 2], Vec<&NameOp>> = BTreeMap::new();
            for op in ops {
                by_dir.entry(op.dirs).or_default().push(op);
            }
            by_dir.into_values().flat_map(|ops| prefix(ops, rng)).collect()
        }
    }
}

fn apply(op: &NameOp, names: &mut HashMap<Node, BTreeMap<Vec<u8>, Node>>) {
    let [from, to] = op.dirs;
    match &op.kind {
        NameKind::Link(name, node) => {
            names.entry(to).or_default().insert(name.clone(), *node);
        }
        NameKind::Unlink(name) => {
            names.entry(from).or_default().remove(name);
        }
        NameKind::Rename(old, new) => {
            if let Some(node) = names.entry(from).or_default().remove(old) {
                names.entry(to).or_default().insert(new.clone(), node);
            }
        }
    }
}

/// The bytes of a file of whose unsynced pages about `keep` survive.
fn surviving_bytes(file: &FileState, keep: f64, rng: &mut StdRng) -> Vec<u8> {
    if file.changes.is_empty() {
        return file.durable.clone();
    }
    let mut lengths = vec![file.durable.len()];
    for change in &file.changes {
        let last = lengths.last().copied().unwrap_or_default();
        lengths.push(match change {
            Change::Write { offset, bytes } => last.max(offset + bytes.len()),
            Change::Resize(len) => *len,
        });
    }
    let reach = lengths.iter().copied().max().unwrap_or_default();
    let mut bytes = file.durable.clone();
    bytes.resize(reach, 0);
    let mut touched: BTreeMap<usize, Vec<&Change>> = BTreeMap::new();
    for change in &file.changes {
        let (first, end) = match change {
            Change::Write { offset, bytes } => (*offset, offset + bytes.len()),
            Change::Resize(len) => (*len, reach),
        };
        for page in first / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            touched.entry(page).or_default().push(change);
        }
    }
    for (page, changes) in touched {
        let start = page * PAGE_BYTES;
        let end = (start + PAGE_BYTES).min(reach);
        if rng.random_bool(0.15) {
            for sector in (start..end).step_by(SECTOR_BYTES) {
                let count = survivors(changes.len(), keep, rng);
                replay(&mut bytes, changes.iter().take(count), sector..(sector + SECTOR_BYTES).min(end));
            }
        } else {
            let count = survivors(changes.len(), keep, rng);
            replay(&mut bytes, changes.iter().take(count), start..end);
        }
    }
    let last = lengths.last().copied().unwrap_or_default();
    let some = lengths.get(rng.random_range(0..lengths.len())).copied().unwrap_or(last);
    bytes.truncate(if rng.random_bool(keep) { last } else { some });
    bytes
}

/// How many of `all` writes to a page reached the disk.
fn survivors(all: usize, keep: f64, rng: &mut StdRng) -> usize {
    if !rng.random_bool(keep) {
        0
    } else if rng.random_bool(0.7) {
        all
    } else {
        rng.random_range(0..=all)
    }
}

/// Applies changes, as far as they touch `range`.
fn replay<'c>(bytes: &mut Vec<u8>, changes: impl Iterator<Item = &'c &'c Change>, range: std::ops::Range<usize>) {
    for change in changes {
        match change {
            Change::Write { offset, bytes: written } => {
                let (first, end) = (range.start.max(*offset), range.end.min(offset + written.len()));
                if first < end {
                    put(bytes, first, written.get(first - offset..end - offset).unwrap_or_default());
                }
            }
            Change::Resize(len) => {
                let first = range.start.max(*len).min(range.end);
                if let Some(gone) = bytes.get_mut(first..range.end) {
                    gone.fill(0);
                }
            }
        }
    }
}
