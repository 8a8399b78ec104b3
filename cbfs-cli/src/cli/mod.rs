//! The command line as clap sees it: help, completions and man pages all come from here.

mod arguments;
#[cfg(test)]
mod tests;

pub use arguments::{
    CompletionArgs, CreateArgs, DeleteArgs, ExportArgs, ListArgs, ManArgs, MountArgs, PromoteArgs, ShowArgs,
    SnapshotArgs, SnapshotCancelArgs, SnapshotCommand, SnapshotCreateArgs, SnapshotListArgs, SnapshotStatusArgs,
    StatusArgs, UnmountArgs, UpgradeArgs, VerifyArgs,
};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A cloud-backed filesystem: writable here, with snapshots in a bucket that other nodes mount.
#[derive(Debug, Parser)]
#[command(name = "cbfs", version, max_term_width = 100, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "\
Example: one filesystem on two nodes
  cbfs mount --create s3://my-bucket#home /home     the first node writes
  cbfs snapshot home --wait
  cbfs mount s3://my-bucket#home@latest /mnt        the second one reads")]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalArgs {
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Everything local of this node [default: /var/lib/cbfs as root, else $XDG_STATE_HOME/cbfs]
    #[arg(long, global = true, value_name = "DIR", env = "CBFS_STATE_DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Folder of cbfs.toml and fs.d [default: /etc/cbfs as root, else $XDG_CONFIG_HOME/cbfs]
    #[arg(long, global = true, value_name = "DIR", env = "CBFS_CONFIG_DIR", hide_env_values = true)]
    pub config_dir: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a filesystem in a bucket
    #[command(after_help = "Example:\n  cbfs create s3://my-bucket#home --set check_interval=10s")]
    Create(CreateArgs),
    /// List the filesystems in a bucket
    #[command(after_help = "Example:\n  cbfs list s3://my-bucket --deleted")]
    List(ListArgs),
    /// Show what a bucket says about a filesystem: parameters, epoch, snapshots
    #[command(after_help = "Example:\n  cbfs show s3://my-bucket#home --json")]
    Show(ShowArgs),
    /// Delete a filesystem from its bucket
    ///
    /// Stops its master and condemns its objects; the bytes go when garbage is collected after the grace time. The
    /// config, the ledger and the index of the last snapshot stay as a record.
    #[command(after_help = "Example:\n  cbfs delete s3://my-bucket#home --dry-run")]
    Delete(DeleteArgs),
    /// Mount a filesystem to write to it, or a snapshot to read it
    ///
    /// FS alone mounts as master: the first node that does so becomes the only writer. FS@SNAPSHOT and --read-only mount
    /// as slave. Returns when the mount can be used; a daemon serves it from then on.
    #[command(after_help = "\
Examples:
  cbfs mount --create s3://my-bucket#home /home
  cbfs mount home@latest /mnt
  cbfs mount home /home --foreground --set proxy.max_bytes=50GiB")]
    Mount(MountArgs),
    /// Unmount a filesystem and end its daemon
    ///
    /// Everything written is on the local disk when this returns; uploads that are not done go on at the next mount.
    #[command(after_help = "Example:\n  cbfs unmount /home")]
    Unmount(UnmountArgs),
    /// Go on with the program that is on disk now, without unmounting
    ///
    /// The daemon makes room for a new one. Open files stay open, calls wait for a moment. If the new program cannot
    /// serve, the old one comes back.
    #[command(after_help = "Example:\n  apt-get install cbfs && cbfs upgrade home")]
    Upgrade(UpgradeArgs),
    /// Show the mounts of this node
    #[command(after_help = "Examples:\n  cbfs status\n  cbfs status home --config")]
    Status(StatusArgs),
    /// Take a snapshot, list snapshots, watch one
    ///
    /// `cbfs snapshot FS` is short for `cbfs snapshot create FS`.
    #[command(after_help = "\
Examples:
  cbfs snapshot home --name before-update --wait
  cbfs snapshot list home
  cbfs snapshot status home before-update")]
    Snapshot(SnapshotArgs),
    /// Write a snapshot as one tar to standard output or a file
    ///
    /// Reads the bucket alone: no mount and no daemon. A POSIX pax tar with owners, times in nanoseconds, hard links, holes,
    /// extended attributes and devices; sockets, which a tar cannot hold, are named on standard error. Unpack it as
    /// root: tar --xattrs --xattrs-include='*' --numeric-owner -xpf FILE
    #[command(after_help = "\
Examples:
  cbfs export home@before-update | zstd > home.tar.zst
  cbfs export s3://my-bucket#home --output home.tar")]
    Export(ExportArgs),
    /// Make this node the master of a filesystem that it has mounted
    ///
    /// N is the epoch that ends: it must be the latest one, so that of two who promote only one succeeds. What the old
    /// master did not publish stays with it, read-only.
    #[command(after_help = "Example:\n  cbfs promote home --epoch 4")]
    Promote(PromoteArgs),
    /// Tell whether a filesystem in a bucket is sound
    ///
    /// Reads straight from the bucket: no daemon, no mount. Without a snapshot all live ones are looked at. The structure
    /// is the ledger, the index and the sizes of the packs; --deep reads every byte. Exit code 10 says that something is
    /// damaged.
    #[command(after_help = "\
Examples:
  cbfs verify s3://my-bucket#home
  cbfs verify home@latest --deep
  cbfs verify home --deep --resume /var/tmp/home.verify")]
    Verify(VerifyArgs),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  cbfs completions bash > /etc/bash_completion.d/cbfs")]
    Completions(CompletionArgs),
    /// Print the manual page, or write the pages of all commands to a folder
    #[command(after_help = "Examples:\n  cbfs man | man -l -\n  cbfs man --dir /usr/local/share/man/man1")]
    Man(ManArgs),
}
