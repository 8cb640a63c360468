// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directory names with every byte that some parser stumbles over.

use std::ffi::OsString;
use std::process::Command;

use superpose_mount_check::{Mend, Outcome as Found, Text};

use crate::harness::{Case, Outcome, in_user_namespace};
use crate::outcome::{done, proven};
use crate::world::{Setting, World, name, open};

const NAMES: [&[u8]; 14] = [
    b"two words",
    b"tab\tname",
    b"new\nline",
    b"colon:name",
    b"double::colon",
    b"comma,name",
    b"back\\slash",
    b"\\054 octal-like \\",
    b"hash#name",
    b"plus+star*dollar$",
    b"bracket[paren(",
    b"quote'double\"equals=",
    b"not-utf8-\xff\xfe",
    "gr\u{fc}n \u{2603}".as_bytes(),
];

pub(crate) fn trials() -> Vec<Case> {
    vec![
        Case::new("odd_paths_in_a_legacy_string", legacy_string),
        Case::new("odd_paths_in_lowerdir_plus", lowerdir_plus).kernel(6, 8),
        Case::new("odd_paths_as_file_descriptors", file_descriptors).kernel(6, 13),
        Case::new("the_printed_command_mounts_odd_paths", printed_command),
    ]
}

fn all_named(world: &World) {
    let report = world.check(&["l", "l2"], "u");
    proven(&report);
    // The text is decoded rightly as well, though nothing depends on it.
    assert!(
        report
            .evidence
            .iter()
            .all(|evidence| evidence.text == Text::Names),
        "{report}"
    );
}

fn legacy_string() -> Outcome {
    for odd in NAMES {
        let world = World::named(name(odd));
        world.fill("l2", "second");
        world.overlay("m", &["l", "l2"], "u");
        all_named(&world);
    }
    done()
}

fn lowerdir_plus() -> Outcome {
    for odd in NAMES {
        let world = World::named(name(odd));
        world.fill("l2", "second");
        // Escaped as in a string, since the kernel takes backslashes of these two away.
        let escaped = |name: &str| {
            use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
            let path = world.path(name);
            let escaped = superpose_mount_check::escape::escape_upperdir(path.as_os_str().as_bytes());
            Setting::Path(OsString::from_vec(escaped).into())
        };
        let settings = [
            ("lowerdir+", Setting::Path(world.path("l"))),
            ("lowerdir+", Setting::Path(world.path("l2"))),
            ("upperdir", escaped("u")),
            ("workdir", escaped("w")),
        ];
        world.new_api(&settings, "m")?;
        all_named(&world);
    }
    done()
}

fn file_descriptors() -> Outcome {
    for odd in NAMES {
        let world = World::named(name(odd));
        world.fill("l2", "second");
        let settings = [
            ("lowerdir+", Setting::Fd(open(&world.path("l")))),
            ("lowerdir+", Setting::Fd(open(&world.path("l2")))),
            ("upperdir", Setting::Fd(open(&world.path("u")))),
            ("workdir", Setting::Fd(open(&world.path("w")))),
        ];
        world.new_api(&settings, "m")?;
        all_named(&world);
    }
    done()
}

fn printed_command() -> Outcome {
    for odd in NAMES {
        let world = World::named(name(odd));
        world.fill("l2", "second");
        let report = world.check(&["l", "l2"], "u");
        let Found::Different(differences) = &report.outcome else {
            panic!("mounted already?\n{report}")
        };
        for mend in &differences[0].mend {
            let Mend::Run(words) = mend else { continue };
            // What is printed is what runs: through a shell, not word by word.
            let output = Command::new("bash").arg("-c").arg(mend.to_string()).output()?;
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{mend}\n{words:?}\n{error}");
        }
        world.mounted(world.path("m"));
        all_named(&world);
        assert!(!in_user_namespace() || report.warnings.is_empty());
    }
    done()
}
