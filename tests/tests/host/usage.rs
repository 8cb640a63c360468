// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every command, used wrongly: status 2, nothing on standard output, and the blunder named.

use anyhow::{Context, Result, ensure};
use superpose_tests::{Invocation, Layers, Suite, program_path, superpose, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        every_command_has_help_with_an_example,
        wrong_arguments_are_wrong_usage,
        layers_of_a_local_store_are_wrong_usage,
        what_is_no_store_path_is_wrong_usage,
        a_name_that_no_object_can_have_is_wrong_usage,
        a_reader_that_goes_away_is_no_error,
        quiet_and_verbose_are_about_standard_error
    );
}

const COMMANDS: [&str; 27] = [
    "status",
    "check-mount",
    "mount",
    "umount",
    "remount",
    "run",
    "path-info",
    "query",
    "check-validity",
    "ensure",
    "add",
    "add-nar",
    "dump",
    "restore",
    "export",
    "import",
    "copy",
    "delete",
    "gc",
    "add-root",
    "serve",
    "optimise",
    "verify",
    "sign",
    "dump-db",
    "load-db",
    "register-validity",
];

fn every_command_has_help_with_an_example() -> Result<()> {
    let overview = superpose()?.arg("--help").succeed()?;
    for command in COMMANDS {
        ensure!(
            overview.text()?.contains(&format!("\n  {command} ")),
            "{command} is not in {overview}"
        );
        let help = superpose()?.args([command, "--help"]).succeed()?;
        let text = help.text()?;
        let (_, example) = text
            .split_once("\nExample:\n")
            .with_context(|| format!("no example in {help}"))?;
        ensure!(
            example.contains("superpose ") && example.contains(command),
            "{help}"
        );
        ensure!(help.stderr.is_empty(), "{help}");
    }
    // The list above is complete.
    let listed = overview
        .text()?
        .split_once("Commands:\n")
        .context("no commands")?
        .1;
    let listed = listed.lines().take_while(|line| !line.is_empty()).count();
    ensure!(listed == COMMANDS.len(), "{listed} commands in {overview}");
    Ok(())
}

/// A local store with one object.
fn store() -> Result<Layers> {
    let layers = Layers::new()?;
    layers
        .below()?
        .arg("add")
        .arg(layers.file("a.txt", "hello\n")?)
        .succeed()?;
    Ok(layers)
}

/// Runs the program on a local store and expects a complaint that holds all of `fragments`.
fn refused(layers: &Layers, arguments: &[&str], fragments: &[&str]) -> Result<()> {
    let finished = layers.below()?.args(arguments).exit_with(2)?;
    ensure!(
        finished.stdout.is_empty(),
        "a complaint on standard output: {finished}"
    );
    for fragment in fragments {
        ensure!(
            finished.errors().contains(fragment),
            "no `{fragment}` in {finished}"
        );
    }
    Ok(())
}

const OBJECT: &str = "z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt";

fn wrong_arguments_are_wrong_usage() -> Result<()> {
    let layers = store()?;
    refused(&layers, &[], &["requires a subcommand"])?;
    refused(&layers, &["no-such-command"], &["no-such-command"])?;
    for command in COMMANDS {
        refused(
            &layers,
            &[command, "--no-such-option"],
            &["--no-such-option", "Usage"],
        )?;
    }
    for (command, missing) in [
        ("run", "CMD"),
        ("path-info", "PATH"),
        ("query", "--references"),
        ("check-validity", "PATH"),
        ("ensure", "PATH"),
        ("add", "PATH"),
        ("add-nar", "--name"),
        ("dump", "PATH"),
        ("restore", "DEST"),
        ("export", "PATH"),
        ("copy", "--to"),
        ("sign", "--key-file"),
        ("delete", "PATH"),
        ("add-root", "LINK"),
    ] {
        refused(&layers, &[command], &["required", missing, "Usage"])?;
    }
    refused(&layers, &["query", "--hash"], &["PATH"])?;
    refused(&layers, &["query", OBJECT], &["--references"])?;
    refused(
        &layers,
        &["query", "--size", "--hash", OBJECT],
        &["--size", "--hash"],
    )?;
    refused(&layers, &["query", "--hash-part", "abc"], &["abc", "nix32"])?;
    refused(&layers, &["path-info", "--all", OBJECT], &["--all"])?;
    refused(&layers, &["path-info", "--json-format", "1", OBJECT], &["--json"])?;
    refused(
        &layers,
        &["path-info", "--json", "--json-format", "4", OBJECT],
        &["1..=3"],
    )?;
    refused(
        &layers,
        &["check-validity", "--json", "--print-invalid", OBJECT],
        &["--print-invalid"],
    )?;
    refused(
        &layers,
        &["add", "--method", "git", "x"],
        &["git", "nar, flat, text"],
    )?;
    refused(&layers, &["add", "--hash-algo", "sha3", "x"], &["sha3", "sha512"])?;
    refused(
        &layers,
        &["add", "--name", "n", "x", "y"],
        &["--name", "one path"],
    )?;
    refused(
        &layers,
        &["add", "--add-root", "l", "x", "y"],
        &["--add-root", "one path"],
    )?;
    refused(&layers, &["add", "/"], &["--name"])?;
    refused(&layers, &["copy", "--to", "/x"], &["required", "PATH"])?;
    refused(&layers, &["copy", "--to", "rubbish", OBJECT], &["rubbish"])?;
    refused(
        &layers,
        &["copy", "--to", "/x", "--trusted-public-keys", "a:b", OBJECT],
        &["public key `a`", "32 bytes"],
    )?;
    refused(&layers, &["sign", OBJECT], &["--key-file"])?;
    let rubbish = layers.file("rubbish", "k:YWJj\n")?;
    refused(
        &layers,
        &["sign", "--key-file", &rubbish.display().to_string(), OBJECT],
        &["secret key `k`", "64 bytes"],
    )?;
    refused(&layers, &["verify", "--sigs-needed", "x"], &["--sigs-needed"])?;
    refused(
        &layers,
        &["verify", "--trusted-public-keys", "rubbish"],
        &["public key"],
    )?;
    refused(&layers, &["load-db", "a", "b"], &["'b'"])?;
    refused(&layers, &["check-mount", "--upper", "/u", "/d"], &["--lower"])?;
    refused(&layers, &["check-mount", "--lower", "/l", "/d"], &["--upper"])?;
    refused(
        &layers,
        &["--quiet", "--verbose", "verify"],
        &["--quiet", "--verbose"],
    )
}

