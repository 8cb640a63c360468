// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is odd about a store URL, but no reason to refuse it.

use std::fmt;

use crate::error::excerpt;

/// Something in a store URL that has no effect, and probably should have had one. Texts are decoded where
/// they were encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlWarning {
    /// A setting is given more than once; the first value counts.
    DuplicateKey {
        /// The name of the setting.
        key: Vec<u8>,
        /// The value that counts.
        used: Vec<u8>,
        /// The later value.
        ignored: Vec<u8>,
    },
    /// A piece of the query has no `=`.
    DubiousPiece {
        /// The piece, as it stands in the URL.
        piece: Vec<u8>,
    },
    /// A setting is not one of this kind of store.
    UnknownSetting {
        /// The name of the setting.
        key: Vec<u8>,
    },
    /// What follows a `#` is not part of the store's URL.
    IgnoredFragment {
        /// The fragment, as it stands in the URL.
        fragment: Vec<u8>,
    },
    /// The path of the URL does not count, since `root` is given as well.
    ShadowedPath {
        /// The path.
        path: Vec<u8>,
        /// The `root` that counts.
        root: Vec<u8>,
    },
    /// Something is odd about the URL of the lower store.
    LowerStore(Box<UrlWarning>),
}

impl fmt::Display for UrlWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateKey { key, used, ignored } => {
                let (key, used, ignored) = (excerpt(key), excerpt(used), excerpt(ignored));
                write!(
                    f,
                    "setting `{key}` is given twice: using `{used}`, ignoring `{ignored}`"
                )
            }
            Self::DubiousPiece { piece } => {
                write!(
                    f,
                    "ignoring `{}` in the query of a store URL: it has no `=`",
                    excerpt(piece)
                )
            }
            Self::UnknownSetting { key } => write!(f, "ignoring unknown setting `{}`", excerpt(key)),
            Self::IgnoredFragment { fragment } => {
                let fragment = excerpt(fragment);
                write!(
                    f,
                    "ignoring `#{fragment}` in a store URL: write `#` as `%23` where it is meant"
                )
            }
            Self::ShadowedPath { path, root } => {
                let (path, root) = (excerpt(path), excerpt(root));
                write!(
                    f,
                    "ignoring the path `{path}` of a store URL: its setting `root` is `{root}`"
                )
            }
            Self::LowerStore(warning) => write!(f, "in the setting `lower-store`: {warning}"),
        }
    }
}
