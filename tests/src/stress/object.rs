// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects whose contents are known, and which of them are valid for certain.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::{Context, Result, ensure};

use crate::Seeded;

/// What an object is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    File(Vec<u8>),
    /// Files by name, in directories one deep.
    Tree(BTreeMap<PathBuf, Vec<u8>>),
}

impl Content {
    /// Some content. What `number` makes different may be few things: others then make the same object. Trees share
    /// files.
    pub(crate) fn some(seeded: &mut Seeded, number: u64) -> Self {
        if seeded.chance(40) {
            return Content::File(format!("file {number}\n").repeat(100).into_bytes());
        }
        let mut files = BTreeMap::new();
        files.insert(PathBuf::from("own"), format!("tree {number}\n").into_bytes());
        for name in ["bin/tool", "share/text", "share/more"] {
            let file = vec![b'a'; 3000 + name.len() + usize::try_from(number % 3).unwrap_or(0)];
            files.insert(PathBuf::from(name), file);
        }
        Content::Tree(files)
    }

    /// Writes it beside the store.
    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        match self {
            Content::File(bytes) => fs::write(to, bytes)?,
            Content::Tree(files) => {
                for (name, bytes) in files {
                    let file = to.join(name);
                    fs::create_dir_all(file.parent().unwrap_or(to))?;
                    fs::write(file, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Reads what is at a place.
    fn read(from: &Path) -> Result<Self> {
        let found = fs::symlink_metadata(from).with_context(|| format!("looking at {}", from.display()))?;
        if found.is_file() {
            return Ok(Content::File(read(from)?));
        }
        let mut files = BTreeMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(name) = left.pop() {
            let dir = from.join(&name);
            let entries = fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
            for entry in entries {
                let entry = entry?;
                let name = name.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    left.push(name);
                } else {
                    files.insert(name.clone(), read(&from.join(&name))?);
                }
            }
        }
        Ok(Content::Tree(files))
    }

    /// Fails unless exactly this is at a place.
    pub(crate) fn expect_at(&self, place: &Path) -> Result<()> {
        let found = Self::read(place)?;
        ensure!(found == *self, "{} is {found:?}, not {self:?}", place.display());
        Ok(())
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("reading {}", file.display()))
}

/// An object that a root keeps, until its owner lets it go.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) path: String,
    pub(super) content: Content,
    /// What it refers to, itself not among it.
    pub(super) references: Vec<Arc<Object>>,
    /// Whoever looks at the object holds this for reading; its owner holds it for writing when he lets it go.
    kept: RwLock<bool>,
}

impl Object {
    pub(super) fn new(path: &str, content: Content, references: Vec<Arc<Object>>) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            content,
            references,
            kept: RwLock::new(true),
        })
    }

    /// Looks at the object while it is certainly kept; nothing is done if it is not kept any more.
    pub(super) fn while_kept(&self, look: impl FnOnce() -> Result<()>) -> Result<()> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        if *kept { look() } else { Ok(()) }
    }

    /// Nobody may count on it from now on.
    pub(super) fn let_go(&self) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// The paths of the object and all that it needs.
    pub(super) fn closure(&self) -> Vec<&Object> {
        let mut found: Vec<&Object> = vec![self];
        let mut next = 0;
        while let Some(&object) = found.get(next) {
            for reference in &object.references {
                if !found.iter().any(|one| one.path == reference.path) {
                    found.push(reference);
                }
            }
            next += 1;
        }
        found
    }
}

/// The objects that anybody may count on.
#[derive(Debug, Default)]
pub(super) struct Published(Mutex<Vec<Arc<Object>>>);

impl Published {
    pub(super) fn add(&self, object: &Arc<Object>) {
        self.lock().push(Arc::clone(object));
    }

    /// Takes an object back, before its root goes.
    pub(super) fn take_back(&self, object: &Arc<Object>) {
        self.lock().retain(|one| !Arc::ptr_eq(one, object));
        object.let_go();
    }

    /// Any of them.
    pub(super) fn any(&self, seeded: &mut Seeded) -> Option<Arc<Object>> {
        let all = self.lock();
        (!all.is_empty()).then(|| Arc::clone(seeded.choose(&all)))
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Object>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Object>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
