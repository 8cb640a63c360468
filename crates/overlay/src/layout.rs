// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the parts of a store are: a store URL resolved to directories, without opening anything.

use std::path::{Path, PathBuf};

use rustix::fs::{self, Access as Permission, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use superpose_mount_check::{Access, Expected, Options, Report};
use superpose_store_path::{
    AutoSettings, DaemonSettings, Defaults, LocalSettings, OverlaySettings, StoreDir, StoreReference,
    StoreSettings, UrlWarning,
};

use crate::{Error, Result};

/// A chain of overlay stores longer than this is a mistake (or a URL that means harm): each link is a layer of the
/// mount, and every one costs each lookup.
const MAX_NESTING: usize = 32;

/// A store URL resolved to directories.
#[derive(Debug, Clone)]
pub enum Layout {
    /// A local store.
    Local(LocalLayout),
    /// A daemon's store.
    Daemon(DaemonLayout),
    /// An overlay store.
    Overlay(OverlayLayout),
}

/// The parts of a local store.
#[derive(Debug, Clone)]
pub struct LocalLayout {
    /// The URL, for messages.
    pub reference: StoreReference,
    /// Its settings.
    pub settings: LocalSettings,
}

/// The parts of a daemon's store: its socket, and the directories as this machine sees them.
#[derive(Debug, Clone)]
pub struct DaemonLayout {
    /// The URL, for messages.
    pub reference: StoreReference,
    /// The socket that the daemon listens on.
    pub socket: PathBuf,
    /// How many connections large batches may be spread over.
    pub max_connections: u32,
    /// Where its parts are. Objects are read in `real_dir`; everything else is the daemon's own.
    pub settings: LocalSettings,
}

/// The parts of an overlay store.
#[derive(Debug, Clone)]
pub struct OverlayLayout {
    /// The URL, for messages.
    pub reference: StoreReference,
    /// Settings of the upper part; `real_dir` is the mount point, the merged view.
    pub settings: LocalSettings,
    /// The OverlayFS upper directory.
    pub upper_layer: PathBuf,
    /// Whether the mount has to be verified.
    pub check_mount: bool,
    /// A program to call instead of the built-in remount.
    pub remount_hook: Option<PathBuf>,
    /// The store below.
    pub lower: Box<Layout>,
}

impl Layout {
    /// Resolves a store URL and, for an overlay store, those of the stores below it.
    ///
    /// Only texts are looked at: whether the directories exist and are mounted is asked when they are used. `auto` alone
    /// depends on what is there: it is the local store if its state directory can be read and written, else a daemon's if
    /// there is a socket, else the local one.
    ///
    /// # Errors
    /// A setting that is missing or has a value that cannot be used; a store of a kind that has no directory here;
    /// an overlay that shares its state directory or store directory with a store below it; too deep a chain.
    pub fn resolve(reference: &StoreReference, defaults: &Defaults) -> Result<(Self, Vec<UrlWarning>)> {
        let mut warnings = Vec::new();
        let layout = Self::resolve_warning(reference, defaults, &mut warnings)?;
        Ok((layout, warnings))
    }

    /// As [`Layout::resolve`], with what is odd about the URL told also when it is refused: a setting that is missing may be
    /// one whose name was written wrongly.
    ///
    /// # Errors
    /// As [`Layout::resolve`].
    pub fn resolve_warning(
        reference: &StoreReference,
        defaults: &Defaults,
        warnings: &mut Vec<UrlWarning>,
    ) -> Result<Self> {
        Self::resolve_at(reference, defaults, 0, warnings)
    }

    fn resolve_at(
        reference: &StoreReference,
        defaults: &Defaults,
        depth: usize,
        warnings: &mut Vec<UrlWarning>,
    ) -> Result<Self> {
        if depth > MAX_NESTING {
            return Err(Error::TooDeep {
                url: reference.to_string(),
                limit: MAX_NESTING,
            });
        }
        let (settings, more) = reference.settings(defaults)?;
        warnings.extend(more);
        match settings {
            StoreSettings::Local(settings) => Ok(Layout::Local(LocalLayout {
                reference: reference.clone(),
                settings,
            })),
            StoreSettings::Auto(auto) => Ok(whichever_is_there(reference, *auto)),
            StoreSettings::Overlay(overlay) => {
                OverlayLayout::resolve_at(reference, *overlay, defaults, depth, warnings).map(Layout::Overlay)
            }
            StoreSettings::Daemon(daemon) => Ok(Layout::Daemon(DaemonLayout::new(reference, daemon))),
        }
    }

    /// The URL that this was resolved from.
    #[must_use]
    pub fn reference(&self) -> &StoreReference {
        match self {
            Layout::Local(local) => &local.reference,
            Layout::Daemon(daemon) => &daemon.reference,
            Layout::Overlay(overlay) => &overlay.reference,
        }
    }

    /// The settings that every store has; for an overlay store those of its upper part.
    #[must_use]
    pub fn settings(&self) -> &LocalSettings {
        match self {
            Layout::Local(local) => &local.settings,
            Layout::Daemon(daemon) => &daemon.settings,
            Layout::Overlay(overlay) => &overlay.settings,
        }
    }

    /// The logical store directory.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        &self.settings().store_dir
    }

    /// The directories that hold the objects, top-most first, with every overlay below flattened into its layers.
    ///
    /// One mount of all of them needs no mounts below it, and the kernel stacks no more than two overlays.
    #[must_use]
    pub fn layers(&self) -> Vec<PathBuf> {
        let mut layers = Vec::new();
        let mut layout = self;
        loop {
            match layout {
                Layout::Local(LocalLayout { settings, .. })
                | Layout::Daemon(DaemonLayout { settings, .. }) => {
                    layers.push(settings.real_dir.clone());
                    return layers;
                }
                Layout::Overlay(overlay) => {
                    layers.push(overlay.upper_layer.clone());
                    layout = &overlay.lower;
                }
            }
        }
    }
}

