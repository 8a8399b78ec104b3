//! Where a measurement works, and whom it tells how far it is.

use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What all measurements need.
pub struct Site<'a> {
    /// A directory on the filesystem to compare with.
    pub dir: &'a Path,
    /// The longest wait for work in the background.
    pub settle: Duration,
    /// Hears what is going on.
    pub progress: &'a mut dyn FnMut(&str),
}

impl Site<'_> {
    pub(super) fn tell(&mut self, what: impl fmt::Display) {
        (self.progress)(&what.to_string());
    }
}

impl fmt::Debug for Site<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("dir", &self.dir).field("settle", &self.settle).finish_non_exhaustive()
    }
}
