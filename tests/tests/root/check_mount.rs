// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mounts that are not the store's are refused before anything is written, and the difference is explained.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use anyhow::{Result, ensure};
use superpose_tests::{Invocation, Layers, Need, OverlayMount, Suite, superpose, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [Need::Root],
        a_missing_mount,
        another_lower_directory,
        another_upper_layer,
        a_lower_and_an_upper_that_are_swapped,
        a_file_system_stacked_on_the_mount,
        a_file_system_mounted_over_a_parent,
        a_mount_that_cannot_be_written,
        a_lower_directory_too_many,
        a_mount_of_another_kind,
        a_replaced_upper_layer,
        special_characters_are_right_in_every_place,
        links_and_relative_paths_do_not_matter,
        the_source_of_the_mount_does_not_matter,
        layers_added_one_by_one_are_understood,
        the_check_can_be_turned_off,
        any_directory_can_be_described
    );
}

/// Layers with one object below; nothing is mounted.
fn layers() -> Result<Layers> {
    let layers = Layers::new()?;
    layers
        .below()?
        .arg("add")
        .arg(layers.file("a.txt", "hello\n")?)
        .succeed()?;
    for dir in [layers.upper(), layers.work(), layers.merged()] {
        fs::create_dir_all(dir)?;
    }
    Ok(layers)
}

/// Expects the check to fail with these fragments, and that nothing is written by commands that would.
fn refused(layers: &Layers, fragments: &[&str]) -> Result<()> {
    let checked = layers.superpose()?.arg("check-mount").exit_with(1)?;
    for fragment in fragments {
        ensure!(checked.text()?.contains(fragment), "no `{fragment}` in {checked}");
    }
    for part in ["expected:", "found:", "to mend:"] {
        ensure!(checked.text()?.contains(part), "no `{part}` in {checked}");
    }
    let json = layers
        .superpose()?
        .args(["check-mount", "--json"])
        .exit_with(1)?
        .json()?;
    ensure!(json["outcome"] == "different", "{json}");
    ensure!(
        json["differences"].as_array().is_some_and(|all| !all.is_empty()),
        "{json}"
    );
    for command in [
        &["add", "/etc/passwd"][..],
        &["verify"],
        &["ensure", "z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt"],
    ] {
        let refused = layers.superpose()?.args(command).exit_with(1)?;
        ensure!(refused.errors().contains("as it should be"), "{refused}");
        ensure!(refused.stdout.is_empty(), "{refused}");
    }
    ensure!(!layers.state().join("db").exists(), "a database was made");
    ensure!(
        fs::read_dir(layers.upper())?.next().is_none(),
        "the upper layer was written"
    );
    Ok(())
}

fn overlay(lower: &[&Path], upper: &Path, layers: &Layers) -> Result<OverlayMount> {
    OverlayMount::new(lower, upper, &layers.work(), &layers.merged())
}

fn directory(layers: &Layers, name: &str) -> Result<std::path::PathBuf> {
    let path = layers.join(name);
    fs::create_dir_all(&path)?;
    Ok(path)
}

fn a_missing_mount() -> Result<()> {
    let layers = layers()?;
    refused(
        &layers,
        &["mount -t overlay overlay -o lowerdir=", "superpose mount"],
    )
}

fn another_lower_directory() -> Result<()> {
    let layers = layers()?;
    let other = directory(&layers, "other")?;
    let _mount = overlay(&[&other], &layers.upper(), &layers)?;
    refused(
        &layers,
        &[
            "lower",
            &other.display().to_string(),
            &layers.lower_dir().display().to_string(),
        ],
    )
}

fn another_upper_layer() -> Result<()> {
    let layers = layers()?;
    let other = directory(&layers, "other")?;
    let _mount = overlay(&[&layers.lower_dir()], &other, &layers)?;
    refused(
        &layers,
        &[
            "upper",
            &other.display().to_string(),
            &layers.upper().display().to_string(),
        ],
    )
}

fn a_lower_and_an_upper_that_are_swapped() -> Result<()> {
    let layers = layers()?;
    let _mount = overlay(&[&layers.upper()], &layers.lower_dir(), &layers)?;
    refused(&layers, &["lower", "upper"])
}

fn a_file_system_stacked_on_the_mount() -> Result<()> {
    let layers = layers()?;
    let _mount = layers.mount()?;
    layers.superpose()?.arg("check-mount").succeed()?;
    tmpfs(&layers.merged())?;
    refused(&layers, &["tmpfs"])
}

fn a_file_system_mounted_over_a_parent() -> Result<()> {
    let layers = layers()?;
    let _mount = layers.mount()?;
    tmpfs(&layers.root())?;
    refused(&layers, &["no such directory"])?;
    fs::create_dir_all(layers.merged())?;
    refused(&layers, &["tmpfs"])
}

fn tmpfs(point: &Path) -> Result<()> {
    Invocation::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(point)
        .succeed()?;
    Ok(())
}

fn a_mount_that_cannot_be_written() -> Result<()> {
    let layers = layers()?;
    let _mount = layers.mount()?;
    Invocation::new("mount")
        .args(["-o", "remount,bind,ro"])
        .arg(layers.merged())
        .succeed()?;
    refused(&layers, &["read-only"])
}

