// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who vouches for an object.

use superpose_metadata::{MetadataSource, PathInfo};
use superpose_store_path::{ContentMethod, SecretKey, Signature, StorePath};

use super::Store;
use crate::{Error, Result};

/// Paths that are looked up at once: bounds the memory, not the work.
const BATCH: usize = 1024;

/// Whether signatures are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignatureCheck {
    /// An object is added only if its path follows from its content, or a trusted key has signed what is known of it,
    /// or the store says `require-sigs=false`.
    #[default]
    Required,
    /// The caller vouches for what he adds.
    Skipped,
}

/// A path for which too few vouch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untrusted {
    /// The path.
    pub path: StorePath,
    /// How many trusted keys have signed it.
    pub found: usize,
}

impl Store {
    /// Refuses an object for which nobody vouches.
    pub(super) fn require_signature(&self, info: &PathInfo, check: SignatureCheck) -> Result<()> {
        if !self.requires_signatures(check) || self.vouches_for_itself(info) || self.signers(info) > 0 {
            return Ok(());
        }
        Err(Error::Untrusted {
            path: self.dir().join(&info.path),
        })
    }

    /// Whether objects that do not vouch for themselves need a signature.
    pub(super) fn requires_signatures(&self, check: SignatureCheck) -> bool {
        check == SignatureCheck::Required && self.layout.settings().require_sigs.unwrap_or(true)
    }

    /// Whether the path follows from the content, which is compared when the object arrives.
    ///
    /// # Deviation
    /// Content addresses of git objects are not recomputed here, so they vouch for nothing.
    fn vouches_for_itself(&self, info: &PathInfo) -> bool {
        info.content_address.is_some_and(|address| {
            address.method != ContentMethod::Git
                && self
                    .dir()
                    .is_content_addressed(&info.path, &address, &info.references)
        })
    }

    /// How many trusted keys have signed what is known of an object.
    fn signers(&self, info: &PathInfo) -> usize {
        if info.signatures.is_empty() {
            return 0;
        }
        let text = self.signed_text(info);
        self.options.trusted_keys.count(text.as_bytes(), &info.signatures)
    }

    fn signed_text(&self, info: &PathInfo) -> String {
        let dir = self.dir();
        dir.fingerprint(&info.path, &info.nar_hash, info.nar_size, &info.references)
    }

    /// Signs what is known of valid paths, and returns how many signatures were not there before. Those of lower paths
    /// are kept in the upper database, where the rows of their closures are copied to in the same transaction.
    ///
    /// The objects themselves are not looked at; [`Store::verify`] does that.
    ///
    /// # Errors
    /// A path that is not valid; nothing is written then.
    pub fn sign(&mut self, paths: &[StorePath], key: &SecretKey) -> Result<usize> {
        self.add_temp_roots(paths)?;
        let mut signed: Vec<(StorePath, Signature)> = Vec::new();
        for (path, info) in paths.iter().zip(self.metadata().path_infos(paths)?) {
            let info = info.ok_or_else(|| superpose_metadata::Error::NotValid {
                path: self.dir().join(path),
            })?;
            let signature = key.sign(self.signed_text(&info).as_bytes());
            let is_known =
                info.signatures.contains(&signature) || signed.iter().any(|(known, _)| known == path);
            if !is_known {
                signed.push((info.path, signature));
            }
        }
        if !signed.is_empty() {
            self.sign_protected(&signed)?;
        }
        Ok(signed.len())
    }

    /// Returns the paths of the upper database (of a local store: all) that fewer than `needed` trusted keys have
    /// signed, in path order. Left out are paths that follow from their content; and if `needed` is 0, those that
    /// were built here, while all others need one signature, as with `nix store verify`.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn untrusted(&self, needed: usize) -> Result<Vec<Untrusted>> {
        let mut paths = Vec::new();
        self.database.for_each_valid_path(&mut |path| {
            paths.push(path);
            Ok(())
        })?;
        paths.sort_unstable();
        let mut untrusted = Vec::new();
        for batch in paths.chunks(BATCH) {
            for info in self.database.path_infos(batch)?.into_iter().flatten() {
                if self.vouches_for_itself(&info) || (needed == 0 && info.ultimate) {
                    continue;
                }
                let found = self.signers(&info);
                if found < needed.max(1) {
                    untrusted.push(Untrusted {
                        path: info.path,
                        found,
                    });
                }
            }
        }
        Ok(untrusted)
    }
}
