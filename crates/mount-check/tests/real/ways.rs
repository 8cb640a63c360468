// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every way of making the right mount is recognised.

use superpose_mount_check::{Certainty, Layer, Probe, Text, Warning};

use crate::harness::{Case, Needs, Outcome};
use crate::outcome::{as_expected, certainty, done, proven};
use crate::world::{Setting, World, open};

pub(crate) fn trials() -> Vec<Case> {
    vec![
        Case::new("legacy_string", legacy_string),
        Case::new("new_api_strings", new_api_strings),
        Case::new("new_api_lowerdir_plus", new_api_lowerdir_plus).kernel(6, 8),
        Case::new("new_api_file_descriptors", new_api_file_descriptors).kernel(6, 13),
        Case::new("data_only_layer", data_only_layer)
            .needs(Needs::Root)
            .kernel(6, 5),
        Case::new("relative_paths", relative_paths),
        Case::new(
            "relative_paths_and_an_empty_lower_directory",
            relative_empty_lower,
        ),
        Case::new("slashes_and_dots", slashes_and_dots),
        Case::new("symlinks_in_the_options", symlinks_in_the_options),
        Case::new("other_source_names", other_source_names),
        Case::new("options_in_another_order", options_in_another_order),
        Case::new("two_file_systems", two_file_systems),
        Case::new("an_overlay_as_lower_directory", overlay_as_lower),
        Case::new("an_empty_lower_directory", empty_lower),
        Case::new("everything_shadowed", everything_shadowed),
        Case::new("options_that_endanger", options_that_endanger).needs(Needs::Root),
    ]
}

fn legacy_string() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    let report = world.check(&["l"], "u");
    proven(&report);
    assert_eq!(report.warnings, []);
    assert!(
        report
            .evidence
            .iter()
            .all(|evidence| evidence.text == Text::Names),
        "{report}"
    );
    done()
}

fn new_api_strings() -> Outcome {
    let world = World::new();
    // At most 255 bytes each, which a temporary directory does not reach.
    let settings = [
        ("lowerdir", Setting::Path(world.path("l"))),
        ("upperdir", Setting::Path(world.path("u"))),
        ("workdir", Setting::Path(world.path("w"))),
    ];
    world.new_api(&settings, "m")?;
    proven(&world.check(&["l"], "u"));
    done()
}

fn new_api_lowerdir_plus() -> Outcome {
    let world = World::new();
    world.fill("l2", "second");
    let settings = [
        ("source", Setting::Text("anything at all")),
        ("lowerdir+", Setting::Path(world.path("l"))),
        ("lowerdir+", Setting::Path(world.path("l2"))),
        ("upperdir", Setting::Path(world.path("u"))),
        ("workdir", Setting::Path(world.path("w"))),
    ];
    world.new_api(&settings, "m")?;
    proven(&world.check(&["l", "l2"], "u"));
    done()
}

fn new_api_file_descriptors() -> Outcome {
    let world = World::new();
    let settings = [
        ("lowerdir+", Setting::Fd(open(&world.path("l")))),
        ("upperdir", Setting::Fd(open(&world.path("u")))),
        ("workdir", Setting::Fd(open(&world.path("w")))),
    ];
    world.new_api(&settings, "m")?;
    proven(&world.check(&["l"], "u"));
    done()
}

fn data_only_layer() -> Outcome {
    let world = World::new();
    world.fill("data", "data");
    let lower = format!("{}::{}", world.path("l").display(), world.path("data").display());
    let data = format!(
        "lowerdir={lower},upperdir={},workdir={}",
        world.path("u").display(),
        world.path("w").display()
    );
    let mounted = ["", ",metacopy=on", ",userxattr"].iter().any(|more| {
        world
            .mount_data("overlay", "m", format!("{data}{more}").as_bytes())
            .is_ok()
    });
    assert!(mounted, "data-only layers are refused");
    let report = world.check(&["l"], "u");
    as_expected(&report);
    assert!(report.warnings.contains(&Warning::DataOnlyLayers(1)), "{report}");
    done()
}

fn relative_paths() -> Outcome {
    let world = World::new();
    mount_relative(&world);
    let report = world.check(&["l"], "u");
    proven(&report);
    assert!(
        report
            .evidence
            .iter()
            .all(|evidence| evidence.text == Text::Resembles),
        "{report}"
    );
    done()
}

fn relative_empty_lower() -> Outcome {
    let world = World::new();
    std::fs::rename(world.path("l"), world.path("elsewhere")).unwrap();
    world.directory("l");
    mount_relative(&world);
    let report = world.check(&["l"], "u");
    as_expected(&report);
    assert_eq!(
        certainty(&report, Layer::Lower(0)),
        Certainty::Unknown,
        "{report}"
    );
    done()
}

/// Relative paths need the right working directory, which only another process can have.
fn mount_relative(world: &World) {
    let more = if crate::harness::in_user_namespace() {
        ",userxattr"
    } else {
        ""
    };
    let options = format!("lowerdir=l,upperdir=u,workdir=w{more}");
    world.mount_command(&["-t", "overlay", "overlay", "-o", &options], "m");
}

