// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations, by their numbers, and what each is answered with.

use std::fmt;

use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::feature::Feature;
use crate::reply::Shape;
use crate::version::Version;

/// Makes the enumeration from one table: name, number, shape of the reply, version that it needs.
macro_rules! operations {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, $shape:ident, $minor:literal; )*) => {
        /// What a client can ask of a server.
        ///
        /// Operations that no client from 2.26 on sends to a server of [`Version::MINIMUM`] are left out: 3 to 5, 16, 24, 25
        /// and 27. Numbers from 48 on are reserved, or other projects use them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Operation {
            $( $(#[$doc])* $name, )*
        }

        impl Operation {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// Finds the operation of a number.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$name), )*
                    _ => None,
                }
            }

            /// Returns the number.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self {
                    $( Self::$name => $number, )*
                }
            }

            /// Returns the name that Nix has for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => stringify!($name), )*
                }
            }

            /// Returns what it is answered with.
            #[must_use]
            pub const fn shape(self) -> Shape {
                match self {
                    $( Self::$name => Shape::$shape, )*
                }
            }

            /// Returns the version from which on it has the form that is known here.
            #[must_use]
            pub const fn since(self) -> Version {
                match self {
                    $( Self::$name => Version::new(1, $minor), )*
                }
            }
        }
    };
}

operations! {
    /// Is a path valid?
    IsValidPath = 1, Flag, 18;
    /// What refers to a path?
    QueryReferrers = 6, Paths, 18;
    /// Adds an object that is to get the path that follows from its content. A stream follows.
    AddToStore = 7, AddedPath, 25;
    /// Adds a file. Obsolete since 1.25.
    AddTextToStore = 8, Path, 18;
    /// Builds or substitutes.
    BuildPaths = 9, Done, 18;
    /// Makes a path valid, by substitution if need be.
    EnsurePath = 10, Done, 18;
    /// Keeps a path for as long as the connection lasts.
    AddTempRoot = 11, Done, 18;
    /// Keeps what a link points to.
    AddIndirectRoot = 12, Done, 18;
    /// Does nothing. Obsolete.
    SyncWithGC = 13, Done, 18;
    /// What are the roots?
    FindRoots = 14, Roots, 18;
    /// What is the deriver of a path? Obsolete.
    QueryDeriver = 18, OptionalPath, 18;
    /// Sets what the client wants of the connection.
    SetOptions = 19, Nothing, 18;
    /// Collects garbage.
    CollectGarbage = 20, Collected, 18;
    /// Can a path be substituted? Unused since 2.4.
    QuerySubstitutablePathInfo = 21, Substitutable, 18;
    /// What are the outputs of a derivation? Obsolete since 1.22.
    QueryDerivationOutputs = 22, Paths, 18;
    /// Which paths are valid?
    QueryAllValidPaths = 23, Paths, 18;
    /// What is known of a path?
    QueryPathInfo = 26, PathInfo, 18;
    /// How are the outputs of a derivation called? Obsolete.
    QueryDerivationOutputNames = 28, OutputNames, 18;
    /// Which path begins with a hash part?
    QueryPathFromHashPart = 29, OptionalPath, 18;
    /// Which paths can be substituted, and how?
    QuerySubstitutablePathInfos = 30, Substitutables, 18;
    /// Which of these paths are valid?
    QueryValidPaths = 31, Paths, 18;
    /// Which of these paths can be substituted?
    QuerySubstitutablePaths = 32, Paths, 18;
    /// Which valid derivations have a path as an output?
    QueryValidDerivers = 33, Paths, 18;
    /// Deduplicates the store.
    OptimiseStore = 34, Done, 18;
    /// Verifies the store.
    VerifyStore = 35, Flag, 18;
    /// Builds a derivation that comes with the request.
    BuildDerivation = 36, BuildResult, 18;
    /// Adds signatures to a path.
    AddSignatures = 37, Done, 18;
    /// Sends the archive of a path.
    NarFromPath = 38, RawNar, 18;
    /// Adds an object of which everything is known. A stream follows.
    AddToStoreNar = 39, Nothing, 23;
    /// What would have to be built or fetched?
    QueryMissing = 40, Missing, 19;
    /// What are the outputs of a derivation, by their names?
    QueryDerivationOutputMap = 41, OutputMap, 22;
    /// Records a realisation.
    RegisterDrvOutput = 42, Nothing, 31;
    /// What did an output turn out to be?
    QueryRealisation = 43, Realisation, 31;
    /// Adds many objects of which everything is known. A stream follows.
    AddMultipleToStore = 44, Nothing, 32;
    /// Adds the log of a build. A stream follows.
    AddBuildLog = 45, Done, 25;
    /// Builds or substitutes, and says how each went.
    BuildPathsWithResults = 46, BuildResults, 34;
    /// Keeps a path by a root in a place of the client's choice.
    AddPermRoot = 47, RootPath, 18;
    /// Hands in an output from within a build. Nix 2.36.
    SubmitOutput = 1000, Done, 38;
    /// Adds an object from within a build, and finds its references. A stream follows. Nix 2.36.
    AddToStoreScanning = 1001, AddedPath, 38;
}

impl Operation {
    /// Returns the feature without which it does not exist.
    #[must_use]
    pub const fn feature(self) -> Option<Feature> {
        match self {
            Self::SubmitOutput => Some(Feature::SubmitOutput),
            Self::AddToStoreScanning => Some(Feature::AddToStoreScanning),
            _ => None,
        }
    }

    /// Tells whether a framed stream follows the request. The server has to read it to its end whatever becomes of it,
    /// before it says that it succeeded.
    #[must_use]
    pub const fn has_stream(self) -> bool {
        matches!(
            self,
            Self::AddToStore
                | Self::AddToStoreNar
                | Self::AddMultipleToStore
                | Self::AddBuildLog
                | Self::AddToStoreScanning
        )
    }

    /// Finds what the connection did not agree on, before anything is written.
    pub(crate) fn check(self, dialect: &Dialect) -> Result<()> {
        if dialect.version < self.since() {
            return Err(Error::NeedsVersion {
                operation: self,
                needs: self.since(),
                agreed: dialect.version,
            });
        }
        match self.feature() {
            Some(needs) if !dialect.has(needs) => Err(Error::NeedsFeature {
                operation: self,
                needs,
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_and_rise() {
        for &operation in Operation::ALL {
            assert_eq!(Operation::from_number(operation.number()), Some(operation));
        }
        assert!(Operation::ALL.is_sorted_by_key(|operation| operation.number()));
        for removed in [0, 2, 3, 4, 5, 15, 16, 17, 24, 25, 27, 48, 9999, u64::MAX] {
            assert_eq!(Operation::from_number(removed), None, "{removed}");
        }
    }

    #[test]
    fn what_was_not_agreed_on_is_refused() {
        let old = Dialect {
            version: Version::new(1, 24),
            ..Dialect::default()
        };
        assert!(matches!(
            Operation::AddToStore.check(&old),
            Err(Error::NeedsVersion { .. })
        ));
        assert!(Operation::AddToStore.check(&Dialect::default()).is_ok());
        assert!(matches!(
            Operation::SubmitOutput.check(&Dialect::default()),
            Err(Error::NeedsFeature {
                needs: Feature::SubmitOutput,
                ..
            })
        ));
    }
}
