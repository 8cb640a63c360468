// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store that can be written: a local store, or an overlay store over a verified mount.

mod add;
mod behind;
mod build_log;
mod contents;
mod copy;
mod delete;
mod gc;
mod import;
mod intact;
mod layer;
mod open;
mod optimise;
mod parallel;
mod place;
mod protection;
mod recover;
mod register;
mod registration;
mod removal;
mod repair;
mod replay;
mod signatures;
mod trash;
mod unlink;
mod verify;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;
use superpose_metadata::{Database, MetadataSource};
use superpose_mount_check::{Access, Options, VerifiedMount, Warnings};
use superpose_store_path::{StoreDir, StorePath};

pub use add::{AddOptions, Added, Outcome, Source};
pub use copy::{Copied, CopyOptions, Recursion};
pub use delete::{DeleteOptions, Deleted, Liveness};
pub use gc::{CollectAction, CollectOptions, Collected};
pub(crate) use import::total_size;
pub use import::{Imported, NewObject, ObjectSource, ObjectStream};
pub use open::{Durability, Leftovers, OpenOptions, is_interrupted};
pub use optimise::{Duplicated, Effect, Kept, Modified, OptimiseOptions, Optimised, Reason, Skipped};
pub use protection::Protection;
pub use register::Registered;
pub use registration::{Presence, RegisterOptions};
pub use repair::{Obstacle, Repaired};
pub use signatures::{SignatureCheck, Untrusted};
pub use verify::{Contents, Fault, Note, VerifyOptions, VerifyReport};

use crate::faults;
use crate::layout::{Layout, OverlayLayout};
use crate::mounting::{self, OverlayAttributes, RemountHook};
use crate::state_dir::StateDir;
use crate::upper_layer::{Layer, UpperLayer};
use crate::view::{Merged, StoreView};
use crate::{Error, Result};

/// A store that can be written.
///
/// Holds the store's big lock shared for as long as it lives, as every process does that has a Nix store open.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    options: OpenOptions,
    /// R: the store directory; for an overlay store the merged view.
    real: RealDir,
    state: StateDir,
    database: Database,
    temp_roots: Arc<Protection>,
    /// What an overlay store has and a local store lacks.
    below: Option<Below>,
}

/// The parts of an overlay store that lie below its merged view.
#[derive(Debug)]
struct Below {
    lower: StoreView,
    upper: UpperLayer,
    /// The directories below the upper layer.
    lower_dirs: Vec<OwnedFd>,
    hook: Option<RemountHook>,
    /// In which attributes the mount keeps its notes, if it was examined.
    attributes: Option<OverlayAttributes>,
}

/// An overlay store whose mount may be trusted. Nothing but [`MountProof::obtain`] makes one.
#[derive(Debug)]
pub struct MountProof {
    layout: OverlayLayout,
    /// The examined directories; `None` with the setting `check-mount=false`.
    verified: Option<Box<VerifiedMount>>,
}

impl MountProof {
    /// Verifies the mount of an overlay store for writing, unless its URL says `check-mount=false`.
    ///
    /// # Errors
    /// If the mount is not the expected one or cannot be examined. Unmounted or mounted otherwise, additions would go
    /// to wherever the directory happens to be, and removals would hit objects of another store.
    pub fn obtain(layout: OverlayLayout) -> Result<Self> {
        let verified = if layout.check_mount && !faults::is_on(faults::Fault::MountUnchecked) {
            Some(Box::new(verify_mount(&layout, Access::ReadWrite)?))
        } else {
            None
        };
        Ok(MountProof { layout, verified })
    }
}

/// Examines a mount for reading or writing.
pub(crate) fn verify_mount(layout: &OverlayLayout, access: Access) -> Result<VerifiedMount> {
    let options = Options {
        access,
        warnings: Warnings::Leave,
        ..Options::default()
    };
    layout
        .check_with(options)?
        .into_proof()
        .map_err(|report| Error::WrongMount {
            mount_point: layout.merged().to_path_buf(),
            url: layout.reference.to_string(),
            report,
        })
}

