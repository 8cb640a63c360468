// SPDX-License-Identifier: MIT OR Apache-2.0
//! Passing objects on as a stream.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use superpose_metadata::{MetadataSource, PathInfo};
use superpose_nar::Taps;
use superpose_store_path::{HashEncoding, StorePath};

use super::StoreView;
use super::merged::after_edges;
use crate::export_stream::{put_info, put_number};
use crate::store::total_size;
use crate::watch::{Doing, Progress, Watch};
use crate::{Error, Result};

/// Small archives and what stands between archives go out in pieces of this many bytes.
const BUFFER: usize = 256 << 10;

/// What an export wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// How many objects.
    pub objects: u64,
    /// Bytes of their archives.
    pub bytes: u64,
}

impl StoreView {
    /// Writes valid paths to a stream as `nix-store --export` does: each once, what they refer to before them. Only the
    /// given paths are written, not what else they need.
    ///
    /// Each archive is hashed while it is written, on a thread of its own, and compared with what was registered.
    ///
    /// # Errors
    /// A path that is not valid: nothing is written then. [`Error::Changed`] for an object that is not what was registered,
    /// whatever the receiver fails with, [`Error::Stopped`]: what was written by then is no whole stream, and no
    /// importer takes it for one.
    ///
    /// # Deviation
    /// Nix looks for invalid paths one by one, and has written something by then.
    pub fn export(
        &self,
        paths: &[StorePath],
        out: &mut (dyn Write + Send),
        watch: &Watch,
    ) -> Result<Exported> {
        let infos = self.in_order_of_references(paths)?;
        let directory = self.open_objects()?;
        let mut progress = Progress::new(Doing::Copying, infos.len() as u64);
        progress.all_bytes = Some(total_size(infos.iter()));
        let mut out = Remembering {
            out: io::BufWriter::with_capacity(BUFFER, out),
            failed: None,
        };
        let mut words = Vec::new();
        for info in &infos {
            watch.go_on()?;
            words.clear();
            put_number(1, &mut words);
            out.put(&words)?;
            let taps = Taps::none().archive(&mut out);
            let hashed = superpose_nar::hash_object_with(&directory, info.path.base_name(), taps);
            let found = match (out.failed.take(), hashed) {
                (Some(source), _) => return Err(Error::WriteExport { source }),
                (None, hashed) => hashed?.nar,
            };
            // Rows of very old stores do not say what the object was.
            let is_known = info.nar_hash.digest().iter().any(|&byte| byte != 0);
            if is_known && found.hash != info.nar_hash {
                return Err(Error::Changed {
                    path: self.store_dir().join(&info.path),
                    expected: info.nar_hash.render(HashEncoding::Nix32),
                    found: found.hash.render(HashEncoding::Nix32),
                });
            }
            words.clear();
            put_info(info, self.store_dir(), &mut words);
            out.put(&words)?;
            progress.done += 1;
            progress.bytes += found.size;
            watch.progress(&progress);
        }
        words.clear();
        put_number(0, &mut words);
        out.put(&words)?;
        out.out.flush().map_err(|source| Error::WriteExport { source })?;
        Ok(Exported {
            objects: progress.done,
            bytes: progress.bytes,
        })
    }

    /// What is known of paths: each once, by name, but after what it refers to; the order in which Nix writes them.
    fn in_order_of_references(&self, paths: &[StorePath]) -> Result<Vec<PathInfo>> {
        let mut sorted: Vec<StorePath> = paths
            .iter()
            .cloned()
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        sorted.sort_unstable();
        let mut infos = Vec::with_capacity(sorted.len());
        for (path, info) in sorted.iter().zip(self.path_infos(&sorted)?) {
            infos.push(info.ok_or_else(|| superpose_metadata::Error::NotValid {
                path: self.store_dir().join(path),
            })?);
        }
        let numbers: HashMap<&StorePath, usize> = sorted.iter().zip(0..).collect();
        let edges: Vec<Vec<usize>> = infos
            .iter()
            .map(|info| {
                let others = info.references.iter().filter(|path| **path != info.path);
                others.filter_map(|path| numbers.get(path).copied()).collect()
            })
            .collect();
        let mut infos: Vec<Option<PathInfo>> = infos.into_iter().map(Some).collect();
        Ok(after_edges(&edges)
            .into_iter()
            .filter_map(|number| infos[number].take())
            .collect())
    }
}

/// A writer that remembers its own error, which is none of the object that is being written.
struct Remembering<W> {
    out: W,
    failed: Option<io::Error>,
}

impl<W: Write> Remembering<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .map_err(|source| Error::WriteExport { source })
    }
}

impl<W: Write> Write for Remembering<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| {
            let kind = error.kind();
            // An interrupted write is tried again.
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
