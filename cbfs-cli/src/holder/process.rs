//! The holder's child processes and the signals that concern them.

use super::verdict::{Ended, Image};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

/// The image of this process, also after its file was replaced.
const OWN_IMAGE: &str = "/proc/self/exe";

/// Pipes that become readable by signals.
pub(super) struct Signals {
    stop: UnixStream,
    child: UnixStream,
}

impl Signals {
    /// SIGTERM, SIGINT, SIGHUP and SIGCHLD, from now on.
    pub(super) fn catch() -> io::Result<Self> {
        let (stop, on_stop) = UnixStream::pair()?;
        let (child, on_child) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, on_stop.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGCHLD, on_child)?;
        stop.set_nonblocking(true)?;
        child.set_nonblocking(true)?;
        Ok(Self { stop, child })
    }

    /// To be polled: the end is wanted; a child has ended.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.stop.as_fd(), self.child.as_fd()]
    }

    /// Whether the end was wanted since the last question.
    pub(super) fn take_stop(&self) -> bool {
        drain(&self.stop)
    }

    /// Takes note of children that have ended.
    pub(super) fn take_child(&self) {
        drain(&self.child);
    }
}

fn drain(mut pipe: &UnixStream) -> bool {
    let mut bytes = [0; 64];
    let mut any = false;
    while pipe.read(&mut bytes).is_ok_and(|count| count > 0) {
        any = true;
    }
    any
}

/// How daemons are started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program of this process as it is called on disk, with these arguments.
    pub(super) fn of_this_process(arguments: Vec<OsString>) -> io::Result<Self> {
        Ok(Self { path: std::fs::read_link(OWN_IMAGE)?, arguments })
    }

    /// Starts it; its standard input is `socket`.
    pub(super) fn start(&self, image: Image, life: u32, socket: OwnedFd) -> io::Result<Child> {
        let path = match image {
            // An upgrade that is under way: for a moment there may be nothing.
            Image::Disk if self.path.exists() => self.path.as_path(),
            Image::Disk | Image::Own => Path::new(OWN_IMAGE),
        };
        let mut command = Command::new(path);
        command.args(&self.arguments).current_dir("/").stdin(socket);
        if life > 0 {
            // The tests' crash points are for the first daemon: the next one shall get over them.
            command.env_remove("FAILPOINTS");
        }
        command.spawn()
    }
}

/// Asks a daemon to unmount and end.
pub(super) fn ask_to_end(child: &Child) {
    if let Some(pid) = Pid::from_raw(child.id() as i32)
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::debug!(%error, "the daemon is gone already");
    }
}

/// In the words of the verdict.
pub(super) fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code as u8),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::NotStarted,
    }
}

/// For people.
pub(super) fn describe(ended: Ended) -> String {
    match ended {
        Ended::Exit(code) => format!("ended with exit code {code}"),
        Ended::Signal(signal) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("unknown");
            format!("ended by signal {signal} ({name})")
        }
        Ended::NotStarted => "could not be started".to_owned(),
    }
}
