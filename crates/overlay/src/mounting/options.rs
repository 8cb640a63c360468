// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to be mounted, and how it is written for the kernel. No I/O but one `stat` of a namespace.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use superpose_mount_check::escape::Layers;

/// How many bytes of options `mount(2)` takes; it cuts what is longer without a word.
///
/// The kernel copies one page and puts a zero byte at its end. Pages are 4096 bytes or more; the smallest counts, so
/// that a store that mounts on one machine mounts on all.
pub const DATA_LIMIT: usize = 4095;

/// How many bytes a value given to `fsconfig(2)` may have; a longer one is refused with `EINVAL`.
pub const FSCONFIG_STRING_LIMIT: usize = 255;

/// How many lower layers OverlayFS takes (`OVL_MAX_STACK`).
pub const LOWER_LIMIT: usize = 500;

/// An overlay mount to be made.
///
/// The texts of the paths go to the kernel as they are, since stock Nix compares the text of the mount table with its
/// settings; they must be absolute, since the table shows a relative one for ever and to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// The lower directories, top-most first, 1 to [`LOWER_LIMIT`].
    pub lower: Vec<PathBuf>,
    /// The upper layer: everything written goes here.
    pub upper: PathBuf,
    /// OverlayFS's own directory, empty and on the same mount as `upper`, neither inside the other.
    pub work: PathBuf,
    /// The directory that shows the merged view; what it holds is hidden by the mount.
    pub mount_point: PathBuf,
    /// Where OverlayFS keeps its marks on files of the upper layer.
    pub attributes: OverlayAttributes,
}

/// The extended attributes in which OverlayFS marks opaque directories and the like.
///
/// An upper layer belongs to one kind: marks of the other kind are not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverlayAttributes {
    /// `trusted.overlay.*`: needs root of the machine; what `mount -t overlay` does if told nothing.
    #[default]
    Trusted,
    /// `user.overlay.*` (the mount option `userxattr`): the only kind that works in a user namespace.
    User,
}

impl OverlayAttributes {
    /// The kind that works where this process is: [`Trusted`](Self::Trusted) in the machine's first user namespace,
    /// else [`User`](Self::User).
    ///
    /// # Errors
    /// `/proc/self/ns/user` cannot be examined.
    pub fn for_this_process() -> io::Result<Self> {
        /// The inode of the first user namespace, the same on every kernel since 3.8 (`USER_NS_INIT_INO`).
        const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
        let namespace = std::fs::metadata("/proc/self/ns/user")?;
        Ok(if namespace.ino() == FIRST_USER_NAMESPACE {
            Self::Trusted
        } else {
            Self::User
        })
    }
}

/// What a directory is to the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerRole {
    /// One of the lower layers.
    Lower,
    /// The upper layer.
    Upper,
    /// The work directory.
    Work,
    /// The mount point.
    MountPoint,
}

impl fmt::Display for LayerRole {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            LayerRole::Lower => "lower layer",
            LayerRole::Upper => "upper layer",
            LayerRole::Work => "work directory",
            LayerRole::MountPoint => "mount point",
        })
    }
}

impl MountPlan {
    /// A plan with the attributes that fit the machine's root.
    #[must_use]
    pub fn new(
        lower: Vec<PathBuf>,
        upper: impl Into<PathBuf>,
        work: impl Into<PathBuf>,
        mount_point: impl Into<PathBuf>,
    ) -> Self {
        MountPlan {
            lower,
            upper: upper.into(),
            work: work.into(),
            mount_point: mount_point.into(),
            attributes: OverlayAttributes::default(),
        }
    }

    /// The plan with other attributes.
    #[must_use]
    pub fn with_attributes(self, attributes: OverlayAttributes) -> Self {
        MountPlan { attributes, ..self }
    }

    /// Every layer with its role, the lower ones first.
    pub(super) fn layers(&self) -> impl Iterator<Item = (LayerRole, &Path)> {
        let lower = self.lower.iter().map(|path| (LayerRole::Lower, path.as_path()));
        lower.chain([
            (LayerRole::Upper, self.upper.as_path()),
            (LayerRole::Work, self.work.as_path()),
        ])
    }

    /// The data string of `mount(2)`, in the form and order that stock Nix recognises in the mount table.
    pub(super) fn data(&self) -> Vec<u8> {
        data(&self.lower, &self.upper, &self.work, self.attributes)
    }

    /// The same with every directory named by its descriptor, which is shorter than most paths.
    pub(super) fn data_by_descriptors(&self, lower: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd) -> Vec<u8> {
        let lower: Vec<PathBuf> = lower.iter().map(descriptor_path).collect();
        data(
            &lower,
            &descriptor_path(upper),
            &descriptor_path(work),
            self.attributes,
        )
    }
}

fn data(lower: &[PathBuf], upper: &Path, work: &Path, attributes: OverlayAttributes) -> Vec<u8> {
    let mut data = Layers { lower, upper, work }.options();
    if attributes == OverlayAttributes::User {
        data.extend_from_slice(b",userxattr");
    }
    data
}

/// A path that leads this process to the directory it holds open, whatever happened to its name.
pub(super) fn descriptor_path(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// A path as a value for `fsconfig(2)`: itself, or by descriptor where it is too long.
pub(super) fn fsconfig_text(text: Vec<u8>, directory: &OwnedFd) -> PathBuf {
    if text.len() <= FSCONFIG_STRING_LIMIT {
        PathBuf::from(OsStr::from_bytes(&text))
    } else {
        descriptor_path(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_string_is_the_one_stock_nix_looks_for() {
        let plan = MountPlan::new(vec!["/l".into()], "/u", "/w", "/m");
        assert_eq!(plan.data(), b"lowerdir=/l,upperdir=/u,workdir=/w");
        let plan = plan.with_attributes(OverlayAttributes::User);
        assert_eq!(plan.data(), b"lowerdir=/l,upperdir=/u,workdir=/w,userxattr");
    }

    #[test]
    fn special_bytes_are_escaped_where_the_kernel_unescapes() {
        let plan = MountPlan::new(vec!["/a:b".into(), "/c,d".into()], "/u:,\\", "/w w\n", "/m");
        assert_eq!(
            plan.data(),
            b"lowerdir=/a\\:b:/c\\,d,upperdir=/u:\\,\\\\,workdir=/w w\n"
        );
    }

    #[test]
    fn a_value_too_long_for_fsconfig_goes_by_descriptor() {
        let directory: OwnedFd = std::fs::File::open("/").expect("the root directory opens").into();
        let fits = vec![b'a'; FSCONFIG_STRING_LIMIT];
        let long = vec![b'a'; FSCONFIG_STRING_LIMIT + 1];
        assert_eq!(
            fsconfig_text(fits.clone(), &directory).as_os_str().as_bytes(),
            fits
        );
        assert_eq!(fsconfig_text(long, &directory), descriptor_path(&directory));
    }
}
