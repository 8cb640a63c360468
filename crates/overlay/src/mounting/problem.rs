// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why an overlay cannot be mounted, with the way out.

use std::path::PathBuf;

use super::options::{DATA_LIMIT, LOWER_LIMIT, LayerRole};

/// Why an overlay cannot be mounted: found before the kernel was asked, or read out of its refusal.
///
/// The kernel itself says `EINVAL` to nearly everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountProblem {
    /// A path is relative: the mount table would show it so for ever, and nobody could check the mount.
    #[error("the {role} '{}' is a relative path; give an absolute one", path.display())]
    Relative {
        /// What the path is to the mount.
        role: LayerRole,
        /// The path as given.
        path: PathBuf,
    },
    /// A directory does not exist.
    #[error("the {role} '{}' does not exist; {}", path.display(), hint_missing(*role))]
    Missing {
        /// What the directory is to the mount.
        role: LayerRole,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Something else than a directory is there.
    #[error("the {role} '{}' is not a directory", path.display())]
    NotADirectory {
        /// What it should be to the mount.
        role: LayerRole,
        /// Where it is.
        path: PathBuf,
    },
    /// No lower layer was given.
    #[error("no lower layer was given; expected 1 to {LOWER_LIMIT}")]
    NoLower,
    /// More lower layers than OverlayFS takes.
    #[error(
        "{found} lower layers were given; OverlayFS takes at most {LOWER_LIMIT}; copy some of them together into one"
    )]
    TooManyLowers {
        /// How many there are.
        found: usize,
    },
    /// The upper layer and the work directory are not on one mount, between which OverlayFS renames files.
    #[error(
        "the upper layer '{}' and the work directory '{}' are on different mounts; expected one for both: \
         make the work directory beside the upper layer",
        upper.display(), work.display()
    )]
    WorkElsewhere {
        /// The upper layer.
        upper: PathBuf,
        /// The work directory.
        work: PathBuf,
    },
    /// Two directories are the same, or one lies inside the other.
    ///
    /// Refused although some kernels would mount it: what is written to one layer would appear in the other, or the
    /// mount would hide its own layer.
    #[error(
        "the {inner_role} '{}' is the {outer_role} '{}' or lies inside it; expected separate directories",
        inner.display(), outer.display()
    )]
    Overlap {
        /// What the inner directory is to the mount.
        inner_role: LayerRole,
        /// The inner directory.
        inner: PathBuf,
        /// What the outer directory is to the mount.
        outer_role: LayerRole,
        /// The outer directory.
        outer: PathBuf,
    },
    /// Another overlay mount writes to the same upper layer or work directory.
    ///
    /// Refused although the kernel only warns: two overlays over one upper layer damage it.
    #[error(
        "the {role} '{}' belongs to the overlay mounted at '{}' already; unmount that one first, or take another \
         directory",
        path.display(), other_mount.display()
    )]
    InUse {
        /// What the directory is to the mount.
        role: LayerRole,
        /// The directory.
        path: PathBuf,
        /// The mount point of the other overlay.
        other_mount: PathBuf,
    },
    /// The kernel says that the upper layer or the work directory is in use (`EBUSY`), but not by whom.
    #[error(
        "the upper layer '{}' or the work directory '{}' is in use by another overlay mount, perhaps in another \
         mount namespace or container; unmount that one first",
        upper.display(), work.display()
    )]
    InUseSomewhere {
        /// The upper layer.
        upper: PathBuf,
        /// The work directory.
        work: PathBuf,
    },
    /// The file system of the upper layer cannot hold one.
    #[error(
        "the upper layer '{}' is on {found}, which OverlayFS cannot write to; expected a local file system such as \
         ext4, xfs, btrfs or tmpfs",
        upper.display()
    )]
    UnsuitableUpper {
        /// The upper layer.
        upper: PathBuf,
        /// The file system type.
        found: String,
    },
    /// The upper layer is read-only.
    #[error("the upper layer '{}' is on a read-only mount; expected a writable one", upper.display())]
    ReadOnlyUpper {
        /// The upper layer.
        upper: PathBuf,
    },
    /// The work directory was used by a mount with the option `volatile` that was not unmounted.
    ///
    /// Removing the mark silently would hide that a crash may have lost what the upper layer should hold.
    #[error(
        "'{}' says that an overlay with the option volatile used this work directory and was not unmounted, so the \
         upper layer may be incomplete; verify or empty the upper layer, then remove that directory",
        mark.display()
    )]
    VolatileMark {
        /// The mark.
        mark: PathBuf,
    },
    /// A lower layer is an overlay that is itself on an overlay: the kernel stacks two, not three.
    #[error(
        "the lower layer '{}' is itself an overlay, and the kernel stacks overlays only two deep; \
         give the directories of that overlay (its upper layer first) as lower layers of this mount instead of it",
        lower.display()
    )]
    StackedTooDeep {
        /// The lower layer that is an overlay.
        lower: PathBuf,
    },
    /// A mount in a user namespace needs the option `userxattr`.
    ///
    /// Without it the mount would succeed, but removing a directory that is in both layers would fail with an
    /// input/output error.
    #[error(
        "inside a user namespace OverlayFS must keep its marks in user.* attributes; use the option userxattr"
    )]
    NeedsUserAttributes,
    /// The process may not mount here.
    #[error(
        "mounting needs root (CAP_SYS_ADMIN in the user namespace that owns this mount namespace); \
         run as root, or use `superpose run`, which needs none"
    )]
    NotPermitted,
    /// The kernel has no OverlayFS.
    #[error("this kernel has no OverlayFS; load its module (`modprobe overlay`)")]
    NoOverlayFs,
    /// The names of the layers do not fit into one option string, and the kernel has no other way.
    #[error(
        "the options for {layers} lower layers need {bytes} bytes, and mount(2) takes {DATA_LIMIT}; \
         use fewer lower layers, or Linux 6.8 or newer"
    )]
    TooLong {
        /// The length of the shortest form, in bytes.
        bytes: usize,
        /// How many lower layers there are.
        layers: usize,
    },
    /// The upper layer was made over another lower layer, and the feature `index` has bound it to that one.
    #[error(
        "the upper layer '{}' was used with the option index over another lower layer; give that one, or take a new \
         upper layer",
        upper.display()
    )]
    BoundElsewhere {
        /// The upper layer.
        upper: PathBuf,
    },
    /// The kernel refused for a reason that cannot be seen from here.
    #[error("the kernel refused it; its log names the reason (`dmesg | tail`)")]
    Unexplained,
}

fn hint_missing(role: LayerRole) -> &'static str {
    match role {
        LayerRole::Lower => "a lower store is never created: check its URL",
        LayerRole::Upper | LayerRole::Work | LayerRole::MountPoint => "create it",
    }
}
