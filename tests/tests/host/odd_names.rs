// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories whose names hold characters that mean something to URLs, mount options, mount tables or SQLite.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use superpose_tests::{Invocation, Layers, Suite, Tree, make_writable_directory, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        every_odd_name_of_a_local_store_works,
        a_symbolic_link_in_the_way_to_the_store_directory_is_refused,
        a_symbolic_link_as_state_directory_is_followed_or_named,
        files_in_the_place_of_directories_are_named
    );
    trials!(
        suite,
        [superpose_tests::Need::UserNamespaces],
        every_odd_name_of_a_layer_works_in_a_namespace
    );
}

/// What a name may hold: everything but a slash and a zero byte.
pub(crate) fn odd_names() -> Vec<OsString> {
    let texts: [&[u8]; 16] = [
        b" ",
        b"+",
        b":",
        b",",
        b"\\",
        b"\n",
        b"\xff\xfe",
        b"%20",
        b"?a=b",
        b"#",
        b"&x=y",
        b"=",
        b"'\"",
        b"\t",
        b"$(x)*[",
        b"\\072,lowerdir=/",
    ];
    texts
        .iter()
        .map(|text| OsString::from_vec(text.to_vec()))
        .collect()
}

fn every_odd_name_of_a_local_store_works() -> Result<()> {
    for odd in odd_names() {
        let layers = Layers::named(&odd)?;
        let add = layers.below()?.arg("add").arg(layers.file("a.txt", "hello\n")?);
        let added = add.succeed()?;
        layers.below()?.args(["path-info", added.line()?]).succeed()?;
        layers.below()?.args(["verify", "--check-contents"]).succeed()?;
        let link = layers.join(&odd).join("result");
        fs::create_dir_all(layers.join(&odd))?;
        layers
            .below()?
            .arg("add-root")
            .arg(&link)
            .arg(added.line()?)
            .succeed()?;
        layers.below()?.args(["delete", added.line()?]).exit_with(1)?;
        fs::remove_file(&link)?;
        layers.below()?.args(["delete", added.line()?]).succeed()?;
        ensure!(
            !layers
                .lower_dir()
                .join("z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt")
                .exists(),
            "{}",
            odd.display()
        );
    }
    Ok(())
}

fn every_odd_name_of_a_layer_works_in_a_namespace() -> Result<()> {
    for odd in odd_names() {
        let layers = Layers::named(&odd)?;
        layers
            .below()?
            .arg("add")
            .arg(layers.file("a.txt", "hello\n")?)
            .succeed()?;
        fs::write(layers.join("b.txt"), "above\n")?;
        // The layers of somebody without rights, beside the lower store.
        for dir in [layers.upper(), layers.work(), layers.root()] {
            make_writable_directory(&dir)?;
        }
        let before = Tree::of(&layers.lower())?;
        let script = "set -e
            \"$0\" path-info --layer z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt
            \"$0\" add b.txt
            \"$0\" check-mount
            \"$0\" verify --check-contents";
        let run = in_namespace(&layers, script)?.run()?;
        ensure!(run.code() == Some(0), "{}: {run}", odd.display());
        ensure!(
            run.text()?.contains("lower\n") && run.text()?.contains("-b.txt"),
            "{}: {run}",
            odd.display()
        );
        before.expect_unchanged(&layers.lower())?;
    }
    Ok(())
}

/// A shell script run by `superpose run` as somebody without rights; `$0` is superpose.
pub(crate) fn in_namespace(layers: &Layers, script: &str) -> Result<Invocation> {
    Ok(superpose_tests::superpose_as_ordinary_user()?
        .current_dir(layers.scratch().path())
        .arg("--store")
        .arg(layers.url())
        .arg("run")
        .arg("--workdir")
        .arg(layers.work())
        .args(["--", "sh", "-c", script])
        .arg(superpose_tests::program_path()?))
}

fn a_symbolic_link_in_the_way_to_the_store_directory_is_refused() -> Result<()> {
    // Any directory on the way.
    for link in ["", "nix", "nix/store"] {
        let layers = Layers::new()?;
        layers
            .below()?
            .arg("add")
            .arg(layers.file("a.txt", "hello\n")?)
            .succeed()?;
        let place = layers.lower().join(link);
        let place = if link.is_empty() { layers.lower() } else { place };
        fs::rename(&place, layers.join("moved"))?;
        symlink(layers.join("moved"), &place)?;
        let refused = layers
            .below()?
            .arg("add")
            .arg(layers.join("a.txt"))
            .exit_with(1)?;
        for fragment in [
            "symbolic link",
            &format!("'{}'", place.display()),
            "give the path that it points to",
        ] {
            ensure!(
                refused.errors().contains(fragment),
                "no `{fragment}` in {refused}"
            );
        }
    }
    Ok(())
}

fn a_symbolic_link_as_state_directory_is_followed_or_named() -> Result<()> {
    let layers = Layers::new()?;
    layers
        .below()?
        .arg("add")
        .arg(layers.file("a.txt", "hello\n")?)
        .succeed()?;
    let state = layers.lower().join("nix/var/nix");
    for name in ["temproots", "db", "gcroots"] {
        fs::rename(state.join(name), layers.join(name))?;
        symlink(layers.join(name), state.join(name))?;
        let finished = layers.below()?.arg("add").arg(layers.file("new", name)?).run()?;
        // Written elsewhere, nobody else would find it.
        ensure!(
            finished.code() == Some(0)
                || finished
                    .errors()
                    .contains(&state.join(name).display().to_string()),
            "{finished}"
        );
        fs::remove_file(state.join(name))?;
        fs::rename(layers.join(name), state.join(name))?;
    }
    Ok(())
}

fn files_in_the_place_of_directories_are_named() -> Result<()> {
    for name in [
        "nix/store",
        "nix/var/nix",
        "nix/var/nix/db",
        "nix/var/nix/temproots",
    ] {
        let layers = Layers::new()?;
        let place = layers.lower().join(name);
        fs::create_dir_all(place.parent().unwrap())?;
        fs::write(&place, "in the way")?;
        let refused = layers
            .below()?
            .arg("add")
            .arg(layers.file("a.txt", "hello\n")?)
            .exit_with(1)?;
        ensure!(
            refused.errors().contains(&place.display().to_string()),
            "{name} is not named: {refused}"
        );
        ensure!(fs::read(&place)? == b"in the way", "{name} was overwritten");
    }
    Ok(())
}
