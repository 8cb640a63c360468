// SPDX-License-Identifier: MIT OR Apache-2.0
//! Store URLs that cannot be meant: each names the setting or the part, what was expected, and what was found.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Result, ensure};
use superpose_tests::{Layers, Suite, encoded, superpose, trials};

pub(crate) fn register(suite: &mut Suite) {
    trials!(
        suite,
        [],
        what_is_no_store_is_refused,
        badly_encoded_urls_are_refused,
        settings_of_the_wrong_type_are_refused,
        odd_settings_are_reported_and_skipped,
        an_overlay_without_an_upper_layer_is_refused,
        an_overlay_without_a_state_of_its_own_is_refused,
        an_overlay_that_shares_a_directory_with_its_lower_store_is_refused,
        lower_stores_without_directories_are_refused,
        other_store_directories_below_are_refused,
        a_chain_without_end_is_refused,
        what_is_written_wrongly_is_named_beside_what_is_missing,
        the_full_url_of_an_overlay_is_in_its_messages
    );
}

const OBJECT: &str = "z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt";

/// Asks for a path of a store and expects wrong usage, with these fragments in the message.
fn refused(url: impl Into<OsString>, fragments: &[&str]) -> Result<()> {
    let url = url.into();
    for command in ["path-info", "ensure"] {
        let finished = superpose()?
            .arg("--store")
            .arg(&url)
            .args([command, OBJECT])
            .exit_with(2)?;
        for fragment in fragments {
            ensure!(
                finished.errors().contains(fragment),
                "no `{fragment}` in {finished}"
            );
        }
        ensure!(finished.stdout.is_empty(), "{finished}");
    }
    Ok(())
}

fn what_is_no_store_is_refused() -> Result<()> {
    refused("nosuch", &["`nosuch`", "local-overlay://"])?;
    refused("http://cache", &["`http://cache`", "expected", "`local-overlay`"])?;
    refused("ssh://host", &["`ssh://host`"])?;
    refused("dummy://", &["`dummy://`"])?;
    refused("local://host/x", &["no host"])?;
    refused("unix://run/socket", &["`unix://run/socket`", "no host"])
}

fn badly_encoded_urls_are_refused() -> Result<()> {
    for url in [
        "local://?root=%zz",
        "local://?root=%2",
        "local://?root=/a%",
        "local-overlay://?root=/a&lower-store=%f",
    ] {
        refused(url, &[url, "two hexadecimal digits"])?;
    }
    // Decoded, a zero byte is in no path.
    refused("local://?root=/a%00b", &["`root`", "without NUL"])
}

fn settings_of_the_wrong_type_are_refused() -> Result<()> {
    let overlay = "local-overlay://?root=/m&lower-store=/l&upper-layer=/u";
    for (url, key, found, expected) in [
        ("local://?root=relative", "root", "relative", "an absolute path"),
        ("local://?state=./x", "state", "./x", "an absolute path"),
        ("local://?real=", "real", "", "an absolute path"),
        ("local://?log=x", "log", "x", "an absolute path"),
        (
            "local://?store=nix/store",
            "store",
            "nix/store",
            "an absolute UTF-8 path",
        ),
        ("local://?read-only=maybe", "read-only", "maybe", "`true`"),
        ("local://?read-only=TRUE", "read-only", "TRUE", "`true`"),
        ("local://?require-sigs=", "require-sigs", "", "`true`"),
        (
            "local://?path-info-cache-size=many",
            "path-info-cache-size",
            "many",
            "a decimal number",
        ),
        (&format!("{overlay}&check-mount=2"), "check-mount", "2", "`false`"),
        (
            &format!("{overlay}&remount-hook=hook"),
            "remount-hook",
            "hook",
            "an absolute path",
        ),
        (
            "local-overlay://?root=/m&lower-store=/l&upper-layer=",
            "upper-layer",
            "",
            "an absolute path",
        ),
        (
            "local-overlay://?root=/m&lower-store=/l&upper-layer=u",
            "upper-layer",
            "u",
            "an absolute path",
        ),
        (
            "local-overlay://?root=m&lower-store=/l&upper-layer=/u",
            "root",
            "m",
            "an absolute path",
        ),
    ] {
        refused(url, &[&format!("`{key}`"), &format!("`{found}`"), expected])?;
    }
    Ok(())
}

fn odd_settings_are_reported_and_skipped() -> Result<()> {
    let layers = Layers::new()?;
    layers
        .below()?
        .arg("add")
        .arg(layers.file("a.txt", "hello\n")?)
        .succeed()?;
    for (addition, warning) in [
        ("&rooot=/x", "ignoring unknown setting `rooot`"),
        ("&root=/elsewhere", "setting `root` is given twice"),
        ("&foo", "ignoring `foo`"),
        ("&=x", "ignoring unknown setting ``"),
        ("&upper-layer=/u", "ignoring unknown setting `upper-layer`"),
    ] {
        let url = format!("{}{addition}", layers.lower_url().display());
        let info = superpose()?
            .args(["--store", &url, "path-info", OBJECT])
            .succeed()?;
        ensure!(
            info.errors().starts_with(&format!("warning: {warning}")),
            "{info}"
        );
        ensure!(
            info.errors().lines().count() == 1,
            "more than one warning: {info}"
        );
    }
    Ok(())
}

