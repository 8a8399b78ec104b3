//! Programs at work on a mount whose daemon is killed again and again. None may see an error.

use anyhow::{Context, Result, ensure};
use cbfs_tests::process::run_ok;
use cbfs_tests::scenario::write_durable;
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, XattrFlags};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A program waits as long as a daemon needs to come back; longer than this is a hang.
const LIMIT: Duration = Duration::from_secs(120);

/// Works in `dir` until `stop`; answers how often it has done its whole work.
pub(crate) type Worker = fn(&Path, &AtomicBool) -> Result<usize>;

pub(crate) const WORKERS: [(&str, Worker); 7] = [
    ("git", git),
    ("tar", tar),
    ("fsync", fsync),
    ("rm", remove_tree),
    ("ls", list),
    ("unlinked", unlinked),
    ("names", names),
];

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("not UTF-8")
}

fn rounds(stop: &AtomicBool) -> impl Iterator<Item = usize> + '_ {
    (0..).take_while(|round| *round == 0 || !stop.load(Ordering::Acquire))
}

fn git(dir: &Path, stop: &AtomicBool) -> Result<usize> {
    let at = text(dir)?;
    let git = |args: &[&str]| {
        let identity = ["-C", at, "-c", "user.name=t", "-c", "user.email=t@t", "-c", "gc.auto=0"];
        run_ok("git", &[&identity, args].concat(), LIMIT)
    };
    git(&["init", "-q"])?;
    let mut commits = 0;
    for round in rounds(stop) {
        for file in 0..5 {
            fs::write(dir.join(format!("file{file}")), format!("round {round} ").repeat(1 + 300 * file))?;
        }
        fs::write(dir.join(format!("new{round}")), format!("{round}"))?;
        git(&["add", "-A"])?;
        git(&["commit", "-q", "-m", &format!("round {round}")])?;
        commits += 1;
        let status = git(&["status", "--porcelain"])?;
        ensure!(status.stdout.is_empty(), "after a commit: {status}");
    }
    git(&["fsck", "--strict", "--no-dangling"])?;
    let count = git(&["rev-list", "--count", "HEAD"])?.stdout;
    ensure!(count.trim() == commits.to_string(), "{commits} commits were made, {count} are there");
    Ok(commits)
}

fn tar(dir: &Path, stop: &AtomicBool) -> Result<usize> {
    let host = tempfile::tempdir()?;
    let source = host.path().join("source");
    for folder in 0..10 {
        let folder = source.join(format!("folder {folder}"));
        fs::create_dir_all(&folder)?;
        for file in 0..20_usize {
            let content: Vec<u8> = (0..file * 997).map(|at| (at * 31 + file) as u8).collect();
            fs::write(folder.join(format!("file {file}")), content)?;
        }
        std::os::unix::fs::symlink("file 3", folder.join("link"))?;
        fs::hard_link(folder.join("file 4"), folder.join("hard"))?;
    }
    let mut done = 0;
    for round in rounds(stop) {
        let (archive, out) = (dir.join(format!("{round}.tar")), dir.join(format!("out {round}")));
        fs::create_dir(&out)?;
        run_ok("tar", &["-cf", text(&archive)?, "-C", text(host.path())?, "source"], LIMIT)?;
        run_ok("tar", &["-xf", text(&archive)?, "-C", text(&out)?], LIMIT)?;
        run_ok("diff", &["-r", "--no-dereference", text(&source)?, text(&out.join("source"))?], LIMIT)?;
        fs::remove_dir_all(&out)?;
        fs::remove_file(&archive)?;
        done += 1;
    }
    ensure!(fs::read_dir(dir)?.next().is_none(), "something is left of what was removed");
    Ok(done)
}

fn fsync(dir: &Path, stop: &AtomicBool) -> Result<usize> {
    let content = |round: usize| format!("{round} ").repeat(1 + round * 53 % 4000).into_bytes();
    let mut done = 0;
    for round in rounds(stop) {
        write_durable(&dir.join(format!("f{round}")), &content(round))?;
        let earlier = round * 7 / 11;
        ensure!(fs::read(dir.join(format!("f{earlier}")))? == content(earlier), "f{earlier} has other bytes");
        done = round + 1;
    }
    for round in 0..done {
        ensure!(fs::read(dir.join(format!("f{round}")))? == content(round), "f{round} has other bytes at the end");
    }
    Ok(done)
}

