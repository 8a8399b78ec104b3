//! A stream of raw bytes, cut into independent zstd frames in a file.

use super::FRAME_RAW_BYTES;
use super::error::PackError;
use kvfs::ids::PackNo;
use kvfs::schema::FrameRef;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use zeekstd::SeekTable;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// zstd level of every frame.
const LEVEL: i32 = 3;

/// Where bytes will be once their frame is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRef {
    /// Index into [`PackSummary::frames`].
    pub frame: usize,
    /// First byte in the decompressed frame.
    pub within: u32,
}

/// A finished pack; its file is on stable storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSummary {
    /// Its number.
    pub number: PackNo,
    /// Bytes of the file.
    pub size: u64,
    /// BLAKE3 of the whole file.
    pub hash: [u8; 32],
    /// Its frames in order, the seek table not counted.
    pub frames: Vec<FrameRef>,
    /// Raw bytes in all frames.
    pub raw: u64,
}

/// See the file's first line. Holds at most one frame in memory.
pub(super) struct FrameStream {
    pack: PackNo,
    path: PathBuf,
    file: File,
    compressor: Compressor<'static>,
    hasher: blake3::Hasher,
    table: SeekTable,
    frames: Vec<FrameRef>,
    open: Vec<u8>,
    size: u64,
    raw: u64,
}

impl FrameStream {
    /// A new file; an older one of an interrupted attempt is replaced.
    pub fn create(path: &Path, pack: PackNo) -> Result<Self, PackError> {
        let file = File::create(path).map_err(PackError::io(path))?;
        let mut compressor = Compressor::new(LEVEL).map_err(PackError::io(path))?;
        compressor.set_parameter(CParameter::ChecksumFlag(true)).map_err(PackError::io(path))?;
        compressor.set_parameter(CParameter::ContentSizeFlag(true)).map_err(PackError::io(path))?;
        Ok(Self {
            pack,
            path: path.to_owned(),
            file,
            compressor,
            hasher: blake3::Hasher::new(),
            table: SeekTable::new(),
            frames: Vec::new(),
            open: Vec::with_capacity(FRAME_RAW_BYTES),
            size: 0,
            raw: 0,
        })
    }

    pub fn frames(&self) -> &[FrameRef] {
        &self.frames
    }

    /// Raw bytes in the open frame.
    pub fn open_bytes(&self) -> usize {
        self.open.len()
    }

    /// Bytes written, with the open frame as if it did not compress.
    pub fn size(&self) -> u64 {
        self.size + self.open.len() as u64
    }

    /// Appends bytes that nobody refers to; they may lie across frames.
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while !bytes.is_empty() {
            if self.open.len() >= FRAME_RAW_BYTES {
                self.close()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(FRAME_RAW_BYTES - self.open.len()));
            self.open.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Appends at most [`FRAME_RAW_BYTES`] so that they lie in one frame.
    pub fn place(&mut self, bytes: &[u8]) -> Result<PendingRef, PackError> {
        if bytes.len() > FRAME_RAW_BYTES {
            return Err(PackError::Member("more data at once than a frame holds"));
        }
        if self.open.len() + bytes.len() > FRAME_RAW_BYTES {
            self.close()?;
        }
        let at = PendingRef { frame: self.frames.len(), within: self.open.len() as u32 };
        self.open.extend_from_slice(bytes);
        Ok(at)
    }

    /// Ends the open frame, if it holds anything.
    pub fn close(&mut self) -> Result<(), PackError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let stored = self.compressor.compress(&self.open).map_err(PackError::io(&self.path))?;
        let frame = FrameRef {
            pack: self.pack,
            offset: self.size,
            stored_len: stored.len() as u32,
            raw_len: self.open.len() as u32,
            hash: super::reader::hash_of(&stored),
        };
        self.table
            .log_frame(frame.stored_len, frame.raw_len)
            .map_err(|_| PackError::Member("more frames than a seek table holds"))?;
        self.write(&stored)?;
        self.raw += u64::from(frame.raw_len);
        self.frames.push(frame);
        self.open.clear();
        Ok(())
    }

    /// Ends the stream with the seek table; returns when file and directory entry are on stable storage.
    pub fn finish(mut self) -> Result<PackSummary, PackError> {
        self.close()?;
        let mut serializer = std::mem::take(&mut self.table).into_serializer();
        let mut table = vec![0; serializer.encoded_len()];
        let mut done = 0;
        while let Some(rest) = table.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match serializer.write_into(rest) {
                0 => break,
                more => done += more,
            }
        }
        self.write(&table)?;
        self.file.sync_all().map_err(PackError::io(&self.path))?;
        if let Some(parent) = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent).and_then(|dir| dir.sync_all()).map_err(PackError::io(parent))?;
        }
        Ok(PackSummary {
            number: self.pack,
            size: self.size,
            hash: *self.hasher.finalize().as_bytes(),
            frames: self.frames,
            raw: self.raw,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.file.write_all(bytes).map_err(PackError::io(&self.path))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
}
