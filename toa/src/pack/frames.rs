//! A stream of raw bytes, cut into independent zstd frames in a file. Compressing, hashing and writing is done by a thread
//! of its own, so that whoever fills the stream can read on meanwhile.

use super::MIXED_FRAME_RAW_BYTES;
use super::error::PackError;
use super::writeback::Writeback;
use kvfs::ids::PackNo;
use kvfs::schema::FrameRef;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use zeekstd::SeekTable;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

/// zstd level of every frame.
const LEVEL: i32 = 3;
/// Closed frames that are not in the file yet, at most: one is being compressed, one waits.
const IN_FLIGHT_MAX: usize = 2;

/// Where bytes will be once their frame is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRef {
    /// Index into [`PackSummary::frames`].
    pub frame: usize,
    /// First byte in the decompressed frame.
    pub within: u32,
}

/// A finished pack.
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

/// See the file's first line. Holds at most [`IN_FLIGHT_MAX`] frames and the open one in memory.
pub(super) struct FrameStream {
    pack: PackNo,
    path: PathBuf,
    table: SeekTable,
    /// Frames in the file, as far as this side has heard; how far that is depends on what was put in alone, never on
    /// which thread was faster, so that the same input always gives the same packs.
    frames: Vec<FrameRef>,
    /// Raw lengths of those that are on their way.
    in_flight: VecDeque<usize>,
    open: Vec<u8>,
    spare: Vec<Vec<u8>>,
    size: u64,
    raw: u64,
    writer: Writer,
}

/// The other thread, and the lines to it.
struct Writer {
    to_do: Option<Sender<Vec<u8>>>,
    done: Receiver<Result<Written, PackError>>,
    thread: Option<JoinHandle<FrameFile>>,
}

/// A frame that is in the file, and the memory of its raw bytes, to be used again.
struct Written {
    frame: FrameRef,
    raw: Vec<u8>,
}

impl FrameStream {
    /// A new file; an older one of an interrupted attempt is replaced.
    pub fn create(path: &Path, pack: PackNo) -> Result<Self, PackError> {
        let file = FrameFile::create(path, pack)?;
        Ok(Self {
            pack,
            path: path.to_owned(),
            table: SeekTable::new(),
            frames: Vec::new(),
            in_flight: VecDeque::new(),
            open: Vec::with_capacity(MIXED_FRAME_RAW_BYTES),
            spare: Vec::new(),
            size: 0,
            raw: 0,
            writer: Writer::start(file)?,
        })
    }

    pub fn frames(&self) -> &[FrameRef] {
        &self.frames
    }

    /// Raw bytes in the open frame.
    pub fn open_bytes(&self) -> usize {
        self.open.len()
    }

    /// Bytes written, with frames that are not in the file yet as if they did not compress.
    pub fn size(&self) -> u64 {
        self.size + (self.in_flight.iter().sum::<usize>() + self.open.len()) as u64
    }

