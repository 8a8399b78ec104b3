//! Packs read by the tools that everybody has: GNU tar, zstd, a seekable-zstd reader.
#![allow(clippy::unwrap_used)] // helpers of tests

use bytes::Bytes;
use kvfs::Ino;
use kvfs::ids::{Epoch, PackNo};
use kvfs::schema::{FrameRef, Time};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use toa::pack::{
    FRAME_RAW_BYTES, MIXED_FRAME_RAW_BYTES, Member, MemberKind, PackIdentity, PackSummary, PackWriter, PendingRef,
    Range, decode_frame,
};
use uuid::Uuid;

fn identity(number: u64) -> PackIdentity {
    PackIdentity { fs: Uuid::from_u128(7), number: PackNo(number), epoch: Epoch(1) }
}

fn member(path: &[u8], kind: MemberKind) -> Member {
    let mtime = Time { secs: 1_600_000_000, nanos: 123_456_789 };
    Member { path: path.to_vec(), kind, mode: 0o640, uid: 0, gid: 0, mtime, xattrs: Vec::new(), ino: Ino(42) }
}

fn file(path: &[u8], size: u64) -> Member {
    let ranges = if size == 0 { vec![] } else { vec![Range { offset: 0, len: size }] };
    member(path, MemberKind::File { size, ranges })
}

/// Bytes that do not compress away, different for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn add(writer: &mut PackWriter, member: &Member, data: &[u8]) -> Vec<PendingRef> {
    writer.begin(member).unwrap();
    let refs = data.chunks(FRAME_RAW_BYTES).map(|chunk| writer.data(chunk).unwrap()).collect();
    writer.end().unwrap();
    refs
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What the documentation tells people to type.
fn restore(packs: &Path, to: &Path) {
    let script = "set -o pipefail; cat \"$1\"/*.tar.zst | zstd -dc | tar -xip --xattrs '--xattrs-include=*' -C \"$2\"";
    run(Command::new("bash").args(["-c", script, "restore"]).arg(packs).arg(to));
}

fn read_back(pack: &Path, summary: &PackSummary, at: PendingRef, len: usize) -> Vec<u8> {
    let object = fs::read(pack).unwrap();
    let frame = summary.frames[at.frame];
    let stored = &object[frame.offset as usize..][..frame.stored_len as usize];
    decode_frame(stored, &frame).unwrap()[at.within as usize..][..len].to_vec()
}

