//! Tar headers: ustar, with pax records for what ustar cannot say.
//!
//! POSIX.1-2017 `pax` gives both formats; sparse members are "PAX format, version 1.0" of the GNU tar manual. Written
//! here and not by a library because names are raw bytes, times carry nanoseconds before 1970 and files have holes.

use super::acl;
use super::member::{Member, MemberError, MemberKind, Range};
use kvfs::ids::PackNo;
use kvfs::schema::Time;
use tar::{EntryType, Header};
use uuid::Uuid;

/// The unit of a tar file, bytes.
pub(crate) const BLOCK: usize = 512;
/// The largest number in a 12-byte octal field.
const OCTAL_11_MAX: u64 = 0o777_7777_7777;
/// The largest number in an 8-byte octal field.
const OCTAL_7_MAX: u32 = 0o777_7777;
/// Bytes of a name or link target in ustar.
const NAME_BYTES: usize = 100;

/// Zero bytes that fill `len` up to whole blocks.
pub(crate) fn padding(len: u64) -> usize {
    (BLOCK - (len % BLOCK as u64) as usize) % BLOCK
}

/// The global header: what this pack is.
pub(crate) fn global(fs: Uuid, pack: PackNo, epoch: u32) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let mut records = Records::default();
    let text = format!("CBFS {version} filesystem {} pack {pack} epoch {epoch}", fs.hyphenated());
    records.add(b"comment", text.as_bytes());
    let mut bytes = Vec::new();
    records.write(&mut bytes, EntryType::XGlobalHeader, b"pax_global_header");
    bytes
}

/// The beginning of a member that never comes: a tar that ends with it is damaged for every reader.
pub(crate) fn unfinished() -> Vec<u8> {
    let mut header = Header::new_ustar();
    fill(&mut header.as_old_mut().name, b"PaxHeaders/unfinished");
    header.set_entry_type(EntryType::XHeader);
    header.set_size(BLOCK as u64);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// All header bytes of a member, the map of a sparse file included.
pub(crate) fn encode(member: &Member) -> Result<Vec<u8>, MemberError> {
    let map = sparse_map(&member.kind)?;
    let path = full_path(member);
    let stored = map.as_ref().map_or(0, |map| map.len() as u64) + member.kind.data_bytes();
    let layout = if map.is_some() { Layout::Sparse } else { Layout::Dense };
    let mut bytes = Vec::with_capacity(3 * BLOCK);
    if !matches!(member.kind, MemberKind::Part { .. }) {
        let name = format!("PaxHeaders/{}", member.ino);
        pax_records(member, &path, stored, layout).write(&mut bytes, EntryType::XHeader, name.as_bytes());
    }
    let name = if map.is_some() { format!("GNUSparseFile.0/{}", member.ino).into_bytes() } else { path };
    bytes.extend_from_slice(ustar(member, &name, stored).as_bytes());
    bytes.extend(map.into_iter().flatten());
    Ok(bytes)
}

/// The path as written: a directory ends in `/`.
fn full_path(member: &Member) -> Vec<u8> {
    let mut path = member.path.clone();
    if member.kind == MemberKind::Directory {
        path.push(b'/');
    }
    path
}

fn link_target(kind: &MemberKind) -> Option<&[u8]> {
    match kind {
        MemberKind::Symlink { target } | MemberKind::HardLink { target } => Some(target),
        _ => None,
    }
}

/// Whether ustar's field can hold the name as every reader understands it.
fn is_plain(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES && name.is_ascii()
}

fn pax_records(member: &Member, path: &[u8], stored: u64, layout: Layout) -> Records {
    let mut records = Records::default();
    records.add(b"comment", format!("inode {}", member.ino).as_bytes());
    records.add(b"mtime", seconds(member.mtime).as_bytes());
    if layout == Layout::Sparse {
        records.add(b"GNU.sparse.major", b"1");
        records.add(b"GNU.sparse.minor", b"0");
        records.add(b"GNU.sparse.name", path);
        if let MemberKind::File { size, .. } = &member.kind {
            records.add(b"GNU.sparse.realsize", size.to_string().as_bytes());
        }
    } else if !is_plain(path) {
        records.add(b"path", path);
    }
    if let Some(target) = link_target(&member.kind).filter(|target| !is_plain(target)) {
        records.add(b"linkpath", target);
    }
    if stored > OCTAL_11_MAX {
        records.add(b"size", stored.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], member.uid), (&b"gid"[..], member.gid)] {
        if id > OCTAL_7_MAX {
            records.add(key, id.to_string().as_bytes());
        }
    }
    for (name, value) in &member.xattrs {
        match acl::keyword(name).zip(acl::text(value)) {
            Some((keyword, text)) => records.add(keyword, text.as_bytes()),
            None => records.add(&xattr_keyword(name), value),
        }
    }
    records
}

