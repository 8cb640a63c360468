// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wrong, renamed, replaced, missing and additional layers.

use std::process::Command;

use superpose_mount_check::{Aspect, Certainty, Layer, Options, Outcome as Found, Probe, Warning};

use crate::harness::{Case, Needs, Outcome};
use crate::outcome::{as_expected, certainty, different, done, proven};
use crate::world::World;

pub(crate) fn trials() -> Vec<Case> {
    vec![
        Case::new("several_lower_directories", several),
        Case::new("lower_directories_in_another_order", another_order),
        Case::new("additional_lower_directory", additional),
        Case::new("a_lower_directory_too_few", too_few),
        Case::new("wrong_lower", wrong_lower),
        Case::new("wrong_lower_made_of_hard_links", hard_linked_lower),
        Case::new("wrong_empty_lower", wrong_empty_lower),
        Case::new("wrong_upper", wrong_upper),
        Case::new("wrong_upper_made_in_the_same_instant", twin_upper),
        Case::new("wrong_upper_on_two_file_systems", wrong_upper_two_file_systems),
        Case::new("a_dot_is_not_any_character", dot_is_not_any),
        Case::new("missing_layers", missing_layers),
        Case::new("no_upper_layer", no_upper),
        Case::new("layers_renamed", renamed),
        Case::new("layers_replaced", replaced),
        Case::new("layers_renamed_on_two_file_systems", renamed_two_file_systems)
            .needs(Needs::Root)
            .kernel(6, 6),
        Case::new("twins_on_two_file_systems", twins_two_file_systems)
            .needs(Needs::Root)
            .kernel(6, 6),
        Case::new("stale_view", stale_view),
        Case::new("writers_at_work", writers_at_work),
        Case::new("active_probe_finds_a_wrong_upper", active_probe),
        Case::new("a_proof_survives_renames", proof_survives),
    ]
}

fn several() -> Outcome {
    let world = World::new();
    world.fill("l2", "second");
    world.fill("l3", "third");
    world.overlay("m", &["l", "l2", "l3"], "u");
    proven(&world.check(&["l", "l2", "l3"], "u"));
    done()
}

fn another_order() -> Outcome {
    let world = World::new();
    world.fill("l2", "second");
    world.overlay("m", &["l", "l2"], "u");
    different(&world.check(&["l2", "l"], "u"), &[Aspect::LowerOrder]);
    done()
}

fn additional() -> Outcome {
    let world = World::new();
    world.fill("l2", "second");
    world.overlay("m", &["l", "l2"], "u");
    different(&world.check(&["l"], "u"), &[Aspect::AdditionalLower]);
    different(&world.check(&["l2"], "u"), &[Aspect::AdditionalLower]);
    done()
}

fn too_few() -> Outcome {
    let world = World::new();
    world.fill("l2", "second");
    world.overlay("m", &["l"], "u");
    different(&world.check(&["l", "l2"], "u"), &[Aspect::Lower(1)]);
    different(&world.check(&["l2", "l"], "u"), &[Aspect::Lower(0)]);
    done()
}

fn wrong_lower() -> Outcome {
    let world = World::new();
    world.fill("other", "other");
    world.fill("twin", "lower");
    world.overlay("m", &["l"], "u");
    for wrong in ["other", "twin"] {
        let report = world.check(&[wrong], "u");
        different(&report, &[Aspect::Lower(0)]);
        assert_eq!(certainty(&report, Layer::Upper), Certainty::Proven, "{report}");
        assert_eq!(
            certainty(&report, Layer::Lower(0)),
            Certainty::Refuted,
            "{report}"
        );
    }
    done()
}

fn hard_linked_lower() -> Outcome {
    let world = World::new();
    let copied = Command::new("cp")
        .arg("-al")
        .args([world.path("l"), world.path("farm")])
        .status()?;
    assert!(copied.success());
    world.overlay("m", &["l"], "u");
    let report = world.check(&["farm"], "u");
    assert_eq!(
        certainty(&report, Layer::Lower(0)),
        Certainty::Refuted,
        "{report}"
    );
    done()
}

