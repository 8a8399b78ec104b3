//! A bar on the terminal while something takes long; nothing where no terminal is.

use crate::control::api::SnapshotView;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar of one snapshot.
pub struct SnapshotProgress {
    bar: ProgressBar,
}

impl SnapshotProgress {
    /// Shown on stderr, if that is a terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "{msg:<9} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
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
