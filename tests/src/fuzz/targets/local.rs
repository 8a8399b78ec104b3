//! Files of the local disk: segments of the journal and of data.
//!
//! An input is a recipe for such files. Checksums are made right first, then some bits are flipped.

use super::Pieces;
use super::disk::MemoryDisk;
use crate::fuzz::{Target, verdict};
use kvfs::data::{DataOptions, DataStore};
use kvfs::ids::SegmentNo;
use kvfs::journal::{Journal, JournalIdentity, JournalOptions};
use kvfs::schema::BlobRef;
use kvfs::segment::header::{HEADER_BYTES, Header, Magic};
use kvfs::{Epoch, Xid};
use std::sync::Arc;
use uuid::Uuid;

pub const JOURNAL: Target = Target { name: "journal", seeds: journals, words: &[], parse: journal };
pub const DATA: Target = Target { name: "data", seeds: datas, words: &[], parse: data };

const FS: Uuid = Uuid::from_u128(0xf5);
/// Segments of one recipe.
const SEGMENTS_MAX: usize = 5;

fn flip(file: &mut [u8], pieces: &mut Pieces<'_>) {
    for _ in 0..pieces.byte() % 4 {
        let (at, bit) = (pieces.number(2) as usize, pieces.byte() % 8);
        if let Some(byte) = file.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }
}

fn framed(salt: u32, xid: u64, body: &[u8], file: &mut Vec<u8>) {
    let len = (body.len() as u32).to_le_bytes();
    let parts = [&salt.to_le_bytes()[..], &len, &xid.to_le_bytes(), body];
    let crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    file.extend([&len[..], &crc.to_le_bytes(), &xid.to_le_bytes(), body].concat());
    file.resize(file.len().next_multiple_of(8), 0);
}

/// Number, first xid, what was persisted, records, flips.
fn journal_segment(pieces: &mut Pieces<'_>) -> (u64, Vec<u8>) {
    let (number, named) = (pieces.number(8), pieces.byte());
    let (first, persisted) = (Xid(pieces.number(8)), Xid(pieces.number(8)));
    let salt = u32::from(pieces.byte());
    let header = Header { magic: Magic::Journal, fs: FS, epoch: Epoch(1), number, first, persisted, salt };
    let mut file = header.encode();
    for n in 0..u64::from(pieces.byte() % 8) {
        let len = usize::from(pieces.byte());
        let body = pieces.bytes(len);
        framed(salt, first.0.wrapping_add(n), body, &mut file);
    }
    flip(&mut file, pieces);
    (if named == 0 { number } else { u64::from(named) }, file)
}

fn journals() -> Vec<Vec<u8>> {
    let segment = |number: u64, first: u64, persisted: u64, records: u8| {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.push(0);
        bytes.extend(first.to_le_bytes());
        bytes.extend(persisted.to_le_bytes());
        bytes.extend([7, records]);
        (0..records).for_each(|n| bytes.extend([3, n, n, n]));
        bytes.push(0);
        bytes
    };
    let one = [vec![0], segment(1, 1, 0, 3)].concat();
    let two = [vec![2], segment(1, 1, 0, 3), segment(2, 4, 3, 2)].concat();
    let voided = [vec![0], segment(1, 1, 0, 5), segment(2, 3, 2, 2)].concat();
    vec![one, two, voided]
}

/// A replay ends, its records follow each other; what it gave is there again after the switch, and nothing more.
fn journal(bytes: &[u8]) -> String {
    let mut pieces = Pieces(bytes);
    let applied = Xid(u64::from(pieces.byte()));
    let disk = Arc::new(MemoryDisk::default());
    for _ in 0..SEGMENTS_MAX {
        if pieces.is_empty() {
            break;
        }
        let (number, file) = journal_segment(&mut pieces);
        disk.put(format!("{number:016x}.journal"), file);
    }
    let identity = JournalIdentity { fs: FS, epoch: Epoch(1) };
    let options = JournalOptions { segment_bytes: 2 * HEADER_BYTES, spares: 0 };
    let replayed = |applied: Xid| {
        let mut replay = Journal::open_on(disk.clone(), identity, applied, options)?;
        let mut records = Vec::new();
        while let Some(record) = replay.next()? {
            assert_eq!(record.0.0, applied.0 + records.len() as u64 + 1, "a record out of order");
            records.push(record);
        }
        Ok::<_, kvfs::journal::JournalError>((replay, records))
    };
    let (replay, records) = match replayed(applied) {
        Ok(replayed) => replayed,
        Err(error) => return verdict(&error),
    };
    let last = Xid(applied.0 + records.len() as u64);
    if let Err(error) = replay.finish(last) {
        return verdict(&error);
    }
    let (_, again) = replayed(applied).expect("what was replayed can be replayed");
    assert_eq!(again, records, "another journal after the switch");
    format!("{} records", records.len().min(9))
}

fn datas() -> Vec<Vec<u8>> {
    let body = b"bytes of a blob";
    let mut bytes = vec![1, 0];
    bytes.extend((HEADER_BYTES as u32).to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(crc32c::crc32c(body).to_le_bytes());
    bytes.extend([0, 4]);
    bytes.extend(body);
    vec![bytes]
}

/// A reference to a blob, and the segment that it may be in. Whole blobs are checked.
fn data(bytes: &[u8]) -> String {
    let mut pieces = Pieces(bytes);
    let (number, named) = (u64::from(pieces.byte()), u64::from(pieces.byte()));
    let (offset, len, crc) = (pieces.number(4) as u32, pieces.number(4) as u32, pieces.number(4) as u32);
    let blob = BlobRef { segment: SegmentNo(number), offset, len, crc };
    let (fs, epoch) = (Uuid::nil(), Epoch(0));
    let header =
        Header { magic: Magic::Data, fs, epoch, number: number + named, first: Xid(0), persisted: Xid(0), salt: 0 };
    let mut file = header.encode();
    flip(&mut file, &mut pieces);
    let within = u32::from(pieces.byte());
    file.extend(pieces.0);
    let disk = Arc::new(MemoryDisk::default());
    disk.put(format!("{number:016x}.data"), file.clone());
    let options = DataOptions { segment_bytes: 1 << 20, spares: 0, max_bytes: None };
    let store = match DataStore::open_on(disk, options) {
        Ok(store) => store,
        Err(error) => return verdict(&error),
    };
    let mut part = [0; 4];
    let partly = store.read(&blob, within, &mut part);
    let _ = store.adopt(&blob);
    match store.read_all(&blob) {
        Ok(whole) => {
            assert_eq!((whole.len(), crc32c::crc32c(&whole)), (len as usize, crc));
            format!("read, a part {}", partly.is_ok())
        }
        Err(error) => verdict(&format!("{error:?}")),
    }
}
