// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is checked before the kernel is asked to mount, since its own answer to nearly everything is `EINVAL`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use superpose_mount_check::{mountinfo, options::OverlayOptions};

use super::directory::{self, FileSystemType, Identity, Seen};
use super::options::{LOWER_LIMIT, LayerRole, MountPlan, OverlayAttributes};
use super::problem::MountProblem;
use crate::{Error, Result};

/// The directories of a plan, held open so that names that change meanwhile do not matter to the new mount interface.
#[derive(Debug)]
pub(super) struct OpenLayers {
    pub(super) lower: Vec<OwnedFd>,
    pub(super) upper: OwnedFd,
    pub(super) work: OwnedFd,
    pub(super) mount_point: OwnedFd,
}

/// Opens and checks every directory of a plan.
pub(super) fn open(plan: &MountPlan) -> Result<OpenLayers> {
    let refuse = |problem| Error::CannotMount {
        mount_point: plan.mount_point.clone(),
        problem,
        source: None,
    };
    check_counts(plan).map_err(refuse)?;
    let mount_point = open_one(plan, LayerRole::MountPoint, &plan.mount_point)?;
    let found = |path: &Path| {
        let path = path.to_owned();
        move |errno| Error::io("examine the layer", path, errno)
    };

    let file_system = FileSystemType::of(&mount_point).map_err(found(&plan.mount_point))?;
    if file_system.is_overlay() && directory::is_mount_root(&mount_point).map_err(found(&plan.mount_point))? {
        return Err(Error::AlreadyMounted {
            mount_point: plan.mount_point.clone(),
        });
    }
    // Without /proc nothing is known; the kernel then mounts what it mounts.
    let fitting = OverlayAttributes::for_this_process().unwrap_or(plan.attributes);
    if (plan.attributes, fitting) == (OverlayAttributes::Trusted, OverlayAttributes::User) {
        return Err(refuse(MountProblem::NeedsUserAttributes));
    }

    let open_layer = |(role, path)| open_one(plan, role, path);
    let lower = plan
        .lower
        .iter()
        .map(|path| open_layer((LayerRole::Lower, path)))
        .collect::<Result<Vec<_>>>()?;
    let layers = OpenLayers {
        lower,
        upper: open_layer((LayerRole::Upper, &plan.upper))?,
        work: open_layer((LayerRole::Work, &plan.work))?,
        mount_point,
    };
    check_upper(plan, &layers)?;
    check_separate(plan, &layers)?;
    check_unused(plan, &layers)?;
    Ok(layers)
}

fn check_counts(plan: &MountPlan) -> std::result::Result<(), MountProblem> {
    if plan.lower.is_empty() {
        return Err(MountProblem::NoLower);
    }
    if plan.lower.len() > LOWER_LIMIT {
        return Err(MountProblem::TooManyLowers {
            found: plan.lower.len(),
        });
    }
    let mount_point = (LayerRole::MountPoint, plan.mount_point.as_path());
    match plan
        .layers()
        .chain([mount_point])
        .find(|(_, path)| !path.is_absolute())
    {
        Some((role, path)) => Err(MountProblem::Relative {
            role,
            path: path.to_owned(),
        }),
        None => Ok(()),
    }
}

fn open_one(plan: &MountPlan, role: LayerRole, path: &Path) -> Result<OwnedFd> {
    let refuse = |problem| Error::CannotMount {
        mount_point: plan.mount_point.clone(),
        problem,
        source: None,
    };
    let opened = match role {
        // Nothing is read there, and it may be somebody else's directory.
        LayerRole::MountPoint => directory::open_pointer(path),
        LayerRole::Lower | LayerRole::Upper | LayerRole::Work => directory::open_readable(path),
    };
    opened.map_err(|errno| match errno {
        Errno::NOENT => refuse(MountProblem::Missing {
            role,
            path: path.to_owned(),
        }),
        Errno::NOTDIR => refuse(MountProblem::NotADirectory {
            role,
            path: path.to_owned(),
        }),
        errno => Error::io("open the layer", path, errno),
    })
}

/// What OverlayFS asks of the upper layer and the work directory.
fn check_upper(plan: &MountPlan, layers: &OpenLayers) -> Result<()> {
    let refuse = |problem| Error::CannotMount {
        mount_point: plan.mount_point.clone(),
        problem,
        source: None,
    };
    let failed = |errno| Error::io("examine the upper layer", &plan.upper, errno);
    let upper = directory::look(&layers.upper).map_err(failed)?;
    let work = directory::look(&layers.work)
        .map_err(|errno| Error::io("examine the work directory", &plan.work, errno))?;
    if !upper.shares_mount_with(&work) {
        return Err(refuse(MountProblem::WorkElsewhere {
            upper: plan.upper.clone(),
            work: plan.work.clone(),
        }));
    }
    let file_system = FileSystemType::of(&layers.upper).map_err(failed)?;
    if file_system.is_refused_as_upper() {
        let found = file_system.to_string();
        return Err(refuse(MountProblem::UnsuitableUpper {
            upper: plan.upper.clone(),
            found,
        }));
    }
    let mount = rustix::fs::fstatvfs(&layers.upper).map_err(failed)?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(refuse(MountProblem::ReadOnlyUpper {
            upper: plan.upper.clone(),
        }));
    }
    let mark = plan.work.join("work/incompat/volatile");
    if std::fs::symlink_metadata(&mark).is_ok() {
        return Err(refuse(MountProblem::VolatileMark { mark }));
    }
    Ok(())
}

