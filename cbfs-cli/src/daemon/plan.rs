//! What is to be mounted, and what is said when it is.

use crate::address::FsAddress;
use crate::control::api::{AccessView, Role};
use crate::failure::Failure;
use crate::state::Purpose;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// What to do if the store has no such filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Make it.
    Create,
    /// Say so.
    Refuse,
}

/// What is to be mounted.
#[derive(Clone, Debug)]
pub struct MountPlan {
    /// The filesystem; its store, if it has one, in canonical form.
    pub address: FsAddress,
    /// To write, or to show a snapshot.
    pub purpose: Purpose,
    /// If there is no such filesystem.
    pub absent: Absent,
    /// Where, absolute; `None`: the setting, or where it was last.
    pub mount_point: Option<PathBuf>,
    /// `--set key=value`, checked.
    pub flags: Vec<(String, String)>,
}

/// What `cbfs mount` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountReport {
    /// `<TAG>-<UUID>`
    pub name: String,
    /// The store's URL.
    pub store: String,
    /// Where.
    pub mount_point: PathBuf,
    /// The directory on this node.
    pub instance: PathBuf,
    /// What the node is to it.
    pub role: Role,
    /// Whether it can be written.
    pub access: AccessView,
    /// The epoch.
    pub epoch: u32,
    /// The daemon.
    pub pid: u32,
}

impl fmt::Display for MountReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            AccessView::ReadWrite => "read-write",
            AccessView::ReadOnly => "read-only",
        };
        write!(f, "mounted {} on {}, {access}", self.name, self.mount_point.display())?;
        match self.role {
            Role::Deposed => f.write_str(": another node is the master now, cbfs status tells more"),
            Role::Master | Role::Slave => Ok(()),
        }
    }
}

/// What is done with the report.
type Report = Box<dyn FnOnce(&MountReport) -> Result<(), Failure> + Send>;

/// How a daemon says that its mount can be used.
pub enum Ready {
    /// By that function.
    Call(Report),
    /// By a line on stdout, after which both outputs belong to the log of the instance.
    Pipe,
    /// Not at all: the mount was there before.
    Silent,
}

/// Where a mount is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stays {
    /// On the terminal, or under a service manager.
    Foreground,
    /// In a session of its own, with a log in the instance.
    Background,
}
