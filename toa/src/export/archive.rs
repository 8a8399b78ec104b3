//! The tar itself: headers, data, padding, end.

use super::error::ExportError;
use crate::tar::{self, BLOCK, Member};
use std::io::Write;

/// POSIX wants whole records of 20 blocks.
const RECORD_BYTES: u64 = 20 * BLOCK as u64;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A tar that is being written.
pub(super) struct Archive<'w> {
    out: &'w mut dyn Write,
    bytes: u64,
    members: u64,
    /// Data of the open member that are still to come.
    left: u64,
    padding: usize,
}

impl<'w> Archive<'w> {
    pub fn new(out: &'w mut dyn Write) -> Self {
        Self { out, bytes: 0, members: 0, left: 0, padding: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.out.write_all(bytes).map_err(ExportError::Output)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes the headers of `member`; all its data must follow, then [`Self::end`].
    pub fn begin(&mut self, member: &Member) -> Result<(), ExportError> {
        let head = tar::encode(member).map_err(|source| ExportError::Member { path: member.path.clone(), source })?;
        self.put(&head)?;
        self.left = member.kind.data_bytes();
        self.padding = tar::padding(self.left);
        self.members += 1;
        Ok(())
    }

    /// Data of the open member.
    pub fn data(&mut self, member: &Member, bytes: &[u8]) -> Result<(), ExportError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| ExportError::index(&member.path, "more bytes than were surveyed"))?;
        self.put(bytes)
    }

    /// As many zeros.
    pub fn zeros(&mut self, member: &Member, mut count: u64) -> Result<(), ExportError> {
        while count > 0 {
            let some = ZEROS.get(..count.min(ZEROS.len() as u64) as usize).unwrap_or(&ZEROS);
            self.data(member, some)?;
            count -= some.len() as u64;
        }
        Ok(())
    }

    /// Ends the open member.
    pub fn end(&mut self, member: &Member) -> Result<(), ExportError> {
        if self.left > 0 {
            return Err(ExportError::index(&member.path, format!("{} bytes less than were surveyed", self.left)));
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(ZEROS.get(..padding).unwrap_or_default())
    }

    /// Ends the tar; answers members and bytes.
    pub fn finish(&mut self) -> Result<(u64, u64), ExportError> {
        self.put(&[0; 2 * BLOCK])?;
        let rest = self.bytes.next_multiple_of(RECORD_BYTES) - self.bytes;
        self.put(ZEROS.get(..rest as usize).unwrap_or_default())?;
        self.out.flush().map_err(ExportError::Output)?;
        Ok((self.members, self.bytes))
    }

    /// Makes sure that a tar that ends here is not taken for a whole one: readers do not insist on the two empty blocks
    /// at the end, but they do on the data that a header announces.
    pub fn spoil(&mut self) {
        if self.left == 0 && self.padding == 0 {
            // What fails now fails for the reason that is being told already.
            drop(self.put(&tar::unfinished()));
        }
        drop(self.out.flush());
    }
}
