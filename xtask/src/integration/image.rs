// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of file systems, made as an ordinary user.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::tools::Tools;

/// Packs a directory into an image that is only read. Everything belongs to root, and nothing is compressed: the host has
/// the room, while an emulated processor takes its time to unpack.
pub(crate) fn squashfs(tools: &Tools, dir: &Path, image: &Path) -> Result<()> {
    let mut command = tools.program("mksquashfs")?;
    command.arg(dir).arg(fresh(image)?);
    command.args([
        "-all-root",
        "-noappend",
        "-no-progress",
        "-quiet",
        "-all-time",
        "0",
        "-mkfs-time",
        "0",
    ]);
    command.args(["-noI", "-noD", "-noF", "-noX", "-no-xattrs"]);
    made(command, image)
}

/// The same in the other form. `all-time` is as in [`squashfs`], so that the same directory makes the same image.
#[allow(dead_code, reason = "for the scenarios that share one lower store")]
pub(crate) fn erofs(tools: &Tools, dir: &Path, image: &Path) -> Result<()> {
    let mut command = tools.program("mkfs.erofs")?;
    command.args([
        "--all-root",
        "--quiet",
        "-T0",
        "-U",
        "00000000-0000-0000-0000-000000000001",
    ]);
    command.arg(fresh(image)?).arg(dir);
    made(command, image)
}

/// An empty ext4 of this size; the file has holes.
pub(crate) fn ext4(tools: &Tools, mebibytes: u64, image: &Path) -> Result<()> {
    sparse(image, mebibytes)?;
    let mut command = tools.program("mke2fs")?;
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-m",
        "0",
        "-E",
        "root_owner=0:0,lazy_itable_init=1",
    ]);
    command.arg(image);
    made(command, image)
}

/// An empty xfs with shared extents; xfs wants 300 MiB at least.
pub(crate) fn xfs(tools: &Tools, mebibytes: u64, image: &Path) -> Result<()> {
    sparse(image, mebibytes)?;
    let mut command = tools.program("mkfs.xfs")?;
    // What an old mkfs and a new one turn on by themselves differs, and so does what kernels know.
    command.args(["-q", "-f", "-m", "reflink=1"]).arg(image);
    made(command, image)
}

fn sparse(image: &Path, mebibytes: u64) -> Result<()> {
    let file = File::create(fresh(image)?).with_context(|| image.display().to_string())?;
    let sized = file.set_len(mebibytes << 20);
    sized.with_context(|| image.display().to_string())
}

fn fresh(image: &Path) -> Result<&Path> {
    match fs::remove_file(image) {
        Ok(()) => Ok(image),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(image),
        Err(error) => Err(error).with_context(|| image.display().to_string()),
    }
}

fn made(mut command: Command, image: &Path) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting what makes {}", image.display()))?;
    ensure!(
        output.status.success(),
        "making {}: {}{}",
        image.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
