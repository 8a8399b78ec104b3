//! `cbfs man`

use crate::cli::{Cli, ManArgs};
use crate::failure::Failure;
use crate::output;
use clap::CommandFactory;
use std::path::Path;

pub(super) fn run(args: &ManArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    match &args.dir {
        Some(dir) => {
            command.build();
            write_pages(command, dir)
        }
        None => output::print_text(&page(command)?),
    }
}

fn page(command: clap::Command) -> Result<String, Failure> {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command).render(&mut page);
    rendered.map_err(|error| Failure::from_io(&error, "render", Path::new("the manual page")))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// `cbfs.1`, `cbfs-mount.1`, `cbfs-snapshot-list.1` …
fn write_pages(command: clap::Command, dir: &Path) -> Result<(), Failure> {
    for sub in command.get_subcommands().cloned() {
        write_pages(sub, dir)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).replace(' ', "-");
    let path = dir.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?).map_err(|error| Failure::from_io(&error, "write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_example() {
        let dir = tempfile::tempdir().unwrap();
        run(&ManArgs { dir: Some(dir.path().to_owned()) }).unwrap();
        for page in ["cbfs.1", "cbfs-mount.1", "cbfs-snapshot.1", "cbfs-snapshot-status.1", "cbfs-promote.1"] {
            let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
            assert!(text.contains(".TH") && text.contains("Example"), "{page}");
        }
    }
}