/// The physical store directory, held open.
#[derive(Debug)]
struct RealDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl RealDir {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Below {
    /// Whether something of this name is in a layer below, be it an object or not.
    fn lies_below(&self, name: &OsStr) -> Result<bool> {
        Ok(self.kind_below(name)?.is_some())
    }

    /// What the top-most of them is that is in a layer below under this name.
    fn kind_below(&self, name: &OsStr) -> Result<Option<FileType>> {
        for (layer, dir) in self.lower_dirs.iter().enumerate() {
            match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => return Ok(Some(FileType::from_raw_mode(stat.st_mode))),
                Err(Errno::NOENT) => {}
                Err(source) => {
                    let path = self.lower.layers().get(layer).cloned().unwrap_or_default();
                    return Err(Error::io("examine", path.join(name), source));
                }
            }
        }
        Ok(None)
    }
}

impl Store {
    /// The logical store directory.
    #[must_use]
    pub fn dir(&self) -> &StoreDir {
        self.database.store_dir()
    }

    /// Where the parts of the store are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Changes how much memory pages of each of its databases may take, in KiB. At first that is
    /// [`DEFAULT_CACHE_SIZE`](superpose_metadata::DEFAULT_CACHE_SIZE).
    ///
    /// # Errors
    /// If SQLite refuses.
    pub fn set_cache_size(&self, kibibytes: u32) -> Result<()> {
        self.database.set_cache_size(kibibytes)?;
        match &self.below {
            Some(below) => below.lower.set_cache_size(kibibytes),
            None => Ok(()),
        }
    }

    /// The merged metadata: upper database first, then the lower store. Asking writes nothing.
    #[must_use]
    pub fn metadata(&self) -> Merged<'_> {
        Merged {
            upper: &self.database,
            lower: self
                .below
                .as_ref()
                .map(|below| &below.lower as &dyn MetadataSource),
        }
    }

    /// The metadata of the upper layer alone; for a local store all of it.
    #[must_use]
    pub fn upper_metadata(&self) -> &dyn MetadataSource {
        &self.database
    }

    /// Says of each path which layer holds its object.
    ///
    /// # Errors
    /// If the upper layer cannot be read.
    pub fn locate(&self, paths: &[StorePath]) -> Result<Vec<Layer>> {
        match &self.below {
            None => Ok(vec![Layer::Upper; paths.len()]),
            Some(below) => below.upper.locate(paths),
        }
    }

    /// Protects paths from every collector until this store is closed, or for as long as the user's own protection
    /// lasts: [`Store::protect_with`].
    ///
    /// To be called before asking whether they are valid: a path that was valid before it was protected may be gone.
    ///
    /// # Errors
    /// If the temporary roots of this process cannot be written, or a collector does not answer.
    pub fn add_temp_roots(&self, paths: &[StorePath]) -> Result<()> {
        self.temp_roots.add(paths, self.options.wait())
    }

    fn overlay(&self) -> Result<&Below> {
        self.below.as_ref().ok_or_else(|| Error::NoLayers {
            url: self.layout.reference().to_string(),
        })
    }

    /// Makes the mount fresh, with the user's hook if there is one.
    ///
    /// # Errors
    /// If the hook fails, or the kernel refuses. What was deleted stays deleted; the remount stays owed.
    pub fn refresh_mount(&self) -> Result<()> {
        match &self.overlay()?.hook {
            _ if faults::is_on(faults::Fault::NoRemount) => Ok(()),
            Some(hook) => hook.run(self.real.path()),
            None => mounting::refresh_directory(self.real.fd(), self.real.path()).map(drop),
        }
    }

    /// Refuses what would owe a remount that cannot be made. Whether it is permitted is only seen when it is made.
    fn require_refreshable(&self) -> Result<()> {
        match &self.overlay()?.hook {
            Some(_) => Ok(()),
            None => mounting::require_refreshable(self.real.fd(), self.real.path()),
        }
    }
}
