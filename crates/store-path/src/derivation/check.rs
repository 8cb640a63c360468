// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold of a derivation before a store may call it valid.

use super::{Derivation, DerivationKind, DerivationOutput, ModuloMemo, ReadDerivation};
use crate::content_path::{References, output_name};
use crate::error::{Error, Result, excerpt};
use crate::store_dir::StoreDir;
use crate::store_path::StorePath;

impl Derivation {
    /// Checks the derivation that is about to be registered under `path`.
    ///
    /// Its name must be that of the path, its outputs of one kind; the path of each input-addressed output
    /// must follow from the derivation, that of a fixed output from its hash, and the environment must hold
    /// that one under the name of the output. Were a wrong one registered, a store would take the output of one
    /// recipe for that of another.
    ///
    /// Use one `memo` for all derivations that are registered together.
    ///
    /// # Errors
    /// If one of these does not hold, or for the reasons of [`Derivation::hash_modulo`].
    ///
    /// # Deviation
    /// As Nix 2.34, which no longer looks for the path of an input-addressed output in the environment; Nix up to 2.32
    /// does. Some files that no Nix writes are refused here but registered there: with bytes after the last parenthesis, with
    /// the same output of an input named twice, or with a fixed output whose stated path is not that of its hash, where
    /// Nix registers the path of the hash. Deferred outputs without a deferred input are accepted, as up to Nix 2.33;
    /// nothing is registered for them. Outputs behind experimental features are checked as if those were on.
    pub fn check(
        &self,
        path: &StorePath,
        dir: &StoreDir,
        memo: &mut ModuloMemo,
        read: &mut ReadDerivation<'_>,
    ) -> Result<()> {
        let wrong = |subject: String, expected: String, found: &[u8]| {
            Err(Error::DerivationInconsistent {
                drv: path.to_string(),
                subject,
                expected,
                found: excerpt(found),
            })
        };
        if path.derivation_name() != Some(self.name.as_str()) {
            let expected = format!("`{}` and `.drv`", self.name);
            return wrong(
                "the name of its path".to_owned(),
                expected,
                path.name().as_bytes(),
            );
        }
        let modulo = match self.kind()? {
            DerivationKind::InputAddressed => match self.hash_modulo(dir, memo, read)? {
                Some(hash) => Some(hash),
                None => {
                    let expected = "deferred, since an input's outputs are not known".to_owned();
                    return wrong("the kind of its outputs".to_owned(), expected, b"input-addressed");
                }
            },
            _ => None,
        };
        for (name, output) in &self.outputs {
            let computed = match (output, &modulo) {
                (DerivationOutput::InputAddressed { .. }, Some(hash)) => {
                    dir.output_path(hash, &self.name, name)?
                }
                (DerivationOutput::Fixed { ca, .. }, _) => {
                    dir.content_path(&output_name(&self.name, name)?, ca, &References::default())?
                }
                _ => continue,
            };
            let stated = output.path();
            if stated != Some(&computed) {
                let found = stated.map_or("", |path| path.base_name());
                let expected = format!("`{computed}`");
                return wrong(format!("the path of output `{name}`"), expected, found.as_bytes());
            }
            if !matches!(output, DerivationOutput::Fixed { .. }) {
                continue;
            }
            let value = self.env.get(name.as_bytes()).map_or(&b""[..], |value| value);
            if dir.parse_path(value).ok().as_ref() != Some(&computed) {
                let expected = format!("`{}`", dir.display(&computed));
                return wrong(format!("the environment entry `{name}`"), expected, value);
            }
        }
        memo.remember(path, self, dir)
    }
}
