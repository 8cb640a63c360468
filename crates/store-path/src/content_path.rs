// SPDX-License-Identifier: MIT OR Apache-2.0
//! Store paths computed from what they stand for.

use std::collections::BTreeSet;

use crate::content_address::{ContentAddress, ContentMethod};
use crate::error::{Error, Result};
use crate::hash::{Hash, HashAlgorithm, HashEncoding, Hasher, hash_bytes};
use crate::name::Name;
use crate::store_dir::StoreDir;
use crate::store_path::{HashPart, StorePath};

/// The output whose name is not part of the store path's name.
pub const DEFAULT_OUTPUT: &str = "out";

/// What an object refers to, in the form in which it enters the object's own path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// The other objects.
    pub others: BTreeSet<StorePath>,
    /// Whether the object refers to itself.
    pub itself: bool,
}

impl References {
    /// Splits the references of an object into the others and itself.
    #[must_use]
    pub fn of<'a>(path: &StorePath, references: impl IntoIterator<Item = &'a StorePath>) -> Self {
        let mut others: BTreeSet<_> = references.into_iter().cloned().collect();
        let itself = others.remove(path);
        Self { others, itself }
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.others.is_empty() && !self.itself
    }
}

impl StoreDir {
    /// Computes the path of a content-addressed object.
    ///
    /// # Errors
    /// If the combination cannot exist: only archives hashed with SHA-256, and text, may have references;
    /// text is hashed with SHA-256 and does not refer to itself; git objects are hashed with SHA-1 or
    /// SHA-256.
    pub fn content_path(
        &self,
        name: &Name,
        ca: &ContentAddress,
        references: &References,
    ) -> Result<StorePath> {
        let algorithm = ca.hash.algorithm();
        let refuse = |problem| Error::ContentPath {
            name: name.clone(),
            method: ca.method,
            algorithm,
            problem,
        };
        match (ca.method, algorithm) {
            (ContentMethod::Text, HashAlgorithm::Sha256) if references.itself => {
                Err(refuse("a text object cannot refer to itself"))
            }
            (ContentMethod::Text, HashAlgorithm::Sha256) => {
                Ok(self.digest_path("text", references, &ca.hash, name))
            }
            (ContentMethod::Text, _) => Err(refuse("text objects are hashed with sha256")),
            (ContentMethod::Nar, HashAlgorithm::Sha256) => {
                Ok(self.digest_path("source", references, &ca.hash, name))
            }
            _ if !references.is_empty() => Err(refuse(
                "only text objects, and archives hashed with sha256, can have references",
            )),
            (ContentMethod::Git, algorithm)
                if !matches!(algorithm, HashAlgorithm::Sha1 | HashAlgorithm::Sha256) =>
            {
                Err(refuse("git objects are hashed with sha1 or sha256"))
            }
            _ => {
                let digest = ca.hash.render(HashEncoding::Base16);
                let inner = format!("fixed:out:{}{digest}:", ca.method.prefix());
                let inner = hash_bytes(HashAlgorithm::Sha256, inner.as_bytes());
                Ok(self.digest_path("output:out", references, &inner, name))
            }
        }
    }

    /// Computes the path of an input-addressed output: of the derivation's hash modulo, the derivation's name
    /// without `.drv`, and the output's name.
    ///
    /// # Errors
    /// If the resulting name is not allowed.
    pub fn output_path(&self, drv_hash_modulo: &Hash, drv_name: &Name, output: &str) -> Result<StorePath> {
        let name = output_name(drv_name, output)?;
        let kind = format!("output:{output}");
        Ok(self.digest_path(&kind, &References::default(), drv_hash_modulo, &name))
    }

    /// Tells whether `path` is the path that its content address and references lead to. The content itself
    /// is not looked at.
    #[must_use]
    pub fn is_content_addressed<'a>(
        &self,
        path: &StorePath,
        ca: &ContentAddress,
        references: impl IntoIterator<Item = &'a StorePath>,
    ) -> bool {
        Name::new(path.name().as_bytes())
            .and_then(|name| self.content_path(&name, ca, &References::of(path, references)))
            .is_ok_and(|computed| computed == *path)
    }

    /// Hashes `<kind><references>:<inner digest>:<store directory>:<name>` and folds the digest to a hash
    /// part.
    fn digest_path(&self, kind: &str, references: &References, inner: &Hash, name: &Name) -> StorePath {
        let mut hasher = Hasher::new(HashAlgorithm::Sha256);
        hasher.update(kind.as_bytes());
        for reference in &references.others {
            for part in [":", self.as_str(), "/", reference.base_name()] {
                hasher.update(part.as_bytes());
            }
        }
        if references.itself {
            hasher.update(b":self");
        }
        let inner = inner.render(HashEncoding::Base16);
        for part in [":", &inner, ":", self.as_str(), ":", name.as_str()] {
            hasher.update(part.as_bytes());
        }
        StorePath::from_parts(HashPart::new(hasher.finish().compress()), name)
    }
}

/// Returns the name of an output's object: the derivation's, plus `-<output>` unless the output is `out`.
///
/// # Errors
/// If the result is not a valid name.
pub fn output_name(drv_name: &Name, output: &str) -> Result<Name> {
    if output == DEFAULT_OUTPUT {
        Ok(drv_name.clone())
    } else {
        Name::new(format!("{drv_name}-{output}").as_bytes())
    }
}