/// Whether a member's data has holes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Dense,
    Sparse,
}

/// A time as pax writes it: `-0.500000000` is half a second before 1970.
fn seconds(time: Time) -> String {
    let whole = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if whole < 0 { "-" } else { "" };
    let whole = whole.unsigned_abs();
    format!("{sign}{}.{:09}", whole / 1_000_000_000, whole % 1_000_000_000)
}

/// `SCHILY.xattr.<name>`; `=` ends a pax keyword, so GNU tar and we write it as `%3D`.
fn xattr_keyword(name: &[u8]) -> Vec<u8> {
    let mut keyword = b"SCHILY.xattr.".to_vec();
    for byte in name {
        match byte {
            b'=' => keyword.extend_from_slice(b"%3D"),
            b'%' => keyword.extend_from_slice(b"%25"),
            other => keyword.push(*other),
        }
    }
    keyword
}

/// The ustar block. Its numbers are clipped where a pax record holds the real one.
fn ustar(member: &Member, name: &[u8], stored: u64) -> Header {
    let mut header = Header::new_ustar();
    fill(&mut header.as_old_mut().name, name);
    if let Some(target) = link_target(&member.kind) {
        fill(&mut header.as_old_mut().linkname, target);
    }
    header.set_entry_type(entry_type(&member.kind));
    header.set_mode(member.mode & 0o7777);
    header.set_uid(u64::from(member.uid.min(OCTAL_7_MAX)));
    header.set_gid(u64::from(member.gid.min(OCTAL_7_MAX)));
    header.set_size(stored.min(OCTAL_11_MAX));
    header.set_mtime(u64::try_from(member.mtime.secs).unwrap_or(0).min(OCTAL_11_MAX));
    if let MemberKind::CharDevice { rdev } | MemberKind::BlockDevice { rdev } = member.kind
        && let Some(ustar) = header.as_ustar_mut()
    {
        let (major, minor) = device(rdev);
        ustar.set_device_major(major);
        ustar.set_device_minor(minor);
    }
    header.set_cksum();
    header
}

/// Major and minor number in the kernel's 32 bits.
pub(crate) fn device(rdev: u32) -> (u32, u32) {
    ((rdev & 0x000f_ff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0x000f_ff00))
}

fn entry_type(kind: &MemberKind) -> EntryType {
    match kind {
        MemberKind::File { .. } | MemberKind::Part { .. } => EntryType::Regular,
        MemberKind::Directory => EntryType::Directory,
        MemberKind::Symlink { .. } => EntryType::Symlink,
        MemberKind::HardLink { .. } => EntryType::Link,
        MemberKind::Fifo => EntryType::Fifo,
        MemberKind::CharDevice { .. } => EntryType::Char,
        MemberKind::BlockDevice { .. } => EntryType::Block,
    }
}

/// As much of `from` as fits; a pax record holds all of it when it does not.
fn fill(field: &mut [u8], from: &[u8]) {
    for (to, byte) in field.iter_mut().zip(from) {
        *to = *byte;
    }
}

/// The map in front of a sparse file's data; `None` for a file without holes and for everything else.
fn sparse_map(kind: &MemberKind) -> Result<Option<Vec<u8>>, MemberError> {
    let MemberKind::File { size, ranges } = kind else { return Ok(None) };
    check_ranges(*size, ranges)?;
    let dense = match ranges.as_slice() {
        [] => *size == 0,
        [only] => only.offset == 0 && only.len == *size,
        _ => false,
    };
    if dense {
        return Ok(None);
    }
    let end = ranges.last().map_or(0, Range::end);
    let tail = (end < *size || ranges.is_empty()).then_some(Range { offset: *size, len: 0 });
    let mut text = format!("{}\n", ranges.len() + usize::from(tail.is_some()));
    for range in ranges.iter().chain(&tail) {
        text.push_str(&format!("{}\n{}\n", range.offset, range.len));
    }
    let mut map = text.into_bytes();
    map.resize(map.len() + padding(map.len() as u64), 0);
    Ok(Some(map))
}

