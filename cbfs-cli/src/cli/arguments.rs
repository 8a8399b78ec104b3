//! The arguments of each command.

use crate::daemon::Stays;
use crate::failure::Failure;
use crate::settings::parse_assignment;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use uuid::Uuid;

/// clap shows the text of an error, and the hint is worth showing.
fn assignment(text: &str) -> Result<(String, String), String> {
    parse_assignment(text).map_err(|Failure { message, hint, .. }| match hint {
        Some(hint) => format!("{message} ({hint})"),
        None => message,
    })
}

/// `cbfs create`
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The store and the name of the new filesystem
    #[arg(value_name = "STORE#TAG")]
    pub fs: String,
    /// Keep and enforce POSIX ACLs, for ever; without it they are refused
    #[arg(long)]
    pub acl: bool,
    /// A setting that every node starts from; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

/// `cbfs list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The store [default: the setting `store`]
    #[arg(value_name = "STORE")]
    pub store: Option<String>,
    /// List deleted filesystems, too
    #[arg(long)]
    pub deleted: bool,
}

/// `cbfs show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The filesystem
    #[arg(value_name = "FS")]
    pub fs: String,
}

/// `cbfs delete`
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The filesystem
    #[arg(value_name = "FS")]
    pub fs: String,
    /// Show what would go and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `cbfs mount`
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The filesystem, perhaps with a snapshot
    #[arg(value_name = "FS[@SNAPSHOT]")]
    pub fs: String,
    /// An empty directory [default: the setting `mount_point`, or where it was mounted last]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Make the filesystem if the store has none of that name
    #[arg(long, conflicts_with = "read_only")]
    pub create: bool,
    /// Mount the newest snapshot, as slave
    #[arg(long)]
    pub read_only: bool,
    /// A setting of this mount; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// How the process stays.
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Whether `cbfs mount` goes into the background.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// Serve in this process, until it is unmounted or gets SIGTERM
    #[arg(long)]
    pub foreground: bool,
    /// The process in the background that `cbfs mount` starts; its daemon reports on stdout when it is ready
    #[arg(long, hide = true)]
    pub detached: bool,
    /// The daemon that the holder of a mount starts; standard input is the line between the two
    #[arg(long, hide = true, value_name = "WHERE", conflicts_with_all = ["foreground", "detached"])]
    pub held: Option<Stays>,
}

/// `cbfs unmount`
#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// The mount point
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `cbfs upgrade`
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// The filesystem, by name or by a path in it
    #[arg(value_name = "FS")]
    pub fs: String,
}

/// `cbfs status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this filesystem, by name or by a path in it
    #[arg(value_name = "FS")]
    pub fs: Option<String>,
    /// Show each setting with its source
    #[arg(long)]
    pub config: bool,
}

/// `cbfs snapshot`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, subcommand_value_name = "COMMAND")]
pub struct SnapshotArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<SnapshotCommand>,
    /// The short form of `create`.
    #[command(flatten)]
    pub create: Option<SnapshotCreateArgs>,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take a snapshot: the filesystem as it is at this instant
    ///
    /// Returns when the request is durable on the local disk; packing and uploading go on by themselves.
    #[command(after_help = "Example:\n  cbfs snapshot create home --name before-update --wait")]
    Create(SnapshotCreateArgs),
    /// List snapshots, those on their way and those published
    #[command(after_help = "Example:\n  cbfs snapshot list home")]
    List(SnapshotListArgs),
    /// End a snapshot that is not complete yet: it is not published
    ///
    /// What it changed goes with the next one. Where the ledger may have it already, the ledger is asked first.
    #[command(after_help = "Example:\n  cbfs snapshot cancel home before-update")]
    Cancel(SnapshotCancelArgs),
    /// Show how far a snapshot is
    #[command(after_help = "Example:\n  cbfs snapshot status home before-update --wait")]
    Status(SnapshotStatusArgs),
}

/// `cbfs snapshot create`
#[derive(Debug, Args)]
pub struct SnapshotCreateArgs {
    /// The filesystem, by name or by a path in it
    #[arg(value_name = "FS")]
    pub fs: String,
    /// A name for the snapshot
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Asked again with the same key and name, it is the same snapshot: for scripts that try again
    #[arg(long, value_name = "UUID")]
    pub key: Option<Uuid>,
    /// Wait until it has ended: complete, failed or cancelled
    #[arg(long)]
    pub wait: bool,
}

/// `cbfs snapshot cancel`
#[derive(Debug, Args)]
pub struct SnapshotCancelArgs {
    /// The filesystem, by name or by a path in it
    #[arg(value_name = "FS")]
    pub fs: String,
    /// The snapshot's id or name
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
}

/// `cbfs snapshot list`
#[derive(Debug, Args)]
pub struct SnapshotListArgs {
    /// The filesystem, by name or by a path in it
    #[arg(value_name = "FS")]
    pub fs: String,
}

/// `cbfs snapshot status`
#[derive(Debug, Args)]
pub struct SnapshotStatusArgs {
    /// The filesystem, by name or by a path in it
    #[arg(value_name = "FS")]
    pub fs: String,
    /// The snapshot's id or name
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
    /// Wait until it has ended: complete, failed or cancelled
    #[arg(long)]
    pub wait: bool,
}

/// `cbfs export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The filesystem, perhaps with a snapshot [default: the newest one]
    #[arg(value_name = "FS[@SNAPSHOT]")]
    pub fs: String,
    /// Write to a file, which is there when it is complete [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `cbfs promote`
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// The filesystem, by name or by a path in it
    #[arg(value_name = "FS")]
    pub fs: String,
    /// The epoch that ends, as `cbfs show` names it
    #[arg(long, value_name = "N")]
    pub epoch: u32,
}

/// `cbfs verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The filesystem, perhaps with a snapshot
    #[arg(value_name = "FS[@SNAPSHOT]")]
    pub fs: String,
    /// Read every byte of every pack, too
    #[arg(long)]
    pub deep: bool,
    /// Keep what is done in FILE (and a folder FILE.d), and go on from there if it was interrupted; both go at the end
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
}

/// `cbfs completions`
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `cbfs man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command there
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
