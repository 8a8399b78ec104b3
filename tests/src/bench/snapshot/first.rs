//! The first snapshot of a source tree, and snapshots of a tree of which one in a hundred files has changed.

use super::cost::{Cost, take};
use super::figures::{Unit, What};
use super::peers::Peers;
use super::tree::{edit, files_of, unpack};
use super::{Bench, FIRST, INCREMENTAL, Mounted};
use crate::bench::workload::Tree;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// Times of a whole first snapshot, beside `tar | zstd -3 | upload`.
const FIRST_LIMIT: f64 = 1.2;
/// Its bytes, beside the same.
const FIRST_BYTES_LIMIT: f64 = 1.1;
/// Times of an incremental one, beside restic's.
const RESTIC_LIMIT: f64 = 0.1;
/// Beside `tar -g | zstd -3 | upload`.
const INCREMENTAL_LIMIT: f64 = 0.6;
/// Its bytes, beside the same.
const INCREMENTAL_BYTES_LIMIT: f64 = 1.2;
/// One in so many files changes.
const ONE_IN: usize = 100;

const TAR: &str = "tar | zstd -3 | upload";
const TAR_CHANGES: &str = "tar -g | zstd -3 | upload";

/// The same tree twice: on a filesystem with a snapshot of it, and on the host, where the peers know it.
pub(super) struct Pair {
    pub mounted: Mounted,
    on_mount: PathBuf,
    on_host: PathBuf,
    peers: Peers,
    repository: String,
    files: Vec<PathBuf>,
}

/// What the three took of the same work.
struct Costs {
    cbfs: Cost,
    tar: Cost,
    restic: Option<Cost>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Cbfs,
    Tar,
    Restic,
}

/// Everybody, somebody else first in each round.
fn turns(round: usize) -> [Who; 3] {
    let mut all = [Who::Cbfs, Who::Tar, Who::Restic];
    all.rotate_left(round % 3);
    all
}

fn in_turns(round: usize, mut run: impl FnMut(Who) -> Result<Option<Cost>>) -> Result<Costs> {
    let (mut cbfs, mut tar, mut restic) = (None, None, None);
    for who in turns(round) {
        let cost = run(who)?;
        match who {
            Who::Cbfs => cbfs = cost,
            Who::Tar => tar = cost,
            Who::Restic => restic = cost,
        }
    }
    Ok(Costs { cbfs: cbfs.context("no snapshot")?, tar: tar.context("no tar")?, restic })
}

impl Bench<'_, '_> {
    pub(super) fn first(&mut self) -> Result<()> {
        for round in 0..self.plan.amounts.rounds {
            let costs = self.first_round(round)?;
            self.add_costs((FIRST, TAR), &costs);
            self.figures.add(
                What::new(FIRST, format!("time / {TAR}"), Unit::Times).at_most(FIRST_LIMIT),
                costs.cbfs.seconds / costs.tar.seconds.max(1e-9),
            );
            self.figures.add(
                What::new(FIRST, format!("bytes / {TAR}"), Unit::Times).at_most(FIRST_BYTES_LIMIT),
                costs.cbfs.bytes as f64 / costs.tar.bytes.max(1) as f64,
            );
            if let Some(restic) = &costs.restic {
                let ratio = costs.cbfs.seconds / restic.seconds.max(1e-9);
                self.figures.add(What::new(FIRST, "time / restic backup", Unit::Times), ratio);
            }
        }
        Ok(())
    }

    /// One first snapshot on a new filesystem, and the same by the peers; the pair stays for the next step.
    fn first_round(&mut self, round: usize) -> Result<Costs> {
        let tree: Tree = self.plan.tree.clone().context("no source tree")?;
        let (now, all) = (round + 1, self.plan.amounts.rounds);
        self.site.tell(format_args!("first snapshot, round {now} of {all}: unpacking"));
        let (on_host, peers, files) = if let Some(before) = self.pair.take() {
            before.mounted.end()?;
            (before.on_host, before.peers, before.files)
        } else {
            let host = self.site.dir.join("host-tree");
            fs::create_dir_all(&host)?;
            let (on_host, _) = unpack(&tree, &host)?;
            let files = files_of(&on_host)?;
            (on_host, Peers::new(&self.bucket, &self.site.dir.join("peers"))?, files)
        };
        match peers.restic_version()? {
            Some(version) => self.figures.note(version),
            None => self.figures.note("restic is not installed, and left out (Debian has a package)"),
        }
        let mounted = self.filesystem()?;
        let (on_mount, _) = unpack(&tree, mounted.dir())?;
        let repository = format!("first-{round}");
        peers.restic_init(&repository)?;
        mounted.filesystem.settle(self.site.settle)?;
        let costs = in_turns(round, |who| {
            self.site.tell(format_args!("first snapshot, round {now} of {all}: {}", name_of(who)));
            // Whoever reads next finds the host's files in memory, as the filesystem has its own.
            files.iter().try_for_each(|file| fs::read(on_host.join(file)).map(drop))?;
            Ok(match who {
                Who::Cbfs => Some(take(&mounted.filesystem, "first")?),
                Who::Tar => Some(peers.tar(&on_host, &repository)?),
                Who::Restic => peers.restic(&on_host, &repository)?,
            })
        })?;
        self.pair = Some(Pair { mounted, on_mount, on_host, peers, repository, files });
        Ok(costs)
    }

