//! What to do when a daemon has ended.

use crate::failure::FailureKind;
use std::time::Duration;

/// Exit code of a daemon that has made room for the next one.
pub const HANDED_OVER: u8 = 75;

/// Starts in a row that may fail before the mount is given up.
const FAILURES_MAX: u32 = 10;
/// After so many the holder's own image is tried: a program on disk that cannot serve may be a bad upgrade.
const FAILURES_BEFORE_OWN_IMAGE: u32 = 3;
/// A daemon that ends by itself sooner than this has not really served.
const SERVES_AT_LEAST: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself.
    Exit(u8),
    /// By a signal: a crash, or somebody killed it.
    Signal(i32),
    /// It could not even be started.
    NotStarted,
}

/// What a daemon had done until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Life {
    /// There is something to keep for the next one.
    pub(super) keeps: bool,
    /// How long it had served, if it did.
    pub(super) served: Option<Duration>,
    /// It was asked to end.
    pub(super) stopping: bool,
    /// It said that it makes room.
    pub(super) handing_over: bool,
}

/// Which program to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// The one that is on disk now.
    Disk,
    /// The one that the holder is.
    Own,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// End too, with that exit code.
    End(u8),
    /// Start another one after a pause.
    Again { pause: Duration, image: Image },
    /// End with that code, and with it the mount.
    GiveUp(u8),
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    failures: u32,
}

impl Record {
    /// Decides, and counts.
    pub(super) fn next(&mut self, ended: Ended, life: Life) -> Verdict {
        let code = exit_code(ended);
        if !life.keeps || life.stopping || (code == 0 && !life.handing_over) {
            return Verdict::End(code);
        }
        if ended == Ended::Exit(HANDED_OVER) || life.handing_over {
            self.failures = 0;
            return Verdict::Again { pause: Duration::ZERO, image: Image::Disk };
        }
        if let Ended::Exit(code) = ended
            && !may_pass(code)
        {
            return Verdict::GiveUp(code);
        }
        let killed = ended == Ended::Signal(libc::SIGKILL);
        let has_served = life.served.is_some_and(|time| killed || time >= SERVES_AT_LEAST);
        self.failures = if has_served { 0 } else { self.failures + 1 };
        if self.failures >= FAILURES_MAX {
            return Verdict::GiveUp(code);
        }
        let image = if self.failures >= FAILURES_BEFORE_OWN_IMAGE { Image::Own } else { Image::Disk };
        Verdict::Again { pause: pause(self.failures), image }
    }
}

/// Whether what such an exit code stands for may be over the next time.
fn may_pass(code: u8) -> bool {
    let passing = [FailureKind::Unavailable, FailureKind::NoSpace, FailureKind::Busy, FailureKind::Bug];
    // 101 is a panic that nobody caught, and codes beyond the table come from whatever is on disk instead of us.
    code > FailureKind::Busy.meaning().exit || passing.iter().any(|kind| kind.meaning().exit == code)
}

fn exit_code(ended: Ended) -> u8 {
    match ended {
        Ended::Exit(code) => code,
        // As shells do.
        Ended::Signal(signal) => 128_u8.saturating_add(signal as u8),
        Ended::NotStarted => FailureKind::Bug.meaning().exit,
    }
}

/// None before the first attempt, then twice as long each time.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => PAUSE_MIN.saturating_mul(1 << doublings.min(16)).min(PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: Life =
        Life { keeps: true, served: Some(Duration::from_secs(3)), stopping: false, handing_over: false };
    const AT_ONCE: Verdict = Verdict::Again { pause: Duration::ZERO, image: Image::Disk };
    const KILL: Ended = Ended::Signal(libc::SIGKILL);

    fn first(ended: Ended, life: Life) -> Verdict {
        Record::default().next(ended, life)
    }

    #[test]
    fn the_end_of_a_daemon_that_keeps_nothing_is_the_end() {
        let life = Life { keeps: false, ..SERVED };
        assert_eq!(first(KILL, life), Verdict::End(137));
        assert_eq!(first(Ended::Exit(7), life), Verdict::End(7));
        assert_eq!(first(Ended::NotStarted, life), Verdict::End(70));
    }

    #[test]
    fn an_end_that_was_wanted_is_the_end() {
        assert_eq!(first(Ended::Exit(0), SERVED), Verdict::End(0));
        let life = Life { stopping: true, ..SERVED };
        assert_eq!(first(Ended::Exit(8), life), Verdict::End(8));
        assert_eq!(first(Ended::Signal(libc::SIGTERM), life), Verdict::End(143));
    }

    #[test]
    fn a_killed_daemon_is_followed_at_once_however_often() {
        let mut record = Record::default();
        for _ in 0..100 {
            assert_eq!(record.next(KILL, SERVED), AT_ONCE);
        }
        assert_eq!(record.next(Ended::Exit(HANDED_OVER), SERVED), AT_ONCE);
        assert_eq!(record.next(KILL, Life { served: None, handing_over: true, ..SERVED }), AT_ONCE);
    }

    #[test]
    fn a_refusal_is_final() {
        for kind in FailureKind::ALL {
            let code = kind.meaning().exit;
            let verdict = first(Ended::Exit(code), Life { served: None, ..SERVED });
            match kind {
                FailureKind::Unavailable | FailureKind::NoSpace | FailureKind::Busy | FailureKind::Bug => {
                    assert_eq!(verdict, Verdict::Again { pause: PAUSE_MIN, image: Image::Disk }, "{kind}");
                }
                _ => assert_eq!(verdict, Verdict::GiveUp(code), "{kind}"),
            }
        }
    }

    #[test]
    fn crashes_in_a_row_end_the_mount_after_pauses_and_another_image() {
        let mut record = Record::default();
        let (mut pauses, mut own) = (Duration::ZERO, 0);
        let last = loop {
            match record.next(Ended::Signal(libc::SIGSEGV), SERVED) {
                Verdict::Again { pause, image } => {
                    pauses += pause;
                    own += u32::from(image == Image::Own);
                }
                other => break other,
            }
        };
        assert_eq!(last, Verdict::GiveUp(139));
        assert_eq!(own, FAILURES_MAX - FAILURES_BEFORE_OWN_IMAGE);
        assert!(pauses > Duration::from_secs(20) && pauses < Duration::from_secs(60), "{pauses:?}");
    }

    #[test]
    fn serving_for_a_while_makes_good() {
        let mut record = Record::default();
        let long = Life { served: Some(SERVES_AT_LEAST), ..SERVED };
        for _ in 0..5 {
            record.next(Ended::Exit(101), SERVED);
        }
        assert_eq!(record.next(Ended::Signal(libc::SIGABRT), long), AT_ONCE);
        assert_eq!(
            record.next(Ended::NotStarted, Life { served: None, ..SERVED }),
            Verdict::Again { pause: PAUSE_MIN, image: Image::Disk }
        );
    }
}
