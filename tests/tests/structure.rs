//! The dependency table of ARCHITECTURE.md, the licences of everything that the product is built of, and the limits that the
//! pages of the formats quote.

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, PackageId};
use cloud_mgmt::config::CONFIG_FORMAT;
use cloud_mgmt::ledger::record::{LEDGER_FORMAT, RECORD_BYTES_MAX};
use cloud_mgmt::ledger::summary;
use kvfs::segment::header;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use toa::pack;
use toa::run::{footer, node};

fn metadata() -> Result<Metadata> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?.join("Cargo.toml");
    let options = ["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(String::from);
    let mut command = MetadataCommand::new();
    command.manifest_path(manifest).features(CargoOpt::AllFeatures).other_options(options);
    Ok(command.exec()?)
}

/// Names of the packages that `package` needs to be built, directly or through others.
fn reached(metadata: &Metadata, package: &str, depth: Depth) -> Result<BTreeSet<String>> {
    let names: BTreeMap<&PackageId, &str> = metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
    let graph = metadata.resolve.as_ref().context("no dependency graph")?;
    let nodes: BTreeMap<&PackageId, _> = graph.nodes.iter().map(|node| (&node.id, node)).collect();
    let root = metadata.packages.iter().find(|p| p.name == package).with_context(|| format!("no {package}"))?;
    let (mut open, mut found) = (vec![&root.id], BTreeSet::new());
    while let Some(id) = open.pop() {
        let normal = |dep: &&cargo_metadata::NodeDep| dep.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
        for dep in nodes.get(id).context("no node")?.deps.iter().filter(normal) {
            let name = names.get(&dep.pkg).context("no name")?;
            if found.insert((*name).to_owned()) && depth == Depth::All {
                open.push(&dep.pkg);
            }
        }
    }
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Direct,
    All,
}

/// LMDB is built so that it keeps few pages in memory; a dependency that asks for more would silently win.
#[test]
fn lmdb_keeps_few_pages() -> Result<()> {
    let metadata = metadata()?;
    let package = metadata.packages.iter().find(|p| p.name == "lmdb-master-sys").context("no LMDB")?;
    let graph = metadata.resolve.as_ref().context("no dependency graph")?;
    let node = graph.nodes.iter().find(|node| node.id == package.id).context("no node")?;
    let sizes: Vec<&str> =
        node.features.iter().map(AsRef::as_ref).filter(|f: &&str| f.starts_with("mdb_idl_")).collect();
    ensure!(sizes == ["mdb_idl_logn_11"], "{sizes:?}");
    Ok(())
}

#[test]
fn crates_depend_in_one_direction() -> Result<()> {
    let metadata = metadata()?;
    // Who; how deep; what must not be there (`*` at the end: anything that starts so).
    let never: [(&str, Depth, &[&str]); 5] = [
        ("kvfs", Depth::All, &["cloud-mgmt", "toa", "cbfs-cli", "cbfs-tests", "aws-*", "tokio", "tar", "zstd*"]),
        ("cloud-mgmt", Depth::All, &["kvfs", "toa", "cbfs-cli", "cbfs-tests", "fuser", "heed", "tar"]),
        ("toa", Depth::Direct, &["fuser", "heed", "aws-*"]),
        ("toa", Depth::All, &["cbfs-cli", "cbfs-tests", "clap", "axum"]),
        ("cbfs-cli", Depth::All, &["cbfs-tests"]),
    ];
    for (package, depth, forbidden) in never {
        let found = reached(&metadata, package, depth)?;
        ensure!(!found.is_empty(), "{package} depends on nothing: the test looks at the wrong graph");
        for name in &found {
            let hit = forbidden.iter().find(|rule| match rule.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == *rule,
            });
            ensure!(hit.is_none(), "{package} must not depend on {name}");
        }
    }
    let toa = reached(&metadata, "toa", Depth::Direct)?;
    ensure!(toa.contains("kvfs") && toa.contains("cloud-mgmt"), "toa is the bridge, but depends on {toa:?}");
    Ok(())
}

#[test]
fn the_workspace_is_what_architecture_says() -> Result<()> {
    let metadata = metadata()?;
    let members: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    ensure!(members == BTreeSet::from(["kvfs", "cloud-mgmt", "toa", "cbfs-cli", "cbfs-tests"]), "{members:?}");
    for package in metadata.workspace_packages() {
        ensure!(package.license.as_deref() == Some("Apache-2.0"), "{} has another licence", package.name);
    }
    Ok(())
}

/// Licences that ask for nothing but to be named (weak copyleft that stays within its own files is in too).
const FINE: [&str; 16] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OLDAP-2.8",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_has_a_permissive_licence() -> Result<()> {
    let metadata = metadata()?;
    let product = reached(&metadata, "cbfs-cli", Depth::All)?;
    let mut looked_at = 0;
    for package in metadata.packages.iter().filter(|package| product.contains(package.name.as_str())) {
        let licence = package.license.as_deref().with_context(|| format!("{} has no licence", package.name))?;
        ensure!(is_fine(licence)?, "{} {} has the licence {licence}", package.name, package.version);
        looked_at += 1;
    }
    ensure!(looked_at > 50, "only {looked_at} packages looked at");
    Ok(())
}

/// Whether an SPDX expression (old style with `/` too) can be met with [`FINE`] licences alone.
fn is_fine(expression: &str) -> Result<bool> {
    let text =
        expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "\u{0}WITH\u{0}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let (value, rest) = any_of(&words)?;
    ensure!(rest.is_empty(), "cannot read the licence {expression:?}");
    Ok(value)
}

