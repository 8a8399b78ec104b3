//! The same on a filesystem of the kernel: ext4 on a loop device that is shut down without a flush of its journal, as a loss
//! of power leaves it. Not part of every run: it needs loop devices, which containers often lack.

use crate::instance::{Bases, Instance, small_options};
use crate::violation::broken;
use anyhow::{Context, Result, bail, ensure};
use kvfs::Ino;
use kvfs::fs::{Caller, FileSystem, NewNode};
use kvfs::op::Privileges;
use kvfs::schema::FileKind;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// `FS_IOC_SHUTDOWN` without a flush, from Python: an ioctl of our own would be unsafe code.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

struct Ext4 {
    dir: TempDir,
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Ext4 {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("cbfs-ext4-").tempdir()?;
        let image = dir.path().join("image");
        std::fs::File::create(&image)?.set_len(256 << 20)?;
        std::fs::create_dir(dir.path().join("mnt"))?;
        run("mkfs.ext4", &["-q", text(&image)?])?;
        let disk = Self { dir };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        run("mount", &["-o", "loop", text(&self.dir.path().join("image"))?, text(&self.dir.path().join("mnt"))?])
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("mnt/state")
    }

    fn lose_power(&self) -> Result<()> {
        run("python3", &["-c", SHUTDOWN, text(&self.dir.path().join("mnt"))?])
    }

    fn come_back(&self) -> Result<()> {
        run("umount", &[text(&self.dir.path().join("mnt"))?])?;
        self.mount()
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = rustix::mount::unmount(self.dir.path().join("mnt"), rustix::mount::UnmountFlags::DETACH);
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("not UTF-8")
}

/// Files one after the other, some fsynced; after the loss of power a prefix is there that has all those.
pub fn ext4_that_is_shut_down(rounds: u64) -> Result<()> {
    let (disk, bases) = (Ext4::new()?, Bases::default());
    let (mut all, mut lost): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    for round in 0..rounds {
        let mut rng = StdRng::seed_from_u64(round);
        let instance = Instance::open(&disk.state(), &bases, small_options(&mut rng))?;
        let mut certain = all.len();
        for _ in 0..rng.random_range(5..60) {
            let len = if rng.random_bool(0.8) { rng.random_range(1..9000) } else { rng.random_range(17_000..120_000) };
            let mut bytes = vec![0; len];
            rng.fill_bytes(&mut bytes);
            let node = NewNode { kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: b"" };
            let name = format!("{:08}", all.len());
            let made = instance.fs.make(Caller { uid: 0, gid: 0 }, Ino::ROOT, name.as_bytes(), &node)?;
            instance.fs.write(made.ino, 0, &bytes, Privileges::Keep)?;
            all.push(bytes);
            if rng.random_bool(0.3) {
                instance.fs.sync(made.ino)?;
                certain = all.len();
            }
            if rng.random_bool(0.1) {
                instance.engine.checkpoint()?;
            }
        }
        disk.lose_power()?;
        instance.kill();
        disk.come_back()?;
        let instance = Instance::open(&disk.state(), &bases, small_options(&mut rng))?;
        let there = check(&instance, &all).with_context(|| format!("round {round}"))?;
        if there < certain {
            bail!(broken(format!("round {round}: {there} files are whole, {certain} were fsynced")));
        }
        lost += all.len() - there;
        all.truncate(there);
        for name in instance.fs.read_dir(Ino::ROOT, None, usize::MAX)?.into_iter().skip(2 + there) {
            instance.fs.unlink(Ino::ROOT, &name.name)?;
        }
        instance.fs.sync(Ino::ROOT)?;
        instance.kill();
    }
    println!("{} files, {lost} more were lost in {rounds} rounds", all.len());
    ensure!(lost > 0, "vacuous: nothing was lost");
    Ok(())
}

/// How many files are whole; only the last one may be without its bytes.
fn check(instance: &Instance, all: &[Vec<u8>]) -> Result<usize> {
    let names = instance.fs.read_dir(Ino::ROOT, None, usize::MAX)?;
    let names: Vec<_> = names.into_iter().skip(2).collect();
    for (index, (entry, expected)) in names.iter().zip(all).enumerate() {
        let found = instance.fs.lookup(Ino::ROOT, &entry.name)?;
        let bytes = instance.fs.read(found.ino, 0, u32::MAX)?;
        if entry.name != format!("{index:08}").as_bytes() {
            bail!(broken(format!("file {index} is missing, a later one is there")));
        }
        if bytes != expected {
            if index + 1 == names.len() && bytes.is_empty() {
                return Ok(index);
            }
            bail!(broken(format!("file {index} has other bytes")));
        }
    }
    Ok(names.len())
}
