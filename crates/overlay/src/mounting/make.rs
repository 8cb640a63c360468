// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the mount.
//!
//! The old `mount(2)` comes first, since only its option string appears in the mount table in the form that stock Nix
//! accepts. It takes one page; for longer lists of layers there are `fsconfig(2)` and descriptors.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
};
use superpose_mount_check::escape::escape_upperdir;

use super::directory::FileSystemType;
use super::options::{DATA_LIMIT, MountPlan, OverlayAttributes, fsconfig_text};
use super::preflight::{self, OpenLayers};
use super::problem::MountProblem;
use crate::{Error, Result};

/// The source column of the mount table. Free text to the kernel, but stock Nix looks at no mount that has another one.
const SOURCE: &str = "overlay";

/// How the layers are handed to the kernel, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountInterface {
    /// `mount(2)` with the paths as text: every kernel; at most [`DATA_LIMIT`] bytes.
    ///
    /// The only one whose mount the check of stock Nix accepts (and of these only one with a single lower layer and
    /// without characters that mean something in a regular expression).
    OptionString,
    /// `fsconfig(2)` with open descriptors: Linux 6.13 and newer; any length. The mount table shows full paths.
    Descriptors,
    /// `fsconfig(2)` with one text for each layer: Linux 6.8 and newer. The mount table shows the paths, but
    /// `/proc/self/fd/N` for those that are longer than [`FSCONFIG_STRING_LIMIT`](super::FSCONFIG_STRING_LIMIT).
    Strings,
    /// `mount(2)` with `/proc/self/fd/N` in place of the paths: every kernel; room for about 200 lower layers. The mount
    /// table shows those names, which say nothing to others.
    OptionStringOfDescriptors,
}

/// Mounts an overlay, in the form that stock Nix accepts where that is possible, and says how.
///
/// Options that change what a file system promises (`volatile`, `index`, `metacopy` and the like) are never given.
///
/// # Errors
/// [`Error::AlreadyMounted`] when an overlay is mounted there: whether it is the wanted one is for the caller to decide.
/// [`Error::CannotMount`] with the reason, found beforehand or read out of the kernel's refusal; nothing is mounted then.
///
/// # Deviation
/// Nix never mounts.
pub fn mount_overlay(plan: &MountPlan) -> Result<MountInterface> {
    let layers = preflight::open(plan)?;
    if plan.data().len() <= DATA_LIMIT {
        return through(plan, &layers, MountInterface::OptionString);
    }
    let mut refusal = Errno::NOSYS;
    for interface in [MountInterface::Descriptors, MountInterface::Strings] {
        match attempt(plan, &layers, interface) {
            Ok(()) => return Ok(interface),
            // Older kernels know neither the calls nor the keys, and before 6.5 they take no descriptor for an overlay. A
            // real fault is met again by the next way.
            Err(errno @ (Errno::NOSYS | Errno::INVAL | Errno::BADF | Errno::OPNOTSUPP)) => {
                tracing::debug!(?interface, %errno, "this way to mount is refused; trying the next");
                refusal = errno;
            }
            Err(errno) => return Err(explain(plan, &layers, errno)),
        }
    }
    match through(plan, &layers, MountInterface::OptionStringOfDescriptors) {
        // The length is to blame only if nothing else is.
        Err(Error::CannotMount {
            problem: MountProblem::TooLong { bytes, layers: count },
            ..
        }) => {
            let mut error = explain(plan, &layers, refusal);
            if let Error::CannotMount {
                problem: problem @ MountProblem::Unexplained,
                ..
            } = &mut error
            {
                *problem = MountProblem::TooLong { bytes, layers: count };
            }
            Err(error)
        }
        done => done,
    }
}

/// Mounts an overlay through one interface only.
///
/// # Errors
/// As [`mount_overlay`]; also when the kernel does not know this interface.
pub fn mount_overlay_through(plan: &MountPlan, interface: MountInterface) -> Result<MountInterface> {
    through(plan, &preflight::open(plan)?, interface)
}

