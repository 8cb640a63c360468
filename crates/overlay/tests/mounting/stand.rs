// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the trials stand on: layers in a temporary directory, and the mounts over them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};
use superpose_mount_check::mountinfo::{self, MountInfo};
use superpose_overlay::mounting::{Detach, MountPlan, OverlayAttributes, mount_overlay, unmount};

/// One lower layer, an upper layer, a work directory and a mount point, none of them mounted yet.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) base: tempfile::TempDir,
    pub(crate) lower: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) merged: PathBuf,
}

impl Stand {
    pub(crate) fn new() -> Self {
        Self::with_suffix(OsStr::new(""))
    }

    /// The same with something appended to each directory name.
    pub(crate) fn with_suffix(suffix: &OsStr) -> Self {
        let base = tempfile::tempdir().unwrap();
        let directory = |name: &str| {
            let mut name = OsStr::new(name).to_owned();
            name.push(suffix);
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (lower, upper, work, merged) = (
            directory("lower"),
            directory("upper"),
            directory("work"),
            directory("merged"),
        );
        Stand {
            base,
            lower,
            upper,
            work,
            merged,
        }
    }

    pub(crate) fn plan(&self) -> MountPlan {
        MountPlan::new(vec![self.lower.clone()], &self.upper, &self.work, &self.merged)
            .with_attributes(OverlayAttributes::for_this_process().unwrap())
    }

    /// A stand whose overlay is mounted.
    pub(crate) fn mounted() -> Self {
        let stand = Self::new();
        mount_overlay(&stand.plan()).unwrap();
        stand
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.base.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        // Whatever a trial left mounted below the temporary directory goes, so that the directory can be removed.
        for mount in table()
            .iter()
            .rev()
            .filter(|mount| mount.mount_point_path().starts_with(self.base.path()))
        {
            let path = mount.mount_point_path();
            if unmount(path, Detach::Lazily).is_err() {
                // Not an overlay: a bind mount or a tmpfs of the trial. The worst that is left is a directory in /tmp.
                drop(rustix::mount::unmount(path, UnmountFlags::DETACH).map_err(io::Error::from));
            }
        }
    }
}

pub(crate) fn write(path: impl AsRef<Path>, content: &str) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The sorted names in a directory.
pub(crate) fn names(directory: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn table() -> Vec<MountInfo> {
    mountinfo::parse(&fs::read("/proc/thread-self/mountinfo").unwrap()).unwrap()
}

/// The line of the mount table for the top mount at a path.
pub(crate) fn shown(mount_point: &Path) -> MountInfo {
    table()
        .into_iter()
        .rfind(|mount| mount.mount_point_path() == mount_point)
        .unwrap()
}

pub(crate) fn mount_tmpfs(path: &Path) {
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// Runs something without any capability, as an ordinary user would.
pub(crate) fn unprivileged<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let none = CapabilitySet::empty();
    let run = || {
        // Capabilities belong to the thread, so the rest of the program keeps them.
        rustix::thread::set_capabilities(
            None,
            CapabilitySets {
                effective: none,
                permitted: none,
                inheritable: none,
            },
        )
        .unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// Whether the kernel is at least of a version.
pub(crate) fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}