fn a_lower_directory_too_many() -> Result<()> {
    let layers = layers()?;
    let other = directory(&layers, "other")?;
    let both = overlay(&[&layers.lower_dir(), &other], &layers.upper(), &layers)?;
    refused(&layers, &["lower"])?;
    drop(both);
    let _other = overlay(&[&other, &layers.lower_dir()], &layers.upper(), &layers)?;
    refused(&layers, &["lower"])
}

fn a_mount_of_another_kind() -> Result<()> {
    let layers = layers()?;
    let bind = Invocation::new("mount")
        .arg("--bind")
        .arg(directory(&layers, "other")?);
    bind.arg(layers.merged()).succeed()?;
    refused(&layers, &["overlay"])
}

fn a_replaced_upper_layer() -> Result<()> {
    let layers = layers()?;
    let _mount = layers.mount()?;
    // The same name, another directory: what the text of the mount table cannot tell.
    fs::rename(layers.upper(), layers.join("moved"))?;
    fs::create_dir(layers.upper())?;
    refused(&layers, &["upper"])
}

fn special_characters_are_right_in_every_place() -> Result<()> {
    let texts: [&[u8]; 12] = [
        b" ", b"+", b":", b",", b"\\", b"\n", b"\xff", b"\t", b"#", b"(", b"[", b"a.b*$",
    ];
    for odd in texts {
        let layers = Layers::named(OsString::from_vec(odd.to_vec()))?;
        let odd = odd.escape_ascii();
        layers
            .below()?
            .arg("add")
            .arg(layers.file("a.txt", "hello\n")?)
            .succeed()?;
        let added = |how: &str| -> Result<()> {
            let checked = layers.superpose()?.arg("check-mount").run()?;
            ensure!(checked.code() == Some(0), "{odd}, {how}: {checked}");
            let add = layers.superpose()?.arg("add").arg(layers.file("b.txt", how)?);
            let added = add.run()?;
            ensure!(added.code() == Some(0), "{odd}, {how}: {added}");
            Ok(())
        };
        let mount = layers.mount()?;
        added("with mount(2)")?;
        drop(mount);
        layers
            .superpose()?
            .arg("mount")
            .arg("--workdir")
            .arg(layers.work())
            .succeed()?;
        added("with superpose mount")?;
        layers.superpose()?.arg("umount").succeed()?;
    }
    Ok(())
}

fn links_and_relative_paths_do_not_matter() -> Result<()> {
    let layers = layers()?;
    std::os::unix::fs::symlink(layers.lower(), layers.join("alias"))?;
    let mount = Invocation::new("mount").current_dir(layers.scratch().path());
    mount
        .args([
            "-t",
            "overlay",
            "overlay",
            "-o",
            "lowerdir=alias/nix//store/,upperdir=./upper/,workdir=work",
        ])
        .arg(layers.merged())
        .succeed()?;
    layers.superpose()?.arg("check-mount").succeed()?;
    layers
        .superpose()?
        .arg("add")
        .arg(layers.file("new", "x")?)
        .succeed()?;
    Ok(())
}

fn the_source_of_the_mount_does_not_matter() -> Result<()> {
    let layers = layers()?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layers.lower_dir().display(),
        layers.upper().display(),
        layers.work().display()
    );
    let mount = Invocation::new("mount").args(["-t", "overlay", "my-store", "-o", &options]);
    mount.arg(layers.merged()).succeed()?;
    layers.superpose()?.arg("check-mount").succeed()?;
    Ok(())
}

fn layers_added_one_by_one_are_understood() -> Result<()> {
    let layers = layers()?;
    // The way of the newer system calls, as our own mount makes them.
    layers.superpose()?.arg("mount").succeed()?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let merged = layers.merged().display().to_string();
    ensure!(table.lines().any(|line| line.contains(&merged)), "{table}");
    layers.superpose()?.arg("check-mount").succeed()?;
    Ok(())
}

fn the_check_can_be_turned_off() -> Result<()> {
    let layers = layers()?.with("check-mount", "false");
    // Nothing is mounted, and whoever says so takes the blame; questions are answered all the same.
    let info = layers
        .superpose()?
        .args(["path-info", "z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt"]);
    info.succeed()?;
    layers.superpose()?.arg("verify").succeed()?;
    Ok(())
}

fn any_directory_can_be_described() -> Result<()> {
    let layers = layers()?;
    let _mount = layers.mount()?;
    let described = superpose()?
        .args(["check-mount", "--json"])
        .arg(layers.merged())
        .succeed()?
        .json()?;
    ensure!(
        described["kind"] == "overlay" && described["isMountPoint"] == true,
        "{described}"
    );
    ensure!(
        described["overlay"]["upper"] == *layers.upper().to_string_lossy(),
        "{described}"
    );
    let check = |upper: &Path, status: i32| {
        superpose()?
            .arg("check-mount")
            .arg("--upper")
            .arg(upper)
            .arg("--lower")
            .arg(layers.lower_dir())
            .arg(layers.merged())
            .exit_with(status)
    };
    check(&layers.upper(), 0)?;
    check(&layers.work(), 1)?;
    let plain = superpose()?
        .args(["check-mount", "--json", "/proc"])
        .succeed()?
        .json()?;
    ensure!(plain["kind"] == "other" && plain["overlay"].is_null(), "{plain}");
    Ok(())
}
