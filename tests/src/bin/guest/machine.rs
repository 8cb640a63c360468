// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the initramfs to a machine that programs can live in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_move};

use crate::{disks, order};

/// The disk that holds the programs of the root.
const TOOLS: &str = "tools";

/// Users whom programs ask for by name; nobody is who the suites are where they must not be root.
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Mounts what every program takes for granted.
pub(crate) fn mount_basics() -> Result<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount_new(kind, at, "")?;
    }
    Ok(())
}

/// Makes the image of tools, with memory over it, the root. By way of a move: a namespace of an ordinary user is refused
/// to whoever was only put into another root by `chroot`.
pub(crate) fn enter_root() -> Result<()> {
    let root = "/root-to-be";
    mount_new("tmpfs", "/over", "mode=0755")?;
    disks::mount_image(TOOLS, Path::new("/tools"), "squashfs")?;
    disks::cover(Path::new("/tools"), Path::new("/over"), Path::new(root))?;
    fs::copy(order::FILE, format!("{root}{}", order::FILE)).context("taking the order along")?;
    for at in ["/proc", "/sys", "/dev"] {
        let place = format!("{root}{at}");
        fs::create_dir_all(&place).with_context(|| place.clone())?;
        mount_move(at, &place).with_context(|| format!("moving {at}"))?;
    }
    std::env::set_current_dir(root).context(root)?;
    mount_move(".", "/").context("moving the root")?;
    rustix::process::chroot(".").context("entering the root")?;
    std::env::set_current_dir("/").context("/")?;
    furnish()
}

fn furnish() -> Result<()> {
    for (kind, at, options) in [
        ("tmpfs", "/run", "mode=0755"),
        ("tmpfs", "/tmp", "mode=1777"),
        ("devpts", "/dev/pts", "mode=0620,ptmxmode=0666"),
        ("tmpfs", "/dev/shm", "mode=1777"),
    ] {
        mount_new(kind, at, options)?;
    }
    fs::create_dir_all("/root").context("/root")?;
    fs::set_permissions("/root", fs::Permissions::from_mode(0o755)).context("/root")?;
    for (path, text) in [("/etc/passwd", PASSWD), ("/etc/group", GROUP), ("/etc/hosts", "")] {
        fs::write(path, text).context(path)?;
    }
    symlink("/proc/self/mounts", "/etc/mtab").context("/etc/mtab")?;
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlink(to, Path::new("/dev").join(name)).with_context(|| format!("/dev/{name}"))?;
    }
    Ok(())
}

/// Mounts a file system that has no disk.
pub(crate) fn mount_new(kind: &str, at: &str, options: &str) -> Result<()> {
    fs::create_dir_all(at).with_context(|| at.to_owned())?;
    let options = std::ffi::CString::new(options).context(at.to_owned())?;
    let done = mount(kind, at, kind, MountFlags::empty(), Some(options.as_c_str()));
    done.with_context(|| format!("mounting {kind} at {at}"))
}
