//! The holder's loop: start a daemon, listen to it, decide when it has ended.

use super::process::{self, Program, Signals};
use super::protocol::{self, Patience, Restarts, VERSION, Welcome, Word};
use super::verdict::{Ended, Image, Life, Record, Verdict};
use crate::failure::Failure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What daemons keep for each other.
struct Kept {
    text: String,
    descriptors: Vec<OwnedFd>,
}

struct Holder {
    program: Program,
    signals: Signals,
    kept: Option<Kept>,
    restarts: Restarts,
    /// Whether a daemon has ever served.
    was_ready: bool,
}

/// What is known of the daemon that runs.
#[derive(Default)]
struct Daemon {
    serving: Option<Instant>,
    stopping: bool,
    handing_over: Option<String>,
}

/// Runs daemons with these arguments until the mount ends; answers with the exit code.
pub fn run(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let failed = |error: io::Error| Failure::from_io(&error, "start", Path::new("the holder"));
    let program = Program::of_this_process(arguments).map_err(failed)?;
    let signals = Signals::catch().map_err(failed)?;
    let restarts = Restarts::default();
    let mut holder = Holder { program, signals, kept: None, restarts, was_ready: false };
    let mut record = Record::default();
    let mut image = Image::Disk;
    loop {
        let (ended, life, reason) = holder.one_life(image);
        match record.next(ended, life) {
            Verdict::End(code) => return Ok(code),
            Verdict::GiveUp(code) => {
                // With our descriptors the kernel ends the connection: what waits gets an error, and so does who comes.
                holder.kept = None;
                tracing::error!(code, "the mount is given up: the daemon {reason}; cbfs mount clears it away");
                return Ok(code);
            }
            Verdict::Again { pause, image: next } => {
                tracing::warn!(life = holder.restarts.count + 1, ?pause, "the daemon {reason}: starting another one");
                if holder.stop_wanted_within(pause) {
                    tracing::error!("asked to end while there is no daemon: the mount is given up");
                    return Ok(process_code(ended));
                }
                image = next;
                holder.restarts.count += 1;
                holder.restarts.last = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
                holder.restarts.reason = Some(format!("the daemon {reason}"));
            }
        }
    }
}

fn process_code(ended: Ended) -> u8 {
    match Record::default().next(ended, Life::default()) {
        Verdict::End(code) | Verdict::GiveUp(code) => code,
        Verdict::Again { .. } => 0,
    }
}

impl Holder {
    /// Starts a daemon and waits for its end.
    fn one_life(&mut self, image: Image) -> (Ended, Life, String) {
        let mut daemon = Daemon::default();
        let ended = match self.start(image) {
            Ok((child, socket)) => self.attend(child, &socket, &mut daemon),
            Err(error) => {
                tracing::error!(%error, "the daemon cannot be started");
                Ended::NotStarted
            }
        };
        let life = Life {
            keeps: self.kept.is_some(),
            served: daemon.serving.map(|since| since.elapsed()),
            stopping: daemon.stopping,
            handing_over: daemon.handing_over.is_some(),
        };
        let made_room = |why| format!("made room: {why}");
        let reason = daemon.handing_over.map_or_else(|| process::describe(ended), made_room);
        (ended, life, reason)
    }

    fn start(&self, image: Image) -> io::Result<(Child, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let welcome = Welcome {
            version: VERSION,
            holder: std::process::id(),
            life: self.restarts.count,
            restarts: self.restarts.clone(),
            kept: self.kept.as_ref().map(|kept| kept.text.clone()),
        };
        let descriptors: Vec<BorrowedFd<'_>> =
            self.kept.iter().flat_map(|kept| &kept.descriptors).map(AsFd::as_fd).collect();
        protocol::send(&ours, &welcome, &descriptors)?;
        Ok((self.program.start(image, self.restarts.count, theirs)?, ours))
    }

    /// Listens to a daemon until it has ended.
    fn attend(&mut self, mut child: Child, socket: &OwnedFd, daemon: &mut Daemon) -> Ended {
        let mut listening = true;
        loop {
            let [stop, ended] = self.signals.descriptors();
            let mut wanted = vec![PollFd::from_borrowed_fd(stop, PollFlags::IN)];
            wanted.push(PollFd::from_borrowed_fd(ended, PollFlags::IN));
            if listening {
                wanted.push(PollFd::new(socket, PollFlags::IN));
            }
            if let Err(error) = poll(&mut wanted, None)
                && error != rustix::io::Errno::INTR
            {
                tracing::error!(%error, "poll");
            }
            if self.signals.take_stop() {
                daemon.stopping = true;
                process::ask_to_end(&child);
            }
            self.signals.take_child();
            let status = child.try_wait();
            // What it said last counts, also when it is gone.
            listening = listening && self.listen(socket, daemon);
            match status {
                Ok(Some(status)) => return process::ended(status),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "the daemon cannot be waited for");
                    return Ended::NotStarted;
                }
            }
        }
    }

    /// Takes in what the daemon says; `false` if it says nothing more.
    fn listen(&mut self, socket: &OwnedFd, daemon: &mut Daemon) -> bool {
        loop {
            match protocol::receive::<Word>(socket, Patience::Look) {
                Ok(Some((word, descriptors))) => self.hear(word, descriptors, daemon),
                Ok(None) => return false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.raw_os_error().is_some() => {
                    tracing::warn!(%error, "the daemon cannot be heard any more");
                    return false;
                }
                // A word of a newer daemon that can be done without.
                Err(error) => tracing::debug!(%error, "the daemon said something else"),
            }
        }
    }

    fn hear(&mut self, word: Word, descriptors: Vec<OwnedFd>, daemon: &mut Daemon) {
        match word {
            Word::Keep { text } => self.kept = Some(Kept { text, descriptors }),
            Word::LetGo => self.kept = None,
            Word::Serving { log } => {
                daemon.serving = Some(Instant::now());
                if let Some(log) = log {
                    log_to(&log);
                }
                if !self.was_ready {
                    self.was_ready = true;
                    tell_service_manager(&[sd_notify::NotifyState::Ready]);
                } else if let Some(reason) = &self.restarts.reason {
                    let status = format!("restarts: {}, the last one because {reason}", self.restarts.count);
                    tell_service_manager(&[sd_notify::NotifyState::Status(&status)]);
                }
            }
            Word::Stopping => {
                daemon.stopping = true;
                tell_service_manager(&[sd_notify::NotifyState::Stopping]);
            }
            Word::HandingOver { reason } => daemon.handing_over = Some(reason),
        }
    }

    /// Waits; whether the end is wanted meanwhile.
    fn stop_wanted_within(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            if self.signals.take_stop() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let [stop, _] = self.signals.descriptors();
            let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut wanted = [PollFd::from_borrowed_fd(stop, PollFlags::IN)];
            if let Err(error) = poll(&mut wanted, Some(&limit)) {
                tracing::debug!(%error, "the pause was interrupted");
            }
        }
    }
}

/// From now on both outputs are not those of whoever mounted: they belong to the log.
fn log_to(path: &Path) {
    let open = || -> io::Result<()> {
        let log = OpenOptions::new().append(true).create(true).open(path)?;
        rustix::stdio::dup2_stderr(&log)?;
        rustix::stdio::dup2_stdout(&OpenOptions::new().write(true).open("/dev/null")?)?;
        Ok(())
    };
    if let Err(error) = open() {
        tracing::warn!(%error, log = %path.display(), "the holder cannot log there");
    }
}

fn tell_service_manager(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!(%error, "no service manager listens");
    }
}
