// SPDX-License-Identifier: MIT OR Apache-2.0
//! `superpose run` as somebody without rights, over a lower store that he can only read.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use superpose_tests::{
    Invocation, Layers, Need, Suite, Tree, make_read_only, make_writable_directory, program_path,
    superpose_as_ordinary_user, trials,
};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::UserNamespaces],
        the_upper_layer_is_kept_between_runs,
        the_lower_store_stays_byte_for_byte_the_same,
        the_exit_status_is_passed_on,
        signals_reach_the_command_and_end_it,
        a_program_that_cannot_run_has_the_status_of_shells,
        the_mount_is_seen_by_the_command_alone,
        a_duplicate_is_deleted_and_the_lower_copy_shows_again,
        what_is_only_below_is_not_deleted,
        a_bad_lower_object_is_repaired_above,
        what_refers_to_lower_objects_is_added_and_deleted,
        an_interrupted_run_leaves_nothing_behind,
        a_live_log_below_is_read,
        a_run_within_a_run_uses_its_mount,
        a_second_run_over_one_upper_layer_is_refused,
        a_lower_store_that_cannot_be_read_is_named
    );
}

/// Layers in which `lower` holds a library and a program that refers to it, and can only be read.
struct Frozen {
    layers: Layers,
    library: String,
    program: String,
}

fn frozen() -> Result<Frozen> {
    let layers = Layers::new()?;
    let library = layers
        .below()?
        .arg("add")
        .arg(layers.file("library", "library\n")?)
        .succeed()?;
    let library = library.line()?.to_owned();
    let tree = layers.join("program");
    fs::create_dir_all(tree.join("bin"))?;
    fs::write(tree.join("bin/run"), &library)?;
    symlink(&library, tree.join("lib"))?;
    let program = layers
        .below()?
        .args(["add", "--reference", &library])
        .arg(&tree)
        .succeed()?;
    let program = program.line()?.to_owned();
    make_read_only(&layers.lower())?;
    // What the user may write: his upper layer, work directory and root.
    for dir in [layers.upper(), layers.work(), layers.root(), layers.join("home")] {
        make_writable_directory(&dir)?;
    }
    Ok(Frozen {
        layers,
        library,
        program,
    })
}

impl Frozen {
    /// A shell script in the namespace, in the home directory of the user; `$0` is superpose.
    fn script(&self, script: &str) -> Result<Invocation> {
        Ok(self.run()?.args(["sh", "-euc", script]).arg(program_path()?))
    }

    fn run(&self) -> Result<Invocation> {
        Ok(superpose_as_ordinary_user()?
            .current_dir(&self.layers.join("home"))
            .arg("--store")
            .arg(self.layers.url())
            .arg("run")
            .arg("--workdir")
            .arg(self.layers.work())
            .arg("--"))
    }

    fn name(path: &str) -> Result<PathBuf> {
        Ok(path.strip_prefix("/nix/store/").context("a store path")?.into())
    }
}

fn the_upper_layer_is_kept_between_runs() -> Result<()> {
    let frozen = frozen()?;
    let added = frozen.script("echo mine >mine; \"$0\" add mine")?.succeed()?;
    let path = added.line()?;
    ensure!(
        frozen.layers.upper().join(Frozen::name(path)?).is_file(),
        "{added}"
    );
    let found = frozen
        .script(&format!(
            "\"$0\" path-info --layer {path}; \"$0\" dump {path} | wc -c"
        ))?
        .succeed()?;
    ensure!(found.text()? == format!("{path}\tupper\n120\n"), "{found}");
    Ok(())
}

fn the_lower_store_stays_byte_for_byte_the_same() -> Result<()> {
    let frozen = frozen()?;
    let before = Tree::of(&frozen.layers.lower())?;
    let (library, program) = (&frozen.library, &frozen.program);
    frozen
        .script(&format!(
            "s=$0
            $s status --lower; $s check-mount
            $s path-info -rS --json {program}; $s path-info --all
            for q in references referrers referrers-closure requisites deriver valid-derivers hash size roots
            do $s query --$q {library}; done
            $s check-validity {program}; $s ensure {program}
            echo new >new; $s add new --reference {program} --add-root root
            $s dump {program} >archive; $s add-nar --name program --reference {library} archive
            $s restore copy <archive; $s add copy
            ! $s delete {program} {library} || exit 9
            $s delete $($s path-info --all | grep -e -copy$)
            $s verify --check-contents
            rm root; $s delete $($s path-info --all | grep -e -new$)
            $s remount; $s verify --check-contents"
        ))?
        .succeed()?;
    before.expect_unchanged(&frozen.layers.lower())
}

