//! How long an application waits when a snapshot is cut, and whether that grows with the filesystem.

use super::figures::{Unit, What};
use super::{Bench, CUT};
use crate::bench::latency::PAUSE_LIMIT_MS;
use crate::bench::limits::{HOST, NULL, title};
use crate::bench::steps::noise;
use crate::bench::target::{Filesystem, Maker, Target};
use crate::process::Outcome;
use anyhow::{Result, anyhow};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const BODY_BYTES: usize = 4096;
/// The application is at work for so long before a cut.
const LEAD: Duration = Duration::from_millis(300);

/// When each operation of an application began, and how long it took.
type Operations = Vec<(Instant, Duration)>;

impl Bench<'_, '_> {
    pub(super) fn cut(&mut self) -> Result<()> {
        let below = self.site.dir.join("noise");
        fs::create_dir(&below)?;
        let mut maker = Maker::new(&below, 0);
        let noises = [maker.make(HOST)?, maker.make(NULL)?];
        let mut sizes = self.plan.amounts.cut_files.clone();
        // The largest is there already, if another step made it.
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        for files in sizes {
            let many = self.many(files)?;
            for number in 0..self.plan.amounts.cuts {
                self.site.tell(format_args!("cut {} of {} at {files} files", number + 1, self.plan.amounts.cuts));
                let name = format!("cut-{files}-{number}");
                let place = many.mounted.dir().join(&name);
                fs::create_dir(&place)?;
                let (answered, longest) = cut(&many.mounted.filesystem, &place, &name)?;
                let at = |what: &str| format!("{what}, {files} files");
                self.figures.add(
                    What::new(CUT, at("longest wait of an application"), Unit::Milliseconds).at_most(PAUSE_LIMIT_MS),
                    longest,
                );
                self.figures.add(
                    What::new(CUT, at("until the request is answered"), Unit::Milliseconds),
                    answered.as_secs_f64() * 1e3,
                );
                for target in &noises {
                    let place = target.place(&name, 0)?;
                    let (_, longest) = beside(&place, || {
                        thread::sleep(answered);
                        Ok(())
                    })?;
                    target.clear(&place)?;
                    let what = format!("longest wait in as long a time on {}", title(target.id()));
                    self.figures.add(What::new(CUT, what, Unit::Milliseconds), longest);
                }
                many.mounted.filesystem.wait_published(&name)?;
            }
            self.many = Some(many);
        }
        noises.into_iter().try_for_each(Target::end)
    }
}

/// Cuts a snapshot beside an application: how long the request took, and the application's longest wait in ms.
fn cut(filesystem: &Filesystem, place: &Path, name: &str) -> Result<(Duration, f64)> {
    beside(place, || filesystem.request_snapshot(name).and_then(Outcome::success).map(drop))
}

/// Runs `work` beside an application that writes new files below `place` and looks at them: how long it took, and the
/// longest of the application's operations that overlap it, in ms.
fn beside(place: &Path, work: impl FnOnce() -> Result<()>) -> Result<(Duration, f64)> {
    let stop = AtomicBool::new(false);
    let (worked, operations) = thread::scope(|scope| {
        let application = scope.spawn(|| application(place, &stop));
        thread::sleep(LEAD);
        let start = Instant::now();
        let worked = work().map(|()| (start, start.elapsed()));
        stop.store(true, Ordering::Relaxed);
        let operations = application.join().map_err(|_| anyhow!("the application panicked"));
        (worked, operations)
    });
    let ((start, took), operations) = (worked?, operations??);
    // An operation that began before and ended in it waited for it too.
    let during = operations.iter().filter(|(begin, length)| *begin + *length >= start);
    Ok((took, during.map(|(_, length)| length.as_secs_f64() * 1e3).fold(0.0, f64::max)))
}

fn application(place: &Path, stop: &AtomicBool) -> Result<Operations> {
    let (body, mut operations) = (noise(BODY_BYTES), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let path = place.join(format!("f{}", operations.len()));
        let start = Instant::now();
        File::create_new(&path)?.write_all(&body)?;
        operations.push((start, start.elapsed()));
        let start = Instant::now();
        fs::symlink_metadata(&path)?;
        operations.push((start, start.elapsed()));
    }
    Ok(operations)
}
