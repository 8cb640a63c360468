// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies into a served store: each client sends a closure to its own server.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, ensure};
use superpose_store_path::StoreDir;

use crate::cases::{Lower, SERVE_COPY, Sizes};
use crate::measure;
use crate::runs::{Bench, Compared, RUNS};
use crate::serving::{start_ours, start_theirs};

/// Measures both in turn, each time with a new server of a new store in memory.
pub(crate) fn measure(bench: &Bench, sizes: Sizes) -> Result<Compared> {
    let source = bench.stage.store(Lower::Middle);
    let from = format!("local?root={}", source.root.display());
    let count = sizes.closure() / 10;
    let path = StoreDir::default().join(&source.root_of(count));
    let output = bench.stage.work.join("received.out");
    let mut compared = Compared::default();
    // The first round does not count.
    for round in 0..=bench.runs.unwrap_or(RUNS) {
        for is_ours in [false, true] {
            let root = bench.stage.memory.join("received");
            remove(&root)?;
            fs::create_dir(&root)?;
            let (server, program, samples) = if is_ours {
                let server = start_ours(bench, &root)?;
                (server, bench.superpose.clone(), &mut compared.ours)
            } else {
                let server = start_theirs(bench, &root)?;
                (server, bench.stock.program("nix"), &mut compared.base)
            };
            let to = format!("unix://{}?root={}", server.socket.display(), root.display());
            let words: [OsString; 7] = [
                "--store".into(),
                from.clone().into(),
                "copy".into(),
                "--no-check-sigs".into(),
                "--to".into(),
                to.into(),
                path.clone().into(),
            ];
            let sample = measure::run(&program.with(&words), &output)?;
            drop(server);
            expect_received(&root, count as usize)?;
            if round > 0 {
                let name = if is_ours { "superpose" } else { "stock" };
                eprintln!("{SERVE_COPY:<14} {name:<10} {:>10.1?}", sample.wall);
                samples.0.push(sample);
            }
            remove(&root)?;
        }
    }
    Ok(compared)
}

fn expect_received(root: &Path, count: usize) -> Result<()> {
    let mut found = 0;
    for entry in fs::read_dir(root.join("nix/store"))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        found += usize::from(!name.starts_with('.') && !name.ends_with(".lock"));
    }
    ensure!(found == count, "{found} objects of {count} were received");
    Ok(())
}

/// Objects are read only, which is nothing to root.
fn remove(root: &Path) -> Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