fn the_exit_status_is_passed_on() -> Result<()> {
    let frozen = frozen()?;
    for status in [0, 1, 2, 7, 125, 255] {
        frozen
            .run()?
            .args(["sh", "-c", &format!("exit {status}")])
            .exit_with(status)?;
    }
    // Options behind the command are the command's.
    let echoed = frozen.run()?.args(["echo", "--help", "--json"]).succeed()?;
    ensure!(echoed.line()? == "--help --json", "{echoed}");
    let input = frozen.run()?.arg("cat").input("through\n").succeed()?;
    ensure!(input.line()? == "through", "{input}");
    Ok(())
}

fn signals_reach_the_command_and_end_it() -> Result<()> {
    let frozen = frozen()?;
    let killed = frozen.run()?.args(["sh", "-c", "kill -KILL $$"]).run()?;
    ensure!(killed.signal() == Some(Signal::KILL.as_raw()), "{killed}");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mark = frozen.layers.join("home/ready");
        let mut sleeping = frozen
            .run()?
            .args(["sh", "-c", "touch ready; exec sleep 600"])
            .start()?;
        // Not while the shell still waits for `touch`: what it makes of a signal then is its own affair.
        let comm = format!("/proc/{}/comm", sleeping.pid().as_raw_nonzero());
        sleeping.wait_until("the command ran", || {
            Ok(mark.exists() && fs::read_to_string(&comm).is_ok_and(|comm| comm == "sleep\n"))
        })?;
        sleeping.signal(signal)?;
        let finished = sleeping.finish()?;
        ensure!(finished.signal() == Some(signal.as_raw()), "{finished}");
        fs::remove_file(&mark)?;
    }
    // A command may handle it.
    let mark = frozen.layers.join("home/ready");
    let script = "trap 'exit 42' TERM; touch ready; while :; do sleep 0.01; done";
    let mut handling = frozen.run()?.args(["sh", "-c", script]).start()?;
    handling.wait_until("the command ran", || Ok(mark.exists()))?;
    handling.signal(Signal::TERM)?;
    let finished = handling.finish()?;
    ensure!(finished.code() == Some(42), "{finished}");
    Ok(())
}

fn a_program_that_cannot_run_has_the_status_of_shells() -> Result<()> {
    let frozen = frozen()?;
    let missing = frozen.run()?.arg("/no/such/program").exit_with(127)?;
    ensure!(missing.errors().contains("'/no/such/program'"), "{missing}");
    let plain = frozen.layers.file("plain", "no program")?;
    let refused = frozen.run()?.arg(&plain).exit_with(126)?;
    ensure!(refused.errors().contains("plain"), "{refused}");
    Ok(())
}

fn the_mount_is_seen_by_the_command_alone() -> Result<()> {
    let frozen = frozen()?;
    let name = Frozen::name(&frozen.program)?;
    let merged = frozen.layers.merged().join(&name).join("bin/run");
    let inside = frozen.run()?.arg("cat").arg(&merged).succeed()?;
    ensure!(inside.line()? == frozen.library, "{inside}");
    ensure!(!merged.exists(), "the mount is seen from outside");
    let checked = frozen.script("\"$0\" check-mount --json")?.succeed()?.json()?;
    ensure!(checked["outcome"] == "as-expected", "{checked}");
    ensure!(
        checked["mount"]["overlay"]["options"]
            .as_array()
            .is_some_and(|options| options.contains(&json!("userxattr"))),
        "{checked}"
    );
    Ok(())
}

/// The lower program once more in the upper layer, files and row, as a crash of another program may leave it.
fn duplicate(frozen: &Frozen) -> Result<()> {
    let name = Frozen::name(&frozen.program)?;
    let from = frozen.layers.lower_dir().join(&name);
    let script = format!("cp -a '{}' '{}'", from.display(), frozen.layers.upper().display());
    superpose_tests::as_ordinary_user("sh")
        .args(["-c", &script])
        .succeed()?;
    frozen
        .script(&format!("\"$0\" ensure {}", frozen.program))?
        .succeed()?;
    Ok(())
}

