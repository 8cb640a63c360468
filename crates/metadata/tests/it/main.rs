// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the crate from outside.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up what it needs has failed"
)]

mod busy;
mod child;
mod copies;
mod daemon;
mod editions;
mod fixture;
mod impossible_rows;
mod liveness;
mod one_process;
mod open;
mod peer;
mod questions;
mod read_only;
mod realisations;
mod registration;
mod removal;
mod suite;

#[test]
fn every_file_is_a_module() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = std::fs::read_to_string(dir.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(
            module == "main" || main.contains(&format!("\nmod {module};\n")),
            "{name} is not a module of main.rs"
        );
    }
}
