// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mounts that must not be made, each with its reason.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount_bind, mount_remount};
use superpose_overlay::Error;
use superpose_overlay::mounting::{
    LayerRole, MountInterface, MountPlan, MountProblem, OverlayAttributes, mount_overlay,
    mount_overlay_through,
};

use crate::namespace::Named;
use crate::stand::{Stand, kernel_is_at_least, mount_tmpfs, names, table, unprivileged, write};

pub(crate) const TRIALS: &[Named] = &[
    (
        "refuse_missing_and_misplaced_directories",
        missing_and_misplaced_directories,
    ),
    ("refuse_layers_that_overlap", layers_that_overlap),
    ("refuse_work_directory_elsewhere", work_directory_elsewhere),
    (
        "refuse_upper_that_cannot_be_written",
        upper_that_cannot_be_written,
    ),
    ("refuse_upper_in_use", upper_in_use),
    ("refuse_volatile_mark", volatile_mark),
    ("refuse_too_many_lowers", too_many_lowers),
    ("refuse_options_that_would_be_cut", options_that_would_be_cut),
    ("refuse_third_level", third_level),
    ("refuse_second_mount", second_mount),
    ("refuse_without_rights", without_rights),
    (
        "refuse_trusted_attributes_in_a_user_namespace",
        trusted_attributes_in_a_user_namespace,
    ),
];

/// Expects a refusal that leaves no mount behind, and gives its reason.
fn refused(plan: &MountPlan) -> MountProblem {
    let before = table();
    let error = mount_overlay(plan).unwrap_err();
    assert_eq!(table(), before, "a refused mount was made");
    match error {
        Error::CannotMount {
            mount_point, problem, ..
        } => {
            assert_eq!(mount_point, plan.mount_point);
            problem
        }
        other => panic!("unexpected error: {other}"),
    }
}

fn missing_and_misplaced_directories() {
    let stand = Stand::new();
    let check = |change: &dyn Fn(&mut MountPlan), want: MountProblem| {
        let mut plan = stand.plan();
        change(&mut plan);
        assert_eq!(refused(&plan), want);
    };
    let gone = stand.base.path().join("gone");
    let file = stand.base.path().join("file");
    write(&file, "");
    type Place = fn(&mut MountPlan) -> &mut PathBuf;
    let roles: [(LayerRole, Place); 4] = [
        (LayerRole::Lower, |plan| &mut plan.lower[0]),
        (LayerRole::Upper, |plan| &mut plan.upper),
        (LayerRole::Work, |plan| &mut plan.work),
        (LayerRole::MountPoint, |plan| &mut plan.mount_point),
    ];
    for (role, place) in roles {
        check(
            &|plan| place(plan).clone_from(&gone),
            MountProblem::Missing {
                role,
                path: gone.clone(),
            },
        );
        check(
            &|plan| place(plan).clone_from(&file),
            MountProblem::NotADirectory {
                role,
                path: file.clone(),
            },
        );
        let relative = PathBuf::from("tmp");
        check(
            &|plan| place(plan).clone_from(&relative),
            MountProblem::Relative {
                role,
                path: relative.clone(),
            },
        );
    }
    check(&|plan| plan.lower.clear(), MountProblem::NoLower);
    assert!(names(&stand.work).is_empty(), "the kernel was asked");
}

