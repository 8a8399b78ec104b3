//! What most end-to-end tests start from: a bucket, a filesystem in it, and waiting for snapshots.

use crate::bucket::{Bucket, StoreKind};
use crate::node::{Mounted, Node};
use crate::process::{Outcome, run_ok, wait_until};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a small snapshot may take, with restarts and retries.
pub const SNAPSHOT_LIMIT: Duration = Duration::from_secs(120);

/// A filesystem in a bucket of the test's own.
#[derive(Debug)]
pub struct Scenario {
    /// The bucket.
    pub bucket: Bucket,
    /// `STORE#TAG`
    pub address: String,
}

impl Scenario {
    /// Creates the filesystem `tag` with `cbfs create`.
    pub fn new(kind: StoreKind, tag: &str) -> Result<Self> {
        Self::created(kind, tag, &[])
    }

    /// The same with `options` for `cbfs create`.
    pub fn created(kind: StoreKind, tag: &str, options: &[&str]) -> Result<Self> {
        let bucket = Bucket::new(kind)?;
        let address = format!("{}#{tag}", bucket.url());
        // The probe of a live store races for a while; only a dead one must be named within 10 s.
        let args: Vec<&str> = ["create", &address].into_iter().chain(options.iter().copied()).collect();
        Node::new(&bucket)?.cbfs_long(&args)?.success()?;
        Ok(Self { bucket, address })
    }

    /// A new node that can reach the bucket.
    pub fn node(&self) -> Result<Node> {
        Node::new(&self.bucket)
    }

    /// `STORE#TAG@SNAPSHOT`
    pub fn at(&self, snapshot: &str) -> String {
        format!("{}@{snapshot}", self.address)
    }

    /// Takes a snapshot and waits until it is complete.
    pub fn snapshot(&self, node: &Node, name: &str) -> Result<Snapshot> {
        let args = ["snapshot", "create", &self.address, "--name", name, "--wait", "--json"];
        Snapshot::from(&node.cbfs_long(&args)?.success()?)
    }

    /// Asks for a snapshot and does not wait.
    pub fn request_snapshot(&self, node: &Node, name: &str) -> Result<Snapshot> {
        Snapshot::from(&node.cbfs(&["snapshot", "create", &self.address, "--name", name, "--json"])?.success()?)
    }

    /// Where a snapshot stands.
    pub fn snapshot_status(&self, node: &Node, name: &str) -> Result<Snapshot> {
        Snapshot::from(&node.cbfs(&["snapshot", "status", &self.address, name, "--json"])?.success()?)
    }

    /// Polls until a snapshot is complete; one that failed is an error.
    pub fn wait_complete(&self, node: &Node, name: &str) -> Result<Snapshot> {
        let mut last = None;
        wait_until("the snapshot is complete", SNAPSHOT_LIMIT, || {
            let now = self.snapshot_status(node, name)?;
            ensure!(now.state != "failed", "the snapshot failed: {now:?}");
            let done = now.state == "complete";
            last = Some(now);
            Ok(done)
        })
        .with_context(|| format!("last seen: {last:?}"))?;
        last.context("never asked")
    }

    /// Polls until `node`'s status has `value` in its field `key`.
    pub fn wait_status(&self, node: &Node, key: &str, value: &str) -> Result<()> {
        let mut last = None;
        wait_until(&format!("{key} is {value}"), Duration::from_secs(30), || {
            let outcome = node.cbfs(&["status", &self.address, "--json"])?;
            let now = outcome.text(key).ok();
            let done = now.as_deref() == Some(value);
            last = Some(outcome);
            Ok(done)
        })
        .with_context(|| last.map_or_else(String::new, |outcome| outcome.to_string()))
    }
}

/// What the tests read of a snapshot's status.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its state, lowercase.
    pub state: String,
    /// Bytes uploaded for it.
    pub uploaded: u64,
}