fn slashes_and_dots() -> Outcome {
    let world = World::new();
    let path = |name: &str| world.path(name).display().to_string();
    let data = format!(
        "lowerdir={}//,upperdir=/{}/./,workdir={}",
        path("l"),
        path("m/../u"),
        path("w")
    );
    world.mount_data("overlay", "m", with_userxattr(data).as_bytes())?;
    proven(&world.check(&["l"], "u"));
    proven(&world.check(&["l/."], "u/"));
    done()
}

fn symlinks_in_the_options() -> Outcome {
    let world = World::new();
    for name in ["l", "u"] {
        std::os::unix::fs::symlink(world.path(name), world.path(&format!("to-{name}"))).unwrap();
    }
    world.overlay("m", &["to-l"], "u");
    proven(&world.check(&["l"], "u"));
    proven(&world.check(&["to-l"], "to-u"));
    done()
}

fn other_source_names() -> Outcome {
    for source in ["none", "my store", "#", "tmpfs", ""] {
        let world = World::new();
        let path = |name: &str| world.path(name).display().to_string();
        let data = format!(
            "lowerdir={},upperdir={},workdir={}",
            path("l"),
            path("u"),
            path("w")
        );
        world.mount_data(source, "m", with_userxattr(data).as_bytes())?;
        let report = world.check(&["l"], "u");
        proven(&report);
        let mount = report.mount.unwrap();
        assert_eq!(String::from_utf8_lossy(&mount.info.unwrap().source), source);
    }
    done()
}

fn options_in_another_order() -> Outcome {
    let world = World::new();
    let path = |name: &str| world.path(name).display().to_string();
    let data = format!(
        "workdir={},upperdir={},xino=off,lowerdir={}",
        path("w"),
        path("u"),
        path("l")
    );
    world.mount_data("overlay", "m", with_userxattr(data).as_bytes())?;
    proven(&world.check(&["l"], "u"));
    done()
}

fn with_userxattr(data: String) -> String {
    if crate::harness::in_user_namespace() {
        format!("{data},userxattr")
    } else {
        data
    }
}

fn two_file_systems() -> Outcome {
    for foreign in ["lower", "upper"] {
        let world = World::new();
        world.tmpfs("t");
        world.fill("t/l", "lower");
        world.object("t/u/in-upper");
        let (lower, upper) = if foreign == "lower" {
            ("t/l", "u")
        } else {
            ("l", "t/u")
        };
        world.overlay("m", &[lower], upper);
        let report = world.check(&[lower], upper);
        as_expected(&report);
        for evidence in &report.evidence {
            assert_ne!(evidence.certainty, Certainty::Unknown, "{report}");
        }
    }
    done()
}

fn overlay_as_lower() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    for name in ["u2", "m2"] {
        world.directory(name);
    }
    world.overlay("m2", &["m"], "u2");
    let report = world.check_at("m2", &["m"], "u2", superpose_mount_check::Options::default());
    as_expected(&report);
    assert_eq!(
        certainty(&report, Layer::Lower(0)),
        Certainty::Consistent,
        "{report}"
    );
    // No handles reach through two overlays, and two file systems share no inode numbers: here a probe adds
    // certainty.
    let options = superpose_mount_check::Options {
        probe: Probe::Active,
        ..Default::default()
    };
    let report = world.check_at("m2", &["m"], "u2", options);
    as_expected(&report);
    assert_eq!(certainty(&report, Layer::Upper), Certainty::Proven, "{report}");
    assert_eq!(
        std::fs::read_dir(world.path("u2")).unwrap().count(),
        0,
        "the probe leaves nothing"
    );
    done()
}

fn empty_lower() -> Outcome {
    let world = World::new();
    world.directory("empty");
    world.overlay("m", &["empty"], "u");
    let report = world.check(&["empty"], "u");
    as_expected(&report);
    assert_eq!(certainty(&report, Layer::Upper), Certainty::Proven, "{report}");
    assert_eq!(
        certainty(&report, Layer::Lower(0)),
        Certainty::Unknown,
        "{report}"
    );
    done()
}

fn everything_shadowed() -> Outcome {
    let world = World::new();
    world.fill("u", "lower");
    world.overlay("m", &["l"], "u");
    let report = world.check(&["l"], "u");
    // The directory is merged and keeps the lower one's identity.
    proven(&report);
    done()
}

fn options_that_endanger() -> Outcome {
    let check = |more: &str, want: &[Warning]| {
        let world = World::new();
        world.overlay_exactly("m", &["l"], "u", more);
        let report = world.check(&["l"], "u");
        proven(&report);
        assert_eq!(report.warnings, want, "{more}\n{report}");
    };
    check(",index=on", &[Warning::Index]);
    check(",index=on,nfs_export=on", &[Warning::Index, Warning::NfsExport]);
    check(",redirect_dir=on", &[Warning::RedirectDir]);
    // Brings redirects along, which Linux 6.1 does not show.
    check(",metacopy=on", &[Warning::Metacopy, Warning::RedirectDir]);
    check(
        ",metacopy=on,redirect_dir=on",
        &[Warning::Metacopy, Warning::RedirectDir],
    );
    check(",volatile", &[Warning::Volatile]);
    check(",userxattr", &[]);
    check(",xino=off", &[]);
    done()
}