/// No layer may be another one or lie inside another one, and the mount must not hide its own upper side.
///
/// The mount point may be or hide a lower layer: `superpose run` puts the merged view where the lower store is.
fn check_separate(plan: &MountPlan, layers: &OpenLayers) -> Result<()> {
    let opened = layers.lower.iter().chain([&layers.upper, &layers.work]);
    let mut known: HashMap<Identity, (LayerRole, &Path)> = HashMap::new();
    let mut above = Vec::new();
    for ((role, path), directory) in plan.layers().zip(opened) {
        let lineage = lineage(path, directory)?;
        let Some((own, ancestors)) = lineage.split_first() else {
            continue;
        };
        if let Some(&outer) = known.get(own) {
            return Err(overlap(plan, (role, path), outer));
        }
        known.insert(*own, (role, path));
        above.push((role, path, ancestors.to_vec()));
    }
    for (role, path, ancestors) in &above {
        if let Some(&outer) = ancestors.iter().find_map(|ancestor| known.get(ancestor)) {
            return Err(overlap(plan, (*role, path), outer));
        }
    }

    let mount_point = (LayerRole::MountPoint, plan.mount_point.as_path());
    let lineage = lineage(&plan.mount_point, &layers.mount_point)?;
    let is_writable_side = |role: LayerRole| matches!(role, LayerRole::Upper | LayerRole::Work);
    let outer = lineage
        .iter()
        .filter_map(|directory| known.get(directory))
        .find(|(role, _)| is_writable_side(*role));
    if let Some(&outer) = outer {
        return Err(overlap(plan, mount_point, outer));
    }
    let hidden = |ancestors: &[Identity]| lineage.first().is_some_and(|point| ancestors.contains(point));
    match above
        .iter()
        .find(|(role, _, ancestors)| is_writable_side(*role) && hidden(ancestors))
    {
        Some((role, path, _)) => Err(overlap(plan, (*role, path), mount_point)),
        None => Ok(()),
    }
}

fn overlap(plan: &MountPlan, inner: (LayerRole, &Path), outer: (LayerRole, &Path)) -> Error {
    let problem = MountProblem::Overlap {
        inner_role: inner.0,
        inner: inner.1.to_owned(),
        outer_role: outer.0,
        outer: outer.1.to_owned(),
    };
    Error::CannotMount {
        mount_point: plan.mount_point.clone(),
        problem,
        source: None,
    }
}

/// A directory and all above it up to the root of its mount: OverlayFS looks no further either.
fn lineage(path: &Path, directory: &OwnedFd) -> Result<Vec<Identity>> {
    let failed = |errno| Error::io("walk up from", path, errno);
    let mut seen = directory::look(directory).map_err(failed)?;
    let mut lineage = vec![seen.identity];
    let mut parent = directory::open_parent(directory).map_err(failed)?;
    loop {
        let above: Seen = directory::look(&parent).map_err(failed)?;
        // The root directory is its own parent.
        if above.identity == seen.identity || !above.shares_mount_with(&seen) {
            break;
        }
        lineage.push(above.identity);
        seen = above;
        parent = directory::open_parent(&parent).map_err(failed)?;
    }
    Ok(lineage)
}

/// Two overlays over one upper layer damage it; the kernel only warns.
///
/// The mount table shows the mounter's own texts, so this finds what can be found: mounts of this namespace that name
/// the directory by a path that leads there from here.
fn check_unused(plan: &MountPlan, layers: &OpenLayers) -> Result<()> {
    let failed = |path: &Path, errno| Error::io("examine the layer", path, errno);
    let upper = directory::look(&layers.upper)
        .map_err(|errno| failed(&plan.upper, errno))?
        .identity;
    let work = directory::look(&layers.work)
        .map_err(|errno| failed(&plan.work, errno))?
        .identity;
    let Ok(table) = std::fs::read("/proc/thread-self/mountinfo") else {
        tracing::debug!("no mount table in /proc: not checked whether another overlay uses the upper layer");
        return Ok(());
    };
    for mount in mountinfo::lines(&table)
        .filter_map(std::result::Result::ok)
        .filter(|mount| mount.is_overlay())
    {
        let options = OverlayOptions::decode(&mount.super_options);
        for text in [&options.upper, &options.work].into_iter().flatten() {
            // A descriptor path means another directory in each process, a relative one in each working directory.
            let paths = text
                .readings()
                .filter(|path| path.is_absolute() && !path.starts_with("/proc"));
            let mut used = paths.filter_map(|path| directory::look(directory::open_pointer(path).ok()?).ok());
            let Some((role, path)) = used.find_map(|seen| match seen.identity {
                found if found == upper => Some((LayerRole::Upper, &plan.upper)),
                found if found == work => Some((LayerRole::Work, &plan.work)),
                _ => None,
            }) else {
                continue;
            };
            let problem = MountProblem::InUse {
                role,
                path: path.clone(),
                other_mount: mount.mount_point_path().to_owned(),
            };
            return Err(Error::CannotMount {
                mount_point: plan.mount_point.clone(),
                problem,
                source: None,
            });
        }
    }
    Ok(())
}
