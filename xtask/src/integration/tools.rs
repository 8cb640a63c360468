// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tools root: what the guests run beside our own programs, out of Debian packages that are only unpacked; and the
//! programs that this machine needs to make images, from there if it has none itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use xshell::Shell;

use super::image;
use crate::debian::{self, Unpacked};
use crate::workspace;

/// Changes whenever the list does, so that an old tree is made anew.
const FORMAT: &str = "1";
const SUITE: &str = "trixie";

/// What the suites and the guests call, and what makes images.
const PACKAGES: [&str; 23] = [
    "base-files",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "diffutils",
    "e2fsprogs",
    "erofs-utils",
    "findutils",
    "fuse-overlayfs",
    "fuse3",
    "grep",
    "gzip",
    "iproute2",
    "kmod",
    "mount",
    "procps",
    "sed",
    "squashfs-tools",
    "strace",
    "util-linux",
    "xfsprogs",
    "xz-utils",
];

/// The unpacked tools.
pub(crate) struct Tools {
    unpacked: Unpacked,
    /// The same as an image.
    pub(crate) image: PathBuf,
}

impl Tools {
    /// Finds the tools, or fetches them.
    pub(crate) fn prepare(base: &Path) -> Result<Self> {
        let dir = base.join("tools");
        let tools = Self {
            unpacked: Unpacked::at(&dir.join("root")),
            image: dir.join("tools.img"),
        };
        let stamp = dir.join("stamp");
        if fs::read_to_string(&stamp).is_ok_and(|text| text == FORMAT) {
            return Ok(tools);
        }
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        eprintln!("tools: downloading what the guests run");
        let apt = dir.join("apt");
        let archives = debian::with_archive(&apt, SUITE, "the tools", |archive| {
            archive.with_dependencies(&PACKAGES)
        })?;
        Unpacked::make(&tools.unpacked.root, &archives)?;
        image::squashfs(&tools, &tools.unpacked.root, &tools.image)?;
        fs::write(&stamp, FORMAT).with_context(|| stamp.display().to_string())?;
        Shell::new()?.remove_path(&apt)?;
        Ok(tools)
    }

    /// Prepares a run of a program: this machine's, or the unpacked one.
    pub(crate) fn program(&self, name: &str) -> Result<Command> {
        match workspace::program(name) {
            Some(path) => Ok(Command::new(path)),
            None => self.unpacked.program(name),
        }
    }
}
