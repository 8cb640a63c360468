// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks are known by the serial that the starter gave them; which name the kernel chose is chance.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount as mount_at, unmount as unmount_at};

use crate::order::{DiskMount, Order};

/// The kernel looks for disks beside whatever we do.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The device of the disk with this serial.
pub(crate) fn device(serial: &str) -> Result<PathBuf> {
    let started = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/block").context("/sys/block")? {
            let entry = entry?;
            let said = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            if said.trim_end() == serial {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        if started.elapsed() > TIME_LIMIT {
            bail!("this machine has no disk with the serial '{serial}'");
        }
        sleep(Duration::from_millis(20));
    }
}

/// Mounts what the order says.
pub(crate) fn mount(order: &Order) -> Result<()> {
    for (index, disk) in order.mounts.iter().enumerate() {
        mount_one(disk, index).with_context(|| format!("the disk '{}'", disk.serial))?;
    }
    Ok(())
}

fn mount_one(disk: &DiskMount, index: usize) -> Result<()> {
    if !disk.is_covered {
        let flags = if disk.is_read_only {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        return mount_device(&device(&disk.serial)?, &disk.at, &disk.kind, flags, &disk.options);
    }
    let below = PathBuf::from(format!("/run/below/{index}"));
    mount_image(&disk.serial, &below, &disk.kind)?;
    let above = PathBuf::from(format!("/run/above/{index}"));
    fs::create_dir_all(&above).with_context(|| above.display().to_string())?;
    cover(&below, &above, &disk.at)
}

/// Mounts a disk that nothing is written to.
pub(crate) fn mount_image(serial: &str, at: &Path, kind: &str) -> Result<()> {
    mount_device(&device(serial)?, at, kind, MountFlags::RDONLY, "")
}

/// Mounts a device.
pub(crate) fn mount_device(
    device: &Path,
    at: &Path,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<()> {
    fs::create_dir_all(at).with_context(|| at.display().to_string())?;
    let options = CString::new(options).context("options with a zero byte")?;
    mount_at(device, at, kind, flags, Some(options.as_c_str()))
        .with_context(|| format!("mounting {} ({kind}) at {}", device.display(), at.display()))
}

/// Mounts one directory with another over it that takes what is written.
pub(crate) fn cover(below: &Path, above: &Path, at: &Path) -> Result<()> {
    let (upper, work) = (above.join("upper"), above.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    fs::create_dir_all(at).with_context(|| at.display().to_string())?;
    let mut options = b"lowerdir=".to_vec();
    options.extend_from_slice(below.as_os_str().as_bytes());
    options.extend_from_slice(b",upperdir=");
    options.extend_from_slice(upper.as_os_str().as_bytes());
    options.extend_from_slice(b",workdir=");
    options.extend_from_slice(work.as_os_str().as_bytes());
    let options = CString::new(options).context("a path with a zero byte")?;
    mount_at(
        "overlay",
        at,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .with_context(|| format!("covering {} at {}", below.display(), at.display()))
}

/// Unmounts the disks that were mounted, the last one first, so that they are clean when the machine goes.
pub(crate) fn unmount(order: &Order) -> Result<()> {
    for disk in order
        .mounts
        .iter()
        .rev()
        .filter(|disk| !disk.is_read_only && !disk.is_covered)
    {
        match unmount_at(&disk.at, UnmountFlags::empty()) {
            // Never mounted: then something else went wrong before, and is told.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("unmounting {}", disk.at.display())),
        }
    }
    Ok(())
}
