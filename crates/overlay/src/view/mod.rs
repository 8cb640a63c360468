// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store that is only read: nothing of it is created, locked or changed.

mod export;
mod merged;

use std::cell::OnceCell;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use superpose_metadata::{
    ArchiveInfo, Closure, DaemonSource, Database, Edition, MemorySource, MetadataSource, OpenDaemon,
    OpenDatabase, Outputs, PathInfo, Prune, Realisation, RealisationKey, Visit,
};
use superpose_mount_check::Access;
use superpose_store_path::{HashPart, StoreDir, StorePath};

pub use export::Exported;
pub use merged::Merged;

use crate::faults::{self, Fault};
use crate::layout::{self, Layout};
use crate::roots::{Root, Stale, lasting};
use crate::state_dir::StateDir;
use crate::store::verify_mount;
use crate::survey::{Entries, Survey};
use crate::upper_layer::{Layer, UpperLayer};
use crate::usage::{self, Usage};
use crate::{Error, Result};

/// The metadata of a store and the place of its objects, read only.
///
/// This is what a store below an overlay is, and what a question needs; nothing is created for either.
#[derive(Debug)]
pub struct StoreView {
    layout: Layout,
    /// Empty only in a view below another one that has not needed it yet: most questions are answered above, and a
    /// database that is not opened costs nothing.
    parts: OnceCell<Parts>,
}

#[derive(Debug)]
enum Parts {
    Local(Box<Database>),
    Daemon(Box<DaemonSource>),
    Overlay {
        upper: Upper,
        layer: Option<UpperLayer>,
        lower: Box<StoreView>,
    },
}

/// The upper database, or its stand-in before the first write makes one.
#[derive(Debug)]
enum Upper {
    Database(Box<Database>),
    Nothing(MemorySource),
}

impl Upper {
    fn source(&self) -> &dyn MetadataSource {
        match self {
            Upper::Database(database) => database.as_ref(),
            Upper::Nothing(nothing) => nothing,
        }
    }
}

impl Parts {
    fn open(layout: &Layout) -> Result<Self> {
        let settings = layout.settings();
        let open = match faults::is_on(Fault::LowerWritable) {
            false => OpenDatabase::read_only,
            true => OpenDatabase::read_write,
        };
        let options = open(settings.state_dir.join("db"), settings.store_dir.clone());
        let overlay = match layout {
            Layout::Local(_) => return Ok(Parts::Local(Box::new(Database::open(&options)?))),
            Layout::Daemon(daemon) => {
                let mut options = OpenDaemon::new(&daemon.socket, settings.store_dir.clone());
                options.connections = daemon.max_connections as usize;
                return Ok(Parts::Daemon(Box::new(DaemonSource::new(options))));
            }
            Layout::Overlay(overlay) => overlay,
        };
        let upper = match Database::open(&options) {
            Ok(database) => Upper::Database(Box::new(database)),
            Err(
                superpose_metadata::Error::MissingDatabase { .. }
                | superpose_metadata::Error::MissingSchema { .. },
            ) => Upper::Nothing(MemorySource::new(settings.store_dir.clone())),
            Err(error) => return Err(error.into()),
        };
        let layer = match UpperLayer::open(&overlay.upper_layer) {
            Ok(layer) => Some(layer),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Parts::Overlay {
            upper,
            layer,
            lower: Box::new(StoreView::unopened(&overlay.lower)),
        })
    }
}

impl StoreView {
    /// Opens a store for reading, without asking whether it is mounted.
    ///
    /// # Errors
    /// If the database is missing or cannot be read. An overlay store whose upper database was never made has an
    /// empty one. The store below is opened by the first question that needs it, which then fails if it cannot be; and so
    /// is the connection to a daemon.
    pub fn open(layout: &Layout) -> Result<Self> {
        let view = Self::unopened(layout);
        view.parts()?;
        Ok(view)
    }

    fn unopened(layout: &Layout) -> Self {
        StoreView {
            layout: layout.clone(),
            parts: OnceCell::new(),
        }
    }

    /// Changes how much memory pages of each database that is open may take, in KiB. One that changes is opened anew, with
    /// what it takes by default.
    ///
    /// # Errors
    /// If SQLite refuses.
    pub fn set_cache_size(&self, kibibytes: u32) -> Result<()> {
        match self.parts.get() {
            None | Some(Parts::Daemon(_)) => {}
            Some(Parts::Local(database)) => database.set_cache_size(kibibytes)?,
            Some(Parts::Overlay { upper, lower, .. }) => {
                if let Upper::Database(database) = upper {
                    database.set_cache_size(kibibytes)?;
                }
                lower.set_cache_size(kibibytes)?;
            }
        }
        Ok(())
    }

