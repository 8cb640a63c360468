// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lower store with objects, an upper layer and their mount.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use superpose_overlay::metadata::MetadataSource;
use superpose_overlay::mounting::{Detach, MountPlan, OverlayAttributes, mount_overlay, unmount};
use superpose_overlay::store_path::{
    ContentMethod, Defaults, HashAlgorithm, Name, References, StorePath, StoreReference,
};
use superpose_overlay::{AddOptions, Layout, OpenOptions, Source, Store, StoreView};

/// The directories of the manual's example: `store-a` below, `store-b` above, `merged-store`.
pub(crate) struct Stage {
    pub(crate) base: tempfile::TempDir,
}

impl Stage {
    /// A lower store that `fill` fills, and an empty upper layer over it, mounted.
    pub(crate) fn over(fill: impl FnOnce(&mut Store)) -> Self {
        let stage = Self::unmounted(fill);
        stage.mount();
        stage
    }

    pub(crate) fn unmounted(fill: impl FnOnce(&mut Store)) -> Self {
        let stage = Stage {
            base: tempfile::tempdir().unwrap(),
        };
        fill(&mut stage.lower_store());
        for directory in ["store-b", "workdir", "merged-store/nix/store"] {
            fs::create_dir_all(stage.path(directory)).unwrap();
        }
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    pub(crate) fn plan(&self) -> MountPlan {
        MountPlan::new(
            vec![self.lower_dir()],
            self.upper_dir(),
            self.path("workdir"),
            self.merged_dir(),
        )
        .with_attributes(OverlayAttributes::for_this_process().unwrap())
    }

    pub(crate) fn mount(&self) {
        mount_overlay(&self.plan()).unwrap();
    }

    pub(crate) fn lower_dir(&self) -> PathBuf {
        self.path("store-a/nix/store")
    }

    pub(crate) fn upper_dir(&self) -> PathBuf {
        self.path("store-b")
    }

    pub(crate) fn merged_dir(&self) -> PathBuf {
        self.path("merged-store/nix/store")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path("merged-store/nix/var/nix")
    }

    /// The lower store, to be filled before it is below something.
    pub(crate) fn lower_store(&self) -> Store {
        let reference = StoreReference::local(self.path("store-a"));
        Store::open(resolve(&reference), OpenOptions::default()).unwrap()
    }

    pub(crate) fn reference(&self) -> StoreReference {
        let lower = StoreReference::local(self.path("store-a"));
        StoreReference::overlay(&lower, self.upper_dir(), self.path("merged-store"))
    }

    pub(crate) fn layout(&self) -> Layout {
        resolve(&self.reference())
    }

    pub(crate) fn open(&self) -> Store {
        self.open_with(OpenOptions::default())
    }

    pub(crate) fn open_with(&self, options: OpenOptions) -> Store {
        Store::open(self.layout(), options).unwrap()
    }

    pub(crate) fn view(&self) -> StoreView {
        StoreView::open_verified(&self.layout()).unwrap()
    }

    /// Names in the upper layer, sorted.
    pub(crate) fn upper_names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.upper_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Everything of the lower store, to be compared byte for byte.
    pub(crate) fn lower_tree(&self) -> Tree {
        tree(&self.path("store-a"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Not mounted, or not any more: nothing to undo.
        let _result = unmount(&self.merged_dir(), Detach::Lazily);
    }
}

pub(crate) fn resolve(reference: &StoreReference) -> Layout {
    let (layout, warnings) = Layout::resolve(reference, &Defaults::default()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    layout
}

/// Adds a text object.
pub(crate) fn add_text(store: &mut Store, name: &str, text: &str, references: &[&StorePath]) -> StorePath {
    let references = References {
        others: references.iter().map(|path| (*path).clone()).collect(),
        itself: false,
    };
    let options = AddOptions::source(Name::new(name.as_bytes()).unwrap())
        .with_method(ContentMethod::Text, HashAlgorithm::Sha256)
        .with_references(references);
    store.add(Source::Bytes(text.as_bytes()), &options).unwrap().path
}

/// Adds a directory with some files.
pub(crate) fn add_tree(store: &mut Store, name: &str, files: &[(&str, &str)]) -> StorePath {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join(name);
    for (file, text) in files {
        let file = tree.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    store
        .add(
            Source::Path(&tree),
            &AddOptions::source(Name::new(name.as_bytes()).unwrap()),
        )
        .unwrap()
        .path
}

/// Name, and mode, owner, times, size and contents of every file of a directory.
pub(crate) type Tree = BTreeMap<PathBuf, (u32, u32, i64, i64, u64, Vec<u8>)>;

pub(crate) fn tree(top: &Path) -> Tree {
    let mut found = Tree::new();
    let mut pending = vec![top.to_path_buf()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let contents = if stat.is_file() {
            fs::read(&path).unwrap()
        } else if stat.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            if stat.is_dir() {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            Vec::new()
        };
        let size = if stat.is_dir() { 0 } else { stat.size() };
        let name = path.strip_prefix(top).unwrap().to_path_buf();
        found.insert(
            name,
            (
                stat.mode(),
                stat.uid(),
                stat.mtime(),
                stat.mtime_nsec(),
                size,
                contents,
            ),
        );
    }
    found
}

pub(crate) fn is_valid(source: &dyn MetadataSource, path: &StorePath) -> bool {
    source.are_valid(std::slice::from_ref(path)).unwrap()[0]
}
