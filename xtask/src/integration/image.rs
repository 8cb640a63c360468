// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of file systems, made as an ordinary user.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::tools::Tools;

/// Packs a directory into an image that is only read. Everything belongs to root, and nothing is compressed: the host has
/// the room, while an emulated processor takes its time to unpack.
pub(crate) fn squashfs(tools: &Tools, dir: &Path, image: &Path) -> Result<()> {
    let mut command = tools.program("mksquashfs")?;
    let fresh = fresh(image)?;
    command.arg(dir).arg(&fresh);
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
    made(command, &fresh, image)
}

/// The same in the other form; the same directory makes the same image in both.
#[allow(dead_code, reason = "for the scenarios that share one lower store")]
pub(crate) fn erofs(tools: &Tools, dir: &Path, image: &Path) -> Result<()> {
    let mut command = tools.program("mkfs.erofs")?;
    command.args(["--all-root", "-T0", "-U", "00000000-0000-0000-0000-000000000001"]);
    let fresh = fresh(image)?;
    command.arg(&fresh).arg(dir);
    made(command, &fresh, image)
}

/// An empty ext4 of this size; the file has holes. `more` are options of mke2fs.
pub(crate) fn ext4(tools: &Tools, mebibytes: u64, image: &Path, more: &[&str]) -> Result<()> {
    let fresh = sparse(image, mebibytes)?;
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
    command.args(more).arg(&fresh);
    made(command, &fresh, image)
}

/// An empty xfs with shared extents; xfs wants 300 MiB at least. `more` are options of mkfs.xfs.
pub(crate) fn xfs(tools: &Tools, mebibytes: u64, image: &Path, more: &[&str]) -> Result<()> {
    let fresh = sparse(image, mebibytes)?;
    let mut command = tools.program("mkfs.xfs")?;
    command
        .args(["-q", "-f", "-m", "reflink=1"])
        .args(more)
        .arg(&fresh);
    made(command, &fresh, image)
}

fn sparse(image: &Path, mebibytes: u64) -> Result<PathBuf> {
    let fresh = fresh(image)?;
    let file = File::create(&fresh).with_context(|| fresh.display().to_string())?;
    let sized = file.set_len(mebibytes << 20);
    sized.with_context(|| fresh.display().to_string())?;
    Ok(fresh)
}

/// The name under which an image is made: nobody starts a guest on half of one.
fn fresh(image: &Path) -> Result<PathBuf> {
    let fresh = image.with_extension("new");
    match fs::remove_file(&fresh) {
        Ok(()) => Ok(fresh),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(fresh),
        Err(error) => Err(error).with_context(|| fresh.display().to_string()),
    }
}

fn made(mut command: Command, fresh: &Path, image: &Path) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting what makes {}", image.display()))?;
    ensure!(
        output.status.success(),
        "making {}: {}{}",
        image.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(fresh, image).with_context(|| image.display().to_string())
}