fn wrong_empty_lower() -> Outcome {
    let world = World::new();
    world.directory("empty");
    world.overlay("m", &["l"], "u");
    let report = world.check(&["empty"], "u");
    assert_eq!(
        certainty(&report, Layer::Lower(0)),
        Certainty::Refuted,
        "{report}"
    );
    done()
}

fn wrong_upper() -> Outcome {
    let world = World::new();
    world.object("u2/in-upper");
    world.overlay("m", &["l"], "u");
    let report = world.check(&["l"], "u2");
    different(&report, &[Aspect::Upper]);
    assert_eq!(certainty(&report, Layer::Upper), Certainty::Refuted, "{report}");
    done()
}

fn twin_upper() -> Outcome {
    // The clock of file times ticks slowly; of many pairs some are born in the same tick.
    for _ in 0..5 {
        let world = World::new();
        world.directory("u1");
        world.directory("u2");
        world.overlay("m", &["l"], "u1");
        different(&world.check(&["l"], "u2"), &[Aspect::Upper]);
        as_expected(&world.check(&["l"], "u1"));
    }
    done()
}

fn wrong_upper_two_file_systems() -> Outcome {
    let world = World::new();
    world.tmpfs("t");
    world.fill("t/l", "lower");
    // Before 6.13 times are those of the last tick, of which the longest takes 10 ms; two layers with the same times could
    // not be told from each other without file handles.
    std::thread::sleep(std::time::Duration::from_millis(20));
    world.object("u2/x");
    world.overlay("m", &["t/l"], "u");
    different(&world.check(&["t/l"], "u2"), &[Aspect::Upper]);
    done()
}

fn dot_is_not_any() -> Outcome {
    let world = World::new();
    for name in ["uXper", "u.per", "mXrged", "m.rged"] {
        world.directory(name);
    }
    world.overlay("mXrged", &["l"], "uXper");
    let report = world.check_at("m.rged", &["l"], "uXper", Options::default());
    different(&report, &[Aspect::NotMounted]);
    let report = world.check_at("mXrged", &["l"], "u.per", Options::default());
    different(&report, &[Aspect::Upper]);
    done()
}

fn missing_layers() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    different(&world.check(&["l"], "nothing"), &[Aspect::Upper]);
    different(&world.check(&["nothing"], "u"), &[Aspect::Lower(0)]);
    different(
        &world.check(&["l", "l/lower-file"], "nothing"),
        &[Aspect::Upper, Aspect::Lower(1)],
    );
    let report = world.check_at("nothing", &["l"], "u", Options::default());
    different(&report, &[Aspect::MountPoint]);
    assert!(report.into_proof().is_err());
    done()
}

fn no_upper() -> Outcome {
    let world = World::new();
    world.fill("l2", "second");
    let data = format!(
        "lowerdir={}:{}",
        world.path("l").display(),
        world.path("l2").display()
    );
    world.mount_data("overlay", "m", data.as_bytes())?;
    different(&world.check(&["l", "l2"], "u"), &[Aspect::Upper]);
    done()
}

fn renamed() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    std::fs::rename(world.path("l"), world.path("new-l"))?;
    std::fs::rename(world.path("u"), world.path("new-u"))?;
    proven(&world.check(&["new-l"], "new-u"));
    // Other directories in their place change nothing.
    world.fill("l", "lower");
    world.object("u/in-upper");
    proven(&world.check(&["new-l"], "new-u"));
    done()
}

fn replaced() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    for name in ["l", "u"] {
        std::fs::rename(world.path(name), world.path(&format!("old-{name}")))?;
    }
    world.fill("l", "lower");
    world.object("u/in-upper");
    // The text of the options still matches; the objects do not.
    different(&world.check(&["l"], "u"), &[Aspect::Upper, Aspect::Lower(0)]);
    different(&world.check(&["l"], "old-u"), &[Aspect::Lower(0)]);
    different(&world.check(&["old-l"], "u"), &[Aspect::Upper]);
    done()
}

