// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server answers after it succeeded.

mod bodies;
mod body;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

pub use bodies::{Done, GcRoot, Missing, OutputNames, RawNar, RootPath};
pub use body::{Body, read_reply, write_reply};
use superpose_store_path::{Name, StorePath};

use crate::codec::{WireReader, WireWriter};
use crate::dialect::Dialect;
use crate::error::Result;
use crate::operation::Operation;
use crate::value::{
    BuildResult, Collected, KeyedBuildResult, RealisationAnswer, SubstitutablePathInfo, UnkeyedValidPathInfo,
    ValidPathInfo,
};

/// Makes the shapes and the enumeration of bodies from one table: name, type, words for errors.
macro_rules! shapes {
    ($( $(#[$doc:meta])* $name:ident($body:ty) = $words:literal; )*) => {
        /// What kind of body a reply has; [`Operation::shape`] tells which.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Shape {
            $( $(#[$doc])* $name, )*
        }

        impl Shape {
            /// Returns it in words.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    $( Self::$name => $words, )*
                }
            }
        }

        /// The body of any reply: for those who pass replies on. Who asks knows what comes, and has it by [`read_reply`].
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Reply {
            $( $(#[$doc])* $name($body), )*
        }

        impl Reply {
            /// Returns what kind of body it is.
            #[must_use]
            pub const fn shape(&self) -> Shape {
                match self {
                    $( Self::$name(_) => Shape::$name, )*
                }
            }

            /// Reads the body of a reply, as a message of its own towards the limits; what comes before it was read.
            ///
            /// # Errors
            /// If the source fails or ends, or a field is not valid.
            pub fn read<R: Read>(
                input: &mut WireReader<R>,
                operation: Operation,
                dialect: &Dialect,
            ) -> Result<Self> {
                input.begin_message();
                Ok(match operation.shape() {
                    $( Shape::$name => Self::$name(<$body as Body>::read(input, dialect)?), )*
                })
            }

            /// Writes the body of a reply, without what comes before it.
            ///
            /// # Errors
            /// If a value cannot be sent, and then nothing was written; if the receiver fails.
            pub fn write<W: Write>(&self, out: &mut WireWriter<W>, dialect: &Dialect) -> Result<()> {
                match self {
                    $( Self::$name(body) => {
                        Body::check(body, dialect)?;
                        Body::write(body, out, dialect)
                    } )*
                }
            }
        }
    };
}

shapes! {
    /// Nothing at all.
    Nothing(()) = "nothing";
    /// A number that says no more than that the server is done.
    Done(Done) = "a mark that it is done";
    /// Yes or no.
    Flag(bool) = "yes or no";
    /// A path.
    Path(StorePath) = "a path";
    /// A path, if there is one.
    OptionalPath(Option<StorePath>) = "a path, if there is one";
    /// A set of paths.
    Paths(BTreeSet<StorePath>) = "a set of paths";
    /// What is known of a path, if it is valid.
    PathInfo(Option<UnkeyedValidPathInfo>) = "what is known of a path";
    /// The path that was added, and what is known of it.
    AddedPath(ValidPathInfo) = "what is known of an added path";
    /// What could be substituted, if it can.
    Substitutable(Option<SubstitutablePathInfo>) = "what is known of a substitutable path";
    /// What could be substituted, by path.
    Substitutables(BTreeMap<StorePath, SubstitutablePathInfo>) = "what is known of substitutable paths";
    /// The roots.
    Roots(Vec<GcRoot>) = "roots";
    /// What was collected.
    Collected(Collected) = "what was collected";
    /// The names of a derivation's outputs.
    OutputNames(OutputNames) = "names of outputs";
    /// The paths of a derivation's outputs, as far as they are known.
    OutputMap(BTreeMap<Name, Option<StorePath>>) = "outputs by name";
    /// What would have to be built or fetched.
    Missing(Missing) = "what is missing";
    /// How a build went.
    BuildResult(BuildResult) = "how a build went";
    /// How builds went.
    BuildResults(Vec<KeyedBuildResult>) = "how builds went";
    /// What an output turned out to be.
    Realisation(RealisationAnswer) = "a realisation";
    /// Where a root was made.
    RootPath(RootPath) = "the path of a root";
    /// An archive, which is not read or written here.
    RawNar(RawNar) = "an archive";
}
