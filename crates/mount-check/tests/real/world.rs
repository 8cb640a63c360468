// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory with layers in it, and the ways to mount them. Everything is unmounted and removed at the end.

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, move_mount,
};
use superpose_mount_check::escape::Layers;
use superpose_mount_check::{Expected, Options, Report, check_with};

/// A set of layers: `l`, `u`, `w`, `m` and whatever a trial adds.
pub(crate) struct World {
    // Unmounted before the directory is removed, since fields drop after `drop`.
    mounts: RefCell<Vec<PathBuf>>,
    root: PathBuf,
    _directory: tempfile::TempDir,
}

impl World {
    /// Makes the four directories, with a few objects below and one above.
    pub(crate) fn new() -> Self {
        Self::named(OsStr::new("plain"))
    }

    /// The same, inside a directory of this name.
    pub(crate) fn named(name: &OsStr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap().join(name);
        fs::create_dir(&root).unwrap();
        let world = Self {
            mounts: RefCell::default(),
            root,
            _directory: directory,
        };
        for name in ["l", "u", "w", "m"] {
            world.directory(name);
        }
        world.fill("l", "lower");
        world.object("u/in-upper");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.root.clone()
        } else {
            self.root.join(name)
        }
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A directory with a file in it.
    pub(crate) fn object(&self, name: &str) {
        let path = self.directory(name);
        fs::write(path.join("file"), name).unwrap();
    }

    /// A lower directory with a directory, a file and a link.
    pub(crate) fn fill(&self, name: &str, content: &str) {
        self.object(&format!("{name}/{content}-directory"));
        fs::write(self.path(name).join(format!("{content}-file")), content).unwrap();
        std::os::unix::fs::symlink("nowhere", self.path(name).join(format!("{content}-link"))).unwrap();
    }

    /// The expectation of the plain world.
    pub(crate) fn expected<'a>(
        &self,
        mount_point: &'a Path,
        lower: &[&str],
        upper: &'a Path,
    ) -> Expected<'a> {
        Expected {
            mount_point,
            lower: lower.iter().map(|name| self.path(name)).collect(),
            upper,
        }
    }

    /// Checks that `m` is `lower` under `upper`.
    pub(crate) fn check(&self, lower: &[&str], upper: &str) -> Report {
        self.check_at("m", lower, upper, Options::default())
    }

    pub(crate) fn check_at(
        &self,
        mount_point: &str,
        lower: &[&str],
        upper: &str,
        options: Options,
    ) -> Report {
        let (mount_point, upper) = (self.path(mount_point), self.path(upper));
        check_with(&self.expected(&mount_point, lower, &upper), options).unwrap()
    }

    /// Mounts an overlay with `mount(2)`, all paths absolute.
    pub(crate) fn overlay(&self, mount_point: &str, lower: &[&str], upper: &str) {
        self.overlay_with(mount_point, lower, upper, "");
    }

    /// The same with more options, each after a comma. In a user namespace `userxattr` is added, which is
    /// needed there.
    pub(crate) fn overlay_with(&self, mount_point: &str, lower: &[&str], upper: &str, more: &str) {
        let userxattr = if crate::harness::in_user_namespace() {
            ",userxattr"
        } else {
            ""
        };
        self.overlay_exactly(mount_point, lower, upper, &format!("{more}{userxattr}"));
    }

    /// The same with exactly these options.
    pub(crate) fn overlay_exactly(&self, mount_point: &str, lower: &[&str], upper: &str, more: &str) {
        let lower: Vec<_> = lower.iter().map(|name| self.path(name)).collect();
        let (upper, work) = (self.path(upper), self.work_of(upper));
        let mut data = Layers {
            lower: &lower,
            upper: &upper,
            work: &work,
        }
        .options();
        data.extend_from_slice(more.as_bytes());
        self.mount_data("overlay", mount_point, &data).unwrap();
    }

    /// The work directory that goes with an upper layer.
    fn work_of(&self, upper: &str) -> PathBuf {
        self.directory(&if upper == "u" {
            "w".to_owned()
        } else {
            format!("{upper}.work")
        })
    }

    /// `mount(2)` with this source and this data string.
    pub(crate) fn mount_data(&self, source: &str, mount_point: &str, data: &[u8]) -> rustix::io::Result<()> {
        let target = self.path(mount_point);
        let data = CString::new(data).unwrap();
        rustix::mount::mount(source, &target, "overlay", MountFlags::empty(), data.as_c_str())?;
        self.mounted(target);
        Ok(())
    }

    /// Any other mount: `mount(8)` run in the world's directory.
    pub(crate) fn mount_command(&self, arguments: &[&str], mount_point: &str) {
        let output = Command::new("mount")
            .args(arguments)
            .arg(mount_point)
            .current_dir(&self.root)
            .output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.mounted(self.path(mount_point));
    }

    /// An overlay by `fsconfig(2)`, attached to `mount_point`.
    pub(crate) fn new_api(&self, settings: &[(&str, Setting)], mount_point: &str) -> rustix::io::Result<()> {
        let mount = self.detached(settings)?;
        let target = self.path(mount_point);
        move_mount(&mount, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        self.mounted(target);
        Ok(())
    }

    /// An overlay by `fsconfig(2)`, not attached anywhere yet.
    pub(crate) fn detached(&self, settings: &[(&str, Setting)]) -> rustix::io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, setting) in settings {
            match setting {
                Setting::Path(path) => fsconfig_set_string(&context, *key, path)?,
                Setting::Text(text) => fsconfig_set_string(&context, *key, *text)?,
                Setting::Fd(fd) => fsconfig_set_fd(&context, *key, fd)?,
            }
        }
        if crate::harness::in_user_namespace() {
            rustix::mount::fsconfig_set_flag(&context, "userxattr")?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// Remembers a mount, to be undone at the end.
    pub(crate) fn mounted(&self, target: PathBuf) {
        self.mounts.borrow_mut().push(target);
    }

    pub(crate) fn unmount(&self, mount_point: &str) {
        rustix::mount::unmount(self.path(mount_point), UnmountFlags::DETACH).unwrap();
    }

    /// A tmpfs at this name.
    pub(crate) fn tmpfs(&self, name: &str) {
        let target = self.directory(name);
        rustix::mount::mount("tmpfs", &target, "tmpfs", MountFlags::empty(), None).unwrap();
        self.mounted(target);
    }
}

/// A value for `fsconfig(2)`.
pub(crate) enum Setting {
    Path(PathBuf),
    Text(&'static str),
    Fd(OwnedFd),
}

impl Drop for World {
    fn drop(&mut self) {
        for mount in self.mounts.borrow().iter().rev() {
            // Already undone by the trial, perhaps.
            rustix::mount::unmount(mount, UnmountFlags::DETACH).ok();
        }
    }
}

/// An open directory, for giving layers as file descriptors.
pub(crate) fn open(path: &Path) -> OwnedFd {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap()
}

/// A name from any bytes.
pub(crate) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
