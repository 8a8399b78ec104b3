//! Whether every directory leads up to the root.
//!
//! Directories and their parents stand in a temporary file, ordered by number; memory holds one number of every block of
//! it, and two bits for each directory.

use super::error::VerifyError;
use super::scratch::Scratch;
use super::sort::{Row, number_at};
use kvfs::Ino;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

/// `inode u64 | parent u64`
const ROW: usize = 16;
/// Rows that are read at once.
const BLOCK_ROWS: u64 = 256;

/// Takes directories in ascending order.
pub(super) struct Directories<'s> {
    scratch: &'s Scratch,
    rows: BufWriter<File>,
    /// The first number of each block.
    blocks: Vec<u64>,
    count: u64,
}

impl<'s> Directories<'s> {
    pub fn new(scratch: &'s Scratch) -> Result<Self, VerifyError> {
        Ok(Self { scratch, rows: BufWriter::new(scratch.file()?), blocks: Vec::new(), count: 0 })
    }

    pub fn add(&mut self, ino: Ino, parent: Ino) -> Result<(), VerifyError> {
        if self.count.is_multiple_of(BLOCK_ROWS) {
            self.blocks.push(ino.0);
        }
        self.count += 1;
        let row = Row::<ROW>::new().with(&ino.0.to_be_bytes()).with(&parent.0.to_be_bytes()).finish();
        self.rows.write_all(&row).map_err(self.scratch.failed("write"))
    }

    /// Goes up from every directory; `add` hears of those that do not reach the root.
    pub fn check(self, add: &mut dyn FnMut(Ino, String)) -> Result<(), VerifyError> {
        let Self { scratch, rows, blocks, count } = self;
        let file = rows.into_inner().map_err(|error| scratch.failed("write")(error.into_error()))?;
        let table = Table { scratch, file, blocks, count };
        let (mut settled, mut walked) = (Bits::new(count), Bits::new(count));
        for start in 0..count {
            let mut at = start;
            let end = loop {
                if settled.has(at) {
                    break None;
                }
                let (ino, parent) = table.row(at)?;
                if walked.set(at) {
                    break Some((ino, "it is its own ancestor".to_owned()));
                }
                if ino == Ino::ROOT.0 {
                    break None;
                }
                match table.find(parent)? {
                    Some(above) => at = above,
                    None => break Some((ino, format!("its parent {parent} is no directory of the snapshot"))),
                }
            };
            if let Some((ino, what)) = end {
                add(Ino(ino), what);
            }
            // What is wrong above is told once.
            let mut at = start;
            while !settled.set(at) {
                let (ino, parent) = table.row(at)?;
                match table.find(parent)? {
                    Some(above) if ino != Ino::ROOT.0 => at = above,
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

/// The rows, for reading.
struct Table<'s> {
    scratch: &'s Scratch,
    file: File,
    blocks: Vec<u64>,
    count: u64,
}

impl Table<'_> {
    fn row(&self, at: u64) -> Result<(u64, u64), VerifyError> {
        let mut row = [0; ROW];
        self.file.read_exact_at(&mut row, at * ROW as u64).map_err(self.scratch.failed("read"))?;
        Ok((number_at(&row, 0), number_at(&row, 8)))
    }

    /// The position of a directory.
    fn find(&self, ino: u64) -> Result<Option<u64>, VerifyError> {
        let Some(block) = self.blocks.partition_point(|first| *first <= ino).checked_sub(1) else { return Ok(None) };
        let first = block as u64 * BLOCK_ROWS;
        let rows = BLOCK_ROWS.min(self.count - first);
        let mut bytes = [0; BLOCK_ROWS as usize * ROW];
        let bytes = bytes.get_mut(..rows as usize * ROW).unwrap_or_default();
        self.file.read_exact_at(bytes, first * ROW as u64).map_err(self.scratch.failed("read"))?;
        let (rows, _) = bytes.as_chunks::<ROW>();
        Ok(rows.binary_search_by_key(&ino, |row| number_at(row, 0)).ok().map(|at| first + at as u64))
    }
}

/// One bit for each directory.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: u64) -> Self {
        Self(vec![0; count.div_ceil(64) as usize])
    }

    fn has(&self, at: u64) -> bool {
        self.0.get((at / 64) as usize).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }

    /// Sets it; whether it was set before.
    fn set(&mut self, at: u64) -> bool {
        let was = self.has(at);
        if let Some(word) = self.0.get_mut((at / 64) as usize) {
            *word |= 1 << (at % 64);
        }
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a tree of directories, given as (number, parent).
    fn faults(directories: &[(u64, u64)]) -> Vec<(u64, String)> {
        let scratch = Scratch::temporary();
        let mut list = Directories::new(&scratch).unwrap();
        for (ino, parent) in directories {
            list.add(Ino(*ino), Ino(*parent)).unwrap();
        }
        let mut found = Vec::new();
        list.check(&mut |ino, what| found.push((ino.0, what))).unwrap();
        found
    }

    #[test]
    fn a_tree_is_sound_whatever_the_order_of_its_numbers() {
        assert_eq!(faults(&[(1, 1)]), []);
        // A chain that goes up by falling numbers, then by rising ones, across many blocks.
        let down: Vec<_> = (1..5000).map(|n| (n, (n - 1).max(1))).collect();
        assert_eq!(faults(&down), []);
        let mut up: Vec<_> = (2..5000).map(|n| (n, n + 1)).collect();
        up.push((5000, 1));
        up.insert(0, (1, 1));
        assert_eq!(faults(&up), []);
    }

    #[test]
    fn a_cycle_and_a_lost_parent_are_each_told_once() {
        let found = faults(&[(1, 1), (2, 4), (3, 2), (4, 3), (5, 4), (6, 99), (7, 6)]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], (2, "it is its own ancestor".to_owned()));
        assert!(found[1].0 == 6 && found[1].1.contains("99"), "{found:?}");
    }
}