    /// Appends bytes that nobody refers to; they may lie across frames.
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while !bytes.is_empty() {
            if self.open.len() >= MIXED_FRAME_RAW_BYTES {
                self.close()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(MIXED_FRAME_RAW_BYTES - self.open.len()));
            self.open.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Appends bytes so that they lie in one frame of at most `frame_bytes_max`.
    pub fn place(&mut self, bytes: &[u8], frame_bytes_max: usize) -> Result<PendingRef, PackError> {
        if bytes.len() > frame_bytes_max {
            return Err(PackError::Member("more data at once than a frame holds"));
        }
        if self.open.len() + bytes.len() > frame_bytes_max {
            self.close()?;
        }
        let at = PendingRef { frame: self.frames.len() + self.in_flight.len(), within: self.open.len() as u32 };
        self.open.extend_from_slice(bytes);
        Ok(at)
    }

    /// Ends the open frame, if it holds anything, and hands it to the other thread.
    pub fn close(&mut self) -> Result<(), PackError> {
        if self.open.is_empty() {
            return Ok(());
        }
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.await_frame()?;
        }
        let empty = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(MIXED_FRAME_RAW_BYTES));
        let raw = std::mem::replace(&mut self.open, empty);
        self.in_flight.push_back(raw.len());
        // A thread that has ended says why in its last answer.
        if self.writer.to_do.as_ref().is_none_or(|to_do| to_do.send(raw).is_err()) {
            return self.settle();
        }
        Ok(())
    }

    /// Waits until all closed frames are in the file and known to [`Self::frames`].
    pub fn settle(&mut self) -> Result<(), PackError> {
        while !self.in_flight.is_empty() {
            self.await_frame()?;
        }
        Ok(())
    }

    fn await_frame(&mut self) -> Result<(), PackError> {
        let Written { frame, mut raw } = self.writer.done.recv().map_err(|_| self.writer_ended())??;
        self.in_flight.pop_front();
        self.table
            .log_frame(frame.stored_len, frame.raw_len)
            .map_err(|_| PackError::Member("more frames than a seek table holds"))?;
        self.size += u64::from(frame.stored_len);
        self.raw += u64::from(frame.raw_len);
        self.frames.push(frame);
        raw.clear();
        self.spare.push(raw);
        Ok(())
    }

    fn writer_ended(&self) -> PackError {
        PackError::io(&self.path)(io::Error::other("the thread that compresses has ended"))
    }

    /// Ends the stream with the seek table; returns when the whole file is written. Making it durable is the caller's.
    pub fn finish(mut self) -> Result<PackSummary, PackError> {
        self.close()?;
        self.settle()?;
        let mut serializer = std::mem::take(&mut self.table).into_serializer();
        let mut table = vec![0; serializer.encoded_len()];
        let mut done = 0;
        while let Some(rest) = table.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match serializer.write_into(rest) {
                0 => break,
                more => done += more,
            }
        }
        let mut file = self.writer.end().ok_or_else(|| self.writer_ended())?;
        file.write(&table)?;
        Ok(PackSummary {
            number: self.pack,
            size: file.size,
            hash: *file.hasher.finalize().as_bytes(),
            frames: self.frames,
            raw: self.raw,
        })
    }
}

impl Writer {
    fn start(mut file: FrameFile) -> Result<Self, PackError> {
        let path = file.path.clone();
        let (to_do, frames) = channel::<Vec<u8>>();
        let (answer, done) = channel();
        let work = move || {
            for raw in frames {
                let written = file.close(&raw).map(|frame| Written { frame, raw });
                let failed = written.is_err();
                // Whoever does not listen any more has given the pack up.
                if answer.send(written).is_err() || failed {
                    break;
                }
            }
            file
        };
        let thread = std::thread::Builder::new().name("cbfs-frames".into()).spawn(work);
        let thread = thread.map_err(PackError::io(&path))?;
        Ok(Self { to_do: Some(to_do), done, thread: Some(thread) })
    }

    /// Waits for the end of the thread; `None` if it panicked.
    fn end(&mut self) -> Option<FrameFile> {
        self.to_do = None;
        self.thread.take()?.join().ok()
    }
}

impl Drop for Writer {
    /// Nothing may be written once the pack is given up: its file is about to be removed.
    fn drop(&mut self) {
        self.end();
    }
}

/// The file, on the other thread's side.
struct FrameFile {
    pack: PackNo,
    path: PathBuf,
    file: File,
    compressor: Compressor<'static>,
    hasher: blake3::Hasher,
    size: u64,
    writeback: Writeback,
    /// The compressed frame; kept for the next one.
    stored: Vec<u8>,
}

impl FrameFile {
    fn create(path: &Path, pack: PackNo) -> Result<Self, PackError> {
        let file = File::create(path).map_err(PackError::io(path))?;
        let mut compressor = Compressor::new(LEVEL).map_err(PackError::io(path))?;
        compressor.set_parameter(CParameter::ChecksumFlag(true)).map_err(PackError::io(path))?;
        compressor.set_parameter(CParameter::ContentSizeFlag(true)).map_err(PackError::io(path))?;
        let (hasher, stored) = (blake3::Hasher::new(), Vec::new());
        Ok(Self {
            pack,
            path: path.to_owned(),
            file,
            compressor,
            hasher,
            size: 0,
            writeback: Writeback::default(),
            stored,
        })
    }

