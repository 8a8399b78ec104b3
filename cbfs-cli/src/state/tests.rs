use super::*;
use cloud_mgmt::config::ProbeReport;
use uuid::Uuid;

fn name(tag: &str, id: u128) -> FsName {
    FsName { tag: tag.parse().unwrap(), id: Uuid::from_u128(id) }
}

fn config(name: &FsName) -> FsConfig {
    let now = jiff::Timestamp::UNIX_EPOCH;
    FsConfig {
        format: 1,
        id: name.id,
        tag: name.tag.to_string(),
        created: now,
        created_by: "test".into(),
        op: Uuid::nil(),
        features: Vec::new(),
        probe: ProbeReport { rounds: 1, racers: 2, checked: now },
        settings: [("check_interval".to_owned(), "9s".to_owned())].into(),
    }
}

fn state() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path().join("new/state"));
    (dir, state)
}

fn make(state: &StateDir, name: &FsName, purpose: &Purpose) -> Instance {
    state.create_instance(name, "file:///b", purpose, &config(name)).unwrap()
}

fn address(text: &str) -> FsAddress {
    FsAddress::parse(text).unwrap()
}

#[test]
fn an_instance_comes_back_as_it_was() {
    let (_dir, state) = state();
    assert!(state.instances().unwrap().is_empty());
    let home = name("home", 7);
    let mut made = make(&state, &home, &Purpose::Write);
    made.update(|local| local.mount_point = Some("/mnt".into())).unwrap();
    let found = state.for_purpose(&address("home"), &Purpose::Write).unwrap().unwrap();
    assert_eq!(found.local(), made.local());
    assert_eq!(found.config().unwrap(), config(&home));
    assert_eq!(found.pid(), None);
}

#[test]
fn a_master_and_its_snapshots_live_side_by_side() {
    let (_dir, state) = state();
    let home = name("home", 7);
    let purposes =
        [Purpose::Write, Purpose::Show("latest".into()), Purpose::Show("a b".into()), Purpose::Show("a_b".into())];
    let made = purposes.each_ref().map(|purpose| make(&state, &home, purpose));
    for (purpose, made) in purposes.iter().zip(&made) {
        let found = state.for_purpose(&address("home"), purpose).unwrap().unwrap();
        assert_eq!(found.dir(), made.dir(), "{purpose:?}");
    }
    assert_eq!(state.of_address(&address("home")).unwrap().len(), 4);
}

#[test]
fn a_promoted_slave_is_the_master_and_leaves_room_for_a_new_slave() {
    let (_dir, state) = state();
    let home = name("home", 7);
    let latest = Purpose::Show("latest".into());
    let mut slave = make(&state, &home, &latest);
    assert!(state.for_purpose(&address("home"), &Purpose::Write).unwrap().is_none());
    for role in [LocalRole::Promoting, LocalRole::Master] {
        slave.update(|local| local.role = role).unwrap();
        let master = state.for_purpose(&address("home"), &Purpose::Write).unwrap().unwrap();
        assert_eq!(master.dir(), slave.dir());
    }
    assert!(state.for_purpose(&address("home"), &latest).unwrap().is_none());
    assert_ne!(make(&state, &home, &latest).dir(), slave.dir());
}

#[test]
fn of_two_masters_on_a_node_the_promoted_one_is_meant() {
    let (_dir, state) = state();
    let home = name("home", 7);
    make(&state, &home, &Purpose::Write);
    let mut promoted = make(&state, &home, &Purpose::Show("latest".into()));
    promoted
        .update(|local| {
            local.role = LocalRole::Master;
            local.promoted_to = 2;
        })
        .unwrap();
    let master = state.for_purpose(&address("home"), &Purpose::Write).unwrap().unwrap();
    assert_eq!(master.dir(), promoted.dir());
}

#[test]
fn of_two_that_make_an_instance_one_does() {
    let (_dir, state) = state();
    let home = name("home", 7);
    let dirs: Vec<_> = std::thread::scope(|scope| {
        let make = || make(&state, &home, &Purpose::Write).dir().to_owned();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(dirs.iter().all(|dir| *dir == dirs[0]));
    assert_eq!(state.instances().unwrap().len(), 1);
}

#[test]
fn an_address_finds_its_filesystem() {
    let (_dir, state) = state();
    let (one, two) = (name("home", 0xabcd_0000_0000_0000_0000_0000_0000_0001), name("home", 2));
    make(&state, &one, &Purpose::Write);
    make(&state, &two, &Purpose::Write);
    let ambiguous = state.of_address(&address("home")).unwrap_err();
    assert_eq!(ambiguous.kind, FailureKind::Exists);
    assert!(ambiguous.message.contains(&one.to_string()) && ambiguous.message.contains(&two.to_string()));
    for text in [one.to_string(), one.id.to_string(), "abcd".into(), "ABCD0000-00".into(), format!("file:///b/#{one}")]
    {
        let found = state.of_address(&address(&text)).unwrap();
        assert_eq!(found.iter().map(Instance::name).collect::<Vec<_>>(), [&one], "{text}");
    }
    for text in ["abc", "hom", "other", "file:///c#abcd"] {
        assert!(state.of_address(&address(text)).unwrap().is_empty(), "{text}");
    }
}

#[test]
fn what_never_served_can_go_and_what_served_cannot() {
    let (_dir, state) = state();
    let home = name("home", 7);
    make(&state, &home, &Purpose::Write).remove_unserved().unwrap();
    assert!(state.instances().unwrap().is_empty());
    let mut served = make(&state, &home, &Purpose::Write);
    served.update(|local| local.served = true).unwrap();
    assert!(served.remove_unserved().is_err());
    assert_eq!(state.instances().unwrap().len(), 1);
}

#[test]
fn an_unfinished_instance_is_not_seen() {
    let (_dir, state) = state();
    std::fs::create_dir_all(state.root().join("fs/.new-1")).unwrap();
    assert!(state.instances().unwrap().is_empty());
}
