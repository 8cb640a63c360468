// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all guests of a run share: what was prepared, where their files lie, how much time they get.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xshell::Shell;

use super::accelerator::Accelerator;
use super::disk::Disk;
use super::image;
use super::kernel::{Kernel, Release};
use super::programs::Programs;
use super::tools::Tools;
use crate::{stock_nix, workspace};

/// Everything that is needed before the first guest starts. After that nothing is fetched.
pub(crate) struct Room {
    pub(crate) base: PathBuf,
    pub(crate) tools: Tools,
    pub(crate) programs: Programs,
    pub(crate) accelerator: Accelerator,
    /// The fault that the programs of all guests have, if they were built so.
    pub(crate) fault: Option<&'static str>,
    stock_nix: PathBuf,
    time_factor: u32,
    /// Held as long as the room is: a second run would make the images anew under the guests of the first.
    _lock: File,
}

impl Room {
    /// Fetches, builds, packs; what an earlier run left is taken as it is.
    pub(crate) fn prepare(base: &Path, releases: &[Release]) -> Result<(Self, Vec<Kernel>)> {
        for dir in ["log", "run"] {
            let dir = base.join(dir);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        let lock = lock(&base.join("lock"))?;
        let tools = Tools::prepare(base)?;
        let kernels = releases
            .iter()
            .map(|&release| Kernel::prepare(base, release, &tools))
            .collect::<Result<Vec<_>>>()?;
        let stock_nix = stock_nix_image(base, &tools)?;
        let mut room = Self {
            programs: Programs::build(base, &tools)?,
            base: base.to_owned(),
            tools,
            accelerator: Accelerator::Tcg,
            fault: None,
            stock_nix,
            time_factor: workspace::time_factor()?,
            _lock: lock,
        };
        if let Some(kernel) = kernels.first() {
            room.accelerator = Accelerator::choose(&room, kernel)?;
        }
        Ok((room, kernels))
    }

    /// The disk with stock Nix, at its own place; what it writes beside itself goes into memory.
    pub(crate) fn stock_nix(&self) -> Disk {
        let place = workspace::fetched().join("stock-nix");
        Disk::read_only("stock-nix", &self.stock_nix)
            .at(place, "squashfs")
            .covered()
    }

    /// A time limit as it is on this machine.
    pub(crate) fn scaled(&self, limit: Duration) -> Duration {
        limit * self.time_factor
    }

    /// The log of a guest.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.base.join("log").join(format!("{name}.log"))
    }

    /// A directory for the files of a run.
    pub(crate) fn run_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.base.join("run").join(name);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir)
    }

    /// Removes what an earlier run of a scenario left on a kernel: its logs would be taken for those of this run.
    pub(crate) fn clear(&self, scenario: &str, release: Release) -> Result<()> {
        remove(
            &self.base.join("log"),
            scenario,
            &format!("-{}.log", release.name()),
        )?;
        self.forget(scenario, release)
    }

    /// Removes what a scenario left on a kernel, but for its logs.
    pub(crate) fn forget(&self, scenario: &str, release: Release) -> Result<()> {
        remove(&self.base.join("run"), scenario, &format!("-{}", release.name()))
    }
}

/// Removes what has a name with this beginning and this end.
fn remove(dir: &Path, beginning: &str, end: &str) -> Result<()> {
    let shell = Shell::new()?;
    for path in shell.read_dir(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(beginning) && name.ends_with(end) {
            shell.remove_path(&path)?;
        }
    }
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "between our own runs; no Nix looks at this file"
)]
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another run of `cargo xtask integration` has {}", path.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Packs what `cargo xtask stock-nix` fetches, and fetches it if it is not there.
fn stock_nix_image(base: &Path, tools: &Tools) -> Result<PathBuf> {
    let dir = stock_nix::fetch()?;
    let image = base.join("stock-nix.img");
    let stamp = base.join("stock-nix.stamp");
    // The wrappers hold the path.
    let mut expected = format!("{}\n", dir.display());
    for suite in ["sid", "trixie"] {
        let path = dir.join(suite).join("stamp");
        expected += &fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    }
    if image.is_file() && fs::read_to_string(&stamp).is_ok_and(|text| text == expected) {
        return Ok(image);
    }
    image::squashfs(tools, &dir, &image)?;
    fs::write(&stamp, expected).with_context(|| stamp.display().to_string())?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_beginning_and_the_end_is_removed() {
        let shell = Shell::new().unwrap();
        let dir = shell.create_temp_dir().unwrap();
        for name in ["a-1.log", "a-x-1.log", "a-1.log.old", "b-1.log"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        remove(dir.path(), "a-", "-1.log").unwrap();
        let left = shell.read_dir(dir.path()).unwrap();
        let left: Vec<_> = left.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(left, ["a-1.log.old", "b-1.log"]);
    }
}
