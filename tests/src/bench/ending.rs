//! What becomes of mounts and daemons when somebody ends the measurement early.

use crate::node::mounts_below;
use crate::process::{processes_with, signal};
use anyhow::Result;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal as listen};

/// What a shell says of a program that SIGINT ended.
const EXIT_CODE: i32 = 130;
/// So often it is tried to take everything away.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// Watches for signals. Dropping it waits for a clean-up that has begun, since what fails meanwhile fails because of it.
#[derive(Debug)]
#[must_use]
pub struct Ending {
    begun: Arc<AtomicBool>,
}

impl Ending {
    /// Never comes back once the clean-up has begun: nothing new may be made then.
    pub fn stop_if_begun(&self) {
        while self.begun.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.stop_if_begun();
    }
}

/// On SIGINT or SIGTERM: takes away all mounts, daemons and files below `dir`, and ends this process.
pub fn clean_up_when_ended(dir: &Path) -> Result<Ending> {
    let ending = Ending { begun: Arc::default() };
    let begun = Arc::clone(&ending.begun);
    let dir = dir.to_owned();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        begun.store(true, Ordering::SeqCst);
        clean_up(&dir);
        exit(EXIT_CODE)
    });
    Ok(ending)
}

/// As far as it goes: nobody is left to hear of a failure.
fn clean_up(dir: &Path) {
    for _ in 0..TRIES {
        for mount in mounts_below(dir).unwrap_or_default() {
            let _ = unmount(&mount, UnmountFlags::DETACH);
        }
        for pid in processes_with(dir).unwrap_or_default() {
            let _ = signal(pid, Signal::KILL);
        }
        // Under another name, nothing new comes into it while it is emptied: a step on the host's files would be faster.
        let ended = dir.with_extension("ended");
        let _ = fs::rename(dir, &ended);
        thread::sleep(PAUSE);
        let _ = fs::remove_dir_all(&ended);
        let is_gone = !dir.exists() && !ended.exists();
        if is_gone && processes_with(dir).is_ok_and(|left| left.is_empty()) {
            break;
        }
    }
}
