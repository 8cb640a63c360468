// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the whole crate through its public interface.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod content;
mod derivation_checks;
mod derivation_files;
mod derivations;
mod errors;
mod hashes;
mod modulo;
mod paths;
mod properties;
#[cfg(feature = "serde")]
mod serde_text;
mod settings;
mod signatures;
mod urls;

/// A file that is not a module here would be a test that never runs.
#[test]
fn every_file_is_a_module() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
    let this = include_str!("main.rs");
    let mut files = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(
                this.contains(&format!("mod {module};")),
                "{name} is not a module of main.rs"
            );
            files += 1;
        }
    }
    assert_eq!(
        files,
        this.lines().filter(|line| line.starts_with("mod ")).count()
    );
}
