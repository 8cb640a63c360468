// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which mount covers a directory, and what it is, without any expectation.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::covering::Covering;
use crate::error::Result;
use crate::mountinfo::MountInfo;
use crate::options::{LayerText, OverlayOptions};
use crate::quote;

/// The mount that covers a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountDescription {
    /// The directory that was asked about, all symbolic links resolved.
    pub path: PathBuf,
    /// What kind of file system it is.
    pub kind: MountKind,
    /// Is the directory itself the root of the mount (rather than somewhere below it)?
    pub is_mount_point: bool,
    /// Can nothing be written, be it for the mount or the file system?
    pub is_read_only: bool,
    /// The mount's line in the mount table; `None` when the mount is outside the reader's root directory.
    pub info: Option<MountInfo>,
    /// The layers, when it is an OverlayFS whose line is visible.
    pub overlay: Option<OverlayOptions>,
    /// Overlays mounted at this very directory that the covering mount hides, bottom first.
    pub hidden: Vec<MountInfo>,
}

/// The kind of file system that covers a directory, as far as layers are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountKind {
    /// The kernel's OverlayFS.
    Overlay,
    /// fuse-overlayfs: works alike, tells nobody its layers.
    FuseOverlay,
    /// Anything else.
    Other,
}

/// Describes the mount that covers a directory.
///
/// # Errors
/// When the directory cannot be opened or the kernel does not tell its mount.
pub fn describe(path: &Path) -> Result<MountDescription> {
    Ok(Covering::find(path)?.description)
}

impl fmt::Display for MountDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.is_read_only {
            "read-only"
        } else {
            "writable"
        };
        let Some(info) = &self.info else {
            return writeln!(f, "  mount: not listed in this process's mount table, {access}");
        };
        write!(
            f,
            "  mount: {} ({})",
            quote::path(info.mount_point_path()),
            quote::bytes(&info.fs_type)
        )?;
        writeln!(f, ", source {}, {access}", quote::bytes(&info.source))?;
        if info.root != b"/" {
            writeln!(f, "    part:  {} of the file system", quote::bytes(&info.root))?;
        }
        let Some(overlay) = &self.overlay else {
            return Ok(());
        };
        for layer in &overlay.lower {
            let name = if layer.data_only { "data: " } else { "lower:" };
            writeln!(f, "    {name} {}", quote::path(&layer.path))?;
        }
        for (name, layer) in [("upper:", &overlay.upper), ("work: ", &overlay.work)] {
            let text = layer
                .as_ref()
                .map_or_else(|| "none".to_owned(), LayerText::to_string);
            writeln!(f, "    {name} {text}")?;
        }
        if !overlay.features.is_empty() {
            let features: Vec<_> = overlay.features.iter().map(option_text).collect();
            writeln!(f, "    options: {}", features.join(","))?;
        }
        Ok(())
    }
}

impl fmt::Display for LayerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote::path(&self.path))
    }
}

fn option_text(option: &crate::mountinfo::MountOption) -> String {
    let text = |bytes: &[u8]| quote::bytes(bytes).trim_matches('`').to_owned();
    match &option.value {
        Some(value) => format!("{}={}", text(&option.key), text(value)),
        None => text(&option.key),
    }
}
