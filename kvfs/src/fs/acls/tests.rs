use super::*;
use crate::Epoch;
use crate::acl::{ACCESS, DEFAULT};
use crate::base::EmptyBase;
use crate::engine::{Engine, EngineIdentity, EngineOptions, EngineSetup, InstanceDirs, Opening, create_instance};
use crate::fs::{Attributes, Caller, FileSystem, SystemClock};
use crate::node::NodeStore;
use crate::op::XattrMode;
use crate::request::{Lane, RequestId, Requested, WorkingFor};
use crate::schema::Time;
use crate::stack::Stack;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

const ALICE: Caller = Caller { uid: 1000, gid: 1000 };
const NO_ID: u32 = u32::MAX;
const SAME: Opening = Opening::Resumed { connection: 1 };

fn instance() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let dirs = InstanceDirs::new(dir.path());
    let node = NodeStore::open(&dirs.node()).unwrap();
    create_instance(&dirs, &node, EngineIdentity { fs: Uuid::from_u128(1), epoch: Epoch(1) }, &EmptyBase).unwrap();
    dir
}

fn open(dir: &Path, acls: AclSupport, opening: Opening) -> Fs {
    let dirs = InstanceDirs::new(dir);
    let node = Arc::new(NodeStore::open(&dirs.node()).unwrap());
    let stack = Arc::new(Stack::read_only(Arc::new(EmptyBase)));
    let options =
        EngineOptions { checkpoint_interval: Duration::from_secs(3600), ballast_bytes: 0, ..EngineOptions::default() };
    let setup = EngineSetup { dirs, node, stack, owner: (0, 0), now: Time::default(), options, opening };
    Fs::new(Engine::open(setup).unwrap(), Arc::new(SystemClock)).with_acls(acls)
}

/// As after `kill -9`.
fn kill(fs: Fs) {
    fs.engine().unwrap().halt();
}

/// An ACL that lets user 1001 read, and says nothing of groups.
fn value(mask: u16) -> Vec<u8> {
    let entries = [(1_u16, 7_u16, NO_ID), (2, 4, 1001), (4, 5, NO_ID), (16, mask, NO_ID), (32, 1, NO_ID)];
    let lines = entries
        .iter()
        .flat_map(|(tag, bits, id)| tag.to_le_bytes().into_iter().chain(bits.to_le_bytes()).chain(id.to_le_bytes()));
    2_u32.to_le_bytes().into_iter().chain(lines).collect()
}

fn make(fs: &Fs, parent: Ino, name: &str, kind: FileKind) -> Attributes {
    let node = NewNode { kind, mode: 0o776, umask: 0o027, rdev: 0, target: b"" };
    FileSystem::make(fs, ALICE, parent, name.as_bytes(), &node).unwrap()
}

/// Mode and ACLs.
fn shown(fs: &Fs, ino: Ino) -> (u32, Option<Bytes>, Option<Bytes>) {
    (fs.attributes(ino).unwrap().mode, fs.get_xattr(ino, ACCESS).ok(), fs.get_xattr(ino, DEFAULT).ok())
}

/// How many records `change` writes.
fn records(fs: &Fs, change: impl FnOnce()) -> u64 {
    let engine = fs.engine().unwrap();
    let before = engine.flush().unwrap();
    change();
    engine.flush().unwrap().0 - before.0
}

#[test]
fn mode_and_acl_change_in_one_record_and_come_back_together() {
    let dir = instance();
    let fs = open(dir.path(), AclSupport::Enforced, Opening::Fresh);
    let file = make(&fs, Ino::ROOT, "file", FileKind::Regular).ino;
    assert_eq!(shown(&fs, file), (0o750, None, None), "the umask acts where no default ACL does");
    let set = || fs.set_acl(file, AclKind::Access, &value(6), Sgid::Keep).unwrap();
    assert_eq!(records(&fs, set), 1);
    assert_eq!(shown(&fs, file), (0o761, Some(value(6).into()), None));
    let change = AttributeChange { mode: Some(0o4_741), ..AttributeChange::default() };
    let chmod = || assert_eq!(fs.set_attributes(file, &change, Privileges::Keep).unwrap().ino, file);
    assert_eq!(records(&fs, chmod), 1);
    assert_eq!(shown(&fs, file), (0o4_741, Some(value(4).into()), None));
    let folder = make(&fs, Ino::ROOT, "folder", FileKind::Directory).ino;
    let set = || fs.set_acl(folder, AclKind::Default, &value(6), Sgid::Keep).unwrap();
    assert_eq!(records(&fs, set), 1);
    assert_eq!(shown(&fs, folder), (0o750, None, Some(value(6).into())));
    let mut below = Vec::new();
    let node = NewNode { kind: FileKind::Directory, mode: 0o777, umask: 0o777, rdev: 0, target: b"" };
    let asked = Requested { id: RequestId { connection: 1, unique: 2 }, lane: Lane { life: 0, thread: 0 } };
    let mkdir = || {
        let _for = WorkingFor::begin(asked);
        below.push(FileSystem::make(&fs, ALICE, folder, b"below", &node).unwrap());
    };
    assert_eq!(records(&fs, mkdir), 1);
    let below = below[0].ino;
    let all = [(file, shown(&fs, file)), (folder, shown(&fs, folder)), (below, shown(&fs, below))];
    assert_eq!(all[2].1, (0o761, Some(value(6).into()), Some(value(6).into())), "the umask has no say");
    kill(fs);
    let fs = open(dir.path(), AclSupport::Enforced, SAME);
    for (ino, before) in all {
        assert_eq!(shown(&fs, ino), before, "{ino}");
    }
    assert_eq!(fs.done_request(asked.id).unwrap().ino, Some(below), "it is not made twice");
    assert!(make(&fs, folder, "next", FileKind::Regular).ino > below, "no number is used again");
}

