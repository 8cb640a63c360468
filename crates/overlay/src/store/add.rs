// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adding objects whose path follows from their content.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use superpose_metadata::PathInfo;
use superpose_nar::{FileArchive, Hashed, NarHash, Taps};
use superpose_store_path::{
    ContentAddress, ContentMethod, Hash, HashAlgorithm, Hasher, Name, References, StorePath, hash_bytes,
};

use super::Store;
use super::contents::write_contents;
use super::place::{Finished, Placed, Scratch};
use crate::crash::CrashPoint;
use crate::upper_layer::Layer;
use crate::{Error, Result};

/// Where the content of a new object comes from.
pub enum Source<'a> {
    /// A file, directory or symbolic link; a link itself, not what it points to.
    Path(&'a Path),
    /// The contents of a regular file.
    Bytes(&'a [u8]),
    /// An archive.
    Nar(&'a mut dyn Read),
    /// The contents of a regular file whose length nobody knows before they have come.
    Contents(&'a mut dyn Read),
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Source::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes.len()).finish(),
            Source::Nar(_) => f.write_str("Nar"),
            Source::Contents(_) => f.write_str("Contents"),
        }
    }
}

/// How the path of a new object follows from its content.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AddOptions {
    /// The name of the object.
    pub name: Name,
    /// What is hashed. [`ContentMethod::Git`] is not supported here.
    pub method: ContentMethod,
    /// With what it is hashed.
    pub algorithm: HashAlgorithm,
    /// What the object refers to: recorded as given, not searched for.
    pub references: References,
}

impl AddOptions {
    /// The archive hashed with SHA-256, no references: what Nix does with sources.
    #[must_use]
    pub fn source(name: Name) -> Self {
        AddOptions {
            name,
            method: ContentMethod::Nar,
            algorithm: HashAlgorithm::Sha256,
            references: References::default(),
        }
    }

    /// The same with another method and algorithm.
    #[must_use]
    pub fn with_method(mut self, method: ContentMethod, algorithm: HashAlgorithm) -> Self {
        self.method = method;
        self.algorithm = algorithm;
        self
    }

    /// The same with references.
    #[must_use]
    pub fn with_references(mut self, references: References) -> Self {
        self.references = references;
        self
    }
}

/// Whether an addition had to write something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The object is new.
    Stored,
    /// The path was valid already, in this layer: nothing was written.
    AlreadyValid(Layer),
}

impl From<Placed> for Outcome {
    fn from(placed: Placed) -> Self {
        match placed {
            Placed::Now => Outcome::Stored,
            Placed::Before(layer) => Outcome::AlreadyValid(layer),
        }
    }
}

/// What an addition made, or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The path of the object.
    pub path: StorePath,
    /// Hash and size of its archive.
    pub nar: NarHash,
    /// Whether it had to be written.
    pub outcome: Outcome,
}

impl Store {
    /// Adds an object whose path follows from its content, and protects it until the store is closed.
    ///
    /// # Errors
    /// A source that cannot be read or archived, references that are valid in no layer, a full disk. Nothing is
    /// registered then, and what had been written is removed.
    ///
    /// # Deviation
    /// In an overlay store Nix copies the metadata of a path that is valid below; here nothing at all is written.
    pub fn add(&mut self, source: Source<'_>, options: &AddOptions) -> Result<Added> {
        if options.method == ContentMethod::Git || options.references.itself {
            return Err(Error::UnsupportedMethod {
                name: options.name.as_str().to_owned(),
            });
        }
        let references: Vec<StorePath> = options.references.others.iter().cloned().collect();
        self.add_temp_roots(&references)?;
        match gather(source, options, self.options.arriving_memory)? {
            Gathered::Buffer { nar, contents } => self.add_buffered(&nar, contents, options),
            Gathered::Tree(path) => self.add_through_scratch(options, |store, scratch, taps| {
                let (parent, name) = split_parent(path)?;
                Ok(superpose_nar::copy_tree(
                    (&parent, name),
                    (store.real.fd(), scratch.name()),
                    &store.restore_options(),
                    taps,
                )?)
            }),
            Gathered::Contents(mut contents) => self.add_through_scratch(options, |store, scratch, taps| {
                let place = (store.real.fd(), store.real.path());
                write_contents(&mut contents, place, scratch.name(), store.options.durability)?;
                Ok(superpose_nar::hash_object_with(
                    store.real.fd(),
                    scratch.name(),
                    taps,
                )?)
            }),
            Gathered::Stream(mut archive) => self.add_through_scratch(options, |store, scratch, taps| {
                let options = store.restore_options();
                Ok(superpose_nar::restore_hashed(
                    &mut archive,
                    store.real.fd(),
                    scratch.name(),
                    &options,
                    taps,
                )?)
            }),
        }
    }