fn fill(dir: &Path, files: usize) -> Result<()> {
    fs::create_dir(dir)?;
    for file in 0..files {
        // Long names: more replies for a listing, and more chances for a kill in between.
        File::create(dir.join(format!("{file:05}{}", "x".repeat(200))))?;
    }
    Ok(())
}

fn remove_tree(dir: &Path, stop: &AtomicBool) -> Result<usize> {
    let mut done = 0;
    for round in rounds(stop) {
        let tree = dir.join(format!("tree {round}"));
        fill(&tree, 1500)?;
        run_ok("rm", &["-r", text(&tree)?], LIMIT)?;
        ensure!(!fs::exists(&tree)?, "rm has left {}", tree.display());
        done += 1;
    }
    Ok(done)
}

/// Every file of a listing that takes a while, exactly once.
fn list(dir: &Path, stop: &AtomicBool) -> Result<usize> {
    const FILES: usize = 3000;
    let large = dir.join("large");
    fill(&large, FILES)?;
    let mut done = 0;
    for round in rounds(stop) {
        let mut seen = BTreeSet::new();
        for (at, entry) in fs::read_dir(&large)?.enumerate() {
            let name = entry?.file_name();
            ensure!(seen.insert(name.clone()), "{} is listed twice", name.display());
            if at % 100 == 0 {
                std::thread::sleep(Duration::from_millis(20));
                let extra = large.join(format!("extra {round} {at}"));
                File::create(&extra)?;
                fs::remove_file(&extra)?;
            }
        }
        let stable = seen.iter().filter(|name| !name.to_string_lossy().starts_with("extra")).count();
        ensure!(stable == FILES, "{stable} of {FILES} files are listed");
        done += 1;
    }
    Ok(done)
}

/// A file without a name goes on as long as it is open.
fn unlinked(dir: &Path, stop: &AtomicBool) -> Result<usize> {
    let path = dir.join("temporary");
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    let mut written = Vec::<u8>::new();
    for round in rounds(stop) {
        let piece = format!("piece {round} ").repeat(100).into_bytes();
        file.write_all_at(&piece, written.len() as u64)?;
        written.extend(piece);
        if written.len() > 1 << 20 {
            file.set_len(0)?;
            written.clear();
        }
        let mut found = vec![0; written.len()];
        file.read_exact_at(&mut found, 0)?;
        ensure!(found == written, "the file without a name has other bytes");
        ensure!(file.metadata()?.len() == written.len() as u64, "it has another length");
        std::thread::sleep(Duration::from_millis(2));
        if round % 50 == 0 {
            file.sync_all()?;
        }
    }
    Ok(written.len())
}

/// Operations that fail if they are done twice.
fn names(dir: &Path, stop: &AtomicBool) -> Result<usize> {
    let at = |name: &str| dir.join(name);
    let mut done = 0;
    for _ in rounds(stop) {
        fs::create_dir(at("d"))?;
        File::create_new(at("f"))?;
        fs::hard_link(at("f"), at("hard"))?;
        std::os::unix::fs::symlink("f", at("soft"))?;
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0)?;
        rustix::fs::setxattr(at("f"), "user.a", b"1", XattrFlags::CREATE)?;
        rustix::fs::removexattr(at("f"), "user.a")?;
        fs::rename(at("f"), at("g"))?;
        fs::write(at("f"), "second")?;
        rustix::fs::renameat_with(CWD, at("f"), CWD, at("g"), RenameFlags::EXCHANGE)?;
        ensure!(fs::read(at("g"))? == b"second", "exchanged twice");
        rustix::fs::renameat_with(CWD, at("soft"), CWD, at("softer"), RenameFlags::NOREPLACE)?;
        ensure!(rustix::fs::statat(CWD, at("f"), AtFlags::empty())?.st_nlink == 2, "not two links");
        for name in ["f", "g", "hard", "softer", "fifo"] {
            fs::remove_file(at(name)).with_context(|| name.to_owned())?;
        }
        fs::remove_dir(at("d"))?;
        done += 1;
    }
    ensure!(fs::read_dir(dir)?.next().is_none(), "names are left");
    Ok(done)
}
