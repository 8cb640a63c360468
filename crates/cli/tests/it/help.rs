// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `--help` says, and that every command knows wrong usage.

use crate::stand::Stand;

fn names() -> Vec<String> {
    superpose_cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect()
}

#[test]
fn help_of_the_program_and_of_every_command() {
    let stand = Stand::new();
    insta::assert_snapshot!("help", stand.text(&["--help"]));
    for name in names() {
        let help = stand.text(&[name.as_str(), "--help"]);
        assert!(help.contains("\nExample:\n  superpose "), "{name} has no example");
        insta::assert_snapshot!(format!("help_{name}"), help);
    }
}

#[test]
fn the_definition_is_consistent() {
    superpose_cli::command().debug_assert();
}

#[test]
fn every_command_refuses_what_it_does_not_know() {
    let stand = Stand::new();
    for name in names() {
        let ended = stand.run(&[name.as_str(), "--no-such-option"]);
        assert_eq!((ended.status, ended.stdout.len()), (2, 0), "{name}");
        assert!(
            ended
                .stderr
                .starts_with("error: unexpected argument '--no-such-option'"),
            "{}",
            ended.stderr
        );
        assert!(!stand.path("store").exists(), "{name} made a store");
    }
}

#[test]
fn every_command_that_needs_arguments_says_so() {
    let stand = Stand::new();
    let need_none = [
        "status",
        "serve",
        "check-mount",
        "mount",
        "umount",
        "remount",
        "gc",
        "optimise",
        "verify",
        "import",
        "dump-db",
        "load-db",
        "register-validity",
    ];
    for name in names().iter().filter(|name| !need_none.contains(&name.as_str())) {
        let ended = stand.run(&[name]);
        assert_eq!(ended.status, 2, "{name}");
        assert!(
            ended.stderr.contains("required arguments"),
            "{name}: {}",
            ended.stderr
        );
    }
}

#[test]
fn arguments_that_exclude_one_another() {
    let stand = Stand::new();
    let check = |arguments: &[&str]| {
        let ended = stand.run(arguments);
        assert_eq!(ended.status, 2, "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("cannot be used with") || ended.stderr.contains("required"),
            "{}",
            ended.stderr
        );
    };
    let path = "0g1savw1cf7pji42hasyx0smc4aw15nw-x";
    check(&["path-info", "--all", path]);
    check(&["optimise", "--only-duplicates", "--only-links"]);
    check(&["path-info", "--all", "--stdin"]);
    check(&["path-info", "--json-format", "2", path]);
    check(&["query", path]);
    check(&["query", "--references", "--referrers", path]);
    check(&["query", "--references"]);
    check(&["query", "--hash-part", "0g1savw1cf7pji42hasyx0smc4aw15nw", path]);
    check(&["check-validity", "--json", "--print-invalid", path]);
    check(&["gc", "--print-dead", "--print-live"]);
    check(&["gc", "--print-roots", "--max-freed", "1"]);
    check(&["gc", "--print-dead", "--dry-run"]);
    check(&["check-mount", "--upper", "/u", "/m"]);
    check(&["check-mount", "--lower", "/l", "/m"]);
    check(&["check-mount", "--upper", "/u", "--lower", "/l"]);
    check(&["check-mount", "--store", "/s", "/m"]);
    check(&["status", "--quiet", "--verbose"]);
}