    /// The parts, opened now if they were not.
    fn parts(&self) -> Result<&Parts> {
        if let Some(parts) = self.parts.get() {
            return Ok(parts);
        }
        let parts = Parts::open(&self.layout)?;
        Ok(self.parts.get_or_init(|| parts))
    }

    /// The parts of a view that was handed out, which is open.
    fn open_parts(&self) -> &Parts {
        self.parts.get().expect("a view is opened before anybody gets it")
    }

    /// Opens a store for reading and verifies the mount if it is an overlay store, so that what is said to be valid
    /// is also there to be used.
    ///
    /// # Errors
    /// As [`StoreView::open`]; and if the mount is not the expected one.
    pub fn open_verified(layout: &Layout) -> Result<Self> {
        if let Layout::Overlay(overlay) = layout
            && overlay.check_mount
        {
            verify_mount(overlay, Access::ReadOnly)?;
        }
        Self::open(layout)
    }

    /// Where the parts of the store are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The directories that hold the objects, top-most first.
    #[must_use]
    pub fn layers(&self) -> Vec<PathBuf> {
        self.layout.layers()
    }

    /// The upper database of an overlay store, all of another one.
    #[must_use]
    pub fn upper_metadata(&self) -> &dyn MetadataSource {
        match self.open_parts() {
            Parts::Local(database) => database.as_ref(),
            Parts::Daemon(daemon) => daemon.as_ref(),
            Parts::Overlay { upper, .. } => upper.source(),
        }
    }

    /// The store below, if this is an overlay store.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn lower(&self) -> Result<Option<&StoreView>> {
        match self.open_parts() {
            Parts::Local(_) | Parts::Daemon(_) => Ok(None),
            Parts::Overlay { lower, .. } => {
                lower.parts()?;
                Ok(Some(lower))
            }
        }
    }

    /// Finds out whether every store of the chain can be asked: opens the databases, and connects to a daemon.
    ///
    /// # Errors
    /// If one of them cannot be.
    pub fn reach(&self) -> Result<()> {
        match self.parts()? {
            Parts::Local(_) => Ok(()),
            Parts::Daemon(daemon) => Ok(daemon.connect()?),
            Parts::Overlay { lower, .. } => lower.reach(),
        }
    }

    /// Opens the directory in which all objects of the store are.
    ///
    /// # Errors
    /// If there is none, or it is reached through a symbolic link.
    pub fn open_objects(&self) -> Result<OwnedFd> {
        layout::open_store_directory(&self.layout.settings().real_dir)
    }

    /// Says of each path which layer holds its object.
    ///
    /// # Errors
    /// If the upper layer cannot be read.
    pub fn locate(&self, paths: &[StorePath]) -> Result<Vec<Layer>> {
        match self.open_parts() {
            Parts::Local(_) | Parts::Daemon(_) => Ok(vec![Layer::Upper; paths.len()]),
            Parts::Overlay {
                layer: Some(layer), ..
            } => layer.locate(paths),
            Parts::Overlay { layer: None, .. } => Ok(vec![Layer::Lower; paths.len()]),
        }
    }

    /// Everything that keeps paths alive, but for temporary roots: permanent roots that lead to valid paths, and what
    /// running processes use. Nothing is removed, not even a root that leads nowhere. A daemon says itself what its roots
    /// are, and removes what it likes.
    ///
    /// # Errors
    /// If the state directory or `/proc` cannot be read, or the daemon not be asked.
    pub fn roots(&self) -> Result<Vec<Root>> {
        if let Parts::Daemon(daemon) = self.open_parts() {
            let roots = daemon.roots()?.into_iter().map(|root| Root {
                link: OsString::from_vec(root.link).into(),
                path: root.path,
            });
            let mut roots: Vec<Root> = roots.collect();
            roots.sort_unstable();
            return Ok(roots);
        }
        let settings = self.layout.settings();
        match StateDir::open_read_only(&settings.state_dir) {
            Ok(state) => {
                let physical: Vec<&Path> = match &self.layout {
                    Layout::Local(_) | Layout::Daemon(_) => vec![&settings.real_dir],
                    Layout::Overlay(overlay) => vec![&settings.real_dir, &overlay.upper_layer],
                };
                lasting::find(&state, self, &physical, Stale::Report)
            }
            // Nothing was ever written to this store.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What is physically in the upper layer: files and blocks, nothing of the lower store. For another store, all of
    /// it.
    ///
    /// # Errors
    /// If the directory cannot be walked.
    pub fn upper_usage(&self) -> Result<Usage> {
        let directory = match &self.layout {
            Layout::Local(_) | Layout::Daemon(_) => &self.layout.settings().real_dir,
            Layout::Overlay(overlay) => &overlay.upper_layer,
        };
        usage::measure(directory)
    }

    /// Compares the names in the upper layer (of another store: in its directory) with what is known of them. Nothing is
    /// walked into.
    ///
    /// # Errors
    /// If the layer or a database cannot be read.
    pub fn survey(&self) -> Result<Survey> {
        match self.open_parts() {
            Parts::Local(_) | Parts::Daemon(_) => {
                let path = &self.layout.settings().real_dir;
                let entries = match UpperLayer::open(path) {
                    Ok(layer) => Entries::read(layer.fd(), path)?,
                    Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                        Entries::default()
                    }
                    Err(error) => return Err(error),
                };
                Survey::of(&entries, self.upper_metadata(), None)
            }
            Parts::Overlay { upper, layer, lower } => {
                let entries = match layer {
                    Some(layer) => Entries::read(layer.fd(), layer.path())?,
                    None => Entries::default(),
                };
                Survey::of(&entries, upper.source(), Some(lower.as_ref()))
            }
        }
    }

    fn with<A>(&self, ask: impl FnOnce(&dyn MetadataSource) -> Answer<A>) -> Answer<A> {
        let parts = self.parts().map_err(|error| match error {
            Error::Metadata(error) => error,
            other => superpose_metadata::Error::caller(other),
        })?;
        match parts {
            Parts::Local(database) => ask(database.as_ref()),
            Parts::Daemon(daemon) => ask(daemon.as_ref()),
            Parts::Overlay { upper, lower, .. } => ask(&Merged {
                upper: upper.source(),
                lower: Some(lower.as_ref()),
            }),
        }
    }
}

