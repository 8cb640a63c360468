// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bind mounts of the overlay or a part of it, directories below its root, and read-only mounts.

use std::process::Command;

use superpose_mount_check::{
    Access, Aspect, Certainty, Layer, Mend, Options, Outcome as Found, Report, Warning,
};

use crate::harness::{Case, Needs, Outcome};
use crate::outcome::{as_expected, certainty, different, done, proven};
use crate::world::World;

pub(crate) fn trials() -> Vec<Case> {
    vec![
        Case::new("bind_of_the_whole", bind_of_the_whole),
        Case::new("bind_of_a_part", bind_of_a_part),
        Case::new("a_directory_below_the_root", below_the_root),
        Case::new("a_part_that_one_lower_directory_lacks", part_of_some),
        Case::new("read_only_bind", read_only_bind),
        Case::new("read_only_overlay", read_only_overlay).needs(Needs::Root),
    ]
}

fn bind_of_the_whole() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    world.directory("b");
    world.mount_command(&["--bind", "m"], "b");
    proven(&world.check_at("b", &["l"], "u", Options::default()));
    done()
}

/// An overlay over whole trees, of which only `store` is the store.
fn world_of_parts() -> World {
    let world = World::new();
    world.fill("l/store", "lower");
    world.object("u/store/in-upper");
    world.fill("other/store", "lower");
    world.object("other-u/store/in-upper");
    world.overlay("m", &["l"], "u");
    world
}

fn check_part(world: &World, mount_point: &str) {
    let check = |lower, upper| world.check_at(mount_point, &[lower], upper, Options::default());
    proven(&check("l/store", "u/store"));
    different(&check("l/store", "other-u/store"), &[Aspect::Upper]);
    different(&check("l/store", "u"), &[Aspect::Upper]);
    let report = check("other/store", "u/store");
    assert_eq!(
        certainty(&report, Layer::Lower(0)),
        Certainty::Refuted,
        "{report}"
    );
}

fn bind_of_a_part() -> Outcome {
    let world = world_of_parts();
    world.directory("b");
    world.mount_command(&["--bind", "m/store"], "b");
    check_part(&world, "b");
    done()
}

fn below_the_root() -> Outcome {
    let world = world_of_parts();
    check_part(&world, "m/store");
    done()
}

fn part_of_some() -> Outcome {
    let world = World::new();
    world.fill("l/store", "lower");
    world.fill("l2", "second");
    world.directory("u/store");
    world.overlay("m", &["l", "l2"], "u");
    as_expected(&world.check_at("m/store", &["l/store"], "u/store", Options::default()));
    done()
}

fn read_only_bind() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    world.directory("b");
    world.mount_command(&["--bind", "m"], "b");
    world.mount_command(&["-o", "remount,bind,ro"], "b");
    let report = world.check_at("b", &["l"], "u", Options::default());
    different(&report, &[Aspect::ReadOnly]);
    let reading = Options {
        access: Access::ReadOnly,
        ..Options::default()
    };
    let only_read = world.check_at("b", &["l"], "u", reading);
    proven(&only_read);
    assert_eq!(only_read.warnings, [Warning::ReadOnly]);
    proven(&world.check(&["l"], "u"));
    mend(&report);
    proven(&world.check_at("b", &["l"], "u", Options::default()));
    done()
}

fn read_only_overlay() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    world.mount_command(&["--options-source", "disable", "-o", "remount,ro"], "m");
    let report = world.check(&["l"], "u");
    different(&report, &[Aspect::ReadOnly]);
    mend(&report);
    proven(&world.check(&["l"], "u"));
    done()
}

/// Does what the report says.
fn mend(report: &Report) {
    let Found::Different(differences) = &report.outcome else {
        panic!("{report}")
    };
    for mend in differences.iter().flat_map(|difference| &difference.mend) {
        let Mend::Run(_) = mend else { continue };
        let output = Command::new("bash")
            .arg("-c")
            .arg(mend.to_string())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{mend}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
