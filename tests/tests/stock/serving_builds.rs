// SPDX-License-Identifier: MIT OR Apache-2.0
//! What our server hands to a stock Nix, and what is left when it is killed.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use superpose_tests::{Invocation, Layers, Need, StockNix, Suite, stock_trials, superpose};

use crate::serving_writes::{Pair, Serving, client_url, rows};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(suite, [], what_would_be_built_says_how);
    stock_trials!(suite, [Need::Root], builds_are_handed_to_stock_nix);
    stock_trials!(
        suite,
        [Need::CrashPoints],
        a_killed_server_leaves_nothing_half_made
    );
}

/// Derivations of which one needs the output of another, and a file.
fn derivations(text: &str) -> String {
    format!(
        r#"
        let
          make = name: script: derivation {{
            inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ];
          }};
          file = builtins.toFile "file" "file\n";
          library = make "library" "read x < ${{file}}; echo library $x > $out";
        in make "program" "read x < ${{library}}; echo {text} $x > $out"
        "#
    )
}

fn what_would_be_built_says_how(stock: StockNix) -> Result<()> {
    let pair = Pair::new(stock)?;
    let instantiate = stock
        .program("nix-instantiate")
        .arg("--store")
        .arg(pair.our_url());
    let drv = instantiate.args(["-E", &derivations("nobody")]).succeed()?;
    let drv = drv.line()?;
    let refused = stock.nix_store(pair.our_url()).args(["-r", drv]).exit_with(1)?;
    ensure!(refused.errors().contains("--delegate nix-daemon"), "{refused}");
    let wanted = format!("{drv}^*");
    let refused = stock
        .nix(pair.our_url())
        .args(["build", "--no-link", &wanted])
        .exit_with(1)?;
    ensure!(refused.errors().contains("--delegate nix-daemon"), "{refused}");
    Ok(())
}

/// The program of a stock Nix.
pub(crate) fn path_of(stock: StockNix, name: &str) -> Result<String> {
    let command = stock.program(name).into_command();
    command.get_program().to_str().map(str::to_owned).context("UTF-8")
}

/// An overlay store that is where its own objects take it to be, so that nothing needs a sandbox; with its lower store's URL
/// and its own.
pub(crate) fn layers_in_place() -> Result<(Layers, OsString, OsString)> {
    let plain = Layers::new()?;
    let dir = plain.merged();
    let layers = plain.with("store", dir.as_os_str());
    let mut lower = layers.lower_url();
    lower.push("&store=");
    lower.push(&dir);
    let url = layers.url_over(&lower);
    Ok((layers, lower, url))
}

