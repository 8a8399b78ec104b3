use super::*;
use proptest::prelude::*;
use uuid::Uuid;

fn name() -> FsName {
    FsName { tag: "home".parse().unwrap(), id: Uuid::from_u128(7) }
}

fn config() -> FsConfig {
    FsConfig {
        format: CONFIG_FORMAT,
        id: name().id,
        tag: "home".into(),
        created: jiff::Timestamp::UNIX_EPOCH,
        created_by: "cbfs 0.1.0".into(),
        op: Uuid::from_u128(8),
        features: vec![],
        probe: ProbeReport { rounds: 10, racers: 8, checked: jiff::Timestamp::UNIX_EPOCH },
        settings: BTreeMap::from([("snapshot.interval".into(), "1h".into())]),
    }
}

#[test]
fn a_config_comes_back_and_unknown_keys_are_ignored() {
    let bytes = config().encode().unwrap();
    assert_eq!(FsConfig::parse(&name(), &bytes).unwrap(), config());
    let text = String::from_utf8(bytes).unwrap().replacen('{', "{\"from_the_future\":[1],", 1);
    assert_eq!(FsConfig::parse(&name(), text.as_bytes()).unwrap(), config());
}

#[test]
fn a_newer_format_is_too_new_and_no_parse_error() {
    let bytes = br#"{"format": 2, "id": "something else entirely"}"#;
    let error = FsConfig::parse(&name(), bytes).unwrap_err();
    assert_eq!(error, ConfigError::TooNew { object: name().config_object(), found: 2 });
}

#[test]
fn a_config_under_another_name_is_refused() {
    let other = FsName { tag: "other".parse().unwrap(), id: name().id };
    let error = FsConfig::parse(&other, &config().encode().unwrap()).unwrap_err();
    assert!(matches!(error, ConfigError::Malformed { .. }), "{error}");
}

#[test]
fn unknown_features_refuse_writers_and_mostly_readers() {
    let with = |feature: &str| FsConfig { features: vec![feature.into()], ..config() };
    let may = |feature: &str, mode| with(feature).check_features(mode).is_ok();
    assert!(!may("teleport", AccessMode::ReadOnly));
    assert!(!may("teleport", AccessMode::ReadWrite));
    assert!(may("ro-shiny", AccessMode::ReadOnly));
    assert!(!may("ro-shiny", AccessMode::ReadWrite));
    assert!(config().check_features(AccessMode::ReadWrite).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(FsConfig::parse(&name(), &bytes).is_err());
    }

    #[test]
    fn a_cut_config_is_refused(cut in 0usize..300) {
        let bytes = config().encode().unwrap();
        let cut = cut.min(bytes.len() - 3);
        prop_assert!(FsConfig::parse(&name(), &bytes[..cut]).is_err());
    }
}

/// Written by the first version; `CBFS_TEST_BLESS=1` writes it anew, which is right only before a format is released.
#[test]
fn the_first_config_of_format_1_is_read_for_ever() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config-1.json");
    let features = vec!["ro-later".to_owned()];
    let config = FsConfig { features, ..config() };
    if std::env::var_os("CBFS_TEST_BLESS").is_some() {
        std::fs::write(&path, config.encode().unwrap()).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(FsConfig::parse(&name(), &golden).unwrap(), config);
    assert_eq!(config.encode().unwrap(), golden, "what is written today");
}