    /// Adds an archive that is in memory.
    fn add_buffered(&mut self, nar: &[u8], contents: Option<Hash>, options: &AddOptions) -> Result<Added> {
        let found = NarHash {
            hash: hash_bytes(HashAlgorithm::Sha256, nar),
            size: nar.len() as u64,
        };
        let content = match contents {
            Some(contents) => contents,
            None if options.algorithm == HashAlgorithm::Sha256 => found.hash,
            None => hash_bytes(options.algorithm, nar),
        };
        let info = self.new_info(options, content, found)?;
        self.add_temp_roots(std::slice::from_ref(&info.path))?;
        if let Some(layer) = self.valid_in(std::slice::from_ref(&info.path))?[0] {
            return Ok(Added {
                path: info.path,
                nar: found,
                outcome: Outcome::AlreadyValid(layer),
            });
        }
        self.with_scratch(options, |store, scratch| {
            superpose_nar::restore(
                &mut &nar[..],
                store.real.fd(),
                scratch.name(),
                &store.restore_options(),
            )?;
            store.settle(scratch, info)
        })
    }

    /// Adds an object that is too large for memory: it gets its name when it is hashed.
    fn add_through_scratch(
        &mut self,
        options: &AddOptions,
        fill: impl FnOnce(&Store, &Scratch, Taps<'_>) -> Result<Hashed>,
    ) -> Result<Added> {
        self.with_scratch(options, |store, scratch| {
            let mut hasher = Hasher::new(options.algorithm);
            let (taps, plain) = match options.method {
                ContentMethod::Nar if options.algorithm == HashAlgorithm::Sha256 => (Taps::none(), true),
                ContentMethod::Nar => (Taps::none().archive(&mut hasher), false),
                _ => (Taps::none().contents(&mut hasher), false),
            };
            let hashed = fill(store, scratch, taps)?;
            let content = if plain { hashed.nar.hash } else { hasher.finish() };
            let info = store.new_info(options, content, hashed.nar)?;
            store.add_temp_roots(std::slice::from_ref(&info.path))?;
            match store.valid_in(std::slice::from_ref(&info.path))?[0] {
                Some(layer) => Ok(Added {
                    path: info.path,
                    nar: hashed.nar,
                    outcome: Outcome::AlreadyValid(layer),
                }),
                None => store.settle(scratch, info),
            }
        })
    }

    /// Chooses a scratch name for `make`, and discards what is left under it, however that ends.
    fn with_scratch(
        &mut self,
        options: &AddOptions,
        make: impl FnOnce(&mut Store, &Scratch) -> Result<Added>,
    ) -> Result<Added> {
        let scratch = self.scratch()?;
        let added = make(self, &scratch).map_err(|error| match error {
            // It knows only names below the store directory, and of those the scratch name.
            Error::Nar(source) => Error::CannotAdd {
                name: options.name.as_str().to_owned(),
                path: self.real.path().to_owned(),
                source: Box::new(source),
            },
            other => other,
        });
        if !matches!(
            &added,
            Ok(Added {
                outcome: Outcome::Stored,
                ..
            })
        ) {
            self.discard(&scratch);
        }
        added
    }

    fn new_info(&self, options: &AddOptions, content: Hash, nar: NarHash) -> Result<PathInfo> {
        let address = ContentAddress {
            method: options.method,
            hash: content,
        };
        let path = self
            .dir()
            .content_path(&options.name, &address, &options.references)?;
        let mut info = PathInfo::new(path, nar.hash, nar.size);
        info.references = options.references.others.iter().cloned().collect();
        info.content_address = Some(address);
        Ok(info)
    }

    fn settle(&mut self, scratch: &Scratch, info: PathInfo) -> Result<Added> {
        self.options.crash_points.reached(CrashPoint::ObjectUnpacked);
        let placed = self.place(&[Finished { scratch, info: &info }])?;
        let outcome = placed.first().map_or(Outcome::Stored, |placed| (*placed).into());
        Ok(Added {
            path: info.path,
            nar: NarHash {
                hash: info.nar_hash,
                size: info.nar_size,
            },
            outcome,
        })
    }
}

/// Content on its way into the store.
enum Gathered<'a> {
    /// The whole archive, and the hash of the bare contents where the path follows from that.
    Buffer { nar: Vec<u8>, contents: Option<Hash> },
    /// A tree on this file system that is to be copied.
    Tree(&'a Path),
    /// An archive that is too large for memory.
    Stream(Box<dyn Read + 'a>),
    /// Contents that are too large for memory, and of unknown length: an archive would begin with it.
    Contents(Box<dyn Read + 'a>),
}

/// Reads small content into memory, as an archive, and decides how large content is read.
///
/// `limit` is how many bytes of archive are small. What is small is hashed before anything is written, so that adding what is
/// valid already writes nothing.
fn gather<'a>(source: Source<'a>, options: &AddOptions, limit: usize) -> Result<Gathered<'a>> {
    match (source, options.method) {
        (Source::Path(path), ContentMethod::Nar) => gather_tree(path, limit),
        (Source::Path(path), _) => {
            let file = open_regular(path)?;
            let size = file
                .metadata()
                .map_err(|source| Error::io("examine", path, source))?
                .len();
            gather_contents(Box::new(file), size, path, options, limit)
        }
        (Source::Bytes(bytes), _) => gather_contents(
            Box::new(bytes),
            bytes.len() as u64,
            Path::new("memory"),
            options,
            limit,
        ),
        (Source::Contents(contents), _) => {
            let mut start = Vec::new();
            contents
                .take(limit as u64 + 1)
                .read_to_end(&mut start)
                .map_err(|source| Error::io("read what is to be added from", "the given stream", source))?;
            if start.len() > limit {
                return Ok(Gathered::Contents(Box::new(
                    io::Cursor::new(start).chain(contents),
                )));
            }
            let size = start.len() as u64;
            gather_contents(
                Box::new(io::Cursor::new(start)),
                size,
                Path::new("memory"),
                options,
                limit,
            )
        }
        (Source::Nar(nar), ContentMethod::Nar) => gather_archive(nar, limit),
        (Source::Nar(_), _) => Err(Error::UnsupportedMethod {
            name: options.name.as_str().to_owned(),
        }),
    }
}

fn gather_tree(path: &Path, limit: usize) -> Result<Gathered<'_>> {
    let size = fs::statat(fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|source| Error::io("read what is to be added from", path, source))?
        .st_size;
    if usize::try_from(size).is_ok_and(|size| size > limit) {
        return Ok(Gathered::Tree(path));
    }
    let mut buffer = Capped(Vec::new(), limit);
    match superpose_nar::dump_path(path, &mut buffer) {
        Ok(_) => Ok(Gathered::Buffer {
            nar: buffer.0,
            contents: None,
        }),
        Err(_) if buffer.0.len() > limit => Ok(Gathered::Tree(path)),
        Err(error) => Err(error.into()),
    }
}

