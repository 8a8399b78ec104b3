//! Sorting more rows than memory holds, by way of temporary files.

use super::error::VerifyError;
use super::scratch::Scratch;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

/// Rows in memory, bytes.
const MEMORY_BYTES: usize = 32 << 20;
/// Sorted files of one sorter at most; then they are merged into one.
const FILES_MAX: usize = 64;
/// Buffer of each of them, bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Takes rows of `N` bytes in any order.
pub(super) struct Sorter<'s, const N: usize> {
    scratch: &'s Scratch,
    rows_max: usize,
    rows: Vec<[u8; N]>,
    files: Vec<File>,
}

impl<'s, const N: usize> Sorter<'s, N> {
    pub fn new(scratch: &'s Scratch) -> Self {
        Self::with_memory(scratch, MEMORY_BYTES)
    }

    fn with_memory(scratch: &'s Scratch, bytes: usize) -> Self {
        Self { scratch, rows_max: (bytes / N).max(1), rows: Vec::new(), files: Vec::new() }
    }

    pub fn push(&mut self, row: [u8; N]) -> Result<(), VerifyError> {
        if self.rows.len() >= self.rows_max {
            self.spill()?;
        }
        self.rows.push(row);
        Ok(())
    }

    fn spill(&mut self) -> Result<(), VerifyError> {
        self.rows.sort_unstable();
        self.rows.dedup();
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, self.scratch.file()?);
        for row in &self.rows {
            file.write_all(row).map_err(self.scratch.failed("write"))?;
        }
        self.rows.clear();
        self.keep(file)?;
        if self.files.len() >= FILES_MAX {
            let mut merged = Sorted::<N>::open(self.scratch, std::mem::take(&mut self.files), Vec::new())?;
            let mut file = BufWriter::with_capacity(BUFFER_BYTES, self.scratch.file()?);
            while let Some(row) = merged.next()? {
                file.write_all(&row).map_err(self.scratch.failed("write"))?;
            }
            self.keep(file)?;
        }
        Ok(())
    }

    fn keep(&mut self, file: BufWriter<File>) -> Result<(), VerifyError> {
        let file = file.into_inner().map_err(|error| self.scratch.failed("write")(error.into_error()))?;
        self.files.push(file);
        Ok(())
    }

    /// The rows in order, each once.
    pub fn finish(mut self) -> Result<Sorted<'s, N>, VerifyError> {
        self.rows.sort_unstable();
        self.rows.dedup();
        Sorted::open(self.scratch, self.files, self.rows)
    }
}

/// Rows in order, each once.
pub(super) struct Sorted<'s, const N: usize> {
    scratch: &'s Scratch,
    files: Vec<BufReader<File>>,
    memory: std::vec::IntoIter<[u8; N]>,
    /// The next row of each source; the memory is the source behind the files.
    heads: BinaryHeap<Reverse<([u8; N], usize)>>,
    last: Option<[u8; N]>,
}

impl<'s, const N: usize> Sorted<'s, N> {
    fn open(scratch: &'s Scratch, files: Vec<File>, rows: Vec<[u8; N]>) -> Result<Self, VerifyError> {
        let mut sorted =
            Self { scratch, files: Vec::new(), memory: rows.into_iter(), heads: BinaryHeap::new(), last: None };
        for mut file in files {
            file.rewind().map_err(scratch.failed("read"))?;
            sorted.files.push(BufReader::with_capacity(BUFFER_BYTES, file));
        }
        for source in 0..=sorted.files.len() {
            sorted.refill(source)?;
        }
        Ok(sorted)
    }

    fn refill(&mut self, source: usize) -> Result<(), VerifyError> {
        let row = match self.files.get_mut(source) {
            Some(file) => read_row(file).map_err(self.scratch.failed("read"))?,
            None => self.memory.next(),
        };
        self.heads.extend(row.map(|row| Reverse((row, source))));
        Ok(())
    }

    pub fn next(&mut self) -> Result<Option<[u8; N]>, VerifyError> {
        while let Some(Reverse((row, source))) = self.heads.pop() {
            self.refill(source)?;
            if self.last != Some(row) {
                self.last = Some(row);
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

/// The next row of `N` bytes; `None` at the end of the file.
pub(super) fn read_row<const N: usize>(file: &mut impl Read) -> std::io::Result<Option<[u8; N]>> {
    let mut row = [0; N];
    match file.read_exact(&mut row) {
        Ok(()) => Ok(Some(row)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// A row written field by field. What does not fit is left out, and the rest of a row that is not filled is zero.
pub(super) struct Row<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Row<N> {
    pub fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    #[must_use]
    pub fn with(mut self, field: &[u8]) -> Self {
        for (to, from) in self.bytes.iter_mut().skip(self.at).zip(field) {
            *to = *from;
        }
        self.at += field.len();
        self
    }

    pub fn finish(self) -> [u8; N] {
        self.bytes
    }
}

/// The big-endian number of 8 bytes at `at`; 0 where the row has none.
pub(super) fn number_at(row: &[u8], at: usize) -> u64 {
    row.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The same of 4 bytes.
pub(super) fn short_at(row: &[u8], at: usize) -> u32 {
    row.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};

    #[test]
    fn rows_come_back_in_order_and_once_however_little_memory_there_is() {
        let scratch = Scratch::temporary();
        let mut random = StdRng::seed_from_u64(1);
        for memory in [8, 64, 4096, 1 << 20] {
            let mut sorter = Sorter::<8>::with_memory(&scratch, memory);
            let mut expected = std::collections::BTreeSet::new();
            for _ in 0..700 {
                let row = (random.next_u64() % 500).to_be_bytes();
                expected.insert(row);
                sorter.push(row).unwrap();
            }
            let mut sorted = sorter.finish().unwrap();
            assert!(sorted.files.len() < FILES_MAX, "files are merged");
            for row in expected {
                assert_eq!(sorted.next().unwrap(), Some(row));
            }
            assert_eq!(sorted.next().unwrap(), None);
        }
    }

    #[test]
    fn fields_of_a_row_come_back() {
        let row = Row::<12>::new().with(&7_u64.to_be_bytes()).with(&9_u32.to_be_bytes()).finish();
        assert_eq!((number_at(&row, 0), short_at(&row, 8), number_at(&row, 8)), (7, 9, 0));
    }
}
