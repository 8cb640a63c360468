// SPDX-License-Identifier: MIT OR Apache-2.0
//! A test file that nobody lists is a test that never runs.

use std::path::Path;

#[test]
fn every_test_file_is_listed() {
    for suite in ["it", "real"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(suite);
        let main = std::fs::read_to_string(directory.join("main.rs")).unwrap();
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let module = path.file_stem().unwrap().to_str().unwrap();
            if path.extension().is_some_and(|extension| extension == "rs") && module != "main" {
                assert!(
                    main.contains(&format!("mod {module};")),
                    "{suite}/main.rs does not list {module}"
                );
            }
        }
    }
}