fn layers_that_overlap() {
    use LayerRole::{Lower, MountPoint, Upper, Work};
    let stand = Stand::new();
    let base = stand.base.path();
    for inner in ["lower/in", "upper/in", "work/in", "merged/in"] {
        stand.directory(inner);
    }
    std::os::unix::fs::symlink("upper", base.join("link")).unwrap();
    // lower layers, upper layer, work directory, mount point; then what lies in what.
    type Case<'a> = (
        &'a [&'a str],
        [&'a str; 3],
        (LayerRole, &'a str),
        (LayerRole, &'a str),
    );
    let cases: &[Case<'_>] = &[
        (
            &["lower"],
            ["lower/in", "work", "merged"],
            (Upper, "lower/in"),
            (Lower, "lower"),
        ),
        (
            &["lower"],
            ["lower", "work", "merged"],
            (Upper, "lower"),
            (Lower, "lower"),
        ),
        (
            &["upper/in"],
            ["upper", "work", "merged"],
            (Lower, "upper/in"),
            (Upper, "upper"),
        ),
        (
            &["lower"],
            ["upper", "upper/in", "merged"],
            (Work, "upper/in"),
            (Upper, "upper"),
        ),
        (
            &["lower"],
            ["work/in", "work", "merged"],
            (Upper, "work/in"),
            (Work, "work"),
        ),
        (
            &["lower"],
            ["upper", "link", "merged"],
            (Work, "link"),
            (Upper, "upper"),
        ),
        (
            &["lower", "lower"],
            ["upper", "work", "merged"],
            (Lower, "lower"),
            (Lower, "lower"),
        ),
        (
            &["lower", "lower/in"],
            ["upper", "work", "merged"],
            (Lower, "lower/in"),
            (Lower, "lower"),
        ),
        (
            &["lower"],
            ["upper", "work", "upper"],
            (MountPoint, "upper"),
            (Upper, "upper"),
        ),
        (
            &["lower"],
            ["upper", "work", "upper/in"],
            (MountPoint, "upper/in"),
            (Upper, "upper"),
        ),
        (
            &["lower"],
            ["upper", "work", "work/in"],
            (MountPoint, "work/in"),
            (Work, "work"),
        ),
        (
            &["lower"],
            ["merged/in", "work", "merged"],
            (Upper, "merged/in"),
            (MountPoint, "merged"),
        ),
        (
            &["lower"],
            ["upper", "merged/in", "merged"],
            (Work, "merged/in"),
            (MountPoint, "merged"),
        ),
    ];
    for (lower, [upper, work, merged], inner, outer) in cases {
        let lower = lower.iter().map(|name| base.join(name)).collect();
        let plan = MountPlan::new(lower, base.join(upper), base.join(work), base.join(merged))
            .with_attributes(stand.plan().attributes);
        let want = MountProblem::Overlap {
            inner_role: inner.0,
            inner: base.join(inner.1),
            outer_role: outer.0,
            outer: base.join(outer.1),
        };
        assert_eq!(refused(&plan), want);
    }
}

fn work_directory_elsewhere() {
    let stand = Stand::new();
    let want = |work: &Path| MountProblem::WorkElsewhere {
        upper: stand.upper.clone(),
        work: work.to_owned(),
    };
    let other = stand.directory("other");
    mount_tmpfs(&other);
    let plan = MountPlan {
        work: other.clone(),
        ..stand.plan()
    };
    assert_eq!(refused(&plan), want(&other));
    // The same file system, but reached through another mount: the kernel cannot rename between the two.
    let bound = stand.directory("bound");
    mount_bind(&stand.work, &bound).unwrap();
    let plan = MountPlan {
        work: bound.clone(),
        ..stand.plan()
    };
    assert_eq!(refused(&plan), want(&bound));
}

fn upper_that_cannot_be_written() {
    let stand = Stand::mounted();
    let upper = stand.directory("merged/u");
    let work = stand.directory("merged/w");
    let merged = stand.directory("second");
    let plan = MountPlan {
        upper: upper.clone(),
        work,
        mount_point: merged,
        ..stand.plan()
    };
    assert_eq!(
        refused(&plan),
        MountProblem::UnsuitableUpper {
            upper,
            found: "overlay".into()
        }
    );

    let frozen = stand.directory("frozen");
    mount_tmpfs(&frozen);
    let upper = stand.directory("frozen/u");
    let work = stand.directory("frozen/w");
    mount_remount(&frozen, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    let plan = MountPlan {
        upper: upper.clone(),
        work,
        ..plan
    };
    assert_eq!(refused(&plan), MountProblem::ReadOnlyUpper { upper });
}

fn upper_in_use() {
    let stand = Stand::mounted();
    let second = stand.directory("second");
    let fresh = stand.directory("fresh");
    let check = |upper: &Path, work: &Path, role: LayerRole, path: &Path| {
        let plan = MountPlan {
            upper: upper.to_owned(),
            work: work.to_owned(),
            mount_point: second.clone(),
            ..stand.plan()
        };
        let want = MountProblem::InUse {
            role,
            path: path.to_owned(),
            other_mount: stand.merged.clone(),
        };
        assert_eq!(refused(&plan), want);
    };
    check(&stand.upper, &fresh, LayerRole::Upper, &stand.upper);
    check(&fresh, &stand.work, LayerRole::Work, &stand.work);
    // By another name too.
    let link = stand.base.path().join("link");
    std::os::unix::fs::symlink(&stand.upper, &link).unwrap();
    check(&link, &fresh, LayerRole::Upper, &link);
}

fn volatile_mark() {
    let stand = Stand::new();
    let mark = stand.directory("work/work/incompat/volatile");
    assert_eq!(
        refused(&stand.plan()),
        MountProblem::VolatileMark { mark: mark.clone() }
    );
    fs::remove_dir(mark).unwrap();
    mount_overlay(&stand.plan()).unwrap();
}

fn too_many_lowers() {
    let stand = Stand::new();
    let lower = |count: usize| {
        (0..count)
            .map(|number| stand.directory(&format!("l{number}")))
            .collect()
    };
    let plan = MountPlan {
        lower: lower(501),
        ..stand.plan()
    };
    assert_eq!(refused(&plan), MountProblem::TooManyLowers { found: 501 });
    // One less is what the kernel takes, if it takes them one by one and not all in one page.
    let most = MountPlan {
        lower: lower(500),
        ..plan
    };
    if kernel_is_at_least(6, 8) {
        mount_overlay(&most).unwrap();
    } else {
        let problem = refused(&most);
        assert!(
            matches!(problem, MountProblem::TooLong { layers: 500, .. }),
            "{problem:?}"
        );
    }
}

fn options_that_would_be_cut() {
    let stand = Stand::new();
    let lower = (0..100)
        .map(|number| stand.directory(&format!("{number:0100}")))
        .collect();
    let plan = MountPlan {
        lower,
        ..stand.plan()
    };
    let error = mount_overlay_through(&plan, MountInterface::OptionString).unwrap_err();
    let Error::CannotMount {
        problem: MountProblem::TooLong { bytes, layers: 100 },
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(bytes > 10_000, "{bytes}");
}

fn third_level() {
    let stand = Stand::mounted();
    let level = |name: &str, lower: &Path| {
        let (upper, work) = (
            stand.directory(&format!("{name}-u")),
            stand.directory(&format!("{name}-w")),
        );
        let mount_point = stand.directory(name);
        MountPlan {
            lower: vec![lower.to_owned()],
            upper,
            work,
            mount_point,
            ..stand.plan()
        }
    };
    let second = level("second", &stand.merged);
    mount_overlay(&second).unwrap();
    let third = level("third", &second.mount_point);
    assert_eq!(
        refused(&third),
        MountProblem::StackedTooDeep {
            lower: second.mount_point
        }
    );
}

fn second_mount() {
    let stand = Stand::mounted();
    let before = table();
    let error = mount_overlay(&stand.plan()).unwrap_err();
    assert!(
        matches!(&error, Error::AlreadyMounted { mount_point } if *mount_point == stand.merged),
        "{error}"
    );
    assert_eq!(table(), before);
}

fn without_rights() {
    let stand = Stand::new();
    let plan = stand.plan();
    assert_eq!(unprivileged(|| refused(&plan)), MountProblem::NotPermitted);
}

fn trusted_attributes_in_a_user_namespace() {
    let stand = Stand::new();
    let plan = stand.plan().with_attributes(OverlayAttributes::Trusted);
    match stand.plan().attributes {
        OverlayAttributes::User => assert_eq!(refused(&plan), MountProblem::NeedsUserAttributes),
        // Outside of a user namespace they are the usual ones.
        OverlayAttributes::Trusted => assert!(mount_overlay(&plan).is_ok()),
    }
}