#[test]
fn gnu_tar_restores_a_nasty_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (packs, out) = (dir.path().join("packs"), dir.path().join("out"));
    fs::create_dir(&packs).unwrap();
    fs::create_dir(&out).unwrap();
    let mut writer = PackWriter::create(&packs.join("1.tar.zst"), identity(1)).unwrap();

    let long_dir = [b"d".repeat(120), b"/".to_vec(), b"e".repeat(200)].concat();
    let long = [long_dir.clone(), b"/".to_vec(), b"f".repeat(250)].concat();
    let mut root = member(b".", MemberKind::Directory);
    root.mode = 0o751;
    add(&mut writer, &root, b"");
    add(&mut writer, &member(&long_dir, MemberKind::Directory), b"");
    add(&mut writer, &file(&long, 5), b"long!");
    add(&mut writer, &file(b"caf\xe9\xff", 3), b"raw");
    add(&mut writer, &file(b"new\nline", 2), b"nl");
    add(&mut writer, &file("grüße".as_bytes(), 4), b"utf8");
    add(&mut writer, &file(b"empty", 0), b"");

    let mut old = file(b"old", 1);
    old.mtime = Time { secs: -2, nanos: 250_000_000 };
    old.mode = 0o4711;
    old.uid = 3_000_000;
    old.gid = 7;
    old.xattrs = vec![
        (b"user.plain".to_vec(), Bytes::from_static(b"value")),
        (b"user.a=b%c".to_vec(), Bytes::from_static(b"\x00\xff\n=\n")),
    ];
    add(&mut writer, &old, b"o");

    let mib = 1 << 20;
    let sparse_ranges = vec![
        Range { offset: 4096, len: 8192 },
        Range { offset: 3 * mib, len: mib },
        Range { offset: 9 * mib + 512, len: 100 },
    ];
    let sparse_data = noise(5, 8192 + (1 << 20) + 100);
    let kind = MemberKind::File { size: 10 * mib, ranges: sparse_ranges.clone() };
    writer.begin(&member(b"sparse", kind)).unwrap();
    writer.data(&sparse_data[..8192]).unwrap();
    writer.data(&sparse_data[8192..8192 + (1 << 20)]).unwrap();
    writer.data(&sparse_data[8192 + (1 << 20)..]).unwrap();
    writer.end().unwrap();
    add(&mut writer, &member(b"hole", MemberKind::File { size: 5 * mib, ranges: vec![] }), b"");

    add(&mut writer, &member(b"second", MemberKind::HardLink { target: b"old".to_vec() }), b"");
    add(&mut writer, &member(b"long-second", MemberKind::HardLink { target: long.clone() }), b"");
    add(&mut writer, &member(b"link", MemberKind::Symlink { target: b"t".repeat(300) }), b"");
    add(&mut writer, &member(b"raw-link", MemberKind::Symlink { target: b"\xfe\xff".to_vec() }), b"");
    add(&mut writer, &member(b"pipe", MemberKind::Fifo), b"");
    let rdev = (0x123 << 8) | 0x45 | (0x6 << 20);
    add(&mut writer, &member(b"chr", MemberKind::CharDevice { rdev }), b"");
    add(&mut writer, &member(b"blk", MemberKind::BlockDevice { rdev: 0x0701 }), b"");
    let big = noise(9, 2_500_000);
    let refs = add(&mut writer, &file(b"big", big.len() as u64), &big);
    let summary = writer.finish().unwrap();

    run(Command::new("zstd").args(["-t", "-q"]).arg(packs.join("1.tar.zst")));
    restore(&packs, &out);
    let at = |name: &[u8]| out.join(std::ffi::OsStr::from_bytes(name));
    let meta = |name: &[u8]| fs::symlink_metadata(at(name)).unwrap();
    assert_eq!(meta(b".").mode() & 0o7777, 0o751);
    assert_eq!(fs::read(at(&long)).unwrap(), b"long!");
    assert_eq!(meta(&long_dir).mtime_nsec(), 123_456_789);
    assert_eq!(fs::read(at(b"caf\xe9\xff")).unwrap(), b"raw");
    assert_eq!(fs::read(at(b"new\nline")).unwrap(), b"nl");
    assert_eq!(fs::read(at("grüße".as_bytes())).unwrap(), b"utf8");
    assert_eq!(fs::read(at(b"empty")).unwrap(), b"");
    let old = meta(b"old");
    assert_eq!((old.mtime(), old.mtime_nsec()), (-2, 250_000_000));
    if rustix::process::geteuid().is_root() {
        assert_eq!((old.uid(), old.gid(), old.mode() & 0o7777), (3_000_000, 7, 0o4711));
    }
    let xattr = |name: &str| {
        let mut buffer = vec![0; 100];
        let len = rustix::fs::getxattr(at(b"old"), name, &mut buffer[..]).unwrap();
        buffer.truncate(len);
        buffer
    };
    assert_eq!(xattr("user.plain"), b"value");
    assert_eq!(xattr("user.a=b%c"), b"\x00\xff\n=\n");
    let mut want = vec![0; 10 << 20];
    let mut from = 0;
    for range in sparse_ranges {
        want[range.offset as usize..range.end() as usize]
            .copy_from_slice(&sparse_data[from..from + range.len as usize]);
        from += range.len as usize;
    }
    assert_eq!(fs::read(at(b"sparse")).unwrap(), want);
    assert!(meta(b"sparse").blocks() * 512 < 2 << 20, "holes stay holes");
    assert_eq!((meta(b"hole").len(), meta(b"hole").blocks()), (5 << 20, 0));
    assert_eq!(meta(b"second").ino(), meta(b"old").ino());
    assert_eq!(meta(b"long-second").ino(), meta(&long).ino());
    assert_eq!(fs::read_link(at(b"link")).unwrap().as_os_str().as_bytes(), b"t".repeat(300));
    assert_eq!(fs::read_link(at(b"raw-link")).unwrap().as_os_str().as_bytes(), b"\xfe\xff");
    assert!(meta(b"pipe").file_type().is_fifo());
    if rustix::process::geteuid().is_root() {
        let dev = meta(b"chr").rdev();
        assert!(meta(b"chr").file_type().is_char_device());
        assert_eq!((rustix::fs::major(dev), rustix::fs::minor(dev)), (0x123, 0x645));
        assert!(meta(b"blk").file_type().is_block_device());
    }
    assert_eq!(fs::read(at(b"big")).unwrap(), big);
    for (at, chunk) in refs.iter().zip(big.chunks(FRAME_RAW_BYTES)) {
        assert_eq!(read_back(&packs.join("1.tar.zst"), &summary, *at, chunk.len()), chunk);
        assert_eq!((at.within, summary.frames[at.frame].raw_len as usize), (0, chunk.len()), "a frame of its own");
    }
}

#[test]
fn several_packs_in_a_row_are_one_archive() {
    let dir = tempfile::tempdir().unwrap();
    let (packs, out) = (dir.path().join("packs"), dir.path().join("out"));
    fs::create_dir(&packs).unwrap();
    fs::create_dir(&out).unwrap();
    for number in 1..=3u8 {
        let path = packs.join(format!("{number}.tar.zst"));
        let mut writer = PackWriter::create(&path, identity(u64::from(number))).unwrap();
        let name = [b'f', b'0' + number];
        add(&mut writer, &file(&name, 1), &[number]);
        add(&mut writer, &file(b"same", 1), &[number]);
        writer.finish().unwrap();
    }
    restore(&packs, &out);
    assert_eq!(fs::read(out.join("f1")).unwrap(), [1]);
    assert_eq!(fs::read(out.join("f3")).unwrap(), [3]);
    assert_eq!(fs::read(out.join("same")).unwrap(), [3], "the newest pack wins");
}

