//! A pack that is on the local disk and whose hash is right: seek table, frames, tar.

use crate::pack::{FRAME_RAW_BYTES_MAX, decode_frame};
use crate::run::hash128;
use bytes::{Buf, Bytes};
use kvfs::ids::PackNo;
use kvfs::schema::FrameRef;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use zeekstd::SeekTable;

/// The end of a seek table: number of frames, a byte of flags, a magic number.
const TABLE_END_BYTES: u64 = 9;
/// Bytes of a frame in it, without a checksum.
const TABLE_FRAME_BYTES: u64 = 8;
/// The header of the skippable frame that it is in.
const TABLE_HEAD_BYTES: u64 = 8;
/// Zero bytes at the end of a tar file.
const TAR_END_BYTES: usize = 1024;

/// What was found.
pub(super) struct Tarball {
    /// All frames, by offset.
    pub frames: Vec<FrameRef>,
    /// Their raw bytes.
    pub raw: u64,
    /// What is wrong.
    pub fault: Option<String>,
}

/// Reads all of it. An error is one of the local file.
pub(super) fn read(mut file: File, pack: u64, size: u64) -> io::Result<Tarball> {
    let mut tarball = Tarball { frames: Vec::new(), raw: 0, fault: None };
    let table = match seek_table(&mut file, size)? {
        Ok(table) => table,
        Err(what) => {
            tarball.fault = Some(what);
            return Ok(tarball);
        }
    };
    let mut frames =
        Frames { file, pack: PackNo(pack), table, tarball, next: 0, open: Bytes::new(), zeros: 0, failed: None };
    let ended = read_tar(&mut frames);
    if let Some(error) = frames.failed {
        return Err(error);
    }
    let mut tarball = frames.tarball;
    if tarball.fault.is_none() {
        tarball.fault = match ended {
            Err(error) => Some(format!("its tar cannot be read: {error}")),
            Ok(()) if frames.zeros < TAR_END_BYTES => Some("its tar has no end".to_owned()),
            Ok(()) => None,
        };
    }
    Ok(tarball)
}

/// Every member to its end, and everything behind the last one.
fn read_tar(frames: &mut Frames) -> io::Result<()> {
    let mut archive = tar::Archive::new(&mut *frames);
    for member in archive.entries()? {
        let mut member = member?;
        let (said, found) = (member.size(), io::copy(&mut member, &mut io::sink())?);
        if said != found {
            return Err(io::Error::other(format!("a member ends after {found} of {said} bytes")));
        }
    }
    io::copy(frames, &mut io::sink()).map(drop)
}

/// The seek table, or what is wrong with it. Its length is compared with the object's before anything is allocated.
fn seek_table(file: &mut File, size: u64) -> io::Result<Result<SeekTable, String>> {
    let wrong = |what: &str| Ok(Err(format!("its seek table {what}")));
    let Some(at) = size.checked_sub(TABLE_END_BYTES) else { return wrong("is missing") };
    let mut end = [0; TABLE_END_BYTES as usize];
    file.read_exact_at(&mut end, at)?;
    let count = end.first_chunk().map_or(0, |count| u32::from_le_bytes(*count));
    let bytes = u64::from(count) * TABLE_FRAME_BYTES + TABLE_HEAD_BYTES + TABLE_END_BYTES;
    if bytes > size {
        return wrong("has more frames than the object has bytes for");
    }
    match SeekTable::from_seekable(file) {
        Ok(table) if table.size_comp() + bytes == size => Ok(Ok(table)),
        Ok(_) => wrong("does not cover the object"),
        Err(error) => Ok(Err(format!("its seek table does not parse: {error}"))),
    }
}

/// The raw bytes of all frames, one after the other; each is checked on its way.
struct Frames {
    file: File,
    pack: PackNo,
    table: SeekTable,
    tarball: Tarball,
    next: u32,
    open: Bytes,
    /// Zero bytes at the end of what was read.
    zeros: usize,
    /// The local file failed.
    failed: Option<io::Error>,
}

