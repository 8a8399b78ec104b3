//! Whether cost grows with the work or with the size of the filesystem.

use super::fill::{Fill, fill};
use super::latency::{Latencies, Summary};
use super::machine::Machine;
use super::report::markdown;
use super::results::Spread;
use super::site::Site;
use super::steps::noise;
use super::target::Filesystem;
use crate::process::Outcome;
use anyhow::{Result, anyhow};
use serde::Serialize;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const BODY_BYTES: usize = 4096;
/// The writer is at work for so long before a cut.
const LEAD: Duration = Duration::from_millis(300);

/// The cost of creating and of a snapshot's cut at some sizes.
#[derive(Debug, Serialize)]
pub struct Scale {
    machine: Machine,
    samples: usize,
    sizes: Vec<Size>,
}

#[derive(Debug, Serialize)]
struct Size {
    files: usize,
    /// Creating a file of 4 KiB, ms.
    create: Option<Summary>,
    /// Processor time of the daemon for one, µs, with what it did afterwards.
    create_cpu_micros: f64,
    /// `cbfs snapshot create` until it has answered, ms.
    cut_ms: Vec<f64>,
    /// The longest operation of somebody who writes meanwhile, ms.
    pause_ms: Vec<f64>,
    /// Until the snapshot is in the bucket, s.
    published_seconds: Vec<f64>,
}

impl Scale {
    /// Measures at each of `sizes`, which grow: `samples` creations, `cuts` snapshots.
    pub fn measure(mut site: Site<'_>, sizes: &[usize], samples: usize, cuts: usize) -> Result<Self> {
        let filesystem = Filesystem::new(site.dir)?;
        let top = filesystem.dir().join("files");
        let (mut before, mut done) = (0, Vec::new());
        for &files in sizes {
            site.tell(format_args!("growing to {files} files"));
            fill(&top, &Fill { from: before, to: files, bytes: 16 })?;
            before = files.max(before);
            filesystem.publish(&format!("at-{files}"))?;
            filesystem.settle(site.settle)?;
            site.tell(format_args!("{samples} creations and {cuts} cuts at {files} files"));
            done.push(Size::measure(&filesystem, files, (samples, cuts), site.settle)?);
        }
        filesystem.end()?;
        Ok(Self { machine: Machine::this()?, samples, sizes: done })
    }
}

impl Size {
    fn measure(
        filesystem: &Filesystem,
        files: usize,
        (samples, cuts): (usize, usize),
        settle: Duration,
    ) -> Result<Self> {
        let place = filesystem.dir().join(format!("new-{files}"));
        fs::create_dir(&place)?;
        let processes = filesystem.processes();
        let before = processes.cpu()?;
        let mut times = Latencies::default();
        for number in 0..samples {
            create(&place.join(format!("f{number}")), &mut times)?;
        }
        filesystem.settle(settle)?;
        let cpu = processes.cpu()?.saturating_sub(before);
        let mut size = Self {
            files,
            create: times.summary(),
            create_cpu_micros: cpu.as_secs_f64() * 1e6 / samples.max(1) as f64,
            cut_ms: Vec::new(),
            pause_ms: Vec::new(),
            published_seconds: Vec::new(),
        };
        for number in 0..cuts {
            size.cut(filesystem, &place, &format!("cut-{files}-{number}"))?;
        }
        Ok(size)
    }

    /// One snapshot, beside somebody who writes.
    fn cut(&mut self, filesystem: &Filesystem, place: &Path, name: &str) -> Result<()> {
        let dir = place.join(name);
        fs::create_dir(&dir)?;
        let stop = AtomicBool::new(false);
        let (cut, writer) = thread::scope(|scope| {
            let writer = scope.spawn(|| writer(&dir, &stop));
            thread::sleep(LEAD);
            let start = Instant::now();
            let cut = filesystem.request_snapshot(name).and_then(Outcome::success);
            let took = start.elapsed();
            stop.store(true, Ordering::Relaxed);
            let written = writer.join().map_err(|_| anyhow!("the writer panicked"));
            (cut.map(|_| (start, took)), written)
        });
        let ((start, took), times) = (cut?, writer??);
        self.cut_ms.push(took.as_secs_f64() * 1e3);
        // Operations that began before the cut and ended in it count too.
        let during = times.iter().filter(|(begin, length)| *begin + *length >= start);
        self.pause_ms.push(during.map(|(_, length)| length.as_secs_f64() * 1e3).fold(0.0, f64::max));
        filesystem.wait_published(name)?;
        self.published_seconds.push(start.elapsed().as_secs_f64());
        Ok(())
    }
}

fn create(path: &Path, times: &mut Latencies) -> Result<()> {
    let body = noise(BODY_BYTES);
    let start = Instant::now();
    File::create_new(path)?.write_all(&body)?;
    times.add(start.elapsed());
    Ok(())
}

/// Creates files until it is told to stop; when each began and how long it took.
fn writer(dir: &Path, stop: &AtomicBool) -> Result<Vec<(Instant, Duration)>> {
    let (body, mut times) = (noise(BODY_BYTES), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        File::create_new(dir.join(format!("f{}", times.len())))?.write_all(&body)?;
        times.push((start, start.elapsed()));
    }
    Ok(times)
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, samples, sizes } = self;
        writeln!(f, "{machine}; {samples} creations of 4 KiB at each size; no column may grow with the files\n")?;
        let spread = |figures: &[f64], digits: usize| match Spread::of(figures.to_vec()) {
            Some(Spread { min, median, max }) => format!("{median:.digits$} ({min:.digits$}–{max:.digits$})"),
            None => "–".into(),
        };
        let rows = sizes.iter().map(|size| {
            let (p50, p99) = size.create.map_or((0.0, 0.0), |times| (times.p50, times.p99));
            vec![
                size.files.to_string(),
                format!("{p50:.3}"),
                format!("{p99:.3}"),
                format!("{:.0}", size.create_cpu_micros),
                spread(&size.cut_ms, 1),
                spread(&size.pause_ms, 1),
                spread(&size.published_seconds, 2),
            ]
        });
        let head = [
            "files",
            "create p50 ms",
            "create p99 ms",
            "daemon CPU µs each",
            "snapshot cut ms",
            "longest write meanwhile ms",
            "published after s",
        ];
        write!(f, "{}", markdown(&head, &rows.collect::<Vec<_>>()))
    }
}
