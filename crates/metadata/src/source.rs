// SPDX-License-Identifier: MIT OR Apache-2.0
//! The read trait that all backends share.

use superpose_store_path::{HashPart, StoreDir, StorePath};

use crate::{ArchiveInfo, Edition, PathInfo, Realisation, RealisationKey, Result};

/// In which direction references are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closure {
    /// To what a path refers to.
    References,
    /// To what refers to a path.
    Referrers,
}

/// The outputs of a derivation whose paths are known: name and path, sorted by name.
pub type Outputs = Vec<(String, StorePath)>;

/// A function that is shown paths and says of each whether a walk leaves it out.
pub type Prune<'a> = dyn FnMut(&[StorePath]) -> Result<Vec<bool>> + 'a;

/// A function that is given paths one by one.
pub type Visit<'a> = dyn FnMut(StorePath) -> Result<()> + 'a;

/// Something that knows which paths are valid, and what there is to know of them.
///
/// Every question takes many paths at once, and every answer is in the order of the question, so that each
/// backend can answer in the way that is cheapest for it. One call sees one state of the store. Validity is
/// a matter of the records: files are not looked at.
pub trait MetadataSource {
    /// Returns the logical store directory of all paths.
    fn store_dir(&self) -> &StoreDir;

    /// Returns the edition that the source is in, by which answers can be kept: they still hold if it is the same that
    /// was told before they were given. `None` if the source cannot tell, as by default.
    ///
    /// # Errors
    /// If the source cannot be read.
    fn edition(&self) -> Result<Option<Edition>> {
        Ok(None)
    }

    /// Tells which paths are valid.
    ///
    /// # Errors
    /// If the source cannot be read.
    fn are_valid(&self, paths: &[StorePath]) -> Result<Vec<bool>>;

    /// Returns what is known of paths; `None` for those that are not valid.
    ///
    /// # Errors
    /// If the source cannot be read, or holds something impossible about one of the paths.
    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>>;

    /// Returns hash and length of the archives of paths; `None` for those that are not valid. It is as strict as
    /// [`path_infos`](Self::path_infos), and cheaper, since references are not looked at.
    ///
    /// # Errors
    /// If the source cannot be read, or holds something impossible about one of the paths.
    fn archives(&self, paths: &[StorePath]) -> Result<Vec<Option<ArchiveInfo>>> {
        let infos = self.path_infos(paths)?.into_iter();
        Ok(infos.map(|info| info.as_ref().map(ArchiveInfo::from)).collect())
    }

    /// Returns the roots and all that is reached from them, each once.
    ///
    /// Every path comes after those that it leads to: dependencies before dependents when references are
    /// followed, dependents before dependencies when referrers are.
    ///
    /// # Errors
    /// [`Error::NotValid`](crate::Error::NotValid) for a root that is not valid, or if the source cannot be
    /// read.
    fn closure(&self, roots: &[StorePath], direction: Closure) -> Result<Vec<StorePath>>;

    /// Returns what is known of the roots and all that they refer to, directly or not: each once,
    /// dependencies before dependents.
    ///
    /// `prune` is shown each path once, the roots too, in batches. A path that it answers with true is neither
    /// returned nor followed, nor need it be valid if it is a root. It may be shown a path again if the source
    /// changed in the meantime and the walk has to start anew.
    ///
    /// # Errors
    /// [`Error::NotValid`](crate::Error::NotValid) for a root that is not valid, if the source cannot be read or
    /// holds something impossible about one of the paths, or what `prune` fails with.
    fn closure_infos(&self, roots: &[StorePath], prune: &mut Prune<'_>) -> Result<Vec<PathInfo>>;

    /// Returns the paths that refer to each path, sorted; a path may be its own referrer. A path that is not
    /// valid has none.
    ///
    /// # Errors
    /// If the source cannot be read, or holds something impossible about one of the paths.
    fn referrers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>>;

    /// Returns the valid derivations that have each path among their outputs, sorted. The path itself need not be
    /// valid.
    ///
    /// # Errors
    /// If the source cannot be read, or holds something impossible about one of the paths.
    fn valid_derivers(&self, paths: &[StorePath]) -> Result<Vec<Vec<StorePath>>>;

    /// Returns the outputs of derivations whose paths are known; `None` for derivations that are not valid.
    ///
    /// # Errors
    /// If the source cannot be read, or holds something impossible about one of the derivations.
    fn derivation_outputs(&self, derivations: &[StorePath]) -> Result<Vec<Option<Outputs>>>;

    /// Returns a valid path for each hash part, if there is one.
    ///
    /// # Errors
    /// If the source cannot be read, or holds something impossible about one of the paths.
    fn path_from_hash_part(&self, parts: &[HashPart]) -> Result<Vec<Option<StorePath>>>;

    /// Returns the realisations of the given keys.
    ///
    /// # Errors
    /// If the source cannot be read, or holds something impossible about one of the keys.
    fn realisations(&self, keys: &[RealisationKey]) -> Result<Vec<Option<Realisation>>>;

    /// Returns the realisations of both kinds that lead to one of the given paths, sorted by key.
    ///
    /// # Errors
    /// If the source cannot be read, or holds something impossible about one of them.
    fn realisations_of(&self, outputs: &[StorePath]) -> Result<Vec<Realisation>>;

    /// Shows every valid path once, in no particular order, without holding all of them in memory.
    ///
    /// # Errors
    /// If the source cannot be read or holds a path that is not one, or what `visit` fails with. Paths that
    /// were shown before the failure were right.
    fn for_each_valid_path(&self, visit: &mut Visit<'_>) -> Result<()>;

    /// Returns how many paths are valid.
    ///
    /// # Errors
    /// If the source cannot be read.
    fn count(&self) -> Result<u64>;
}
