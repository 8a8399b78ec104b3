//! A node: a state directory of its own, the `cbfs` program with that environment, and its mounts.

use crate::bucket::Bucket;
use crate::paths::cbfs_binary;
use crate::process::{
    Outcome, children_of, is_alive, processes_with, run, signal, sleeping_threads, wait_child, wait_until,
};
use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No command may take longer than this to answer, whatever the bucket does.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Mounting, unmounting, recovery.
const MOUNT_LIMIT: Duration = Duration::from_secs(120);
/// No thread of a daemon sleeps for longer without being woken by what it waits for.
const LONGEST_NAP: Duration = Duration::from_millis(400);
/// Snapshots of large trees.
const LONG_LIMIT: Duration = Duration::from_secs(900);

/// A node. Dropping it unmounts and ends whatever runs on its state directory, also when a test panics.
#[derive(Debug)]
pub struct Node {
    home: TempDir,
    state: PathBuf,
    env: Vec<(String, String)>,
    program: Option<PathBuf>,
}

impl Node {
    /// A new node that can reach `bucket`.
    pub fn new(bucket: &Bucket) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("cbfs-node-").tempdir()?;
        let state = home.path().join("state");
        Self::with_state(home, state, bucket)
    }

    /// A new node whose state directory is given, for instance on a small disk.
    pub fn at(state: &Path, bucket: &Bucket) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("cbfs-node-").tempdir()?;
        Self::with_state(home, state.to_owned(), bucket)
    }

    fn with_state(home: TempDir, state: PathBuf, bucket: &Bucket) -> Result<Self> {
        fs::create_dir_all(&state)?;
        let mut env = bucket.client_env();
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
        env.push(("HOME".into(), text(home.path())?));
        env.push(("CBFS_STATE_DIR".into(), text(&state)?));
        // What this machine's own nodes are told is none of the tests' business.
        env.push(("CBFS_CONFIG_DIR".into(), text(&home.path().join("config"))?));
        // Masters look at the ledger often, so that tests do not wait.
        env.push(("CBFS_CHECK_INTERVAL".into(), "1s".into()));
        env.push(("CBFS_FETCH_TIMEOUT".into(), "10s".into()));
        env.push(("RUST_BACKTRACE".into(), "1".into()));
        Ok(Self { home, state, env, program: None })
    }

    /// Uses another program than the one under test from now on.
    pub fn set_program(&mut self, program: &Path) {
        self.program = Some(program.to_owned());
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Sets a variable for everything that this node starts from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Removes a variable.
    pub fn remove_env(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// `cbfs` with `args`, to its end; for commands that must answer at once.
    pub fn cbfs(&self, args: &[&str]) -> Result<Outcome> {
        run(&mut self.command(args)?, ANSWER_LIMIT)
    }

    /// `cbfs` with `args`, to its end; for commands that wait for long work.
    pub fn cbfs_long(&self, args: &[&str]) -> Result<Outcome> {
        run(&mut self.command(args)?, LONG_LIMIT)
    }

    /// `cbfs` with `args`, started and left running.
    pub fn spawn(&self, args: &[&str]) -> Result<Child> {
        Ok(self.command(args)?.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = match &self.program {
            Some(program) => Command::new(program),
            None => Command::new(cbfs_binary()?),
        };
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(self.home.path());
        Ok(command)
    }

    /// A new empty directory to mount on.
    pub fn mount_point(&self, name: &str) -> Result<PathBuf> {
        let path = self.home.path().join(name);
        // Asking whether it exists would ask a filesystem that may be mounted there, and broken.
        match fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
            _ => Ok(path),
        }
    }

    /// Mounts `address` on the directory `name` of this node, with the holder as a child of the test.
    pub fn mount(&self, address: &str, name: &str, options: &[&str]) -> Result<Mounted> {
        let dir = self.mount_point(name)?;
        ensure!(!is_mounted(&dir)?, "{} is mounted already", dir.display());
        let log = self.home.path().join(format!("{name}.log"));
        let text = dir.to_str().context("a path that is not UTF-8")?;
        let mut args = vec!["mount", "--foreground", address, text];
        args.extend(options);
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = self.command(&args)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("cannot start the daemon")?;
        let mut mounted = Mounted { dir, child, log };
        mounted.wait_ready()?;
        Ok(mounted)
    }

    /// `cbfs mount` as a person types it: it comes back when the mount serves, and leaves a daemon.
    pub fn mount_detached(&self, address: &str, name: &str, options: &[&str]) -> Result<Outcome> {
        let dir = self.mount_point(name)?;
        let mut args = vec!["mount", address, dir.to_str().context("a path that is not UTF-8")?];
        args.extend(options);
        run(&mut self.command(&args)?, MOUNT_LIMIT)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Clean-up goes on whatever fails: nobody is left to hear of it.
        for dir in mounts_below(self.home.path()).unwrap_or_default() {
            let _ = unmount(&dir, UnmountFlags::DETACH);
        }
        // A holder that goes after its daemon may have started another one.
        for _ in 0..20 {
            let left = processes_with(&self.state).unwrap_or_default();
            let alive: Vec<u32> = left.into_iter().filter(|pid| is_alive(*pid)).collect();
            if alive.is_empty() {
                break;
            }
            for pid in alive {
                let _ = signal(pid, Signal::KILL);
                let _ = wait_until("the process is gone", Duration::from_secs(5), || Ok(!is_alive(pid)));
            }
        }
    }
}

/// A mount whose holder is a child of the test. Dropping it kills holder and daemon, and unmounts.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Mounted {
    /// The mount point.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path on the mount.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    /// The daemon's process, now.
    pub fn pid(&self) -> Result<u32> {
        let children = children_of(self.child.id())?;
        children.into_iter().find(|pid| is_alive(*pid)).context("there is no daemon")
    }

    /// The holder's process.
    pub fn holder(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9` of the daemon alone; comes back when another one runs.
    pub fn kill_daemon(&self) -> Result<()> {
        let pid = self.pid()?;
        signal(pid, Signal::KILL)?;
        wait_until(
            "another daemon runs",
            MOUNT_LIMIT,
            || Ok(!is_alive(pid) && self.pid().is_ok_and(|next| next != pid)),
        )
    }

    /// Waits until the daemon stands at a failpoint with `sleep`: one of its threads sleeps for longer than any does by
    /// itself.
    pub fn stands_at_failpoint(&self) -> Result<()> {
        let pid = self.pid()?;
        let mut asleep: BTreeMap<(u32, String), Instant> = BTreeMap::new();
        wait_until("the daemon stands at the failpoint", MOUNT_LIMIT, || {
            let now = sleeping_threads(pid)?;
            asleep.retain(|thread, _| now.contains(thread));
            for thread in now {
                asleep.entry(thread).or_insert_with(Instant::now);
            }
            Ok(asleep.values().any(|since| since.elapsed() > LONGEST_NAP))
        })
    }

    /// Waits for the holder's end by itself: its exit code.
    pub fn wait_for_end(&mut self) -> Result<Option<i32>> {
        let status = wait_child(&mut self.child, MOUNT_LIMIT)?.context("the holder is still there")?;
        Ok(status.code())
    }

    /// Everything that the daemons on this mount point said.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Ends it as a person does, `cbfs unmount`, and waits for the daemon's clean end.
    pub fn unmount(mut self, node: &Node) -> Result<()> {
        let text = self.dir.to_str().context("a path that is not UTF-8")?.to_owned();
        run(&mut node.command(&["unmount", &text])?, MOUNT_LIMIT)?.success()?;
        let status = wait_child(&mut self.child, MOUNT_LIMIT)?.context("the daemon is still there after unmount")?;
        ensure!(status.success(), "the daemon ended with {status}:\n{}", self.log()?);
        ensure!(!is_mounted(&self.dir)?, "still mounted");
        Ok(())
    }

    /// `kill -9` of holder and daemon, as if the machine had stopped them, and the dead mount is taken away.
    pub fn kill(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            // Stopped, it starts no other daemon.
            signal(self.child.id(), Signal::STOP)?;
            let daemons = children_of(self.child.id())?;
            self.child.kill()?;
            self.child.wait()?;
            for pid in daemons {
                signal(pid, Signal::KILL)?;
                wait_until("the daemon is gone", Duration::from_secs(30), || Ok(!is_alive(pid)))?;
            }
        }
        if is_mounted(&self.dir)? {
            unmount(&self.dir, UnmountFlags::DETACH).context("cannot take the dead mount away")?;
        }
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let (dir, log) = (self.dir.clone(), self.log.clone());
        let words = || fs::read_to_string(&log).unwrap_or_default();
        wait_until("the mount serves", MOUNT_LIMIT, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended with {status}:\n{}", words());
            }
            // The first answer comes from the daemon, not from the directory below.
            Ok(is_mounted(&dir)? && fs::metadata(&dir).is_ok())
        })
        .with_context(words)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = self.end();
    }
}

/// Whether something is mounted on `dir`.
pub fn is_mounted(dir: &Path) -> Result<bool> {
    Ok(mounts_below(dir)?.iter().any(|mount| mount == dir))
}

/// All mount points at or below `dir`, the deepest first.
pub(crate) fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("no mount table")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut found: Vec<PathBuf> = points.map(PathBuf::from).filter(|point| point.starts_with(dir)).collect();
    found.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(found)
}
