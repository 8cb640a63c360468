// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask demo`: a writable layer over a frozen store, made from files of this machine, without root and
//! without Nix. Every command is shown so that it can be repeated by hand, and every result is checked.

mod shell;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use serde_json::Value;

use crate::{cargo_run, workspace};
use shell::Shell;

/// Names, modes, times and contents of all that is below a directory, as one number.
const DIGEST: &str = r"find store-a -printf '%p %y %m %T@ %s %l\n' | sort > listing; \
find store-a -type f -print0 | sort -z | xargs -0 sha256sum >> listing; sha256sum < listing";

/// What may keep an ordinary user from making a user namespace.
const SWITCHES: [(&str, &str); 3] = [
    ("kernel.unprivileged_userns_clone", "must be 1 where it exists"),
    ("user.max_user_namespaces", "must not be 0"),
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "must be 0 where it exists, or the program needs an AppArmor profile that allows userns",
    ),
];

/// Show a writable layer over a store that is never written; no root, no Nix
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {}

/// Runs the task. The last line that it prints is the sum.
pub(crate) fn run(_: &Args) -> Result<()> {
    let programs = cargo_run::build(&["build", "--package", "superpose-cli"])?;
    let program = programs.iter().find(|built| built.name == "superpose");
    let program = program.context("no program was built")?;
    let started = Instant::now();
    let mut demo = Demo::start(&program.path)?;
    demo.make_the_lower_store()?;
    let before = demo.digest()?;
    demo.layer_over_it()?;
    demo.write_above()?;
    demo.unchanged(&before)?;
    demo.make_a_duplicate()?;
    let before = demo.freeze()?;
    demo.delete_the_duplicate()?;
    demo.look_at_all()?;
    demo.unchanged(&before)?;
    println!(
        "\ndemo: {} commands, {} results as they should be, in {:.1} s",
        demo.shell.commands(),
        demo.checks,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The demo so far: the shell, and the paths that the commands printed.
struct Demo {
    shell: Shell,
    checks: usize,
    program: String,
    release: String,
    script: String,
    shared: String,
}

impl Demo {
    fn start(program: &Path) -> Result<Self> {
        let dir = workspace::fetched().join("demo");
        let mut shell = Shell::start(&dir)?;
        let bin = program.parent().unwrap_or(program);
        shell.set(&format!("export PATH={}:$PATH", shell::quoted(bin)?));
        Ok(Self {
            shell,
            checks: 0,
            program: String::new(),
            release: String::new(),
            script: String::new(),
            shared: String::new(),
        })
    }

    fn check(&mut self, is_right: bool, what: &str) -> Result<()> {
        ensure!(is_right, "this is not as it should be: {what}");
        self.checks += 1;
        Ok(())
    }

    /// The paths that a line prints, one on each line.
    fn paths(&mut self, line: &str) -> Result<Vec<String>> {
        let text = self.shell.run(line)?;
        let mut paths: Vec<String> = text.lines().map(str::to_owned).collect();
        paths.sort_unstable();
        Ok(paths)
    }

    fn path(&mut self, line: &str) -> Result<String> {
        let path = self.shell.run(line)?;
        let is_one = path.starts_with("/nix/store/") && !path.contains('\n');
        self.check(is_one, "one store path is printed")?;
        Ok(path)
    }

    fn make_the_lower_store(&mut self) -> Result<()> {
        self.shell
            .say("A store made of files of this machine. Others will share it.");
        let add = r#"superpose --store "$PWD/store-a" add"#;
        self.program = self.path(&format!(r#"{add} --name sh "$(readlink -f /bin/sh)""#))?;
        self.release = self.path(&format!(
            r#"{add} --name os-release "$(readlink -f /etc/os-release)""#
        ))?;

        self.shell.say("A script that refers to both.");
        let (program, release) = (self.program.clone(), self.release.clone());
        self.shell.run(&format!(
            r#"printf '#!%s\n. %s\necho "$PRETTY_NAME"\n' {program} {release} > which-system"#
        ))?;
        self.script = self.path(&format!(
            "{add} --method text --reference {program} --reference {release} which-system"
        ))?;
        let needed = self.paths(&format!(
            r#"superpose --store "$PWD/store-a" query --requisites {}"#,
            self.script
        ))?;
        let mut expected = vec![program, release, self.script.clone()];
        expected.sort_unstable();
        self.check(needed == expected, "the script needs itself and both files")
    }

    /// One number for the whole lower store.
    fn digest(&mut self) -> Result<String> {
        self.shell
            .say("The lower store as one number: names, modes, times and contents of all there is.");
        self.shell.run(DIGEST)
    }

    fn unchanged(&mut self, before: &str) -> Result<()> {
        let now = self.digest()?;
        self.check(now == before, "the lower store is untouched, byte for byte")?;
        println!("as before: the lower store is untouched, byte for byte");
        Ok(())
    }

    fn layer_over_it(&mut self) -> Result<()> {
        self.shell.say(
            "An overlay store: store-a below, store-b for what is added, merged-store where both are seen as one.",
        );
        let here = shell::in_url(&workspace::fetched().join("demo"))?;
        let here = if here.contains('%') {
            here
        } else {
            "$PWD".to_owned()
        };
        self.shell.set(&format!(
            "export SUPERPOSE_STORE=\"local-overlay://?root={here}/merged-store\
             &lower-store={here}/store-a%3Fread-only%3Dtrue&upper-layer={here}/store-b\""
        ));
        if self.shell.quietly("superpose run -- true").is_err() {
            anyhow::bail!("{}", forbidden());
        }
        self.shell
            .say("Each `run` mounts it for one command, which nobody else sees, and needs no root for that.");
        let line = format!("superpose run -- superpose check-validity {}", self.script);
        self.shell.run(&line)?;
        self.check(true, "what is below is valid above")
    }

    fn write_above(&mut self) -> Result<()> {
        self.shell
            .say("Add a file, and a script that refers to one below. Both go to the upper layer.");
        self.shell.run("echo 'written above' > note")?;
        let note = self.path("superpose run -- superpose add note")?;
        let script = self.script.clone();
        self.shell
            .run(&format!("printf '. %s\\n. %s\\n' {note} {script} > both"))?;
        let both = self.path(&format!(
            "superpose run -- superpose add --method text --reference {note} --reference {script} both"
        ))?;
        for path in [&note, &both] {
            let name = path.trim_start_matches("/nix/store/");
            let is_above = Path::new(&workspace::fetched().join("demo/store-b"))
                .join(name)
                .is_file();
            self.check(is_above, "the object lies in the upper layer")?;
        }

        self.shell.say("Which layer has which object?");
        for (path, layer) in [(&both, "upper"), (&script, "lower")] {
            let line = format!("superpose run -- superpose path-info --layer {path}");
            let text = self.shell.run(&line)?;
            self.check(text.ends_with(layer), "the right layer is named")?;
        }
        let line = format!("superpose run -- superpose path-info --recursive --json {both}");
        let infos: Value = serde_json::from_str(&self.shell.run(&line)?)?;
        let layers = layers(&infos);
        self.check(layers == [("lower", 3), ("upper", 2)], "two of five are above")?;

        self.shell
            .say("What refers to an object is found across the layers.");
        let referrers = self.paths(&format!("superpose run -- superpose query --referrers {script}"))?;
        self.check(referrers == [both], "the script below is used by the one above")
    }

    fn make_a_duplicate(&mut self) -> Result<()> {
        self.shell
            .say("The same file added above, and then, by the owner of the lower store, below.");
        self.shell.run("echo 'useful to everybody' > shared")?;
        self.shared = self.path("superpose run -- superpose add shared")?;
        let below = self.path(r#"superpose --store "$PWD/store-a" add shared"#)?;
        self.check(below == self.shared, "equal contents have one path")?;
        self.layer_of_shared("upper")
    }

    fn layer_of_shared(&mut self, layer: &str) -> Result<()> {
        let line = format!("superpose run -- superpose path-info --json {}", self.shared);
        let info: Value = serde_json::from_str(&self.shell.run(&line)?)?;
        self.check(layers(&info) == [(layer, 1)], "the right layer is named")
    }

    fn freeze(&mut self) -> Result<String> {
        self.shell.say("From here on nobody may write the lower store.");
        self.shell.run("chmod -R a-w store-a")?;
        self.digest()
    }

    fn delete_the_duplicate(&mut self) -> Result<()> {
        self.shell
            .say("Delete it: the copy above goes, the one below shows, and the path stays valid.");
        let line = format!("superpose run -- superpose delete {}", self.shared);
        let text = self.shell.run(&line)?;
        self.check(text.starts_with("1 store paths deleted"), "one object is deleted")?;
        self.layer_of_shared("lower")?;
        let name = self.shared.trim_start_matches("/nix/store/").to_owned();
        let above = workspace::fetched().join("demo/store-b").join(&name);
        self.check(
            fs::symlink_metadata(above).is_err(),
            "nothing of it is left in the upper layer",
        )?;
        let text = self
            .shell
            .run(&format!("superpose run -- cat merged-store/nix/store/{name}"))?;
        self.check(text == "useful to everybody", "the object below is read")
    }

    fn look_at_all(&mut self) -> Result<()> {
        self.shell
            .say("Is everything that the upper database knows on the disk, and unchanged?");
        self.shell
            .run("superpose run -- superpose verify --check-contents")?;
        self.check(true, "no fault is found")?;
        self.shell.say("The whole.");
        let text = self.shell.run("superpose run -- superpose status")?;
        let is_well = text
            .lines()
            .any(|line| line.split_whitespace().eq(["problems", "none"]));
        self.check(is_well, "there are no problems")
    }
}

/// How many of the objects lie in which layer, sorted by its name.
fn layers(infos: &Value) -> Vec<(&str, usize)> {
    let infos = infos.get("info").unwrap_or(infos);
    let objects = infos.as_object().into_iter().flat_map(|infos| infos.values());
    let mut names: Vec<&str> = objects.filter_map(|info| info["layer"].as_str()).collect();
    names.sort_unstable();
    let same = names.chunk_by(|one, other| one == other);
    same.map(|group| (group[0], group.len())).collect()
}

/// Why the demo cannot go on, with the switches of this machine.
fn forbidden() -> String {
    let mut text =
        "`superpose run` cannot make its namespaces here. Run the demo as root, or allow user namespaces:"
            .to_owned();
    for (name, wanted) in SWITCHES {
        let file = format!("/proc/sys/{}", name.replacen('.', "/", 1));
        let found =
            fs::read_to_string(file).map_or_else(|_| "not there".to_owned(), |value| value.trim().to_owned());
        text.push_str(&format!("\n  sysctl {name}: {found}; {wanted}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_in_every_form() {
        let check = |text: &str, expected: &[(&str, usize)]| {
            assert_eq!(layers(&serde_json::from_str(text).unwrap()), expected);
        };
        check(r#"{"/a":{"layer":"upper"}}"#, &[("upper", 1)]);
        check(
            r#"{"info":{"a":{"layer":"upper"},"b":{"layer":"lower"},"c":{"layer":"upper"}},"version":2}"#,
            &[("lower", 1), ("upper", 2)],
        );
        check("[]", &[]);
    }

    #[test]
    fn the_switches_are_named() {
        let text = forbidden();
        assert!(SWITCHES.iter().all(|(name, _)| text.contains(name)), "{text}");
    }
}