fn a_duplicate_is_deleted_and_the_lower_copy_shows_again() -> Result<()> {
    let frozen = frozen()?;
    duplicate(&frozen)?;
    let program = &frozen.program;
    let before = frozen
        .script(&format!("\"$0\" path-info --layer {program}"))?
        .succeed()?;
    ensure!(before.line()?.ends_with("upper"), "{before}");
    let tree = Tree::of(&frozen.layers.lower())?;
    let deleted = frozen.script(&format!(
        "\"$0\" delete --json {program}; cat {}/{}/bin/run",
        frozen.layers.merged().display(),
        Frozen::name(program)?.display()
    ))?;
    let deleted = deleted.succeed()?;
    let (report, content) = deleted.text()?.split_once('\n').context("two lines")?;
    let report: serde_json::Value = serde_json::from_str(report)?;
    ensure!(
        report["below"] == json!([program]) && report["remounted"] == true,
        "{report}"
    );
    ensure!(report["bytesFreed"].as_u64() > Some(0), "{report}");
    ensure!(
        content == frozen.library,
        "the lower copy does not show: {content}"
    );
    ensure!(!frozen.layers.upper().join(Frozen::name(program)?).exists());
    tree.expect_unchanged(&frozen.layers.lower())?;
    let after = frozen
        .script(&format!(
            "\"$0\" path-info --layer {program}; \"$0\" verify --check-contents"
        ))?
        .succeed()?;
    ensure!(
        after.text()?.starts_with(&format!("{program}\tlower\n")),
        "{after}"
    );
    Ok(())
}

/// The marks that keep the lower object from shining through are attributes that anybody may set on what is his.
fn a_bad_lower_object_is_repaired_above() -> Result<()> {
    let (frozen, good) = (frozen()?, frozen()?);
    let below = frozen.layers.lower_dir().join(Frozen::name(&frozen.program)?);
    // Whoever runs the suite may be an ordinary user, too, and then it is he who owns this.
    for (name, mode) in [("", 0o755), ("bin", 0o755), ("bin/run", 0o644)] {
        fs::set_permissions(below.join(name), fs::Permissions::from_mode(mode))?;
    }
    fs::write(below.join("bin/run"), "bad")?;
    fs::write(below.join("more"), "bad")?;
    make_read_only(&below)?;
    let lower = Tree::of(&frozen.layers.lower())?;
    let repaired = frozen
        .script(&format!(
            "\"$0\" ensure {}; \"$0\" verify --check-contents --repair --from {}",
            frozen.program,
            good.layers.lower().display()
        ))?
        .succeed()?;
    ensure!(repaired.text()?.ends_with("1 faults, 1 repaired\n"), "{repaired}");
    let seen = frozen.script(&format!(
        "\"$0\" verify --check-contents; cd {}/{}; cat bin/run; ls",
        frozen.layers.merged().display(),
        Frozen::name(&frozen.program)?.display()
    ))?;
    let seen = seen.succeed()?;
    ensure!(
        seen.text()?.ends_with(&format!("{}bin\nlib\n", frozen.library)),
        "{seen}"
    );
    lower.expect_unchanged(&frozen.layers.lower())
}

fn what_is_only_below_is_not_deleted() -> Result<()> {
    let frozen = frozen()?;
    let (library, program) = (&frozen.library, &frozen.program);
    let deleted = frozen
        .script(&format!("\"$0\" delete --json {library} {program}"))?
        .succeed()?;
    let report = deleted.json()?;
    ensure!(
        report["deleted"] == json!([]) && report["bytesFreed"] == 0,
        "{report}"
    );
    ensure!(
        deleted.errors().contains("stays valid: the lower store has it"),
        "{deleted}"
    );
    frozen
        .script(&format!("\"$0\" check-validity {library} {program}"))?
        .succeed()?;
    // No whiteout hides them.
    ensure!(
        fs::read_dir(frozen.layers.upper())?
            .all(|entry| { entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with('.')) })
    );
    Ok(())
}