fn any_of<'a, 'b>(words: &'a [&'b str]) -> Result<(bool, &'a [&'b str])> {
    let (mut value, mut rest) = all_of(words)?;
    while let Some(("OR", more)) = rest.split_first().map(|(word, more)| (*word, more)) {
        let (next, after) = all_of(more)?;
        (value, rest) = (value || next, after);
    }
    Ok((value, rest))
}

fn all_of<'a, 'b>(words: &'a [&'b str]) -> Result<(bool, &'a [&'b str])> {
    let (mut value, mut rest) = one(words)?;
    while let Some(("AND", more)) = rest.split_first().map(|(word, more)| (*word, more)) {
        let (next, after) = one(more)?;
        (value, rest) = (value && next, after);
    }
    Ok((value, rest))
}

fn one<'a, 'b>(words: &'a [&'b str]) -> Result<(bool, &'a [&'b str])> {
    match words.split_first() {
        Some((&"(", inner)) => match any_of(inner)? {
            (value, [")", rest @ ..]) => Ok((value, rest)),
            _ => bail!("a parenthesis stays open"),
        },
        Some((word, rest)) => Ok((FINE.contains(&word.replace('\u{0}', " ").as_str()), rest)),
        None => bail!("the expression ends early"),
    }
}

/// `16 MiB`, `256 KiB`, `4,096`
fn shown(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => b.to_string(),
    }
}

/// What the pages of the formats say of limits and versions is what the code does.
#[test]
fn the_pages_quote_the_limits_of_the_code() -> Result<()> {
    // The page, how a line of it begins or what stands before the number, the number.
    let quoted: [(&str, &str, String); 26] = [
        ("index-run.md", "# Index run, format ", footer::RUN_FORMAT.to_string()),
        ("index-run.md", "| 8 | 2 | format of the writer: ", footer::RUN_FORMAT.to_string()),
        ("index-run.md", "footer   = ", footer::FOOTER_BYTES.to_string()),
        ("index-run.md", "| node, raw | ", shown(node::RAW_BYTES_MAX as u64)),
        ("index-run.md", "| key | ", shown(node::KEY_BYTES_MAX as u64)),
        ("index-run.md", "| value | ", shown(node::VALUE_BYTES_MAX as u64)),
        ("index-run.md", "| depth | ", footer::DEPTH_MAX.to_string()),
        ("index-run.md", "make it larger than ", shown(node::NODE_BYTES as u64)),
        ("pack.md", "2. A data frame holds ", shown(pack::FRAME_RAW_BYTES as u64)),
        ("pack.md", "raw at most, a mixed frame ", shown(pack::MIXED_FRAME_RAW_BYTES as u64)),
        ("pack.md", "A reader accepts up to ", shown(u64::from(pack::FRAME_RAW_BYTES_MAX))),
        ("pack.md", "10. A pack is closed at about ", shown(pack::PACK_BYTES_TARGET)),
        ("journal.md", "another version is refused; version ", header::VERSION.to_string()),
        ("journal.md", "each at most ", shown(kvfs::data::BLOB_BYTES_MAX as u64)),
        ("journal.md", "the bytes of a write (up to ", shown(kvfs::op::INLINE_BYTES_MAX as u64)),
        ("ledger.md", "| `format` | ", LEDGER_FORMAT.to_string()),
        ("ledger.md", "One JSON object, at most ", shown(RECORD_BYTES_MAX as u64)),
        ("ledger.md", "bytes of the object, 1 to ", shown(summary::SUMMARY_BYTES_MAX)),
        ("ledger.md", "tells its length, at most ", shown(summary::SUMMARY_JSON_BYTES_MAX as u64)),
        ("ledger.md", "| `version` | number | ", summary::SUMMARY_VERSION.to_string()),
        ("ledger.md", "the first snapshot that finds ", cloud_mgmt::ledger::SUMMARY_EVERY_RECORDS.to_string()),
        ("config.md", "| `format` | number | ", CONFIG_FORMAT.to_string()),
        ("values.md", "| bytes of a file in one window | ", shown(kvfs::schema::WINDOW_BYTES)),
        ("values.md", "| raw frame that a reader accepts | ", shown(u64::from(pack::FRAME_RAW_BYTES_MAX))),
        ("values.md", "| key | ", shown(node::KEY_BYTES_MAX as u64)),
        ("values.md", "| name of a file or of an xattr | ", kvfs::fs::NAME_BYTES_MAX.to_string()),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats");
    for (page, before, number) in quoted {
        let text = std::fs::read_to_string(folder.join(page)).with_context(|| page.to_owned())?;
        let at = text.find(before).with_context(|| format!("{page} does not say {before:?}"))? + before.len();
        let rest = text.get(at..).unwrap_or_default();
        let ends = |c: char| !c.is_ascii_alphanumeric();
        ensure!(
            rest.strip_prefix(&number).is_some_and(|rest| rest.is_empty() || rest.starts_with(ends)),
            "{page}: {before:?} is followed by {:?}, the code says {number}",
            rest.chars().take(12).collect::<String>()
        );
    }
    Ok(())
}

#[test]
fn licence_expressions_are_understood() -> Result<()> {
    for fine in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        ensure!(is_fine(fine)?, "{fine}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-2.0 OR AGPL-3.0) AND MIT", "Apache-2.0 WITH Other-exception"] {
        ensure!(!is_fine(bad)?, "{bad}");
    }
    ensure!(is_fine("(MIT").is_err(), "an open parenthesis");
    Ok(())
}
