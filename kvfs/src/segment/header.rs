//! The first page of a segment: whose it is, which number it has, what its records are salted with.
//!
//! The byte picture stands in docs/formats/journal.md. A recycled file keeps the bytes of its former life behind the new
//! header; what tells them apart is the number (data) and the salt (journal).

use super::disk::DiskFile;
use crate::ids::{Epoch, Xid};
use std::io;
use uuid::Uuid;

/// Bytes of the header: one page, so that what follows is aligned.
pub const HEADER_BYTES: u64 = 4096;
/// The version of the layout of journal and data segments.
pub const VERSION: u32 = 1;
const USED: usize = 68;

/// What kind of segment it is; the first eight bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// Records of the journal.
    Journal,
    /// File bytes.
    Data,
}

/// The fields of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its kind.
    pub magic: Magic,
    /// The filesystem (journal; nil for data).
    pub fs: Uuid,
    /// The epoch (journal; 0 for data).
    pub epoch: Epoch,
    /// The number of the segment; the same as in its name, or the header is from a former life.
    pub number: u64,
    /// The xid of the first record (journal; 0 for data).
    pub first: Xid,
    /// Everything up to here was persisted when the header was written: a replay that ends before it met damage, not a
    /// torn tail.
    pub persisted: Xid,
    /// Seed of the checksums of this life of the file.
    pub salt: u32,
}

impl Magic {
    fn bytes(self) -> [u8; 8] {
        match self {
            Self::Journal => *b"CBFSjrnl",
            Self::Data => *b"CBFSdata",
        }
    }
}

impl Header {
    /// The page to write at offset 0.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEADER_BYTES as usize);
        page.extend_from_slice(&self.magic.bytes());
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.salt.to_le_bytes());
        page.extend_from_slice(self.fs.as_bytes());
        page.extend_from_slice(&self.epoch.0.to_le_bytes());
        page.extend_from_slice(&0u32.to_le_bytes());
        page.extend_from_slice(&self.number.to_le_bytes());
        page.extend_from_slice(&self.first.0.to_le_bytes());
        page.extend_from_slice(&self.persisted.0.to_le_bytes());
        page.extend_from_slice(&crc32c::crc32c(&page).to_le_bytes());
        page.resize(HEADER_BYTES as usize, 0);
        page
    }

    /// Reads the header of a file; `None` if there is none yet (empty, zeros). A header is one sector, so no loss of power
    /// leaves a part of it: anything else is of another version or damaged, an error of kind `InvalidData`.
    pub fn read(magic: Magic, file: &dyn DiskFile) -> io::Result<Option<Self>> {
        let mut page = [0; USED];
        let len = file.read_at(&mut page, 0)?;
        let page = page.get(..len).unwrap_or_default();
        if page.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a header of another version, or damaged");
        Self::decode(magic, page).map(Some).ok_or_else(damaged)
    }

    /// Decodes a page; `None` if it is none of this version and kind (empty, torn, of something else).
    pub fn decode(magic: Magic, page: &[u8]) -> Option<Self> {
        let used = page.get(..USED)?;
        let (fields, crc) = used.split_last_chunk::<4>()?;
        if crc32c::crc32c(fields) != u32::from_le_bytes(*crc) || !fields.starts_with(&magic.bytes()) {
            return None;
        }
        if u32_at(fields, 8)? != VERSION {
            return None;
        }
        Some(Self {
            magic,
            salt: u32_at(fields, 12)?,
            fs: Uuid::from_slice(fields.get(16..32)?).ok()?,
            epoch: Epoch(u32_at(fields, 32)?),
            number: u64_at(fields, 40)?,
            first: Xid(u64_at(fields, 48)?),
            persisted: Xid(u64_at(fields, 56)?),
        })
    }
}

/// A salt that no earlier life of a file had (but by a chance of 1 in 2^32).
pub fn fresh_salt() -> u32 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // The halves hold the fixed version bits at different places; folding leaves no bit constant.
    let mixed = high ^ low.rotate_left(17);
    (mixed >> 32) as u32 ^ mixed as u32
}

/// The little-endian number at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|chunk| u32::from_le_bytes(*chunk))
}

/// The little-endian number at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_any_flipped_bit_voids_it() {
        let header = Header {
            magic: Magic::Journal,
            fs: Uuid::new_v4(),
            epoch: Epoch(3),
            number: 17,
            first: Xid(900),
            persisted: Xid(850),
            salt: fresh_salt(),
        };
        let page = header.encode();
        assert_eq!(page.len() as u64, HEADER_BYTES);
        assert_eq!(Header::decode(Magic::Journal, &page), Some(header));
        assert_eq!(Header::decode(Magic::Data, &page), None);
        assert_eq!(Header::decode(Magic::Journal, &page[..USED - 1]), None);
        for bit in 0..USED * 8 {
            let mut bad = page.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(Magic::Journal, &bad), None, "bit {bit}");
        }
    }
}
