//! Planned errors, and syncs that lie.

use super::disk::Errno;

/// Which requests a plan counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Writes to files, and changes of their length.
    Write,
    /// fsync and fdatasync, of files and directories.
    Sync,
    /// Everything that makes, moves or removes a name.
    Name,
    /// All of these.
    Any,
}

/// What the request does all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: an error before.
    Nothing,
    /// Half of the bytes of a write arrive; the caller gets the error.
    Half,
    /// Half of the bytes of a write arrive, and that is what the caller is told. Of other requests: nothing, an error.
    Short,
    /// Everything; the error comes after it.
    Everything,
}

/// A planned error.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which requests count.
    pub calls: Calls,
    /// Which of them is the first that fails, from 1.
    pub nth: u64,
    /// How many fail.
    pub times: u64,
    /// The error.
    pub errno: i32,
    /// What happens all the same.
    pub effect: Effect,
}

/// What kind of sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Of a file.
    File,
    /// Of the names in a directory.
    Names,
}

/// Syncs of what lies below a path do nothing and say that they did. Of a file nothing that was written since survives, and
/// nothing is torn: LMDB would run into the ground on pages of a transaction that it believes to be whole.
#[derive(Clone, Copy, Debug)]
pub struct Lie {
    /// Beginning of the path, below the life's directory.
    pub path: &'static str,
    /// Which syncs.
    pub sync: Sync,
}

/// What is planned.
#[derive(Debug, Default)]
pub(super) struct Faults {
    plan: Option<Fault>,
    /// The plan is for what lies below this path.
    below: &'static str,
    seen: u64,
    struck: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    lies: Vec<Lie>,
}

impl Faults {
    pub(super) fn plan(&mut self, below: &'static str, fault: Fault) {
        self.below = below;
        (self.plan, self.seen, self.struck, self.failed_syncs) = (Some(fault), 0, 0, 0);
    }

    pub(super) fn heal(&mut self) -> u64 {
        self.plan = None;
        self.struck
    }

    pub(super) fn struck(&self) -> u64 {
        self.struck
    }

    pub(super) fn lie(&mut self, lie: Lie) {
        self.lies.push(lie);
    }

    /// Whether the plan strikes a request of the kind `calls` on `path`, and how.
    pub(super) fn strikes(&mut self, calls: Calls, path: &str) -> Option<(Effect, Errno)> {
        let plan = self.plan.filter(|plan| plan.calls == calls || plan.calls == Calls::Any)?;
        if !format!("{path}/").starts_with(self.below) {
            return None;
        }
        self.seen += 1;
        if self.seen < plan.nth || self.seen >= plan.nth.saturating_add(plan.times) {
            return None;
        }
        self.struck += 1;
        self.failed_syncs += u64::from(calls == Calls::Sync);
        Some((plan.effect, plan.errno))
    }

    pub(super) fn lies_about(&self, path: &str, sync: Sync) -> bool {
        self.lies.iter().any(|lie| lie.sync == sync && path.starts_with(lie.path))
    }

    /// Whether syncs of the file at `path` do nothing.
    pub(super) fn is_unsynced(&self, path: &str) -> bool {
        self.lies_about(path, Sync::File)
    }
}