impl Frames {
    fn open_next(&mut self) -> Result<(), String> {
        let (Ok(start), Ok(stored), Ok(raw)) = (
            self.table.frame_start_comp(self.next),
            self.table.frame_size_comp(self.next),
            self.table.frame_size_decomp(self.next),
        ) else {
            return Err(format!("its seek table has no frame {}", self.next));
        };
        let (Ok(stored_len), Ok(raw_len)) = (u32::try_from(stored), u32::try_from(raw)) else {
            return Err(format!("frame {} at byte {start} is too large", self.next));
        };
        if raw_len > FRAME_RAW_BYTES_MAX {
            return Err(format!("frame {} at byte {start} has {raw_len} bytes, more than a reader accepts", self.next));
        }
        let mut bytes = vec![0; stored_len as usize];
        if let Err(error) = self.file.read_exact_at(&mut bytes, start) {
            self.failed = Some(error);
            return Err("the local copy cannot be read".to_owned());
        }
        let frame = FrameRef { pack: self.pack, offset: start, stored_len, raw_len, hash: hash128(&bytes) };
        self.open = decode_frame(&bytes, &frame).map_err(|error| error.to_string())?;
        self.tarball.frames.push(frame);
        self.tarball.raw += u64::from(raw_len);
        self.next += 1;
        self.zeros = match self.open.iter().rev().position(|byte| *byte != 0) {
            Some(zeros) => zeros,
            None => self.zeros + self.open.len(),
        };
        Ok(())
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.open.is_empty() && self.next < self.table.num_frames() {
            if let Err(what) = self.open_next() {
                self.tarball.fault.get_or_insert(what.clone());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        let len = buffer.len().min(self.open.len());
        if let Some(to) = buffer.get_mut(..len) {
            self.open.copy_to_slice(to);
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::{Member, MemberKind, PackIdentity, PackWriter, Range};
    use kvfs::Ino;
    use kvfs::ids::Epoch;
    use kvfs::schema::Time;
    use std::io::Write;

    fn pack() -> (Vec<u8>, Vec<FrameRef>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack");
        let identity = PackIdentity { fs: uuid::Uuid::nil(), number: PackNo(3), epoch: Epoch(1) };
        let mut writer = PackWriter::create(&path, identity).unwrap();
        for (n, len) in [(2_u64, 40_usize), (3, 2_500_000), (4, 900)] {
            let kind = MemberKind::File { size: len as u64, ranges: vec![Range { offset: 0, len: len as u64 }] };
            let path = format!("file {n}").into_bytes();
            let (mode, uid, gid, xattrs) = (0o600, 1, 2, Vec::new());
            writer.begin(&Member { path, kind, mode, uid, gid, mtime: Time::default(), xattrs, ino: Ino(n) }).unwrap();
            let bytes: Vec<u8> = (0..len).map(|at| (at * at / 7 + n as usize) as u8).collect();
            for piece in bytes.chunks(1 << 20) {
                writer.data(piece).unwrap();
            }
            writer.end().unwrap();
        }
        let summary = writer.finish().unwrap();
        (std::fs::read(&path).unwrap(), summary.frames, summary.raw)
    }

    fn read_bytes(bytes: &[u8]) -> Tarball {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read(file, 3, bytes.len() as u64).unwrap()
    }

    /// A pack of these raw frames, with a table.
    fn packed(raw: &[&[u8]]) -> Vec<u8> {
        let (mut bytes, mut table) = (Vec::new(), SeekTable::new());
        for raw in raw {
            let stored = zstd::bulk::compress(raw, 3).unwrap();
            table.log_frame(stored.len() as u32, raw.len() as u32).unwrap();
            bytes.extend(stored);
        }
        io::copy(&mut table.into_serializer(), &mut bytes).unwrap();
        bytes
    }

    fn fault(bytes: &[u8]) -> String {
        read_bytes(bytes).fault.unwrap()
    }

    #[test]
    fn a_pack_is_read_to_its_end() {
        let (bytes, frames, raw) = pack();
        let found = read_bytes(&bytes);
        assert_eq!((found.fault, found.raw), (None, raw));
        assert_eq!(found.frames, frames);
    }

    #[test]
    fn every_way_of_not_being_a_pack_is_named() {
        let (bytes, frames, _) = pack();
        assert!(fault(b"short").contains("missing"));
        assert!(fault(&bytes[..bytes.len() - 1]).contains("seek table"));
        let table_at = frames.last().map(|last| last.offset as usize + last.stored_len as usize).unwrap();
        let mut longer = bytes.clone();
        longer.splice(table_at..table_at, [0; 5]);
        assert!(fault(&longer).contains("cover"), "{}", fault(&longer));
        let mut many = bytes.clone();
        let at = many.len() - TABLE_END_BYTES as usize;
        many[at..at + 4].copy_from_slice(&0x0700_0000_u32.to_le_bytes());
        assert!(fault(&many).contains("more frames than"));
        let mut flipped = bytes.clone();
        flipped[frames[2].offset as usize + 30] ^= 1;
        assert!(fault(&flipped).contains(&format!("byte {}", frames[2].offset)), "{}", fault(&flipped));
        assert!(fault(&packed(&[&[0; 512]])).contains("no end"));
        assert!(fault(&packed(&[b"no tar header", &[7; 2000]])).contains("tar"));
        assert!(fault(&packed(&[&vec![0; FRAME_RAW_BYTES_MAX as usize + 1]])).contains("accepts"));
        assert_eq!(read_bytes(&packed(&[&[0; 1000], &[0; 24]])).fault, None, "an end across two frames");
    }
}