/// Decides on `auto` as Nix does.
fn whichever_is_there(reference: &StoreReference, auto: AutoSettings) -> Layout {
    let may_write = Permission::READ_OK | Permission::WRITE_OK;
    let is_local =
        fs::access(&auto.local.state_dir, may_write).is_ok() || fs::stat(&auto.daemon.socket).is_err();
    if is_local {
        return Layout::Local(LocalLayout {
            reference: reference.clone(),
            settings: auto.local,
        });
    }
    Layout::Daemon(DaemonLayout::new(reference, auto.daemon))
}

impl DaemonLayout {
    fn new(reference: &StoreReference, daemon: DaemonSettings) -> Self {
        Self {
            reference: reference.clone(),
            socket: daemon.socket,
            max_connections: daemon.max_connections,
            settings: LocalSettings {
                store_dir: daemon.store_dir,
                root: daemon.root,
                state_dir: daemon.state_dir,
                log_dir: daemon.log_dir,
                real_dir: daemon.real_dir,
                read_only: true,
                require_sigs: None,
                build_dir: None,
                ignore_gc_delete_failure: false,
                use_roots_daemon: false,
                common: daemon.common,
            },
        }
    }
}

impl OverlayLayout {
    fn resolve_at(
        reference: &StoreReference,
        overlay: OverlaySettings,
        defaults: &Defaults,
        depth: usize,
        warnings: &mut Vec<UrlWarning>,
    ) -> Result<Self> {
        let url = || reference.to_string();
        if !overlay.explicit_state {
            return Err(Error::NoStateOfItsOwn {
                url: url(),
                state: overlay.local.state_dir,
            });
        }
        let Some(upper_layer) = overlay.upper_layer else {
            return Err(Error::NoUpperLayer { url: url() });
        };
        let lower = Layout::resolve_at(&overlay.lower_store, defaults, depth + 1, warnings)?;
        let layout = OverlayLayout {
            reference: reference.clone(),
            settings: overlay.local,
            upper_layer,
            check_mount: overlay.check_mount,
            remount_hook: overlay.remount_hook,
            lower: Box::new(lower),
        };
        layout.refuse_shared_parts()?;
        Ok(layout)
    }

