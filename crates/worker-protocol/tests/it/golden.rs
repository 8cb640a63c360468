// SPDX-License-Identifier: MIT OR Apache-2.0
//! The golden files: bytes as hexadecimal digits, with blanks between and comments behind `#`.

use std::fs;

/// Reads a golden file.
pub(crate) fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let digits: Vec<u8> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().bytes())
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| {
            (byte as char)
                .to_digit(16)
                .unwrap_or_else(|| panic!("{path}: not hexadecimal")) as u8
        })
        .collect();
    assert!(digits.len().is_multiple_of(2), "{path}: half a byte");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Every golden file is used by a test: one that is not proves nothing.
#[test]
fn every_golden_file_is_named_in_a_test() {
    let sources = concat!(
        include_str!("vectors.rs"),
        include_str!("build_vectors.rs"),
        include_str!("handshake.rs"),
        include_str!("peers.rs")
    );
    let mut count = 0;
    for entry in fs::read_dir(format!("{}/tests/golden", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".hex").unwrap();
        assert!(
            sources.contains(&format!("\"{stem}\"")),
            "{name} is used by no test"
        );
        count += 1;
    }
    assert!(count > 20, "{count}");
}