    pub(super) fn incremental(&mut self) -> Result<()> {
        if self.pair.is_none() {
            self.first_round(0)?;
        }
        let Some(pair) = self.pair.take() else { return Ok(()) };
        pair.peers.list_tree(&pair.on_host)?;
        for round in 0..self.plan.amounts.rounds {
            let costs = self.incremental_round(&pair, round)?;
            self.add_costs((INCREMENTAL, TAR_CHANGES), &costs);
            if let Some(restic) = &costs.restic {
                self.figures.add(
                    What::new(INCREMENTAL, "time / restic backup", Unit::Times).at_most(RESTIC_LIMIT),
                    costs.cbfs.seconds / restic.seconds.max(1e-9),
                );
            }
            self.figures.add(
                What::new(INCREMENTAL, format!("time / {TAR_CHANGES}"), Unit::Times).at_most(INCREMENTAL_LIMIT),
                costs.cbfs.seconds / costs.tar.seconds.max(1e-9),
            );
            self.figures.add(
                What::new(INCREMENTAL, format!("bytes / {TAR_CHANGES}"), Unit::Times).at_most(INCREMENTAL_BYTES_LIMIT),
                costs.cbfs.bytes as f64 / costs.tar.bytes.max(1) as f64,
            );
        }
        self.pair = Some(pair);
        Ok(())
    }

    fn incremental_round(&mut self, pair: &Pair, round: usize) -> Result<Costs> {
        let (now, all) = (round + 1, self.plan.amounts.rounds);
        let seed = self.plan.amounts.seed + round as u64;
        self.site.tell(format_args!("incremental snapshot, round {now} of {all}: changing files"));
        let changed = edit(&pair.on_mount, &pair.files, ONE_IN, seed)?;
        edit(&pair.on_host, &pair.files, ONE_IN, seed)?;
        self.figures.add(What::new(INCREMENTAL, "files that changed", Unit::Count), changed as f64);
        pair.mounted.filesystem.settle(self.site.settle)?;
        let object = format!("{}-changes-{round}", pair.repository);
        in_turns(round, |who| {
            self.site.tell(format_args!("incremental snapshot, round {now} of {all}: {}", name_of(who)));
            Ok(match who {
                Who::Cbfs => Some(take(&pair.mounted.filesystem, &format!("changes-{round}"))?),
                Who::Tar => Some(pair.peers.tar_changes(&pair.on_host, &object)?),
                Who::Restic => pair.peers.restic(&pair.on_host, &pair.repository)?,
            })
        })
    }

    fn add_costs(&mut self, (step, tar): (&'static str, &str), costs: &Costs) {
        let named = [("CBFS", Some(&costs.cbfs)), (tar, Some(&costs.tar)), ("restic backup", costs.restic.as_ref())];
        let known = || named.iter().filter_map(|(name, cost)| Some((*name, (*cost)?)));
        for (name, cost) in known() {
            self.figures.add(What::new(step, format!("time, {name}"), Unit::Seconds), cost.seconds);
        }
        for (name, cost) in known() {
            let what = if name == "CBFS" { "its daemon".to_owned() } else { name.to_owned() };
            self.figures.add(What::new(step, format!("processor, {what}"), Unit::CpuSeconds), cost.cpu_seconds);
        }
        for (name, cost) in known() {
            self.figures.add(What::new(step, format!("bytes, {name}"), Unit::Mebibytes), cost.mebibytes());
        }
    }
}

fn name_of(who: Who) -> &'static str {
    match who {
        Who::Cbfs => "CBFS",
        Who::Tar => "tar",
        Who::Restic => "restic",
    }
}