#[test]
fn the_seek_table_and_the_hashes_are_those_of_the_summary() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.tar.zst");
    let mut writer = PackWriter::create(&path, identity(9)).unwrap();
    let mut refs = Vec::new();
    for seed in 0..300u64 {
        let data = noise(seed, (seed as usize * 777) % 40_000);
        let found = add(&mut writer, &file(format!("dir/file-{seed}").as_bytes(), data.len() as u64), &data);
        refs.extend(found.into_iter().map(|at| (at, data.clone())));
    }
    let summary = writer.finish().unwrap();
    let object = fs::read(&path).unwrap();
    assert_eq!((summary.size, &summary.hash), (object.len() as u64, blake3::hash(&object).as_bytes()));
    let table = zeekstd::SeekTable::from_seekable(&mut fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(table.num_frames() as usize, summary.frames.len());
    for (index, frame) in summary.frames.iter().enumerate() {
        assert_eq!(table.frame_start_comp(index as u32).unwrap(), frame.offset);
        assert_eq!(table.frame_size_comp(index as u32).unwrap(), u64::from(frame.stored_len));
        assert_eq!(table.frame_size_decomp(index as u32).unwrap(), u64::from(frame.raw_len));
        assert!(frame.raw_len as usize <= MIXED_FRAME_RAW_BYTES);
    }
    assert!(summary.frames.len() > 2, "several mixed frames");
    assert_eq!(summary.raw, table.size_decomp());
    for (at, data) in refs {
        assert_eq!(read_back(&path, &summary, at, data.len()), data);
    }
}

#[test]
fn damage_is_found_before_anything_is_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.tar.zst");
    let mut writer = PackWriter::create(&path, identity(1)).unwrap();
    add(&mut writer, &file(b"f", 50_000), &noise(3, 50_000));
    let summary = writer.finish().unwrap();
    let object = fs::read(&path).unwrap();
    for frame in &summary.frames {
        let stored = &object[frame.offset as usize..][..frame.stored_len as usize];
        assert!(decode_frame(stored, frame).is_ok());
        for step in 0..200usize {
            let mut bad = stored.to_vec();
            let at = (step * 7919) % bad.len();
            bad[at] ^= 1 << (step % 8);
            assert!(decode_frame(&bad, frame).is_err());
        }
        assert!(decode_frame(&stored[1..], frame).is_err());
    }
}

#[test]
fn a_member_must_keep_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.tar.zst");
    let mut writer = PackWriter::create(&path, identity(1)).unwrap();
    writer.begin(&file(b"f", 4)).unwrap();
    assert!(writer.begin(&file(b"g", 4)).is_err());
    assert!(writer.data(b"12345").is_err());
    let mut writer = PackWriter::create(&path, identity(1)).unwrap();
    writer.begin(&file(b"f", 4)).unwrap();
    writer.data(b"123").unwrap();
    assert!(writer.end().is_err());
    let mut writer = PackWriter::create(&path, identity(1)).unwrap();
    writer.begin(&file(b"f", 4)).unwrap();
    assert!(writer.finish().is_err());
    let nowhere = PackWriter::create(&dir.path().join("no/where"), identity(1)).unwrap_err();
    assert_eq!(nowhere.kind(), toa::pack::PackErrorKind::Io);
}

/// A pack of format version 1 as it was written once; every later version must read it.
#[test]
fn the_golden_pack_is_read_for_ever() {
    let object = include_bytes!("pack_fixtures/v1.tar.zst");
    let frames = [
        (145, 214, 5120, "273d06b72c2676181a806989e75d87ac"),
        (359, 54, 1_048_576, "09e49708301fcbd07848d8c3ad60817c"),
        (413, 23, 10, "3b207f4789fa61606983065761ceae4c"),
    ];
    let decoded = frames.map(|(offset, stored_len, raw_len, hash)| {
        let hash = u128::from_str_radix(hash, 16).unwrap().to_be_bytes();
        let frame = FrameRef { pack: PackNo(3), offset, stored_len, raw_len, hash };
        decode_frame(&object[offset as usize..][..stored_len as usize], &frame).unwrap()
    });
    assert_eq!(&decoded[0][3072..3086], b"hello, world!\n");
    assert_eq!(decoded[1], vec![b'x'; FRAME_RAW_BYTES]);
    assert_eq!(decoded[2], vec![b'x'; 10]);
    let out = tempfile::tempdir().unwrap();
    restore(Path::new("tests/pack_fixtures"), out.path());
    assert_eq!(fs::read(out.path().join("dir/hello")).unwrap(), b"hello, world!\n");
    assert_eq!(fs::metadata(out.path().join("dir/large")).unwrap().len(), FRAME_RAW_BYTES as u64 + 10);
}
