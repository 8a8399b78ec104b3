use super::*;
use clap::CommandFactory;
use std::fmt::Write;
use std::path::Path;

/// Help of a command and of those below it, as a terminal of 100 columns shows it.
fn help(command: &clap::Command, path: &str, out: &mut String) {
    let mut shown = command.clone().term_width(100).bin_name(path);
    writeln!(out, "===== {path} =====\n{}", shown.render_long_help()).unwrap();
    for sub in command.get_subcommands() {
        help(sub, &format!("{path} {}", sub.get_name()), out);
    }
}

#[test]
fn help_is_what_it_was() {
    let mut root = Cli::command();
    root.build();
    let mut shown = String::new();
    help(&root, "cbfs", &mut shown);
    let shown = shown.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/help.txt");
    if std::env::var_os("CBFS_UPDATE_HELP").is_some() {
        std::fs::write(&file, &shown).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap();
    assert!(shown == wanted, "the help has changed: look at it, and accept it with CBFS_UPDATE_HELP=1\n{shown}");
}

#[test]
fn every_command_shows_an_example() {
    fn check(command: &clap::Command) {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("Example") && after.contains("cbfs "), "{}", command.get_name());
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_short_form_of_snapshot_is_create() {
    for line in ["cbfs snapshot home --name n --wait", "cbfs snapshot create home --name n --wait"] {
        let Command::Snapshot(args) = parse(line).unwrap().command else { panic!("{line}") };
        let create = match args.command {
            Some(SnapshotCommand::Create(create)) => create,
            None => args.create.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!((create.fs.as_str(), create.name.as_deref(), create.wait), ("home", Some("n"), true));
    }
    let Command::Snapshot(args) = parse("cbfs snapshot status home x").unwrap().command else { panic!() };
    assert!(matches!(args.command, Some(SnapshotCommand::Status(_))));
    assert!(parse("cbfs snapshot").is_err());
    assert!(parse("cbfs snapshot list").is_err());
}

#[test]
fn nonsense_is_refused() {
    for line in [
        "cbfs",
        "cbfs mount",
        "cbfs promote home",
        "cbfs promote home --epoch -1",
        "cbfs mount home /m --set nothing=1",
        "cbfs mount home /m --set check_interval=soon",
        "cbfs mount home /m --create --read-only",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn the_example_unit_runs_a_command_that_exists() {
    let unit = include_str!("../../../config-examples/cbfs@.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).unwrap();
    let Command::Mount(args) = parse(&line.replace("%i", "home")).unwrap().command else { panic!("{line}") };
    assert!(args.process.foreground && args.fs == "home");
    assert!(unit.contains("Type=notify"));
}

#[test]
fn the_example_policy_lets_slaves_read_and_nothing_else() {
    let text = include_str!("../../../config-examples/slave-bucket-policy.json");
    let policy: serde_json::Value = serde_json::from_str(text).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions: Vec<_> = statements.iter().map(|s| s["Action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["s3:GetObject", "s3:ListBucket"]);
}
