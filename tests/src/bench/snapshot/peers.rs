//! Others who bring a tree into the same bucket server: tar with zstd, and restic.

use super::cost::Cost;
use crate::bench::processes::cpu_of_children;
use crate::bench::steps::program::{output_of, time_of};
use crate::bucket::Bucket;
use crate::s3::S3Server;
use anyhow::{Context, Result};
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Where they put it: in one bucket with the filesystems, since the server sets space aside for each bucket.
const TAR: &str = "peer-tar";
const RESTIC: &str = "peer-restic";
/// Tree, program that uploads, address, bucket, object: as parameters, so that nothing needs quoting. Whatever fails in
/// the middle fails the whole.
const WHOLE: &str =
    r#"set -o pipefail; tar -cf - -C "$1" . | zstd -3 -q -c | "$2" upload --server "$3" --bucket "$4" --key "$5""#;
/// The same of what changed since the list `$6` was made; the list is brought up to date.
const CHANGES: &str = r#"set -o pipefail; tar -g "$6" -cf - -C "$1" . | zstd -3 -q -c | "$2" upload --server "$3" --bucket "$4" --key "$5""#;

/// See the file's first line. All that they keep locally is in `home`.
pub(super) struct Peers {
    bucket: Arc<Bucket>,
    home: PathBuf,
    restic: Option<PathBuf>,
}

/// The program: `CBFS_RESTIC`, or the one that the shell would find. `None` if there is none.
fn restic_binary() -> Option<PathBuf> {
    if let Some(path) = env::var_os("CBFS_RESTIC") {
        return Some(path.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join("restic")).find(|program| program.is_file())
}

impl Peers {
    /// In folders of their own in `bucket`.
    pub fn new(bucket: &Arc<Bucket>, home: &Path) -> Result<Self> {
        fs::create_dir_all(home)?;
        Ok(Self { bucket: Arc::clone(bucket), home: home.to_owned(), restic: restic_binary() })
    }

    fn address(&self) -> Result<SocketAddr> {
        Ok(self.bucket.server().context("no S3 server")?.address())
    }

    /// What restic says that it is; `None` if it is not there.
    pub fn restic_version(&self) -> Result<Option<String>> {
        let Some(program) = &self.restic else { return Ok(None) };
        let (_, text) = output_of(Command::new(program).arg("version"))?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }

    /// Runs `command`, which brings something into `folder`.
    fn cost(&self, command: &mut Command, folder: &str) -> Result<Cost> {
        let (stored, cpu) = (self.bucket.bytes_with(folder)?, cpu_of_children()?);
        let took = time_of(command)?;
        let cpu_seconds = cpu_of_children()?.saturating_sub(cpu).as_secs_f64();
        let bytes = self.bucket.bytes_with(folder)?.saturating_sub(stored);
        Ok(Cost { seconds: took.as_secs_f64(), cpu_seconds, bytes })
    }

    fn pipe(&self, script: &str, tree: &Path, object: &str) -> Result<Command> {
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).arg(tree).arg(env::current_exe()?);
        command.args([&self.address()?.to_string(), self.bucket.name(), &format!("{TAR}/{object}")]);
        Ok(command)
    }

    /// `tar | zstd -3 | upload` of the whole tree.
    pub fn tar(&self, tree: &Path, object: &str) -> Result<Cost> {
        self.cost(&mut self.pipe(WHOLE, tree, object)?, TAR)
    }

    /// The list of files that `tar -g` compares with.
    fn list(&self) -> PathBuf {
        self.home.join("tar.list")
    }

    /// Makes that list anew; tar reads no file for it.
    pub fn list_tree(&self, tree: &Path) -> Result<()> {
        if self.list().exists() {
            fs::remove_file(self.list())?;
        }
        time_of(Command::new("tar").arg("-g").arg(self.list()).args(["-cf", "/dev/null", "-C"]).arg(tree).arg("."))?;
        Ok(())
    }

    /// `tar -g | zstd -3 | upload` of what changed since the last time.
    pub fn tar_changes(&self, tree: &Path, object: &str) -> Result<Cost> {
        let mut command = self.pipe(CHANGES, tree, object)?;
        self.cost(command.arg(self.list()), TAR)
    }

    fn restic_command(&self, repository: &str) -> Result<Option<Command>> {
        let Some(program) = &self.restic else { return Ok(None) };
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &self.home).envs(S3Server::client_env());
        let folder = format!("{}/{RESTIC}/{repository}", self.bucket.name());
        command.env("RESTIC_REPOSITORY", format!("s3:http://{}/{folder}", self.address()?));
        command.env("RESTIC_PASSWORD", "bench").env("RESTIC_CACHE_DIR", self.home.join("cache"));
        command.arg("--quiet");
        Ok(Some(command))
    }

    /// Makes a repository of restic.
    pub fn restic_init(&self, repository: &str) -> Result<()> {
        let Some(mut command) = self.restic_command(repository)? else { return Ok(()) };
        time_of(command.arg("init"))?;
        Ok(())
    }

    /// `restic backup` of the tree; `None` if there is no restic.
    pub fn restic(&self, tree: &Path, repository: &str) -> Result<Option<Cost>> {
        let Some(mut command) = self.restic_command(repository)? else { return Ok(None) };
        self.cost(command.args(["backup", "."]).current_dir(tree), RESTIC).map(Some)
    }
}