impl Snapshot {
    fn from(outcome: &Outcome) -> Result<Self> {
        Ok(Self { id: outcome.text("id")?, state: outcome.text("state")?, uploaded: outcome.number("uploaded")? })
    }
}

/// Writes a file and makes it durable, its directory too: what must never be lost again.
pub fn write_durable(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    file.write_all(content)?;
    file.sync_all().context("fsync")?;
    let parent = path.parent().context("no parent")?;
    File::open(parent)?.sync_all().context("fsync of the directory")
}

/// That a tree refuses every kind of change with EROFS.
pub fn check_read_only(dir: &Path) -> Result<()> {
    let some = first_file(dir)?;
    let beside = dir.join("new");
    let stamp = Timespec { tv_sec: 1, tv_nsec: 1 };
    let now = Timestamps { last_access: stamp, last_modification: stamp };
    let attempts: [(&str, std::io::Result<()>); 9] = [
        ("create", File::create(&beside).map(drop)),
        // A master answers no OPEN: deposed, it refuses the write itself.
        ("write", File::options().write(true).open(&some).and_then(|mut file| file.write_all(b"x"))),
        ("utimes", utimensat(CWD, &some, &now, AtFlags::empty()).map_err(Into::into)),
        ("mkdir", fs::create_dir(&beside)),
        ("unlink", fs::remove_file(&some)),
        ("rename", fs::rename(&some, &beside)),
        ("link", fs::hard_link(&some, &beside)),
        ("chmod", fs::set_permissions(&some, fs::metadata(&some)?.permissions())),
        ("setxattr", xattr::set(&some, "user.new", b"x")),
    ];
    for (what, outcome) in attempts {
        let code = outcome.as_ref().err().and_then(std::io::Error::raw_os_error);
        ensure!(code == Some(Errno::ROFS.raw_os_error()), "{what} on {}: {outcome:?}, not EROFS", some.display());
    }
    Ok(())
}

fn first_file(dir: &Path) -> Result<PathBuf> {
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            return Ok(entry.into_path());
        }
    }
    bail!("no file below {}", dir.display())
}

/// Bytes that do not compress, others for each seed.
pub fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Unpacks `tar` with plain tar below `dir`, as root does: owners, modes and times as they are.
pub fn unpack(tar: &Path, dir: &Path) -> Result<()> {
    let (tar, dir) = (tar.to_str().context("not UTF-8")?, dir.to_str().context("not UTF-8")?);
    run_ok("tar", &["--numeric-owner", "-xpf", tar, "-C", dir], Duration::from_secs(600))?;
    Ok(())
}

/// What stays on the mount's side of a test: keeps a node and its mount together, dropped in the right order.
#[derive(Debug)]
pub struct Mount {
    /// The mount; dropped first.
    pub mounted: Mounted,
    /// Its node.
    pub node: Node,
}

impl Mount {
    /// Mounts `address` on a new node.
    pub fn new(bucket: &Bucket, address: &str, options: &[&str]) -> Result<Self> {
        let node = Node::new(bucket)?;
        let mounted = node.mount(address, "mnt", options)?;
        Ok(Self { mounted, node })
    }

    /// The same mount by new processes, after `kill -9` of the old ones.
    pub fn killed(self, scenario: &Scenario) -> Result<Self> {
        let Self { mounted, node } = self;
        mounted.kill()?;
        let mounted = node.mount(&scenario.address, "mnt", &[])?;
        Ok(Self { mounted, node })
    }

    /// The end of both.
    pub fn unmount(self) -> Result<()> {
        self.mounted.unmount(&self.node)
    }
}

/// Runs each test function (of [`StoreKind`]) on a directory store and on a real S3 server.
#[macro_export]
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod on_a_directory {
            $(#[test] fn $name() -> anyhow::Result<()> { super::$name($crate::bucket::StoreKind::Directory) })*
        }
        mod on_s3 {
            $(#[test] fn $name() -> anyhow::Result<()> { super::$name($crate::bucket::StoreKind::S3) })*
        }
    };
}
