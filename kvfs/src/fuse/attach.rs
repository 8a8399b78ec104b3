//! Getting a connection to the kernel mounted at a path, and off it again.
//!
//! Root calls mount(2); everybody else asks the setuid helper fusermount3, which opens `/dev/fuse` itself and hands the
//! descriptor over a socket. fuser could mount too, but it may later unmount a stranger at the same path, stays mounted
//! when busy, and never reaches the helper if the device is closed to the user.

use super::MountOptions;
use super::error::MountError;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
/// Where distributions install it. Not `PATH`: the library does not read the environment.
const HELPER_FOLDERS: [&str; 5] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/run/wrappers/bin"];

/// How a mount point was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detached {
    /// Nobody used it.
    Clean,
    /// Somebody did: the name is gone, the filesystem lives until the last user leaves.
    Busy,
}

/// Who may enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visitors {
    /// Everybody, by mode bits: root has mounted.
    All,
    /// The user who mounted.
    Owner,
}

/// Root shares its mounts; for others `allow_other` would be for the administrator to grant.
pub(super) fn visitors() -> Visitors {
    if rustix::process::geteuid().is_root() { Visitors::All } else { Visitors::Owner }
}

/// Mounts at `path` and returns the connection, on which the kernel's INIT waits.
pub(super) fn attach(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if !Path::new(DEVICE).exists() {
        return Err(MountError::NoDevice);
    }
    if !rustix::process::geteuid().is_root() {
        return attach_by_helper(path, options, &find_helper().ok_or(MountError::NoHelper)?);
    }
    match attach_by_call(path, options) {
        // Root of a container or of a user namespace, perhaps: the helper may be allowed more.
        Err(MountError::NotPermitted) => match find_helper() {
            Some(helper) => attach_by_helper(path, options, &helper),
            None => Err(MountError::NotPermitted),
        },
        answer => answer,
    }
}

fn attach_by_call(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = open_device()?;
    let data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions,allow_other",
        device.as_raw_fd(),
        libc::S_IFDIR,
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let data = CString::new(data).map_err(|error| MountError::os("mount options", error))?;
    let fs_type = format!("fuse.{}", MountOptions::SUBTYPE);
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    match rustix::mount::mount(options.fsname.as_str(), path, fs_type.as_str(), flags, data.as_c_str()) {
        Ok(()) => Ok(device.into()),
        Err(Errno::PERM) => Err(MountError::NotPermitted),
        Err(errno) => Err(MountError::os(format!("mount {}", path.display()), errno)),
    }
}

fn open_device() -> Result<File, MountError> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => MountError::NotPermitted,
        io::ErrorKind::NotFound => MountError::NoDevice,
        _ if error.raw_os_error() == Some(libc::ENODEV) => MountError::NoDevice,
        _ => MountError::os(DEVICE, error),
    })
}

fn attach_by_helper(path: &Path, options: &MountOptions, helper: &Path) -> Result<OwnedFd, MountError> {
    let failed = |error: io::Error| MountError::os(helper.display().to_string(), error);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let child = Command::new(helper)
        .arg("-o")
        .arg(helper_options(options))
        .arg("--")
        .arg(path)
        // The socket is the helper's standard input: a descriptor that is inherited without further ado.
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let received = receive_descriptor(&ours);
    drop(ours);
    let output = child.wait_with_output().map_err(failed)?;
    match received {
        Ok(Some(descriptor)) if output.status.success() => Ok(descriptor),
        Err(error) if output.status.success() => Err(failed(error)),
        _ => Err(helper_refused(&output.stderr)),
    }
}

/// Commas and backslashes separate options for the helper.
fn helper_options(options: &MountOptions) -> String {
    let fsname = options.fsname.replace('\\', "\\\\").replace(',', "\\,");
    format!("nosuid,nodev,noatime,default_permissions,fsname={fsname},subtype={}", MountOptions::SUBTYPE)
}

fn helper_refused(stderr: &[u8]) -> MountError {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    MountError::Helper(text.strip_prefix("fusermount3: ").unwrap_or(text).to_owned())
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0_u8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        let mut buffers = [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => break,
        }
    }
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptors.next())
}

/// Takes whatever is mounted at `path` off it; lazily if it is in use.
pub(super) fn detach(path: &Path) -> Result<Detached, MountError> {
    let unmount = |flags| rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW);
    match unmount(UnmountFlags::empty()) {
        Ok(()) => Ok(Detached::Clean),
        Err(Errno::PERM) => detach_by_helper(path),
        Err(Errno::BUSY) => match unmount(UnmountFlags::DETACH) {
            Ok(()) => Ok(Detached::Busy),
            Err(errno) => Err(MountError::os(format!("unmount {}", path.display()), errno)),
        },
        Err(errno) => Err(MountError::os(format!("unmount {}", path.display()), errno)),
    }
}

fn detach_by_helper(path: &Path) -> Result<Detached, MountError> {
    let helper = find_helper().ok_or(MountError::NoHelper)?;
    let run = |how: &str| {
        Command::new(&helper)
            .arg(how)
            .arg("--")
            .arg(path)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| MountError::os(helper.display().to_string(), error))
    };
    if run("-u")?.status.success() {
        return Ok(Detached::Clean);
    }
    let lazy = run("-uz")?;
    if lazy.status.success() { Ok(Detached::Busy) } else { Err(helper_refused(&lazy.stderr)) }
}

fn find_helper() -> Option<PathBuf> {
    HELPER_FOLDERS.iter().map(|folder| Path::new(folder).join(HELPER)).find(|helper| helper.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::OpenMode;

    #[test]
    fn a_name_cannot_smuggle_options_into_the_helper() {
        let options = MountOptions::new("cbfs:a,suid\\b", OpenMode::Stateless);
        assert!(helper_options(&options).contains("fsname=cbfs:a\\,suid\\\\b,subtype=cbfs"));
    }

    #[test]
    fn the_helpers_words_are_passed_on() {
        let error = helper_refused(b"fusermount3: user has no write access to mountpoint /mnt\n");
        assert_eq!(error.to_string(), "fusermount3: user has no write access to mountpoint /mnt");
    }
}
