//! Unix sockets in directories whose path may be longer than the 107 bytes of a socket address.

use crate::failure::{Failure, FailureKind};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// The short name of a socket: through its directory, which stays open meanwhile.
struct ShortPath {
    path: PathBuf,
    _directory: OwnedFd,
}

impl ShortPath {
    fn new(socket: &Path) -> std::io::Result<Self> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let (folder, file) = socket.parent().zip(socket.file_name()).ok_or_else(invalid)?;
        let directory = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(file);
        Ok(Self { path, _directory: directory })
    }
}

/// Listens, for the owner alone. The caller holds the instance's lock, so a socket that is there is a dead daemon's.
pub fn listen(socket: &Path) -> Result<UnixListener, Failure> {
    let listen = || {
        let short = ShortPath::new(socket)?;
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&short.path)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listen().map_err(|error| Failure::from_io(&error, "listen on", socket))
}

/// Connects to a daemon.
pub async fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    let connect = async { UnixStream::connect(&ShortPath::new(socket)?.path).await };
    connect.await.map_err(|error| match error.kind() {
        // Reset: it ended while the connection waited to be taken, so nobody has seen the request.
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::NotFound => {
            Failure::new(FailureKind::NotFound, format!("no daemon listens on {}", socket.display()))
        }
        _ => Failure::from_io(&error, "connect to", socket),
    })
}