fn what_refers_to_lower_objects_is_added_and_deleted() -> Result<()> {
    let frozen = frozen()?;
    let program = &frozen.program;
    let added = frozen
        .script(&format!("echo x >x; \"$0\" add --reference {program} x"))?
        .succeed()?;
    let own = added.line()?;
    let all = frozen
        .script(&format!(
            "\"$0\" query -R {own}; \"$0\" query --referrers {program}"
        ))?
        .succeed()?;
    let expected = [frozen.library.as_str(), program, own, own].join("\n");
    ensure!(all.line()? == expected, "{all}");
    // Its closure is known above now, and it protects the rows there.
    let refused = frozen.script(&format!("\"$0\" delete {program}"))?.run()?;
    ensure!(
        refused.code() == Some(1) && refused.errors().contains(own),
        "{refused}"
    );
    frozen.script(&format!("\"$0\" delete {own}"))?.succeed()?;
    let gone = frozen
        .script(&format!("\"$0\" check-validity {own}"))?
        .exit_with(1)?;
    ensure!(gone.errors().contains(own), "{gone}");
    Ok(())
}

fn an_interrupted_run_leaves_nothing_behind() -> Result<()> {
    let frozen = frozen()?;
    let mark = frozen.layers.join("home/ready");
    let mut running = frozen
        .run()?
        .args(["sh", "-c", "touch ready; exec sleep 600"])
        .start()?;
    running.wait_until("the command ran", || Ok(mark.exists()))?;
    running.signal(Signal::KILL)?;
    running.finish()?;
    frozen.script("\"$0\" verify")?.succeed()?;
    Ok(())
}

fn a_live_log_below_is_read() -> Result<()> {
    let layers = Layers::new()?;
    let first = layers
        .below()?
        .arg("add")
        .arg(layers.file("first", "1\n")?)
        .succeed()?;
    // Somebody has the lower database open, so what he adds is only in its log.
    let keeper = rusqlite::Connection::open(layers.lower_database())?;
    keeper.query_row("select count(*) from ValidPaths", [], |_| Ok(()))?;
    let second = layers
        .below()?
        .arg("add")
        .arg(layers.file("second", "2\n")?)
        .succeed()?;
    ensure!(
        fs::metadata(layers.lower_database().with_extension("sqlite-wal"))?.len() > 0,
        "no log to read"
    );
    for dir in [layers.upper(), layers.work(), layers.root(), layers.join("home")] {
        make_writable_directory(&dir)?;
    }
    let frozen = Frozen {
        layers,
        library: first.line()?.to_owned(),
        program: second.line()?.to_owned(),
    };
    for _ in 0..2 {
        frozen
            .script(&format!("\"$0\" path-info {} {}", frozen.library, frozen.program))?
            .succeed()?;
        // The keeper goes; the log stays as it is.
        make_read_only(&frozen.layers.lower())?;
    }
    Ok(())
}

fn a_run_within_a_run_uses_its_mount() -> Result<()> {
    let frozen = frozen()?;
    let script = "\"$0\" mount; \"$0\" run -- \"$0\" check-mount";
    let nested = frozen.script(script)?.succeed()?;
    ensure!(nested.errors().contains("already"), "{nested}");
    Ok(())
}

fn a_second_run_over_one_upper_layer_is_refused() -> Result<()> {
    let frozen = frozen()?;
    let mark = frozen.layers.join("home/ready");
    let mut first = frozen
        .run()?
        .args(["sh", "-c", "touch ready; exec sleep 600"])
        .start()?;
    first.wait_until("the command ran", || Ok(mark.exists()))?;
    let second = frozen.run()?.arg("true").exit_with(1)?;
    let upper = frozen.layers.upper().display().to_string();
    ensure!(second.errors().contains(&upper), "{second}");
    first.signal(Signal::TERM)?;
    first.finish()?;
    frozen.run()?.arg("true").succeed()?;
    Ok(())
}

fn a_lower_store_that_cannot_be_read_is_named() -> Result<()> {
    let missing = Layers::new()?;
    for dir in [missing.upper(), missing.work(), missing.root()] {
        make_writable_directory(&dir)?;
    }
    let run = superpose_as_ordinary_user()?
        .arg("--store")
        .arg(missing.url())
        .arg("run");
    let run = run
        .arg("--workdir")
        .arg(missing.work())
        .arg("true")
        .exit_with(1)?;
    ensure!(
        run.errors().contains(&missing.lower_dir().display().to_string()),
        "{run}"
    );
    ensure!(!missing.lower().exists());
    Ok(())
}