fn builds_are_handed_to_stock_nix(stock: StockNix) -> Result<()> {
    let (layers, lower, url) = layers_in_place()?;
    let dir = layers.merged();
    // A derivation that was built below, and all that it needs.
    let instantiate = |store: &OsString, text: &str| -> Result<String> {
        let run = stock.program("nix-instantiate").arg("--store").arg(store);
        Ok(run.args(["-E", &derivations(text)]).succeed()?.line()?.to_owned())
    };
    let _mount = layers.mount()?;
    let superpose_at = |url: &OsString| -> Result<Invocation> { Ok(superpose()?.arg("--store").arg(url)) };
    let ground = layers.file("ground", "ground\n")?;
    superpose_at(&lower)?.arg("add").arg(ground).succeed()?;
    let old = instantiate(&lower, "old")?;
    // Its outputs come from an equal build above, and go below by a copy.
    let delegate = path_of(stock, "nix-daemon")?;
    let socket = layers.join("s");
    let mut client = client_url(&socket, &layers.root());
    client.push("&store=");
    client.push(&dir);
    let serving = Serving::start(superpose_at(&url)?, &socket, &["--delegate", &delegate])?;
    let realise = |drv: &str| stock.nix_store(&client).args(["-r", drv]);
    let built = realise(&old).succeed()?;
    let output = built.line()?.to_owned();
    ensure!(fs::read_to_string(&output)? == "old library file\n", "{built}");
    let upper: Vec<String> = layers.upper_names()?;
    ensure!(
        upper.iter().any(|name| name.ends_with("-library"))
            && upper.iter().any(|name| name.ends_with("-program"))
    );
    // The derivations and the file are answered from below.
    ensure!(upper.len() == 2, "{upper:?}");
    // The next needs the first one's library, and says what it does.
    let new = instantiate(&client, "new")?;
    let wanted = format!("{new}^*");
    let built = stock
        .nix(&client)
        .args(["build", "--no-link", "--print-out-paths", "-L", &wanted])
        .succeed()?;
    ensure!(
        fs::read_to_string(built.line()?)? == "new library file\n",
        "{built}"
    );
    ensure!(built.errors().contains("building"), "{built}");
    // Again: nothing is built.
    let again = stock
        .nix(&client)
        .args(["build", "--no-link", "--print-out-paths", &wanted])
        .succeed()?;
    ensure!(
        again.stdout == built.stdout && !again.errors().contains("building"),
        "{again}"
    );
    // A builder that fails.
    let broken = r#"derivation { name = "broken"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo why; exit 3" ]; }"#;
    let instantiated = stock.program("nix-instantiate").arg("--store").arg(&client);
    let broken = instantiated.args(["-E", broken]).succeed()?.line()?.to_owned();
    let failed = realise(&broken).exit_with(1)?;
    ensure!(failed.errors().contains("failed with exit code 3"), "{failed}");
    // A client that goes in the middle takes the builder with it.
    let pid = layers.join("pid");
    let endless = format!(
        r#"derivation {{ name = "endless"; system = "x86_64-linux"; builder = "/bin/sh";
             args = [ "-c" "echo $$ > {0}; while read x < {1}; do :; done" ]; }}"#,
        pid.display(),
        layers.join("nobody-writes").display()
    );
    Invocation::new("mkfifo")
        .arg(layers.join("nobody-writes"))
        .succeed()?;
    let instantiated = stock.program("nix-instantiate").arg("--store").arg(&client);
    let endless = instantiated.args(["-E", &endless]).succeed()?.line()?.to_owned();
    let mut building = realise(&endless).start()?;
    let said = || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'));
    building.wait_until("it builds", || Ok(said()))?;
    let builder = Path::new("/proc").join(fs::read_to_string(&pid)?.trim_end());
    ensure!(builder.exists());
    drop(building);
    let begun = Instant::now();
    while builder.exists() {
        ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "the builder goes on without its client"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    // The clients are gone, and what they kept.
    superpose_at(&url)?
        .args(["verify", "--check-contents"])
        .succeed()?;
    // The daemon ends a moment after the builder, and what it keeps goes with it.
    let begun = Instant::now();
    while !layers.upper_names()?.is_empty() {
        ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "{:?}",
            layers.upper_names()?
        );
        superpose_at(&url)?.arg("gc").succeed()?;
    }
    ensure!(!Path::new(&output).exists());
    stock
        .nix_store(&client)
        .args(["--check-validity", &old])
        .succeed()?;
    serving.stop()?;
    // A program that is not there is named.
    let nowhere = ["--delegate", "/nowhere/nix-daemon"];
    let serving = Serving::start(superpose_at(&url)?, &socket, &nowhere)?;
    let failed = realise(&old).exit_with(1)?;
    ensure!(
        failed.errors().contains("cannot start '/nowhere/nix-daemon'"),
        "{failed}"
    );
    serving.stop()
}

/// Killed at every point of an upload: nothing of it is visible, and the next start cleans up.
fn a_killed_server_leaves_nothing_half_made(stock: StockNix) -> Result<()> {
    let elsewhere = Layers::new()?;
    let one = elsewhere.add_below("one", "one\n", &[])?;
    let two = elsewhere.add_tree_below("two", &[&one])?;
    let large = elsewhere.add_large_below(3 << 20)?;
    let mut killed = 0;
    for point in 1.. {
        let layers = Layers::new()?;
        let (root, socket) = (layers.join("store"), layers.join("s"));
        let serve = superpose_tests::superpose_crashing_at(point)?
            .arg("--store")
            .arg(&root);
        let serving = Serving::start(serve, &socket, &[])?;
        let copy = stock.nix(client_url(&socket, &root)).args(["copy", "--from"]);
        let copied = copy.arg(elsewhere.lower()).args([&two, &large]).run()?;
        let is_over = copied.code() == Some(0);
        drop(serving);
        if !is_over {
            killed += 1;
        }
        // What is valid is whole, and the next start removes the rest.
        let serving = Serving::start(superpose()?.arg("--store").arg(&root), &socket, &[])?;
        serving.stop()?;
        superpose()?
            .arg("--store")
            .arg(&root)
            .args(["verify", "--check-contents"])
            .succeed()?;
        let valid = rows(&root)?.len();
        let names = fs::read_dir(root.join("nix/store"))?.count();
        ensure!(
            valid == 0 || valid == 3,
            "{valid} paths are valid after point {point}"
        );
        ensure!(
            names == valid + 1,
            "{names} names, {valid} paths after point {point}"
        );
        if is_over {
            ensure!(valid == 3);
            break;
        }
    }
    ensure!(killed >= 5, "killed only {killed} times");
    Ok(())
}
