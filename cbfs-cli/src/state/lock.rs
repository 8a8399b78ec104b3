//! One daemon per instance.

use crate::failure::{Failure, FailureKind};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the lock file in an instance.
const LOCK: &str = "lock";

/// Held as long as it lives; the kernel takes it back from a process that dies, unless another one has it too.
#[derive(Debug)]
pub struct InstanceLock {
    file: File,
}

/// Attempts to take a lock, and the pause between them.
const LOOKS: u32 = 30;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

impl InstanceLock {
    /// Takes the lock or says who has it.
    pub fn take(instance: &Path) -> Result<Self, Failure> {
        let path = instance.join(LOCK);
        let mut file = open(&path).map_err(|error| Failure::from_io(&error, "open", &path))?;
        for attempt in 1.. {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // Somebody who only looks holds it for a moment.
                Err(rustix::io::Errno::WOULDBLOCK) if attempt < LOOKS => std::thread::sleep(LOOK_PAUSE),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(busy(instance, holder(&mut file))),
                Err(error) => return Err(Failure::from_io(&error.into(), "lock", &path)),
            }
        }
        sign(&mut file).map_err(|error| Failure::from_io(&error, "write", &path))?;
        Ok(Self { file })
    }

    /// Goes on with the lock that an earlier process took and somebody kept.
    pub fn resume(instance: &Path, mut file: File) -> Result<Self, Failure> {
        sign(&mut file).map_err(|error| Failure::from_io(&error, "write", &instance.join(LOCK)))?;
        Ok(Self { file })
    }
}

impl AsFd for InstanceLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Writes down whose it is.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(std::process::id().to_string().as_bytes())
}

/// Waits for this node's turn to make an instance; over when the file is dropped.
pub fn take_turn(state: &Path) -> Result<File, Failure> {
    super::files::make_private_dir(state)?;
    let path = state.join(LOCK);
    let file = open(&path).map_err(|error| Failure::from_io(&error, "open", &path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| Failure::from_io(&error.into(), "lock", &path))?;
    Ok(file)
}

/// The process that holds an instance's lock, if any. A daemon between taking the lock and writing its id counts as
/// process 0.
pub fn holder_of(instance: &Path) -> Option<u32> {
    let mut file = File::open(instance.join(LOCK)).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Some(holder(&mut file).unwrap_or(0)),
        _ => None,
    }
}

/// Waits until process `pid` does not hold the lock any more.
pub async fn wait_released(instance: PathBuf, pid: u32) {
    while holder_of(&instance) == Some(pid) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn busy(instance: &Path, pid: Option<u32>) -> Failure {
    let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    Failure::new(FailureKind::Busy, format!("{} is in use by {who}", instance.display()))
        .with_hint("cbfs status shows what is mounted; cbfs unmount DIR ends it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder_of(dir.path()), None);
        let first = InstanceLock::take(dir.path()).unwrap();
        let refused = InstanceLock::take(dir.path()).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Busy);
        assert!(refused.message.contains(&format!("process {}", std::process::id())), "{refused}");
        assert_eq!(holder_of(dir.path()), Some(std::process::id()));
        let kept = File::from(first.as_fd().try_clone_to_owned().unwrap());
        drop(first);
        assert!(InstanceLock::take(dir.path()).is_err(), "somebody keeps it for the next one");
        let next = InstanceLock::resume(dir.path(), kept).unwrap();
        assert_eq!(holder_of(dir.path()), Some(std::process::id()));
        drop(next);
        assert_eq!(holder_of(dir.path()), None);
        InstanceLock::take(dir.path()).unwrap();
    }
}
