// SPDX-License-Identifier: MIT OR Apache-2.0
//! What requests and replies are made of.

mod basic_derivation;
mod build_result;
mod content_method;
mod derived_path;
mod garbage;
mod json;
mod options;
mod path_info;
mod realisation;

pub use basic_derivation::BasicDerivation;
pub use build_result::{BuildMode, BuildResult, BuildStatus, BuiltOutput, KeyedBuildResult};
pub use content_method::MethodAlgorithm;
pub use derived_path::{DerivedPath, OutputsSpec, SingleDerivedPath};
pub use garbage::{CollectGarbage, Collected, GcAction, GcTarget};
pub use options::ClientOptions;
pub use path_info::{SubstitutablePathInfo, UnkeyedValidPathInfo, ValidPathInfo};
pub(crate) use path_info::{read_content_address, read_signatures, write_content_address, write_signatures};
pub(crate) use realisation::as_mark;
pub use realisation::{DrvOutput, Realisation, RealisationAnswer, UnkeyedRealisation};
