//! Random system calls on a mount and on a filesystem of the host, side by side: every errno, every result, and what
//! stat(2) shows of everything that a call touched must be the same.

mod action;
mod draw;
mod host;
mod identity;
mod side;

pub use action::{Action, Step, User};
pub use host::HostSide;
pub use identity::Identity;
pub use side::Side;

use anyhow::{Result, bail};
use draw::Draw;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Steps before a mismatch that its message shows.
const SHOWN: usize = 12;

/// Runs `steps` random steps from `seed` on two empty directories. What is open at the end is closed.
///
/// The working directory of the process goes back and forth between the two, and is `/` afterwards.
pub fn run(seed: u64, steps: usize, expected: &Path, found: &Path) -> Result<()> {
    // A directory further down: `..` behind a link to `.` goes up by one.
    let roots = [expected.join("root"), found.join("root")];
    for root in &roots {
        fs::create_dir(root)?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o777))?;
    }
    let outcome = compare(seed, steps, Side::new(&roots[0])?, Side::new(&roots[1])?);
    std::env::set_current_dir("/")?;
    outcome
}

fn compare(seed: u64, steps: usize, mut host: Side, mut mount: Side) -> Result<()> {
    let mut draw = Draw::new(seed);
    let mut before: Vec<String> = Vec::new();
    for number in 0..steps {
        let step = draw.step();
        let (wanted, got) = (host.perform(&step), mount.perform(&step));
        if wanted != got {
            let history = before[before.len().saturating_sub(SHOWN)..].join("\n");
            bail!("seed {seed}, step {number}, {step:?}\n  host:  {wanted}\n  mount: {got}\nbefore:\n{history}");
        }
        before.push(format!("{number} {step:?} -> {wanted}"));
    }
    Ok(())
}