fn gather_contents<'a>(
    contents: Box<dyn Read + 'a>,
    size: u64,
    path: &Path,
    options: &AddOptions,
    limit: usize,
) -> Result<Gathered<'a>> {
    if size > limit as u64 {
        return Ok(Gathered::Stream(Box::new(FileArchive::new(contents, size))));
    }
    let failed = |source| Error::io("read what is to be added from", path, source);
    // A file that grows meanwhile, or does not know its size, is cut: its archive is that of what was announced.
    let mut bytes = Vec::new();
    contents.take(size).read_to_end(&mut bytes).map_err(failed)?;
    let mut nar = Vec::new();
    FileArchive::new(&bytes[..], bytes.len() as u64)
        .read_to_end(&mut nar)
        .map_err(failed)?;
    let contents = (options.method != ContentMethod::Nar).then(|| hash_bytes(options.algorithm, &bytes));
    Ok(Gathered::Buffer { nar, contents })
}

fn gather_archive(nar: &mut dyn Read, limit: usize) -> Result<Gathered<'_>> {
    let mut start = Vec::new();
    nar.take(limit as u64 + 1)
        .read_to_end(&mut start)
        .map_err(|source| Error::io("read the archive from", "the given stream", source))?;
    if start.len() > limit {
        return Ok(Gathered::Stream(Box::new(io::Cursor::new(start).chain(nar))));
    }
    // The path follows from the bytes of the archive and of nothing behind it.
    let mut reader = superpose_nar::Reader::new(&start[..]);
    while reader.next_event()? != superpose_nar::Event::End {}
    let end = usize::try_from(reader.offset()).unwrap_or(usize::MAX);
    start.truncate(end);
    Ok(Gathered::Buffer {
        nar: start,
        contents: None,
    })
}

/// Opens a regular file, following links: the contents count, not the name.
fn open_regular(path: &Path) -> Result<File> {
    let file = fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(|source| Error::io("open", path, source))?;
    let stat = fs::fstat(file.as_fd()).map_err(|source| Error::io("examine", path, source))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::NotARegularFile {
            path: path.to_path_buf(),
        });
    }
    Ok(file.into())
}

/// Opens the directory that holds what a path names.
fn split_parent(path: &Path) -> Result<(OwnedFd, OsString)> {
    let whole;
    // `.`, `..` and `/` have no name of their own.
    let path = if path.file_name().is_some() {
        path
    } else {
        whole = path
            .canonicalize()
            .map_err(|source| Error::io("find", path, source))?;
        &whole
    };
    let name = path
        .file_name()
        .ok_or_else(|| Error::io("add", path, io::Error::from(io::ErrorKind::InvalidInput)))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = fs::open(
        parent,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|source| Error::io("open", parent, source))?;
    Ok((directory, name.to_os_string()))
}

/// Refuses to grow beyond the limit, so that a large tree is noticed early.
struct Capped(Vec<u8>, usize);

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        if self.0.len() > self.1 {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            Ok(bytes.len())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
