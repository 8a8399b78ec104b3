use super::*;

/// What scripts rely on; a change here is a change of the interface.
const GOLDEN: &str = "\
invalid-input EINVAL 2 400
not-found ENOENT 3 404
exists EEXIST 4 409
epoch-mismatch EROFS 5 412
deposed EROFS 5 412
read-only EROFS 5 403
denied EACCES 6 403
unavailable EIO 7 503
no-space ENOSPC 8 507
snapshot-failed - 9 200
corrupt EIO 10 500
too-new EOPNOTSUPP 11 501
unsupported EOPNOTSUPP 11 501
gone ESTALE 12 410
busy EBUSY 13 409
bug EIO 70 500
";

#[test]
fn the_table_is_the_documented_one() {
    let rows = FailureKind::ALL.map(FailureKind::meaning);
    let lines = rows.map(|row| format!("{} {} {} {}", row.name, row.errno, row.exit, row.http));
    assert_eq!(lines.join("\n"), GOLDEN.trim_end());
}

#[test]
fn the_name_in_json_is_the_name_in_the_table() {
    for kind in FailureKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.meaning().name);
    }
}

#[test]
fn the_manual_shows_the_same_table() {
    let manual = include_str!("../../../docs/cli.md");
    for row in FailureKind::ALL.map(FailureKind::meaning) {
        let line = format!("| {} | {} | {} | {} |", row.name, row.errno, row.exit, row.http);
        assert!(manual.contains(&line), "docs/cli.md lacks: {line}");
    }
}

#[test]
fn a_full_disk_is_told_from_a_missing_file() {
    let failure = |code| {
        Failure::from_io(&std::io::Error::from_raw_os_error(code), "write", std::path::Path::new("/state/x")).kind
    };
    assert_eq!(failure(libc::ENOSPC), FailureKind::NoSpace);
    assert_eq!(failure(libc::EDQUOT), FailureKind::NoSpace);
    assert_eq!(failure(libc::ENOENT), FailureKind::NotFound);
    assert_eq!(failure(libc::EROFS), FailureKind::Denied);
}

#[test]
fn the_first_hint_stays() {
    let failure = Failure::invalid("x").with_hint("a").with_hint("b");
    assert_eq!(failure.hint.as_deref(), Some("a"));
}