#[test]
fn what_a_default_acl_gives_to_each_kind() {
    let dir = instance();
    let fs = open(dir.path(), AclSupport::Enforced, Opening::Fresh);
    let folder = make(&fs, Ino::ROOT, "folder", FileKind::Directory).ino;
    fs.set_acl(folder, AclKind::Default, &value(6), Sgid::Keep).unwrap();
    let link = make(&fs, folder, "link", FileKind::Symlink);
    assert_eq!(shown(&fs, link.ino), (0o750, None, None), "a link has no ACL");
    for kind in [FileKind::Regular, FileKind::Fifo, FileKind::CharDevice, FileKind::Socket] {
        let made = make(&fs, folder, &format!("{kind:?}"), kind);
        // rwx, mask rw, nothing but x for others, and x was not asked for.
        assert_eq!((made.mode, fs.list_xattrs(made.ino).unwrap()), (0o760, vec![ACCESS.to_vec()]), "{kind:?}");
    }
    // A default ACL that a mode can say leaves a mode.
    let plain: Vec<u8> = [(1_u16, 6_u16), (4, 4), (32, 0)].iter().fold(2_u32.to_le_bytes().to_vec(), |all, entry| {
        [all, entry.0.to_le_bytes().into(), entry.1.to_le_bytes().into(), NO_ID.to_le_bytes().into()].concat()
    });
    fs.set_acl(folder, AclKind::Default, &plain, Sgid::Keep).unwrap();
    assert_eq!(shown(&fs, make(&fs, folder, "file", FileKind::Regular).ino), (0o640, None, None));
    let below = make(&fs, folder, "below", FileKind::Directory).ino;
    assert_eq!(shown(&fs, below), (0o640, None, Some(plain.clone().into())));
    // Nor is it kept as an access ACL, and it ends the one before.
    fs.set_acl(below, AclKind::Access, &value(7), Sgid::Keep).unwrap();
    fs.set_acl(below, AclKind::Access, &plain, Sgid::Keep).unwrap();
    assert_eq!(shown(&fs, below), (0o640, None, Some(plain.into())));
    // No entries: no ACL, and none is missed.
    for _ in 0..2 {
        fs.set_acl(below, AclKind::Default, &2_u32.to_le_bytes(), Sgid::Keep).unwrap();
        assert_eq!(shown(&fs, below), (0o640, None, None));
    }
}

#[test]
fn sgid_goes_when_it_must() {
    let dir = instance();
    let fs = open(dir.path(), AclSupport::Enforced, Opening::Fresh);
    let change = AttributeChange { mode: Some(0o6_755), ..AttributeChange::default() };
    for kind in [FileKind::Regular, FileKind::Directory] {
        let ino = make(&fs, Ino::ROOT, &format!("{kind:?}"), kind).ino;
        fs.set_attributes(ino, &change, Privileges::Keep).unwrap();
        fs.set_acl(ino, AclKind::Access, &value(6), Sgid::Keep).unwrap();
        assert_eq!(fs.attributes(ino).unwrap().mode, 0o6_761);
        fs.set_acl(ino, AclKind::Access, &value(6), Sgid::Drop).unwrap();
        assert_eq!(fs.attributes(ino).unwrap().mode, 0o4_761);
    }
}

#[test]
fn what_is_refused() {
    let dir = instance();
    let fs = open(dir.path(), AclSupport::Enforced, Opening::Fresh);
    let file = make(&fs, Ino::ROOT, "file", FileKind::Regular).ino;
    let link = make(&fs, Ino::ROOT, "link", FileKind::Symlink).ino;
    let refused = |ino, kind, value: &[u8]| fs.set_acl(ino, kind, value, Sgid::Keep).unwrap_err().errno();
    assert_eq!(refused(file, AclKind::Access, b"nonsense"), libc::EINVAL);
    assert_eq!(refused(file, AclKind::Default, &value(6)), libc::EACCES);
    assert_eq!(refused(link, AclKind::Access, &value(6)), libc::EOPNOTSUPP);
    assert_eq!(refused(Ino(99), AclKind::Access, &value(6)), libc::ESTALE);
    let unsupported = |done: FsResult<()>| assert_eq!(done.unwrap_err().errno(), libc::EOPNOTSUPP);
    unsupported(fs.set_xattr(file, ACCESS, &value(6), XattrMode::Set));
    unsupported(fs.set_xattr(file, b"system.other", b"x", XattrMode::Set));
    unsupported(fs.get_xattr(file, b"system.other").map(drop));
    assert_eq!(records(&fs, || fs.remove_xattr(file, ACCESS).unwrap()), 0, "nothing to remove, nothing refused");
    assert_eq!(fs.get_xattr(file, ACCESS).unwrap_err().errno(), libc::ENODATA);
    kill(fs);
    let fs = open(dir.path(), AclSupport::Absent, Opening::Fresh);
    for kind in [AclKind::Access, AclKind::Default] {
        unsupported(fs.set_acl(Ino::ROOT, kind, &value(6), Sgid::Keep));
        unsupported(fs.get_xattr(Ino::ROOT, kind.name()).map(drop));
        unsupported(fs.remove_xattr(Ino::ROOT, kind.name()));
    }
}
