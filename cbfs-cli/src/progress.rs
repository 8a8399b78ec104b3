//! A bar on the terminal while something takes long; nothing where no terminal is.

use crate::control::api::SnapshotView;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write;
use toa::verify::{Phase, Progress};

/// A bar on stderr, if that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let template = "{msg:<9} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// The bar of an export.
pub struct ExportProgress {
    bar: ProgressBar,
}

impl ExportProgress {
    /// Of a snapshot with files of that many bytes.
    pub fn new(bytes: u64) -> Self {
        let bar = bar();
        bar.set_length(bytes);
        bar.set_message("export");
        Self { bar }
    }

    /// That many more are done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// A line on stderr, above the bar.
    pub fn say(&self, line: &str) {
        // Nobody is left to be told where stderr is gone.
        self.bar.suspend(|| drop(writeln!(std::io::stderr().lock(), "{line}")));
    }
}

impl Drop for ExportProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The bar of one snapshot.
pub struct SnapshotProgress {
    bar: ProgressBar,
}

impl SnapshotProgress {
    /// Shown on stderr, if that is a terminal.
    pub fn new() -> Self {
        Self { bar: bar() }
    }

    /// Shows that state.
    pub fn show(&self, snapshot: &SnapshotView) {
        if snapshot.bytes_total > 0 {
            self.bar.set_length(snapshot.bytes_total);
        }
        self.bar.set_position(snapshot.bytes_done);
        self.bar.set_message(snapshot.state.name());
        self.bar.tick();
    }
}

impl Drop for SnapshotProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The bar of a verification: one for each of its phases.
pub struct VerifyProgress {
    bar: ProgressBar,
    phase: Option<Phase>,
}

impl VerifyProgress {
    /// Shown on stderr, if that is a terminal.
    pub fn new() -> Self {
        Self { bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()), phase: None }
    }

    /// Shows how far it is.
    pub fn show(&mut self, progress: &Progress) {
        let in_bytes = progress.bytes_total > 0;
        if self.phase != Some(progress.phase) {
            self.phase = Some(progress.phase);
            let template = if in_bytes {
                "{msg:<18} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}"
            } else {
                "{msg:<18} [{bar:30}]"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
            self.bar.reset();
        }
        let (done, total) = if in_bytes {
            (progress.bytes_done, progress.bytes_total)
        } else {
            (progress.objects_done, progress.objects_total)
        };
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(format!("{} {}/{}", progress.phase.name(), progress.objects_done, progress.objects_total));
    }

    /// Runs what prints, the bar out of its way.
    pub fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for VerifyProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
