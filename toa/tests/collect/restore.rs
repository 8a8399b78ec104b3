//! The first snapshot comes back with tar, zstd and the script of the documentation.

use crate::world::{World, noise};
use kvfs::Ino;
use kvfs::schema::FileKind;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use toa::collect::Limits;

/// The commands of `docs/formats/pack.md`.
fn documented_script() -> &'static str {
    let text = include_str!("../../../docs/formats/pack.md");
    text.split("```sh\n").nth(1).unwrap().split("```").next().unwrap()
}

fn restore(packs: &Path, target: &Path) {
    let output = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", documented_script()])
        .env("PACKS", packs)
        .env("TARGET", target)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn path_of(world: &World, target: &Path, parent: Ino, name: &[u8]) -> PathBuf {
    let mut below = vec![name.to_vec()];
    let mut dir = parent;
    while dir != Ino::ROOT {
        let value = &world.nodes[&dir].value;
        below.push(value.name.to_vec());
        dir = value.parent;
    }
    below.iter().rev().fold(target.to_owned(), |path, name| path.join(OsStr::from_bytes(name)))
}

/// Compares every name; `split` files were put together by the script and have its mtime.
fn compare(world: &World, target: &Path, split: &[Ino]) {
    for ((parent, name), ino) in &world.names {
        let (path, node) = (path_of(world, target, *parent, name), &world.nodes[ino]);
        if node.value.kind == FileKind::Socket {
            assert!(!path.exists());
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        match node.value.kind {
            FileKind::Regular => {
                assert!(fs::read(&path).unwrap() == node.content, "{}", path.display());
                assert_eq!(meta.nlink(), u64::from(node.value.nlink), "{}", path.display());
            }
            FileKind::Symlink => assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), node.value.target),
            FileKind::Directory => assert!(meta.is_dir()),
            FileKind::Fifo => assert!(meta.file_type().is_fifo()),
            other => panic!("{other:?} is not in this tree"),
        }
        if node.value.kind != FileKind::Symlink {
            assert_eq!(meta.mode() & 0o7777, node.value.mode, "{}", path.display());
        }
        if !split.contains(ino) {
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (node.value.mtime.secs, i64::from(node.value.mtime.nanos)));
        }
        for (attr, value) in &node.xattrs {
            let mut buffer = [0; 100];
            let len = rustix::fs::getxattr(&path, OsStr::from_bytes(attr), &mut buffer[..]).unwrap();
            assert_eq!(&buffer[..len], value);
        }
    }
}

fn tree() -> (World, Ino) {
    let mut world = World::new();
    let dir = world.make(FileKind::Directory, Ino::ROOT, b"dir");
    let deep = world.make(FileKind::Directory, dir, &b"d".repeat(200));
    for count in 0..50u64 {
        world.file(deep, format!("small-{count}").as_bytes(), &noise(count, 100 * count as usize));
    }
    let linked = world.file(dir, b"a", b"content");
    world.link(linked, deep, b"b");
    world.link(linked, Ino::ROOT, b"c");
    let renamed = world.file(dir, b"kept", &noise(7, 5000));
    world.link(renamed, dir, b"hint");
    world.unlink(dir, b"hint", crate::world::Held::No);
    world.set_xattr(renamed, b"user.attr", Some(b"value"));
    world.file(Ino::ROOT, b"gr\xc3\xbc\xc3\x9fe\n\xff", b"raw name");
    world.make(FileKind::Regular, Ino::ROOT, b"empty");
    let hole = world.make(FileKind::Regular, Ino::ROOT, b"hole");
    world.truncate(hole, 9_000_000);
    let sparse = world.make(FileKind::Regular, Ino::ROOT, b"sparse");
    world.write(sparse, 3_000_000, &noise(8, 1000));
    world.write(sparse, 100, b"inline");
    world.truncate(sparse, 5_000_000);
    world.symlink(dir, b"link", b"../dir/a");
    world.make(FileKind::Fifo, dir, b"pipe");
    world.make(FileKind::Socket, dir, b"socket");
    world.file(dir, b"middling", &noise(10, 1_500_000));
    let huge = world.file(deep, b"huge", &noise(9, 7_500_000));
    world.write(huge, 9_000_000, &noise(11, 5000));
    (world, huge)
}

#[test]
fn the_first_snapshot_is_restored_from_one_pack() {
    let (mut world, _) = tree();
    let collected = world.snapshot();
    assert_eq!(collected.packs.len(), 1);
    world.verify();
    let target = tempfile::tempdir().unwrap();
    restore(world.dir.path(), target.path());
    compare(&world, target.path(), &[]);
    assert!(!target.path().join(".cbfs").exists());
}

#[test]
fn a_huge_file_is_put_together_from_several_packs() {
    let (mut world, huge) = tree();
    world.limits = Limits { pack_bytes_target: 2 << 20, member_bytes_max: 2 << 20, ..Limits::default() };
    let collected = world.snapshot();
    assert!(collected.packs.len() > 4);
    world.verify();
    let target = tempfile::tempdir().unwrap();
    restore(world.dir.path(), target.path());
    compare(&world, target.path(), &[huge]);
}

#[test]
fn later_packs_bring_the_newest_bytes() {
    let (mut world, huge) = tree();
    world.snapshot();
    world.write(huge, 4_000_000, &noise(20, 70_000));
    world.write(huge, 12, &noise(21, 12));
    world.file(Ino::ROOT, b"new", b"new");
    world.snapshot();
    world.verify();
    let target = tempfile::tempdir().unwrap();
    restore(world.dir.path(), target.path());
    compare(&world, target.path(), &[huge]);
}