/// File handles tell where inode numbers do not.
fn renamed_two_file_systems() -> Outcome {
    let world = World::new();
    world.tmpfs("t");
    world.fill("t/l", "lower");
    world.overlay("m", &["t/l"], "u");
    std::fs::rename(world.path("t/l"), world.path("t/new-l"))?;
    std::fs::rename(world.path("u"), world.path("new-u"))?;
    proven(&world.check(&["t/new-l"], "new-u"));
    // Made within one tick of the file system's clock, the new objects would have the times of the old ones.
    std::thread::sleep(std::time::Duration::from_millis(20));
    world.fill("t/l", "lower");
    world.directory("u");
    proven(&world.check(&["t/new-l"], "new-u"));
    different(&world.check(&["t/l"], "u"), &[Aspect::Upper, Aspect::Lower(0)]);
    done()
}

fn twins_two_file_systems() -> Outcome {
    for _ in 0..5 {
        let world = World::new();
        world.tmpfs("t");
        world.fill("t/l", "lower");
        world.directory("u1");
        world.directory("u2");
        world.overlay("m", &["t/l"], "u1");
        different(&world.check(&["t/l"], "u2"), &[Aspect::Upper]);
        as_expected(&world.check(&["t/l"], "u1"));
    }
    done()
}

fn stale_view() -> Outcome {
    let world = World::new();
    world.directory("lower");
    world.overlay("m", &["lower"], "u");
    // The kernel remembers that the name was absent.
    assert!(std::fs::symlink_metadata(world.path("m/late")).is_err());
    world.object("lower/late");
    let report = world.check(&["lower"], "u");
    as_expected(&report);
    assert_eq!(
        report.warnings,
        [Warning::StaleView("`late`".to_owned())],
        "{report}"
    );
    done()
}

fn writers_at_work() -> Outcome {
    let world = World::new();
    world.overlay("m", &["l"], "u");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::Relaxed;
    let merged = world.path("m");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(ordering) {
                std::fs::write(merged.join("busy"), "").unwrap();
                std::fs::remove_file(merged.join("busy")).unwrap();
            }
        });
        let reports: Vec<_> = (0..300).map(|_| world.check(&["l"], "u")).collect();
        stop.store(true, ordering);
        reports.iter().for_each(as_expected);
    });
    done()
}

fn active_probe() -> Outcome {
    // Over another overlay neither handles nor inode numbers tell, and these two were made in one instant, or
    // nearly.
    let world = World::new();
    world.overlay("m", &["l"], "u");
    for name in ["m2", "u2", "u3"] {
        world.directory(name);
    }
    world.overlay("m2", &["m"], "u2");
    let active = Options {
        probe: Probe::Active,
        ..Options::default()
    };
    different(&world.check_at("m2", &["m"], "u3", active), &[Aspect::Upper]);
    let passive = world.check_at("m2", &["m"], "u3", Options::default());
    assert!(!matches!(passive.outcome, Found::AsExpected), "{passive}");
    assert_eq!(
        std::fs::read_dir(world.path("u2"))?.count(),
        0,
        "the probe leaves nothing"
    );
    done()
}

fn proof_survives() -> Outcome {
    use std::os::unix::fs::MetadataExt as _;
    let world = World::new();
    world.overlay("m", &["l"], "u");
    let inode = std::fs::metadata(world.path("u"))?.ino();
    let proof = world.check(&["l"], "u").into_proof().expect("as expected");
    std::fs::rename(world.path("u"), world.path("moved"))?;
    world.directory("u");
    assert_eq!(rustix::fs::fstat(proof.upper())?.st_ino, inode);
    assert_eq!(rustix::fs::fstat(proof.mount_point())?.st_ino, inode);
    assert_eq!(proof.lower().len(), 1);
    assert_eq!(proof.path(), world.path("m"));
    assert!(proof.report().is_as_expected());
    done()
}
