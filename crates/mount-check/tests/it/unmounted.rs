// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports about directories where nothing is mounted, and the errors.

use std::path::Path;

use superpose_mount_check::{Aspect, Error, Expected, Mend, MountKind, Outcome, check, describe};

fn report(directory: &Path, mount_point: &str, upper: &str, lower: &[&str]) -> superpose_mount_check::Report {
    let (mount_point, upper) = (directory.join(mount_point), directory.join(upper));
    let lower = lower.iter().map(|name| directory.join(name)).collect();
    check(&Expected {
        mount_point: &mount_point,
        lower,
        upper: &upper,
    })
    .unwrap()
}

fn world() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["l", "u", "m", "two words"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    std::fs::write(directory.path().join("file"), "").unwrap();
    directory
}

fn aspects(report: &superpose_mount_check::Report) -> Vec<Aspect> {
    match &report.outcome {
        Outcome::Different(differences) => differences.iter().map(|difference| difference.what).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plain_directory_is_not_mounted() {
    let directory = world();
    let found = report(directory.path(), "m", "u", &["l"]);
    assert_eq!(aspects(&found), [Aspect::NotMounted], "{found}");
    assert!(!found.is_as_expected());
    let returned = found.into_proof().unwrap_err();
    assert_eq!(aspects(&returned), [Aspect::NotMounted]);
}

#[test]
fn a_missing_mount_point_is_a_difference() {
    let directory = world();
    for missing in ["nothing", "file", "file/below"] {
        let found = report(directory.path(), missing, "u", &["l"]);
        assert_eq!(aspects(&found), [Aspect::MountPoint], "{found}");
        assert!(found.mount.is_none());
    }
}

#[test]
fn what_to_run_is_given_word_by_word() {
    let directory = world();
    let found = report(directory.path(), "two words", "u", &["l"]);
    let Outcome::Different(differences) = &found.outcome else {
        panic!("{found}")
    };
    let commands: Vec<_> = differences[0]
        .mend
        .iter()
        .filter_map(|mend| match mend {
            Mend::Run(words) => Some(words.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(commands.len(), 2, "{found}");
    let path = std::fs::canonicalize(directory.path()).unwrap().join("two words");
    assert_eq!(commands[1].last().unwrap(), path.as_os_str());
    assert!(
        found.to_string().contains(&format!("'{}'", path.display())),
        "{found}"
    );
}

#[test]
fn report_of_a_missing_mount_point() {
    let directory = world();
    let found = report(directory.path(), "nothing", "u", &["l"]);
    let text = found
        .to_string()
        .replace(&directory.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text);
}

#[test]
fn describe_works_on_any_directory() {
    let directory = world();
    let found = describe(directory.path()).unwrap();
    assert!(!found.is_mount_point);
    assert_eq!(found.path, std::fs::canonicalize(directory.path()).unwrap());
    assert_eq!(describe(Path::new("/proc")).unwrap().kind, MountKind::Other);
    assert!(describe(Path::new("/proc")).unwrap().is_mount_point);
}

#[test]
fn describe_names_what_it_cannot_open() {
    let directory = world();
    for name in ["nothing", "file"] {
        let path = directory.path().join(name);
        let error = describe(&path).unwrap_err();
        assert!(
            matches!(&error, Error::Open { path: named, .. } if *named == path),
            "{error}"
        );
        assert!(error.to_string().contains(name), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}
