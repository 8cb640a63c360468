// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mounts every form of overlay below a directory and writes the lines of `/proc/self/mountinfo` that show them: this
//! is how the tables in `tests/fixtures` were recorded. What the running kernel refuses is named on standard error and
//! left out.
//!
//! The argument is the absolute path of a directory to be made, on a file system that can hold an upper layer. Nothing
//! is unmounted: run it in a mount namespace that ends with it, as in
//! `unshare -m --propagation private -- record_mounts /srv/fx > table`, and remove the directory afterwards.
#![forbid(unsafe_code)]

use std::error::Error;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_string, fsmount, fsopen, mount, mount_bind, mount_remount, move_mount,
};
use superpose_mount_check::escape::Layers;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Directory names with a byte that one of the two layers of escapes, or a reader of them, may stumble over.
const ODD: [&[u8]; 8] = [
    b"sp ace",
    b"com,ma",
    b"co:lon",
    b"back\\slash",
    b"new\nline",
    b"ha#sh",
    b"tab\tbed",
    b"byte\xff",
];

fn main() -> Result<()> {
    let root = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .ok_or("expected one argument: the absolute path of a directory to be made")?;
    fs::create_dir(&root)?;
    // For the relative paths.
    std::env::set_current_dir(&root)?;
    let place = Place { root };
    for lower in ["a/store", "b", "data"] {
        place.directory(lower)?;
    }
    place.mount_paths()?;
    place.mount_options()?;
    place.mount_parts()?;
    place.mount_two_file_systems()?;
    place.mount_stacks()?;
    place.mount_by_fsconfig()?;
    io::stdout().write_all(&place.recorded(&fs::read("/proc/self/mountinfo")?))?;
    Ok(())
}

/// The directory in which everything is made and mounted.
struct Place {
    root: PathBuf,
}

/// A value for `fsconfig(2)`.
enum Setting {
    Text(PathBuf),
    Fd(OwnedFd),
}

