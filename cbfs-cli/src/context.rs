//! What a command starts from: where things are, what the environment says, how to print.

use crate::cli::GlobalArgs;
use crate::failure::Failure;
use crate::mounts::absolute;
use crate::output::Format;
use crate::settings::{Settings, Sources};
use crate::state::StateDir;
use cloud_mgmt::names::FsName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a command starts from. Nothing below reads the process's environment.
#[derive(Clone, Debug)]
pub struct Context {
    /// The node.
    pub state: StateDir,
    /// Folder of `cbfs.toml` and `fs.d/`.
    pub config_dir: PathBuf,
    /// The `CBFS_…` variables.
    pub environment: BTreeMap<String, String>,
    /// How to print.
    pub format: Format,
}

impl Context {
    /// From the options and the environment of the process.
    pub fn new(global: &GlobalArgs) -> Result<Self, Failure> {
        let environment: BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let root = rustix::process::geteuid().is_root();
        let state = folder(global.state_dir.as_deref(), root, &environment, &STATE)?;
        let config_dir = folder(global.config_dir.as_deref(), root, &environment, &CONFIG)?;
        let format = if global.json { Format::JsonLines } else { Format::Text };
        Ok(Self { state: StateDir::new(state), config_dir, environment, format })
    }

    fn sources<'a>(&'a self, flags: &'a [(String, String)]) -> Sources<'a> {
        Sources { config_dir: &self.config_dir, environment: &self.environment, flags }
    }

    /// The settings of the node.
    pub fn node_settings(&self) -> Result<Settings, Failure> {
        Settings::of_node(&self.sources(&[]))
    }

    /// The settings of a filesystem.
    pub fn settings(
        &self,
        name: &FsName,
        global: &BTreeMap<String, String>,
        flags: &[(String, String)],
    ) -> Result<Settings, Failure> {
        Settings::of_filesystem(&self.sources(flags), name, global)
    }
}

/// Where a folder is by default.
struct Default {
    system: &'static str,
    variable: &'static str,
    below_home: &'static str,
    option: &'static str,
}

const STATE: Default =
    Default { system: "/var/lib/cbfs", variable: "XDG_STATE_HOME", below_home: ".local/state", option: "--state-dir" };
const CONFIG: Default =
    Default { system: "/etc/cbfs", variable: "XDG_CONFIG_HOME", below_home: ".config", option: "--config-dir" };

fn folder(
    given: Option<&Path>,
    root: bool,
    environment: &BTreeMap<String, String>,
    default: &Default,
) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return absolute(path);
    }
    if root {
        return Ok(default.system.into());
    }
    // The XDG rules: a relative path counts as not set.
    let path = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path(default.variable)
        .or_else(|| path("HOME").map(|home| home.join(default.below_home)))
        .map(|folder| folder.join("cbfs"))
        .ok_or_else(|| Failure::invalid(format!("HOME is not set: say where with {}", default.option)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_follow_root_and_xdg() {
        let env = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let state = |given: Option<&str>, root, environment: BTreeMap<_, _>| {
            folder(given.map(Path::new), root, &environment, &STATE).map(|path| path.display().to_string())
        };
        assert_eq!(state(None, true, env(&[("HOME", "/h")])).unwrap(), "/var/lib/cbfs");
        assert_eq!(state(None, false, env(&[("HOME", "/h")])).unwrap(), "/h/.local/state/cbfs");
        assert_eq!(state(None, false, env(&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")])).unwrap(), "/x/cbfs");
        assert_eq!(
            state(None, false, env(&[("HOME", "/h"), ("XDG_STATE_HOME", "x")])).unwrap(),
            "/h/.local/state/cbfs"
        );
        assert_eq!(state(Some("/none/a/../b"), true, env(&[])).unwrap(), "/none/b");
        assert!(state(None, false, env(&[])).is_err());
    }
}
