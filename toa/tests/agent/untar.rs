//! Reading a tar as the standard says, apart from the code that writes it.

use kvfs::Ino;
use kvfs::fs::{Attributes, FileSystem};
use kvfs::schema::FileKind;
use std::collections::BTreeMap;
use std::io::Read;

use crate::tree::waiting;

/// A member, with pax records applied.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub path: Vec<u8>,
    pub kind: tar::EntryType,
    pub link: Vec<u8>,
    pub size: u64,
    /// Offset and bytes of what is no hole.
    pub data: Vec<(u64, Vec<u8>)>,
    facts: String,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// All members in order; anything after the end but zeros is a panic.
pub(crate) fn read(bytes: &[u8]) -> Vec<Member> {
    assert_eq!(bytes.len() % 10_240, 0, "whole records");
    assert!(bytes.ends_with(&[0; 1024]), "the end of an archive");
    let (mut members, mut records) = (Vec::new(), Records::new());
    for entry in tar::Archive::new(bytes).entries().unwrap().raw(true) {
        let mut entry = entry.unwrap();
        let mut stored = Vec::new();
        entry.read_to_end(&mut stored).unwrap();
        match entry.header().entry_type() {
            tar::EntryType::XHeader => records = pax(&stored),
            _ => members.push(member(&entry, stored, &std::mem::take(&mut records))),
        }
    }
    members
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// `<length> <keyword>=<value>\n`; values hold anything.
fn pax(mut bytes: &[u8]) -> Records {
    let mut records = Records::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let len: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().unwrap();
        let record = bytes[space + 1..len].strip_suffix(b"\n").unwrap();
        let equals = record.iter().position(|byte| *byte == b'=').unwrap();
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        bytes = &bytes[len..];
    }
    records
}

fn member(entry: &tar::Entry<'_, &[u8]>, stored: Vec<u8>, records: &Records) -> Member {
    let text = |key: &str| records.get(key.as_bytes()).map(|value| String::from_utf8(value.clone()).unwrap());
    let number = |key: &str| text(key).map(|value| value.parse::<u64>().unwrap());
    let header = entry.header().clone();
    let id = |key, field: u64| number(key).unwrap_or(field);
    let device = (header.device_major().ok().flatten().unwrap_or(0), header.device_minor().ok().flatten().unwrap_or(0));
    let facts = format!(
        "{:o} {}:{} {} {:?}",
        header.mode().unwrap(),
        id("uid", header.uid().unwrap()),
        id("gid", header.gid().unwrap()),
        text("mtime").unwrap(),
        device,
    );
    let xattrs = records.iter().filter_map(|(key, value)| {
        let name = String::from_utf8_lossy(key.strip_prefix(b"SCHILY.xattr.")?).replace("%3D", "=").replace("%25", "%");
        Some((name.into_bytes(), value.clone()))
    });
    let sparse = number("GNU.sparse.realsize");
    let record = |key: &str| records.get(key.as_bytes()).cloned();
    let path = record("GNU.sparse.name").or(record("path")).unwrap_or_else(|| header.path_bytes().into_owned());
    let link = record("linkpath").or(header.link_name_bytes().map(std::borrow::Cow::into_owned)).unwrap_or_default();
    Member {
        path: path.strip_suffix(b"/").map_or(path.clone(), <[u8]>::to_vec),
        kind: header.entry_type(),
        link,
        size: sparse.unwrap_or(stored.len() as u64),
        data: if sparse.is_some() { islands(&stored) } else { vec![(0, stored)] },
        facts,
        xattrs: xattrs.collect(),
    }
}

/// The map of a sparse file, and the data behind it.
fn islands(stored: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut at = 0;
    let mut number = || {
        let end = at + stored[at..].iter().position(|byte| *byte == b'\n').unwrap();
        let value: usize = std::str::from_utf8(&stored[at..end]).unwrap().parse().unwrap();
        at = end + 1;
        value
    };
    let ranges: Vec<(usize, usize)> = (0..number()).map(|_| (number(), number())).collect();
    let mut data = at.next_multiple_of(512);
    let mut found = Vec::new();
    for (offset, len) in ranges {
        found.push((offset as u64, stored[data..data + len].to_vec()));
        data += len;
    }
    assert_eq!(data, stored.len());
    found.retain(|(_, bytes)| !bytes.is_empty());
    found
}