impl Place {
    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root.join(name.as_ref())
    }

    fn directory(&self, name: impl AsRef<OsStr>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The mount point `name`, its upper layer `u-name` and its work directory `w-name`, all made.
    fn own(&self, name: impl AsRef<OsStr>) -> Result<[PathBuf; 3]> {
        let name = name.as_ref();
        let [upper, work] = [&b"u-"[..], b"w-"].map(|prefix| join(prefix, name));
        Ok([
            self.directory(name)?,
            self.directory(upper)?,
            self.directory(work)?,
        ])
    }

    /// An overlay by `mount(2)` with layers of its own, and `more` options, each after a comma.
    fn overlay(&self, name: impl AsRef<OsStr>, lower: &[PathBuf], more: &str) -> Result<()> {
        self.overlay_of("overlay", name.as_ref(), lower, more, MountFlags::empty())
    }

    fn overlay_of(
        &self,
        source: &str,
        name: &OsStr,
        lower: &[PathBuf],
        more: &str,
        flags: MountFlags,
    ) -> Result<()> {
        let [target, upper, work] = self.own(name)?;
        let layers = Layers {
            lower,
            upper: &upper,
            work: &work,
        };
        let data = CString::new([&layers.options(), more.as_bytes()].concat())?;
        report(name, mount(source, &target, "overlay", flags, data.as_c_str()));
        Ok(())
    }

    /// An overlay by `mount(2)` with exactly these options; `{}` in them is the directory of this place.
    fn overlay_exactly(&self, name: &str, options: &str) -> Result<()> {
        let target = self.directory(name)?;
        let root = self.root.to_str().ok_or("the directory's path is not UTF-8")?;
        let data = CString::new(options.replace("{}", root))?;
        let flags = MountFlags::empty();
        report(name, mount("overlay", &target, "overlay", flags, data.as_c_str()));
        Ok(())
    }

    /// Layers of every spelling, and sources of every kind.
    fn mount_paths(&self) -> Result<()> {
        let [a, b] = ["a", "b"].map(|name| self.path(name));
        self.overlay("plain", std::slice::from_ref(&a), "")?;
        self.overlay("two", &[a.clone(), b], "")?;
        for odd in ODD.map(OsStr::from_bytes) {
            let lower = self.directory(join(b"l-", odd))?;
            self.overlay(odd, &[lower], "")?;
        }
        for name in ["u", "w"] {
            self.directory(name)?;
        }
        self.overlay_exactly("relative", "lowerdir=a,upperdir=u,workdir=w")?;
        self.own("slashes")?;
        let slashes = "lowerdir={}//a/./,upperdir={}/u-slashes,workdir={}/w-slashes";
        self.overlay_exactly("slashes", slashes)?;
        for (name, source) in [("source", "my #1 \\store"), ("nosource", "")] {
            let flags = MountFlags::empty();
            self.overlay_of(source, OsStr::new(name), std::slice::from_ref(&a), "", flags)?;
        }
        Ok(())
    }

    fn mount_options(&self) -> Result<()> {
        let a = [self.path("a")];
        self.overlay("index", &a, ",index=on,nfs_export=on")?;
        self.overlay("metacopy", &a, ",metacopy=on")?;
        self.overlay("volatile", &a, ",volatile")?;
        self.overlay("userxattr", &a, ",userxattr")?;
        self.overlay_exactly("upperless", "lowerdir={}/a:{}/b")?;
        self.overlay_of("overlay", OsStr::new("readonly"), &a, "", MountFlags::RDONLY)
    }

    /// Bind mounts of a directory of the plain overlay.
    fn mount_parts(&self) -> Result<()> {
        let store = self.path("plain/store");
        for name in ["part", "part-ro"] {
            let target = self.directory(name)?;
            mount_bind(&store, &target)?;
        }
        mount_remount(self.path("part-ro"), MountFlags::BIND | MountFlags::RDONLY, c"")?;
        Ok(())
    }

    fn mount_two_file_systems(&self) -> Result<()> {
        tmpfs(&self.directory("t")?)?;
        let lower = [self.directory("t/l")?];
        self.overlay("twofs", &lower, "")?;
        self.overlay("xino", &lower, ",xino=on")
    }

    fn mount_stacks(&self) -> Result<()> {
        let a = [self.path("a")];
        self.overlay("stacked", &a, "")?;
        for name in ["u2", "w2"] {
            self.directory(name)?;
        }
        self.overlay_exactly("stacked", "lowerdir={}/b,upperdir={}/u2,workdir={}/w2")?;
        self.overlay("covered", &a, "")?;
        tmpfs(&self.path("covered"))
    }

    /// Layers given one by one, as text and as file descriptors; data-only layers in both forms.
    fn mount_by_fsconfig(&self) -> Result<()> {
        let text = |name: &str| Setting::Text(self.path(name));
        let source = || ("source", Setting::Text(PathBuf::from("overlay")));
        let lower = ["a", "l-co:lon", "l-com,ma", "l-back\\slash"];
        let plus = lower.map(|name| ("lowerdir+", text(name)));
        report("plus", self.attach("plus", plus.into())?);

        let data = || vec![source(), ("lowerdir+", text("a")), ("datadir+", text("data"))];
        let mut mounted = self.attach("datadir", data())?;
        let needs_metacopy = mounted.is_err();
        if needs_metacopy {
            let mut settings = data();
            settings.push(("metacopy", Setting::Text(PathBuf::from("on"))));
            mounted = self.attach("datadir", settings)?;
        }
        report("datadir", mounted);
        self.own("dataonly")?;
        let metacopy = if needs_metacopy { ",metacopy=on" } else { "" };
        let layers = "lowerdir={}/a::{}/data,upperdir={}/u-dataonly,workdir={}/w-dataonly";
        self.overlay_exactly("dataonly", &format!("{layers}{metacopy}"))?;

        let [_, upper, work] = self.own("fds")?;
        let fds = [
            ("lowerdir+", Setting::Fd(open(&self.path("a"))?)),
            ("upperdir", Setting::Fd(open(&upper)?)),
            ("workdir", Setting::Fd(open(&work)?)),
        ];
        report("fds", attach_to(&self.path("fds"), &fds));
        Ok(())
    }

    /// An overlay by `fsconfig(2)` with an upper layer of its own.
    fn attach(
        &self,
        name: &str,
        mut settings: Vec<(&'static str, Setting)>,
    ) -> Result<rustix::io::Result<()>> {
        let [target, upper, work] = self.own(name)?;
        settings.extend([
            ("upperdir", Setting::Text(upper)),
            ("workdir", Setting::Text(work)),
        ]);
        Ok(attach_to(&target, &settings))
    }

    /// The lines whose fifth field, the mount point, is below the directory of this place.
    fn recorded(&self, table: &[u8]) -> Vec<u8> {
        let below = [self.root.as_os_str().as_bytes(), b"/"].concat();
        let lines = table.split_inclusive(|&byte| byte == b'\n').filter(|line| {
            let mount_point = line.split(|&byte| byte == b' ').nth(4);
            mount_point.is_some_and(|field| field.starts_with(&below))
        });
        lines.flatten().copied().collect()
    }
}

fn join(prefix: &[u8], name: &OsStr) -> std::ffi::OsString {
    std::ffi::OsString::from_vec([prefix, name.as_bytes()].concat())
}

/// Names a mount that this kernel refuses.
fn report(name: impl AsRef<OsStr>, mounted: rustix::io::Result<()>) {
    if let Err(error) = mounted {
        let name = name.as_ref().as_bytes().escape_ascii();
        // With standard error closed there is nobody to be told.
        writeln!(io::stderr(), "{name}: refused: {error}").ok();
    }
}

fn tmpfs(target: &Path) -> Result<()> {
    Ok(mount("tmpfs", target, "tmpfs", MountFlags::empty(), None)?)
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn attach_to(target: &Path, settings: &[(&str, Setting)]) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, setting) in settings {
        match setting {
            Setting::Text(text) => fsconfig_set_string(&context, *key, text)?,
            Setting::Fd(fd) => fsconfig_set_fd(&context, *key, fd)?,
        }
    }
    fsconfig_create(&context)?;
    let detached = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(
        &detached,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}