fn an_overlay_without_an_upper_layer_is_refused() -> Result<()> {
    refused(
        "local-overlay://?root=/m&lower-store=/l",
        &["has no upper layer", "add upper-layer=DIRECTORY", "root=/m"],
    )
}

fn an_overlay_without_a_state_of_its_own_is_refused() -> Result<()> {
    for url in [
        "local-overlay://",
        "local-overlay://?lower-store=/l&upper-layer=/u",
    ] {
        refused(url, &["'/nix/var/nix'", "add root=DIRECTORY or state=DIRECTORY"])?;
    }
    Ok(())
}

fn an_overlay_that_shares_a_directory_with_its_lower_store_is_refused() -> Result<()> {
    let layers = Layers::new()?;
    layers
        .below()?
        .arg("add")
        .arg(layers.file("a.txt", "hello\n")?)
        .succeed()?;
    let base = layers.scratch().path().display().to_string();
    std::os::unix::fs::symlink(layers.lower(), layers.join("alias"))?;
    let overlay = |settings: &str| format!("local-overlay://?lower-store={base}/lower&{settings}");
    let state = "nix/var/nix";
    for (settings, what) in [
        (
            format!("root={base}/lower&upper-layer={base}/u"),
            "state directory",
        ),
        (
            format!("root={base}/m&state={base}/lower/{state}&upper-layer={base}/u"),
            "state directory",
        ),
        // The same directory under another name.
        (
            format!("root={base}/m&state={base}/alias/{state}&upper-layer={base}/u"),
            "state directory",
        ),
        (
            format!("root={base}/m&real={base}/lower/nix/store&upper-layer={base}/u"),
            "store directory",
        ),
        (
            format!("root={base}/m&upper-layer={base}/lower/nix/store"),
            "upper layer",
        ),
        (
            format!("root={base}/m&upper-layer={base}/m/nix/store"),
            "upper layer",
        ),
    ] {
        refused(overlay(&settings), &[what, "belongs to", "give each its own"])?;
    }
    Ok(())
}

fn lower_stores_without_directories_are_refused() -> Result<()> {
    let overlay = |lower: &str| {
        let lower = String::from_utf8(encoded(lower.as_bytes())).unwrap_or_default();
        format!("local-overlay://?root=/m&lower-store={lower}&upper-layer=/u")
    };
    refused(overlay("http://cache"), &["`lower-store`", "`http://cache`"])?;
    refused(overlay("dummy://"), &["`lower-store`", "`dummy://`"])?;
    refused(overlay("unix://socket"), &["`lower-store`", "`unix://socket`"])?;
    refused(overlay("/l?read-only=perhaps"), &["`read-only`", "`perhaps`"])
}

fn other_store_directories_below_are_refused() -> Result<()> {
    refused(
        "local-overlay://?root=/m&lower-store=/l%3Fstore=/gnu/store&upper-layer=/u",
        &["'/gnu/store'", "expected '/nix/store'"],
    )
}

fn a_chain_without_end_is_refused() -> Result<()> {
    let mut url = "local:///l".to_owned();
    for level in 0..40 {
        let lower = String::from_utf8(encoded(url.as_bytes()))?;
        url = format!("local-overlay://?root=/m{level}&upper-layer=/u{level}&lower-store={lower}");
        // Each level doubles the percent signs; the limit comes long before the memory ends.
        if url.len() > 60_000 {
            break;
        }
    }
    let finished = superpose()?.args(["--store", &url, "path-info", OBJECT]).run()?;
    ensure!(matches!(finished.code(), Some(1 | 2)), "{finished}");
    Ok(())
}

fn the_full_url_of_an_overlay_is_in_its_messages() -> Result<()> {
    let layers = Layers::new()?;
    let status = layers
        .superpose()?
        .args(["status", "--json"])
        .exit_with(1)?
        .json()?;
    let url = status["url"].as_str().unwrap_or_default().to_owned();
    for setting in ["lower-store=local://?root%3D", "root=", "upper-layer="] {
        ensure!(url.contains(setting), "{url}");
    }
    // It is one that can be given again.
    let again = superpose()?
        .args(["--store", &url, "status", "--json"])
        .exit_with(1)?
        .json()?;
    ensure!(
        again["url"] == *url && again["layers"] == status["layers"],
        "{again}"
    );
    let refused = layers.superpose()?.args(["path-info", OBJECT]).exit_with(1)?;
    ensure!(refused.errors().contains(&url), "{refused}");
    // Bytes that are not UTF-8 survive.
    let odd = Layers::named(OsString::from_vec(b"\xff".to_vec()))?;
    let status = odd.superpose()?.args(["status", "--json"]).exit_with(1)?.json()?;
    ensure!(
        status["url"].as_str().is_some_and(|url| url.contains("%FF")),
        "{status}"
    );
    Ok(())
}

/// The setting that is missing may be the one that nobody knows.
fn what_is_written_wrongly_is_named_beside_what_is_missing() -> Result<()> {
    refused(
        "local-overlay://?root=/nowhere&upper-layr=/nowhere/upper&lower-store=/nowhere/lower",
        &[
            "ignoring unknown setting `upper-layr`",
            "add upper-layer=DIRECTORY",
        ],
    )
}