type Answer<T> = superpose_metadata::Result<T>;

impl MetadataSource for StoreView {
    fn store_dir(&self) -> &StoreDir {
        self.layout.store_dir()
    }

    fn edition(&self) -> Answer<Option<Edition>> {
        self.with(|source| source.edition())
    }

    fn are_valid(&self, paths: &[StorePath]) -> Answer<Vec<bool>> {
        self.with(|source| source.are_valid(paths))
    }

    fn path_infos(&self, paths: &[StorePath]) -> Answer<Vec<Option<PathInfo>>> {
        self.with(|source| source.path_infos(paths))
    }

    fn archives(&self, paths: &[StorePath]) -> Answer<Vec<Option<ArchiveInfo>>> {
        self.with(|source| source.archives(paths))
    }

    fn closure(&self, roots: &[StorePath], direction: Closure) -> Answer<Vec<StorePath>> {
        self.with(|source| source.closure(roots, direction))
    }

    fn closure_infos(&self, roots: &[StorePath], prune: &mut Prune<'_>) -> Answer<Vec<PathInfo>> {
        self.with(|source| source.closure_infos(roots, prune))
    }

    fn referrers(&self, paths: &[StorePath]) -> Answer<Vec<Vec<StorePath>>> {
        self.with(|source| source.referrers(paths))
    }

    fn valid_derivers(&self, paths: &[StorePath]) -> Answer<Vec<Vec<StorePath>>> {
        self.with(|source| source.valid_derivers(paths))
    }

    fn derivation_outputs(&self, derivations: &[StorePath]) -> Answer<Vec<Option<Outputs>>> {
        self.with(|source| source.derivation_outputs(derivations))
    }

    fn path_from_hash_part(&self, parts: &[HashPart]) -> Answer<Vec<Option<StorePath>>> {
        self.with(|source| source.path_from_hash_part(parts))
    }

    fn realisations(&self, keys: &[RealisationKey]) -> Answer<Vec<Option<Realisation>>> {
        self.with(|source| source.realisations(keys))
    }

    fn realisations_of(&self, outputs: &[StorePath]) -> Answer<Vec<Realisation>> {
        self.with(|source| source.realisations_of(outputs))
    }

    fn for_each_valid_path(&self, visit: &mut Visit<'_>) -> Answer<()> {
        self.with(|source| source.for_each_valid_path(visit))
    }

    fn count(&self) -> Answer<u64> {
        self.with(|source| source.count())
    }
}
