//! What is measured.

mod cbfs;
mod juicefs;
mod null;

pub use cbfs::{Filesystem, Held};
pub use juicefs::{Upload, juicefs_binary};
pub use null::serve_null;

use super::fill::{Fill, fill};
use super::limits::{BASE, CBFS, HOST, JUICEFS, JUICEFS_WRITEBACK, NULL};
use crate::process::run_ok;
use crate::s3::S3Server;
use anyhow::{Context, Result, bail};
use juicefs::JuiceFs;
use null::NullMount;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// A directory that is measured, with how its caches are dropped.
#[derive(Debug)]
pub struct Target {
    id: &'static str,
    dir: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Host,
    Null(NullMount),
    Cbfs(Box<Filesystem>),
    JuiceFs(Box<JuiceFs>),
}

/// Makes targets, all of them on one disk.
#[derive(Debug)]
pub struct Maker {
    below: PathBuf,
    base_files: usize,
    server: Option<Rc<S3Server>>,
}

impl Maker {
    /// On the filesystem of `below`; the base of the target `base` has `base_files` files.
    pub fn new(below: &Path, base_files: usize) -> Self {
        Self { below: below.to_owned(), base_files, server: None }
    }

    /// Makes the target `id`.
    pub fn make(&mut self, id: &str) -> Result<Target> {
        let dir = self.below.join(id);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let juicefs = |maker: &mut Self, id, upload| {
            let server = maker.server()?;
            let juicefs = JuiceFs::new(&dir, &server, upload)?;
            Ok(Target { id, dir: juicefs.dir().to_owned(), kind: Kind::JuiceFs(Box::new(juicefs)) })
        };
        match id {
            HOST => Ok(Target { id: HOST, dir, kind: Kind::Host }),
            NULL => Ok(Target { id: NULL, kind: Kind::Null(NullMount::at(&dir)?), dir }),
            CBFS => Ok(Target::cbfs(CBFS, Filesystem::new(&dir)?)),
            BASE => Ok(Target::cbfs(BASE, self.with_base(&dir)?)),
            JUICEFS => juicefs(self, JUICEFS, Upload::AtClose),
            JUICEFS_WRITEBACK => juicefs(self, JUICEFS_WRITEBACK, Upload::Later),
            _ => bail!("no target {id:?}"),
        }
    }

    fn with_base(&self, dir: &Path) -> Result<Filesystem> {
        let mut filesystem = Filesystem::new(dir)?;
        fill(&filesystem.dir().join("base"), &Fill { from: 0, to: self.base_files, bytes: 16 })?;
        filesystem.publish("base")?;
        filesystem.remount()?;
        Ok(filesystem)
    }

    fn server(&mut self) -> Result<Rc<S3Server>> {
        if self.server.is_none() {
            self.server = Some(Rc::new(S3Server::start()?));
        }
        self.server.clone().context("no S3 server")
    }
}

impl Target {
    fn cbfs(id: &'static str, filesystem: Filesystem) -> Self {
        Self { id, dir: filesystem.dir().to_owned(), kind: Kind::Cbfs(Box::new(filesystem)) }
    }

    /// Its id.
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// The product behind it, if it is that.
    pub fn filesystem(&self) -> Option<&Filesystem> {
        match &self.kind {
            Kind::Cbfs(filesystem) => Some(filesystem),
            _ => None,
        }
    }

    /// The directory of some steps of a round.
    pub fn place(&self, group: &str, round: usize) -> Result<PathBuf> {
        let place = self.dir.join(format!("{group}-{round}"));
        fs::create_dir_all(&place)?;
        Ok(place)
    }

    /// Removes what steps left.
    pub fn clear(&self, place: &Path) -> Result<()> {
        fs::remove_dir_all(place).context("cannot clear")
    }

    /// Processor time of its daemon so far, if it has one.
    pub fn cpu(&self) -> Result<Option<Duration>> {
        let processes = match &self.kind {
            Kind::Host => return Ok(None),
            Kind::Null(null) => null.processes(),
            Kind::Cbfs(filesystem) => filesystem.processes(),
            Kind::JuiceFs(juicefs) => juicefs.processes(),
        };
        processes.cpu().map(Some)
    }

    /// Waits until its work in the background is done, which would otherwise slow down others; not for ever.
    pub fn settle(&self, limit: Duration) -> Result<()> {
        match &self.kind {
            Kind::Host => {
                let dir = File::open(&self.dir)?;
                rustix::fs::syncfs(&dir).context("cannot sync")
            }
            Kind::Null(_) => Ok(()),
            Kind::Cbfs(filesystem) => filesystem.settle(limit),
            Kind::JuiceFs(juicefs) => juicefs.settle(limit),
        }
    }

    /// Makes everything durable and drops caches: the kernel's, and those of the daemon by starting it anew.
    pub fn forget_caches(&mut self) -> Result<()> {
        run_ok("sync", &[], Duration::from_secs(300))?;
        match &mut self.kind {
            Kind::Host | Kind::Null(_) => {}
            Kind::Cbfs(filesystem) => filesystem.remount()?,
            Kind::JuiceFs(juicefs) => juicefs.remount()?,
        }
        fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches needs root")
    }

    /// Unmounts.
    pub fn end(self) -> Result<()> {
        match self.kind {
            Kind::Host | Kind::Null(_) => Ok(()),
            Kind::Cbfs(filesystem) => filesystem.end(),
            Kind::JuiceFs(mut juicefs) => juicefs.unmount(),
        }
    }
}
