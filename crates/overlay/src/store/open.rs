// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening a store for writing.

use std::path::Path;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use superpose_metadata::{Database, OpenDatabase};
use superpose_mount_check::VerifiedMount;
use superpose_store_path::TrustedKeys;

use super::{Below, MountProof, Protection, RealDir, Store};
use crate::crash::CrashPoints;
use crate::flock::LockWait;
use crate::gc_lock::CollectorLock;
use crate::journal::{self, State};
use crate::layout::{self, Layout, LocalLayout, OverlayLayout};
use crate::marks;
use crate::mounting::{HOOK_TIME_LIMIT, RemountHook};
use crate::state_dir::{OWN, StateDir};
use crate::upper_layer::UpperLayer;
use crate::view::StoreView;
use crate::watch::Watch;
use crate::{Error, Result};

/// How many bytes of an object that arrives are held in memory. Nix's `nar-buffer-size` is the same.
const ARRIVING: usize = 32 << 20;

/// Whether what is added survives a power cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Objects are on the disk before their rows are written, and the rows before the call returns. The number of
    /// syncs does not depend on the number of objects.
    ///
    /// # Deviation
    /// Nix does not sync objects unless `fsync-store-paths` is set: after a power cut it may have valid paths whose
    /// files are empty.
    #[default]
    Synced,
    /// The kernel writes when it likes, as with Nix's defaults.
    Unsynced,
}

/// What becomes of objects without rows that a process which was killed may have left, when a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Leftovers {
    /// They are removed: nobody has registered them, and nobody is about to.
    #[default]
    Remove,
    /// They stay, but for what is certainly its own: somebody may have put them there by hand, to be registered now.
    KeepObjects,
}

/// How a store is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Whether what is added survives a power cut.
    pub durability: Durability,
    /// How long to wait for a lock or a busy database; without a limit a lock is waited for as long as it takes, as in Nix, and a
    /// database an hour.
    pub wait_limit: Option<Duration>,
    /// How long a remount hook may run.
    pub hook_limit: Duration,
    /// How many bytes of an object that arrives are held in memory, so that one that is valid already is not written at all.
    /// What is larger is written first, under a scratch name.
    pub arriving_memory: usize,
    /// Who sees how far long work has come, and may stop it.
    pub watch: Watch,
    /// Whose signatures count.
    pub trusted_keys: TrustedKeys,
    /// What becomes of objects without rows that a process which was killed may have left.
    pub leftovers: Leftovers,
    /// Where a test kills the process.
    pub crash_points: CrashPoints,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            durability: Durability::default(),
            wait_limit: None,
            hook_limit: HOOK_TIME_LIMIT,
            arriving_memory: ARRIVING,
            watch: Watch::default(),
            trusted_keys: TrustedKeys::default(),
            leftovers: Leftovers::default(),
            crash_points: CrashPoints::default(),
        }
    }
}

impl OpenOptions {
    /// How long locks are waited for.
    #[must_use]
    pub fn wait(&self) -> LockWait {
        self.wait_limit.map_or(LockWait::Forever, LockWait::AtMost)
    }
}

impl Store {
    /// Opens a store for writing: verifies the mount of an overlay store, creates what is missing of the state
    /// directory, and does the rest of what an interrupted process had begun.
    ///
    /// What it costs does not depend on how many objects there are.
    ///
    /// # Errors
    /// A store that is read-only, has no directory here, is not mounted as it should be, or whose database cannot be
    /// used. Nothing is created before the mount is verified.
    pub fn open(layout: Layout, options: OpenOptions) -> Result<Self> {
        match layout {
            Layout::Local(local) => Self::open_local(local, options),
            Layout::Daemon(daemon) => Err(Error::DaemonStore {
                url: daemon.reference.to_string(),
            }),
            Layout::Overlay(overlay) => Self::open_overlay(MountProof::obtain(overlay)?, options),
        }
    }