fn through(plan: &MountPlan, layers: &OpenLayers, interface: MountInterface) -> Result<MountInterface> {
    let too_long = match interface {
        MountInterface::OptionString => Some(plan.data()),
        MountInterface::OptionStringOfDescriptors => Some(data_by_descriptors(plan, layers)),
        MountInterface::Descriptors | MountInterface::Strings => None,
    };
    // The kernel would cut it and mount something else.
    if let Some(data) = too_long.filter(|data| data.len() > DATA_LIMIT) {
        let problem = MountProblem::TooLong {
            bytes: data.len(),
            layers: plan.lower.len(),
        };
        return Err(Error::CannotMount {
            mount_point: plan.mount_point.clone(),
            problem,
            source: None,
        });
    }
    attempt(plan, layers, interface).map_err(|errno| explain(plan, layers, errno))?;
    Ok(interface)
}

fn data_by_descriptors(plan: &MountPlan, layers: &OpenLayers) -> Vec<u8> {
    plan.data_by_descriptors(&layers.lower, &layers.upper, &layers.work)
}

fn attempt(plan: &MountPlan, layers: &OpenLayers, interface: MountInterface) -> rustix::io::Result<()> {
    match interface {
        MountInterface::OptionString => mount_by_string(plan, plan.data()),
        MountInterface::OptionStringOfDescriptors => mount_by_string(plan, data_by_descriptors(plan, layers)),
        MountInterface::Descriptors => mount_by_context(plan, layers, |context| {
            for lower in &layers.lower {
                fsconfig_set_fd(context, "lowerdir+", lower)?;
            }
            fsconfig_set_fd(context, "upperdir", &layers.upper)?;
            fsconfig_set_fd(context, "workdir", &layers.work)
        }),
        MountInterface::Strings => mount_by_context(plan, layers, |context| {
            // The kernel takes `lowerdir+` as it is, but drops a level of backslashes from the other two.
            for (path, directory) in plan.lower.iter().zip(&layers.lower) {
                let text = fsconfig_text(path.as_os_str().as_bytes().to_vec(), directory);
                fsconfig_set_string(context, "lowerdir+", text)?;
            }
            let upper = fsconfig_text(escape_upperdir(plan.upper.as_os_str().as_bytes()), &layers.upper);
            fsconfig_set_string(context, "upperdir", upper)?;
            let work = fsconfig_text(escape_upperdir(plan.work.as_os_str().as_bytes()), &layers.work);
            fsconfig_set_string(context, "workdir", work)
        }),
    }
}

fn mount_by_string(plan: &MountPlan, data: Vec<u8>) -> rustix::io::Result<()> {
    // No path that was opened holds a zero byte.
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    mount(
        SOURCE,
        &plan.mount_point,
        "overlay",
        MountFlags::empty(),
        data.as_c_str(),
    )
}

fn mount_by_context(
    plan: &MountPlan,
    layers: &OpenLayers,
    give_layers: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", SOURCE)?;
    give_layers(&context)?;
    if plan.attributes == OverlayAttributes::User {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    let made = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let both_open = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&made, "", &layers.mount_point, "", both_open)
}

/// Finds the likeliest reason for a refusal; what could be seen beforehand was checked beforehand.
fn explain(plan: &MountPlan, layers: &OpenLayers, errno: Errno) -> Error {
    let problem = match errno {
        Errno::PERM | Errno::ACCESS => MountProblem::NotPermitted,
        Errno::NODEV => MountProblem::NoOverlayFs,
        Errno::BUSY => MountProblem::InUseSomewhere {
            upper: plan.upper.clone(),
            work: plan.work.clone(),
        },
        Errno::STALE => MountProblem::BoundElsewhere {
            upper: plan.upper.clone(),
        },
        _ => {
            let is_overlay =
                |lower: &OwnedFd| FileSystemType::of(lower).is_ok_and(FileSystemType::is_overlay);
            let stacked = plan
                .lower
                .iter()
                .zip(&layers.lower)
                .find(|(_, lower)| is_overlay(lower));
            match stacked {
                Some((lower, _)) => MountProblem::StackedTooDeep { lower: lower.clone() },
                None => MountProblem::Unexplained,
            }
        }
    };
    Error::CannotMount {
        mount_point: plan.mount_point.clone(),
        problem,
        source: Some(errno.into()),
    }
}