/// Panics unless the tar holds exactly what the filesystem shows, and everything comes behind what it needs.
pub(crate) fn check(bytes: &[u8], fs: &dyn FileSystem) {
    let mut expected = BTreeMap::new();
    let root = waiting(|| fs.attributes(Ino::ROOT)).unwrap();
    expected.insert(b".".to_vec(), root);
    walk(fs, Ino::ROOT, b"", &mut expected);
    let mut seen: BTreeMap<Vec<u8>, tar::EntryType> = BTreeMap::new();
    for member in read(bytes) {
        let shown = member.path.escape_ascii().to_string();
        let a = expected.get(&member.path).unwrap_or_else(|| panic!("{shown}: not in the filesystem"));
        if let Some(slash) = member.path.iter().rposition(|byte| *byte == b'/') {
            assert_eq!(
                seen.get(&member.path[..slash]),
                Some(&tar::EntryType::Directory),
                "{shown}: before its directory"
            );
        }
        assert_eq!(member.facts, facts(a), "{shown}");
        if member.kind == tar::EntryType::Link {
            assert_eq!(expected[&member.link].ino, a.ino, "{shown}: a link to another file");
            assert!(
                seen.get(&member.link).is_some_and(|kind| *kind != tar::EntryType::Link),
                "{shown}: before its file"
            );
        } else {
            node(&member, a, fs);
        }
        assert_eq!(seen.insert(member.path, member.kind), None, "{shown}: twice");
    }
    for (path, a) in expected.iter().filter(|(_, a)| a.kind != FileKind::Socket) {
        let kind = seen.get(path).unwrap_or_else(|| panic!("{}: missing, {a:?}", path.escape_ascii()));
        assert!(
            *kind == tar::EntryType::Link || a.nlink == 1 || a.kind == FileKind::Directory || {
                let names = expected.iter().filter(|(_, other)| other.ino == a.ino).count();
                names == seen.keys().filter(|other| expected[*other].ino == a.ino).count()
            }
        );
    }
}

fn facts(a: &Attributes) -> String {
    let whole = i128::from(a.mtime.secs) * 1_000_000_000 + i128::from(a.mtime.nanos);
    let sign = if whole < 0 { "-" } else { "" };
    let (secs, nanos) = (whole.unsigned_abs() / 1_000_000_000, whole.unsigned_abs() % 1_000_000_000);
    let device = match a.kind {
        FileKind::CharDevice | FileKind::BlockDevice => (a.rdev >> 8 & 0xfff, a.rdev & 0xff | a.rdev >> 12 & 0xfff00),
        _ => (0, 0),
    };
    format!("{:o} {}:{} {sign}{secs}.{nanos:09} {device:?}", a.mode, a.uid, a.gid)
}

fn node(member: &Member, a: &Attributes, fs: &dyn FileSystem) {
    let shown = member.path.escape_ascii().to_string();
    let kind = match member.kind {
        tar::EntryType::Regular => FileKind::Regular,
        tar::EntryType::Directory => FileKind::Directory,
        tar::EntryType::Symlink => FileKind::Symlink,
        tar::EntryType::Fifo => FileKind::Fifo,
        tar::EntryType::Char => FileKind::CharDevice,
        tar::EntryType::Block => FileKind::BlockDevice,
        other => panic!("{shown}: {other:?}"),
    };
    assert_eq!(kind, a.kind, "{shown}");
    for name in waiting(|| fs.list_xattrs(a.ino)).unwrap() {
        let value = waiting(|| fs.get_xattr(a.ino, &name)).unwrap();
        assert_eq!(member.xattrs.get(&name).map(Vec::as_slice), Some(&value[..]), "{shown}: {}", name.escape_ascii());
    }
    assert_eq!(member.xattrs.len(), waiting(|| fs.list_xattrs(a.ino)).unwrap().len(), "{shown}: xattrs");
    match kind {
        FileKind::Symlink => assert_eq!(member.link, waiting(|| fs.read_link(a.ino)).unwrap(), "{shown}"),
        FileKind::Regular => {
            assert_eq!(member.size, a.size, "{shown}");
            content(member, a, fs);
        }
        _ => assert!(member.data.iter().all(|(_, bytes)| bytes.is_empty()), "{shown}"),
    }
}

fn content(member: &Member, a: &Attributes, fs: &dyn FileSystem) {
    let shown = member.path.escape_ascii().to_string();
    let mut at = 0;
    while at < a.size {
        let bytes = waiting(|| fs.read(a.ino, at, 1 << 20)).unwrap();
        assert!(!bytes.is_empty(), "{shown}");
        let mut said = vec![0; bytes.len()];
        for (offset, data) in &member.data {
            let (from, end) = (at.max(*offset), (at + bytes.len() as u64).min(offset + data.len() as u64));
            if from < end {
                said[(from - at) as usize..(end - at) as usize]
                    .copy_from_slice(&data[(from - offset) as usize..(end - offset) as usize]);
            }
        }
        assert!(said == bytes, "{shown}: other bytes from {at} on");
        at += bytes.len() as u64;
    }
}

fn walk(fs: &dyn FileSystem, dir: Ino, path: &[u8], found: &mut BTreeMap<Vec<u8>, Attributes>) {
    for entry in waiting(|| fs.read_dir(dir, None, usize::MAX >> 1)).unwrap().into_iter().skip(2) {
        let path = if path.is_empty() { entry.name.clone() } else { [path, b"/", &entry.name].concat() };
        found.insert(path.clone(), waiting(|| fs.attributes(entry.ino)).unwrap());
        if entry.kind == FileKind::Directory {
            walk(fs, entry.ino, &path, found);
        }
    }
}
