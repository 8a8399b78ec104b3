use super::*;

struct Node {
    dir: tempfile::TempDir,
    environment: BTreeMap<String, String>,
    flags: Vec<(String, String)>,
    global: BTreeMap<String, String>,
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

impl Node {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            environment: BTreeMap::new(),
            flags: Vec::new(),
            global: BTreeMap::new(),
        }
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let sources = Sources { config_dir: self.dir.path(), environment: &self.environment, flags: &self.flags };
        let name = "home-00000000-0000-0000-0000-000000000007".parse().unwrap();
        Settings::of_filesystem(&sources, &name, &self.global)
    }

    fn interval(&self) -> (String, String) {
        let settings = self.settings().unwrap();
        let line = settings.line(keys::CHECK_INTERVAL).unwrap().clone();
        (line.value.unwrap(), line.source)
    }
}

#[test]
fn each_source_wins_over_the_ones_below() {
    let mut node = Node::new();
    assert_eq!(node.interval(), ("30s".into(), "default".into()));
    node.global = map(&[("check_interval", "1s"), ("a.key.of.the.future", "x")]);
    assert_eq!(node.interval(), ("1s".into(), "filesystem config".into()));
    node.file("cbfs.toml", "check_interval = \"2s\"\n[proxy]\nmax_bytes = \"1GiB\"");
    assert_eq!(node.interval(), ("2s".into(), node.dir.path().join("cbfs.toml").display().to_string()));
    node.file("fs.d/home.toml", "check_interval = \"3s\"");
    assert_eq!(node.interval().0, "3s");
    node.file("fs.d/home-00000000-0000-0000-0000-000000000007.toml", "check_interval = \"4s\"");
    assert_eq!(node.interval().0, "4s");
    node.environment = map(&[("CBFS_CHECK_INTERVAL", "5s"), ("CBFS_FETCH_TIMEOUT", "")]);
    assert_eq!(node.interval(), ("5s".into(), "environment CBFS_CHECK_INTERVAL".into()));
    node.flags = vec![("check_interval".into(), "6s".into())];
    assert_eq!(node.interval(), ("6s".into(), "flag --set".into()));

    let limits = node.settings().unwrap().limits().unwrap();
    assert_eq!(limits.check_interval, Duration::from_secs(6));
    assert_eq!(limits.proxy_max_bytes, 1 << 30);
    assert_eq!(limits.kvs_max_bytes, None);
    assert_eq!(limits.upload_concurrency, 4);
    assert_eq!(node.settings().unwrap().restart().unwrap(), Restart::On);
    node.flags = vec![("daemon.restart".into(), "off".into())];
    assert_eq!(node.settings().unwrap().restart().unwrap(), Restart::Off);
}

#[test]
fn another_filesystems_file_is_not_read() {
    let node = Node::new();
    node.file("fs.d/other.toml", "check_interval = \"3s\"");
    assert_eq!(node.interval().0, "30s");
}

#[test]
fn mistakes_are_named_with_their_source() {
    for (text, wanted) in [
        ("check_intervall = \"3s\"", "check_intervall"),
        ("check_interval = \"soon\"", "soon"),
        ("check_interval = \"0s\"", "0s"),
        ("[proxy]\nmax_bytes = -1", "-1"),
        ("[upload]\nconcurrency = 0", "upload.concurrency"),
        ("[daemon]\nrestart = \"perhaps\"", "perhaps"),
        ("store = [1]", "store"),
        ("= x", "cbfs.toml"),
    ] {
        let node = Node::new();
        node.file("cbfs.toml", text);
        let failure = node.settings().unwrap_err();
        assert_eq!(failure.kind, FailureKind::InvalidInput, "{text}");
        assert!(failure.message.contains(wanted) && failure.message.contains("cbfs.toml"), "{}", failure.message);
    }
}

#[test]
fn assignments_are_checked() {
    assert_eq!(parse_assignment("kvs.max_disk=2GiB").unwrap(), ("kvs.max_disk".into(), "2GiB".into()));
    assert_eq!(parse_assignment("store=s3://b?a=b").unwrap().1, "s3://b?a=b");
    for bad in ["kvs.max_disk", "kvs.max_disk=big", "nothing=1", "=1"] {
        assert_eq!(parse_assignment(bad).unwrap_err().kind, FailureKind::InvalidInput, "{bad}");
    }
}

#[test]
fn every_example_of_a_local_config_is_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config-examples");
    let none = BTreeMap::new();
    let sources = Sources { config_dir: &examples, environment: &none, flags: &[] };
    let name = "home-00000000-0000-0000-0000-000000000007".parse().unwrap();
    let settings = Settings::of_filesystem(&sources, &name, &none).unwrap();
    settings.limits().unwrap();
    for line in settings.lines() {
        assert!(line.source.contains("config-examples"), "no example of {}", line.key);
    }
}