fn check_ranges(size: u64, ranges: &[Range]) -> Result<(), MemberError> {
    let mut at = None;
    if ranges.iter().rev().skip(1).any(|range| range.len % BLOCK as u64 != 0) {
        return Err(MemberError("a range before the last is not whole blocks"));
    }
    for range in ranges {
        let end = range.offset.checked_add(range.len).filter(|end| range.len > 0 && *end <= size);
        if at.is_some_and(|at| range.offset <= at) {
            return Err(MemberError("ranges touch or are not in order"));
        }
        at = Some(end.ok_or(MemberError("a range is empty or beyond the file"))?);
    }
    Ok(())
}

/// Records of a pax header: `<length> <keyword>=<value>\n`, the length counting itself.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, keyword: &[u8], value: &[u8]) {
        let rest = keyword.len() + value.len() + 3;
        let mut total = rest + 1;
        while total != rest + total.to_string().len() {
            total = rest + total.to_string().len();
        }
        self.0.extend_from_slice(format!("{total} ").as_bytes());
        self.0.extend_from_slice(keyword);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn write(self, to: &mut Vec<u8>, kind: EntryType, name: &[u8]) {
        let mut header = Header::new_ustar();
        fill(&mut header.as_old_mut().name, name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(self.0.len() as u64);
        header.set_cksum();
        to.extend_from_slice(header.as_bytes());
        to.extend_from_slice(&self.0);
        to.resize(to.len() + padding(self.0.len() as u64), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_down_to_the_point() {
        assert_eq!(seconds(Time { secs: -1, nanos: 500_000_000 }), "-0.500000000");
        assert_eq!(seconds(Time { secs: -2, nanos: 999_999_999 }), "-1.000000001");
        assert_eq!(seconds(Time { secs: 7, nanos: 1 }), "7.000000001");
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for len in 0..2000 {
            let mut records = Records::default();
            records.add(b"k", &vec![b'v'; len]);
            let text = String::from_utf8(records.0).unwrap();
            let said: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, text.len());
        }
    }

    #[test]
    fn acls_are_records_of_their_own() {
        let acl = acl::tests::attribute(&[(1, 6, 0), (4, 4, 0), (32, 0, 0)]);
        let member = Member {
            path: b"d".to_vec(),
            kind: MemberKind::Directory,
            mode: 0o750,
            uid: 1,
            gid: 2,
            mtime: Time { secs: 3, nanos: 4 },
            xattrs: vec![
                (b"system.posix_acl_access".to_vec(), acl.clone().into()),
                (b"system.posix_acl_default".to_vec(), acl.into()),
                (b"user.x".to_vec(), b"y".to_vec().into()),
            ],
            ino: kvfs::Ino(5),
        };
        let bytes = encode(&member).unwrap();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(has(b"53 SCHILY.acl.access=user::rw-,group::r--,other::---\n"), "{}", bytes.escape_ascii());
        assert!(has(b"SCHILY.acl.default=user::rw-,group::r--,other::---\n"));
        assert!(has(b"SCHILY.xattr.user.x=y\n") && !has(b"posix_acl"));
    }

    #[test]
    fn ranges_out_of_order_or_beyond_the_file_are_refused() {
        let range = |offset, len| Range { offset, len };
        assert!(check_ranges(1000, &[range(0, 512), range(513, 5)]).is_ok());
        let touching = [range(0, 512), range(512, 2)];
        let backwards = [range(600, 512), range(0, 1)];
        let odd = [range(0, 4), range(5, 5)];
        for bad in [&touching[..], &backwards, &odd, &[range(995, 6)], &[range(0, 0)]] {
            assert!(check_ranges(1000, bad).is_err(), "{bad:?}");
        }
    }
}
