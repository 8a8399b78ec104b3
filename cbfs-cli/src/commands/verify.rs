//! `cbfs verify`

use crate::address::FsAddress;
use crate::bucket;
use crate::cli::VerifyArgs;
use crate::context::Context;
use crate::failure::{Failure, FailureKind};
use crate::output::{self, Format, size};
use crate::progress::VerifyProgress;
use cloud_mgmt::admin;
use cloud_mgmt::names::FsName;
use serde::Serialize;
use std::fmt;
use toa::SnapshotSelector;
use toa::verify::{Depth, Finding, Progress, Severity, SnapshotName, VerifyOptions, VerifyReport, Watch, verify};

/// Ranges in flight for one request.
const CONCURRENCY: usize = 4;
/// Snapshots that a line names; of more, the first and the last.
const SNAPSHOTS_NAMED: usize = 4;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Finding(&'a Finding),
    Summary(Summary<'a>),
}

#[derive(Serialize)]
struct Summary<'a> {
    name: String,
    snapshot: Option<&'a str>,
    deep: bool,
    sound: bool,
    #[serde(flatten)]
    report: &'a VerifyReport,
}

pub(super) async fn run(context: &Context, args: VerifyArgs) -> Result<(), Failure> {
    let address = bucket::canonical(FsAddress::parse(&args.fs)?)?;
    let url = bucket::store_of(&address, &context.state, &context.node_settings()?)?;
    let name = admin::resolve(&bucket::connect(&url).await?, &address.name).await?;
    let store = bucket::connect_daemon(&url, CONCURRENCY).await?;
    let snapshot = address.snapshot.as_deref().map(|text| match text {
        "latest" => SnapshotSelector::Latest,
        other => SnapshotSelector::Named(other.to_owned()),
    });
    let depth = if args.deep { Depth::Deep } else { Depth::Structure };
    let options = VerifyOptions { snapshot, depth, resume: args.resume };
    let (runtime, format, of) = (tokio::runtime::Handle::current(), context.format, name.clone());
    let work = move || {
        let mut printer = Printer { format, progress: VerifyProgress::new(), failure: None };
        let report = verify(store, &of, runtime, &options, &mut printer)?;
        printer.failure.map_or(Ok(report), Err)
    };
    let report = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(FailureKind::Bug, format!("verify {name}: {error}")))??;
    let sound = report.is_sound();
    let summary = Summary {
        name: name.to_string(),
        snapshot: address.snapshot.as_deref(),
        deep: args.deep,
        sound,
        report: &report,
    };
    output::print(context.format, &Line::Summary(summary), &in_words(&name, args.deep, &report))?;
    if sound {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Corrupt, format!("{name} is damaged: {} findings", report.damage))
        .with_hint("each finding says what helps; cbfs verify --deep tells of every byte"))
}

/// Prints findings as they come.
struct Printer {
    format: Format,
    progress: VerifyProgress,
    failure: Option<Failure>,
}

impl Watch for Printer {
    fn progress(&mut self, progress: &Progress) {
        self.progress.show(progress);
    }

    fn finding(&mut self, finding: &Finding) {
        let format = self.format;
        let printed = self.progress.above(|| output::print(format, &Line::Finding(finding), &Told(finding)));
        self.failure = self.failure.take().or(printed.err());
    }
}

/// A finding for people.
struct Told<'a>(&'a Finding);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finding = self.0;
        let severity = match finding.severity {
            Severity::Damage => "DAMAGE",
            Severity::Note => "note",
        };
        write!(f, "{severity} ({})", finding.problem.name())?;
        if let Some(object) = &finding.object {
            write!(f, " {}", plain(object))?;
        }
        match (finding.inode, &finding.path) {
            (Some(inode), Some(path)) => write!(f, " {} (inode {inode})", plain(path))?,
            (Some(inode), None) => write!(f, " inode {inode}")?,
            (None, _) => {}
        }
        writeln!(f, ": {}", plain(&finding.what))?;
        if !finding.snapshots.is_empty() {
            writeln!(f, "  hits: {}", plain(&names(&finding.snapshots)))?;
        }
        writeln!(f, "  hint: {}", finding.hint)
    }
}

/// A line break or an escape sequence in a name must not look like something else.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn names(snapshots: &[SnapshotName]) -> String {
    let name = |snapshot: &SnapshotName| snapshot.name.clone().unwrap_or_else(|| snapshot.id.to_string());
    match snapshots {
        [first, .., last] if snapshots.len() > SNAPSHOTS_NAMED => {
            format!("{} snapshots from {} to {}", snapshots.len(), name(first), name(last))
        }
        few => few.iter().map(name).collect::<Vec<_>>().join(", "),
    }
}

fn in_words(name: &FsName, deep: bool, report: &VerifyReport) -> String {
    let VerifyReport { snapshots, records, runs, packs, bytes_read, inodes, .. } = report;
    let verdict = match (report.damage, deep) {
        (0, true) => "sound, every byte".to_owned(),
        (0, false) => "its structure is sound".to_owned(),
        (damage, _) => format!("DAMAGED, {damage} findings"),
    };
    let mut text = format!(
        "{name}: {verdict} ({snapshots} snapshots, {inodes} files in the newest, {records} ledger records, {runs} runs, \
         {packs} packs, {} read)",
        size(*bytes_read)
    );
    if report.unreferenced > 0 {
        let bytes = size(report.unreferenced_bytes);
        text.push_str(&format!("\n{} objects are not needed ({bytes})", report.unreferenced));
    }
    if report.later_snapshots > 0 {
        text.push_str(&format!("\n{} newer snapshots were not looked at: verify again", report.later_snapshots));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn names_of_many_snapshots_stay_short_and_control_characters_do_not_pass() {
        let snapshot =
            |n: u128, name: Option<&str>| SnapshotName { id: Uuid::from_u128(n), name: name.map(Into::into) };
        assert_eq!(names(&[snapshot(1, Some("a")), snapshot(2, None)]), format!("a, {}", Uuid::from_u128(2)));
        let many: Vec<_> = (0..9).map(|n| snapshot(n, Some(&format!("s{n}")))).collect();
        assert_eq!(names(&many), "9 snapshots from s0 to s8");
        assert_eq!(plain("a\n\u{1b}[2J"), "a??[2J");
    }
}