    fn close(&mut self, raw: &[u8]) -> Result<FrameRef, PackError> {
        let mut stored = std::mem::take(&mut self.stored);
        stored.clear();
        stored.reserve(compress_bound(raw.len()));
        self.compressor.compress_to_buffer(raw, &mut stored).map_err(PackError::io(&self.path))?;
        let frame = FrameRef {
            pack: self.pack,
            offset: self.size,
            stored_len: stored.len() as u32,
            raw_len: raw.len() as u32,
            hash: super::reader::hash_of(&stored),
        };
        self.write(&stored)?;
        self.stored = stored;
        Ok(frame)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.file.write_all(bytes).map_err(PackError::io(&self.path))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.writeback.written_up_to(&self.file, self.size);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::PackErrorKind;
    use std::time::Duration;

    /// Bytes that compress well, badly or not at all, in turn.
    fn piece(number: u32) -> Vec<u8> {
        let length = 300_000 + (number as usize * 7919) % 500_000;
        let mut state = number | 1;
        let noise = std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if number.is_multiple_of(3) { 7 } else { (state >> 24) as u8 & if number % 3 == 1 { 0x0f } else { 0xff } }
        });
        noise.take(length).collect()
    }

    /// What is said of the pack after each piece, and the pack.
    fn written(path: &Path, pause: Duration) -> (Vec<(usize, u64)>, PackSummary, Vec<u8>) {
        let mut stream = FrameStream::create(path, PackNo(3)).unwrap();
        let mut said = Vec::new();
        for number in 0..24 {
            let at = stream.place(&piece(number), MIXED_FRAME_RAW_BYTES).unwrap();
            assert!(at.frame <= stream.frames().len() + IN_FLIGHT_MAX, "memory is bounded");
            if number == 11 {
                stream.close().unwrap();
                stream.settle().unwrap();
                assert_eq!(stream.frames().len(), at.frame + 1, "all that is closed can be referred to");
            }
            said.push((stream.frames().len(), stream.size()));
            std::thread::sleep(pause);
        }
        let summary = stream.finish().unwrap();
        (said, summary, std::fs::read(path).unwrap())
    }

    #[test]
    fn how_fast_the_other_thread_is_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let hurried = written(&dir.path().join("hurried"), Duration::ZERO);
        let patient = written(&dir.path().join("patient"), Duration::from_millis(20));
        assert_eq!(hurried.0, patient.0, "where a pack ends must not depend on it");
        assert!(hurried == patient, "the same pack");
        let (_, summary, bytes) = hurried;
        assert_eq!((summary.size, summary.hash), (bytes.len() as u64, *blake3::hash(&bytes).as_bytes()));
        for frame in &summary.frames {
            let stored = &bytes[frame.offset as usize..][..frame.stored_len as usize];
            crate::pack::decode_frame(stored, frame).unwrap();
        }
    }

    #[test]
    fn what_goes_wrong_on_the_other_thread_is_heard() {
        let full = |pieces: u32| {
            let mut stream = FrameStream::create(Path::new("/dev/full"), PackNo(3))?;
            (0..pieces).try_for_each(|number| stream.place(&piece(number), MIXED_FRAME_RAW_BYTES).map(drop))?;
            stream.finish().map(drop)
        };
        for pieces in [1, 30] {
            assert_eq!(full(pieces).unwrap_err().kind(), PackErrorKind::NoSpace, "{pieces} pieces");
        }
    }

    #[test]
    fn a_pack_that_is_given_up_is_not_written_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack");
        let mut stream = FrameStream::create(&path, PackNo(3)).unwrap();
        for number in 0..6 {
            stream.place(&piece(number), MIXED_FRAME_RAW_BYTES).unwrap();
        }
        drop(stream);
        let size = std::fs::metadata(&path).unwrap().len();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    }
}
