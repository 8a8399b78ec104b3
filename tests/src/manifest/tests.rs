use super::*;
use crate::nasty;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A small tree with one of each that the tests change.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/file"), "content").unwrap();
    fs::write(dir.path().join("other"), "content").unwrap();
    fs::hard_link(dir.path().join("other"), dir.path().join("linked")).unwrap();
    symlink("other", dir.path().join("soft")).unwrap();
    let sparse = File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(b"island", 4 << 20).unwrap();
    for name in ["sub/file", "other", "sub", "sparse"] {
        set_time(&dir.path().join(name), 1_000_000_000);
    }
    set_time(dir.path(), 1_000_000_000);
    dir
}

fn set_time(path: &Path, nanoseconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// The words of all differences after `change`, in exact comparison.
fn after(change: impl Fn(&Path)) -> String {
    let dir = tree();
    let before = Manifest::scan(dir.path()).unwrap();
    change(dir.path());
    let now = Manifest::scan(dir.path()).unwrap();
    let all: Vec<String> = before.differences(&now, Compare::Exact).iter().map(ToString::to_string).collect();
    all.join("\n")
}

#[test]
fn the_same_tree_is_equal() {
    assert_eq!(after(|_| {}), "");
}

#[test]
fn each_difference_is_seen() {
    let keep = 1_000_000_000;
    let same_size = after(|dir| {
        fs::write(dir.join("sub/file"), "CONTENT").unwrap();
        set_time(&dir.join("sub/file"), keep);
    });
    assert_eq!(same_size, "sub/file: other content");
    assert!(after(|dir| set_time(&dir.join("sub/file"), keep + 1)).contains("mtime 1+1ns instead of 1+0ns"));
    let mode = after(|dir| fs::set_permissions(dir.join("sub/file"), fs::Permissions::from_mode(0o4755)).unwrap());
    assert!(mode.starts_with("sub/file: mode 4755 instead of"), "{mode}");
    let longer = after(|dir| fs::write(dir.join("sub/file"), "content\0").unwrap());
    assert!(longer.contains("size 8 instead of 7") && !longer.contains("content"), "{longer}");
    let gone = after(|dir| fs::remove_file(dir.join("sub/file")).unwrap());
    assert!(gone.contains("sub/file: missing") && gone.contains("sub: mtime"), "{gone}");
    assert!(after(|dir| fs::write(dir.join("new"), "").unwrap()).contains("new: not expected"));
    let attribute = after(|dir| xattr::set(dir.join("sub/file"), "user.a", b"b").unwrap());
    assert_eq!(attribute, "sub/file: xattrs [user.a=b(1 bytes)] instead of []");
}

#[test]
fn links_and_holes_are_seen() {
    let unlinked = after(|dir| {
        fs::remove_file(dir.join("linked")).unwrap();
        fs::write(dir.join("linked"), "content").unwrap();
        set_time(&dir.join("linked"), 1_000_000_000);
        set_time(dir, 1_000_000_000);
    });
    assert_eq!(unlinked, "linked: linked with nothing instead of linked\nother: linked with nothing instead of linked");
    let filled = after(|dir| {
        File::options().write(true).open(dir.join("sparse")).unwrap().write_all_at(&vec![0; 65536], 0).unwrap();
        set_time(&dir.join("sparse"), 1_000_000_000);
    });
    assert!(filled.starts_with("sparse: data at") && filled.lines().count() == 1, "{filled}");
    let target = after(|dir| {
        fs::remove_file(dir.join("soft")).unwrap();
        symlink("sub", dir.join("soft")).unwrap();
        set_time(dir, 1_000_000_000);
    });
    assert!(target.contains("soft: a link to \"sub\" instead of a link to \"other\""), "{target}");
}

#[test]
fn the_nasty_set_survives_plain_tar_but_for_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(&from).unwrap();
    fs::create_dir_all(&to).unwrap();
    nasty::build(&from).unwrap();
    nasty::check_refusals(&from).unwrap();
    let (from_text, to_text) = (from.to_str().unwrap(), to.to_str().unwrap());
    let script = "tar -C \"$0\" --format=pax --sparse --numeric-owner --xattrs --xattrs-include='*' -cf - . \
                  | tar -C \"$1\" --numeric-owner --xattrs --xattrs-include='*' -xpf -";
    crate::process::run_ok("sh", &["-c", script, from_text, to_text], Duration::from_secs(120)).unwrap();
    let expected = Manifest::scan(&from).unwrap();
    let found = Manifest::scan(&to).unwrap();
    let all = expected.differences(&found, Compare::AnyHoles);
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["special/socket: missing"]);
    let island = nasty::island(1);
    assert!(island.iter().all(|byte| *byte != 0));
}
