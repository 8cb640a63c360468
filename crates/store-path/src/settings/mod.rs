// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the settings of a store URL come to: typed, with their defaults filled in.

mod from_reference;
mod value;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::reference::{StoreReference, UrlWarning};
use crate::store_dir::StoreDir;

/// What the environment says, for settings that a URL does not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The logical store directory: `NIX_STORE_DIR`, else `NIX_STORE`.
    pub store_dir: StoreDir,
    /// The state directory of stores without a `root`: `NIX_STATE_DIR`.
    pub state_dir: PathBuf,
    /// The log directory of stores without a `root`: `NIX_LOG_DIR`.
    pub log_dir: PathBuf,
    /// The socket of the default daemon: `NIX_DAEMON_SOCKET_PATH`.
    pub daemon_socket: Option<PathBuf>,
}

impl Default for Defaults {
    /// Returns what Nix uses when the environment says nothing.
    fn default() -> Self {
        Self {
            store_dir: StoreDir::default(),
            state_dir: PathBuf::from("/nix/var/nix"),
            log_dir: PathBuf::from("/nix/var/log/nix"),
            daemon_socket: None,
        }
    }
}

/// Settings that every kind of store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonSettings {
    /// `path-info-cache-size`: how many answers are kept in memory.
    pub path_info_cache_size: u64,
    /// `trusted`: as a source of objects, no signatures are asked for.
    pub trusted: bool,
    /// `priority`: as a source of objects, lower is asked first.
    pub priority: i64,
    /// `want-mass-query`: as a source of objects, it may be asked for many paths at once.
    pub want_mass_query: bool,
    /// `system-features`: what its builders can do; `None` if not given.
    pub system_features: Option<BTreeSet<String>>,
}

/// The settings of a local store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSettings {
    /// `store`: the logical store directory.
    pub store_dir: StoreDir,
    /// `root`: the directory below which everything else is by default.
    pub root: Option<PathBuf>,
    /// `state`: the directory of the database, the roots and the locks.
    pub state_dir: PathBuf,
    /// `log`: the directory of build logs.
    pub log_dir: PathBuf,
    /// `real`: the physical store directory. With a `root` it is `<root>/nix/store` whatever `store` says.
    pub real_dir: PathBuf,
    /// `read-only`: nothing may be written, not even a lock.
    pub read_only: bool,
    /// `require-sigs`: objects from outside need a signature; `None` if not given, which means yes.
    pub require_sigs: Option<bool>,
    /// `build-dir`: where builds are run; `None` if not given.
    pub build_dir: Option<PathBuf>,
    /// `ignore-gc-delete-failure`: garbage that cannot be deleted is left.
    pub ignore_gc_delete_failure: bool,
    /// `use-roots-daemon`: the roots are asked of a daemon.
    pub use_roots_daemon: bool,
    /// The settings of every store.
    pub common: CommonSettings,
}

/// The settings of an overlay store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaySettings {
    /// The settings it shares with a local store. Its `real_dir` is the mount point.
    pub local: LocalSettings,
    /// `lower-store`: the store below.
    pub lower_store: StoreReference,
    /// `upper-layer`: the directory that is written to.
    pub upper_layer: Option<PathBuf>,
    /// `check-mount`: the mount is verified before anything is done.
    pub check_mount: bool,
    /// `remount-hook`: a program that remounts the store.
    pub remount_hook: Option<PathBuf>,
    /// Whether `root` or `state` is given. If not, `state_dir` is that of the whole machine, and with it
    /// possibly the very one that the lower store uses.
    pub explicit_state: bool,
}

impl OverlaySettings {
    /// Returns the upper layer, which an overlay store needs for everything but looking up metadata.
    ///
    /// # Errors
    /// If the URL does not give it.
    pub fn require_upper_layer(&self) -> Result<&Path> {
        self.upper_layer.as_deref().ok_or(Error::MissingSetting {
            key: "upper-layer",
            expected: "the absolute path of the OverlayFS upper directory",
        })
    }
}

/// The settings of a daemon's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSettings {
    /// The socket that the daemon listens on.
    pub socket: PathBuf,
    /// `store`: the logical store directory.
    pub store_dir: StoreDir,
    /// `root`: the directory below which everything else is by default.
    pub root: Option<PathBuf>,
    /// `state`: the directory of the roots.
    pub state_dir: PathBuf,
    /// `log`: the directory of build logs.
    pub log_dir: PathBuf,
    /// `real`: the physical store directory, as this machine sees it.
    pub real_dir: PathBuf,
    /// `max-connections`: how many connections are opened at most.
    pub max_connections: u32,
    /// `max-connection-age`: how long one is used, in seconds.
    pub max_connection_age: u32,
    /// The settings of every store.
    pub common: CommonSettings,
}

/// The settings of whichever store turns out to be there. Which one it is cannot be told without looking.
///
/// Nix takes the local store if its state directory can be read and written, else the daemon if its socket
/// exists, else the local store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoSettings {
    /// The settings if it is the local store.
    pub local: LocalSettings,
    /// The settings if it is a daemon's.
    pub daemon: DaemonSettings,
}

/// The settings of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// Of whichever store is there.
    Auto(Box<AutoSettings>),
    /// Of a local store.
    Local(LocalSettings),
    /// Of a daemon's store.
    Daemon(DaemonSettings),
    /// Of an overlay store.
    Overlay(Box<OverlaySettings>),
}

impl StoreSettings {
    /// Returns the logical store directory.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        match self {
            Self::Auto(auto) => &auto.local.store_dir,
            Self::Local(local) => &local.store_dir,
            Self::Daemon(daemon) => &daemon.store_dir,
            Self::Overlay(overlay) => &overlay.local.store_dir,
        }
    }

    /// Returns the physical store directory.
    #[must_use]
    pub fn real_dir(&self) -> &Path {
        match self {
            Self::Auto(auto) => &auto.local.real_dir,
            Self::Local(local) => &local.real_dir,
            Self::Daemon(daemon) => &daemon.real_dir,
            Self::Overlay(overlay) => &overlay.local.real_dir,
        }
    }
}

impl StoreReference {
    /// Reads the settings, with defaults for those that are not given. A setting of another kind of store is
    /// reported, and has no effect.
    ///
    /// # Errors
    /// If a value is not of its setting's type, or the kind of store is not supported, here or as a lower
    /// store.
    ///
    /// # Deviation
    /// As Nix 2.35 and newer in two points that changed: an empty `remount-hook` is unset, and the default
    /// socket of a daemon is below the store's own `state` directory. No experimental feature is asked for.
    pub fn settings(&self, defaults: &Defaults) -> Result<(StoreSettings, Vec<UrlWarning>)> {
        from_reference::settings(self, defaults)
    }
}