    /// The directories below the upper layer, top-most first.
    #[must_use]
    pub fn lower_layers(&self) -> Vec<PathBuf> {
        self.lower.layers()
    }

    /// The merged view: the mount point.
    #[must_use]
    pub fn merged(&self) -> &Path {
        &self.settings.real_dir
    }

    /// Refuses parts that two stores of the chain would share.
    fn refuse_shared_parts(&self) -> Result<()> {
        let mut below = self.lower.as_ref();
        loop {
            let lower = below.settings();
            if lower.store_dir != self.settings.store_dir {
                return Err(Error::StoreDirsDiffer {
                    upper: self.settings.store_dir.clone(),
                    lower: lower.store_dir.clone(),
                    url: below.reference().to_string(),
                });
            }
            if same_directory(&lower.state_dir, &self.settings.state_dir) {
                return Err(Error::SharedDirectory {
                    what: "state directory",
                    path: self.settings.state_dir.clone(),
                    url: self.reference.to_string(),
                });
            }
            for (what, path) in [
                ("store directory", &self.settings.real_dir),
                ("upper layer", &self.upper_layer),
            ] {
                if same_directory(&lower.real_dir, path) {
                    return Err(Error::SharedDirectory {
                        what,
                        path: path.clone(),
                        url: self.reference.to_string(),
                    });
                }
            }
            match below {
                Layout::Local(_) | Layout::Daemon(_) => break,
                Layout::Overlay(overlay) => {
                    if same_directory(&overlay.upper_layer, &self.upper_layer) {
                        return Err(Error::SharedDirectory {
                            what: "upper layer",
                            path: self.upper_layer.clone(),
                            url: self.reference.to_string(),
                        });
                    }
                    below = &overlay.lower;
                }
            }
        }
        if same_directory(&self.settings.real_dir, &self.upper_layer)
            && self.settings.real_dir == self.upper_layer
        {
            return Err(Error::SharedDirectory {
                what: "upper layer and merged store directory",
                path: self.upper_layer.clone(),
                url: self.reference.to_string(),
            });
        }
        Ok(())
    }

    /// Examines the mount and says whether it is the one that this layout needs, for reading or for writing.
    ///
    /// Both mounts of a nested overlay are right: the flattened one that [`crate::mounting`] makes, and one whose
    /// only lower directory is the merged view of the store below, as stock Nix wants it.
    ///
    /// # Errors
    /// If the mount table cannot be read. A wrong or missing mount is in the report.
    pub fn check(&self, access: Access) -> Result<Report> {
        self.check_with(Options {
            access,
            ..Options::default()
        })
    }

    /// As [`OverlayLayout::check`], with all options of the check.
    pub(crate) fn check_with(&self, options: Options) -> Result<Report> {
        let expecting = |lower| {
            let expected = Expected {
                mount_point: self.merged(),
                lower,
                upper: &self.upper_layer,
            };
            superpose_mount_check::check_with(&expected, options)
        };
        let flat = expecting(self.lower_layers())?;
        if flat.is_as_expected() {
            return Ok(flat);
        }
        if let Layout::Overlay(below) = self.lower.as_ref() {
            let stacked = expecting(vec![below.merged().to_path_buf()])?;
            if stacked.is_as_expected() {
                return Ok(stacked);
            }
        }
        Ok(flat)
    }
}

/// Whether two paths name one directory: by identity where both exist, else by text.
fn same_directory(one: &Path, other: &Path) -> bool {
    if one == other {
        return true;
    }
    match (fs::stat(one), fs::stat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Opens a store directory: neither it nor a directory above it may be a symbolic link.
///
/// Nix refuses such a store too, since the meaning of its paths would change with the link. A link is named in the
/// error.
pub(crate) fn open_store_directory(path: &Path) -> Result<rustix::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match fs::openat2(fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(fd) => Ok(fd),
        Err(Errno::LOOP) => {
            let link = path
                .ancestors()
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .find(|ancestor| ancestor.is_symlink());
            Err(Error::SymlinkedStore {
                path: path.to_path_buf(),
                link: link.unwrap_or(path).to_path_buf(),
            })
        }
        Err(source) => Err(Error::io("open the store directory", path, source)),
    }
}
