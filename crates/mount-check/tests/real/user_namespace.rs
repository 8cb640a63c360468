// SPDX-License-Identifier: MIT OR Apache-2.0
//! Overlays of an ordinary user, in a user namespace.

use superpose_mount_check::{Aspect, Certainty, Layer, Probe, Warning};

use crate::harness::{Case, Needs, Outcome};
use crate::outcome::{as_expected, certainty, different, done, proven};
use crate::world::World;

pub(crate) fn trials() -> Vec<Case> {
    let case = |name, run| Case::new(name, run).needs(Needs::UserNamespace);
    vec![
        case("user_namespace_with_userxattr", with_userxattr),
        case("user_namespace_without_userxattr", without_userxattr),
        case("user_namespace_on_two_file_systems", two_file_systems),
        case("user_namespace_wrong_layers", wrong_layers),
        case("user_namespace_printed_command", printed_command),
    ]
}

fn with_userxattr() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    let report = world.check(&["l"], "u");
    proven(&report);
    assert_eq!(report.warnings, [], "{report}");
    done()
}

fn without_userxattr() -> Outcome {
    let world = World::new();
    world.overlay_exactly("m", &["l"], "u", "");
    let report = world.check(&["l"], "u");
    proven(&report);
    assert_eq!(report.warnings, [Warning::MissingUserxattr], "{report}");
    done()
}

/// Neither handles nor inode numbers: times and text remain, and the probe.
fn two_file_systems() -> Outcome {
    let world = World::new();
    world.tmpfs("t");
    world.fill("t/l", "lower");
    world.overlay("m", &["t/l"], "u");
    let report = world.check(&["t/l"], "u");
    as_expected(&report);
    assert_eq!(
        certainty(&report, Layer::Upper),
        Certainty::Consistent,
        "{report}"
    );
    let options = superpose_mount_check::Options {
        probe: Probe::Active,
        ..Default::default()
    };
    let report = world.check_at("m", &["t/l"], "u", options);
    as_expected(&report);
    assert_eq!(certainty(&report, Layer::Upper), Certainty::Proven, "{report}");
    done()
}

fn wrong_layers() -> Outcome {
    let world = World::new();
    world.object("u2/x");
    world.fill("l2", "lower");
    world.overlay("m", &["l"], "u");
    different(&world.check(&["l"], "u2"), &[Aspect::Upper]);
    different(&world.check(&["l2"], "u"), &[Aspect::Lower(0)]);
    done()
}

/// The command that a report prints carries `userxattr` here.
fn printed_command() -> Outcome {
    let world = World::new();
    let report = world.check(&["l"], "u");
    different(&report, &[Aspect::NotMounted]);
    assert!(report.to_string().contains(",userxattr "), "{report}");
    done()
}