fn layers_of_a_local_store_are_wrong_usage() -> Result<()> {
    let layers = store()?;
    for command in [
        &["check-mount"][..],
        &["mount"],
        &["umount"],
        &["remount"],
        &["run", "true"],
    ] {
        refused(
            &layers,
            command,
            &["local store", "expected a local-overlay store"],
        )?;
    }
    Ok(())
}

fn what_is_no_store_path_is_wrong_usage() -> Result<()> {
    let layers = store()?;
    for (path, why) in [
        ("", "32 nix32 digits"),
        ("x", "32 nix32 digits"),
        (".", "32 nix32 digits"),
        ("/nix/store", "'/nix/store' is not in the store"),
        ("/nix/store/x", "32 nix32 digits"),
        ("/etc/passwd", "'/etc/passwd' is not in the store"),
        (
            "/gnu/store/z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt",
            "expected a path in '/nix/store'",
        ),
        (
            "/nix/store2/z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt",
            "expected a path in '/nix/store'",
        ),
        // `e` is no digit.
        (
            "/nix/store/e3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt",
            "expected 32 nix32 digits",
        ),
        ("/nix/store/z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-", "name"),
        ("/nix/store/z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a b", "`a b`"),
    ] {
        for command in [
            "path-info",
            "check-validity",
            "ensure",
            "dump",
            "export",
            "dump-db",
            "delete",
        ] {
            refused(&layers, &[command, path], &[why])?;
        }
        refused(&layers, &["query", "--size", path], &[why])?;
        refused(&layers, &["add-root", "link", path], &[why])?;
        refused(
            &layers,
            &["add", "--name", "n", "--reference", path, "/etc/passwd"],
            &[why],
        )?;
    }
    Ok(())
}

fn a_name_that_no_object_can_have_is_wrong_usage() -> Result<()> {
    let layers = store()?;
    let long = "x".repeat(212);
    for name in ["", ".", "..", ".-x", "a b", "a/b", "ä", long.as_str()] {
        refused(&layers, &["add", "--name", name, "/dev/null"], &["name"])?;
        refused(&layers, &["add-nar", "--name", name], &["name"])?;
    }
    // A file that is called so needs another name; the hint tells how.
    refused(&layers, &["add", "/tmp/a b"], &["`a b`", "hint: ", "--name"])
}

fn a_reader_that_goes_away_is_no_error() -> Result<()> {
    let layers = Layers::new()?;
    let file = layers.file("big", vec![0; 4 << 20])?;
    let path = layers.below()?.arg("add").arg(file).succeed()?;
    let finished = Invocation::new("bash")
        .args([
            "-c",
            "set -o pipefail; \"$0\" --store \"$1\" dump \"$2\" | head -c 1",
        ])
        .arg(program_path()?)
        .arg(layers.lower_url())
        .arg(path.line()?)
        .succeed()?;
    ensure!(finished.stderr.is_empty(), "{finished}");
    Ok(())
}

fn quiet_and_verbose_are_about_standard_error() -> Result<()> {
    let layers = store()?;
    let url = format!("{}&nonsense=1", layers.lower_url().display());
    let ensured = |flags: &[&str]| {
        let program = superpose()?.arg("--store").arg(&url).args(flags);
        program.args(["ensure", "--json", OBJECT]).succeed()
    };
    let plain = ensured(&[])?;
    ensure!(
        plain.errors() == "warning: ignoring unknown setting `nonsense`\n",
        "{plain}"
    );
    let quiet = ensured(&["--quiet"])?;
    ensure!(quiet.stderr.is_empty(), "{quiet}");
    let added = superpose()?
        .arg("--store")
        .arg(&url)
        .arg("-vvv")
        .arg("add")
        .arg(layers.file("new", "new")?);
    let verbose = added.succeed()?;
    ensure!(verbose.errors().contains("note: "), "{verbose}");
    ensure!(
        plain.stdout == quiet.stdout && plain.line()? == "{\"copied\":0}",
        "{plain}"
    );
    Ok(())
}