    /// Opens a local store for writing; the store directory is created when it is missing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_local(layout: LocalLayout, options: OpenOptions) -> Result<Self> {
        refuse_read_only(&Layout::Local(layout.clone()))?;
        let path = &layout.settings.real_dir;
        create_with_parents(path)?;
        let real = RealDir {
            fd: layout::open_store_directory(path)?,
            path: path.clone(),
        };
        // Nix expects its hard-link farm in every local store.
        create_directory(&path.join(".links"))?;
        Self::assemble(Layout::Local(layout), real, None, options)
    }

    /// Opens an overlay store for writing. The proof of the mount is what makes it possible.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_overlay(mount: MountProof, options: OpenOptions) -> Result<Self> {
        let MountProof { layout, verified } = mount;
        refuse_read_only(&Layout::Overlay(layout.clone()))?;
        let named = layout::open_store_directory(layout.merged())?;
        let (real, upper, lower_dirs) = open_layers(&layout, verified.as_deref(), named)?;
        let real = RealDir {
            fd: real,
            path: layout.merged().to_path_buf(),
        };
        let lower = StoreView::open(&layout.lower)?;
        let attributes = verified
            .as_ref()
            .and_then(|proof| marks::kind_of(proof.report().mount.as_ref()?));
        let below = Below {
            attributes,
            lower,
            upper: UpperLayer::new(upper, &layout.upper_layer),
            lower_dirs,
            hook: layout
                .remount_hook
                .as_ref()
                .map(|hook| RemountHook::new(hook).with_time_limit(options.hook_limit)),
        };
        Self::assemble(Layout::Overlay(layout), real, Some(below), options)
    }

    fn assemble(layout: Layout, real: RealDir, below: Option<Below>, options: OpenOptions) -> Result<Self> {
        let settings = layout.settings();
        create_with_parents(&settings.state_dir)?;
        let state = StateDir::open(&settings.state_dir)?;
        let mut database = OpenDatabase::read_write(state.db_path(), settings.store_dir.clone());
        if let Some(limit) = options.wait_limit {
            database.busy_limit = limit;
        }
        let database = Database::open(&database)?;
        let temp_roots = Protection::new(&state, &settings.store_dir);
        let mut store = Store {
            layout,
            options,
            real,
            state,
            database,
            temp_roots,
            below,
        };
        store.recover()?;
        Ok(store)
    }

    /// Takes the lock of the garbage collection; says so when it has to wait.
    pub(super) fn collector_lock(&self) -> Result<CollectorLock> {
        CollectorLock::acquire(&self.state, self.options.wait(), &mut |lock| {
            tracing::info!(lock = %lock.display(), "waiting for a garbage collection to end");
        })
    }
}

/// Whether a removal was interrupted, or a remount is owed, in the store of this state directory.
///
/// # Errors
/// If the journal is damaged or cannot be read.
pub fn is_interrupted(state_dir: &Path) -> Result<bool> {
    Ok(matches!(
        journal::Journal::peek(&state_dir.join(OWN))?,
        State::Interrupted(_)
    ))
}

/// The merged view, the upper layer and the lower directories, held open.
///
/// With a verified mount they are opened by way of the proof: exactly the directories that were examined, whatever
/// their paths lead to meanwhile.
fn open_layers(
    layout: &OverlayLayout,
    verified: Option<&VerifiedMount>,
    named: OwnedFd,
) -> Result<(OwnedFd, OwnedFd, Vec<OwnedFd>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match verified {
        Some(proof) => {
            let reopen = |fd, path: &Path| {
                fs::openat(fd, ".", flags, Mode::empty())
                    .map_err(|source| Error::io("open the layer", path, source))
            };
            let lower = proof
                .lower()
                .map(|fd| reopen(fd, layout.merged()))
                .collect::<Result<_>>()?;
            Ok((
                reopen(proof.mount_point(), layout.merged())?,
                reopen(proof.upper(), &layout.upper_layer)?,
                lower,
            ))
        }
        None => {
            let open = |path: &Path| {
                fs::open(path, flags, Mode::empty())
                    .map_err(|source| Error::io("open the layer", path, source))
            };
            let lower = layout
                .lower_layers()
                .iter()
                .map(|path| open(path))
                .collect::<Result<_>>()?;
            Ok((named, open(&layout.upper_layer)?, lower))
        }
    }
}

fn refuse_read_only(layout: &Layout) -> Result<()> {
    if layout.settings().read_only {
        return Err(Error::ReadOnlyStore {
            url: layout.reference().to_string(),
        });
    }
    Ok(())
}

fn create_with_parents(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .collect();
    missing.into_iter().rev().try_for_each(create_directory)
}

fn create_directory(path: &Path) -> Result<()> {
    match fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(source) => Err(Error::io("create the directory", path, source)),
    }
}
