// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text that is signed.

use std::collections::BTreeSet;

use crate::hash::{Hash, HashEncoding};
use crate::store_dir::StoreDir;
use crate::store_path::StorePath;

impl StoreDir {
    /// Returns the text over which signatures of a path are made: the path, the hash and size of its archive, and what
    /// it refers to.
    ///
    /// The references are sorted, each once. Who built it, and when, is not part of the text.
    #[must_use]
    pub fn fingerprint<'a>(
        &self,
        path: &StorePath,
        nar_hash: &Hash,
        nar_size: u64,
        references: impl IntoIterator<Item = &'a StorePath>,
    ) -> String {
        let hash = nar_hash.render(HashEncoding::Nix32);
        let mut text = format!("1;{};{hash};{nar_size};", self.display(path));
        let references: BTreeSet<&StorePath> = references.into_iter().collect();
        for (number, reference) in references.into_iter().enumerate() {
            if number > 0 {
                text.push(',');
            }
            self.push(reference, &mut text);
        }
        text
    }
}
